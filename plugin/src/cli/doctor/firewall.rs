//! Whether this host's firewall lets packets pass between the gateway and the containers, of each family that the network has.

mod nft;
mod read;

use ipnetwork::IpNetwork;

use self::read::Filter;
use super::finding::{BRIDGE_NETFILTER, FIREWALL, Finding, State};
use crate::cli::probe::Host;
use crate::config::Network;
use crate::family::IpFamily;
use crate::filter::rules::{Chain, Fate, Hook, Packet, Tool};
use crate::layout::NAME_SERVICE_PORT;

/// All that could be read of the host's packet filters.
pub(super) struct Firewall {
    filters: [Filter; 2],
}

/// What drops a packet, and which.
struct Obstacle<'a> {
    filter: &'a Filter,
    chain: &'a Chain,
    fate: Fate,
    what: &'static str,
}

impl Firewall {
    pub(super) fn look(host: &Host) -> Self {
        Self { filters: read::all(host.root) }
    }

    /// `uplink` is the link that the gateway is behind, if it is known.
    pub(super) fn check(&self, host: &Host, uplink: Option<&str>, network: &Network) -> Vec<Finding> {
        if !host.root {
            let why = "not root: the rules were not read";
            return vec![FIREWALL.skipped(why), BRIDGE_NETFILTER.skipped(why)];
        }
        let forward = self.forward(uplink, network);
        let between = self.between(network, forward.state == State::Bad);
        vec![forward, between]
    }

    /// The filters of the families that the network has, each with the network's subnets.
    fn filters(&self, network: &Network) -> Vec<(&Filter, Vec<IpNetwork>)> {
        let with_subnets = self.filters.iter().map(|filter| (filter, network.subnets_of(filter.family)));
        with_subnets.filter(|(_, subnets)| !subnets.is_empty()).collect()
    }

    fn forward(&self, uplink: Option<&str>, network: &Network) -> Finding {
        if !network.options.is_gateway {
            return FIREWALL.skipped("isGateway is false: nothing is passed on to containers");
        }
        let (filters, link) = (self.filters(network), network.gateway_link());
        let obstacles = filters
            .iter()
            .flat_map(|(filter, subnets)| subnets.iter().flat_map(|subnet| obstacles(filter, uplink, link, *subnet)));
        let worst = obstacles.min_by_key(|obstacle| obstacle.fate != Fate::Dropped);
        let unread: Vec<_> = filters.iter().flat_map(|(filter, _)| filter.unread.iter().map(String::as_str)).collect();
        match worst {
            Some(obstacle) if obstacle.fate == Fate::Dropped => FIREWALL
                .bad(format!("{} drops {}", obstacle.chain, obstacle.in_words()), obstacle.remedy(link)),
            Some(obstacle) => FIREWALL.warning(
                format!("{} drops {}, but for rules that doctor cannot judge", obstacle.chain, obstacle.in_words()),
                format!("if containers are not reached: {}", obstacle.remedy(link)),
            ),
            None if unread.is_empty() => self
                .questions(uplink, network)
                .unwrap_or_else(|| FIREWALL.ok(format!("nothing is dropped (read with {})", read_with(&filters)))),
            None => FIREWALL.warning(
                format!("could not be read: {}", unread.join("; ")),
                "install nft to have it looked at (`apt install nftables`); by hand: `iptables -S FORWARD`, `ip6tables -S FORWARD`",
            ),
        }
    }

    /// What the gateway asks the name service, where it is certainly dropped: addresses are reached all the same.
    fn questions(&self, uplink: Option<&str>, network: &Network) -> Option<Finding> {
        let packet = |gateway: IpNetwork| {
            Some(Packet {
                hook: Hook::Input,
                input: Some(uplink?.to_owned()),
                output: None,
                source: None,
                destination: Some(gateway.ip().into()),
                port: Some(NAME_SERVICE_PORT),
                state: "new",
            })
        };
        let (filter, gateway, chain) = network.gateway_networks().into_iter().find_map(|gateway| {
            let filter = self.filters.iter().find(|filter| filter.family.has(gateway))?;
            let (chain, fate) = filter.ruleset.obstacle(&packet(gateway)?)?;
            (fate == Fate::Dropped).then_some((filter, gateway.ip(), chain))
        })?;
        let remedy = if chain.table.ends_with(" firewalld") {
            format!("run `firewall-cmd --permanent --add-port={NAME_SERVICE_PORT}/tcp`, `firewall-cmd --reload`")
        } else if filter.has_beside(chain, "ufw") {
            format!("run `ufw allow {NAME_SERVICE_PORT}/tcp`")
        } else {
            let (name, program) = (&chain.name, chain.program());
            let rule = match chain.tool {
                Tool::Nft => {
                    let (table, header) = (&chain.table, filter.family.tables().as_str());
                    let rule = format!("{header} daddr {gateway} tcp dport {NAME_SERVICE_PORT} accept");
                    format!("{program} insert rule {table} {name} {rule}")
                }
                Tool::Iptables | Tool::IptablesLegacy => {
                    format!("{program} -I {name} -d {gateway} -p tcp --dport {NAME_SERVICE_PORT} -j ACCEPT")
                }
            };
            format!("run `{rule}`, and let whatever makes that chain do so at boot")
        };
        let found = format!("{chain} drops what the gateway asks the name service: names are not found");
        Some(FIREWALL.warning(found, remedy))
    }

