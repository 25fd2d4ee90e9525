//! Real HTTP between hosts and containers: a server that says who it is, a forwarder for gateways, a client.
//!
//! Invariant: servers are processes of their own inside the namespace they serve, so that they die with it;
//! each says on its standard output when it listens, so that nobody has to guess.

pub mod attack;
mod bulk;
pub mod client;
pub mod forwarder;
pub mod name;
pub mod nginx;
pub mod server;

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What a server prints once it listens.
pub const LISTENING: &str = "listening";

/// A text answer with a status.
fn text(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// Serves `port` on all addresses for ever: `answer` makes the answer of each request on a connection.
fn serve<A, F, B>(port: u16, answer: A) -> Result<()>
where
    A: Fn(Request<Incoming>, Ends) -> F + Clone + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        let listener = listen(port).await.with_context(|| format!("listen on port {port}"))?;
        announce().context("say that it listens")?;
        loop {
            let (stream, _) = listener.accept().await.context("accept a connection")?;
            let Ok(ends) = Ends::of(&stream) else { continue };
            let answer = answer.clone();
            let requests = Cell::new(0);
            let service = service_fn(move |request| {
                requests.set(requests.get() + 1);
                let response = answer(request, Ends { request: requests.get(), ..ends });
                async { Ok::<_, std::convert::Infallible>(response.await) }
            });
            // A client that breaks off is not this server's fault.
            tokio::task::spawn_local(async move {
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            });
        }
    })
}

/// The two addresses of a connection, and which request on it this is.
#[derive(Clone, Copy, Debug)]
struct Ends {
    own: IpAddr,
    peer: IpAddr,
    /// From 1; 0 before the first.
    request: u32,
}

impl Ends {
    fn of(stream: &TcpStream) -> io::Result<Self> {
        let (own, peer) = (stream.local_addr()?.ip().to_canonical(), stream.peer_addr()?.ip().to_canonical());
        Ok(Self { own, peer, request: 0 })
    }
}

/// Both families at once, or IPv4 alone where there is no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(err) if err.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

fn announce() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{LISTENING}")?;
    out.flush()
}
