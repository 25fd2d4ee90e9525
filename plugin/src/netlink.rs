//! The kernel's netlink: one socket per network namespace for links and addresses, others only where they are needed. This room and `nft`
//! alone name rtnetlink.
//!
//! An exchange succeeds only on the kernel's own acknowledgement (or end of dump): a socket that dies midway is an error, and
//! then nobody knows whether the kernel has done it. An error says what the method was to do, and in which namespace, unless that is the
//! caller's. Deadlines are the caller's: dropping the future abandons the exchange. (What no deadline can end is the kernel's own waiting:
//! it carries a request out inside `send`, and waits there for whoever holds its lock.)

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

use log::trace;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, ParseableParametrized};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

pub(crate) use self::address::{Address, AddressState};
use self::attribute::Message;
pub(crate) use self::changes::Changes;
pub(crate) use self::conntrack::forget_udp;
pub(crate) use self::link::{Announced, Link, NewBridge, NewVeth, PortSettings};
pub(crate) use self::lookup::{Arrival, Rule};
pub(crate) use self::pair::Ipv4Setting;
pub(crate) use self::route::{Route, RouteAttributes, RouteKind};
use self::socket::Socket;
use crate::error::{Doing, Result, errno_of};
use crate::netns::Netns;

/// How often a list is asked for again because something changed while the kernel wrote it. On a busy host something always changes while a
/// long list is written: without a limit nobody there would ever get one.
const DUMPS_MAX: u32 = 8;

/// A netlink socket in one network namespace. Needs a tokio runtime where it has to wait.
pub(crate) struct Netlink {
    socket: Socket,
    /// Where it is, for errors: nothing, or ` in ` and the path of the namespace.
    place: String,
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
        self.socket.is_dead()
    }

    /// Sends a request that changes something.
    async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        self.ask(message, NLM_F_ACK | flags, |_| {}).await.map(drop)
    }

    /// Asks for one object.
    async fn get(&self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, Errno> {
        let mut found = None;
        self.ask(message, 0, |message| found = read(&message)).await?;
        found.ok_or(Errno::EPROTO)
    }

    /// Asks for all objects that fit, until an answer was not interrupted, and takes the last one as it is where none was not.
    async fn dump_whole(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Errno> {
        let mut messages = Vec::new();
        for _ in 0..DUMPS_MAX {
            messages.clear();
            if !self.ask(message.clone(), NLM_F_DUMP, |message| messages.extend(read(&message))).await? {
                break;
            }
        }
        Ok(messages)
    }

    /// Sends a request and hears the answer to its end; `found` gets each object of it. Gives whether something changed while the kernel was
    /// listing (`NLM_F_DUMP_INTR`).
    async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        found: impl FnMut(Message<'_>),
    ) -> Result<bool, Errno> {
        trace!("{message:?}");
        let (what, number) = (answer_to(&message), self.socket.numbers(1));
        self.socket.ask(&written(message, flags, number), (number, flags), what, found).await
    }
}

/// Strict checking makes the kernel filter dumps by what the request names, and refuse what it would ignore (Linux 4.20).
fn connect(place: String) -> std::io::Result<Netlink> {
    let mut socket = Socket::open(NETLINK_ROUTE)?;
    socket.raw().set_netlink_get_strict_chk(true)?;
    Ok(Netlink { socket, place })
}

/// A request as it is sent.
fn written(message: RouteNetlinkMessage, flags: u16, number: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    (message.header.flags, message.header.sequence_number) = (NLM_F_REQUEST | flags, number);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// An object of an answer; nothing where it is of a kind that nobody here asks for.
fn read(message: &Message<'_>) -> Option<RouteNetlinkMessage> {
    RouteNetlinkMessage::parse_with_param(message.content, message.kind).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_to_be_done_and_where() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let error = runtime.block_on(async {
            let netlink = Netlink { place: " in /run/netns/web".into(), ..Netlink::open().expect("a socket") };
            let gone = Link { index: i32::MAX.unsigned_abs(), name: "eth0".into(), ..Link::default() };
            netlink.addresses(&gone).await.expect_err("no such link")
        });
        assert!(error.is(Errno::ENODEV), "{error:?}");
        assert_eq!(error.to_string(), "failed to list the addresses of eth0 in /run/netns/web: No such device");
    }
}
