//! Deleting without waiting for the kernel to bury it: links, and what nftables had.
//!
//! The kernel announces a deleted link within a millisecond or two: by then its names, addresses and peer are gone. The answer to
//! the request comes only after an RCU barrier, 10 - 20 ms later, and cannot be had earlier: whoever asked sleeps inside
//! `sendto`. So a child process asks, and is left to wait alone once the announcement is here. nftables answers at once, and the
//! closing of its socket is what takes as long; there a child holds the socket and closes it.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::pin::pin;

use futures_util::future::{Either, select};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, alarm, fork};
use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket as Raw, SocketAddr};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, MulticastGroup};

use super::attribute::Message;
use super::link::is_announced_gone;
use super::neighbour::neighbour;
use super::socket::{DATAGRAM_MAX_BYTES, KERNEL, Socket, uninterrupted};
use super::{Link, Netlink, errno, written};
use crate::child::aside::detach;
use crate::deadline::{self, waiting_for};
use crate::error::{Doing, Result, errno_of};

/// What is waited for.
const DELETED: &str = "the kernel to delete a link";

impl Netlink {
    /// Deletes the link as [`Netlink::delete_link`] does, but returns as soon as the kernel announces that it is gone. May leave
    /// a child process behind, for as long as the kernel needs. Before the link, it forgets these neighbours of other links, by their indexes:
    /// who speaks to one of their addresses right afterwards must not have to find out that nobody is there. The process must have one thread.
    pub(crate) async fn delete_link_soon(&self, link: &Link, neighbours: &[(u32, IpAddr)]) -> Result<()> {
        let deleted = self.delete_soon(link.index, neighbours).await;
        deleted.doing(|| self.here(format!("delete link {}", link.name)))
    }

    async fn delete_soon(&self, index: u32, neighbours: &[(u32, IpAddr)]) -> Result<(), Errno> {
        // Listening comes first, or the announcement might be missed.
        let listening = Socket::listen(NETLINK_ROUTE, &[MulticastGroup::Link as u32]).map_err(|e| errno_of(&e))?;
        let (answer, child) = ask_by_child(&requests(index, neighbours)).map_err(|e| errno_of(&e))?;
        let announced = pin!(announcement(&listening, index));
        let answered = pin!(read_answer(answer));
        match waiting_for(DELETED, select(announced, answered)).await {
            Either::Left(((), _)) => {
                child.leave();
                Ok(())
            }
            Either::Right((outcome, _)) => match outcome {
                Err(Errno::ENODEV) => Ok(()),
                outcome => outcome,
            },
        }
    }
}

/// Has a child process close `socket`, for as long as the kernel needs. The process must have one thread.
pub(crate) fn close_soon(socket: Socket) -> io::Result<()> {
    let (here, there) = UnixStream::pair()?;
    // SAFETY: the process has one thread, so that the child has everything that it had, in a usable state; and the child never
    // returns from here.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(there);
            // Not the last to close it, as the child waits for the other end of the pair.
            drop(socket);
            drop(here);
            Ok(())
        }
        ForkResult::Child => {
            drop(here);
            // Where that fails, the runtime waits a little longer for its streams.
            let _ = detach();
            // Ends when the parent has let go, or has died.
            drop((&there).read(&mut [0]));
            // SAFETY: ends the process at once; nothing of the parent's copied state is flushed or dropped a second time.
            unsafe { libc::_exit(0) }
        }
    }
}

/// The child that asks. Dropped, it is killed: an answer that never comes must not leave somebody who waits for it for ever.
struct Asking(Pid);

