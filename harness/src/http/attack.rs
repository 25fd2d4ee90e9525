//! Clients that mean no good: many connections that say too little, or one that says too much.
//!
//! Invariant: they end at the time that they are given, and hold no more than the connections that they are given.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Begin a request on each connection, and never end it; a connection that is closed is opened again.
    Hold,
    /// Send requests one behind the other without end, and read all answers.
    Pipeline,
    /// The same, and read nothing.
    Unread,
    /// Connect and go, again and again.
    Connect,
}

/// An attack, to be carried out from the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Attack {
    /// What is done.
    pub kind: Kind,
    /// Where to.
    pub address: SocketAddr,
    /// What is asked for.
    pub path: String,
    /// By how many workers at once.
    pub workers: usize,
    /// How many connections each of them holds at once.
    pub connections: usize,
    /// When it is over.
    pub until: Instant,
}

/// How long a connection may take to be made, and one read or write: an attacker waits for nobody.
const MOMENT: Duration = Duration::from_millis(20);
const CONNECT_PATIENCE: Duration = Duration::from_millis(300);
/// What a worker rests: it is the server that is to be kept busy, and not the processor.
const IDLE: Duration = Duration::from_millis(2);
/// How many requests go out at once.
const BATCH: usize = 64;

impl Attack {
    /// Goes on until it is over.
    pub fn run(&self) {
        thread::scope(|scope| {
            for _ in 0..self.workers {
                scope.spawn(|| self.work());
            }
        });
    }

    fn work(&self) {
        let begun = format!("GET {} HT", self.path);
        let whole = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.path).repeat(BATCH);
        let mut open: Vec<TcpStream> = Vec::new();
        while Instant::now() < self.until {
            match self.kind {
                Kind::Connect => drop(self.connect()),
                Kind::Hold => {
                    open.retain(is_open);
                    if open.len() >= self.connections {
                        thread::sleep(MOMENT);
                    } else if let Some(mut stream) = self.connect() {
                        drop(stream.write_all(begun.as_bytes()));
                        open.push(stream);
                        thread::sleep(IDLE);
                    }
                }
                Kind::Pipeline | Kind::Unread => {
                    while open.len() < self.connections && Instant::now() < self.until {
                        let Some(stream) = self.connect() else { break };
                        open.push(stream);
                        thread::sleep(IDLE);
                    }
                    let mut moved = 0;
                    open.retain_mut(|stream| self.exchange(stream, whole.as_bytes(), &mut moved));
                    if moved == 0 {
                        thread::sleep(IDLE);
                    }
                }
            }
        }
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_PATIENCE).ok()?;
        stream.set_nonblocking(true).ok().map(|()| stream)
    }

    /// Sends what can be sent, and reads what has come; says whether the connection is open still.
    fn exchange(&self, stream: &mut TcpStream, words: &[u8], moved: &mut usize) -> bool {
        // A request that is cut in two is no request: the rest of it is sent later, or the connection is as good as held.
        let sent = stream.write(words);
        let mut heard = Ok(1);
        let mut bytes = [0; 1 << 14];
        while self.kind == Kind::Pipeline && heard.as_ref().is_ok_and(|count| *count > 0) && Instant::now() < self.until
        {
            heard = stream.read(&mut bytes);
            *moved += heard.as_ref().map_or(0, |count| *count);
        }
        *moved += sent.as_ref().map_or(0, |count| *count);
        let goes_on = |outcome: std::io::Result<usize>| match outcome {
            Ok(count) => count > 0,
            Err(err) => err.kind() == ErrorKind::WouldBlock,
        };
        goes_on(sent) && goes_on(heard)
    }
}

/// Whether the other side has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(err) if err.kind() == ErrorKind::WouldBlock)
}
