//! GETs and WebSocket echoes from inside a given namespace.
//!
//! Invariant: one attempt, over by the deadline; what stood in the way is told apart (unreachable, refused, late).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::bulk;
use crate::deadline;
use crate::lab::Namespace;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Whom to connect to.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The path and query.
    pub path: String,
    /// How long all of it may take.
    pub patience: Duration,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No way to the address.
    Unreachable,
    /// Nobody listens there.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// The connection broke off.
    Broken,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        })
    }
}

/// GETs once, from inside `from`.
pub fn get(from: &Namespace, question: &Question) -> Result<Result<Answer, NoAnswer>> {
    converse(from, question, ask(question))
}

/// GETs until the answer is 200, for the question's patience at most: a server may take a moment to listen.
pub fn get_served(from: &Namespace, question: &Question) -> Result<Answer> {
    let mut last = None;
    let answer = deadline::until(question.patience, || match get(from, question) {
        Ok(Ok(answer)) if answer.status == 200 => Some(answer),
        other => {
            last = Some(other);
            None
        }
    });
    answer.with_context(|| format!("get a page from {}: the last try gave {last:?}", question.address))
}

/// Sends `text` as one frame, from inside `from`, and gives what comes back.
pub fn websocket(from: &Namespace, question: &Question, text: &str) -> Result<Result<String, NoAnswer>> {
    converse(from, question, echo(question, text))
}

/// Uploads and downloads `bytes` each, from inside `from`; both must come through as they are sent, not all at once at the end.
/// `halfway` is done in the middle of the download, which waits for it.
pub fn transfer(
    from: &Namespace,
    question: &Question,
    bytes: u64,
    halfway: impl FnOnce() + Send,
) -> Result<Result<(), NoAnswer>> {
    converse(from, question, bulk::both_ways(question, bytes, halfway))
}

fn converse<T: Send>(
    from: &Namespace,
    question: &Question,
    talk: impl Future<Output = Result<T>> + Send,
) -> Result<Result<T, NoAnswer>> {
    from.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        match runtime.block_on(async { timeout(question.patience, talk).await }) {
            Err(_) => Ok(Err(NoAnswer::Timeout)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(err)) => no_answer(&err).map(Err).ok_or(err),
        }
    })
}

fn no_answer(err: &anyhow::Error) -> Option<NoAnswer> {
    if err.downcast_ref::<hyper::Error>().is_some() {
        return Some(NoAnswer::Broken);
    }
    match err.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some(NoAnswer::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(NoAnswer::Unreachable),
        io::ErrorKind::TimedOut => Some(NoAnswer::Timeout),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Some(NoAnswer::Broken),
        _ => None,
    }
}

async fn ask(question: &Question) -> Result<Answer> {
    let stream = TcpStream::connect(question.address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(&question.path)
        .header(hyper::header::HOST, &question.host)
        .body(Empty::<Bytes>::new())
        .context("word the request")?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let headers = headers.collect();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

async fn echo(question: &Question, text: &str) -> Result<String> {
    let stream = TcpStream::connect(question.address).await?;
    let url = format!("ws://{}{}", question.host, question.path);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.context("agree on a WebSocket")?;
    socket.send(Message::text(text)).await.context("send a frame")?;
    let frame = socket.next().await.ok_or_else(|| anyhow!("receive a frame: the connection ended"))?;
    match frame.context("receive a frame")? {
        Message::Text(text) => Ok(text.to_string()),
        other => bail!("receive a text frame: got {other:?}"),
    }
}
