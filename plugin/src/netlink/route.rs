//! Routes: what the kernel has, and the way that it would take.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Link, Netlink};
use crate::error::{Doing, Result};

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

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
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

impl Netlink {
    /// Adds a route that leaves by the link. Errors: `EEXIST`.
    pub(crate) async fn add_route(&self, link: &Link, route: &Route) -> Result<()> {
        self.new_route(link.index, route).await.doing(|| self.here(format!("route {route} on {}", link.name)))
    }

    async fn new_route(&self, link: u32, route: &Route) -> Result<(), Errno> {
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
    pub(crate) async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = self.ipv4_routes().await?;
        routes.extend(self.ipv6_routes().await?);
        Ok(routes)
    }

    /// The IPv4 routes of the main table.
    pub(crate) async fn ipv4_routes(&self) -> Result<Vec<Route>> {
        self.routes_of(AddressFamily::Inet, RouteAttributes::MAIN).await
    }

    /// The IPv6 routes of the main table.
    pub(crate) async fn ipv6_routes(&self) -> Result<Vec<Route>> {
        self.routes_of(AddressFamily::Inet6, RouteAttributes::MAIN).await
    }

    /// One family's routes, whatever table they are in; the kernel's own are among them.
    pub(crate) async fn routes_of_all_tables(&self, ipv4: bool) -> Result<Vec<Route>> {
        let family = if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        // RT_TABLE_UNSPEC: any.
        self.routes_of(family, 0).await
    }

    /// The kernel filters by table.
    async fn routes_of(&self, family: AddressFamily, table: u8) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = table;
        match self.dump_whole(RouteNetlinkMessage::GetRoute(message)).await {
            Ok(messages) => Ok(messages.into_iter().filter_map(read_route).collect()),
            // A namespace makes the table with its first route; a kernel may lack IPv6.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(Vec::new()),
            Err(errno) => Err(errno).doing(|| self.here("list the routes".into())),
        }
    }

    /// The links that have learnt IPv6 routes from router advertisements.
    pub(crate) async fn links_with_routers(&self) -> Result<BTreeSet<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let messages = self.dump_whole(RouteNetlinkMessage::GetRoute(message)).await;
        let messages = messages.doing(|| self.here("list the routes that routers have told of".into()))?;
        let learnt = messages.into_iter().filter(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => message.header.protocol == RouteProtocol::Ra,
            _ => false,
        });
        Ok(learnt.filter_map(read_route).filter_map(|route| route.link).collect())
    }

    /// The way that the kernel would take to `address` now, policy rules and all tables considered.
    pub(crate) async fn way_to(&self, address: IpAddr) -> Result<Route> {
        let mut message = RouteMessage::default();
        let (family, length, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(destination));
        let answer = self.get(RouteNetlinkMessage::GetRoute(message)).await;
        let route = answer.and_then(|answer| read_route(answer).ok_or(Errno::EPROTO));
        route.doing(|| self.here(format!("ask for the way to {address}")))
    }
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
