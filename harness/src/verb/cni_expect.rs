//! What a step expects of the plugin's answer, and what is true of every answer.
//!
//! Invariant: an address, MTU or MAC counts only if the kernel says the same as the plugin.

mod code;
mod route;
mod rule;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::cni::{Prepared, field};
use super::{Failure, Weight};
use crate::conformance::Judged;
use crate::lab::{Link, View};
use crate::pattern::{Pattern, Patterns, json_mismatch};
use crate::plugin::{Answer, Refusal};
use crate::tally::Harm;
use crate::world::World;

/// The expectations of `add`, `del`, `check`, `version` and `cni`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expect {
    address: Option<Patterns>,
    gateway: Option<Patterns>,
    mac: Option<Pattern>,
    mtu: Option<Pattern>,
    addresses: Option<usize>,
    result: Option<toml::Table>,
    includes: Option<toml::Table>,
    shape: bool,
    complete: bool,
    lists_version: bool,
    names: Option<rule::Named>,
    may: rule::May,
    code: Option<code::Codes>,
    version: Option<Pattern>,
    msg: Option<Phrases>,
    details: Option<Phrases>,
    stderr: Option<Phrases>,
}

/// One phrase, or several, in any order.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected words, or a list of them")]
pub(super) enum Phrases {
    One(String),
    Several(Vec<String>),
}

impl Phrases {
    /// The first phrase, `*` and `?` in it being wild, that `text` lacks; upper and lower case are the same.
    pub(super) fn missing_in(&self, text: &str) -> Option<&str> {
        let text = text.to_lowercase();
        let phrases = match self {
            Self::One(phrase) => std::slice::from_ref(phrase),
            Self::Several(phrases) => phrases,
        };
        let within = |phrase: &&str| Pattern::new(format!("*{}*", phrase.to_lowercase())).matches(&text);
        phrases.iter().map(String::as_str).find(|phrase| !within(phrase))
    }
}

impl Expect {
    /// Whether these expectations can be had of that command.
    pub(super) fn fits(&self, command: &str, together: Option<usize>) -> Result<(), String> {
        let of_links = self.address.is_some() || self.gateway.is_some() || self.mac.is_some() || self.mtu.is_some();
        if of_links && command != "ADD" {
            return Err(format!("address, gateway, mac and mtu are expected of `ADD`, not of `{command}`"));
        }
        if self.addresses.is_some() && together.is_none() {
            return Err("`addresses` counts the answers of `together`".to_owned());
        }
        if self.result.is_some() && !matches!(command, "ADD" | "VERSION") {
            return Err(format!("`{command}` has no `result`"));
        }
        if (self.shape || self.complete) && command != "ADD" {
            return Err(format!("shape and complete are expected of `ADD`, not of `{command}`"));
        }
        if (self.lists_version && command != "VERSION") || (self.names.is_some() && command != "CHECK") {
            return Err("lists_version is expected of `VERSION`, names of `CHECK`".to_owned());
        }
        if self.fails() && (of_links || self.result.is_some() || self.addresses.is_some()) {
            return Err("an answer is an error or a result, not both".to_owned());
        }
        Ok(())
    }

    /// Whether anything is said to be expected.
    pub(super) fn is_any(&self) -> bool {
        let Self { address, gateway, mac, mtu, addresses, result, .. } = self;
        let of_ips = address.is_some() || gateway.is_some() || addresses.is_some();
        of_ips || mac.is_some() || mtu.is_some() || result.is_some() || self.fails()
    }

    /// Whether it is an error that is expected.
    pub(super) fn fails(&self) -> bool {
        self.code.is_some() || self.version.is_some() || self.msg.is_some() || self.details.is_some()
    }

    /// Judges one answer.
    pub(super) fn judge(&self, world: &World, node: &str, call: &Prepared, answer: &Answer) -> Result<(), Failure> {
        match answer {
            Answer::Refused(refusal) if self.fails() => {
                self.judge_refusal(refusal).and_then(|()| self.judge_named(call, refusal))
            }
            Answer::Refused(refusal) => Err(self.may.refuse(world, refusal)),
            Answer::Done(_) if self.fails() => Err(self.may.succeed(world, self.code.as_ref())),
            Answer::Done(Some(result)) => self.judge_result(world, node, call, result),
            Answer::Done(None) => Ok(()),
        }
    }

    /// Judges what is said beside the answer.
    pub(super) fn judge_warnings(&self, stderr: &str) -> Result<(), Failure> {
        match self.stderr.as_ref().and_then(|phrases| phrases.missing_in(stderr)) {
            Some(missing) => {
                Err(Failure::mismatch(format!("stderr with \"{missing}\""), format!("\"{}\"", stderr.trim_end())))
            }
            None => Ok(()),
        }
    }

