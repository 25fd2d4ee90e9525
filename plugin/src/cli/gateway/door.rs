//! Where questions come in: HTTP connections, of which strangers may open as many as they like.
//!
//! Whatever they send or leave out costs a bounded amount of memory, descriptors and time, and keeps nobody else waiting: when
//! there are too many connections, the oldest goes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use super::answers;
use super::node::Node;

/// Well below the 1024 descriptors that a process has by default.
const CONNECTIONS_MAX: usize = 512;
/// A question has a handful of headers of some bytes each. hyper allows no less than 8 KiB.
const HEADERS_MAX: usize = 32;
const HEADERS_MAX_BYTES: usize = 8192;
/// How long the next question on a connection may take to come in.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be used, and then how long its last answer may take.
const CONNECTION_LIFE: Duration = Duration::from_mins(5);
const LAST_ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// When no connection can be accepted, descriptors for example, the next try is this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All open connections, whichever address they came to.
pub(super) struct Door {
    node: Rc<Node>,
    open: RefCell<VecDeque<AbortHandle>>,
}

impl Door {
    pub(super) fn new(node: Rc<Node>) -> Self {
        Self { node, open: RefCell::default() }
    }

    /// Answers whoever connects, for ever.
    pub(super) async fn serve(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
            // Those inside are served before the next come in, who might push them out.
            yield_now().await;
        }
    }

    fn admit(&self, stream: TcpStream) {
        let mut open = self.open.borrow_mut();
        if open.len() >= CONNECTIONS_MAX {
            open.retain(|connection| !connection.is_finished());
        }
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(spawn_local(converse(stream, Rc::clone(&self.node))).abort_handle());
    }
}

async fn converse(stream: TcpStream, node: Rc<Node>) {
    // Small answers, each of which somebody waits for; without it they are only slower.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| {
        let node = Rc::clone(&node);
        async move { Ok::<_, Infallible>(answers::answer(&node, &request).await) }
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(QUESTION_PATIENCE);
    protocol.max_headers(HEADERS_MAX).max_buf_size(HEADERS_MAX_BYTES);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is its other side's affair.
    if timeout(CONNECTION_LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        drop(timeout(LAST_ANSWER_PATIENCE, connection).await);
    }
}
