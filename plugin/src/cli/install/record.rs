//! What an installation has changed, on the disk: how uninstall knows what to put back.
//!
//! It is written before anything that it names is changed, so that whatever cuts an installation short, uninstall can undo it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize};

use super::files::{Content, Saved};
use crate::cli::podman::Backend;
use crate::config::gateways;
use crate::layout;

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Record {
    /// Of the flatnet that wrote it.
    pub(in crate::cli) version: String,
    pub(in crate::cli) backend: Backend,
    pub(in crate::cli) network: Network,
    /// In the order of their making.
    pub(in crate::cli) files: Vec<Written>,
    /// Folders that were not there before, outermost first.
    pub(in crate::cli) folders: Vec<PathBuf>,
    /// Whether the network was made by Podman on our word.
    pub(in crate::cli) made_network: bool,
    /// Whether systemd was told to start the service.
    pub(in crate::cli) enabled_service: bool,
}

/// The network, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Network {
    pub(in crate::cli) name: String,
    /// One, or one of each family. Records of before that was possible have one `subnet`.
    #[serde(alias = "subnet", deserialize_with = "one_or_several")]
    pub(in crate::cli) subnets: Vec<IpNetwork>,
    pub(in crate::cli) bridge: String,
    /// Whether it masquerades. Records of before that was possible do not say.
    #[serde(default = "yes")]
    pub(in crate::cli) masquerade: bool,
    /// Who beyond the flat range has a route to the containers.
    #[serde(default)]
    pub(in crate::cli) gateways: Vec<IpNetwork>,
    /// Whether containers send as themselves only. Records of before that was the default do not say, and such a network keeps its ways.
    #[serde(default)]
    pub(in crate::cli) macspoofchk: bool,
}

fn yes() -> bool {
    true
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNetwork>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Subnets {
        One(IpNetwork),
        Several(Vec<IpNetwork>),
    }
    Ok(match Subnets::deserialize(deserializer)? {
        Subnets::One(subnet) => vec![subnet],
        Subnets::Several(subnets) => subnets,
    })
}

impl Network {
    /// Whether the other one has the same name, subnets and bridge: then containers can stay where they are.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        (&self.name, &self.subnets, &self.bridge) == (&other.name, &other.subnets, &other.bridge)
    }

    /// The subnets, to be shown or to follow "flatnet" in what Podman tells of a network.
    pub(super) fn subnets(&self, between: &str) -> String {
        self.subnets.iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(between)
    }

    /// `gateways` as one text.
    pub(super) fn gateways(&self) -> String {
        self.gateways.iter().map(|gateway| gateways::text(*gateway)).collect::<Vec<_>>().join(",")
    }
}

/// A file of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Written {
    pub(in crate::cli) path: PathBuf,
    /// Of what was written; another one means that somebody changed it since.
    pub(in crate::cli) hash: String,
    /// Of what flatnet had written before that, and which is still there where an upgrade was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former: Option<String>,
    /// What was there before.
    pub(in crate::cli) before: Option<Before>,
}

/// A file of somebody else's that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Before {
    /// Where its content is kept; nothing for a link.
    pub(in crate::cli) kept: Option<PathBuf>,
    /// Where it led to, if it was a symbolic link.
    link: Option<PathBuf>,
    mode: u32,
    owner: (u32, u32),
    changed: Option<(i64, i64)>,
}

impl Record {
    /// The record of this host's installation, if there is one.
    pub(in crate::cli) fn read() -> Result<Option<Self>> {
        let text = match fs::read_to_string(layout::RECORD) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("failed to read {}", layout::RECORD)),
        };
        let record = serde_json::from_str(&text).with_context(|| {
            format!("failed to read {} (remove it to start anew, or use the flatnet that wrote it)", layout::RECORD)
        })?;
        Ok(Some(record))
    }

    pub(super) fn text(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }

    /// Its entry for a path.
    pub(in crate::cli) fn file(&self, path: &Path) -> Option<&Written> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl Written {
    /// Whether flatnet wrote this.
    pub(super) fn is(&self, file: &Saved) -> bool {
        let hash = file.hash();
        hash == self.hash || self.former.as_ref() == Some(&hash)
    }

    /// Whether this is what was there before: not replaced yet, or put back already.
    pub(super) fn is_before(&self, file: &Saved) -> bool {
        self.before.as_ref().is_some_and(|before| before.is(file))
    }

    /// The entry, where the file is already as it shall be, whoever made it so.
    pub(super) fn now(&self, file: &Saved) -> Self {
        Self { hash: file.hash(), ..self.clone() }
    }
}

impl Before {
    /// `kept` is where a file's content goes.
    pub(super) fn of(saved: &Saved, kept: PathBuf) -> Self {
        let (link, kept) = match &saved.content {
            Content::Link(target) => (Some(target.clone()), None),
            Content::Bytes(_) => (None, Some(kept)),
        };
        Self { kept, link, mode: saved.mode, owner: saved.owner, changed: saved.changed }
    }

    /// Whether this is the file.
    fn is(&self, file: &Saved) -> bool {
        let link = match &file.content {
            Content::Link(target) => Some(target),
            Content::Bytes(_) => None,
        };
        (self.link.as_ref(), self.mode, self.owner, self.changed) == (link, file.mode, file.owner, file.changed)
    }

    /// The file as it was; nothing where its content is gone.
    pub(super) fn saved(&self) -> Result<Option<Saved>> {
        let content = match (&self.link, &self.kept) {
            (Some(target), _) => Content::Link(target.clone()),
            (None, Some(kept)) => match fs::read(kept) {
                Ok(bytes) => Content::Bytes(bytes),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e).with_context(|| format!("failed to read {}", kept.display())),
            },
            (None, None) => Content::Bytes(Vec::new()),
        };
        Ok(Some(Saved { content, mode: self.mode, owner: self.owner, changed: self.changed }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_of_before_ipv6_is_read() {
        let old = json!({ "name": "flatnet", "subnet": "10.87.1.0/24", "bridge": "flatnet-br0" });
        let network: Network = serde_json::from_value(old).expect("a network");
        assert_eq!(network.subnets(" "), "10.87.1.0/24");
        assert!(network.masquerade && network.gateways.is_empty());
        let again: Network = serde_json::from_value(json!(network)).expect("a network");
        assert_eq!(again, network);
    }
}
