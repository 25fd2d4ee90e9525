//! The addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};

use super::{Link, Netlink};
use crate::error::{Doing, Result};

/// An address of a link, of any scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Index of the link.
    pub(crate) link: u32,
    /// With its subnet's prefix length.
    pub(crate) network: IpNetwork,
    /// Whether the kernel uses it.
    pub(crate) state: AddressState,
    /// Whether it is there until somebody takes it away: what a router told of ends by itself.
    pub(crate) permanent: bool,
}

/// What has become of the question whether somebody else has an address (RFC 4862, section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressState {
    /// Nobody has, or nobody was asked.
    Usable,
    /// It is still asked.
    Tentative,
    /// Somebody has.
    Duplicate,
}

impl Address {
    /// Whether it means something on its own link only (`fe80::/10`).
    pub(crate) fn is_link_local(&self) -> bool {
        matches!(self.network.ip(), IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

impl Netlink {
    /// Gives the link an address, and so a route to its subnet; it is not asked who else has it. Errors: `EEXIST`.
    pub(crate) async fn add_address(&self, link: &Link, address: IpNetwork) -> Result<()> {
        let flags = if address.is_ipv6() { AddressFlags::Nodad } else { AddressFlags::empty() };
        self.add_address_with(link, address, flags).await
    }

    /// The same, but an address of IPv6 is tentative until it is known that nobody else has it. Errors: `EEXIST`.
    pub(crate) async fn add_tentative_address(&self, link: &Link, address: IpNetwork) -> Result<()> {
        self.add_address_with(link, address, AddressFlags::empty()).await
    }

    /// Takes an address off the link. One that is not there is no error.
    pub(crate) async fn delete_address(&self, link: &Link, address: IpNetwork) -> Result<()> {
        match self.change(RouteNetlinkMessage::DelAddress(address_message(link.index, address)), 0).await {
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            done => done.doing(|| self.here(format!("take the address {address} from {}", link.name))),
        }
    }

    async fn add_address_with(&self, link: &Link, address: IpNetwork, flags: AddressFlags) -> Result<()> {
        let mut message = address_message(link.index, address);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        let given = self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await;
        given.doing(|| self.here(format!("give {} the address {address}", link.name)))
    }

    /// The link's addresses, but for those of a link's own scope.
    pub(crate) async fn addresses(&self, link: &Link) -> Result<Vec<IpNetwork>> {
        let found = self.addresses_of_any_scope(link).await?;
        Ok(found.iter().filter(|address| !address.is_link_local()).map(|address| address.network).collect())
    }

    /// All addresses of the link.
    pub(crate) async fn addresses_of_any_scope(&self, link: &Link) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = link.index;
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(message)).await;
        let messages = messages.doing(|| self.here(format!("list the addresses of {}", link.name)))?;
        Ok(messages.into_iter().filter_map(read_address).filter(|address| address.link == link.index).collect())
    }

    /// The addresses of all links, each with its link's index, but for those of a link's own scope.
    pub(crate) async fn all_addresses(&self) -> Result<Vec<(u32, IpNetwork)>> {
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await;
        let messages = messages.doing(|| self.here("list the addresses".into()))?;
        let found = messages.into_iter().filter_map(read_address).filter(|address| !address.is_link_local());
        Ok(found.map(|address| (address.link, address.network)).collect())
    }
}

fn address_message(link: u32, address: IpNetwork) -> AddressMessage {
    match address {
        IpNetwork::V4(address) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(address.ip(), address.prefix()).build()
        }
        IpNetwork::V6(address) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(link).address(address.ip(), address.prefix()).build()
        }
    }
}

fn read_address(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // IPv4's is IFA_LOCAL, where IFA_ADDRESS is the peer's on a point-to-point link; IPv6 has IFA_ADDRESS alone, as a rule.
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    let flags = message.header.flags;
    let state = if flags.contains(AddressHeaderFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressHeaderFlags::Tentative) {
        AddressState::Tentative
    } else {
        AddressState::Usable
    };
    let network = IpNetwork::new(address, message.header.prefix_len).ok()?;
    let permanent = flags.contains(AddressHeaderFlags::Permanent);
    Some(Address { link: message.header.index, network, state, permanent })
}