    /// Judges what only all answers together show.
    pub(super) fn judge_all(&self, answers: &[Answer]) -> Result<(), Failure> {
        let Some(expected) = self.addresses else { return Ok(()) };
        let all = answers.iter().filter_map(|answer| match answer {
            Answer::Done(Some(result)) => Some(addresses(result)),
            _ => None,
        });
        let distinct: BTreeSet<String> = all.collect();
        if distinct.len() == expected {
            return Ok(());
        }
        let found: Vec<_> = distinct.iter().map(String::as_str).collect();
        let got = format!("{}: {}", distinct.len(), found.join(", "));
        Err(Failure::mismatch(format!("{expected} different addresses"), got).harm(Harm::Duplicate))
    }

    fn judge_refusal(&self, refusal: &Refusal) -> Result<(), Failure> {
        let Refusal { code, msg, details, version } = refusal;
        if let Some(expected) = self.code.as_ref().filter(|expected| !expected.allow(*code)) {
            let weight = if expected.is_named() { Weight::Words } else { Weight::Full };
            return Err(Failure::mismatch(expected, rule::error_text(refusal)).weight(weight));
        }
        if let Some(expected) = self.version.as_ref().filter(|expected| !expected.matches(version)) {
            let got = if version.is_empty() { "one without" } else { version.as_str() };
            return Err(Failure::mismatch(format!("an error of cniVersion {expected}"), got).weight(Weight::Words));
        }
        for (place, phrases, text) in [("msg", &self.msg, msg), ("details", &self.details, details)] {
            if let Some(missing) = phrases.as_ref().and_then(|phrases| phrases.missing_in(text)) {
                return Err(Failure::mismatch(format!("{place} with \"{missing}\""), format!("\"{text}\"")));
            }
        }
        Ok(())
    }

    fn judge_result(&self, world: &World, node: &str, call: &Prepared, result: &Value) -> Result<(), Failure> {
        if let Some(expected) = &self.result {
            let expected = serde_json::to_value(expected).map_err(Failure::wrong)?;
            if let Some(mismatch) = json_mismatch(&expected, result) {
                return Err(Failure::wrong(format!("the result differs: {mismatch}")));
            }
        }
        self.judge_parts(result)?;
        self.judge_versions(call, result)?;
        if call.call.command != "ADD" {
            return Ok(());
        }
        // Without one it is of the first.
        let version = Some(call.network.version()).filter(|version| !version.is_empty()).unwrap_or("0.1.0");
        self.judge_shape(version, result)?;
        let asked = self.address.is_some() || self.gateway.is_some() || self.mac.is_some() || self.mtu.is_some();
        if !asked && !world.setting().judges(Judged::Results) {
            return Ok(());
        }
        let claims = Claims::read(world, node, call, result)?;
        claims.hold(version)?;
        let link = claims.own_link()?;
        let own = own_ips(result, &call.attachment.ifname);
        let gateways = own.iter().map(|ip| field(ip, "gateway").as_str().unwrap_or_default());
        let mtu_text = link.mtu.to_string();
        let (mac, mtu) = (self.mac.clone().map(Patterns::First), self.mtu.clone().map(Patterns::First));
        let got = [
            ("address", &self.address, own.iter().copied().filter_map(address_of).collect()),
            ("gateway", &self.gateway, gateways.collect()),
            ("mac", &mac, vec![link.mac.as_str()]),
            ("mtu", &mtu, vec![&mtu_text]),
        ];
        for (what, expected, got) in got {
            if let Some((expected, got)) = expected.as_ref().and_then(|expected| expected.mismatch(&got)) {
                return Err(Failure::mismatch(format!("{what} {expected}"), format!("{what} {got}")));
            }
        }
        Ok(())
    }
}

/// The addresses of a result, with their prefixes.
pub(super) fn addresses(result: &Value) -> String {
    ips(result).filter_map(address_of).collect::<Vec<_>>().join(" ")
}

/// The first of them.
pub(crate) fn first_address(result: &Value) -> Option<&str> {
    ips(result).find_map(address_of)
}

/// `ips`, or `ip4` and `ip6` as it was before 0.3.0.
fn ips(result: &Value) -> impl Iterator<Item = &Value> {
    let old = ["ip4", "ip6"].into_iter().filter_map(|family| result.get(family));
    result.get("ips").and_then(Value::as_array).into_iter().flatten().chain(old)
}

