//! What Podman needs in a world: private mounts and its configuration.
//!
//! Invariant: Podman finds its own default paths, so what runs here is what a user has.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;

use super::{NETWORK, image};
use crate::plugin::Plugins;
use crate::sandbox::empty_folder;
use crate::shipped;

const CONTAINERS_CONF: &str = "/run/containers.conf";
const STORAGE_CONF: &str = "/run/storage.conf";
const NETWORKS_FOLDER: &str = "/etc/cni/net.d";

/// Podman hands this on to the processes that clean up behind containers.
pub(super) const ENVIRONMENT: [(&str, &str); 4] = [
    ("CONTAINERS_CONF", CONTAINERS_CONF),
    ("CONTAINERS_STORAGE_CONF", STORAGE_CONF),
    ("HOME", "/run"),
    ("TMPDIR", "/run"),
];

/// Why Podman's cases cannot run on this machine, if they cannot.
pub fn reason_to_skip() -> Option<String> {
    if !geteuid().is_root() {
        return Some("Podman with its own storage needs root".to_owned());
    }
    let version = match Command::new("podman").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(err) => return Some(format!("podman cannot be started: {err}")),
    };
    if !version.starts_with("podman version 4.") {
        return Some(format!("Podman 4 is the last with the CNI backend, and this is {version}"));
    }
    image::busybox().err().map(|err| format!("{err:#}"))
}

/// Whether an error of Podman's says that it was built without CNI, which no other command tells.
pub fn lacks_cni(error: &str) -> bool {
    error.contains("cni support is not enabled")
}

/// Covers what Podman would share with the machine. `/run`, `/etc/cni` and `/var/lib/cni` are the world's own already.
pub(super) fn mount_private() -> Result<()> {
    // The kernel's folder for shared memory holds the lock of every container; the other one holds images and containers.
    for folder in ["/dev/shm", "/var/lib/containers"] {
        empty_folder(folder)?;
    }
    mount_control_groups()
}

/// Control groups of version 2 alone, as crun does not run beside those of both. They can only be read, as Podman's API would
/// move processes between groups of the whole machine.
fn mount_control_groups() -> Result<()> {
    const FOLDER: &str = "/sys/fs/cgroup";
    let none = None::<&str>;
    // Mounted a second time in the same place they would be refused as busy, and elsewhere would lose the machine's options.
    if statfs(FOLDER).is_ok_and(|there| there.filesystem_type() == CGROUP2_SUPER_MAGIC) {
        mount(Some(FOLDER), FOLDER, none, MsFlags::MS_BIND, none)
    } else {
        mount(Some("world"), FOLDER, Some("cgroup2"), MsFlags::empty(), none)
    }
    .context("mount control groups of version 2")?;
    mount(none, FOLDER, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)
        .context("let control groups only be read")
}

/// Writes Podman's configuration, with the shipped network as it is.
pub(super) fn write_config(plugins: &Plugins) -> Result<()> {
    let folders: Vec<_> = plugins.path().split(':').map(|folder| format!("{folder:?}")).collect();
    write(CONTAINERS_CONF, &containers_conf(&folders.join(", ")))?;
    write(STORAGE_CONF, STORAGE)?;
    fs::create_dir_all(NETWORKS_FOLDER).with_context(|| format!("make {NETWORKS_FOLDER}"))?;
    write(&format!("{NETWORKS_FOLDER}/{NETWORK}.conflist"), shipped::CONFLIST)
}

fn write(file: &str, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("write {file}"))
}

const STORAGE: &str = r#"[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;

/// No `default_network`: the Docker API would call that one "bridge", and testcontainers would not find it by its name.
fn containers_conf(plugin_folders: &str) -> String {
    format!(
        r#"[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"

[network]
network_backend = "cni"
network_config_dir = "{NETWORKS_FOLDER}"
cni_plugin_dirs = [{plugin_folders}]
"#
    )
}

/// Where a program is, by `PATH`.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}