    /// What containers of one bridge send each other.
    fn between(&self, network: &Network, forward_is_bad: bool) -> Finding {
        let filters: Vec<_> = self.filters(network).into_iter().filter(|(filter, _)| filter.bridged).collect();
        if filters.is_empty() {
            return BRIDGE_NETFILTER.ok("off: what stays on a bridge meets no rules");
        }
        let bridge = Some(network.bridge.clone());
        let packet = |subnet| Packet {
            hook: Hook::Forward,
            input: bridge.clone(),
            output: bridge.clone(),
            source: Some(subnet),
            destination: Some(subnet),
            port: None,
            state: "new",
        };
        let obstacles = filters.iter().flat_map(|(filter, subnets)| {
            let found = subnets.iter().filter_map(|subnet| filter.ruleset.obstacle(&packet(*subnet)));
            found.map(|(chain, fate)| Obstacle { filter, chain, fate, what: "what containers send each other" })
        });
        let Some(worst) = obstacles.min_by_key(|obstacle| obstacle.fate != Fate::Dropped) else {
            return BRIDGE_NETFILTER.ok("on, and nothing is dropped");
        };
        if forward_is_bad {
            return BRIDGE_NETFILTER.skipped("depends on `firewall` above");
        }
        let remedy = format!(
            "{}; or run `sysctl -w {}=0`, unless something here needs it",
            worst.remedy(&network.bridge),
            match worst.filter.family {
                IpFamily::V4 => "net.bridge.bridge-nf-call-iptables",
                IpFamily::V6 => "net.bridge.bridge-nf-call-ip6tables",
            }
        );
        match (worst.chain, worst.fate) {
            (chain, Fate::Dropped) => BRIDGE_NETFILTER.bad(format!("on, and {chain} drops it"), remedy),
            (chain, _) => BRIDGE_NETFILTER.warning(
                format!("on, and {chain} drops it, but for rules that doctor cannot judge"),
                format!("if containers do not reach each other: {remedy}"),
            ),
        }
    }
}

/// What drops packets between a subnet and the gateway.
fn obstacles<'a>(filter: &'a Filter, uplink: Option<&str>, bridge: &str, subnet: IpNetwork) -> Vec<Obstacle<'a>> {
    let request = Packet {
        hook: Hook::Forward,
        input: uplink.map(str::to_owned),
        output: Some(bridge.to_owned()),
        source: None,
        destination: Some(subnet),
        port: None,
        state: "new",
    };
    let answer = Packet {
        hook: Hook::Forward,
        input: request.output.clone(),
        output: request.input.clone(),
        source: Some(subnet),
        destination: None,
        port: None,
        state: "established",
    };
    let ways = [("what the gateway sends", request), ("what containers answer", answer)];
    let found = ways.into_iter().filter_map(|(what, packet)| Some((what, filter.ruleset.obstacle(&packet)?)));
    found.map(|(what, (chain, fate))| Obstacle { filter, chain, fate, what }).collect()
}

fn read_with(filters: &[(&Filter, Vec<IpNetwork>)]) -> String {
    let mut sources: Vec<&str> = Vec::new();
    // The families have programs in common.
    for source in filters.iter().flat_map(|(filter, _)| &filter.sources) {
        if !sources.contains(source) {
            sources.push(source);
        }
    }
    sources.join(" and ")
}

impl Filter {
    /// Whether the chain's table has one of that beginning.
    fn has_beside(&self, chain: &Chain, name: &str) -> bool {
        let same = |other: &&Chain| other.tool == chain.tool && other.table == chain.table;
        self.ruleset.chains.iter().filter(same).any(|other| other.name.starts_with(name))
    }
}

impl Obstacle<'_> {
    /// What is dropped.
    fn in_words(&self) -> String {
        match self.filter.family {
            IpFamily::V4 => self.what.to_owned(),
            IpFamily::V6 => format!("{} over IPv6", self.what),
        }
    }

    /// What opens the way without a rule by hand, and that rule.
    fn remedy(&self, bridge: &str) -> String {
        format!(
            "{}; the next start of a container does as much by itself, and `flatnet gateway` at once",
            self.rules_for(bridge)
        )
    }

    /// An accept where the firewall that has the chain says that users' rules belong.
    fn rules_for(&self, bridge: &str) -> String {
        let chain = self.chain;
        let rule = |to: &str, by: &str, link: &str| match chain.tool {
            Tool::Nft => format!("`nft insert rule {} {to} {link} {bridge} accept`", chain.table),
            Tool::Iptables | Tool::IptablesLegacy => format!("`{} -I {to} {by} {bridge} -j ACCEPT`", chain.program()),
        };
        let in_both_ways = |to: &str| format!("run {} and {}", rule(to, "-o", "oifname"), rule(to, "-i", "iifname"));
        if chain.table.ends_with(" firewalld") {
            return format!(
                "run `flatnet install`, which gives firewalld a zone and a policy; by hand: `firewall-cmd --permanent --zone=trusted --add-interface={bridge}`, `firewall-cmd --permanent --new-policy=flatnet`, `firewall-cmd --permanent --policy=flatnet --add-ingress-zone=ANY`, `firewall-cmd --permanent --policy=flatnet --add-egress-zone=trusted`, `firewall-cmd --permanent --policy=flatnet --set-target=ACCEPT`, `firewall-cmd --reload`"
            );
        }
        if self.filter.has_beside(chain, "ufw") {
            return format!("run `ufw route allow out on {bridge}` and `ufw route allow in on {bridge}`");
        }
        if self.filter.has_beside(chain, "DOCKER-USER") {
            return in_both_ways("DOCKER-USER");
        }
        in_both_ways(&chain.name)
    }
}

#[cfg(test)]
mod tests;