/// Those of the interface `name`, as plugins before may have brought others; all where nothing is said of interfaces.
fn own_ips<'a>(result: &'a Value, name: &str) -> Vec<&'a Value> {
    let interface_of =
        |ip: &Value| result.get("interfaces")?.get(usize::try_from(ip.get("interface")?.as_u64()?).ok()?);
    let is_own = |ip: &&Value| interface_of(ip).is_some_and(|interface| field(interface, "name") == name);
    let own: Vec<_> = ips(result).filter(is_own).collect();
    if own.is_empty() { ips(result).collect() } else { own }
}

fn address_of(ip: &Value) -> Option<&str> {
    ip.get("address").or_else(|| ip.get("ip"))?.as_str()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What a result says, beside what the kernel says.
struct Claims<'a> {
    result: &'a Value,
    sandbox: String,
    ifname: &'a str,
    node: View,
    container: View,
}

impl<'a> Claims<'a> {
    fn read(world: &World, node: &str, call: &'a Prepared, result: &'a Value) -> Result<Self, Failure> {
        let sandbox = call.call.env.get("CNI_NETNS").cloned().unwrap_or_default();
        Ok(Self {
            result,
            sandbox,
            ifname: &call.attachment.ifname,
            node: View::of(&world.lab.host(node)?.namespace)?,
            container: View::of(world.lab.namespace(&call.container)?)?,
        })
    }

    fn own_link(&self) -> Result<&Link, Failure> {
        let missing = || Failure::wrong(format!("the container has no {}", self.ifname));
        self.container.link(self.ifname).ok_or_else(missing)
    }

    /// The version is the one asked for; every interface exists where it is said to be, with that MAC; every address is on its interface
    /// and can be used; every route is there, with all that the result says of it.
    fn hold(&self, version: &str) -> Result<(), Failure> {
        if field(self.result, "cniVersion") != version {
            let got = field(self.result, "cniVersion");
            return Err(Failure::mismatch(format!("cniVersion {version}"), format!("cniVersion {got}")));
        }
        let interfaces = list(self.result, "interfaces");
        interfaces.iter().try_for_each(|interface| self.interface_is_real(interface))?;
        for ip in list(self.result, "ips") {
            let address = field(ip, "address").as_str().unwrap_or_default();
            let index = field(ip, "interface").as_u64().and_then(|index| usize::try_from(index).ok());
            let interface = index.and_then(|index| interfaces.get(index));
            let Some(interface) = interface else {
                return Err(Failure::wrong(format!(
                    "the result gives {address} to an interface that it does not list"
                )));
            };
            let name = field(interface, "name").as_str().unwrap_or_default();
            let own = field(interface, "sandbox") == self.sandbox.as_str();
            address_is_real(address, self.container.link(name).filter(|_| own), name)?;
        }
        let old = ["ip4", "ip6"].into_iter().filter_map(|family| self.result.get(family));
        for ip in old.clone() {
            let address = address_of(ip).unwrap_or_default();
            address_is_real(address, self.container.link(self.ifname), self.ifname)?;
        }
        let routes = list(self.result, "routes").iter().chain(old.flat_map(|ip| list(ip, "routes")));
        routes.into_iter().try_for_each(|claim| route::is_real(claim, &self.container))
    }

    fn interface_is_real(&self, interface: &Value) -> Result<(), Failure> {
        let text = |key| field(interface, key).as_str().unwrap_or_default();
        let view = match text("sandbox") {
            "" => &self.node,
            sandbox if sandbox == self.sandbox => &self.container,
            sandbox => {
                return Err(Failure::mismatch(format!("sandbox {}", self.sandbox), format!("sandbox {sandbox}")));
            }
        };
        let Some(link) = view.link(text("name")) else {
            return Err(Failure::wrong(format!("the result lists {}, and the kernel does not", text("name"))));
        };
        if !text("mac").eq_ignore_ascii_case(&link.mac) {
            let what = format!("the MAC of {} in the result", text("name"));
            return Err(Failure::mismatch(format!("{} as {what}", link.mac), text("mac")));
        }
        Ok(())
    }
}

/// On its interface, and in use at once.
fn address_is_real(address: &str, link: Option<&Link>, name: &str) -> Result<(), Failure> {
    match link {
        Some(link) if link.unsettled.contains(address) => {
            Err(Failure::wrong(format!("the kernel still asks whether {address} is another's")))
        }
        Some(link) if link.addresses.contains(address) => Ok(()),
        _ => Err(Failure::wrong(format!("the result gives {address} to {name}, and the kernel does not"))),
    }
}
