//! `netavark`: the plugin as Podman 5 and its netavark call a driver, with `info`, `create`, `setup` or `teardown`.
//!
//! Invariant: what goes in is what netavark would send for the scenario's network, and what comes out is judged by its contract: exit 0 and
//! exactly the keys that it has, or exit 1 and `{"error": ..}` alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cni_expect::Phrases;
use super::netavark_answer::{self, Answer, Status};
use super::{Failure, Misfit, Verb, misfit};
use crate::lab::{FOLDER, View};
use crate::pattern::{Pattern, Patterns, json_mismatch};
use crate::plugin::PATIENCE;
use crate::process::{self, Finished};
use crate::scenario::{Network, Setting};
use crate::seeds::{self, Seed};
use crate::world::{Attached, Attachment, World};

/// The options of all four.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    on: Option<String>,
    network: Option<String>,
    container: Option<String>,
    name: Option<String>,
    ifname: Option<String>,
    netns: Option<PathBuf>,
    ip: Option<Asked>,
    mac: Option<String>,
    ports: Vec<String>,
    set: toml::Table,
    unset: Vec<String>,
    stdin: Option<String>,
    env: BTreeMap<String, String>,
    expect: Expect,
}

/// An address that is asked for, or one of each family.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected an address, or a list of them")]
enum Asked {
    One(String),
    Several(Vec<String>),
}

impl Asked {
    fn all(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    address: Option<Patterns>,
    gateway: Option<Patterns>,
    mac: Option<Pattern>,
    result: Option<toml::Table>,
    error: Option<Phrases>,
}

/// One call.
#[derive(Debug)]
pub(super) struct Netavark {
    verb: String,
    options: Options,
}

/// `{ netavark = "setup", container = "web" }`
pub(super) fn call(verb: String, options: Options) -> Netavark {
    Netavark { verb, options }
}

/// Podman's id of a network: 64 hex digits.
fn id_of(network: &str) -> String {
    format!("{:064x}", network.bytes().fold(0_u128, |id, byte| id.rotate_left(8) ^ u128::from(byte)))
}

impl Verb for Netavark {
    fn describe(&self) -> String {
        let Options { container, network, ports, .. } = &self.options;
        let mut text = format!("netavark {}", self.verb);
        for (word, value) in [("", container), (" network", network)] {
            text.extend(value.as_ref().map(|value| format!("{word} {value}")));
        }
        text.extend((!ports.is_empty()).then(|| format!(" -p {}", ports.join(" -p "))));
        text
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let Options { on, network, container, ports, expect, .. } = &self.options;
        let of_container = matches!(self.verb.as_str(), "setup" | "teardown");
        let known = of_container || matches!(self.verb.as_str(), "info" | "create");
        misfit("netavark", if known { Ok(()) } else { Err("say info, create, setup or teardown".to_owned()) })?;
        misfit("on", setting.node(on.as_deref()))?;
        misfit(
            "network",
            setting.network(network.as_deref()).ok_or("[networks] has no network of that name".to_owned()),
        )?;
        misfit("network", setting.alone(network.as_deref()))?;
        misfit(
            "container",
            if container.is_some() == of_container {
                Ok(())
            } else {
                Err("setup and teardown are about a container".to_owned())
            },
        )?;
        misfit("ports", ports.iter().try_for_each(|port| mapping(port).map(drop)))?;
        let of_setup = expect.address.is_some() || expect.gateway.is_some() || expect.mac.is_some();
        let lone = of_setup && self.verb != "setup" || expect.result.is_some() && self.verb == "teardown";
        misfit("expect", if lone { Err(format!("`{}` does not answer that", self.verb)) } else { Ok(()) })
    }

    fn introduces(&self) -> Vec<String> {
        self.options.container.iter().cloned().collect()
    }

    fn seeds(&self, setting: &Setting) -> Vec<Seed> {
        let network = setting.network(self.options.network.as_deref());
        let input = network.and_then(|network| self.input(None, network).ok());
        input.map(|input| seeds::of_netavark(&input)).unwrap_or_default()
    }

