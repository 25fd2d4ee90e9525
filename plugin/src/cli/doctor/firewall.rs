//! Whether this host's firewall lets packets pass between the gateway and the containers.
//!
//! Rules are read with whatever programs are there, and only where reading loads nothing into the kernel.

mod nft;

use std::fs;

use super::finding::{BRIDGE_NETFILTER, FIREWALL, Finding};
use crate::cli::probe::{self, Host, Ran};
use crate::config::Network;
use crate::firewall::rules::{Chain, Fate, Hook, Packet, Ruleset, Tool};
use crate::firewall::{forward, iptables};
use crate::layout::NAME_SERVICE_PORT;

/// The tables of the older iptables that are loaded, a line each.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// All that could be read of the host's packet filters.
pub(super) struct Firewall {
    ruleset: Ruleset,
    /// What was read, in words.
    sources: Vec<&'static str>,
    /// What is there, or may be, and could not be read.
    unread: Vec<String>,
    /// Bridged packets pass through the rules as well.
    bridged: bool,
}

impl Firewall {
    pub(super) fn look(host: &Host) -> Self {
        let mut firewall = Self {
            ruleset: Ruleset::default(),
            sources: Vec::new(),
            unread: Vec::new(),
            bridged: forward::is_bridged(),
        };
        if host.root {
            firewall.read_nftables();
            firewall.read_legacy();
        }
        firewall
    }

    /// nft shows everything, but not what iptables' own conditions say: of iptables' table, iptables' words are better.
    fn read_nftables(&mut self) {
        let listed = match probe::run("nft", &["-j", "list", "ruleset"]) {
            Ran::Well(text) => {
                let ruleset = nft::parse(&text);
                if ruleset.is_none() {
                    self.unread.push("what nft lists is not the JSON that is known".into());
                }
                ruleset
            }
            Ran::Missing => None,
            // A kernel without nftables has no such rules.
            Ran::Badly(why) if why.contains("not supported") => Some(Ruleset::default()),
            Ran::Badly(why) => {
                self.unread.push(format!("nft {why}"));
                None
            }
        };
        let is_filter = |chain: &Chain| chain.table == "ip filter";
        if let Some(ruleset) = listed {
            self.sources.push("nft");
            self.ruleset = ruleset;
            if !self.ruleset.chains.iter().any(is_filter) {
                return;
            }
        }
        let program = if is_iptables("iptables-nft", "nf_tables") { "iptables-nft" } else { "iptables" };
        if !is_iptables(program, "nf_tables") {
            if self.sources.is_empty() && self.unread.is_empty() {
                self.unread.push("neither nft nor iptables is installed".into());
            }
            return;
        }
        match probe::run(program, &["-S"]) {
            Ran::Well(text) => {
                self.sources.push("iptables");
                self.ruleset.chains.retain(|chain| !is_filter(chain));
                self.ruleset.chains.extend(iptables::parse(Tool::Iptables, &text));
            }
            // A table that nft has shown already is known, if less well.
            Ran::Badly(why) if self.sources.is_empty() => self.unread.push(format!("{program} {why}")),
            Ran::Missing | Ran::Badly(_) => {}
        }
    }

    /// Listing would load the table: only one that is loaded is read.
    fn read_legacy(&mut self) {
        let tables = fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
        if !tables.lines().any(|table| table == "filter") {
            return;
        }
        let program = if is_iptables("iptables-legacy", "legacy") { "iptables-legacy" } else { "iptables" };
        if !is_iptables(program, "legacy") {
            self.unread.push("the kernel has rules of the older iptables, and no iptables-legacy is installed".into());
            return;
        }
        match probe::run(program, &["-S"]) {
            Ran::Well(text) => {
                self.sources.push("iptables-legacy");
                self.ruleset.chains.extend(iptables::parse(Tool::IptablesLegacy, &text));
            }
            Ran::Missing => {}
            Ran::Badly(why) => self.unread.push(format!("{program} {why}")),
        }
    }

