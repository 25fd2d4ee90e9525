//! One GET, for what doctor asks of servers: status and a piece of the body.
//!
//! The whole exchange has one deadline; whatever comes is told in kind, as each kind has another remedy.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Enough to know a server by.
const ANSWER_MAX_BYTES: usize = 16 << 10;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An HTTP response.
    Status {
        code: u16,
        /// The header `Server`.
        server: Option<String>,
        body: String,
    },
    /// Nobody listens there.
    Refused,
    /// Nothing came in time: packets get lost.
    Timeout,
    /// In words.
    Otherwise(String),
}

/// `GET path` of `address`, under the name `host`; `patience` is for connecting, asking and hearing.
pub(super) fn get(address: SocketAddr, host: &str, path: &str, patience: Duration) -> Answer {
    let until = Instant::now() + patience;
    loop {
        match exchange(address, host, path, until) {
            Ok(answer) => return answer,
            // A process that is stopped for a moment finds its system calls so: a socket with a timeout does not go on by itself.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => return Answer::Refused,
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => return Answer::Timeout,
            Err(e) => return Answer::Otherwise(e.to_string()),
        }
    }
}

fn exchange(address: SocketAddr, host: &str, path: &str, until: Instant) -> io::Result<Answer> {
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: flatnet-doctor\r\nConnection: close\r\n\r\n")?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while bytes.len() < ANSWER_MAX_BYTES && !is_whole(&bytes) {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut chunk)? {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(read(&String::from_utf8_lossy(&bytes)).unwrap_or_else(|| Answer::Otherwise("what answers is not HTTP".into())))
}

/// Whether all of a body of known length is there; of others the end of the connection tells.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    header(head, "content-length")
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| body.len() >= length)
}

fn read(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer::Status { code, server: header(head, "server").map(str::to_owned), body: body.to_owned() })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tokio::net::TcpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    /// A server that says one thing, and then waits for the client to go. Not for the first client alone: another test may try the port, taking it
    /// for a free one.
    fn serving(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    drop(stream.write_all(answer.as_bytes()));
                    drop(stream.read_to_end(&mut Vec::new()));
                });
            }
        });
        address
    }

    #[test]
    fn an_answer_of_known_length_is_not_waited_for_beyond_it() {
        let address = serving("HTTP/1.1 200 OK\r\nSERVER: me\r\ncontent-length: 2\r\n\r\n{}");
        let start = Instant::now();
        let expected = Answer::Status { code: 200, server: Some("me".into()), body: "{}".into() };
        assert_eq!(get(address, "x", "/", PATIENCE), expected);
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }

    #[test]
    fn other_ends_are_told_in_kind() {
        assert_eq!(get(serving("SSH-2.0-x\r\n\r\n"), "x", "/", PATIENCE), Answer::Timeout);
        // Bound, and never listened on: a listener that is dropped lives on in whatever other tests have forked meanwhile, takes the connection,
        // and resets it when that process ends.
        let taken = TcpSocket::new_v4().expect("a socket");
        taken.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        assert_eq!(get(taken.local_addr().expect("an address"), "x", "/", PATIENCE), Answer::Refused);
    }
}
