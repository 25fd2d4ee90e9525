//! A packet socket on one link: sends frames as they are, and sees what comes.
//!
//! Invariant: belongs to the namespace of the thread that opens it, and must not outlive the call that entered it.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};
use nix::unistd::Pid;

const FRAME_MAX_BYTES: usize = 65_536;

/// The socket.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// Opens one on a link of this thread's namespace.
    pub fn open(link: &str) -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .context("open a packet socket")?;
        let mut links = getifaddrs().context("list the links")?;
        // With it come the frames of all links until now: what is looked for is sent later.
        let address = links.find_map(|it| it.address.filter(|_| it.interface_name == link)?.as_link_addr().copied());
        let address = address.ok_or_else(|| anyhow!("find the link {link}"))?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("listen on {link}"))?;
        Ok(Self(socket))
    }

    /// Sends frames so that they arrive in this order: the kernel handles those of one processor one after the other.
    pub fn send_in_order(&self, frames: &[&[u8]]) -> Result<()> {
        let mut here = CpuSet::new();
        sched_getcpu().and_then(|cpu| here.set(cpu)).context("name this processor")?;
        sched_setaffinity(Pid::from_raw(0), &here).context("stay on this processor")?;
        for frame in frames {
            let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).context("send a frame")?;
            anyhow::ensure!(sent == frame.len(), "send a whole frame");
        }
        Ok(())
    }

    fn frame(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(length)),
            // The second is told once where the link went down meanwhile; it may be up again.
            Err(Errno::EAGAIN | Errno::ENETDOWN) => Ok(None),
            Err(errno) => Err(errno).context("see a frame"),
        }
    }
}

/// Whoever is lied to: what comes to its link, and what its kernel takes for a datagram to itself.
#[derive(Debug)]
pub struct Ears {
    tap: Tap,
    udp: UdpSocket,
    buffer: Vec<u8>,
}

impl Ears {
    /// Opens them on a link of this thread's namespace.
    pub fn open(link: &str) -> Result<Self> {
        // IPv4's datagrams come to it as well; a kernel may lack IPv6.
        let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .context("open a socket for datagrams")?;
        udp.set_nonblocking(true).context("never wait for a datagram")?;
        Ok(Self { tap: Tap::open(link)?, udp, buffer: vec![0; FRAME_MAX_BYTES] })
    }

    /// The port where datagrams are heard.
    pub fn port(&self) -> Result<u16> {
        Ok(self.udp.local_addr().context("name the socket's port")?.port())
    }

    /// Listens until `last` has come; tells whether it has, and whether all of `wanted` came before it, in any one frame or datagram.
    pub fn listen(&mut self, wanted: &[Vec<u8>], last: &[u8], patience: Duration) -> Result<(bool, bool)> {
        let end = Instant::now() + patience;
        let (mut found, mut ended) = (false, false);
        loop {
            while let Some(content) = self.next()? {
                found |= wanted.iter().all(|wanted| holds(content, wanted));
                ended |= holds(content, last);
            }
            let rest = end.saturating_duration_since(Instant::now());
            if ended || rest.is_zero() {
                return Ok((ended, found));
            }
            let mut sockets =
                [PollFd::new(self.tap.0.as_fd(), PollFlags::POLLIN), PollFd::new(self.udp.as_fd(), PollFlags::POLLIN)];
            poll(&mut sockets, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)).context("wait for frames")?;
        }
    }

    /// What has come, if anything has: datagrams first, as the kernel shows the frame before it looks into it.
    fn next(&mut self) -> Result<Option<&[u8]>> {
        let length = match self.udp.recv(&mut self.buffer) {
            Ok(length) => Some(length),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.tap.frame(&mut self.buffer)?,
            Err(e) => return Err(e).context("hear a datagram"),
        };
        Ok(length.map(|length| &self.buffer[..length]))
    }
}

fn holds(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|part| part == wanted)
}
