//! Echo requests (RFC 792, RFC 4443) to many addresses at once, through one socket for each family.
//!
//! Bounded: each address is asked a few times, and the whole ends with the last pause, however many do not answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, recvfrom,
    sendto, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::error::{Doing, Result, errno_of};

/// How long to wait for answers after each time of asking: a container answers within a millisecond, unless the machine is busy.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// After so many requests answers are read, and others have a turn.
const BATCH: usize = 16;
/// An echo request's own part, without data.
const HEADER_BYTES: usize = 8;
/// What is read at a time: more than a queue holds.
const READ_MAX: usize = 4096;
/// Tells the requests of one round from those of another: a late answer to an earlier one is none to this.
static ROUND: AtomicU16 = AtomicU16::new(0);

/// Those that answer. Errors: `EPERM` without `CAP_NET_RAW`.
pub(super) async fn ask(addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>> {
    let mut answered = BTreeSet::new();
    for ipv4 in [true, false] {
        let asked: BTreeSet<_> = addresses.iter().copied().filter(|address| address.is_ipv4() == ipv4).collect();
        if !asked.is_empty() {
            let answers = async { Echo::open(ipv4)?.ask(&asked).await };
            answered.extend(answers.await.doing(|| "try containers with packets".into())?);
        }
    }
    Ok(answered)
}

struct Echo {
    socket: AsyncFd<OwnedFd>,
    ipv4: bool,
    id: u16,
}

impl Echo {
    fn open(ipv4: bool) -> Result<Self, Errno> {
        let (family, protocol) =
            if ipv4 { (AddressFamily::Inet, SockProtocol::Icmp) } else { (AddressFamily::Inet6, SockProtocol::IcmpV6) };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
        // SAFETY: the descriptor is owned, given to nobody else, and open until the object is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let process = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        let id = process.wrapping_add(ROUND.fetch_add(1, Ordering::Relaxed));
        Ok(Self { socket: socket.map_err(|e| errno_of(&e.into()))?, ipv4, id })
    }

    async fn ask(&self, asked: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Errno> {
        let mut answered = BTreeSet::new();
        for pause in PAUSES {
            let missing: Vec<_> = asked.difference(&answered).copied().collect();
            for batch in missing.chunks(BATCH) {
                // One that cannot be sent has no answer.
                for address in batch {
                    let _ = self.send(*address);
                }
                self.read(asked, &mut answered);
                yield_now().await;
            }
            let until = Instant::now() + pause;
            while answered.len() < asked.len() {
                let left = until.saturating_duration_since(Instant::now());
                let Ok(ready) = timeout(left, self.socket.readable()).await else { break };
                let mut ready = ready.map_err(|e| errno_of(&e))?;
                self.read(asked, &mut answered);
                ready.clear_ready();
            }
            if answered.len() == asked.len() {
                break;
            }
        }
        Ok(answered)
    }

    fn send(&self, address: IpAddr) -> Result<(), Errno> {
        let request = request(self.ipv4, self.id);
        let socket = self.socket.get_ref().as_raw_fd();
        match address {
            IpAddr::V4(ip) => sendto(socket, &request, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), MsgFlags::empty()),
            IpAddr::V6(ip) => {
                sendto(socket, &request, &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)), MsgFlags::empty())
            }
        }
        .map(drop)
    }

    /// All that have come; never waits.
    fn read(&self, asked: &BTreeSet<IpAddr>, answered: &mut BTreeSet<IpAddr>) {
        let mut bytes = [0; 128];
        // An error that an earlier request has met comes here, too.
        for _ in 0..READ_MAX {
            match recvfrom::<SockaddrStorage>(self.socket.get_ref().as_raw_fd(), &mut bytes) {
                Ok((length, Some(sender))) => {
                    let ip = sender.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
                    let ip = ip.or_else(|| sender.as_sockaddr_in6().map(|it| it.ip().into()));
                    let is_reply = bytes.get(..length).is_some_and(|packet| is_reply(packet, self.ipv4, self.id));
                    answered.extend(ip.filter(|ip| is_reply && asked.contains(ip)));
                }
                Err(Errno::EAGAIN) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn request(ipv4: bool, id: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = id.to_be_bytes();
    let mut request = [if ipv4 { 8 } else { 128 }, 0, 0, 0, high, low, 0, 1];
    if ipv4 {
        // The kernel writes ICMPv6's itself.
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
    }
    request
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Whether a packet is the answer to a request of that id; with IPv4 its header comes first.
fn is_reply(packet: &[u8], ipv4: bool, id: u16) -> bool {
    let start = if ipv4 { packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4) } else { 0 };
    let kind = if ipv4 { 0 } else { 129 };
    match packet.get(start..start + HEADER_BYTES) {
        Some([found, 0, _, _, high, low, ..]) => *found == kind && u16::from_be_bytes([*high, *low]) == id,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_standard_has_it() {
        // The sum over a whole message, its checksum included, is zero (RFC 1071, section 1).
        assert_eq!(checksum(&request(true, 0x1234)), 0);
        assert_eq!(request(false, 0x1234), [128, 0, 0, 0, 0x12, 0x34, 0, 1]);
    }

    #[test]
    fn only_the_answer_to_the_request_counts() {
        let header: &[u8] = &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 87, 1, 2, 10, 87, 1, 1];
        let packet = |reply: &[u8]| [header, reply].concat();
        assert!(is_reply(&packet(&[0, 0, 0, 0, 0, 7, 0, 1]), true, 7));
        assert!(!is_reply(&packet(&[0, 0, 0, 0, 0, 8, 0, 1]), true, 7), "of another round");
        assert!(!is_reply(&packet(&[3, 0, 0, 0, 0, 7, 0, 1]), true, 7), "an error");
        assert!(!is_reply(&packet(&[0, 0, 0]), true, 7), "cut short");
        assert!(is_reply(&[129, 0, 0, 0, 0, 7, 0, 1], false, 7));
        assert!(!is_reply(&[128, 0, 0, 0, 0, 7, 0, 1], false, 7), "a request");
        assert!(!is_reply(&[], true, 7));
    }
}
