//! The kernel's decisions about a packet: by which link it would leave, which rules have a part in that, and where neighbours are.
//!
//! Nothing here changes anything.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::{Route, read_route};
use super::{Link, Netlink};
use crate::error::{Doing, Result};
use crate::mac::Mac;

/// How a packet that is to be forwarded comes to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Who sends it.
    pub(crate) source: IpAddr,
    /// Index of the link that it comes by.
    pub(crate) link: u32,
}

/// Where an address is on a link's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) address: IpAddr,
    /// Nothing where nobody has answered for it.
    pub(crate) mac: Option<Mac>,
}

/// A rule that sends packets to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) priority: u32,
    pub(crate) table: u32,
}

fn family_of(ipv4: bool) -> AddressFamily {
    if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn of_route(address: IpAddr) -> (u8, RouteAddress) {
    match address {
        IpAddr::V4(address) => (32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (128, RouteAddress::Inet6(address)),
    }
}

impl Netlink {
    /// The route that a packet to `address` would take now, with its table: one that arrives, or else one of this host's own. Policy rules
    /// and all tables have their say. Errors: the route's own where it ends the packet, `EXDEV` where the reverse path filter does.
    pub(crate) async fn decision(&self, address: IpAddr, arrival: Option<Arrival>) -> Result<Route, Errno> {
        let mut message = RouteMessage::default();
        let (length, destination) = of_route(address);
        message.header.address_family = family_of(address.is_ipv4());
        message.header.destination_prefix_length = length;
        if address.is_ipv4() {
            // IPv6 tells the table in any case, and refuses the flag.
            message.header.flags = RouteFlags::LookupTable;
        }
        message.attributes.push(RouteAttribute::Destination(destination));
        if let Some(Arrival { source, link }) = arrival {
            let (length, source) = of_route(source);
            message.header.source_prefix_length = length;
            message.attributes.push(RouteAttribute::Source(source));
            message.attributes.push(RouteAttribute::Iif(link));
        }
        let answer = self.get(RouteNetlinkMessage::GetRoute(message)).await?;
        read_route(answer).ok_or(Errno::EPROTO)
    }

    /// What the kernel knows of the neighbours on a link, of one family.
    pub(crate) async fn neighbours(&self, link: &Link, ipv4: bool) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(ipv4);
        message.attributes.push(NeighbourAttribute::IfIndex(link.index));
        let found = self.dump_whole(RouteNetlinkMessage::GetNeighbour(message)).await;
        let found = found.doing(|| self.here(format!("list the neighbours on {}", link.name)))?;
        Ok(found.into_iter().filter_map(|message| read_neighbour(message, link.index)).collect())
    }

    /// The rules that send packets of a family to a table of their own.
    pub(crate) async fn rules(&self, ipv4: bool) -> Result<Vec<Rule>> {
        let mut message = RuleMessage::default();
        message.header.family = family_of(ipv4);
        let found = self.dump_whole(RouteNetlinkMessage::GetRule(message)).await;
        let found = found.doing(|| self.here("list the routing rules".into()))?;
        Ok(found.into_iter().filter_map(read_rule).collect())
    }
}

fn read_neighbour(message: RouteNetlinkMessage, link: u32) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    let mac = message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.try_into().ok().map(Mac),
        _ => None,
    });
    let silent =
        matches!(message.header.state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None);
    (message.header.ifindex == link).then_some(Neighbour { address, mac: mac.filter(|_| !silent) })
}

fn read_rule(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let mut rule = Rule { priority: 0, table: message.header.table.into() };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            _ => {}
        }
    }
    Some(rule)
}
