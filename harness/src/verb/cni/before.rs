//! The result of ADD as the last plugin of a list would have left it.
//!
//! Invariant: only what the kernel says of the container's own interfaces takes the place of what was answered.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::field;
use crate::lab::View;
use crate::world::{Attachment, World};

/// What may be said of `prevResult` in a word.
#[derive(Debug, Deserialize)]
pub(super) enum Word {
    /// A plugin that changes an interface says so in its result.
    #[serde(rename = "as seen")]
    AsSeen,
}

/// `result` with the MACs that the container's interfaces have now.
pub(super) fn as_seen(world: &World, attachment: &Attachment, mut result: Value) -> Result<Value> {
    let Some(attached) = world.attached.get(attachment) else { return Ok(result) };
    let view = View::of(world.lab.namespace(&attached.namespace)?)?;
    let interfaces = result.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten().filter(|it| field(it, "sandbox").as_str() > Some("")) {
        if let Some(link) = field(interface, "name").as_str().and_then(|name| view.link(name)) {
            interface["mac"] = link.mac.clone().into();
        }
    }
    Ok(result)
}
