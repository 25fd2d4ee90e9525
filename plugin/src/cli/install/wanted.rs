//! What is to be installed: the options, what an earlier installation chose, and what Podman is there.
//!
//! Whatever exists of it has been checked by the parser that ADD uses; nothing has been touched.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use ipnetwork::{IpNetwork, Ipv4Network};
use serde_json::{Value, json};

use super::Arguments;
use super::files::Saved;
use super::record::{Network, Record};
use crate::call::{block_on, within_deadline};
use crate::cli::gateway::networks::{PORTMAP, of_cni};
use crate::cli::podman::{self, Backend, Settings};
use crate::cli::probe::{self, Ran};
use crate::config::{self, gateways};
use crate::firewall::spoofing;
use crate::layout;

/// The shipped files.
const CONFLIST: &str = include_str!("../../../dist/flatnet.conflist");
const UNIT: &str = include_str!("../../../dist/systemd/flatnet.service");
const FIREWALLD_ZONE: &str = include_str!("../../../dist/firewalld/zone.xml");
const FIREWALLD_POLICY: &str = include_str!("../../../dist/firewalld/policy.xml");
const NETWORKD: &str = include_str!("../../../dist/systemd/00-flatnet.network");
const NETWORK_MANAGER: &str = include_str!("../../../dist/networkmanager/flatnet.conf");
/// The bridges that both of them leave alone, whatever the network's is called.
const BRIDGES: &str = "flatnet-br";
const DROP_IN: &str = "\
# By `flatnet install`: flatnet is a CNI plugin, and Podman 4 uses netavark unless told otherwise.
[network]
network_backend = \"cni\"
";

/// Everything that is known before the plan is made.
pub(super) struct Wanted {
    pub(super) backend: Backend,
    pub(super) network: Network,
    /// The network as ADD sees it.
    pub(super) parsed: config::Network,
    /// Whether there is a Podman.
    pub(super) podman: bool,
    pub(super) settings: Settings,
    conflist: String,
    pub(super) has_portmap: bool,
    pub(super) has_systemd: bool,
    /// What the kernel lacks for `macspoofchk`, where that would be the default.
    pub(super) unguarded: Option<String>,
}

impl Wanted {
    /// What is not said stays as an earlier installation has it.
    pub(super) fn of(arguments: &Arguments, earlier: Option<&Record>) -> Result<Self> {
        let version = podman_version()?;
        let backend = match (arguments.backend, version) {
            (Some(backend), _) => backend,
            (None, Some(4)) => Backend::Cni,
            (None, Some(5..)) => Backend::Netavark,
            (None, Some(old)) => bail!("Podman {old} is too old: flatnet needs Podman 4 or later"),
            (None, None) => {
                bail!(
                    "Podman was not found: install it (`apt install podman`), or pass --backend for another CNI runtime"
                )
            }
        };
        let before = earlier.map(|record| &record.network);
        let (macspoofchk, unguarded) = macspoofchk(arguments, before)?;
        let network = Network {
            name: arguments.name.clone().or(before.map(|it| it.name.clone())).unwrap_or(layout::NETWORK.into()),
            subnets: subnets(arguments, before)?,
            bridge: arguments
                .bridge
                .clone()
                .or(before.map(|it| it.bridge.clone()))
                .unwrap_or(config::DEFAULT_BRIDGE.into()),
            masquerade: match (arguments.masquerade, arguments.no_masquerade) {
                (false, false) => before.is_none_or(|it| it.masquerade),
                (masquerade, _) => masquerade,
            },
            gateways: match arguments.gateways.as_slice() {
                [] => before.map(|it| it.gateways.clone()).unwrap_or_default(),
                asked => asked.to_vec(),
            },
            macspoofchk,
        };
        if let Some((gateway, subnet)) = misplaced(&network) {
            bail!("invalid --gateway {gateway}: it is in the containers' subnet {subnet}; leave it out");
        }
        let settings = Settings::read();
        let folders = settings.plugin_folders(Backend::Cni);
        let has_portmap = folders.iter().any(|folder| folder.join(PORTMAP).is_file());
        let list = conflist(&network, has_portmap)?;
        let plugin = of_cni(&list).context("failed to find flatnet in its own configuration")?;
        let parsed = config::Network::parse(&plugin)?;
        Ok(Self {
            backend,
            network,
            parsed,
            podman: version.is_some(),
            settings,
            conflist: format!("{list:#}\n"),
            has_portmap,
            has_systemd: probe::has_systemd(),
            unguarded,
        })
    }

