//! The flatnet networks that are set up on this host, from the configuration files of CNI and of netavark.
//!
//! A file that cannot be used is told and takes no other network along; other plugins' files are none of flatnet's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cni::request::json;
use crate::config::{self, Draft, Network};
use crate::error::Result;
use crate::netavark;

/// The plugin's type in CNI, its driver in netavark.
const TYPE: &str = "flatnet";
/// The reference plugin that publishes ports, `podman run -p`.
pub(in crate::cli) const PORTMAP: &str = "portmap";

/// What one kind of file says, where it is of flatnet's.
type Lower = fn(&Value) -> Option<Result<config::Configured>>;

/// All networks, by name, and what is wrong with those that cannot be used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) networks: Vec<Network>,
    /// Those whose addresses a plugin gives that is named beside: their bridges come with their first containers.
    pub(super) delegated: Vec<(Draft, String)>,
    /// Whether one of their lists has the plugin portmap, which opens bridges to loopback addresses: only its rules tell when.
    pub(super) with_portmap: bool,
    pub(super) problems: Vec<String>,
}

impl Configured {
    /// Reads both folders; one that does not exist is empty.
    pub(super) fn read(cni: &Path, netavark: &Path) -> Self {
        let mut found = Self::default();
        found.add_folder(cni, "conflist", |list| Some(config::Configured::parse(&of_cni(list)?)));
        found.add_folder(netavark, "json", of_netavark);
        // The same network may be known to both, after a move from one to the other.
        found.networks.sort_by(|a, b| a.name.cmp(&b.name));
        found.networks.dedup_by(|a, b| a.name == b.name);
        found.delegated.retain(|(draft, _)| !found.networks.iter().any(|network| network.name == draft.name));
        found
    }

    fn add_folder(&mut self, folder: &Path, extension: &str, lower: Lower) {
        let files = match list(folder, extension) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return self.problems.push(format!("failed to list {}: {e}", folder.display())),
        };
        for file in files {
            match fs::read_to_string(&file).map_err(|e| e.to_string()).and_then(|text| parse(&text, lower)) {
                Ok(Some((configured, list))) => {
                    self.with_portmap |= plugin_types(&list).any(|kind| kind == PORTMAP);
                    match configured {
                        config::Configured::Whole(network) => self.networks.push(network),
                        config::Configured::Delegated(draft, plugin) => self.delegated.push((draft, plugin)),
                    }
                }
                Ok(None) => {}
                Err(problem) => self.problems.push(format!("cannot use {}: {problem}", file.display())),
            }
        }
    }
}

/// The files of that kind, in order of their names.
fn list(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    Ok(paths)
}

/// The network in a file's text, if its type is flatnet, and all that the file has.
fn parse(text: &str, lower: Lower) -> Result<Option<(config::Configured, Value)>, String> {
    let value = json::parse(text).map_err(|refusal| refusal.to_string())?;
    let configured = lower(&value).transpose().map_err(|error| format!("{error} ({})", error.remedy()))?;
    Ok(configured.map(|configured| (configured, value)))
}

/// The types of a list's plugins.
pub(in crate::cli) fn plugin_types(list: &Value) -> impl Iterator<Item = &str> {
    let plugins = list.get("plugins").and_then(Value::as_array).into_iter().flatten();
    plugins.map(|plugin| plugin["type"].as_str().unwrap_or_default())
}

fn of_netavark(network: &Value) -> Option<Result<config::Configured>> {
    let network = network.as_object()?;
    (network.get("driver")? == TYPE).then(|| netavark::network(network).map(config::Configured::Whole))
}

/// A list's flatnet plugin, with the list's name, as libcni hands it over.
pub(in crate::cli) fn of_cni(list: &Value) -> Option<Map<String, Value>> {
    let mut config =
        list.get("plugins")?.as_array()?.iter().find(|plugin| plugin["type"] == TYPE)?.as_object()?.clone();
    config.insert("name".to_owned(), list["name"].clone());
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        folder
    }

    fn names(found: &Configured) -> Vec<String> {
        let line = |network: &Network| format!("{} {} {}", network.name, network.bridge, network.gateway_networks()[0]);
        found.networks.iter().map(line).collect()
    }

    #[test]
    fn networks_of_both_kinds_are_found_and_others_passed_over() {
        let cni = folder(&[
            ("flatnet.conflist", include_str!("../../../dist/flatnet.conflist")),
            ("podman.conflist", r#"{"name": "podman", "plugins": [{"type": "bridge"}]}"#),
            ("odd.conflist", "[]"),
            ("note.txt", "nobody reads this"),
        ]);
        let netavark = folder(&[
            (
                "two.json",
                r#"{"name": "two", "id": "f00", "driver": "flatnet", "network_interface": "flatnet-br1",
                    "subnets": [{"subnet": "10.87.2.0/24", "gateway": "10.87.2.9",
                                 "lease_range": {"start_ip": "10.87.2.10", "end_ip": "10.87.2.20"}}],
                    "ipv6_enabled": false, "options": {"mtu": "1400"}}"#,
            ),
            ("podman.json", r#"{"name": "podman", "driver": "bridge", "subnets": [{"subnet": "10.88.0.0/16"}]}"#),
        ]);
        let found = Configured::read(cni.path(), netavark.path());
        assert_eq!(names(&found), ["flatnet flatnet-br0 10.87.1.1/24", "two flatnet-br1 10.87.2.9/24"]);
        assert_eq!(found.networks[1].mtu, Some(1400));
        assert!(!found.with_portmap, "{found:?}");
        assert_eq!(found.problems, [] as [String; 0]);
    }

    #[test]
    fn portmap_counts_behind_flatnet_only() {
        let with = |first: &str| {
            let text = format!(
                r#"{{"name": "a", "plugins": [{{"type": "{first}", "ipam": {{"subnet": "10.87.1.0/24"}}}}, {{"type": "portmap"}}]}}"#
            );
            Configured::read(folder(&[("a.conflist", &text)]).path(), Path::new("/nonexistent/networks")).with_portmap
        };
        assert!(with("flatnet"));
        assert!(!with("bridge"));
    }

    #[test]
    fn a_broken_file_takes_no_other_along() {
        let cni = folder(&[
            ("a.conflist", "{"),
            ("b.conflist", r#"{"name": "b", "plugins": [{"type": "flatnet", "ipam": {"subnet": "10.87.0.0/24"}}]}"#),
            ("c.conflist", r#"{"name": "c", "plugins": [{"type": "flatnet", "ipam": {"subnet": "10.87.3.0/24"}}]}"#),
        ]);
        let found = Configured::read(cni.path(), Path::new("/nonexistent/networks"));
        assert_eq!(names(&found), ["c flatnet-br0 10.87.3.1/24"]);
        assert_eq!(found.problems.len(), 2, "{found:?}");
        assert!(found.problems[0].contains("a.conflist: it is not JSON"), "{found:?}");
        assert!(found.problems[1].contains("ipam.subnet is 10.87.0.0/24"), "{found:?}");
    }

    #[test]
    fn a_network_that_both_know_is_one() {
        let cni = folder(&[("flatnet.conflist", include_str!("../../../dist/flatnet.conflist"))]);
        let netavark = folder(&[(
            "flatnet.json",
            r#"{"name": "flatnet", "driver": "flatnet", "network_interface": "", "subnets": [{"subnet": "10.87.1.0/24"}]}"#,
        )]);
        let found = Configured::read(cni.path(), netavark.path());
        assert_eq!((names(&found), found.problems), (vec!["flatnet flatnet-br0 10.87.1.1/24".to_owned()], vec![]));
    }
}
