//! What runs in a container: answers who it is and whose address it saw, so that one GET proves both the way and its directness.
//!
//! Invariant: every answer carries the `x-served-by`, `x-served-at` and `x-saw-*` headers, whatever the body is.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Ends, bulk, text};

/// The container's name.
pub const SERVED_BY: &str = "x-served-by";
/// The container's own address on this connection.
pub const SERVED_AT: &str = "x-served-at";
/// The address from which the request came.
pub const SAW_PEER: &str = "x-saw-peer";
/// The request's `Host`.
pub const SAW_HOST: &str = "x-saw-host";
/// The request's `X-Forwarded-For`.
pub const SAW_FORWARDED_FOR: &str = "x-saw-forwarded-for";
/// Which request on its connection this is, from 1.
pub const SAW_REQUEST: &str = "x-saw-request";
/// How many bytes of the last upload have come, as they should be.
pub const SAW_BYTES: &str = "x-saw-bytes";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Who answers, and what has come so far.
struct Me {
    name: String,
    body: Option<String>,
    uploaded: Cell<u64>,
    /// The client has the first half of a download.
    go_on: Arc<Notify>,
}

/// Serves `port` as the container `name` until it is killed; without a `body` the answer says as JSON what the headers say.
pub fn run(name: &str, port: u16, body: Option<String>) -> Result<()> {
    let me = Rc::new(Me { name: name.to_owned(), body, uploaded: Cell::new(0), go_on: Arc::default() });
    super::serve(port, move |request, ends| {
        let me = Rc::clone(&me);
        async move { me.answer(request, ends).await }
    })
}

impl Me {
    async fn answer(&self, request: Request<Incoming>, ends: Ends) -> Answer {
        let header = |wanted: &str| {
            let value = request.headers().get(wanted).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (host, forwarded) = (header(HOST.as_str()), header("x-forwarded-for"));
        let mut response = self.content(request, ends).await;
        let said = [
            (SERVED_BY, self.name.clone()),
            (SERVED_AT, ends.own.to_string()),
            (SAW_PEER, ends.peer.to_string()),
            (SAW_HOST, host),
            (SAW_FORWARDED_FOR, forwarded),
            (SAW_REQUEST, ends.request.to_string()),
            (SAW_BYTES, self.uploaded.get().to_string()),
        ];
        add_headers(response.headers_mut(), said);
        response
    }

    async fn content(&self, request: Request<Incoming>, ends: Ends) -> Answer {
        if let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) {
            return accept_websocket(&key.clone(), request).map(BodyExt::boxed_unsync);
        }
        let path = request.uri().path().to_owned();
        match (path.as_str(), request.uri().query().and_then(|query| query.parse().ok())) {
            (bulk::DOWNLOAD, Some(total)) => return Response::new(bulk::body(total, Arc::clone(&self.go_on))),
            (bulk::GO_ON, _) => self.go_on.notify_one(),
            _ if !request.body().is_end_stream() => {
                self.uploaded.set(0);
                drop(bulk::read(request.into_body(), 0, u64::MAX, |bytes| self.uploaded.set(bytes)).await);
            }
            _ => {}
        }
        let text = text(200, self.body.clone().unwrap_or_else(|| describe(&self.name, ends, &path)));
        text.map(BodyExt::boxed_unsync)
    }
}

fn describe(name: &str, ends: Ends, path: &str) -> String {
    format!("{}\n", json!({ "name": name, "address": ends.own, "peer": ends.peer, "path": path }))
}

fn add_headers(headers: &mut HeaderMap, said: [(&'static str, String); 7]) {
    for (name, value) in said {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

/// Agrees to the upgrade and then echoes every frame.
fn accept_websocket(key: &HeaderValue, request: Request<Incoming>) -> Response<Full<Bytes>> {
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (mut sink, stream) = futures_util::StreamExt::split(socket);
        let mut frames = stream.try_filter(|frame| std::future::ready(frame.is_text() || frame.is_binary()));
        while let Ok(Some(frame)) = frames.try_next().await {
            if sink.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut response = text(101, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
