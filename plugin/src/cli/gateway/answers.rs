//! What `flatnet gateway` answers: `/resolve` for gateways, `/names` and `/health` for people and scripts.
//!
//! A request changes nothing, and nothing of it is believed but the one host name that it asks for, and the address that it comes from:
//! all names, and what is wrong with the host, are for the host itself and for its `gateways`, but not for the clients of a gateway.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::node::Node;
use super::visitor::Visitor;
use crate::error::Result;

/// In a question: the host name that a client of the gateway asked for.
const HOST: &str = "x-flatnet-host";
/// In an answer: where the gateway passes the request on to, address and port.
const UPSTREAM: &str = "x-flatnet-upstream";
/// In an answer: the container's name.
const CONTAINER: &str = "x-flatnet-container";
/// In an answer: why there is no such container.
const REASON: &str = "x-flatnet-reason";

/// In a request that a proxy passes on: the client's address.
const FORWARDED_FOR: &str = "x-forwarded-for";

const PATHS: &str = "\
/resolve  with the header X-Flatnet-Host: where that container is
/names    all names, as JSON: for this host and its gateways
/health   whether containers can be reached, as JSON; 503 if not
";
const NAMES_REFUSED: &str = "\
/names is for this host and for the hosts in `gateways` of a network's configuration; /resolve is for all.
";

type Answer = Response<Full<Bytes>>;

/// Answers a request; what goes wrong is an answer too.
pub(super) async fn answer(node: &Node, visitor: Visitor, request: &Request<Incoming>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let may_read_all = may_read_all(node, visitor, request.headers());
    let answer = match request.uri().path() {
        "/resolve" => resolve(node, request.headers()).await,
        "/names" if may_read_all => names(node).await,
        "/names" => Ok(text(StatusCode::FORBIDDEN, NAMES_REFUSED)),
        "/health" => health(node, may_read_all).await,
        _ => Ok(text(StatusCode::NOT_FOUND, PATHS)),
    };
    answer.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n{}\n", error.remedy())))
}

/// Whether the visitor may read all, and each client that it says it asks for. A proxy's word can only take a right away.
fn may_read_all(node: &Node, visitor: Visitor, headers: &HeaderMap) -> bool {
    let trusted = |client: &str| {
        let client = client.trim().parse::<IpAddr>();
        client.is_ok_and(|client| node.visitor(SocketAddr::new(client, 0), None).may_read_all())
    };
    let all_trusted = |clients: &HeaderValue| clients.to_str().is_ok_and(|clients| clients.split(',').all(trusted));
    visitor.may_read_all() && headers.get_all(FORWARDED_FOR).iter().all(all_trusted)
}

/// In the words of nginx's `auth_request`: 204 goes on, 403 does not, and all that it reads is headers.
async fn resolve(node: &Node, headers: &HeaderMap) -> Result<Answer> {
    let Some(host) = headers.get(HOST) else {
        return Ok(text(StatusCode::BAD_REQUEST, "the header X-Flatnet-Host says which name is meant\n"));
    };
    let names = node.names().await?;
    let found = names.resolve(host.to_str().unwrap_or_default());
    let (status, headers) = match &found {
        Ok(found) => {
            (StatusCode::NO_CONTENT, vec![(UPSTREAM, found.upstream.to_string()), (CONTAINER, found.name.to_owned())])
        }
        Err(unknown) => (StatusCode::FORBIDDEN, vec![(REASON, unknown.to_string())]),
    };
    let mut answer = text(status, "");
    for (name, value) in headers {
        // A name that no header can carry is one that nobody needs to hear.
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    Ok(answer)
}

async fn names(node: &Node) -> Result<Answer> {
    let names = node.names().await?;
    Ok(json(StatusCode::OK, names.json().clone()))
}

async fn health(node: &Node, may_read_all: bool) -> Result<Answer> {
    let health = node.health().await?;
    let status = if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = if may_read_all { json!(*health) } else { json!({ "healthy": health.is_healthy() }) };
    Ok(json(status, format!("{told:#}\n")))
}

fn json(status: StatusCode, value: impl Into<Bytes>) -> Answer {
    let mut answer = text(status, value);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
