//! What is on a node: links, addresses, routes, rules, permanent neighbours, netfilter rules, files. Two of them show what was left.
//!
//! What flatnet remembers of addresses stays, is no part of it, and is nothing but that (`memory`).
//! Not looked at: the forwarding database of bridges, sysctls, `/tmp`. Processes are looked at by [`crate::world`].
//!
//! Invariant: read afresh from the kernel each time; what cannot be read is said, not taken for empty.

pub(crate) mod memory;
pub(crate) mod nftables;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use crate::lab::{FOLDER, Link, Namespace, Route, View};
use crate::sandbox::{COMMANDS, STATE_FOLDERS, require_world};
use crate::scenario::Network;

/// What the harness itself keeps under them.
const OWN_FOLDERS: [&str; 2] = [FOLDER, "/run/harness"];

/// Empties `/run`, as a reboot does, but for what the harness itself keeps there.
pub fn clear_run() -> Result<()> {
    require_world()?;
    for entry in fs::read_dir("/run").context("list /run")? {
        let path = entry.context("list /run")?.path();
        let own = OWN_FOLDERS.iter().any(|own| path.starts_with(own));
        let folder = path.is_dir() && !path.is_symlink();
        let removed = match (own, folder) {
            (true, _) => Ok(()),
            (false, true) => fs::remove_dir_all(&path),
            (false, false) => fs::remove_file(&path),
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// What is in the folders where flatnet could keep state, each thing a line, but for what it remembers of addresses.
pub fn files() -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    STATE_FOLDERS.iter().try_for_each(|folder| list_files(Path::new(folder), &mut lines))?;
    lines.retain(|line| !memory::is_line(line));
    Ok(lines)
}

/// The addresses that are leased on a node.
pub fn leases(node: &Namespace) -> Result<BTreeSet<IpAddr>> {
    let view = View::of(node)?;
    let names = view.links.iter().flat_map(|link| &link.names);
    let leased = names.filter_map(|name| name.strip_prefix("flatnet-ip-"));
    leased.map(|address| address.parse().with_context(|| format!("read the lease of {address}"))).collect()
}

/// One reading of a node, each thing a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    lines: BTreeSet<String>,
}

impl Inventory {
    /// Reads `node`.
    pub fn take(node: &Namespace) -> Result<Self> {
        let view = View::of(node)?;
        let mut lines = BTreeSet::new();
        for link in &view.links {
            lines.insert(link_line(link));
            lines.extend(link.names.iter().map(|name| format!("name {name} of {}", link.name)));
            lines.extend(link.addresses.iter().map(|address| format!("address {address} on {}", link.name)));
        }
        for route in &view.routes {
            let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            let Route { destination, device, table, origin, .. } = route;
            lines.insert(format!("route {destination}{via} dev {device} table {table} {origin}"));
        }
        lines.extend(view.rules.iter().map(|rule| format!("rule {rule}")));
        lines.extend(view.neighbours.iter().map(|neighbour| format!("permanent neighbour {neighbour}")));
        lines.extend(node.enter(nftables::list)?);
        lines.extend(node.enter(|| Ok(legacy_tables()))?);
        lines.extend(files()?);
        list_files(Path::new(COMMANDS), &mut lines)?;
        Ok(Self { lines })
    }

    /// What `now` has more (`+`) and less (`-`), but for the furniture of `networks`.
    pub fn differences<'a>(&'a self, now: &'a Self, networks: &'a [&Network]) -> impl Iterator<Item = String> {
        let gone = self.lines.difference(&now.lines).map(|line| format!("- {line}"));
        let kept: BTreeSet<_> = networks.iter().flat_map(|network| rules(now, network)).collect();
        let new = now.lines.difference(&self.lines);
        let new = new.filter(move |line| !is_furniture(line, networks) && !kept.contains(line.as_str()));
        gone.chain(new.map(|line| format!("+ {line}")))
    }

    /// Takes another address on a link as what was there before.
    pub fn renumber(&mut self, link: &str, from: IpNetwork, to: IpNetwork) {
        let entry = |address| format!("address {address} on {link}");
        if self.lines.remove(&entry(from)) {
            self.lines.insert(entry(to));
        }
    }

    /// Its lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = &str> + Clone {
        self.lines.iter().map(String::as_str)
    }
}

