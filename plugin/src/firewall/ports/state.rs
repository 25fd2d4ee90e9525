//! What the host's links say of published ports, and bringing the rules to that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::table::{self, Found, Wanted};
use super::{HostPort, Port, claimed, claims, failed, forget_flows, is_open, is_spare, loopback, rules};
use crate::attachment;
use crate::error::{Error, Result};
use crate::family::IpFamily;
use crate::ipam::lease;
use crate::netlink::{Ipv4Setting, Link, Netlink};
use crate::nft::{Nftables, Problem};

/// The host's links and addresses, from which all else follows.
pub(super) struct State {
    pub(super) links: Vec<Link>,
    /// Each with its link's index.
    addresses: Vec<(u32, IpNetwork)>,
}

impl State {
    pub(super) async fn read(host: &Netlink) -> Result<Self> {
        let links = host.links().await?;
        let addresses = host.all_addresses().await?;
        Ok(Self { links, addresses })
    }

    /// Has links claim what flatnet 0.1 has published for them.
    pub(super) async fn adopt(&mut self, host: &Netlink) -> Result<()> {
        let Ok(mut nftables) = Nftables::open() else { return Ok(()) };
        for family in IpFamily::BOTH {
            let Ok(found) = Found::read(&mut nftables, family).await else { continue };
            let mut former: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for (holder, port, container) in found.former(family) {
                former.entry(holder).or_default().push(Port { host: port, container });
            }
            for link in &mut self.links {
                let Some(ports) = lease::attachment_of(link).and_then(|name| former.remove(name)) else { continue };
                if claimed(link).any(|port| port.host.family() == family) {
                    continue;
                }
                for name in claims::names(&ports) {
                    host.add_alternative_name(link, &name).await?;
                    link.names.push(name);
                }
            }
        }
        Ok(())
    }

    /// Those of `ports` that the link can claim. Errors: 108 where another container has one of them.
    pub(super) fn free(&self, at: usize, ports: &[Port], container: &str) -> Result<Vec<Port>> {
        let held: BTreeMap<HostPort, &Link> = self
            .links
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != at)
            .flat_map(|(_, link)| claimed(link).map(move |port| (port.host, link)))
            .collect();
        let mut free = Vec::new();
        for port in ports {
            match held.iter().find(|(host, _)| host.collides(port.host)) {
                // A container on two networks is told of its ports twice: the first network has them.
                Some((_, link))
                    if lease::attachment_of(link).is_some_and(|it| attachment::is_of_container(it, container)) => {}
                Some((_, link)) => {
                    return Err(Error::PortTaken { port: port.host.to_string(), holder: lease::describe(link) });
                }
                None => free.push(*port),
            }
        }
        Ok(free)
    }

    /// What a family's tables should have.
    pub(super) fn wanted(&self, family: IpFamily) -> Wanted {
        let of_family = |address: &IpAddr| IpFamily::of(*address) == family;
        let (mut ports, mut gateways) = (BTreeMap::new(), BTreeSet::new());
        for link in &self.links {
            let Some(to) = lease::leases(link).find(of_family) else { continue };
            let mut claims = claimed(link).filter(|port| port.host.family() == family).peekable();
            if claims.peek().is_none() {
                continue;
            }
            claims.for_each(|port| _ = ports.entry(port.host).or_insert((to, port.container)));
            gateways.extend(self.gateway(link).into_iter().flat_map(|gateway| self.subnets(gateway, family)));
        }
        let addresses = self.addresses.iter().map(|(_, network)| network.ip()).filter(of_family).collect();
        Wanted { family, ports, gateways, addresses }
    }

    /// The link by which the host reaches the container: its bridge, or a VLAN there.
    fn gateway(&self, link: &Link) -> Option<&Link> {
        let bridge = link.bridge?;
        match lease::vlan(link) {
            Some(vlan) => self.links.iter().find(|it| it.vlan == Some(vlan) && it.peer == Some(bridge)),
            None => self.links.iter().find(|it| it.index == bridge),
        }
    }

    fn subnets(&self, gateway: &Link, family: IpFamily) -> impl Iterator<Item = rules::Gateway> {
        let (index, name) = (gateway.index, gateway.name.clone());
        let networks = self.addresses.iter().filter(move |(link, network)| *link == index && family.has(*network));
        networks.filter_map(move |(_, network)| {
            Some((name.clone(), IpNetwork::new(network.network(), network.prefix()).ok()?))
        })
    }

    /// Makes the rules what the links say, for each family alike: one that the kernel lacks does not keep the other's from being
    /// there. `own` are the ports that must be published in the end.
    pub(super) async fn bring(&self, host: &Netlink, own: Option<&[Port]>) -> Result<()> {
        let doing = "change the published ports";
        let wanted = IpFamily::BOTH.map(|family| self.wanted(family));
        let is_published = wanted.iter().any(|wanted| !wanted.ports.is_empty());
        if is_published {
            loopback::ensure(host, &self.links).await?;
        }
        let mut nftables = match Nftables::open() {
            Err(Problem::Lacking { .. }) if !is_published => return loopback::remove(host).await,
            opened => opened.map_err(|problem| failed(doing, &problem))?,
        };
        let mut problems = Vec::new();
        for wanted in &wanted {
            let found = Found::read(&mut nftables, wanted.family).await;
            let changed = found.map(|found| found.changed(wanted)).unwrap_or_default();
            match table::bring(&mut nftables, wanted).await {
                Ok(()) => forget_flows(host, &changed).await?,
                Err(Problem::Lacking { .. }) if wanted.ports.is_empty() => {}
                Err(problem) => problems.push((wanted.family, problem)),
            }
        }
        self.close_bridges(host).await?;
        if !is_published {
            loopback::remove(host).await?;
        }
        for (family, problem) in problems {
            let error = failed(doing, &problem);
            match own {
                Some(own) if matches!(problem, Problem::Lacking { .. }) && is_spare(own, family) => {
                    if own.iter().any(|port| port.host.family() == family) {
                        eprintln!("flatnet: warning: {error} ({})", error.remedy());
                    }
                }
                _ => return Err(error),
            }
        }
        Ok(())
    }

    /// Flatnet 0.1 let bridges take packets to loopback addresses.
    async fn close_bridges(&self, host: &Netlink) -> Result<()> {
        let published = self.links.iter().filter(|link| claimed(link).next().is_some());
        let gateways: BTreeMap<_, _> =
            published.filter_map(|link| self.gateway(link)).map(|gateway| (gateway.index, gateway)).collect();
        for gateway in gateways.values().filter(|gateway| is_open(&gateway.name)) {
            host.set_ipv4(gateway, &[(Ipv4Setting::RouteLocalnet, false)]).await?;
        }
        Ok(())
    }
}
