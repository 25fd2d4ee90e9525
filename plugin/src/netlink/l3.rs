//! Addresses, routes and neighbours.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::Netlink;

/// A route, of the main table unless it says another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// A prefix of length 0 for the default route of its family.
    pub(crate) destination: IpNetwork,
    /// The next hop; none for what is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    /// Index of the link that it leaves by.
    pub(crate) link: Option<u32>,
    pub(crate) attributes: RouteAttributes,
}

/// What a route may say beyond where it leads; what is absent is the kernel's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteAttributes {
    /// The largest packet that is sent there, in bytes.
    pub(crate) mtu: Option<u32>,
    /// The largest segment that TCP is told of there, in bytes.
    pub(crate) advmss: Option<u32>,
    /// Of two routes to one destination the one of the lower number is taken.
    pub(crate) priority: Option<u32>,
    pub(crate) table: Option<u32>,
    /// How far it leads (`RT_SCOPE_*` of linux/rtnetlink.h); IPv6 has no use for it.
    pub(crate) scope: Option<u8>,
    /// What becomes of a packet that takes it.
    pub(crate) kind: RouteKind,
}

/// What becomes of a packet that takes a route (`RTN_*` of linux/rtnetlink.h). All but the first have neither link nor next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// It is sent on.
    #[default]
    Unicast,
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped, and its sender gets an ICMP error: host unreachable.
    Unreachable,
    /// The same: administratively prohibited.
    Prohibit,
}

impl Route {
    /// To `destination`, by `gateway`.
    pub(crate) fn by(destination: IpNetwork, gateway: IpAddr) -> Self {
        Self { destination, gateway: Some(gateway), link: None, attributes: RouteAttributes::default() }
    }

    /// To everything of the gateway's family that no other route matches.
    pub(crate) fn default_by(gateway: IpAddr) -> Self {
        Self::by(everything(gateway.is_ipv4()), gateway)
    }

    /// Whether it is its family's default route.
    pub(crate) fn is_default(&self) -> bool {
        self.destination.prefix() == 0
    }
}

impl RouteAttributes {
    /// `RT_TABLE_MAIN` of linux/rtnetlink.h.
    const MAIN: u8 = 254;
    const MTU_MAX_BYTES: u32 = 65_535 - 15;
    const ADVMSS_MAX_BYTES: u32 = 65_535 - 40;

    /// Whether the route is where every packet looks that no rule sends elsewhere.
    pub(crate) fn is_in_main_table(&self) -> bool {
        self.table.is_none_or(|table| table == u32::from(Self::MAIN))
    }

    /// With the sizes that the kernel makes of larger ones (`ip_metrics_convert`, net/ipv4/metrics.c): what is told is what is kept.
    pub(crate) fn as_kept(self) -> Self {
        Self {
            mtu: self.mtu.map(|mtu| mtu.min(Self::MTU_MAX_BYTES)),
            advmss: self.advmss.map(|advmss| advmss.min(Self::ADVMSS_MAX_BYTES)),
            ..self
        }
    }

    fn write(&self, message: &mut RouteMessage) {
        let metrics = [self.mtu.map(RouteMetric::Mtu), self.advmss.map(RouteMetric::Advmss)];
        let metrics: Vec<_> = metrics.into_iter().flatten().collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        message.attributes.extend(self.priority.map(RouteAttribute::Priority));
        if let Some(table) = self.table {
            // The header has room for a byte.
            message.header.table = u8::try_from(table).unwrap_or_default();
            message.attributes.push(RouteAttribute::Table(table));
        }
        if let Some(scope) = self.scope {
            message.header.scope = scope.into();
        }
        let kind = match self.kind {
            RouteKind::Unicast => return,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
        };
        message.header.kind = kind;
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    }

    /// What the kernel has chosen itself is told as well.
    fn read(message: &RouteMessage) -> Self {
        let mut read = Self {
            table: Some(message.header.table.into()),
            scope: Some(message.header.scope.into()),
            kind: match message.header.kind {
                RouteType::BlackHole => RouteKind::Blackhole,
                RouteType::Unreachable => RouteKind::Unreachable,
                RouteType::Prohibit => RouteKind::Prohibit,
                _ => RouteKind::Unicast,
            },
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Priority(priority) => read.priority = Some(*priority),
                RouteAttribute::Table(table) => read.table = Some(*table),
                RouteAttribute::Metrics(metrics) => metrics.iter().for_each(|metric| match metric {
                    RouteMetric::Mtu(mtu) => read.mtu = Some(*mtu),
                    RouteMetric::Advmss(advmss) => read.advmss = Some(*advmss),
                    _ => {}
                }),
                _ => {}
            }
        }
        read
    }
}

