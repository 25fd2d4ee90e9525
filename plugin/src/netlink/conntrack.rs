//! Connection tracking, as far as published UDP ports need it: a flow keeps the way that its first datagram took, for as long as it goes on.
//!
//! The kernel answers within the call (and never waits), so nothing here is asynchronous.

use std::io;
use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::attribute::{Attributes, DONE, ERROR, Message, append, find};
use crate::error::errno_of;

/// `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`: `NFNL_SUBSYS_CTNETLINK` and its messages, as the header has them.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `CTA_TUPLE_ORIG`, and what is in it: `CTA_TUPLE_IP` with `CTA_IP_V4_DST`, `CTA_TUPLE_PROTO` with number and destination port.
const TUPLE_ORIG: u16 = 1;
const TUPLE_IP: u16 = 1;
const IP_V4_DST: u16 = 2;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// The number of the protocol (RFC 790).
const UDP: u8 = 17;
/// `AF_INET`.
const IPV4: u8 = 2;

/// Forgets the UDP flows that were first sent to an address and port for which `chosen` is true.
pub(crate) fn forget_udp(chosen: impl Fn(Ipv4Addr, u16) -> bool) -> Result<(), Errno> {
    let ask = || -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    };
    let socket = ask().map_err(|e| errno_of(&e))?;
    let mut flows = Vec::new();
    let listed = exchange(&socket, &request(GET, NLM_F_DUMP, &[]), |flow| {
        if let Some(tuple) = find(flow, TUPLE_ORIG)
            && destination(tuple).is_some_and(|(address, port)| chosen(address, port))
        {
            flows.push(tuple.to_vec());
        }
    });
    match listed {
        // A kernel without nf_conntrack_netlink: its flows end by themselves, half a minute after their last datagram.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(()),
        listed => listed?,
    }
    for tuple in flows {
        match exchange(&socket, &request(DELETE, NLM_F_ACK, &tuple), |_| {}) {
            // It has ended by itself.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Where a flow's first datagram was sent, if it is IPv4 and UDP.
fn destination(tuple: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let address: [u8; 4] = find(find(tuple, TUPLE_IP)?, IP_V4_DST)?.try_into().ok()?;
    let protocol = find(tuple, TUPLE_PROTO)?;
    let is_udp = find(protocol, PROTO_NUM)? == [UDP];
    let port = u16::from_be_bytes(find(protocol, PROTO_DST_PORT)?.try_into().ok()?);
    is_udp.then_some((address.into(), port))
}

/// A message about IPv4 flows, about the one with that original tuple if it is not empty.
fn request(kind: u16, flags: u16, tuple: &[u8]) -> Vec<u8> {
    let attributes = match tuple {
        [] => Attributes::default(),
        tuple => Attributes::default().nested(TUPLE_ORIG, tuple),
    };
    let mut datagram = Vec::new();
    append(&mut datagram, (kind, NLM_F_REQUEST | flags, 0), [IPV4, 0, 0, 0], attributes.as_ref());
    datagram
}

/// Sends a request and hears the answer to its end; `found` gets each object's attributes.
fn exchange(socket: &Socket, request: &[u8], mut found: impl FnMut(&[u8])) -> Result<(), Errno> {
    socket.send(request, 0).map_err(|e| errno_of(&e))?;
    loop {
        let (answer, _) = socket.recv_from_full().map_err(|e| errno_of(&e))?;
        for message in Message::all(&answer) {
            match message.kind {
                DONE => return Ok(()),
                ERROR => return super::errno(message.code()),
                _ => found(message.attributes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(protocol: u8) -> Vec<u8> {
        let new = Attributes::default;
        let addresses = new().bytes(1, &[172, 30, 0, 1]).bytes(IP_V4_DST, &[172, 30, 0, 2]);
        let ports = new().bytes(PROTO_NUM, &[protocol]).bytes(2, &40_000_u16.to_be_bytes());
        let ports = ports.bytes(PROTO_DST_PORT, &53_u16.to_be_bytes());
        new().nested(TUPLE_IP, addresses.as_ref()).nested(TUPLE_PROTO, ports.as_ref()).as_ref().to_vec()
    }

    #[test]
    fn a_udp_flow_tells_where_it_was_sent() {
        assert_eq!(destination(&tuple(17)), Some((Ipv4Addr::new(172, 30, 0, 2), 53)));
        assert_eq!(destination(&tuple(6)), None);
        assert_eq!(destination(&tuple(17)[..20]), None);
    }

    #[test]
    fn a_request_carries_the_tuple_as_it_came() {
        let message = request(DELETE, NLM_F_ACK, &tuple(17));
        let messages: Vec<_> = Message::all(&message).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].kind, DELETE);
        assert_eq!(find(messages[0].attributes(), TUPLE_ORIG), Some(tuple(17).as_slice()));
    }
}