impl Asking {
    /// Lets it wait alone.
    fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Nobody has waited for it, so that the number is still its own. What the kernel has begun it brings to an end first.
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// Ends when the link's deletion is announced; never, if nothing is heard any more.
async fn announcement(socket: &Socket, index: u32) {
    let mut datagram = Vec::with_capacity(DATAGRAM_MAX_BYTES);
    while socket.receive(DELETED, &mut datagram).await.is_ok() {
        if is_announced_gone(&datagram, index) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Starts the child; what it hears from the kernel comes out of the stream.
fn ask_by_child(requests: &[Vec<u8>]) -> io::Result<(UnixStream, Asking)> {
    let socket = Raw::new(NETLINK_ROUTE)?;
    let (here, there) = UnixStream::pair()?;
    here.set_nonblocking(true)?;
    // SAFETY: the process has one thread, so that the child has everything that it had, in a usable state; and the child never
    // returns from here.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((here, Asking(child))),
        ForkResult::Child => {
            // SIGALRM ends it: nobody else would, if no answer ever came.
            alarm::set(deadline::CHILD_S);
            let outcome = detach().and_then(|()| ask(&socket, requests));
            let code = outcome.err().map_or(0, |errno| errno as i32);
            // Nobody is left to hear it if the parent has seen the announcement.
            drop((&there).write_all(&code.to_ne_bytes()));
            // SAFETY: ends the process at once; nothing of the parent's copied state is flushed or dropped a second time.
            unsafe { libc::_exit(0) }
        }
    }
}

/// One request after the other, and the answer to the last: that the host knows a neighbour no more is no failure.
fn ask(socket: &Raw, requests: &[Vec<u8>]) -> Result<(), Errno> {
    let (port, groups) = KERNEL;
    let kernel = SocketAddr::new(port, groups);
    let mut last = Ok(());
    for request in requests {
        uninterrupted(|| socket.send_to(request, &kernel, 0)).map_err(|e| errno_of(&e))?;
        let (bytes, _) = uninterrupted(|| socket.recv_from_full()).map_err(|e| errno_of(&e))?;
        last = Message::all(&bytes).next().ok_or(Errno::EPROTO)?.outcome();
    }
    last
}

fn requests(link: u32, neighbours: &[(u32, IpAddr)]) -> Vec<Vec<u8>> {
    let forget = |(link, address): &(u32, IpAddr)| RouteNetlinkMessage::DelNeighbour(neighbour(*link, *address));
    let link = RouteNetlinkMessage::DelLink(LinkMessageBuilder::<LinkUnspec>::new().index(link).build());
    neighbours.iter().map(forget).chain([link]).map(|message| written(message, NLM_F_ACK, 0)).collect()
}

/// The child's four bytes. A child that dies without them is `EIO`.
async fn read_answer(stream: UnixStream) -> Result<(), Errno> {
    let stream = tokio::net::UnixStream::from_std(stream).map_err(|e| errno_of(&e))?;
    let mut code = [0; size_of::<i32>()];
    loop {
        stream.readable().await.map_err(|e| errno_of(&e))?;
        match stream.try_read(&mut code) {
            // A socket pair delivers what was written at once as a whole.
            Ok(n) if n == code.len() => return errno(i32::from_ne_bytes(code)),
            Ok(_) => return Err(Errno::EIO),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(errno_of(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};

    use super::*;

    #[test]
    fn neighbours_are_forgotten_before_the_link_goes() {
        let read =
            |bytes: &Vec<u8>| NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).expect("a message").payload;
        let requests: Vec<_> =
            requests(7, &[(3, Ipv4Addr::new(10, 87, 1, 2).into()), (3, Ipv4Addr::new(10, 87, 1, 3).into())])
                .iter()
                .map(read)
                .collect();
        let [neighbours @ .., link] = requests.as_slice() else { panic!("{requests:?}") };
        let is_forgotten = |it: &_| matches!(it, NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(it)) if it.header.ifindex == 3);
        assert!(neighbours.len() == 2 && neighbours.iter().all(is_forgotten), "{neighbours:?}");
        assert!(
            matches!(link, NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(it)) if it.header.index == 7),
            "{link:?}"
        );
    }
}
