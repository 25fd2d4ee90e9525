//! Forgetting neighbours: where addresses are on a link's segment.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Link, Netlink};
use crate::error::{Doing, Result};

impl Netlink {
    /// Forgets where `address` was on the link's segment. One that is not known is no error.
    pub(crate) async fn delete_neighbour(&self, link: &Link, address: IpAddr) -> Result<()> {
        match self.change(RouteNetlinkMessage::DelNeighbour(neighbour(link.index, address)), 0).await {
            // Neither is a link that has gone meanwhile, with all that it knew.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done.doing(|| self.here(format!("forget where {address} is on {}", link.name))),
        }
    }
}

/// What names a neighbour.
pub(super) fn neighbour(link: u32, address: IpAddr) -> NeighbourMessage {
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