    fn takes_away(&self) -> bool {
        self.verb == "teardown"
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let node = world.setting().node(self.options.on.as_deref()).map(str::to_owned).map_err(Failure::wrong)?;
        let network = world.network(self.options.network.as_deref())?.clone();
        if self.verb == "setup" && self.options.netns.is_none() {
            world.lab.container(self.container())?;
        }
        let input = self.input(world.created.get(network.name()), &network)?;
        let before = if self.options.expect.error.is_some() { Some(world.inventory(&node)?) } else { None };
        if self.verb == "setup" {
            world.called_with.push(network.clone());
        }
        let finished = self.call(world, &node, &input)?;
        let evidence = |failure: Failure| with_evidence(failure, &input, &finished);
        let answer = netavark_answer::read(&self.verb, &finished).map_err(|broken| evidence(Failure::wrong(broken)))?;
        self.remember(world, &network, &answer);
        let said = self.judge(world, &input, &answer).map_err(evidence)?;
        let changes = before.map(|before| world.changes_since(&node, &before)).transpose()?.unwrap_or_default();
        if !changes.is_empty() {
            return Err(Failure::wrong("the failed call left something behind").with("changes", changes.join("\n")));
        }
        Ok(format!("{said}  plugin {:.1} ms", finished.wall.as_secs_f64() * 1000.0))
    }
}

impl Netavark {
    fn container(&self) -> &str {
        self.options.container.as_deref().unwrap_or_default()
    }

    fn ifname(&self) -> &str {
        self.options.ifname.as_deref().unwrap_or("eth0")
    }

    /// The text that goes in; `created` is what the last `create` answered.
    fn input(&self, created: Option<&Value>, network: &Network) -> Result<String, Failure> {
        if let Some(text) = &self.options.stdin {
            return Ok(text.clone());
        }
        let mut object = match self.verb.as_str() {
            "info" => return Ok(String::new()),
            "create" => asked_of_create(network.name()),
            _ => self.exec(&created.cloned().unwrap_or_else(|| as_created(network)))?,
        };
        for (path, value) in &self.options.set {
            object.set(path, serde_json::to_value(value).context("say that in JSON")?);
        }
        self.options.unset.iter().for_each(|path| object.unset(path));
        Ok(object.to_json())
    }

    /// `NetworkPluginExec`, as netavark writes it: what is not there is null.
    fn exec(&self, network: &Value) -> Result<Network, Failure> {
        let Options { name, ip, mac, ports, .. } = &self.options;
        let ports = ports.iter().map(|port| mapping(port)).collect::<Result<Vec<_>, _>>().map_err(Failure::wrong)?;
        let container = self.container();
        Ok(object(json!({
            "container_id": container,
            "container_name": name.as_deref().unwrap_or(container),
            "port_mappings": if ports.is_empty() { Value::Null } else { json!(ports) },
            "network": network,
            "network_options": {
                "aliases": [container],
                "interface_name": self.ifname(),
                "static_ips": ip.as_ref().map(Asked::all),
                "static_mac": mac,
                "options": null,
            },
        })))
    }

    fn call(&self, world: &World, node: &str, input: &str) -> Result<Finished, Failure> {
        let mut command = world.lab.host(node)?.namespace.command(world.plugins.find("flatnet")?)?;
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).arg(&self.verb);
        command.envs(&self.options.env);
        if self.options.container.is_some() {
            let own = || Path::new(FOLDER).join(self.container());
            command.arg(self.options.netns.clone().unwrap_or_else(own));
        }
        Ok(process::run(command, input.as_bytes(), PATIENCE)?)
    }

    fn remember(&self, world: &mut World, network: &Network, answer: &Answer) {
        let container = self.container().to_owned();
        let attachment = Attachment {
            container: container.clone(),
            ifname: self.ifname().to_owned(),
            network: network.name().to_owned(),
        };
        match answer {
            Answer::Created(config) => drop(world.created.insert(network.name().to_owned(), config.clone())),
            Answer::SetUp(_) => {
                let attached = Attached { namespace: container, result: Value::Null, wishes: Map::new(), open: true };
                world.attached.insert(attachment, attached);
            }
            Answer::TornDown => {
                if let Some(attached) = world.attached.get_mut(&attachment) {
                    attached.open = false;
                }
            }
            Answer::Info(_) | Answer::Error(_) => {}
        }
    }

    fn judge(&self, world: &World, input: &str, answer: &Answer) -> Result<String, Failure> {
        let expect = &self.options.expect;
        match (answer, &expect.error) {
            (Answer::Error(error), Some(phrases)) => match phrases.missing_in(error) {
                Some(missing) => Err(Failure::mismatch(format!("an error with \"{missing}\""), format!("\"{error}\""))),
                None => Ok(format!("refused: {error}")),
            },
            (Answer::Error(error), None) => Err(Failure::mismatch("success", format!("error: {error}"))),
            (_, Some(_)) => Err(Failure::mismatch("an error", "success")),
            (Answer::SetUp(status), None) => self.judge_status(world, status),
            (Answer::Created(config), None) => {
                netavark_answer::keeps_its_name(input, config).map_err(Failure::wrong)?;
                self.judge_result(config)
            }
            (Answer::Info(info), None) => self.judge_result(info),
            (Answer::TornDown, None) => Ok(String::new()),
        }
    }