    /// The files, each as it shall be.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, Saved)>> {
        let own = fs::read("/proc/self/exe").context("failed to read this program")?;
        let mut files = vec![(self.backend.binary().into(), Saved::new(own, 0o755))];
        if !Path::new(layout::PACKAGED_COMMAND).exists() {
            files.push((layout::COMMAND.into(), Saved::link(self.backend.binary())));
        }
        if self.backend == Backend::Cni {
            let list = Path::new(layout::CNI_NETWORKS).join(format!("{}.conflist", self.network.name));
            files.push((list, Saved::new(self.conflist.as_bytes(), 0o644)));
            files.push((layout::PODMAN_DROP_IN.into(), Saved::new(DROP_IN, 0o644)));
        }
        if self.has_systemd {
            let unit = UNIT.replace(layout::BINARY, self.backend.binary());
            files.push((layout::UNIT.into(), Saved::new(unit, 0o644)));
        }
        if Path::new(layout::FIREWALLD).exists() {
            // firewalld keeps its rules to itself: what is to pass has to be in its own files.
            let zone = FIREWALLD_ZONE.replace(config::DEFAULT_BRIDGE, &self.network.bridge);
            files.push((layout::FIREWALLD_ZONE.into(), Saved::new(zone, 0o644)));
            files.push((layout::FIREWALLD_POLICY.into(), Saved::new(FIREWALLD_POLICY, 0o644)));
        }
        let is_of_this_host = |runs: &str, file: &str| Path::new(runs).is_dir() || Path::new(file).exists();
        if is_of_this_host(layout::NETWORKD, layout::NETWORKD_FILE) {
            files.push((layout::NETWORKD_FILE.into(), Saved::new(self.leaving_alone(NETWORKD, " ", ""), 0o644)));
        }
        if is_of_this_host(layout::NETWORK_MANAGER, layout::NETWORK_MANAGER_FILE) {
            let text = self.leaving_alone(NETWORK_MANAGER, ";", "interface-name:");
            files.push((layout::NETWORK_MANAGER_FILE.into(), Saved::new(text, 0o644)));
        }
        Ok(files)
    }

    /// A shipped list of links, with the network's bridge and the VLANs on it, if they are not among them.
    fn leaving_alone(&self, text: &str, between: &str, before: &str) -> String {
        let bridge = &self.network.bridge;
        if bridge.starts_with(BRIDGES) {
            return text.to_owned();
        }
        let all = format!("{before}{BRIDGES}*");
        text.replace(&all, &format!("{all}{between}{before}{bridge}{between}{before}{bridge}.*"))
    }

    /// The file whose word on the backend Podman would take over the drop-in's, if it is another word.
    pub(super) fn overruled_by(&self) -> Option<&Path> {
        let last = self.settings.origin("network_backend")?;
        let drop_in = Path::new(layout::PODMAN_DROP_IN);
        let later = self.settings.only || (last.parent() == drop_in.parent() && last > drop_in);
        (later && self.settings.string("network_backend") != Some(Backend::Cni.as_str())).then_some(last)
    }
}

/// A gateway that is among the containers, and the subnet.
fn misplaced(network: &Network) -> Option<(String, IpNetwork)> {
    let is_inside = |gateway: &IpNetwork, subnet: &IpNetwork| {
        subnet.is_ipv4() == gateway.is_ipv4() && subnet.contains(gateway.ip()) && gateway.prefix() >= subnet.prefix()
    };
    network.gateways.iter().find_map(|gateway| {
        let subnet = network.subnets.iter().find(|subnet| is_inside(gateway, subnet))?;
        Some((gateways::text(*gateway), *subnet))
    })
}

