//! Connection tracking, as far as published UDP ports need it: a flow keeps the way that its first datagram took, for as long as it goes on.
//!
//! The kernel answers within the call (and never waits), so nothing here is asynchronous.

use std::io;
use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::error::errno_of;

/// `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`: `NFNL_SUBSYS_CTNETLINK` and its messages, as the header has them.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// netlink(7): `NLMSG_ERROR`, `NLMSG_DONE`, and the length of a message's header; `struct nfgenmsg` behind it.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
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
/// `NLA_F_NESTED`, and the bits of an attribute's type that are no flags.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

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
        if let Some(tuple) = attribute(flow, TUPLE_ORIG)
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
    let address: [u8; 4] = attribute(attribute(tuple, TUPLE_IP)?, IP_V4_DST)?.try_into().ok()?;
    let protocol = attribute(tuple, TUPLE_PROTO)?;
    let is_udp = attribute(protocol, PROTO_NUM)? == [UDP];
    let port = u16::from_be_bytes(attribute(protocol, PROTO_DST_PORT)?.try_into().ok()?);
    is_udp.then_some((address.into(), port))
}

/// A message about IPv4 flows, about the one with that original tuple if it is not empty.
fn request(kind: u16, flags: u16, tuple: &[u8]) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    message.extend([IPV4, 0, 0, 0]);
    if !tuple.is_empty() {
        let length = u16::try_from(tuple.len() + 4).unwrap_or(u16::MAX);
        message.extend(length.to_ne_bytes());
        message.extend((TUPLE_ORIG | NESTED).to_ne_bytes());
        message.extend(tuple);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message
}

/// Sends a request and hears the answer to its end; `found` gets each object's attributes.
fn exchange(socket: &Socket, request: &[u8], mut found: impl FnMut(&[u8])) -> Result<(), Errno> {
    socket.send(request, 0).map_err(|e| errno_of(&e))?;
    loop {
        let (answer, _) = socket.recv_from_full().map_err(|e| errno_of(&e))?;
        let mut rest = answer.as_slice();
        while let Some((kind, message, after)) = split(rest) {
            rest = after;
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    return super::errno(
                        message.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes),
                    );
                }
                _ => found(message.get(FAMILY_HEADER..).unwrap_or_default()),
            }
        }
    }
}

/// The first message's type and content, and what is behind it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((kind, bytes.get(HEADER..length)?, bytes.get(next..)?))
}

/// The content of the first attribute of that type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        if kind == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(content.len() + 4).expect("a length").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(protocol: u8) -> Vec<u8> {
        let addresses = [nest(1, &[172, 30, 0, 1]), nest(IP_V4_DST, &[172, 30, 0, 2])].concat();
        let ports = [
            nest(PROTO_NUM, &[protocol]),
            nest(2, &40_000_u16.to_be_bytes()),
            nest(PROTO_DST_PORT, &53_u16.to_be_bytes()),
        ];
        [nest(TUPLE_IP | NESTED, &addresses), nest(TUPLE_PROTO | NESTED, &ports.concat())].concat()
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
        let (kind, content, rest) = split(&message).expect("a message");
        assert_eq!((kind, rest), (DELETE, &[][..]));
        assert_eq!(attribute(&content[FAMILY_HEADER..], TUPLE_ORIG), Some(tuple(17).as_slice()));
    }
}
