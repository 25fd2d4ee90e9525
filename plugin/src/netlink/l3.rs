//! Addresses, routes and neighbours.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::Netlink;

/// An IPv4 route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// 0.0.0.0/0 for the default route.
    pub(crate) destination: Ipv4Network,
    /// The next hop; none for what is on the link itself.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Index of the link that it leaves by.
    pub(crate) link: Option<u32>,
}

impl Route {
    /// Everything that no other route matches.
    pub(crate) const DEFAULT: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
        Some(network) => network,
        None => unreachable!(),
    };
}

impl Netlink {
    /// Gives the link an address, and so a route to its subnet. Errors: `EEXIST`.
    pub(crate) async fn add_address(&self, link: u32, address: Ipv4Network) -> Result<(), Errno> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(address.ip(), address.prefix());
        self.change(RouteNetlinkMessage::NewAddress(message.build()), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// The link's IPv4 addresses.
    pub(crate) async fn addresses(&self, link: u32) -> Result<Vec<Ipv4Network>, Errno> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = link;
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(message)).await?;
        Ok(messages.into_iter().filter_map(read_address).filter(|(index, _)| *index == link).map(|(_, a)| a).collect())
    }

    /// The IPv4 addresses of all links, each with its link's index.
    pub(crate) async fn all_addresses(&self) -> Result<Vec<(u32, Ipv4Network)>, Errno> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(message)).await?;
        Ok(messages.into_iter().filter_map(read_address).collect())
    }

    /// Adds a route by `gateway`. Errors: `EEXIST`.
    pub(crate) async fn add_route(&self, link: u32, destination: Ipv4Network, gateway: Ipv4Addr) -> Result<(), Errno> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.ip(), destination.prefix())
            .gateway(gateway)
            .output_interface(link);
        self.change(RouteNetlinkMessage::NewRoute(message.build()), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// The IPv4 routes of the main table.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Errno> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        // RT_TABLE_MAIN: the kernel filters by it.
        message.header.table = 254;
        match self.dump_whole(RouteNetlinkMessage::GetRoute(message)).await {
            Ok(messages) => Ok(messages.into_iter().filter_map(read_route).collect()),
            // A namespace makes the table with its first route.
            Err(Errno::ENOENT) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }

    /// The way that the kernel would take to `address` now, policy rules and all tables considered.
    pub(crate) async fn way_to(&self, address: Ipv4Addr) -> Result<Route, Errno> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        let answer = self.get(RouteNetlinkMessage::GetRoute(message)).await?;
        read_route(answer).ok_or(Errno::EPROTO)
    }

    /// Forgets where `address` was on the link's segment. One that is not known is no error.
    pub(crate) async fn delete_neighbour(&self, link: u32, address: Ipv4Addr) -> Result<(), Errno> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        match self.change(RouteNetlinkMessage::DelNeighbour(message), 0).await {
            // Neither is a link that has gone meanwhile, with all that it knew.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done,
        }
    }
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Network)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // For IPv4 the local address is IFA_LOCAL; IFA_ADDRESS is the peer's on a point-to-point link.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some((message.header.index, Ipv4Network::new(local, message.header.prefix_len).ok()?))
}

fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let mut route = Route { destination: Route::DEFAULT, gateway: None, link: None };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination = Ipv4Network::new(address, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(address),
            RouteAttribute::Oif(index) => route.link = Some(index),
            // Of several ways, the first.
            RouteAttribute::MultiPath(hops) => route.link = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    Some(route)
}
