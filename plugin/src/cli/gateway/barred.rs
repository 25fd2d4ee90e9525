//! Origins that a listener takes no connections from for a while. The kernel drops their SYNs: they cost no handshake, no place in the queue in
//! which others wait, and no descriptor.
//!
//! Invariant: the listener's filter names those that are barred, and nobody else. Where the kernel takes no filter, each connection is closed
//! as soon as it is accepted.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::libc::{self, sock_filter, sock_fprog, socklen_t};
use tokio::time::Instant;

/// How long.
const WHILE: Duration = Duration::from_secs(1);
/// How many at once: a filter's jumps and the kernel's work for each SYN are short then.
const MOST: usize = 64;

/// Those of one listener, and until when.
#[derive(Default)]
pub(super) struct Barred(BTreeMap<IpAddr, Instant>);

impl Barred {
    /// From now on, for a while, nothing of `origin` comes in. Those that are queued already still do.
    pub(super) fn bar(&mut self, listener: &impl AsFd, origin: IpAddr) {
        if self.0.len() < MOST && !self.0.contains_key(&origin) {
            self.0.insert(origin, Instant::now() + WHILE);
            self.apply(listener);
        }
    }

    /// When the first of them may come in again.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Lets those in whose time is over.
    pub(super) fn lift(&mut self, listener: &impl AsFd) {
        let (before, now) = (self.0.len(), Instant::now());
        self.0.retain(|_, until| *until > now);
        if self.0.len() != before {
            self.apply(listener);
        }
    }

    fn apply(&self, listener: &impl AsFd) {
        // Without a filter the service is only slower.
        let _ = attach(listener, &mut program(self.0.keys().copied()));
    }
}

/// Drops what comes from one of `origins`.
fn program(origins: impl Iterator<Item = IpAddr>) -> Vec<sock_filter> {
    let (mut ipv4, mut ipv6) = (vec![load(libc::BPF_W, IPV4_SOURCE)], Vec::new());
    for origin in origins {
        match origin {
            IpAddr::V4(address) => ipv4.extend([skip_unless(address.to_bits(), 1), verdict(DROP)]),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                for (word, rest) in [(0_u8, 7), (1, 5), (2, 3), (3, 1)] {
                    #[expect(clippy::cast_possible_truncation, reason = "one of its four words")]
                    let wanted = (bits >> (96 - 32 * u32::from(word))) as u32;
                    ipv6.extend([load(libc::BPF_W, IPV6_SOURCE + 4 * u32::from(word)), skip_unless(wanted, rest)]);
                }
                ipv6.push(verdict(DROP));
            }
        }
    }
    ipv4.push(verdict(PASS));
    ipv6.push(verdict(PASS));
    let past = u32::try_from(ipv4.len()).unwrap_or_default();
    let head = [
        load(libc::BPF_B, VERSION),
        statement(libc::BPF_ALU | libc::BPF_AND, 0xf0),
        // IPv4: over the jump that leads to IPv6.
        jump(libc::BPF_JEQ, 0x40, 1, 0),
        statement(libc::BPF_JMP | libc::BPF_JA, past),
    ];
    head.into_iter().chain(ipv4).chain(ipv6).collect()
}

/// Where a packet's network header begins, as filters count (`SKF_NET_OFF`), and in it the version and the sender's address.
const NETWORK_HEADER: u32 = 0xfff0_0000;
const VERSION: u32 = NETWORK_HEADER;
const IPV4_SOURCE: u32 = NETWORK_HEADER + 12;
const IPV6_SOURCE: u32 = NETWORK_HEADER + 8;
/// How much of a packet passes.
const DROP: u32 = 0;
const PASS: u32 = u32::MAX;

fn load(size: u32, at: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_ABS | size, at)
}

fn verdict(passes: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, passes)
}

/// Passes over `count` instructions unless the value is that.
fn skip_unless(value: u32, count: u8) -> sock_filter {
    jump(libc::BPF_JEQ, value, 0, count)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { jt, jf, ..statement(libc::BPF_JMP | code | libc::BPF_K, k) }
}

fn attach(listener: &impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len, filter: program.as_mut_ptr() };
    let size = socklen_t::try_from(size_of::<sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: `program` and the instructions that it points to live until the call has ended, and the kernel only reads them.
    let done = unsafe {
        let listener = listener.as_fd().as_raw_fd();
        libc::setsockopt(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rstest::rstest;
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    async fn comes_in(from: IpAddr, to: SocketAddr) -> bool {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
        socket.bind(SocketAddr::new(from, 0)).expect("an address");
        timeout(PATIENCE, socket.connect(to)).await.is_ok_and(|connected| connected.is_ok())
    }

    #[rstest]
    #[case::ipv4("127.0.0.1", &["127.0.0.2", "10.87.1.2", "fd87::2"], "127.0.0.2", false)]
    #[case::another_ipv4("127.0.0.1", &["127.0.0.2", "10.87.1.2", "fd87::2"], "127.0.0.3", true)]
    #[case::ipv6("::1", &["fd87:1::2", "127.0.0.1", "::1"], "::1", false)]
    #[case::another_ipv6("::1", &["fd87:1::2", "127.0.0.1", "::2", "1::1"], "::1", true)]
    #[case::both("::", &["127.0.0.2", "fd87:1::2"], "127.0.0.2", false)]
    #[case::none("127.0.0.1", &[], "127.0.0.1", true)]
    fn who_comes_in(#[case] at: &str, #[case] barred: &[&str], #[case] from: &str, #[case] expected: bool) {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind((parse(at), 0)).await.expect("a listener");
            let port = listener.local_addr().expect("an address").port();
            attach(&listener, &mut program(barred.iter().map(|text| parse(text)))).expect("a filter");
            let to = if parse(from).is_ipv4() { parse("127.0.0.1") } else { parse("::1") };
            assert_eq!(comes_in(parse(from), SocketAddr::new(to, port)).await, expected);
        });
    }

    #[test]
    fn nobody_is_barred_for_ever() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
            let (to, from) = (listener.local_addr().expect("an address"), IpAddr::from([127, 0, 0, 2]));
            let mut barred = Barred::default();
            barred.bar(&listener, from);
            assert!(!comes_in(from, to).await);
            tokio::time::sleep_until(barred.next_end().expect("an end")).await;
            barred.lift(&listener);
            assert!(comes_in(from, to).await);
            assert_eq!(barred.next_end(), None);
        });
    }
}