/// While the link with a network's gateway is there, so are the rules that masquerade for it.
fn rules<'a>(now: &'a Inventory, network: &Network) -> BTreeSet<&'a str> {
    let link = network.gateway_link().unwrap_or_else(|| network.bridge().to_owned());
    if !now.lines().any(|line| is_bridge_or_vlan(line, &link)) {
        return BTreeSet::new();
    }
    let families = masquerade_families(network);
    families.into_iter().flat_map(|(family, _)| nftables::masquerade(now.lines(), family, &link)).collect()
}

/// The families of tables where a network has rules that masquerade, and how the mark of each begins. One whose subnets are not said (another
/// plugin gives the addresses) has IPv4's.
fn masquerade_families(network: &Network) -> Vec<(&'static str, &'static str)> {
    let subnets = network.subnets();
    let has_ipv4 = subnets.is_empty() || subnets.iter().any(IpNetwork::is_ipv4);
    let families = [(has_ipv4, ("ip", "flatnet-masquerade-")), (network.has_ipv6(), ("ip6", "flatnet-masquerade6-"))];
    families.into_iter().filter(|(has, _)| *has && network.masquerade()).map(|(_, family)| family).collect()
}

/// Whether that is the line of a link that is a bridge, or a VLAN on one.
fn is_bridge_or_vlan(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix("link ").and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with(" (bridge) ") || rest.starts_with(" (vlan) "))
}

/// A network's bridge stays, up, and the VLAN on it that its gateway has; with exactly the gateway's address, the route to the subnet, and the
/// marks that it has rules, and that a network has its containers there.
fn is_furniture(line: &str, networks: &[&Network]) -> bool {
    networks.iter().any(|network| {
        let bridge = network.bridge();
        let is_up = |name: &str| is_bridge_or_vlan(line, name) && line.contains(") up ");
        if is_up(bridge) {
            return true;
        }
        let gateway_s = network.gateway_link();
        let families = masquerade_families(network);
        let mark = |of: &str| families.iter().any(|(_, mark)| line == format!("name {mark}{of} of {of}"));
        let Some(way) = gateway_s else {
            return mark(bridge) || line == format!("name flatnet-ports-{} of {bridge}", network.name());
        };
        let gateway = network.gateways().iter().any(|gateway| line == format!("address {gateway} on {way}"));
        let route = |subnet: &IpNetwork| {
            // Routes of IPv6 always have a metric.
            let metric = if subnet.is_ipv6() { " metric 256" } else { "" };
            format!("route {subnet} dev {way} table 254 proto kernel type unicast{metric}")
        };
        let range = network.subnets().iter().any(|subnet| line == route(subnet));
        is_up(&way) || gateway || range || mark(&way)
    })
}

fn link_line(link: &Link) -> String {
    let Link { name, kind, mtu, mac, .. } = link;
    let kind = if kind.is_empty() { "plain" } else { kind };
    let up = if link.up { "up" } else { "down" };
    let master = link.master.as_ref().map(|master| format!(" master {master}")).unwrap_or_default();
    let alias = link.alias.as_ref().map(|alias| format!(" \"{alias}\"")).unwrap_or_default();
    format!("link {name} ({kind}) {up} mtu {mtu} mac {mac}{master}{alias}")
}

/// The tables of the older iptables, which the kernel lists by name only.
fn legacy_tables() -> Vec<String> {
    let files = [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")];
    let mut found = Vec::new();
    for (kind, file) in files {
        // Without the file this kernel has none.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        found.extend(text.lines().map(|table| format!("{kind} table {table}")));
    }
    found
}

fn list_files(folder: &Path, lines: &mut BTreeSet<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err).with_context(|| format!("list {}", folder.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if OWN_FOLDERS.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            lines.insert(format!("folder {}", path.display()));
            list_files(&path, lines)?;
        } else {
            let target = fs::read_link(&path).map(|target| format!(" -> {}", target.display())).unwrap_or_default();
            lines.insert(format!("file {}{target}", path.display()));
        }
    }
    Ok(())
}