    fn judge_result(&self, got: &Value) -> Result<String, Failure> {
        let Some(expected) = &self.options.expect.result else { return Ok(String::new()) };
        let expected = serde_json::to_value(expected).context("say that in JSON")?;
        match json_mismatch(&expected, got) {
            Some(mismatch) => Err(Failure::wrong(format!("the result differs: {mismatch}"))),
            None => Ok("as expected".to_owned()),
        }
    }

    /// The one interface that was asked for, with the MAC and the addresses that the kernel has there.
    fn judge_status(&self, world: &World, status: &Status) -> Result<String, Failure> {
        let ifname = self.ifname();
        let (mac, subnets) = status.single(ifname).map_err(Failure::wrong)?;
        let view = View::of(world.lab.namespace(self.container())?)?;
        let link = view.link(ifname).ok_or_else(|| Failure::wrong(format!("the container has no {ifname}")))?;
        let addresses: Vec<&str> = subnets.iter().map(|subnet| subnet.ipnet.as_str()).collect();
        let gateways: Vec<&str> = subnets.iter().map(|subnet| subnet.gateway.as_str()).collect();
        let there = |address: &&str| link.addresses.contains(*address) && !link.unsettled.contains(*address);
        if !addresses.iter().all(there) || link.mac != mac {
            let kernel = format!("{:?} (unsettled {:?}), MAC {}", link.addresses, link.unsettled, link.mac);
            let got = format!("{}, MAC {mac}", addresses.join(" "));
            return Err(Failure::mismatch(format!("{kernel}, as the kernel has it"), got));
        }
        let expect = &self.options.expect;
        let of_mac = expect.mac.clone().map(Patterns::First);
        let said = [("address", &expect.address, addresses.as_slice()), ("gateway", &expect.gateway, &gateways)];
        for (what, expected, got) in said.into_iter().chain([("mac", &of_mac, [mac].as_slice())]) {
            if let Some((expected, got)) = expected.as_ref().and_then(|expected| expected.mismatch(got)) {
                return Err(Failure::mismatch(format!("{what} {expected}"), format!("{what} {got}")));
            }
        }
        Ok(addresses.join(" "))
    }
}

/// What Podman sends for `podman network create -d flatnet <name>`.
fn asked_of_create(name: &str) -> Network {
    object(json!({
        "name": name, "id": id_of(name), "driver": "flatnet", "created": "0001-01-01T00:00:00Z",
        "ipv6_enabled": false, "internal": false, "dns_enabled": true, "ipam_options": {},
    }))
}

/// The scenario's network as Podman would keep it after `create`.
fn as_created(network: &Network) -> Value {
    let mtu = network.mtu().map(|mtu| json!({ "mtu": mtu.to_string() }));
    json!({
        "dns_enabled": false, "driver": "flatnet", "id": id_of(network.name()), "internal": false, "ipv6_enabled": network.has_ipv6(),
        "name": network.name(), "network_interface": network.bridge(), "options": mtu, "ipam_options": { "driver": "none" },
        "subnets": network.subnets_of_podman(),
        "routes": null, "network_dns_servers": null,
    })
}

fn object(value: Value) -> Network {
    match value {
        Value::Object(map) => Network::new(map),
        _ => Network::new(Map::new()),
    }
}

/// Podman's `-p`: `[ADDRESS:]HOST[-LAST]:CONTAINER[-LAST][/PROTOCOL]`, as netavark's `PortMapping`.
fn mapping(text: &str) -> Result<Value, String> {
    let wrong = || format!("{text:?} is not [ADDRESS:]HOST[-LAST]:CONTAINER[-LAST][/PROTOCOL]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (host, container) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = host.split_once('-').unwrap_or((host, host));
    let container = container.split_once('-').map_or(container, |(first, _)| first);
    let (first, last) = (number(first)?, number(last)?);
    let range = last.checked_sub(first).and_then(|span| span.checked_add(1)).ok_or_else(wrong)?;
    Ok(json!({
        "container_port": number(container)?, "host_ip": address, "host_port": first, "protocol": protocol, "range": range,
    }))
}

fn with_evidence(failure: Failure, input: &str, finished: &Finished) -> Failure {
    failure
        .with("plugin", format!("it ended with {}", finished.status_text()))
        .with("stdin", input)
        .with("stdout", finished.stdout.trim_end())
        .with("stderr", finished.stderr.trim_end())
}
