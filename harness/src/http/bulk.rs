//! Bodies of any size: the same bytes by position everywhere, in two halves of which the second waits for word of the first.
//!
//! Invariant: whoever keeps a body back until he has it all, gateway or proxy, never gets the second half.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::client::Question;
use super::server::SAW_BYTES;

/// The path of a download; its query is the number of bytes.
pub(super) const DOWNLOAD: &str = "/__download";
/// The path that says: the first half of the download is here.
pub(super) const GO_ON: &str = "/__go-on";

const CHUNK: usize = 64 * 1024;
/// Between two questions how much of an upload has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A prime, so that no chunk looks like another.
const PERIOD: u64 = 251;
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..=u8::MAX).cycle().filter(|it| u64::from(*it) < PERIOD).take(2 * CHUNK).collect());

/// The bytes of every body at `place`, a chunk at most.
fn bytes(place: u64, count: usize) -> Bytes {
    let start = usize::try_from(place % PERIOD).unwrap_or_default();
    PATTERN.slice(start..start + count.min(CHUNK))
}

fn is_as_it_should_be(data: &[u8], place: u64) -> bool {
    (0..).step_by(CHUNK).zip(data.chunks(CHUNK)).all(|(offset, part)| part == bytes(place + offset, part.len()))
}

/// A body of `total` bytes; the second half waits for `word`.
pub(super) fn body(total: u64, word: Arc<Notify>) -> UnsyncBoxBody<Bytes, Infallible> {
    let chunks = stream::unfold((0, word), move |(start, word)| async move {
        if start >= total {
            return None;
        }
        let half = total / 2;
        if start == half {
            word.notified().await;
        }
        let left = if start < half { half - start } else { total - start };
        let part = bytes(start, usize::try_from(left).unwrap_or(CHUNK));
        let end = start + part.len() as u64;
        Some((Ok(Frame::data(part)), (end, word)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// Reads a body as long as it is as it should be; gives the number of bytes that were. Tells `so_far` after each part.
pub(super) async fn read(mut body: Incoming, start: u64, until: u64, mut so_far: impl FnMut(u64)) -> (u64, Incoming) {
    let mut place = start;
    while place < until
        && let Some(Ok(frame)) = body.frame().await
    {
        let Ok(data) = frame.into_data() else { continue };
        if !is_as_it_should_be(&data, place) {
            break;
        }
        place += data.len() as u64;
        so_far(place);
    }
    (place, body)
}

/// Uploads `total` bytes, of which the second half leaves when the server has the first; then downloads in the same way. Does
/// `halfway` when half of the download is here and the rest is on its way: nothing more is read before that is done.
pub(super) async fn both_ways(question: &Question, total: u64, halfway: impl FnOnce()) -> Result<()> {
    upload(question, total).await.context("upload")?;
    download(question, total, halfway).await.context("download")
}

async fn upload(question: &Question, total: u64) -> Result<()> {
    let word = Arc::new(Notify::new());
    let request = Request::post(&question.path).header(HOST, &question.host).header(CONTENT_LENGTH, total);
    let request = request.body(body(total, Arc::clone(&word))).context("word the request")?;
    let first_half = async {
        loop {
            let seen = saw_bytes(&ask(question, &question.path).await?);
            if seen >= total / 2 {
                word.notify_one();
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    let (response, ()) = futures_util::future::try_join(send(question, request), first_half).await?;
    match (response.status().as_u16(), saw_bytes(&response)) {
        (200, seen) if seen == total => Ok(()),
        (status, seen) => bail!("see {total} bytes arrive intact: status {status}, {seen} bytes"),
    }
}

async fn download(question: &Question, total: u64, halfway: impl FnOnce()) -> Result<()> {
    let path = format!("{DOWNLOAD}?{total}");
    let request = Request::get(path).header(HOST, &question.host).body(Empty::<Bytes>::new());
    let response = send(question, request.context("word the request")?).await?;
    let status = response.status();
    let (first, rest) = read(response.into_body(), 0, total / 2, |_| ()).await;
    if first < total / 2 {
        bail!("see the first {} bytes arrive intact: status {status}, {first} bytes", total / 2);
    }
    ask(question, GO_ON).await?;
    halfway();
    match read(rest, first, total, |_| ()).await.0 {
        all if all == total => Ok(()),
        some => bail!("see {total} bytes arrive intact: {some} did"),
    }
}

fn ask(question: &Question, path: &str) -> impl Future<Output = Result<Response<Incoming>>> {
    let request = Request::get(path).header(HOST, &question.host).body(Empty::<Bytes>::new());
    async { send(question, request.context("word the request")?).await }
}

/// On a connection of its own.
async fn send<B>(question: &Question, request: Request<B>) -> Result<Response<Incoming>>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let stream = TcpStream::connect(question.address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.send_request(request).await?)
}

fn saw_bytes(response: &Response<Incoming>) -> u64 {
    let header = response.headers().get(SAW_BYTES).and_then(|value| value.to_str().ok()?.parse().ok());
    header.unwrap_or_default()
}
