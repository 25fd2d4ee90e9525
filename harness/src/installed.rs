//! flatnet as it is installed on a host with Podman 4: the binary, each network's file, and a stand-in for Podman.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; the machine's own folders are covered, and its Podman is not run: a
//! world's root would write to the machine's storage.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::plugin::Plugins;
use crate::sandbox::empty_folder;
use crate::scenario::{Network, Setting};

/// Where runtimes look for the binary.
const BINARIES: &str = "/opt/cni/bin";
/// Where they look for networks.
const NETWORKS: &str = "/etc/cni/net.d";
/// Where the stand-in is, before all else.
const STAND_INS: &str = "/run/harness/bin";
/// Podman's settings: none, whatever the machine has.
const SETTINGS: &str = "/run/harness/containers.conf";
/// Answers what flatnet asks of Podman.
const PODMAN: &str = "\
#!/bin/sh
case \"$1\" in
    --version) echo 'podman version 4.9.3' ;;
    info) echo cni ;;
    *) echo \"this stand-in for podman does not know $1\" >&2; exit 125 ;;
esac
";

/// Puts all of it in place.
pub fn put(setting: &Setting, plugins: &Plugins) -> Result<()> {
    empty_folder("/opt/cni")?;
    for folder in [BINARIES, NETWORKS, STAND_INS] {
        fs::create_dir_all(folder).with_context(|| format!("make {folder}"))?;
    }
    symlink(plugins.find("flatnet")?, Path::new(BINARIES).join("flatnet")).context("install the binary")?;
    for network in setting.all_networks() {
        let file = Path::new(NETWORKS).join(format!("{}.conflist", network.name()));
        fs::write(&file, list(network)?).with_context(|| format!("write {}", file.display()))?;
    }
    let podman = Path::new(STAND_INS).join("podman");
    fs::write(&podman, PODMAN).context("write a stand-in for podman")?;
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).context("make the stand-in executable")?;
    fs::write(SETTINGS, "").context("write Podman's settings")
}

/// Makes a command find the stand-in and its settings.
pub fn prefer(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{STAND_INS}:{path}")).env("CONTAINERS_CONF", SETTINGS);
}

/// A list of the one plugin: name and version are the list's, all else the plugin's.
fn list(network: &Network) -> Result<String> {
    let mut plugin: Value = serde_json::from_str(&network.to_json()).context("read a network")?;
    let outer: Vec<_> = ["cniVersion", "name"].map(|key| plugin[key].take()).into();
    if let Some(plugin) = plugin.as_object_mut() {
        plugin.retain(|_, value| !value.is_null());
    }
    Ok(format!("{:#}\n", json!({"cniVersion": outer[0], "name": outer[1], "plugins": [plugin]})))
}
