//! `prevResult`: what a runtime sends of the ADD before, with the changes of a step.
//!
//! Invariant: without a word of the step it is the result of ADD as it was.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::cni_expect::field;
use crate::lab::View;
use crate::scenario::Network;
use crate::world::{Attached, World};

/// What goes in as `prevResult`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected changes to the result of ADD, \"as seen\", or false to leave it out")]
pub(super) enum Prev {
    Kept(bool),
    Word(Seen),
    Changed(toml::Table),
}

/// As the last plugin of a list would leave it: what it has changed of an interface, it says.
#[derive(Debug, Deserialize)]
pub(super) enum Seen {
    #[serde(rename = "as seen")]
    AsSeen,
}

impl Prev {
    /// The result of ADD; with `as seen` the container's interfaces have the MACs that they have now.
    pub(super) fn seen(prev: Option<&Self>, world: &World, attached: &Attached) -> Result<Value, Failure> {
        let mut result = attached.result.clone();
        if !matches!(prev, Some(Self::Word(Seen::AsSeen))) {
            return Ok(result);
        }
        let view = View::of(world.lab.namespace(&attached.namespace)?)?;
        let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
        for interface in interfaces.into_iter().flatten().filter(|it| field(it, "sandbox").as_str() > Some("")) {
            if let Some(link) = field(interface, "name").as_str().and_then(|name| view.link(name)) {
                interface["mac"] = link.mac.clone().into();
            }
        }
        Ok(result)
    }

    /// Puts it into a configuration; `before` is what there is of an ADD.
    pub(super) fn put(prev: Option<&Self>, before: Option<Value>, network: &mut Network) -> Result<(), Failure> {
        match (prev, before) {
            (Some(Self::Kept(false)), _) | (None | Some(Self::Kept(true) | Self::Word(_)), None) => {}
            (Some(Self::Changed(changes)), before) => {
                network.set("prevResult", before.unwrap_or_default());
                for (path, value) in changes {
                    let json = serde_json::to_value(value).context("say that in JSON")?;
                    network.set(&format!("prevResult.{path}"), json);
                }
            }
            (None | Some(Self::Kept(true) | Self::Word(_)), Some(before)) => network.set("prevResult", before),
        }
        Ok(())
    }
}
