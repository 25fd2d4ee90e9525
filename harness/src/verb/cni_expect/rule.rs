//! What a rule of CNI expects of an answer: its shape, that it is whole, and what a plugin may do instead.
//!
//! Invariant: nothing is excused of flatnet, which is to keep every rule.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::code::Codes;
use super::{Expect, first_address, list};
use crate::lab::View;
use crate::pattern::json_mismatch;
use crate::plugin::{Answer, Refusal, shape};
use crate::verb::cni::{Prepared, field};
use crate::verb::{Failure, Weight};
use crate::world::World;

/// What a plugin may do instead, and why the rule then is not about it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct May {
    refuse: Option<String>,
    succeed: Option<String>,
}

/// What an error has to name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Named {
    /// The first address of the result that came in.
    Address,
}

impl May {
    /// What is wrong with a refusal that was not expected.
    pub(super) fn refuse(&self, world: &World, refusal: &Refusal) -> Failure {
        let failure = Failure::mismatch("success", error_text(refusal));
        excused(world, self.refuse.as_ref()).unwrap_or(failure)
    }

    /// What is wrong with a success that was not expected.
    pub(super) fn succeed(&self, world: &World, code: Option<&Codes>) -> Failure {
        let expected = code.map_or_else(|| "error".to_owned(), ToString::to_string);
        excused(world, self.succeed.as_ref()).unwrap_or(Failure::mismatch(expected, "success"))
    }
}

impl Expect {
    /// What of the host has to be known before the call.
    pub(in crate::verb) fn known_links(&self, world: &World, node: &str) -> Result<BTreeSet<String>, Failure> {
        let view = if self.complete { View::of(&world.lab.host(node)?.namespace)? } else { View::default() };
        Ok(view.links.into_iter().map(|link| link.name).collect())
    }

    /// Judges whether a result lists all links that the call has made on the host, and the container's.
    pub(in crate::verb) fn judge_complete(
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
        let text = |interface, key| field(interface, key).as_str().unwrap_or_default().to_owned();
        let interfaces = list(result, "interfaces");
        let lists = |name: &str, sandbox: &str| {
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

    /// Judges whether what was asked for is in the lists of a result.
    pub(super) fn judge_parts(&self, result: &Value) -> Result<(), Failure> {
        let Some(expected) = &self.includes else { return Ok(()) };
        let expected = serde_json::to_value(expected).map_err(Failure::wrong)?;
        match missing_part(&expected, result) {
            Some((name, value)) => Err(Failure::wrong(format!("{name} of the result lacks {value}"))),
            None => Ok(()),
        }
    }

    /// Judges whether the versions that are said to be spoken have the network's among them.
    pub(super) fn judge_versions(&self, call: &Prepared, result: &Value) -> Result<(), Failure> {
        let (own, spoken) = (call.network.version(), list(result, "supportedVersions"));
        if !self.lists_version || spoken.iter().any(|version| version == own) {
            return Ok(());
        }
        let got = field(result, "supportedVersions");
        Err(Failure::mismatch(format!("supportedVersions with the configuration's {own}"), got))
    }

    /// Judges whether an error names what it has to.
    pub(super) fn judge_named(&self, call: &Prepared, refusal: &Refusal) -> Result<(), Failure> {
        let Some(Named::Address) = self.names else { return Ok(()) };
        let address =
            call.network.value("prevResult").and_then(first_address).and_then(|address| address.split('/').next());
        match address.filter(|address| !refusal.msg.contains(address) && !refusal.details.contains(address)) {
            Some(address) => Err(Failure::mismatch(format!("an error that names {address}"), error_text(refusal))),
            None => Ok(()),
        }
    }

    /// Judges whether a result is what that version published.
    pub(super) fn judge_shape(&self, version: &str, result: &Value) -> Result<(), Failure> {
        match self.shape.then(|| shape::misfit(version, result)).flatten() {
            Some(misfit) => Err(Failure::wrong(format!("the result has not the shape of {version}: {misfit}"))),
            None => Ok(()),
        }
    }
}

pub(super) fn error_text(refusal: &Refusal) -> String {
    let Refusal { code, msg, details, .. } = refusal;
    let details = if details.is_empty() { String::new() } else { format!(" ({details})") };
    format!("error {code}: {msg}{details}")
}

/// The first value of a list in `expected` that the list of that name in `result` has not; a list of several stands for any of them.
fn missing_part<'a>(expected: &'a Value, result: &Value) -> Option<(&'a str, &'a Value)> {
    expected.as_object()?.iter().find_map(|(name, values)| {
        let has = |value: &Value| list(result, name).iter().any(|found| json_mismatch(value, found).is_none());
        let missing = |value: &&Value| !value.as_array().map_or_else(|| has(value), |any| any.iter().any(has));
        Some((name.as_str(), values.as_array()?.iter().find(missing)?))
    })
}

fn excused(world: &World, reason: Option<&String>) -> Option<Failure> {
    let reason = reason.filter(|_| world.setting().subject.is_some())?;
    Some(Failure::wrong(reason).weight(Weight::Nothing))
}
