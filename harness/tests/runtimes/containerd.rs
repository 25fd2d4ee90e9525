//! containerd, whose client `ctr` attaches containers by libcni: `ctr run --cni`.
//!
//! Invariant: containerd keeps everything in the world, and ends before the case does.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::deadline;
use harness::podman::{COMMAND, busybox, make_root, mount_private};
use harness::shipped;
use nix::unistd::geteuid;

use crate::world::{Case, NODE, OWN, World, is_installed, write};

/// How long containerd may take to listen, and a client to end behind its container.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where `ctr` looks for lists and plugins, whatever it is told.
const NETWORKS: &str = "/etc/cni/net.d";
const PLUGINS: &str = "/opt/cni/bin";

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);

pub(crate) const CASES: [(&str, Case); 2] = [
    ("a_container_is_attached_until_its_end", a_container_is_attached_until_its_end),
    ("a_container_that_nobody_detaches_frees_its_address", a_container_that_nobody_detaches_frees_its_address),
];

/// Why it cannot run here, if it cannot.
pub(crate) fn lacks() -> Option<String> {
    if !geteuid().is_root() {
        return Some("containerd needs root".to_owned());
    }
    let missing = ["containerd", "ctr", "containerd-shim-runc-v2", "crun"].into_iter().find(|name| !is_installed(name));
    missing.map(|name| format!("{name} is not installed")).or_else(|| busybox().err().map(|err| format!("{err:#}")))
}

/// A running containerd; it ends with this value.
struct Containerd {
    process: Child,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It has ended before if this fails.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Containerd {
    fn start(world: &mut World) -> Result<Self> {
        mount_private()?;
        // Its empty folders, and what a host has by installation.
        world.expect_left(&[
            "folder /run/containerd*",
            "folder /etc/cni/net.d",
            "file /etc/cni/net.d/flatnet.conflist",
            "folder /opt/cni/bin",
            "file /opt/cni/bin/flatnet*",
            "folder /var/lib/cni/results",
        ]);
        write(&Path::new(NETWORKS).join("flatnet.conflist"), shipped::CONFLIST)?;
        fs::create_dir_all(PLUGINS).with_context(|| format!("make {PLUGINS}"))?;
        fs::copy(world.plugins().find("flatnet")?, Path::new(PLUGINS).join("flatnet")).context("install flatnet")?;
        // Control groups are the machine's: its runtime is told to make none.
        let crun = own("crun");
        write(&crun, "#!/bin/sh\nexec crun --cgroup-manager=disabled \"$@\"\n")?;
        fs::set_permissions(&crun, fs::Permissions::from_mode(0o755)).context("make the runtime a program")?;
        let config = own("containerd.toml");
        write(&config, &settings())?;
        let log = fs::File::create(own("containerd.log")).context("make a log")?;
        let mut command = world.node()?.command("containerd")?;
        command.arg("--config").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().context("share the log")?).stderr(log);
        let mut it = Self { process: command.spawn().context("start containerd")? };
        let ready = deadline::until(PATIENCE, || {
            let ended = it.process.try_wait().ok().flatten().is_some();
            (ended || UnixStream::connect(own("containerd.sock")).is_ok()).then_some(!ended)
        });
        if ready != Some(true) {
            let log = fs::read_to_string(own("containerd.log")).unwrap_or_default();
            bail!("hear from containerd: {log}");
        }
        Ok(it)
    }

    /// What `ctr` is called with.
    fn arguments<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--address", SOCKET], arguments].concat()
    }

    fn ctr(world: &mut World, arguments: &[&str]) -> Result<String> {
        Ok(world.run(NODE, "ctr", &Self::arguments(arguments))?.stdout)
    }
}

const SOCKET: &str = "/run/harness/containerd/containerd.sock";

/// A file or folder of containerd's.
fn own(name: &str) -> PathBuf {
    Path::new(OWN).join("containerd").join(name)
}

fn settings() -> String {
    let [root, state] = ["root", "state"].map(|name| own(name).display().to_string());
    format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {SOCKET:?}\n"
    )
}

/// `ctr run` of the container that serves the page.
fn run<'a>(options: &[&'a str], crun: &'a str, name: &'a str, env: &'a str) -> Result<Vec<&'a str>> {
    let root = make_root()?.to_str().context("name the container's files")?;
    let fixed = ["--cni", "--rootfs", "--runc-binary", crun, "--env", "PATH=/bin", "--env", env, root, name];
    Ok([&["run"], options, &fixed, &COMMAND].concat())
}

fn a_container_is_attached_until_its_end(world: &mut World) -> Result<()> {
    let _containerd = Containerd::start(world)?;
    let crun = own("crun").display().to_string();
    // As long as `ctr` itself runs it takes care of the network: it calls DEL when the container has ended.
    let arguments = run(&["--rm"], &crun, "web", "NAME=web")?;
    let mut command = world.node()?.command("ctr")?;
    command.args(Containerd::arguments(&arguments)).stdin(Stdio::null()).stdout(Stdio::null());
    let mut client = command.spawn().context("start ctr")?;
    let outcome = world.expect_leases(&[FIRST]).and_then(|()| {
        world.expect_page("web", FIRST)?;
        // What DEL will get.
        let kept = fs::read_to_string("/var/lib/cni/results/flatnet-default-web-eth0").context("read the cache")?;
        ensure!(kept.contains(&FIRST.to_string()), "keep the address: the cache has {kept}");
        Containerd::ctr(world, &["task", "kill", "--signal", "SIGKILL", "web"]).map(drop)
    });
    let ended = deadline::until(PATIENCE, || client.try_wait().transpose());
    if ended.is_none() {
        client.kill().and_then(|()| client.wait()).context("end ctr")?;
    }
    outcome?;
    // libcni forgets its result by a DEL that succeeded: what would be left of it is looked at behind the case. 128 + SIGKILL is the
    // container's status.
    let status = ended.transpose().context("wait for ctr")?.and_then(|status| status.code());
    ensure!(status == Some(137), "end with the container: ctr ended with {status:?}");
    world.expect_leases(&[])
}

fn a_container_that_nobody_detaches_frees_its_address(world: &mut World) -> Result<()> {
    // `ctr` has gone by the time the container ends, and so calls no DEL, neither then nor when the container is removed.
    world.expect_left(&["file /var/lib/cni/results/flatnet-default-web-eth0"]);
    let _containerd = Containerd::start(world)?;
    let crun = own("crun").display().to_string();
    let arguments = run(&["--detach"], &crun, "web", "NAME=web")?;
    Containerd::ctr(world, &arguments)?;
    world.expect_leases(&[FIRST])?;
    world.expect_page("web", FIRST)?;
    end(world)?;
    // Of the one before it libcni still has a result.
    Containerd::ctr(world, &arguments)?;
    world.expect_leases(&[FIRST])?;
    end(world)
}

/// Ends the container, which frees its address, and removes what containerd has of it.
fn end(world: &mut World) -> Result<()> {
    Containerd::ctr(world, &["task", "kill", "--signal", "SIGKILL", "web"])?;
    world.expect_leases(&[])?;
    let removed = || Containerd::ctr(world, &["task", "rm", "web"]).ok();
    deadline::until(PATIENCE, removed).context("see the container end")?;
    Containerd::ctr(world, &["container", "rm", "web"]).map(drop)
}
