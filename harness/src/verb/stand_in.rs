//! `stand_in` and `asked`: an IPAM plugin that does as it is told, and what it was asked.
//!
//! Invariant: from its step on it is found by `CNI_PATH`, before any plugin of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context;
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, Misfit, Verb};
use crate::plugin::Call;
use crate::scenario::Setting;
use crate::stand_in::{self, StandIn};
use crate::world::World;

/// Where a network that says no subnet of its own gets an address from.
const SOME_NETWORK: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 0));
const SOME_PREFIX: u8 = 24;
const SOME_NETWORK_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0));
const SOME_PREFIX_6: u8 = 64;

/// Which address of the subnet it gives, unless a step says.
const NUMBER: usize = 9;

/// The prefixes of the smallest subnets that have it.
const SMALLEST: u8 = 28;
const SMALLEST_6: u8 = 124;

/// `{ stand_in = "noting", refuses = { DEL = 121 } }`: it gives one address of the network's subnet unless `addresses` says others.
#[derive(Debug)]
pub(super) struct Make {
    name: String,
    options: MakeOptions,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(super) struct MakeOptions {
    /// The version that it answers in, if it is not the network's.
    speaks: Option<String>,
    addresses: Option<Vec<IpNetwork>>,
    /// Whether it gives an address of the other family, too.
    both: bool,
    routing: Vec<toml::Table>,
    refuses: BTreeMap<String, u32>,
}

impl MakeOptions {
    /// An address of the subnet that `own` is of, and one of the other family where both are wanted.
    fn give(&self, own: Option<IpNetwork>) -> Vec<IpNetwork> {
        let first = some_address(own);
        let other = match first {
            Some(IpNetwork::V6(_)) => some_address(None),
            _ => IpNetwork::new(SOME_NETWORK_6, SOME_PREFIX_6).ok().and_then(|subnet| some_address(Some(subnet))),
        };
        first.into_iter().chain(other.filter(|_| self.both)).collect()
    }
}

impl Make {
    pub(super) fn new(name: String, options: MakeOptions) -> Self {
        Self { name, options }
    }
}

impl Verb for Make {
    fn describe(&self) -> String {
        format!("stand_in {}", self.name)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let MakeOptions { speaks, addresses, routing, refuses, .. } = &self.options;
        let network = world.network(None)?;
        let given = world.setting().subject.as_ref().and_then(|subject| subject.traits.address);
        let own = given.or_else(|| network.subnets().first().copied());
        let json = |route: &toml::Table| serde_json::to_value(route).context("say that in JSON");
        let stand_in = StandIn {
            name: self.name.clone(),
            version: speaks.clone().unwrap_or_else(|| network.version().to_owned()),
            addresses: addresses.clone().unwrap_or_else(|| self.options.give(own)),
            routes: routing.iter().map(json).collect::<Result<_, _>>()?,
            refuses: refuses.clone(),
        };
        stand_in.write()?;
        world.plugins.prefer(Path::new(stand_in::FOLDER));
        Ok(String::new())
    }
}

/// An address of the subnet that `like` is of, if that has room, else of some other of that family.
pub(crate) fn some_address(like: Option<IpNetwork>) -> Option<IpNetwork> {
    let other = match like {
        Some(IpNetwork::V6(_)) => IpNetwork::new(SOME_NETWORK_6, SOME_PREFIX_6),
        _ => IpNetwork::new(SOME_NETWORK, SOME_PREFIX),
    };
    let last_prefix = |like: &IpNetwork| if like.is_ipv4() { SMALLEST } else { SMALLEST_6 };
    let like = like.filter(|like| like.prefix() <= last_prefix(like)).or(other.ok())?;
    let subnet = IpNetwork::new(like.network(), like.prefix()).ok()?;
    IpNetwork::new(subnet.iter().nth(NUMBER)?, subnet.prefix()).ok()
}

/// `{ asked = "noting", expect = ["ADD", "DEL"] }`: since the last such step, or since it was made.
#[derive(Debug)]
pub(super) struct Asked {
    name: String,
    options: AskedOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedOptions {
    /// Whether the last question came with the environment and the configuration of the step before.
    #[serde(default)]
    as_sent: bool,
    expect: Vec<String>,
}

impl Asked {
    pub(super) fn new(name: String, options: AskedOptions) -> Self {
        Self { name, options }
    }
}

impl Verb for Asked {
    fn describe(&self) -> String {
        format!("asked {}", self.name)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let asked = stand_in::Asked::take(&self.name)?;
        let list = |commands: &[String]| if commands.is_empty() { "nothing".to_owned() } else { commands.join(", ") };
        if asked.commands != self.options.expect {
            let (expected, got) = (list(&self.options.expect), list(&asked.commands));
            return Err(Failure::mismatch(format!("{} to be asked {expected}", self.name), got));
        }
        if self.options.as_sent {
            let sent = world.last_call.as_ref().context("find a call before this step")?;
            is_as_sent(&asked, sent)?;
        }
        Ok(list(&asked.commands))
    }
}

fn is_as_sent(asked: &stand_in::Asked, sent: &Call) -> Result<(), Failure> {
    let ours = sent.env.iter().map(|(name, value)| format!("{name}={value}"));
    let ours: BTreeSet<String> = ours.filter(|line| line.starts_with("CNI_")).collect();
    let theirs: BTreeSet<String> = asked.environment.iter().cloned().collect();
    if let Some(line) = ours.symmetric_difference(&theirs).next() {
        let (expected, got) =
            if ours.contains(line) { (line.as_str(), "none such") } else { ("none such", line.as_str()) };
        return Err(Failure::mismatch(format!("the environment as it was sent: {expected}"), got));
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).context("read a configuration");
    if read(&sent.stdin)? == read(&asked.stdin)? {
        return Ok(());
    }
    Err(Failure::mismatch(format!("the configuration as it was sent: {}", sent.stdin), asked.stdin.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::some_address;
    use rstest::rstest;

    #[rstest]
    #[case(Some("10.90.1.2/24"), "10.90.1.9/24")]
    #[case(Some("10.90.1.2/28"), "10.90.1.9/28")]
    #[case(Some("10.90.1.2/29"), "10.77.0.9/24")]
    #[case(Some("10.90.1.2/32"), "10.77.0.9/24")]
    #[case(Some("fd90:1::2/64"), "fd90:1::9/64")]
    #[case(Some("fd90:1::2/128"), "fd77::9/64")]
    #[case(None, "10.77.0.9/24")]
    fn there_is_always_an_address(#[case] like: Option<&str>, #[case] expected: &str) {
        let like = like.map(|like| like.parse().unwrap());
        assert_eq!(some_address(like).unwrap().to_string(), expected);
    }
}
