//! What the kernel says about a namespace: links, addresses, routes, permanent neighbours.
//!
//! Invariant: always read afresh, over one conversation; what the kernel adds to every IPv6 interface by itself
//! (link-local addresses and their routes) stands apart, as it comes and goes with the carrier.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::Namespace;

/// The table in which the kernel keeps what follows from the addresses.
pub const TABLE_LOCAL: u32 = 255;

/// One reading of a namespace.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// All links, by index.
    pub links: Vec<Link>,
    /// All routes but the next ones.
    pub routes: Vec<Route>,
    /// Those of the table `local`, and to link-local and multicast ranges of IPv6: but for what somebody has added, they follow from the addresses.
    pub routes_apart: Vec<Route>,
    /// All rules of which table to ask, like `ip rule` has them.
    pub rules: BTreeSet<String>,
    /// Permanent neighbours, as `<address> dev <link>`.
    pub neighbours: BTreeSet<String>,
}

/// A link and what is on it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, ..; empty for a plain one.
    pub kind: String,
    /// Whether it is set up (not whether it has a carrier).
    pub up: bool,
    /// In bytes.
    pub mtu: u32,
    /// Its hardware address, like `02:00:0a:57:01:02`.
    pub mac: String,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// Its alternative names.
    pub names: BTreeSet<String>,
    /// The free text on it.
    pub alias: Option<String>,
    /// Its addresses, like `10.87.1.2/24`, but for link-local ones of IPv6.
    pub addresses: BTreeSet<String>,
    /// Its link-local addresses of IPv6, like `fe80::1/64`.
    pub link_locals: BTreeSet<String>,
    /// Those of both that cannot be used: the kernel asks whether somebody else has them, or has found that somebody has.
    pub unsettled: BTreeSet<String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// `default`, or a range like `10.87.1.0/24`.
    pub destination: String,
    /// The next hop, if there is one.
    pub gateway: Option<IpAddr>,
    /// The link's name.
    pub device: String,
    /// 254 is the main one.
    pub table: u32,
    /// Who made it, its type, and its metric if it has one.
    pub origin: String,
    /// Its metric; IPv6 has 1024 where none was given.
    pub priority: Option<u32>,
    /// How far it leads; IPv6 knows no scopes, and has 0.
    pub scope: u8,
    /// The longest packet that goes by it, if that is said.
    pub mtu: Option<u32>,
    /// The longest TCP segment that is asked for by it, if that is said.
    pub advmss: Option<u32>,
}

impl Route {
    /// Whether the kernel made it, as what follows from an address.
    pub fn is_kernels(&self) -> bool {
        self.origin.starts_with("proto kernel ")
    }
}

impl View {
    /// Reads `namespace`.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        namespace.netlink(read)
    }

    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

async fn read(handle: Handle) -> Result<View> {
    let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.context("list links")?;
    let names: BTreeMap<u32, String> = messages.iter().map(|link| (link.header.index, name_of(link))).collect();
    let mut links: Vec<Link> = messages.into_iter().map(|message| link(message, &names)).collect();
    let addresses: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.context("list addresses")?;
    for message in addresses {
        let Some(address) = address(&message) else { continue };
        let Some(link) = links.iter_mut().find(|link| link.index == message.header.index) else { continue };
        let text = format!("{address}/{}", message.header.prefix_len);
        if is_unsettled(&message) {
            link.unsettled.insert(text.clone());
        }
        let place = if is_link_local_v6(&address) { &mut link.link_locals } else { &mut link.addresses };
        place.insert(text);
    }
    let (mut routes, mut routes_apart, mut rules) = (Vec::new(), Vec::new(), BTreeSet::new());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessageBuilder::<IpAddr>::new().build();
        request.header.address_family = family;
        let found: Vec<RouteMessage> =
            handle.route().get(request).execute().try_collect().await.context("list routes")?;
        for message in &found {
            let place = if is_apart(message) { &mut routes_apart } else { &mut routes };
            place.push(route(message, &names));
        }
        let version = if family == AddressFamily::Inet { IpVersion::V4 } else { IpVersion::V6 };
        let found: Vec<RuleMessage> = handle.rule().get(version).execute().try_collect().await.context("list rules")?;
        rules.extend(found.iter().map(rule));
    }
    let neighbours: Vec<NeighbourMessage> =
        handle.neighbours().get().execute().try_collect().await.context("list neighbours")?;
    let neighbours = neighbours.iter().filter_map(|message| permanent_neighbour(message, &names)).collect();
    Ok(View { links, routes, routes_apart, rules, neighbours })
}

fn name_of(message: &LinkMessage) -> String {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn link(message: LinkMessage, names: &BTreeMap<u32, String>) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac_text(&mac),
            LinkAttribute::Controller(index) => link.master = names.get(&index).cloned(),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::PropList(props) => {
                link.names.extend(props.into_iter().filter_map(|prop| match prop {
                    Prop::AltIfName(name) => Some(name),
                    _ => None,
                }));
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// `Local` is the interface's own end where the two differ; IPv6 has `Address` only.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    of(true).or_else(|| of(false))
}

fn is_unsettled(message: &AddressMessage) -> bool {
    let unsettled = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    message.header.flags.intersects(unsettled)
}

fn is_link_local_v6(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

fn table(message: &RouteMessage) -> u32 {
    let said = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    said.unwrap_or(u32::from(message.header.table))
}

fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => ip(to),
        _ => None,
    })
}

/// Whether the kernel has such routes by itself.
fn is_apart(message: &RouteMessage) -> bool {
    table(message) == TABLE_LOCAL || destination(message).is_some_and(|to| is_link_local_v6(&to))
}

fn route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Route {
    let (protocol, kind) = (message.header.protocol, message.header.kind);
    let destination = match destination(message) {
        Some(address) => format!("{address}/{}", message.header.destination_prefix_length),
        None => "default".to_owned(),
    };
    let mut route = Route {
        destination,
        table: table(message),
        origin: format!("proto {protocol:?} type {kind:?}").to_lowercase(),
        scope: message.header.scope.into(),
        ..Route::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(via) => route.gateway = ip(via),
            RouteAttribute::Oif(index) => route.device = names.get(index).cloned().unwrap_or_default(),
            RouteAttribute::Priority(metric) => {
                route.priority = Some(*metric);
                route.origin = format!("{} metric {metric}", route.origin);
            }
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route
}

/// Its parts as the kernel sent them: a rule may ask for anything, and none is known to be the plugin's.
fn rule(message: &RuleMessage) -> String {
    let header = &message.header;
    format!("{:?} {:?} table {} {:?}", header.family, header.action, header.table, message.attributes).to_lowercase()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn permanent_neighbour(message: &NeighbourMessage, names: &BTreeMap<u32, String>) -> Option<String> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let device = names.get(&message.header.ifindex)?;
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(format!("{v4} dev {device}")),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) if !v6.is_multicast() => {
            Some(format!("{v6} dev {device}"))
        }
        _ => None,
    })
}
