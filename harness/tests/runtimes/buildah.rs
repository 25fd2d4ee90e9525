//! buildah, whose commands run in containers on the network: `buildah run --network flatnet`, and `RUN` of a Containerfile.
//!
//! Invariant: it has the settings and the storage that Podman's cases have, in the world.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::deadline;
use harness::lab::Namespace;
use harness::podman::{
    Backend, COMMAND, CONTAINERS_CONF, NETWORK, busybox, configure, environment, make_root, mount_private,
};
use harness::process::{self, Finished};
use nix::unistd::geteuid;
use serde_json::Value;

use crate::world::{Case, OWN, World, is_installed, write};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(30);

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);

/// Where libcni keeps what ADD gave.
const RESULTS: &str = "/var/lib/cni/results";

/// The runtime makes no control groups: they are the machine's.
const OCI: [&str; 4] = ["--isolation", "oci", "--runtime-flag", "cgroup-manager=disabled"];

pub(crate) const CASES: [(&str, Case); 2] =
    [("run_attaches_a_command", run_attaches_a_command), ("build_attaches_its_steps", build_attaches_its_steps)];

/// Why it cannot run here, if it cannot.
pub(crate) fn lacks() -> Option<String> {
    if !geteuid().is_root() {
        return Some("buildah with its own storage needs root".to_owned());
    }
    let missing = ["buildah", "crun"].into_iter().find(|name| !is_installed(name));
    missing.map(|name| format!("{name} is not installed")).or_else(|| busybox().err().map(|err| format!("{err:#}")))
}

fn set_up(world: &mut World) -> Result<()> {
    mount_private()?;
    // Its settings, its lock files, and the empty folders of what it had.
    world.expect_left(&["* /run/*", "* /etc/containers/*", "* /etc/cni/net.d*", "folder /var/lib/cni/results"]);
    configure(Backend::Cni, world.plugins())
}

fn command(world: &World, arguments: &[&str]) -> Result<Command> {
    let mut command = world.node()?.command("buildah")?;
    command.env_clear().envs(environment(Some(CONTAINERS_CONF))).args(arguments);
    Ok(command)
}

fn buildah(world: &World, arguments: &[&str]) -> Result<Finished> {
    let done = process::run(command(world, arguments)?, &[], PATIENCE)?;
    let succeeded = done.status.is_some_and(|status| status.success());
    ensure!(succeeded, "run buildah {arguments:?}: {}\n{}{}", done.status_text(), done.stdout, done.stderr);
    Ok(done)
}

/// A working container with the files of one that serves the page.
fn make_container(world: &World) -> Result<()> {
    buildah(world, &["from", "--name", "web", "scratch"])?;
    let root = make_root()?.to_str().context("name the container's files")?;
    buildah(world, &["copy", "--quiet", "web", root, "/"]).map(drop)
}

fn run_attaches_a_command(world: &mut World) -> Result<()> {
    set_up(world)?;
    make_container(world)?;
    let fixed = ["--network", NETWORK, "--env", "NAME=web", "web", "--"];
    let mut command = command(world, &[&["run"], &OCI[..], &fixed, &COMMAND].concat())?;
    let mut server = command.stdin(Stdio::null()).spawn().context("start buildah run")?;
    // With the server the command ends, and buildah calls DEL: if that succeeds, libcni keeps no result, which is looked at behind the case.
    let outcome =
        world.expect_leases(&[FIRST]).and_then(|()| world.expect_page("web", FIRST)).and_then(|()| kill_kept());
    let ended = wait(&mut server);
    outcome?;
    ended?;
    world.expect_leases(&[])?;
    buildah(world, &["rm", "web"]).map(drop)
}

/// Kills what runs in the one container of which libcni keeps a result.
fn kill_kept() -> Result<()> {
    let files: Vec<_> = fs::read_dir(RESULTS).context("list results")?.flatten().map(|file| file.path()).collect();
    let [file] = &files[..] else { bail!("keep one result: libcni has {files:?}") };
    let kept: Value = serde_json::from_slice(&fs::read(file).context("read the result")?).context("read the result")?;
    // buildah keeps the namespace open and gives out its own descriptor.
    let sandbox = kept["result"]["interfaces"][2]["sandbox"].as_str().context("find the sandbox in the result")?;
    Namespace::at(sandbox.as_ref()).kill_processes()
}

fn wait(child: &mut Child) -> Result<()> {
    if deadline::until(PATIENCE, || child.try_wait().transpose()).is_none() {
        child.kill().and_then(|()| child.wait()).context("end buildah")?;
        bail!("see buildah end behind its command");
    }
    Ok(())
}

fn build_attaches_its_steps(world: &mut World) -> Result<()> {
    set_up(world)?;
    make_root()?;
    let file = format!("{OWN}/Containerfile");
    write(
        file.as_ref(),
        "FROM scratch\nCOPY flatnet-web /\nRUN busybox ip -o address show dev eth0; busybox ip route\n",
    )?;
    let fixed = ["--network", NETWORK, "--file", &file, "--tag", "built", OWN];
    let said = buildah(world, &[&["build"], &OCI[..], &fixed].concat())?.stdout;
    ensure!(said.contains(&format!("{FIRST}/24")), "give the step an address: it said {said}");
    ensure!(said.contains("default via 10.87.1.1"), "give the step a route: it said {said}");
    world.expect_leases(&[])?;
    buildah(world, &["rmi", "--all"]).map(drop)
}
