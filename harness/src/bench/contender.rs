//! A plugin that is timed: what it is called with, and one container's life by it.
//!
//! Invariant: every contender is started in the same way, with the same files for input and output.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::wait::waitpid;
use serde_json::{Value, json};

use super::VERBS;
use super::took::{self, Took};
use crate::lab::Namespace;
use crate::plugin;
use crate::shipped;

/// Where programs that a plugin runs are found, the reference's `iptables` above all.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// An identifier of a network, as Podman makes them.
const NETWORK_ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

/// How a plugin is called.
enum Contract {
    /// `CNI_COMMAND` and the configuration on standard input.
    Cni,
    /// `netavark setup` and `teardown`.
    Netavark,
}

/// A plugin that is compared, with the configuration that it gets.
pub(super) struct Contender {
    /// The head of its column.
    pub(super) name: &'static str,
    binary: PathBuf,
    folder: PathBuf,
    contract: Contract,
    config: Value,
}

/// Where a container is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its namespace.
    pub(super) container: &'a Namespace,
    /// A folder of the world.
    pub(super) folder: &'a Path,
}

/// The container that a call is about.
#[derive(Clone, Copy)]
struct Subject<'a> {
    id: &'a str,
    interface: &'a str,
    /// A runtime of netavark chooses the address: this one of the subnet's.
    number: u32,
}

/// The one whose life is timed.
const TIMED: Subject<'_> = Subject { id: "bench", interface: "eth0", number: 2000 };

impl Contender {
    /// flatnet as it is installed, with or without `macspoofchk`. Each has a bridge of its own: what one leaves behind does not help the
    /// other.
    pub(super) fn flatnet(folder: &Path, macspoofchk: bool) -> Result<Self> {
        let list = shipped::list()?;
        let mut config: Value = list["plugins"][0].clone();
        config["name"] = if macspoofchk { json!("guarded") } else { list["name"].clone() };
        config["cniVersion"] = list["cniVersion"].clone();
        config["macspoofchk"] = json!(macspoofchk);
        if macspoofchk {
            config["bridge"] = json!("flatnet-br1");
        }
        // As many addresses as a bridge may have ports, and more.
        config["ipam"] = json!({ "subnet": if macspoofchk { "10.87.16.0/21" } else { "10.87.8.0/21" } });
        Self::new(if macspoofchk { "with `macspoofchk`" } else { "flatnet" }, folder, "flatnet", Contract::Cni, config)
    }

    /// As near to flatnet's work as the reference gets: a gateway and a default route, with or without masquerade.
    pub(super) fn reference(folder: &Path, masquerade: bool) -> Result<Self> {
        let (name, bridge, subnet) = if masquerade {
            ("masked", "reference-br1", "10.88.16.0/21")
        } else {
            ("reference", "reference-br0", "10.88.8.0/21")
        };
        let config = json!({
            "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": masquerade,
            "ipam": {
                "type": "host-local", "subnet": subnet, "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": "/run/bench/host-local",
            },
        });
        let head = if masquerade { "the same with `ipMasq`" } else { "bridge + host-local" };
        Self::new(head, folder, "bridge", Contract::Cni, config)
    }

