//! The way of a gateway's packet through this host: the kernel is asked for it as if the packet had come.
//!
//! So policy rules and tables that take containers' addresses elsewhere are found, and named.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::error::{Doing, Result};
use crate::netlink::{Arrival, Link, Netlink, Rule};
use crate::sysctl;

/// `RT_TABLE_LOCAL`, `_MAIN` and `_DEFAULT` of linux/rtnetlink.h: the rules that every host has lead there.
const USUAL_TABLES: [u32; 3] = [255, 254, 253];

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) found: String,
    pub(super) remedy: String,
}

/// The ways to one network.
pub(super) struct Ways<'a> {
    host: &'a Netlink,
    /// Where containers are.
    link: Option<&'a Link>,
    arrivals: &'a [Arrival],
    forwards: BTreeMap<bool, bool>,
}

/// How gateways' packets come: from each of those that are `named`, and by the default route of each family.
pub(super) async fn arrivals(host: &Netlink, named: Vec<IpAddr>) -> Result<Vec<Arrival>> {
    let mut found = Vec::new();
    for source in named {
        // One that nothing leads to is no gateway.
        if let Ok(route) = host.way_to(source).await {
            found.extend(route.link.map(|link| Arrival { source, link }));
        }
    }
    for ipv4 in [true, false] {
        let routes = host.routes().await?;
        let default = routes.iter().find(|route| route.is_default() && route.destination.is_ipv4() == ipv4);
        let arrival = default.and_then(|route| Some(Arrival { source: route.gateway?, link: route.link? }));
        found.extend(arrival.filter(|it| it.source.is_ipv4() == ipv4 && !found.contains(it)));
    }
    Ok(found)
}

impl<'a> Ways<'a> {
    pub(super) fn new(host: &'a Netlink, link: Option<&'a Link>, arrivals: &'a [Arrival]) -> Self {
        Self { host, link, arrivals, forwards: BTreeMap::new() }
    }

    /// What keeps this host's own packets from `address`.
    pub(super) async fn own(&self, address: IpAddr) -> Result<Option<Blocked>> {
        self.judge(address, None).await
    }

    /// What keeps a gateway's packets from `address`. Where nothing is forwarded at all, that has a line of its own.
    pub(super) async fn of_gateways(&mut self, address: IpAddr) -> Result<Option<Blocked>> {
        let ipv4 = address.is_ipv4();
        let forwards = if let Some(forwards) = self.forwards.get(&ipv4) {
            *forwards
        } else {
            let forwards = if ipv4 { sysctl::IPV4.is_on()? } else { sysctl::IPV6.is_on()? };
            *self.forwards.entry(ipv4).or_insert(forwards)
        };
        let Some(link) = self.link.filter(|_| forwards) else { return Ok(None) };
        for arrival in self.arrivals.iter().filter(|it| it.source.is_ipv4() == ipv4 && it.link != link.index) {
            if let Some(blocked) = self.judge(address, Some(*arrival)).await? {
                return Ok(Some(blocked));
            }
        }
        Ok(None)
    }

    async fn judge(&self, address: IpAddr, arrival: Option<Arrival>) -> Result<Option<Blocked>> {
        let Some(link) = self.link else { return Ok(None) };
        let whose =
            arrival.map_or_else(|| "what this host sends it".to_owned(), |it| format!("what {} sends it", it.source));
        let (found, table) = match self.host.decision(address, arrival).await {
            Ok(route) if route.link == Some(link.index) => return Ok(None),
            Ok(route) => {
                let name = match route.link {
                    Some(index) => self.host.link_by_index(index).await?,
                    None => None,
                };
                let name = name.map_or_else(|| "no link".to_owned(), |link| link.name);
                (format!("{whose} leaves by {name}"), route.attributes.table)
            }
            Err(Errno::EXDEV) => {
                let remedy = "run `sysctl -w net.ipv4.conf.all.rp_filter=2`, and the same for the link that it comes by: the way back to it is by another link";
                return Ok(Some(Blocked {
                    found: format!("{whose} is dropped by the reverse path filter"),
                    remedy: remedy.into(),
                }));
            }
            // Such as a kernel that cannot be asked so: a packet has shown more.
            Err(errno @ (Errno::EACCES | Errno::EINVAL | Errno::EHOSTUNREACH | Errno::ENETUNREACH)) => {
                let is_sure = arrival.is_none() || errno != Errno::EINVAL;
                if !is_sure {
                    return Ok(None);
                }
                (format!("{whose} ends at a route that leads nowhere ({})", errno.desc()), None)
            }
            Err(errno) => return Err(errno).doing(|| format!("ask for the way to {address}")),
        };
        self.name(found, address, table).await.map(Some)
    }

    /// With the rules that have a part in it.
    async fn name(&self, found: String, address: IpAddr, table: Option<u32>) -> Result<Blocked> {
        let rules = self.host.rules(address.is_ipv4()).await?;
        let usual = |table: u32| USUAL_TABLES.contains(&table);
        let is_part = |rule: &&Rule| table.map_or(!usual(rule.table), |table| rule.table == table && !usual(table));
        let part: Vec<_> = rules.iter().filter(is_part).collect();
        let family = if address.is_ipv4() { "" } else { "-6 " };
        let by = match (part.first(), table) {
            (Some(rule), _) => format!(" (rule {} looks in table {})", rule.priority, rule.table),
            (None, Some(table)) => format!(" (table {table})"),
            (None, None) => String::new(),
        };
        let (prio, table) = part.first().map_or((None, table.unwrap_or(254)), |rule| (Some(rule.priority), rule.table));
        let delete = prio.map_or_else(String::new, |prio| format!(", `ip {family}rule del priority {prio}`"));
        let remedy = format!(
            "take that route or rule away (`ip {family}route show table {table}`, `ip {family}rule`{delete}; VPNs make such), keep the VPN from the subnet, or give the network another one"
        );
        Ok(Blocked { found: format!("{found}{by}"), remedy })
    }
}
