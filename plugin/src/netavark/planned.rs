//! The networks that the files of Podman and of CNI name, of any driver and plugin: what another network must keep clear of.
//!
//! A bridge is made by its first container only, so that the kernel does not know of all of them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::config::DEFAULT_BRIDGE;
use crate::layout;
use crate::link::bridge::overlap;

/// One network, as far as it matters to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// The driver, or the plugin.
    pub(crate) kind: String,
    pub(crate) bridge: Option<String>,
    pub(crate) subnets: Vec<IpNetwork>,
    pub(crate) gateways: Vec<IpAddr>,
}

/// All of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct All {
    pub(crate) networks: Vec<Planned>,
    /// Files and folders that may name more, but could not be read.
    pub(crate) unread: Vec<PathBuf>,
}

impl All {
    /// Of this host.
    pub(crate) fn read() -> Self {
        Self::of(Path::new(layout::NETAVARK_NETWORKS), Path::new(layout::CNI_NETWORKS))
    }

    fn of(netavark: &Path, cni: &Path) -> Self {
        let mut all = Self::default();
        all.add(netavark, &["json"], |network| of_netavark(network).into_iter().collect());
        all.add(cni, &["conflist", "conf", "json"], of_cni);
        all
    }

    fn add(&mut self, folder: &Path, extensions: &[&str], lower: impl Fn(&Value) -> Vec<Planned>) {
        let files = match fs::read_dir(folder) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(_) => return self.unread.push(folder.to_owned()),
        };
        for path in files.flatten().map(|file| file.path()) {
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if !extensions.contains(&extension) {
                continue;
            }
            match fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()) {
                Some(network) => self.networks.extend(lower(&network)),
                None => self.unread.push(path),
            }
        }
    }

    /// One that has addresses of this subnet, and another name.
    pub(crate) fn overlapping(&self, subnet: IpNetwork, name: &str) -> Option<&Planned> {
        let others = self.networks.iter().filter(|network| network.name != name);
        others.into_iter().find(|network| network.subnets.iter().any(|other| overlap(*other, subnet)))
    }

    /// Whether any network names the bridge.
    pub(crate) fn names_bridge(&self, bridge: &str) -> bool {
        self.networks.iter().any(|network| network.bridge.as_deref() == Some(bridge))
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn of_netavark(network: &Value) -> Option<Planned> {
    let subnets = network["subnets"].as_array().map(Vec::as_slice).unwrap_or_default();
    Some(Planned {
        name: text(&network["name"])?,
        kind: text(&network["driver"]).unwrap_or_default(),
        bridge: text(&network["network_interface"]),
        subnets: subnets.iter().filter_map(|subnet| subnet["subnet"].as_str()?.parse().ok()).collect(),
        gateways: subnets.iter().filter_map(|subnet| subnet["gateway"].as_str()?.parse().ok()).collect(),
    })
}

/// Each plugin of a list; a file of one plugin alone is that plugin.
fn of_cni(list: &Value) -> Vec<Planned> {
    let plugins = list["plugins"].as_array().map_or_else(|| std::slice::from_ref(list), Vec::as_slice);
    let plan = |plugin: &Value| {
        let kind = text(&plugin["type"])?;
        let default = match kind.as_str() {
            "flatnet" => Some(DEFAULT_BRIDGE),
            "bridge" => Some("cni0"),
            _ => None,
        };
        let ipam = &plugin["ipam"];
        let sets = ipam["ranges"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ranges: Vec<_> = sets.iter().filter_map(Value::as_array).flatten().chain([ipam]).collect();
        let subnets: Vec<IpNetwork> =
            ranges.iter().filter_map(|range| range["subnet"].as_str()?.parse().ok()).collect();
        let gateway = |range: &&Value| {
            let subnet: IpNetwork = range["subnet"].as_str()?.parse().ok()?;
            range["gateway"].as_str().and_then(|gateway| gateway.parse().ok()).or_else(|| subnet.iter().nth(1))
        };
        let bridge = text(&plugin["bridge"]).or_else(|| default.map(str::to_owned));
        let gateways = ranges.iter().filter_map(gateway).collect();
        Some(Planned { name: text(&list["name"])?, bridge, subnets, gateways, kind })
    };
    plugins.iter().filter_map(plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_kinds_name_bridges_and_subnets() {
        let (netavark, cni) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a file");
        };
        write(
            &netavark,
            "a.json",
            r#"{"name": "a", "driver": "flatnet", "network_interface": "flatnet-br0",
                "subnets": [{"subnet": "10.87.1.0/24", "gateway": "10.87.1.1"}, {"subnet": "fd87:1::/64", "gateway": "fd87:1::1"}]}"#,
        );
        write(&netavark, "b.json", r#"{"name": "b", "driver": "macvlan", "network_interface": ""}"#);
        write(&netavark, "c.json", "nonsense");
        write(&cni, "note.txt", "nobody reads this");
        let list = r#"{"name": "d", "plugins": [{"type": "flatnet", "ipam": {"ranges": [[{"subnet": "10.87.2.0/24"}]]}}, {"type": "portmap"}]}"#;
        write(&cni, "d.conflist", list);
        write(
            &cni,
            "e.conf",
            r#"{"name": "e", "type": "bridge", "ipam": {"subnet": "10.99.0.0/16", "gateway": "10.99.0.9"}}"#,
        );
        let all = All::of(netavark.path(), cni.path());
        let found = |name: &str| all.networks.iter().find(|network| network.name == name).expect(name).clone();
        let words = |it: Planned| {
            let subnets: Vec<_> = it.subnets.iter().map(ToString::to_string).collect();
            let gateways: Vec<_> = it.gateways.iter().map(ToString::to_string).collect();
            format!("{} {} {} {}", it.kind, it.bridge.unwrap_or_default(), subnets.join(","), gateways.join(","))
        };
        assert_eq!(words(found("a")), "flatnet flatnet-br0 10.87.1.0/24,fd87:1::/64 10.87.1.1,fd87:1::1");
        assert_eq!(words(found("b")), "macvlan   ");
        assert_eq!(words(found("d")), "flatnet flatnet-br0 10.87.2.0/24 10.87.2.1");
        assert_eq!(words(found("e")), "bridge cni0 10.99.0.0/16 10.99.0.9");
        assert_eq!(all.unread, [netavark.path().join("c.json")]);
        let overlapping = |subnet: &str, name: &str| {
            all.overlapping(subnet.parse().expect("a subnet"), name).map(|network| network.name.as_str())
        };
        assert_eq!(overlapping("10.87.1.128/25", "x"), Some("a"));
        assert_eq!(overlapping("10.87.1.0/24", "a"), None);
        assert_eq!(overlapping("10.99.7.0/24", "x"), Some("e"));
        assert!(all.names_bridge("cni0") && !all.names_bridge("flatnet-br1"));
        assert_eq!(All::of(Path::new("/nonexistent/a"), Path::new("/nonexistent/b")), All::default());
    }
}