    /// netavark's own bridge driver, masquerade included. It has no CHECK, and its addresses are given by Podman.
    pub(super) fn netavark(file: &Path) -> Result<Self> {
        let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
            bail!("find netavark at {}", file.display());
        };
        let network = json!({
            "name": "bench", "id": NETWORK_ID, "driver": "bridge", "network_interface": "netavark-br0", "internal": false,
            "ipv6_enabled": false, "dns_enabled": false, "subnets": [{ "subnet": "10.89.8.0/21", "gateway": "10.89.8.1" }],
            "ipam_options": { "driver": "host-local" },
        });
        Self::new("netavark", folder, name, Contract::Netavark, network)
    }

    fn new(name: &'static str, folder: &Path, binary: &str, contract: Contract, config: Value) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("find the plugin folder {}", folder.display()))?;
        let binary = folder.join(binary);
        if !binary.is_file() {
            bail!("find the plugin {}", binary.display());
        }
        Ok(Self { name, binary, folder, contract, config })
    }

    /// Attaches a container that stays, the `number`th, for as long as the namespace that this gives, if any.
    pub(super) fn add_beside(&self, place: Place<'_>, number: u32) -> Result<Option<Namespace>> {
        // All are in one namespace, and each contender has interfaces there.
        let prefix = self.config["name"].as_str().unwrap_or_default().get(..1).unwrap_or_default();
        let (id, interface) = (format!("neighbour-{number}"), format!("{prefix}{number}"));
        let subject = Subject { id: &id, interface: &interface, number: 2 + number };
        // netavark insists on a default route, of which a namespace has one.
        let own = match self.contract {
            Contract::Cni => None,
            Contract::Netavark => {
                let group = place.container.path().file_name().unwrap_or_default().to_string_lossy();
                Some(Namespace::create(&format!("{group}-{number}"))?)
            }
        };
        let place = Place { container: own.as_ref().unwrap_or(place.container), ..place };
        self.call("ADD", &self.config, place, subject)?;
        Ok(own)
    }

    /// ADD, CHECK and DEL; the time that each took, where the contender has it.
    pub(super) fn live(&self, place: Place<'_>) -> Result<[Option<Took>; VERBS.len()]> {
        let add = self.call("ADD", &self.config, place, TIMED)?;
        let mut config = self.config.clone();
        let check = if matches!(self.contract, Contract::Cni) {
            let result = fs::read_to_string(place.folder.join("stdout")).context("read the result of ADD")?;
            config["prevResult"] = serde_json::from_str(&result).context("read the result of ADD")?;
            Some(self.call("CHECK", &config, place, TIMED)?)
        } else {
            None
        };
        Ok([Some(add), check, Some(self.call("DEL", &config, place, TIMED)?)])
    }

    /// The peak resident memory of an ADD's own process, in MiB; the container is deleted again.
    pub(super) fn peak_memory(&self, place: Place<'_>) -> Result<f64> {
        let peak = super::memory::peak_mebibytes(self.command("ADD", &self.config, place, TIMED)?)?;
        self.call("DEL", &self.config, place, TIMED)?;
        Ok(peak)
    }

    /// One call, from the start of the process to its end.
    fn call(&self, verb: &str, config: &Value, place: Place<'_>, subject: Subject<'_>) -> Result<Took> {
        let mut command = self.command(verb, config, place, subject)?;
        let (took, status) = took::by(|| command.status())?;
        let status = status.with_context(|| format!("start {}", self.binary.display()))?;
        reap_orphans();
        if !status.success() {
            let said = fs::read_to_string(place.folder.join("stdout")).unwrap_or_default();
            bail!("run {verb} of {}: {status}: {}", self.binary.display(), said.trim());
        }
        Ok(took)
    }

    /// Files, and not pipes, for input and output: nobody has to be waited for.
    fn command(&self, verb: &str, config: &Value, place: Place<'_>, subject: Subject<'_>) -> Result<Command> {
        let netns = place.container.path();
        let mut command = Command::new(&self.binary);
        command.env_clear().env("PATH", PATH);
        let text = match self.contract {
            Contract::Cni => {
                let path = self.folder.display().to_string();
                command.envs(plugin::environment(verb, subject.id, Some(netns), subject.interface, None, &path));
                config.to_string()
            }
            Contract::Netavark => {
                let verb = if verb == "ADD" { "setup" } else { "teardown" };
                command.args(["--config", "/run/bench/netavark", verb]).arg(netns);
                netavark_request(config, subject).to_string()
            }
        };
        let (input, output) = (place.folder.join("stdin"), place.folder.join("stdout"));
        fs::write(&input, text).context("write the configuration")?;
        command
            .stdin(Stdio::from(File::open(&input).context("open the configuration")?))
            .stdout(Stdio::from(File::create(&output).context("open a file for the output")?));
        Ok(command)
    }
}

/// What Podman says to netavark.
fn netavark_request(network: &Value, subject: Subject<'_>) -> Value {
    let address = format!("10.89.{}.{}", 8 + subject.number / 256, subject.number % 256);
    json!({
        "container_id": subject.id, "container_name": subject.id, "port_mappings": null,
        "networks": { "bench": { "interface_name": subject.interface, "static_ips": [address] } },
        "network_info": { "bench": network },
    })
}

/// What a plugin leaves to be done behind it must be over before the next call is timed. As the world's first process, this one
/// inherits every orphan.
fn reap_orphans() {
    while waitpid(None, None).is_ok() {}
}
