//! What versions of CNI a plugin speaks.
//!
//! Invariant: that is its own word: an answer by which it cannot be told is an error.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Answer, PATIENCE, Plugins, read};
use crate::process;

impl Plugins {
    /// What the plugin says that it speaks, asked by who speaks `version`.
    pub fn versions(&self, kind: &str, version: &str) -> Result<Vec<String>> {
        let mut command = Command::new(self.find(kind)?);
        command.env_clear().env("CNI_COMMAND", "VERSION");
        let finished = process::run(command, json!({ "cniVersion": version }).to_string().as_bytes(), PATIENCE)?;
        let answer = read("VERSION", &finished).map_err(anyhow::Error::msg);
        let Answer::Done(Some(answer)) = answer.with_context(|| format!("ask {kind} for its versions"))? else {
            bail!("ask {kind} for its versions: it refuses");
        };
        let versions = answer.get("supportedVersions").and_then(Value::as_array);
        let versions = versions.with_context(|| format!("find the versions of {kind} in {answer}"))?;
        Ok(versions.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}
