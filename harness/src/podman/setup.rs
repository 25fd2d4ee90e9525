//! What Podman needs in a world: private mounts and its configuration.
//!
//! Invariant: Podman finds its own default paths, so what runs here is what a user has.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;

use super::{NETWORK, image};
use crate::plugin::Plugins;
use crate::sandbox::empty_folder;
use crate::shipped;

/// What the harness itself keeps, a reboot of the node notwithstanding.
const OWN: &str = "/run/harness/podman";
/// Podman's settings, in the place of all others; what cleans up behind containers gets them from it.
pub const CONTAINERS_CONF: &str = "/run/harness/podman/containers.conf";
/// The same, where a user has them.
const USERS_CONF: &str = "/etc/containers/containers.conf";
const STORAGE_CONF: &str = "/run/harness/podman/storage.conf";
/// Where networks of CNI are.
pub const CNI_NETWORKS: &str = "/etc/cni/net.d";
/// Where the locks of containers are, and images and containers.
const SHARED_MEMORY: &str = "/dev/shm";
const STORAGE_FOLDER: &str = "/var/lib/containers";
/// Which images Podman takes; without it, none.
const POLICY: &str = "/etc/containers/policy.json";

/// Podman hands this on to the processes that clean up behind containers.
const ENVIRONMENT: [(&str, &str); 3] =
    [("CONTAINERS_STORAGE_CONF", STORAGE_CONF), ("HOME", "/run"), ("TMPDIR", "/run")];

/// How Podman makes networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// By CNI plugins: Podman 4.
    Cni,
    /// By netavark, which starts flatnet as a driver: Podman 5 and later, which are built without CNI.
    Netavark,
}

impl Backend {
    /// That of the Podman that `PATH` finds.
    pub fn installed() -> Result<Self> {
        let output = Command::new("podman").arg("--version").output().context("start podman")?;
        let version = String::from_utf8_lossy(&output.stdout);
        Self::of(&version).with_context(|| format!("know the backend of {version:?}"))
    }

    fn of(version: &str) -> Option<Self> {
        let (major, _) = version.strip_prefix("podman version ")?.split_once('.')?;
        match major.parse().ok()? {
            4 => Some(Self::Cni),
            5.. => Some(Self::Netavark),
            _ => None,
        }
    }
}

/// Why Podman's cases cannot run on this machine, if they cannot.
pub fn reason_to_skip() -> Option<String> {
    if !geteuid().is_root() {
        return Some("Podman with its own storage needs root".to_owned());
    }
    let version = match Command::new("podman").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(err) => return Some(format!("podman cannot be started: {err}")),
    };
    if Backend::of(&version).is_none() {
        return Some(format!("Podman 4 has CNI, Podman 5 and later netavark, and this is {version}"));
    }
    image::busybox().err().map(|err| format!("{err:#}"))
}

/// Whether an error of Podman's says that it was built without CNI, which no other command tells.
pub fn lacks_cni(error: &str) -> bool {
    error.contains("cni support is not enabled")
}

/// All that Podman gets of an environment: where programs are, and where its settings are, if not where a user has them.
pub fn environment(settings: Option<&'static str>) -> impl Iterator<Item = (&'static str, OsString)> {
    let settings = settings.map(|file| ("CONTAINERS_CONF", file));
    let fixed = ENVIRONMENT.into_iter().chain(settings).map(|(name, value)| (name, OsString::from(value)));
    fixed.chain(env::var_os("PATH").map(|path| ("PATH", path)))
}

/// Covers what Podman would share with the machine. Its other folders are the world's own already.
pub fn mount_private() -> Result<()> {
    // The kernel's folder for shared memory holds the lock of every container; the other one holds images and containers.
    for folder in [SHARED_MEMORY, STORAGE_FOLDER] {
        empty_folder(folder)?;
    }
    mount_control_groups()
}

/// Takes away what containers had mounted, and the locks: neither outlives a boot.
pub(super) fn forget_memory() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below = points.filter(|point| point.strip_prefix(STORAGE_FOLDER).is_some_and(|rest| rest.starts_with('/')));
    // Whatever lies on another goes first.
    for point in below.collect::<Vec<_>>().into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).with_context(|| format!("unmount {point}"))?;
    }
    for lock in fs::read_dir(SHARED_MEMORY).context("list locks")? {
        fs::remove_file(lock.context("list locks")?.path()).context("remove a lock")?;
    }
    Ok(())
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

/// Writes the configuration of Podman and of what is built from the same parts (buildah), with CNI with the shipped network as it is.
pub fn configure(backend: Backend, plugins: &Plugins) -> Result<()> {
    let folders: Vec<_> = plugins.path().split(':').map(|folder| format!("{folder:?}")).collect();
    let network = match backend {
        Backend::Cni => format!(
            "network_backend = \"cni\"\nnetwork_config_dir = \"{CNI_NETWORKS}\"\ncni_plugin_dirs = [{}]",
            folders.join(", ")
        ),
        Backend::Netavark => {
            format!(
                "network_backend = \"netavark\"\nnetavark_plugin_dirs = [{:?}]",
                plugins.folder().display().to_string()
            )
        }
    };
    fs::create_dir_all(OWN).with_context(|| format!("make {OWN}"))?;
    write(CONTAINERS_CONF, &format!("{CONTAINERS}{network}\n"))?;
    write(STORAGE_CONF, STORAGE)?;
    write(POLICY, r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#)?;
    fs::create_dir_all(CNI_NETWORKS).with_context(|| format!("make {CNI_NETWORKS}"))?;
    match backend {
        Backend::Cni => write_conflist(NETWORK, shipped::CONFLIST),
        Backend::Netavark => Ok(()),
    }
}

/// Writes what a user has set, where that is: nothing of CNI. netavark itself is stood in for where it may not be installed: it is
/// looked for, but no container uses it.
pub(super) fn write_user_config(backend: Backend) -> Result<()> {
    const HELPERS: &str = "/run/helpers";
    let helpers = format!("[engine]\nhelper_binaries_dir = [{HELPERS:?}]\n");
    let settings = match backend {
        Backend::Netavark => CONTAINERS.to_owned(),
        Backend::Cni => {
            fs::create_dir_all(HELPERS).context("make a folder for netavark")?;
            symlink("/bin/true", format!("{HELPERS}/netavark")).context("stand in for netavark")?;
            format!("{}network_backend = \"netavark\"\n", CONTAINERS.replace("[engine]\n", &helpers))
        }
    };
    write(USERS_CONF, &settings)
}

/// Writes the file of a CNI network, or writes it anew.
pub(super) fn write_conflist(network: &str, text: &str) -> Result<()> {
    write(&format!("{CNI_NETWORKS}/{network}.conflist"), text)
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
const CONTAINERS: &str = r#"[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"

[network]
"#;

/// Where a program is, by `PATH`.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|file| file.is_file())
}
