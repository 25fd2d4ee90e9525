//! Where questions come in: HTTP connections, of which strangers may open as many as they like.
//!
//! Whatever they send or leave out costs a bounded amount of memory, descriptors and time, and keeps nobody else waiting: each kind of
//! visitor, and each of them, has a share of the connections and of the work.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answers;
use super::barred::Barred;
use super::node::Node;
use super::shares::{Place, Shares};
use super::visitor;

/// A question has a handful of headers of some bytes each. hyper allows no less than 8 KiB.
const HEADERS_MAX: usize = 32;
const HEADERS_MAX_BYTES: usize = 8192;
/// How long the next question on a connection may take to come in.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may be asked on a connection, as when the answers before are not read. Longer than any answer takes to be found.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a connection may be used, and then how long its last answer may take.
const CONNECTION_LIFE: Duration = Duration::from_mins(5);
const LAST_ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// When no connection can be accepted, descriptors for example, the next try is this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All open connections, whichever address they came to.
pub(super) struct Door {
    node: Rc<Node>,
    shares: Rc<Shares>,
}

/// Gives a connection's place back, however it ends.
struct Seat {
    shares: Rc<Shares>,
    place: Place,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shares.leave(self.place);
    }
}

impl Door {
    pub(super) fn new(node: Rc<Node>) -> Self {
        Self { node, shares: Rc::default() }
    }

    /// Answers whoever connects, for ever.
    pub(super) async fn serve(self: Rc<Self>, listener: TcpListener) {
        let mut barred = Barred::default();
        loop {
            let accepted = match barred.next_end() {
                None => listener.accept().await,
                Some(end) => {
                    let accepted = timeout_at(end, listener.accept()).await;
                    barred.lift(&listener);
                    let Ok(accepted) = accepted else { continue };
                    accepted
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some(origin) = self.admit(stream) {
                        barred.bar(&listener, origin);
                    }
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
            // Those inside are served before the next come in.
            yield_now().await;
        }
    }

    /// Serves it, or closes it and gives the origin that has asked for too much.
    fn admit(&self, stream: TcpStream) -> Option<IpAddr> {
        // One that has gone already has no address.
        let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else { return None };
        let visitor = self.node.visitor(peer, Some(own));
        let origin = visitor::origin(visitor, peer.ip());
        let Some(place) = self.shares.admit(visitor, origin) else { return Some(origin) };
        let seat = Seat { shares: Rc::clone(&self.shares), place };
        let task = spawn_local(converse(stream, Rc::clone(&self.node), seat));
        self.shares.served_by(place, task.abort_handle());
        None
    }
}

async fn converse(stream: TcpStream, node: Rc<Node>, seat: Seat) {
    // Small answers, each of which somebody waits for; without it they are only slower.
    drop(stream.set_nodelay(true));
    let opened = Instant::now();
    let asked = Rc::new(Cell::new(opened));
    let service = service_fn(|request| {
        let (node, shares, place, asked) = (Rc::clone(&node), Rc::clone(&seat.shares), seat.place, Rc::clone(&asked));
        async move {
            shares.turn(place).await;
            asked.set(Instant::now());
            let answer = answers::answer(&node, place.visitor(), &request).await;
            // Those who send one question behind the other come around like everybody else.
            yield_now().await;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(QUESTION_PATIENCE);
    protocol.max_headers(HEADERS_MAX).max_buf_size(HEADERS_MAX_BYTES);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is its other side's affair.
    loop {
        let until = (asked.get() + SILENCE).min(opened + CONNECTION_LIFE);
        if timeout_at(until, connection.as_mut()).await.is_ok() {
            return;
        }
        let now = Instant::now();
        if now >= opened + CONNECTION_LIFE {
            connection.as_mut().graceful_shutdown();
            drop(timeout(LAST_ANSWER_PATIENCE, connection).await);
            return;
        }
        if now >= asked.get() + SILENCE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::thread;

    use tokio::task::LocalSet;

    use super::*;

    const QUESTION: &str =
        "GET /resolve HTTP/1.1\r\nHost: x\r\nX-Flatnet-Host: nobody.flat\r\nConnection: close\r\n\r\n";

    /// What comes back on `stream` until its end, or until it is cut off.
    fn rest(mut stream: TcpStream) -> String {
        // Sooner than silence ends a connection: that is something else.
        stream.set_read_timeout(Some(QUESTION_PATIENCE / 2)).expect("a deadline");
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("{e}"),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    fn tell(address: SocketAddr, words: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).expect("a connection");
        // It may be cut off before all is said.
        drop(stream.write_all(words));
        stream
    }

    /// Runs `client` against a real service on a loopback address.
    fn serving(client: impl FnOnce(SocketAddr) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let door = Rc::new(Door::new(Rc::new(Node::new().expect("a node"))));
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (done, over) = tokio::sync::oneshot::channel();
            thread::spawn(move || {
                client(address);
                done.send(()).expect("the service still runs");
            });
            spawn_local(door.serve(listener));
            over.await.expect("the client is satisfied");
        });
    }

    fn answers(address: SocketAddr) -> bool {
        let answer = rest(tell(address, QUESTION.as_bytes()));
        answer.starts_with("HTTP/1.1 403") && answer.contains("x-flatnet-reason: no running container is called nobody")
    }

    #[test]
    fn nonsense_gets_an_error_and_keeps_nobody_waiting() {
        serving(|address| {
            let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
            let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
            let body = format!("POST /resolve HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n{}", "a".repeat(1 << 20));
            for words in ["\0\r\n\r\n", "\u{16}\u{3}\u{1}", "GET\r\n\r\n", &long, &many, &body] {
                let answer = rest(tell(address, words.as_bytes()));
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
                assert!(answers(address), "after {:.20}", words.escape_debug().to_string());
            }
        });
    }

    #[test]
    fn those_who_only_wait_make_room_for_those_who_ask() {
        serving(|address| {
            // All are of this host, which has a share of 384.
            let waiting: Vec<_> = (0..424).map(|_| tell(address, b"GET /resolve HT")).collect();
            assert!(answers(address));
            let oldest = waiting.into_iter().next().expect("the first");
            assert_eq!(rest(oldest), "");
        });
    }

    #[test]
    fn one_connection_may_ask_often() {
        serving(|address| {
            let twice = QUESTION.replace("Connection: close\r\n", "") + QUESTION;
            assert_eq!(rest(tell(address, twice.as_bytes())).matches("HTTP/1.1 403").count(), 2);
        });
    }
}
