//! flatnet as it is installed on a host with Podman 4: the binary, each network's file, and a stand-in for Podman.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; the machine's own folders are covered, and its Podman is not run: a
//! world's root would write to the machine's storage.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::gateway;
use crate::plugin::Plugins;
use crate::scenario::Setting;

/// Where runtimes look for the binary.
const BINARIES: &str = "/opt/cni/bin";
/// Where the stand-in is, before all else.
const STAND_INS: &str = "/run/harness/bin";
/// Podman's settings: none, whatever the machine has.
pub(crate) const SETTINGS: &str = "/run/harness/containers.conf";
/// What the stand-in says of containers: nothing, until a step writes more.
const CONTAINERS: (&str, &str) = ("/run/harness/containers.json", "[]");
/// Answers what flatnet asks of Podman.
const PODMAN: &str = "\
#!/bin/sh
case \"$1\" in
    --version) echo 'podman version 4.9.3' ;;
    info) echo cni ;;
    ps) cat /run/harness/containers.json ;;
    *) echo \"this stand-in for podman does not know $1\" >&2; exit 125 ;;
esac
";

/// Puts all of it in place.
pub fn put(setting: &Setting, plugins: &Plugins) -> Result<()> {
    for folder in [BINARIES, STAND_INS] {
        fs::create_dir_all(folder).with_context(|| format!("make {folder}"))?;
    }
    symlink(plugins.find("flatnet")?, Path::new(BINARIES).join("flatnet")).context("install the binary")?;
    gateway::configure(setting)?;
    let podman = Path::new(STAND_INS).join("podman");
    fs::write(&podman, PODMAN).context("write a stand-in for podman")?;
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).context("make the stand-in executable")?;
    let (file, none) = CONTAINERS;
    fs::write(file, none).context("write the stand-in's containers")?;
    fs::write(SETTINGS, "").context("write Podman's settings")
}

/// Makes a command find the stand-in and its settings.
pub fn prefer(command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{STAND_INS}:{path}")).env("CONTAINERS_CONF", SETTINGS);
}
