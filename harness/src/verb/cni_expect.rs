//! What a step expects of the plugin's answer, and what is true of every answer.
//!
//! Invariant: an address, MTU or MAC counts only if the kernel says the same as the plugin.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::cni::Prepared;
use super::cni_code::Codes;
use super::{Failure, Weight};
use crate::conformance::Judged;
use crate::lab::{Link, View};
use crate::pattern::{Pattern, json_mismatch};
use crate::plugin::{Answer, Refusal, shape};
use crate::tally::Harm;
use crate::world::World;

/// The expectations of `add`, `del`, `check`, `version` and `cni`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expect {
    address: Option<Pattern>,
    gateway: Option<Pattern>,
    mac: Option<Pattern>,
    mtu: Option<Pattern>,
    addresses: Option<usize>,
    result: Option<toml::Table>,
    includes: Option<toml::Table>,
    code: Option<Codes>,
    version: Option<Pattern>,
    shape: bool,
    complete: bool,
    may: May,
    msg: Option<Phrases>,
    details: Option<Phrases>,
    stderr: Option<Phrases>,
}

/// What a plugin may do instead, and why the rule then is not about it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct May {
    refuse: Option<String>,
    succeed: Option<String>,
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
        if self.fails() && (of_links || self.result.is_some() || self.addresses.is_some()) {
            return Err("an answer is an error or a result, not both".to_owned());
        }
        Ok(())
    }

    /// Whether anything is said to be expected.
    pub(super) fn is_any(&self) -> bool {
        let Self { address, gateway, mac, mtu, addresses, result, .. } = self;
        let texts = [address, gateway, mac, mtu];
        texts.iter().any(|text| text.is_some()) || addresses.is_some() || result.is_some() || self.fails()
    }

    /// Whether it is an error that is expected.
    pub(super) fn fails(&self) -> bool {
        self.code.is_some() || self.version.is_some() || self.msg.is_some() || self.details.is_some()
    }

    /// Judges one answer.
    pub(super) fn judge(&self, world: &World, node: &str, call: &Prepared, answer: &Answer) -> Result<(), Failure> {
        match answer {
            Answer::Refused(refusal) if self.fails() => self.judge_refusal(refusal),
            Answer::Refused(refusal) => {
                let failure = Failure::mismatch("success", error_text(refusal));
                Err(excused(world, self.may.refuse.as_ref()).unwrap_or(failure))
            }
            Answer::Done(_) if self.fails() => {
                let expected = self.code.as_ref().map_or_else(|| "error".to_owned(), ToString::to_string);
                let failure = Failure::mismatch(expected, "success");
                Err(excused(world, self.may.succeed.as_ref()).unwrap_or(failure))
            }
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
            Answer::Done(Some(result)) => address(result),
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

    /// What of the host has to be known before the call.
    pub(super) fn known_links(&self, world: &World, node: &str) -> Result<BTreeSet<String>, Failure> {
        let view = if self.complete { View::of(&world.lab.host(node)?.namespace)? } else { View::default() };
        Ok(view.links.into_iter().map(|link| link.name).collect())
    }

    /// Judges whether a result lists all links that the call has made on the host, and the container's.
    pub(super) fn judge_complete(
        &self,
        world: &World,
        node: &str,
        known: &BTreeSet<String>,
        call: &Prepared,
        answer: &Answer,
    ) -> Result<(), Failure> {
        let Answer::Done(Some(result)) = answer else { return Ok(()) };
        if !self.complete {
            return Ok(());
        }
        let interfaces = field(result, "interfaces").as_array().map(Vec::as_slice).unwrap_or_default();
        let lists = |name: &str, sandbox: &str| {
            let text = |interface, key| field(interface, key).as_str().unwrap_or_default();
            interfaces.iter().any(|it| text(it, "name") == name && text(it, "sandbox") == sandbox)
        };
        let netns = call.call.env.get("CNI_NETNS").map(String::as_str).unwrap_or_default();
        let (own, result) = (&call.attachment.ifname, field(result, "interfaces"));
        if !lists(own, netns) {
            return Err(Failure::mismatch(format!("{own} in interfaces, its sandbox {netns}"), result));
        }
        let view = View::of(&world.lab.host(node)?.namespace)?;
        match view.links.iter().find(|link| !known.contains(&link.name) && !lists(&link.name, "")) {
            Some(link) => Err(Failure::mismatch(format!("{} of the host in interfaces", link.name), result)),
            None => Ok(()),
        }
    }

    fn judge_refusal(&self, refusal: &Refusal) -> Result<(), Failure> {
        let Refusal { code, msg, details, version } = refusal;
        if let Some(expected) = self.code.as_ref().filter(|expected| !expected.allow(*code)) {
            let weight = if expected.is_named() { Weight::Words } else { Weight::Full };
            return Err(Failure::mismatch(expected, error_text(refusal)).weight(weight));
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
        if let Some(expected) = &self.includes {
            let expected = serde_json::to_value(expected).map_err(Failure::wrong)?;
            if let Some((list, value)) = missing_part(&expected, result) {
                return Err(Failure::mismatch(format!("{value} in {list}"), field(result, list)));
            }
        }
        if call.call.command != "ADD" {
            return Ok(());
        }
        // Without one it is of the first.
        let version = Some(call.network.version()).filter(|version| !version.is_empty()).unwrap_or("0.1.0");
        if let Some(misfit) = self.shape.then(|| shape::misfit(version, result)).flatten() {
            return Err(Failure::wrong(format!("the result has not the shape of {version}: {misfit}")));
        }
        let asked = [&self.address, &self.gateway, &self.mac, &self.mtu].iter().any(|it| it.is_some());
        if !asked && !world.setting().judges(Judged::Results) {
            return Ok(());
        }
        let claims = Claims::read(world, node, call, result)?;
        claims.hold(version)?;
        let link = claims.own_link()?;
        let gateway = first_ip(result).and_then(|ip| ip.get("gateway")).and_then(Value::as_str).unwrap_or_default();
        let got = [
            ("address", &self.address, address(result).unwrap_or_default()),
            ("gateway", &self.gateway, gateway.to_owned()),
            ("mac", &self.mac, link.mac.clone()),
            ("mtu", &self.mtu, link.mtu.to_string()),
        ];
        for (what, expected, got) in got {
            if let Some(expected) = expected.as_ref().filter(|expected| !expected.matches(&got)) {
                return Err(Failure::mismatch(format!("{what} {expected}"), format!("{what} {got}")));
            }
        }
        Ok(())
    }
}

/// The first value of a list in `expected` that the list of that name in `result` has not.
fn missing_part<'a>(expected: &'a Value, result: &Value) -> Option<(&'a str, &'a Value)> {
    let empty = Vec::new();
    expected.as_object()?.iter().find_map(|(list, values)| {
        let found = field(result, list).as_array().unwrap_or(&empty);
        let missing = |value: &&Value| !found.iter().any(|found| json_mismatch(value, found).is_none());
        Some((list.as_str(), values.as_array()?.iter().find(missing)?))
    })
}

fn error_text(refusal: &Refusal) -> String {
    let Refusal { code, msg, details, .. } = refusal;
    let details = if details.is_empty() { String::new() } else { format!(" ({details})") };
    format!("error {code}: {msg}{details}")
}

/// Of another plugin than flatnet, which is to keep every rule, the rule then is not.
fn excused(world: &World, reason: Option<&String>) -> Option<Failure> {
    let reason = reason.filter(|_| world.setting().subject.is_some())?;
    Some(Failure::wrong(reason).weight(Weight::Nothing))
}

/// The first address of a result, with its prefix.
pub(crate) fn address(result: &Value) -> Option<String> {
    let ip = first_ip(result)?;
    let text = ip.get("address").or_else(|| ip.get("ip"))?;
    text.as_str().map(str::to_owned)
}

/// The value at `key`, or null.
pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&Value::Null)
}

/// `ips[0]`, or `ip4` as it was before 0.3.0.
fn first_ip(result: &Value) -> Option<&Value> {
    result.get("ips").and_then(|ips| ips.get(0)).or_else(|| result.get("ip4"))
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

    /// The version is the one asked for; every interface exists where it is said to be, with that MAC; every address is on its interface.
    fn hold(&self, version: &str) -> Result<(), Failure> {
        if field(self.result, "cniVersion") != version {
            let got = field(self.result, "cniVersion");
            return Err(Failure::mismatch(format!("cniVersion {version}"), format!("cniVersion {got}")));
        }
        let empty = Vec::new();
        let list = |key| field(self.result, key).as_array().unwrap_or(&empty);
        let interfaces = list("interfaces");
        for interface in interfaces {
            self.interface_is_real(interface)?;
        }
        for ip in list("ips") {
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
            let link = self.container.link(name).filter(|_| own);
            if !link.is_some_and(|link| link.addresses.contains(address)) {
                return Err(Failure::wrong(format!("the result gives {address} to {name}, and the kernel does not")));
            }
        }
        Ok(())
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
