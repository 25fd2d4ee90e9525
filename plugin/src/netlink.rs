//! The kernel's netlink: one socket per network namespace for links and addresses, others only where they are needed. This room and `nft`
//! alone name rtnetlink.
//!
//! An exchange succeeds only on the kernel's own acknowledgement (or end of dump): a socket that dies midway is an error, and
//! then nobody knows whether the kernel has done it. An error says what the method was to do, and in which namespace, unless that is the
//! caller's. Deadlines are the caller's: dropping the future abandons the exchange. (What no deadline can end is the kernel's own waiting:
//! it carries a request out inside `sendto`, and waits there for whoever holds its lock.)

mod address;
pub(crate) mod attribute;
mod changes;
mod conntrack;
pub(crate) mod delete;
mod link;
mod lookup;
mod namespace;
mod neighbour;
mod pair;
mod route;
pub(crate) mod socket;
mod vlan;

use std::io;

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_ECHO, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

pub(crate) use self::address::{Address, AddressState};
pub(crate) use self::changes::{Announced, Changes};
pub(crate) use self::conntrack::forget_udp;
pub(crate) use self::link::{Link, NewBridge, NewVeth, PortSettings};
pub(crate) use self::lookup::{Arrival, Rule};
pub(crate) use self::pair::Ipv4Setting;
pub(crate) use self::route::{Route, RouteAttributes, RouteKind};
use self::socket::{Death, Exchange};
use crate::deadline::waiting_for;
use crate::error::{Doing, Result, errno_of};
use crate::netns::Netns;

/// How often a list is asked for again because something changed while the kernel wrote it. On a busy host something always changes while a
/// long list is written: without a limit nobody there would ever get one.
const DUMPS_MAX: u32 = 8;

/// A netlink socket in one network namespace. Needs a tokio runtime, for as long as it is used.
pub(crate) struct Netlink {
    handle: Handle,
    death: Death,
    /// Where it is, for errors: nothing, or ` in ` and the path of the namespace.
    place: String,
}

/// The answer to a dump.
struct Dump {
    messages: Vec<RouteNetlinkMessage>,
    /// Something changed while the kernel was listing: an entry may be missing or stand twice (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self> {
        connect(String::new()).map_err(|e| errno_of(&e)).doing(|| "open a netlink socket".into())
    }

    /// Opens a socket in `netns`.
    pub(crate) fn open_in(netns: &Netns) -> Result<Self> {
        let opened = netns.visit(|| connect(format!(" in {}", netns.path().display())));
        opened.doing(|| format!("open a netlink socket in {}", netns.path().display()))
    }

    /// What was being done, with the place where.
    fn here(&self, doing: String) -> String {
        doing + &self.place
    }

    /// Whether the socket has died under an exchange; a new one may do.
    pub(crate) fn is_dead(&self) -> bool {
        self.death.has_come()
    }

    /// Sends a request that changes something.
    async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        let what = answer_to(&message);
        let mut replies = self.send(message, NLM_F_ACK | flags)?;
        match waiting_for(what, replies.next()).await.map(|reply| reply.payload) {
            Some(NetlinkPayload::Error(error)) => errno(error.raw_code()),
            Some(_) => Err(Errno::EPROTO),
            None => Err(self.death.reason()),
        }
    }

    /// The same for what makes something; gives what the kernel shows of it. Linux before 6.2 shows nothing (`NLM_F_ECHO`).
    async fn make(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Option<RouteNetlinkMessage>, Errno> {
        let what = answer_to(&message);
        let mut replies = self.send(message, NLM_F_ACK | NLM_F_ECHO | flags)?;
        let mut shown = None;
        while let Some(reply) = waiting_for(what, replies.next()).await {
            match reply.payload {
                NetlinkPayload::InnerMessage(made) => shown = Some(made),
                NetlinkPayload::Error(error) => return errno(error.raw_code()).map(|()| shown),
                _ => return Err(Errno::EPROTO),
            }
        }
        Err(self.death.reason())
    }

    /// Asks for one object.
    async fn get(&self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Errno> {
        let what = answer_to(&message);
        let mut replies = self.send(message, 0)?;
        match waiting_for(what, replies.next()).await.map(|reply| reply.payload) {
            Some(NetlinkPayload::InnerMessage(found)) => Ok(found),
            Some(NetlinkPayload::Error(error)) => errno(error.raw_code()).and(Err(Errno::EPROTO)),
            Some(_) => Err(Errno::EPROTO),
            None => Err(self.death.reason()),
        }
    }

    /// Asks for all objects that fit.
    async fn dump(&self, message: RouteNetlinkMessage) -> Result<Dump, Errno> {
        let what = answer_to(&message);
        let mut replies = self.send(message, NLM_F_DUMP)?;
        let mut dump = Dump { messages: Vec::new(), interrupted: false };
        while let Some(reply) = waiting_for(what, replies.next()).await {
            dump.interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            match reply.payload {
                NetlinkPayload::InnerMessage(found) => dump.messages.push(found),
                NetlinkPayload::Done(done) => return errno(done.code).map(|()| dump),
                NetlinkPayload::Error(error) => return errno(error.raw_code()).and(Err(Errno::EPROTO)),
                _ => return Err(Errno::EPROTO),
            }
        }
        Err(self.death.reason())
    }

    /// Asks until an answer was not interrupted, and takes the last one as it is where none was not.
    async fn dump_whole(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        for _ in 1..DUMPS_MAX {
            let dump = self.dump(message.clone()).await?;
            if !dump.interrupted {
                return Ok(dump.messages);
            }
        }
        Ok(self.dump(message).await?.messages)
    }

    fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<impl StreamExt<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin + use<>, Errno> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        // A clone is a reference to the same socket.
        self.handle.clone().request(request).map_err(|_| self.death.reason())
    }
}

/// Strict checking makes the kernel filter dumps by what the request names, and refuse what it would ignore (Linux 4.20).
fn connect(place: String) -> io::Result<Netlink> {
    let death = Death::default();
    let mut socket = Exchange::open(NETLINK_ROUTE, death.clone())?;
    socket.socket_mut().set_netlink_get_strict_chk(true)?;
    let (mut connection, handle, _unsolicited) = rtnetlink::from_socket(socket);
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok(Netlink { handle, death, place })
}

/// What an exchange waits for.
fn answer_to(message: &RouteNetlinkMessage) -> &'static str {
    match message {
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::SetLink(_) => "the kernel to make or change a link",
        RouteNetlinkMessage::DelLink(_) => "the kernel to delete a link",
        RouteNetlinkMessage::GetLink(_) => "the kernel's links",
        RouteNetlinkMessage::NewLinkProp(_) | RouteNetlinkMessage::DelLinkProp(_) => "the kernel to name a link",
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => "the kernel to change an address",
        RouteNetlinkMessage::GetAddress(_) => "the kernel's addresses",
        RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => "the kernel to change a route",
        RouteNetlinkMessage::GetRoute(_) => "the kernel's routes",
        RouteNetlinkMessage::DelNeighbour(_) => "the kernel to forget a neighbour",
        _ => "the kernel's answer",
    }
}

/// The kernel's codes are negative errnos, zero for success.
pub(crate) fn errno(code: i32) -> Result<(), Errno> {
    match code {
        0 => Ok(()),
        code => Err(Errno::from_raw(code.saturating_abs())),
    }
}
