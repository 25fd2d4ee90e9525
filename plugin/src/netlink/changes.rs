//! Whether links or addresses have changed, or rules of nftables: for whoever remembers what the kernel said.
//!
//! The kernel queues its announcement here before it answers the request that caused it: a look at the queue misses nothing that
//! was over when the look began. What is announced does not matter: whoever needs it asks.

use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};

use super::link::{self, Announced};
use super::socket::{DATAGRAM_MAX_BYTES, Socket};
use crate::error::{Doing, Result, errno_of};

/// `linux/netfilter/nfnetlink.h`.
const NFNLGRP_NFTABLES: u32 = 7;

/// The announcements of one network namespace, from the moment of opening on. Needs a tokio runtime, for as long as it is used.
pub(crate) struct Changes {
    socket: Socket,
}

impl Changes {
    fn listen(protocol: isize, groups: &[u32]) -> Result<Self> {
        let socket = Socket::listen(protocol, groups).map_err(|e| errno_of(&e));
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
        // One byte shows that a message came; the kernel drops the rest of it.
        let mut byte = [0];
        loop {
            match self.socket.next(&mut byte.as_mut_slice(), 0) {
                Ok(None) => return changed,
                // The queue was full: what came is lost, but not that something came.
                Ok(Some(_)) | Err(Errno::ENOBUFS) => changed = true,
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
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX_BYTES);
        loop {
            datagram.clear();
            match self.socket.next(&mut datagram, 0) {
                Ok(None) => return None,
                Err(_) => return Some(Announced::Unknown),
                // Else a bridge's word about its port, or an address's.
                Ok(Some(_)) => match link::announced(&datagram) {
                    None => {}
                    announced => return announced,
                },
            }
        }
    }

    /// Ends as soon as something has changed, and takes it.
    pub(crate) async fn wait(&self) -> Result<()> {
        while !self.take() {
            self.socket.readable().await.doing(|| "hear the kernel's announcements".into())?;
        }
        Ok(())
    }
}