    /// `uplink` is the link that the gateway is behind, if it is known.
    pub(super) fn check(&self, host: &Host, uplink: Option<&str>, network: &Network) -> Vec<Finding> {
        if !host.root {
            let why = "not root: the rules were not read";
            return vec![FIREWALL.skipped(why), BRIDGE_NETFILTER.skipped(why)];
        }
        let forward = self.forward(uplink, network);
        let between = self.between(network, forward.state == super::finding::State::Bad);
        vec![forward, between]
    }

    fn forward(&self, uplink: Option<&str>, network: &Network) -> Finding {
        let Some((subnet, _)) = network.ipv4() else { return FIREWALL.skipped("the network has no IPv4") };
        let request = Packet {
            hook: Hook::Forward,
            input: uplink.map(str::to_owned),
            output: Some(network.bridge.clone()),
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
        let ways = [("what the gateway sends", &request), ("what containers answer", &answer)];
        let obstacles = ways.iter().filter_map(|(what, packet)| Some((what, self.ruleset.obstacle(packet)?)));
        let worst = obstacles.min_by_key(|(_, (_, fate))| *fate != Fate::Dropped);
        match worst {
            Some((what, (chain, Fate::Dropped))) => {
                FIREWALL.bad(format!("{chain} drops {what}"), self.remedy(chain, &network.bridge))
            }
            Some((what, (chain, _))) => FIREWALL.warning(
                format!("{chain} drops {what}, but for rules that doctor cannot judge"),
                format!("if containers are not reached: {}", self.remedy(chain, &network.bridge)),
            ),
            None if self.unread.is_empty() => self
                .questions(uplink, network)
                .unwrap_or_else(|| FIREWALL.ok(format!("nothing is dropped (read with {})", self.read_with()))),
            None => FIREWALL.warning(
                format!("could not be read: {}", self.unread.join("; ")),
                "install nft to have it looked at (`apt install nftables`); by hand: `iptables -S FORWARD`",
            ),
        }
    }

    /// What the gateway asks the name service, where it is certainly dropped: addresses are reached all the same.
    fn questions(&self, uplink: Option<&str>, network: &Network) -> Option<Finding> {
        let (_, gateway) = network.ipv4()?;
        let packet = Packet {
            hook: Hook::Input,
            input: Some(uplink?.to_owned()),
            output: None,
            source: None,
            destination: Some(gateway.into()),
            port: Some(NAME_SERVICE_PORT),
            state: "new",
        };
        let (chain, _) = self.ruleset.obstacle(&packet).filter(|(_, fate)| *fate == Fate::Dropped)?;
        let remedy = if chain.table.ends_with(" firewalld") {
            format!("run `firewall-cmd --permanent --add-port={NAME_SERVICE_PORT}/tcp`, `firewall-cmd --reload`")
        } else if self.has_beside(chain, "ufw-") {
            format!("run `ufw allow {NAME_SERVICE_PORT}/tcp`")
        } else {
            let (name, rule) = (&chain.name, format!("-d {gateway} -p tcp --dport {NAME_SERVICE_PORT} -j ACCEPT"));
            let rule = match chain.tool {
                Tool::Nft => {
                    let table = &chain.table;
                    format!("nft insert rule {table} {name} ip daddr {gateway} tcp dport {NAME_SERVICE_PORT} accept")
                }
                Tool::Iptables => format!("iptables -I {name} {rule}"),
                Tool::IptablesLegacy => format!("iptables-legacy -I {name} {rule}"),
            };
            format!("run `{rule}`, and let whatever makes that chain do so at boot")
        };
        let found = format!("{chain} drops what the gateway asks the name service: names are not found");
        Some(FIREWALL.warning(found, remedy))
    }

    /// What containers of one bridge send each other.
    fn between(&self, network: &Network, forward_is_bad: bool) -> Finding {
        if !self.bridged {
            return BRIDGE_NETFILTER.ok("off: what stays on a bridge meets no rules");
        }
        let (bridge, subnet) = (Some(network.bridge.clone()), network.ipv4().map(|(subnet, _)| subnet));
        let packet = Packet {
            hook: Hook::Forward,
            input: bridge.clone(),
            output: bridge,
            source: subnet,
            destination: subnet,
            port: None,
            state: "new",
        };
        match self.ruleset.obstacle(&packet) {
            None => BRIDGE_NETFILTER.ok("on, and nothing is dropped"),
            Some(_) if forward_is_bad => BRIDGE_NETFILTER.skipped("hangs on the firewall"),
            Some((chain, Fate::Dropped)) => {
                BRIDGE_NETFILTER.bad(format!("on, and {chain} drops it"), self.between_remedy(chain, network))
            }
            Some((chain, _)) => BRIDGE_NETFILTER.warning(
                format!("on, and {chain} drops it, but for rules that doctor cannot judge"),
                format!("if containers do not reach each other: {}", self.between_remedy(chain, network)),
            ),
        }
    }

    fn between_remedy(&self, chain: &Chain, network: &Network) -> String {
        format!(
            "{}; or run `sysctl -w net.bridge.bridge-nf-call-iptables=0`, unless something here needs it",
            self.remedy(chain, &network.bridge)
        )
    }

    fn read_with(&self) -> String {
        self.sources.join(" and ")
    }

    /// Whether the chain's table has one of that beginning.
    fn has_beside(&self, chain: &Chain, name: &str) -> bool {
        let same = |other: &&Chain| other.tool == chain.tool && other.table == chain.table;
        self.ruleset.chains.iter().filter(same).any(|other| other.name.starts_with(name))
    }

    /// What opens the way without a rule by hand, and that rule.
    fn remedy(&self, chain: &Chain, bridge: &str) -> String {
        format!(
            "{}; the next start of a container does as much by itself, and `flatnet gateway` at once",
            self.rules_for(chain, bridge)
        )
    }

    /// An accept where the firewall that has the chain says that users' rules belong.
    fn rules_for(&self, chain: &Chain, bridge: &str) -> String {
        let rule = |to: &str, by: &str, link: &str| match chain.tool {
            Tool::Nft => format!("`nft insert rule {} {to} {link} {bridge} accept`", chain.table),
            Tool::Iptables => format!("`iptables -I {to} {by} {bridge} -j ACCEPT`"),
            Tool::IptablesLegacy => format!("`iptables-legacy -I {to} {by} {bridge} -j ACCEPT`"),
        };
        let in_both_ways = |to: &str| format!("run {} and {}", rule(to, "-o", "oifname"), rule(to, "-i", "iifname"));
        if chain.table.ends_with(" firewalld") {
            return format!(
                "run `flatnet install`, which gives firewalld a zone and a policy; by hand: `firewall-cmd --permanent --zone=trusted --add-interface={bridge}`, `firewall-cmd --permanent --new-policy=flatnet`, `firewall-cmd --permanent --policy=flatnet --add-ingress-zone=ANY`, `firewall-cmd --permanent --policy=flatnet --add-egress-zone=trusted`, `firewall-cmd --permanent --policy=flatnet --set-target=ACCEPT`, `firewall-cmd --reload`"
            );
        }
        if self.has_beside(chain, "ufw-") {
            return format!("run `ufw route allow out on {bridge}` and `ufw route allow in on {bridge}`");
        }
        if self.has_beside(chain, "DOCKER-USER") {
            return in_both_ways("DOCKER-USER");
        }
        in_both_ways(&chain.name)
    }
}

/// Which of the two that program is: it tells in its version.
fn is_iptables(program: &str, kind: &str) -> bool {
    matches!(probe::run(program, &["--version"]), Ran::Well(text) if text.contains(kind))
}

#[cfg(test)]
mod tests;