/// All addresses of a family.
fn everything(ipv4: bool) -> IpNetwork {
    let any = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNetwork::new(any, 0).expect("a prefix length that every family has")
}

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
    pub(crate) async fn add_address(&self, link: u32, address: IpNetwork) -> Result<(), Errno> {
        let flags = if address.is_ipv6() { AddressFlags::Nodad } else { AddressFlags::empty() };
        self.add_address_with(link, address, flags).await
    }

    /// The same, but an address of IPv6 is tentative until it is known that nobody else has it. Errors: `EEXIST`.
    pub(crate) async fn add_tentative_address(&self, link: u32, address: IpNetwork) -> Result<(), Errno> {
        self.add_address_with(link, address, AddressFlags::empty()).await
    }

    /// Takes an address off the link. One that is not there is no error.
    pub(crate) async fn delete_address(&self, link: u32, address: IpNetwork) -> Result<(), Errno> {
        match self.change(RouteNetlinkMessage::DelAddress(address_message(link, address)), 0).await {
            Err(Errno::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
    }

    async fn add_address_with(&self, link: u32, address: IpNetwork, flags: AddressFlags) -> Result<(), Errno> {
        let mut message = address_message(link, address);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// The link's addresses, but for those of a link's own scope.
    pub(crate) async fn addresses(&self, link: u32) -> Result<Vec<IpNetwork>, Errno> {
        let found = self.addresses_of_any_scope(link).await?;
        Ok(found.iter().filter(|address| !address.is_link_local()).map(|address| address.network).collect())
    }

    /// All addresses of the link.
    pub(crate) async fn addresses_of_any_scope(&self, link: u32) -> Result<Vec<Address>, Errno> {
        let mut message = AddressMessage::default();
        message.header.index = link;
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(message)).await?;
        Ok(messages.into_iter().filter_map(read_address).filter(|address| address.link == link).collect())
    }

    /// The addresses of all links, each with its link's index, but for those of a link's own scope.
    pub(crate) async fn all_addresses(&self) -> Result<Vec<(u32, IpNetwork)>, Errno> {
        let messages = self.dump_whole(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let found = messages.into_iter().filter_map(read_address).filter(|address| !address.is_link_local());
        Ok(found.map(|address| (address.link, address.network)).collect())
    }

    /// Adds a route that leaves by the link. Errors: `EEXIST`.
    pub(crate) async fn add_route(&self, link: u32, route: &Route) -> Result<(), Errno> {
        let mut message = match (route.destination, route.gateway) {
            (IpNetwork::V4(destination), gateway) => {
                let message = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(destination.ip(), destination.prefix())
                    .output_interface(link);
                match gateway {
                    Some(IpAddr::V4(gateway)) => message.gateway(gateway).build(),
                    Some(IpAddr::V6(_)) => return Err(Errno::EINVAL),
                    None => message.build(),
                }
            }
            (IpNetwork::V6(destination), gateway) => {
                let message = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(destination.ip(), destination.prefix())
                    .output_interface(link);
                match gateway {
                    Some(IpAddr::V6(gateway)) => message.gateway(gateway).build(),
                    Some(IpAddr::V4(_)) => return Err(Errno::EINVAL),
                    None => message.build(),
                }
            }
        };
        route.attributes.write(&mut message);
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// The routes of the main table, IPv4's first.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, Errno> {
        let mut routes = self.ipv4_routes().await?;
        routes.extend(self.ipv6_routes().await?);
        Ok(routes)
    }

    /// The IPv4 routes of the main table.
    pub(crate) async fn ipv4_routes(&self) -> Result<Vec<Route>, Errno> {
        self.routes_of(AddressFamily::Inet, RouteAttributes::MAIN).await
    }

    /// The IPv6 routes of the main table.
    pub(crate) async fn ipv6_routes(&self) -> Result<Vec<Route>, Errno> {
        self.routes_of(AddressFamily::Inet6, RouteAttributes::MAIN).await
    }

    /// One family's routes, whatever table they are in; the kernel's own are among them.
    pub(crate) async fn routes_of_all_tables(&self, ipv4: bool) -> Result<Vec<Route>, Errno> {
        let family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // RT_TABLE_UNSPEC: any.
        self.routes_of(family, 0).await
    }

    /// The kernel filters by table.
    async fn routes_of(&self, family: AddressFamily, table: u8) -> Result<Vec<Route>, Errno> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = table;
        match self.dump_whole(RouteNetlinkMessage::GetRoute(message)).await {
            Ok(messages) => Ok(messages.into_iter().filter_map(read_route).collect()),
            // A namespace makes the table with its first route; a kernel may lack IPv6.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }

    /// The links that have learnt IPv6 routes from router advertisements.
    pub(crate) async fn links_with_routers(&self) -> Result<BTreeSet<u32>, Errno> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let messages = self.dump_whole(RouteNetlinkMessage::GetRoute(message)).await?;
        let learnt = messages.into_iter().filter(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => message.header.protocol == RouteProtocol::Ra,
            _ => false,
        });
        Ok(learnt.filter_map(read_route).filter_map(|route| route.link).collect())
    }

    /// The way that the kernel would take to `address` now, policy rules and all tables considered.
    pub(crate) async fn way_to(&self, address: IpAddr) -> Result<Route, Errno> {
        let mut message = RouteMessage::default();
        let (family, length, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(destination));
        let answer = self.get(RouteNetlinkMessage::GetRoute(message)).await?;
        read_route(answer).ok_or(Errno::EPROTO)
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

pub(super) fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let destination = everything(message.header.address_family == AddressFamily::Inet);
    let attributes = RouteAttributes::read(&message);
    let mut route = Route { destination, gateway: None, link: None, attributes };
    let length = message.header.destination_prefix_length;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination = Ipv4Network::new(address, length).ok()?.into();
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                route.destination = Ipv6Network::new(address, length).ok()?.into();
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(address.into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => route.gateway = Some(address.into()),
            RouteAttribute::Oif(index) => route.link = Some(index),
            // Of several ways, the first.
            RouteAttribute::MultiPath(hops) => route.link = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    Some(route)
}
