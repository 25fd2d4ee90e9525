//! What runs in a container: answers who it is and whose address it saw, so that one GET proves both the way and its directness.
//!
//! Invariant: every answer carries the `x-served-by`, `x-served-at` and `x-saw-*` headers, whatever the body is.

use std::rc::Rc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Ends, text};

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

/// Serves `port` as the container `name` until it is killed; without a `body` the answer says as JSON what the headers say.
pub fn run(name: &str, port: u16, body: Option<String>) -> Result<()> {
    let me = Rc::new((name.to_owned(), body));
    super::serve(port, move |request, ends| {
        let me = Rc::clone(&me);
        async move { answer(&me.0, me.1.as_deref(), request, ends) }
    })
}

fn answer(name: &str, body: Option<&str>, request: Request<Incoming>, ends: Ends) -> Response<Full<Bytes>> {
    let header = |wanted: &str| {
        let value = request.headers().get(wanted).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (host, forwarded) = (header(HOST.as_str()), header("x-forwarded-for"));
    let said = [
        (SERVED_BY, name.to_owned()),
        (SERVED_AT, ends.own.to_string()),
        (SAW_PEER, ends.peer.to_string()),
        (SAW_HOST, host),
        (SAW_FORWARDED_FOR, forwarded),
    ];
    let mut response = match request.headers().get(SEC_WEBSOCKET_KEY) {
        Some(key) => accept_websocket(&key.clone(), request),
        None => text(200, body.map_or_else(|| describe(name, ends, request.uri().path()), str::to_owned)),
    };
    add_headers(response.headers_mut(), said);
    response
}

fn describe(name: &str, ends: Ends, path: &str) -> String {
    format!("{}\n", json!({ "name": name, "address": ends.own, "peer": ends.peer, "path": path }))
}

fn add_headers(headers: &mut HeaderMap, said: [(&'static str, String); 5]) {
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