/// What is not said stays as an earlier installation has it, and is the default of a new one where the kernel can; else with the reason why not.
fn macspoofchk(arguments: &Arguments, before: Option<&Network>) -> Result<(bool, Option<String>)> {
    let lacking = || block_on(within_deadline(spoofing::refuse_lacking()));
    match (arguments.spoofing.macspoofchk, arguments.spoofing.no_macspoofchk, before) {
        (true, ..) => Ok(lacking().map(|()| (true, None))?),
        (_, true, _) => Ok((false, None)),
        (.., Some(before)) => Ok((before.macspoofchk, None)),
        _ => Ok(lacking().map_or_else(|error| (false, Some(error.to_string())), |()| (true, None))),
    }
}

/// One, or one of each family.
fn subnets(arguments: &Arguments, before: Option<&Network>) -> Result<Vec<IpNetwork>> {
    if !arguments.subnets.is_empty() {
        let mut asked = arguments.subnets.clone();
        asked.sort_by_key(IpNetwork::is_ipv6);
        let alike = asked.windows(2).find_map(|pair| match pair {
            [one, other] if one.is_ipv4() == other.is_ipv4() => Some((one, other)),
            _ => None,
        });
        if let Some((one, other)) = alike {
            bail!(
                "invalid subnets {one} and {other}: a container has one address of each family; pass one --subnet of each"
            );
        }
        return Ok(asked);
    }
    let before = before.map(|it| it.subnets.clone());
    let had_ipv6 = before.iter().flatten().any(IpNetwork::is_ipv6);
    let mut subnets = match (arguments.host_id, before) {
        (None, Some(before)) => before,
        (host_id, _) => vec![subnet_of(host_id.unwrap_or(1)).into()],
    };
    // A host with another number has that number's subnets of both.
    let moves = arguments.host_id.is_some() && had_ipv6;
    if (arguments.ipv6 || moves) && !subnets.iter().any(IpNetwork::is_ipv6) {
        let beside = subnets.iter().find_map(|subnet| match subnet {
            IpNetwork::V4(subnet) => layout::ipv6_beside(*subnet),
            IpNetwork::V6(_) => None,
        });
        let beside = beside
            .with_context(|| format!("no IPv6 subnet belongs to {}: pass one --subnet of each family", subnets[0]))?;
        subnets.push(beside.into());
    }
    Ok(subnets)
}

/// Host N of the address plan owns 10.87.N.0/24.
fn subnet_of(host_id: u8) -> Ipv4Network {
    Ipv4Network::new(Ipv4Addr::new(10, 87, host_id, 0), 24).expect("a prefix length of IPv4")
}

/// The shipped list with this network's values, and with portmap where it is installed.
fn conflist(network: &Network, has_portmap: bool) -> Result<Value> {
    let mut list: Value = serde_json::from_str(CONFLIST).context("failed to read the shipped configuration")?;
    list["name"] = json!(network.name);
    list["plugins"][0]["bridge"] = json!(network.bridge);
    list["plugins"][0]["ipam"] = match network.subnets.as_slice() {
        [subnet] => json!({ "subnet": subnet }),
        subnets => json!({ "ranges": subnets.iter().map(|subnet| [json!({ "subnet": subnet })]).collect::<Vec<_>>() }),
    };
    if !network.masquerade {
        list["plugins"][0]["ipMasq"] = json!(false);
    }
    if network.macspoofchk {
        list["plugins"][0]["macspoofchk"] = json!(true);
    }
    if !network.gateways.is_empty() {
        let gateways: Vec<_> = network.gateways.iter().map(|gateway| gateways::text(*gateway)).collect();
        list["plugins"][0]["gateways"] = json!(gateways);
    }
    let plugins = list["plugins"].as_array_mut().context("failed to read the shipped list of plugins")?;
    if has_portmap {
        plugins.push(json!({ "type": PORTMAP, "capabilities": { "portMappings": true } }));
    }
    Ok(list)
}

