//! A shell inside a world: a living one, any step of a scenario, or a world that was kept.
//!
//! Invariant: leaving the shell ends the world that was made for it; a kept world stays.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::installed;
use crate::lab::{Namespace, Role};
use crate::plugin::Plugins;
use crate::report::{self, Transcript};
use crate::runner;
use crate::scenario::Scenario;
use crate::terminal;
use crate::world::World;

/// Where a kept world keeps its greeting; the first line is the namespace to start in, the second the folder of the
/// plugin.
const NOTE: &str = "/run/harness/note";

/// Where it keeps the network configuration.
const NETWORK: &str = "/run/harness/network.json";

/// The world that is opened where no scenario is named.
const LIVING: &str = include_str!("shell/living.toml");

/// What to try in it. The page is fetched as a LAN client does it, by the gateway.
const TRY: &str = "\
Three things to try:
  ip netns exec lan curl -sH 'Host: 10-87-1-2.flat' http://192.168.50.1/
      a page of web, as a client of the LAN gets it
  flatnet status
      who is there, each tried with packets
  ip netns exec web ip link set eth0 down; flatnet status
      break it, and see what it says then";

/// Opens a shell in a world where a container serves a page and a gateway reaches it.
///
/// Must be called in a fresh world; gives the shell's exit status.
pub fn living(plugins: Plugins) -> Result<u8> {
    let scenario = Scenario::built_in("shell", LIVING)?;
    let mut world = World::build(Arc::clone(&scenario.setting), plugins)?;
    let mut transcript = Transcript::new(&scenario);
    if !runner::replay(&scenario, &mut world, &mut transcript, scenario.steps.len()) {
        bail!("make the world:\n{}", transcript.text());
    }
    leave_note(&world)?;
    let (start, greeting) = read_note()?;
    say(&format!("{greeting}\n{TRY}"));
    run(start.enter(world.lab.namespace(&start.node)?)?)
}

/// Replays `scenario` to step `until`, or to the one that fails; without it, to the first that takes something away. Then opens a
/// shell on its node.
///
/// Must be called in a fresh world; gives the shell's exit status.
pub fn replay(scenario: &Scenario, plugins: Plugins, until: Option<usize>) -> Result<u8> {
    let mut world = World::build(Arc::clone(&scenario.setting), plugins)?;
    let mut transcript = Transcript::new(scenario);
    let taking = scenario.steps.iter().position(|step| step.verb.takes_away()).filter(|_| until.is_none());
    let count = until.or(taking).unwrap_or(scenario.steps.len());
    let went_well = runner::replay(scenario, &mut world, &mut transcript, count);
    if let Some(place) = taking.filter(|_| went_well) {
        transcript.stopped(place + 1, &scenario.steps[place]);
    }
    say(&report::painted(transcript.text()));
    leave_note(&world)?;
    let (start, greeting) = read_note()?;
    say(&greeting);
    run(start.enter(world.lab.namespace(&start.node)?)?)
}

/// Writes down, inside the world, what whoever enters it should know.
pub fn leave_note(world: &World) -> Result<()> {
    let node = world.setting().in_role(Role::Node).next().ok_or_else(|| anyhow!("find a node to start in"))?;
    let folder = world.plugins.folder().display();
    let mut text = format!("{node}\n{folder}\n\nThis is {node}. The plugin under test is {folder}/flatnet\n");
    for (name, host) in world.lab.hosts() {
        let addresses: Vec<_> = host.spec.addresses().map(ToString::to_string).collect();
        let role = format!("{:?}", host.spec.role).to_lowercase();
        writeln!(text, "  {role:8} ip netns exec {name} ..   {}", addresses.join(" "))?;
    }
    for container in world.lab.containers() {
        writeln!(text, "  container ip netns exec {} ..", container.name())?;
    }
    let path = world.plugins.path();
    writeln!(text, "Call the plugin by hand (on {node}, once `ip netns add new` has made a container):")?;
    writeln!(
        text,
        "  CNI_COMMAND=ADD CNI_CONTAINERID=new CNI_NETNS=/run/netns/new CNI_IFNAME=eth0 CNI_PATH={path} \\"
    )?;
    writeln!(text, "    {folder}/flatnet < {NETWORK}\nLeave with exit.")?;
    let network = world.network(None)?.to_json();
    let write = || fs::write(NETWORK, network).and_then(|()| fs::write(NOTE, text));
    fs::create_dir_all("/run/harness").and_then(|()| write()).context("leave a note in the world")
}

/// Opens a shell in the world that process `pid` keeps.
///
/// Must be called while the process has one thread.
pub fn enter(pid: u32) -> Result<u8> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).with_context(|| format!("open {path}: is the world still there?"))
    };
    let own = fs::read_link("/proc/self/ns/user").context("look at the own user namespace")?;
    let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).with_context(|| format!("find the world {pid}"))?;
    // All are opened first: after the first step, this process sees the machine with other eyes.
    let user = (own != theirs).then(|| open("user")).transpose()?;
    let rest = ["ipc", "uts", "net", "pid_for_children", "mnt"].map(open);
    for namespace in user.map(Ok).into_iter().chain(rest) {
        setns(namespace?, CloneFlags::empty()).with_context(|| format!("enter the world {pid}"))?;
    }
    let (start, greeting) = read_note()?;
    say(&greeting);
    run(start.enter(&Namespace::named(&start.node))?)
}

/// Where a shell begins.
struct Start {
    node: String,
    /// Of the plugin.
    folder: String,
}

impl Start {
    /// A shell there, for which `flatnet` is the plugin under test.
    fn enter(&self, place: &Namespace) -> Result<Command> {
        let mut command = place.command(shell())?;
        if Path::new(installed::SETTINGS).exists() {
            installed::prefer(&mut command);
        }
        let set =
            command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path.map(ToOwned::to_owned));
        let path = set.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        command.env("PATH", format!("{}:{}", self.folder, path.to_string_lossy()));
        Ok(command)
    }
}

fn read_note() -> Result<(Start, String)> {
    let text = fs::read_to_string(NOTE).context("read the world's note")?;
    let mut parts = text.splitn(3, '\n').map(str::to_owned);
    let mut part = || parts.next().ok_or_else(|| anyhow!("read the world's note"));
    Ok((Start { node: part()?, folder: part()? }, part()?))
}

fn shell() -> std::ffi::OsString {
    std::env::var_os("SHELL").filter(|shell| Path::new(shell).is_file()).unwrap_or_else(|| "/bin/sh".into())
}

fn run(mut command: Command) -> Result<u8> {
    let status = command.status().context("start a shell")?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Only a person at a terminal is greeted.
fn say(text: &str) {
    drop(writeln!(terminal::stdout(), "{text}"));
}
