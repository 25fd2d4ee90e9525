//! What Podman is set to: who makes its networks, and where it looks for plugins.
//!
//! Read from its own files, in its own order; nothing here runs Podman.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::probe;
use crate::layout;

/// Where Podman reads its settings, later ones over earlier ones (containers.conf(5)).
const SETTINGS: [&str; 2] = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"];
const DROP_INS: &str = "/etc/containers/containers.conf.d";

/// Who makes networks for Podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    /// Podman 4's, once it is told to.
    Cni,
    /// Podman 5's only one.
    Netavark,
}

impl Backend {
    /// Its value of `network_backend` in containers.conf.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cni => "cni",
            Self::Netavark => "netavark",
        }
    }

    /// Where the binary has to be for it.
    pub(super) fn binary(self) -> &'static str {
        match self {
            Self::Cni => layout::BINARY,
            Self::Netavark => layout::NETAVARK_DRIVER,
        }
    }

    /// The key of containers.conf, and what Podman takes where it is not set.
    fn folders_setting(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Cni => (
                "cni_plugin_dirs",
                &["/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni", "/opt/cni/bin"],
            ),
            Self::Netavark => (
                "netavark_plugin_dirs",
                &[
                    "/usr/local/libexec/netavark",
                    "/usr/libexec/netavark",
                    "/usr/local/lib/netavark",
                    "/usr/lib/netavark",
                ],
            ),
        }
    }
}

/// The first number of a version, in what `podman --version` says: "podman version 4.9.3".
pub(super) fn major(said: &str) -> Option<u32> {
    said.split_whitespace().last()?.split('.').next()?.parse().ok()
}

/// Podman's settings of networks: each file's `[network]`, in the order in which later ones win.
#[derive(Debug, Default)]
pub(super) struct Settings {
    files: Vec<(PathBuf, Table)>,
    /// `CONTAINERS_CONF` names the one file that is read.
    pub(super) only: bool,
}

impl Settings {
    pub(super) fn read() -> Self {
        let only = env::var_os("CONTAINERS_CONF").filter(|path| !path.is_empty());
        let mut paths: Vec<_> = match &only {
            Some(path) => vec![path.into()],
            None => SETTINGS.iter().map(PathBuf::from).chain(probe::files(Path::new(DROP_INS), "conf")).collect(),
        };
        paths.extend(env::var_os("CONTAINERS_CONF_OVERRIDE").filter(|path| !path.is_empty()).map(PathBuf::from));
        let read = |path: PathBuf| Some((path.clone(), network_table(&fs::read_to_string(path).ok()?)?));
        Self { files: paths.into_iter().filter_map(read).collect(), only: only.is_some() }
    }

    /// The file whose word on `key` is the last.
    pub(super) fn origin(&self, key: &str) -> Option<&Path> {
        self.last(key).map(|(path, _)| path)
    }

    /// The folder of CNI configurations, if one is set.
    pub(super) fn network_folder(&self) -> Option<PathBuf> {
        let (_, value) = self.last("network_config_dir")?;
        value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// The folders that Podman looks for this backend's plugins in.
    pub(super) fn plugin_folders(&self, backend: Backend) -> Vec<PathBuf> {
        let (key, defaults) = backend.folders_setting();
        match self.strings(key) {
            Some(folders) => folders.into_iter().map(PathBuf::from).collect(),
            None => defaults.iter().map(PathBuf::from).collect(),
        }
    }

    /// What these files would set.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), network_table(text).expect("a table")));
        Self { files: files.collect(), only: false }
    }

    /// What the last word on `key` is, if it is a text.
    pub(super) fn string(&self, key: &str) -> Option<&str> {
        self.last(key)?.1.as_str()
    }

    fn strings(&self, key: &str) -> Option<Vec<String>> {
        let (_, value) = self.last(key)?;
        Some(value.as_array()?.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    fn last(&self, key: &str) -> Option<(&Path, &Value)> {
        self.files.iter().rev().find_map(|(path, table)| Some((path.as_path(), table.get(key)?)))
    }
}

/// A file that is not TOML sets nothing; Podman itself then says so.
fn network_table(text: &str) -> Option<Table> {
    text.parse::<Table>().ok()?.remove("network")?.try_into().ok()
}