/// Podman's first number; nothing where it is not installed.
fn podman_version() -> Result<Option<u32>> {
    match probe::run("podman", &["--version"]) {
        Ran::Missing => Ok(None),
        Ran::Badly(why) => Err(anyhow!("failed to ask Podman for its version: `podman --version` {why}")),
        Ran::Well(text) => podman::major(&text)
            .map(Some)
            .with_context(|| format!("failed to ask Podman for its version: it says {:?}", text.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_the_shipped_one_with_ports() {
        let network = Network {
            name: "two".into(),
            subnets: vec![subnet_of(2).into()],
            bridge: "flatnet-br2".into(),
            masquerade: true,
            gateways: Vec::new(),
            macspoofchk: false,
        };
        let list = conflist(&network, true).expect("a list");
        insta::assert_snapshot!(format!("{list:#}"), @r#"
        {
          "cniVersion": "1.0.0",
          "cniVersions": [
            "1.0.0",
            "1.1.0"
          ],
          "name": "two",
          "plugins": [
            {
              "type": "flatnet",
              "bridge": "flatnet-br2",
              "capabilities": {
                "ips": true,
                "mac": true
              },
              "ipam": {
                "subnet": "10.87.2.0/24"
              }
            },
            {
              "type": "portmap",
              "capabilities": {
                "portMappings": true
              }
            }
          ]
        }
        "#);
        assert_eq!(conflist(&network, false).expect("a list")["plugins"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn with_both_families_there_is_a_list_of_ranges_for_each() {
        let network = Network {
            name: "two".into(),
            subnets: vec![subnet_of(2).into(), "fd87:2::/64".parse().expect("a subnet")],
            bridge: "flatnet-br2".into(),
            masquerade: true,
            gateways: Vec::new(),
            macspoofchk: false,
        };
        let list = conflist(&network, false).expect("a list");
        let ranges = json!([[{ "subnet": "10.87.2.0/24" }], [{ "subnet": "fd87:2::/64" }]]);
        assert_eq!(list["plugins"][0]["ipam"], json!({ "ranges": ranges }));
        let line = super::super::take_back::create_network(&network);
        let subnets = "--subnet 10.87.2.0/24 --gateway 10.87.2.1 --subnet fd87:2::/64 --gateway fd87:2::1";
        assert!(line.contains(&format!(" {subnets} --interface-name flatnet-br2 two")), "{line}");
    }

    #[test]
    fn what_is_not_the_default_is_written_too() {
        let network = Network {
            name: "two".into(),
            subnets: vec![subnet_of(2).into()],
            bridge: "flatnet-br2".into(),
            masquerade: false,
            gateways: gateways::parse(["172.30.0.1", "192.168.50.0/24"]).expect("gateways"),
            macspoofchk: true,
        };
        let plugin = conflist(&network, false).expect("a list")["plugins"][0].clone();
        assert_eq!(
            (&plugin["ipMasq"], &plugin["gateways"], &plugin["macspoofchk"]),
            (&json!(false), &json!(["172.30.0.1", "192.168.50.0/24"]), &json!(true))
        );
        let line = super::super::take_back::create_network(&network);
        assert!(
            line.ends_with(" --opt gateways=172.30.0.1,192.168.50.0/24 --opt ipmasq=false --opt macspoofchk=true two"),
            "{line}"
        );
    }

    #[test]
    fn the_drop_in_says_cni_to_podman() {
        let settings = Settings::of(&[(layout::PODMAN_DROP_IN, DROP_IN)]);
        assert_eq!(settings.string("network_backend"), Some("cni"));
    }

    #[test]
    fn the_unit_starts_the_binary_of_either_backend() {
        assert!(UNIT.contains(&format!("ExecStart={} gateway", layout::BINARY)));
    }
}
