//! `container`, `run`, `kill` and `stop`: commands in a namespace, and the ways in which a container comes and ends without CNI.
//!
//! Invariant: what is killed is only what runs in the named container of this world.

use std::time::Duration;

use serde::Deserialize;

use super::{Failure, Misfit, Verb, Weight, misfit};
use crate::installed;
use crate::pattern::Pattern;
use crate::process;
use crate::scenario::Setting;
use crate::world::World;

/// How a command names the binary under test in a rule of CNI.
const PLUGIN: &str = "$PLUGIN";
/// A command that takes longer hangs: one of several installs takes seconds on an idle machine, and ten times as long on one that is busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// `{ run = "ip link set eth0 down", in = "web" }`: a shell command, which must exit 0 unless `expect` says otherwise.
/// `$FLATNET`, and `$PLUGIN` in a rule of CNI, is the binary under test, for what a person does with it; `$ROUTES` lists where the
/// routes of that container's results lead to. What it `leaves` may stay at the end, as lines of the inventory.
#[derive(Debug)]
pub(super) struct Run {
    command: String,
    options: RunOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunOptions {
    r#in: String,
    distro: Option<String>,
    #[serde(default)]
    needs: Vec<String>,
    needs_file: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    leaves: Vec<Pattern>,
    #[serde(default)]
    expect: RunExpect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunExpect {
    exit: Option<i32>,
    stdout: Option<Pattern>,
}

impl Run {
    pub(super) fn new(command: String, options: RunOptions) -> Self {
        Self { command, options }
    }
}

impl Verb for Run {
    fn describe(&self) -> String {
        format!("run `{}` in {}", self.command, self.options.r#in)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn lacks(&self, _: &Setting) -> Option<String> {
        // A first word that is not plainly a program (an assignment, a bracket) needs the shell alone.
        let first = self.command.split_whitespace().next().filter(|word| is_plain(word));
        let mut programs = first.into_iter().chain(self.options.needs.iter().map(String::as_str));
        if let Some(missing) = programs.find(|it| !is_known(it)) {
            return Some(format!("{missing} is not installed"));
        }
        // A file of the kernel's shows what the kernel has.
        let missing = self.options.needs_file.as_ref().filter(|file| !std::path::Path::new(file).exists())?;
        Some(format!("{missing} is not there"))
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("in", &self.options.r#in))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.expect_left(&self.options.leaves);
        let mut command = world.place(&self.options.r#in)?.command("sh")?;
        let plugin = world.plugins.find(world.setting().subject.as_ref().map_or("flatnet", |it| it.network.kind()))?;
        command.args(["-c", &self.command]).env("FLATNET", &plugin).env("PLUGIN", &plugin);
        // The terminal of the user who runs this has no part in it.
        command.env_remove("COLUMNS");
        command.env("CNI_PATH", world.plugins.path()).env("ROUTES", routes_of(world, &self.options.r#in));
        if world.setting().installed {
            // The machine's own Podman must not be run, whoever asks for one.
            installed::prefer(&mut command);
        }
        world.distro(self.options.distro.as_deref())?.map_or(Ok(()), |distro| distro.adopt(&mut command))?;
        let patience = self.options.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let finished = process::run(command, b"", patience)?;
        // What the plugin has no part in is not its fault.
        let weight = if self.command.contains(PLUGIN) { Weight::Full } else { Weight::Unknown };
        let evidence = |failure: Failure| {
            failure.weight(weight).with("stdout", &*finished.stdout).with("stderr", &*finished.stderr)
        };
        let expected = self.options.expect.exit.unwrap_or(0);
        if finished.status.and_then(|status| status.code()) != Some(expected) {
            return Err(evidence(Failure::mismatch(format!("exit status: {expected}"), finished.status_text())));
        }
        let got = finished.stdout.trim_end();
        match &self.options.expect.stdout {
            Some(expected) if !expected.matches(got) => Err(evidence(Failure::mismatch(expected, got))),
            _ => Ok(got.lines().next().unwrap_or_default().to_owned()),
        }
    }
}

/// Where the routes lead to that results have named for what is attached there.
fn routes_of(world: &World, place: &str) -> String {
    let results = world.attached.values().filter(|it| it.open && it.namespace == place).map(|it| &it.result);
    let routes = results.filter_map(|result| result.get("routes")?.as_array()).flatten();
    routes.filter_map(|route| route.get("dst")?.as_str()).collect::<Vec<_>>().join(" ")
}

fn is_plain(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_alphanumeric() || "._/-".contains(letter))
}

/// Whether the shell knows a program, or a word of its own, by that name.
fn is_known(program: &str) -> bool {
    let shell = ["-c", "command -v \"$0\" >/dev/null", program];
    std::process::Command::new("sh").args(shell).status().is_ok_and(|status| status.success())
}

/// No options.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoOptions {}

/// `{ container = "web" }`: an empty container, for what has to be there before the first ADD.
#[derive(Debug)]
pub(super) struct Container(String);

impl Container {
    pub(super) fn new(name: String, _: NoOptions) -> Self {
        Self(name)
    }
}

impl Verb for Container {
    fn describe(&self) -> String {
        format!("container {}", self.0)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let taken = setting.hosts.contains_key(&self.0);
        misfit("container", if taken { Err(format!("{} is a host", self.0)) } else { Ok(()) })
    }

    fn introduces(&self) -> Vec<String> {
        vec![self.0.clone()]
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.lab.container(&self.0)?;
        Ok(String::new())
    }
}

/// `{ kill = "web" }`: a crash; processes and namespace go at once and nobody is told.
#[derive(Debug)]
pub(super) struct Kill(String);

impl Kill {
    pub(super) fn new(container: String, _: NoOptions) -> Self {
        Self(container)
    }
}

impl Verb for Kill {
    fn describe(&self) -> String {
        format!("kill {}", self.0)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("kill", &self.0))
    }

    fn takes_away(&self) -> bool {
        true
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.crash(&self.0)?;
        world.tally.mishaps += 1;
        Ok(String::new())
    }
}

/// `{ stop = "web" }`: its processes go, its namespace stays.
#[derive(Debug)]
pub(super) struct Stop(String);

impl Stop {
    pub(super) fn new(container: String, _: NoOptions) -> Self {
        Self(container)
    }
}

impl Verb for Stop {
    fn describe(&self) -> String {
        format!("stop {}", self.0)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("stop", &self.0))
    }

    fn takes_away(&self) -> bool {
        true
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.lab.namespace(&self.0)?.kill_processes()?;
        world.tally.mishaps += 1;
        Ok(String::new())
    }
}
