//! Whether links or addresses have changed, or rules of nftables: for whoever remembers what the kernel said.
//!
//! The kernel queues its announcement here before it answers the request that caused it: a look at the queue misses nothing that
//! was over when the look began. What is announced does not matter: whoever needs it asks.

use std::io;

use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::link::{self, Link};
use crate::error::{Doing, Result, errno_of};

/// More than any announcement of a link has.
const ANNOUNCEMENT_MAX_BYTES: usize = 64 << 10;
/// `linux/netfilter/nfnetlink.h`.
const NFNLGRP_NFTABLES: u32 = 7;

/// What was announced of links.
#[derive(Debug)]
pub(crate) enum Announced {
    /// There is such a link, new or changed.
    Link(Box<Link>),
    /// The link of that index is gone.
    Gone(u32),
    /// Something that cannot be told: all links have to be listed.
    Unknown,
}

/// The announcements of one network namespace, from the moment of opening on. Needs a tokio runtime, for as long as it is used.
pub(crate) struct Changes {
    socket: AsyncFd<Socket>,
}

impl Changes {
    fn listen(protocol: isize, groups: &[u32]) -> Result<Self> {
        let socket = listen(protocol, groups).map_err(|e| errno_of(&e));
        Ok(Self { socket: socket.doing(|| "listen to the kernel's announcements".into())? })
    }

    /// Listens for links and addresses, in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr].map(|it| it as u32);
        Self::listen(NETLINK_ROUTE, &groups)
    }

    /// Listens for routes, in the namespace of the calling thread.
    pub(crate) fn of_routes() -> Result<Self> {
        let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route].map(|it| it as u32);
        Self::listen(NETLINK_ROUTE, &groups)
    }

    /// Listens for nftables, in the namespace of the calling thread. Errors: `EPROTONOSUPPORT` where the kernel has none.
    pub(crate) fn of_rules() -> Result<Self> {
        Self::listen(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES])
    }

    /// Whether anything has changed since the last call. Never waits.
    pub(crate) fn take(&self) -> bool {
        let mut changed = false;
        loop {
            // One byte shows that a message came; the kernel drops the rest of it.
            let mut byte = [0];
            match self.socket.get_ref().recv(&mut byte.as_mut_slice(), 0).map_err(|e| errno_of(&e)) {
                Err(Errno::EAGAIN) => return changed,
                Err(Errno::EINTR) => {}
                // The queue was full: what came is lost, but not that something came.
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                // Better to ask once too often.
                Err(_) => return true,
            }
        }
    }

    /// Listens for links alone, in the namespace of the calling thread.
    pub(crate) fn of_links() -> Result<Self> {
        Self::listen(NETLINK_ROUTE, &[MulticastGroup::Link as u32])
    }

    /// The next announcement of a link that nobody has taken. Never waits.
    pub(crate) fn take_link(&self) -> Option<Announced> {
        let mut bytes = Vec::with_capacity(ANNOUNCEMENT_MAX_BYTES);
        loop {
            bytes.clear();
            match self.socket.get_ref().recv(&mut bytes, 0).map_err(|e| errno_of(&e)) {
                Err(Errno::EAGAIN) => return None,
                Err(Errno::EINTR) => {}
                Err(_) => return Some(Announced::Unknown),
                Ok(_) => match link::announced(&bytes) {
                    // A bridge's word about its port, or an address's.
                    Ok(None) => {}
                    Ok(Some(announced)) => return Some(announced),
                    Err(_undecodable) => return Some(Announced::Unknown),
                },
            }
        }
    }

    /// Ends as soon as something has changed, and takes it.
    pub(crate) async fn wait(&self) -> Result<()> {
        loop {
            let ready = self.socket.readable().await.map_err(|e| errno_of(&e));
            let mut ready = ready.doing(|| "hear the kernel's announcements".into())?;
            if self.take() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    // SAFETY: the socket owns its descriptor, gives no other, and stays open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
