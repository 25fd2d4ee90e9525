//! Connection tracking, as far as published UDP ports need it: a flow keeps the way that its first datagram took, for as long as it goes on.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::attribute::{Attributes, Message, append, find};
use super::socket::Socket;
use crate::error::{Doing, Result, errno_of};

/// `linux/netfilter/nfnetlink.h` and `nfnetlink_conntrack.h`: `NFNL_SUBSYS_CTNETLINK` and its messages, as the header has them.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `CTA_TUPLE_ORIG`, and what is in it: `CTA_TUPLE_IP` with `CTA_IP_V4_DST` or `CTA_IP_V6_DST`, `CTA_TUPLE_PROTO` with number and destination port.
const TUPLE_ORIG: u16 = 1;
const TUPLE_IP: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// The number of the protocol (RFC 790).
const UDP: u8 = 17;
/// `AF_UNSPEC`: flows of both families.
const ANY: u8 = 0;

/// Forgets the UDP flows that were first sent to an address and port for which `chosen` is true.
pub(crate) async fn forget_udp(chosen: impl Fn(IpAddr, u16) -> bool) -> Result<()> {
    forget(chosen).await.doing(|| "forget UDP flows".into())
}

async fn forget(chosen: impl Fn(IpAddr, u16) -> bool) -> Result<(), Errno> {
    let socket = Socket::open(NETLINK_NETFILTER).map_err(|e| errno_of(&e))?;
    let mut flows = Vec::new();
    let listed = exchange(&socket, GET, NLM_F_DUMP, (ANY, &[]), |family, flow| {
        if let Some(tuple) = find(flow, TUPLE_ORIG)
            && destination(tuple).is_some_and(|(address, port)| chosen(address, port))
        {
            flows.push((family, tuple.to_vec()));
        }
    });
    match listed.await {
        // A kernel without nf_conntrack_netlink: its flows end by themselves, half a minute after their last datagram.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(()),
        listed => listed?,
    }
    for (family, tuple) in flows {
        match exchange(&socket, DELETE, NLM_F_ACK, (family, &tuple), |_, _| {}).await {
            // It has ended by itself.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Where a flow's first datagram was sent, if it is UDP.
fn destination(tuple: &[u8]) -> Option<(IpAddr, u16)> {
    let addresses = find(tuple, TUPLE_IP)?;
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(find(addresses, IP_V4_DST)?).ok()?));
    let v6 = || Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, IP_V6_DST)?).ok()?));
    let address = v4().or_else(v6)?;
    let protocol = find(tuple, TUPLE_PROTO)?;
    let is_udp = find(protocol, PROTO_NUM)? == [UDP];
    let port = u16::from_be_bytes(find(protocol, PROTO_DST_PORT)?.try_into().ok()?);
    is_udp.then_some((address, port))
}

/// A message about flows of a family, about the one with that original tuple if it is not empty.
fn request((kind, flags, number): (u16, u16, u32), (family, tuple): (u8, &[u8])) -> Vec<u8> {
    let attributes = match tuple {
        [] => Attributes::default(),
        tuple => Attributes::default().nested(TUPLE_ORIG, tuple),
    };
    let mut datagram = Vec::new();
    append(&mut datagram, (kind, NLM_F_REQUEST | flags, number), [family, 0, 0, 0], attributes.as_ref());
    datagram
}

/// Sends a request and hears the answer to its end; `found` gets each object's family and attributes.
async fn exchange(
    socket: &Socket,
    kind: u16,
    flags: u16,
    about: (u8, &[u8]),
    mut found: impl FnMut(u8, &[u8]),
) -> Result<(), Errno> {
    let number = socket.numbers(1);
    let request = request((kind, flags, number), about);
    let found = |message: Message<'_>| found(message.family(), message.attributes());
    socket.ask(&request, (number, flags), "the kernel's flows", found).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn tuple(protocol: u8, destination: IpAddr) -> Vec<u8> {
        let new = Attributes::default;
        let addresses = match destination {
            IpAddr::V4(address) => new().bytes(1, &[172, 30, 0, 1]).bytes(IP_V4_DST, &address.octets()),
            IpAddr::V6(address) => new().bytes(3, &[0; 16]).bytes(IP_V6_DST, &address.octets()),
        };
        let ports = new().bytes(PROTO_NUM, &[protocol]).bytes(2, &40_000_u16.to_be_bytes());
        let ports = ports.bytes(PROTO_DST_PORT, &53_u16.to_be_bytes());
        new().nested(TUPLE_IP, addresses.as_ref()).nested(TUPLE_PROTO, ports.as_ref()).as_ref().to_vec()
    }

    #[test]
    fn a_udp_flow_tells_where_it_was_sent() {
        for address in [Ipv4Addr::new(172, 30, 0, 2).into(), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(destination(&tuple(17, address)), Some((address, 53)));
            assert_eq!(destination(&tuple(6, address)), None);
            assert_eq!(destination(&tuple(17, address)[..20]), None);
        }
    }

    #[test]
    fn a_request_carries_the_tuple_as_it_came() {
        let tuple = tuple(17, Ipv4Addr::LOCALHOST.into());
        let message = request((DELETE, NLM_F_ACK, 1), (2, &tuple));
        let messages: Vec<_> = Message::all(&message).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].kind, messages[0].family()), (DELETE, 2));
        assert_eq!(find(messages[0].attributes(), TUPLE_ORIG), Some(tuple.as_slice()));
    }
}
