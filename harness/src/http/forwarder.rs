//! A gateway's proxy with nothing installed: passes a request to the container that its `Host` names.
//!
//! Invariant: connects only to what [`super::name`] calls a container.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::name::{self, Target};
use super::{Ends, text};

/// The port it serves.
pub const PORT: u16 = 80;

/// How long a container may take to accept a connection. The node needs 3 s to find that nobody has an address.
const CONNECT_PATIENCE: Duration = Duration::from_millis(4500);

/// How long a container may take to begin its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves port 80 until it is killed.
pub fn run() -> Result<()> {
    super::serve(PORT, |request, ends| async move {
        forward(request, ends).await.unwrap_or_else(|(status, why)| {
            text(status, format!("{why}\n")).map(|body| Full::map_err(body, |never| match never {}).boxed())
        })
    })
}

async fn forward(mut request: Request<Incoming>, ends: Ends) -> Result<Response<Body>, (u16, String)> {
    let host = asked_host(&request);
    let address = match name::target(&host) {
        Target::Container(address) => address,
        Target::Forbidden => return Err((403, format!("{host} is not a container's address"))),
        Target::Unknown => return Err((404, format!("{host} is not the name of a container"))),
    };
    prepare(&mut request, &host, ends);
    let stream = match timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err((502, format!("{address} cannot be reached: {err}"))),
        Err(_) => return Err((504, format!("{address} does not answer: is there a route to it?"))),
    };
    let wish = request.headers().contains_key(hyper::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let mut response = match timeout(ANSWER_PATIENCE, send(stream, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(err)) => return Err((502, format!("{address} broke off: {err}"))),
        Err(_) => return Err((504, format!("{address} took the request and gave no answer"))),
    };
    if let Some(near) = wish.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        join(near, hyper::upgrade::on(&mut response));
    }
    Ok(response.map(BodyExt::boxed))
}

/// The host in a request line outranks the header (RFC 9112, 3.2.2).
fn asked_host(request: &Request<Incoming>) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map_or_else(|| header.unwrap_or_default().to_owned(), ToString::to_string)
}

/// Makes the request one to an origin, and adds who asked.
fn prepare(request: &mut Request<Incoming>, host: &str, ends: Ends) {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    let before = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let chain = before.map_or_else(|| ends.peer.to_string(), |before| format!("{before}, {}", ends.peer));
    for (name, value) in [("x-forwarded-for", chain.as_str()), (HOST.as_str(), host)] {
        if let (Ok(name), Ok(value)) = (hyper::header::HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

async fn send(stream: TcpStream, request: Request<Incoming>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    sender.send_request(request).await
}

/// Passes bytes both ways until either side ends.
fn join(near: hyper::upgrade::OnUpgrade, far: hyper::upgrade::OnUpgrade) {
    tokio::task::spawn_local(async move {
        if let (Ok(near), Ok(far)) = (near.await, far.await) {
            drop(copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await);
        }
    });
}
