//! A shell inside a world, at any step of a scenario or in a world that was kept.
//!
//! Invariant: leaving the shell ends the world that was made for it; a kept world stays.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::lab::{Namespace, Role};
use crate::plugin::Plugins;
use crate::report::Transcript;
use crate::runner;
use crate::scenario::Scenario;
use crate::world::World;

/// Where a kept world says how to greet whoever enters it; the first line is the namespace to start in.
const NOTE: &str = "/run/harness/note";

/// Where it keeps the network configuration.
const NETWORK: &str = "/run/harness/network.json";

/// Replays `scenario` to step `until` (or to the one that fails), then opens a shell on its node.
///
/// Must be called in a fresh world; gives the shell's exit status.
pub fn replay(scenario: &Scenario, plugins: Plugins, until: Option<usize>) -> Result<u8> {
    let mut world = World::build(Arc::clone(&scenario.setting), plugins)?;
    let mut transcript = Transcript::new(scenario);
    runner::replay(scenario, &mut world, &mut transcript, until.unwrap_or(scenario.steps.len()));
    say(transcript.text());
    leave_note(&world)?;
    let (node, greeting) = read_note()?;
    say(&greeting);
    run(world.lab.namespace(&node)?.command(shell())?)
}

/// Writes down, inside the world, what whoever enters it should know.
pub fn leave_note(world: &World) -> Result<()> {
    let node = world.setting().in_role(Role::Node).next().ok_or_else(|| anyhow!("find a node to start in"))?;
    let mut text =
        format!("{node}\n\nThis is {node}. The plugin under test is {}/flatnet\n", world.plugins.folder().display());
    for (name, host) in world.lab.hosts() {
        let addresses: Vec<_> = host.spec.addresses().map(ToString::to_string).collect();
        let role = format!("{:?}", host.spec.role).to_lowercase();
        writeln!(text, "  {role:8} ip netns exec {name} ..   {}", addresses.join(" "))?;
    }
    for container in world.lab.containers() {
        writeln!(text, "  container ip netns exec {} ..", container.name())?;
    }
    let (folder, path) = (world.plugins.folder().display(), world.plugins.path());
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
    let (node, greeting) = read_note()?;
    say(&greeting);
    run(Namespace::named(&node).command(shell())?)
}

fn read_note() -> Result<(String, String)> {
    let text = fs::read_to_string(NOTE).context("read the world's note")?;
    let (node, greeting) = text.split_once('\n').ok_or_else(|| anyhow!("read the world's note"))?;
    Ok((node.to_owned(), greeting.to_owned()))
}

fn shell() -> std::ffi::OsString {
    std::env::var_os("SHELL").filter(|shell| Path::new(shell).is_file()).unwrap_or_else(|| "/bin/sh".into())
}

fn run(mut command: Command) -> Result<u8> {
    let status = command.status().context("start a shell")?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[expect(clippy::print_stdout, reason = "a greeting is for whoever sits there")]
fn say(text: &str) {
    println!("{text}");
}
