//! `run`, `kill` and `stop`: commands in a namespace, and the ways in which a container ends without a DEL.
//!
//! Invariant: what is killed is only what runs in the named container of this world.

use std::time::Duration;

use serde::Deserialize;

use super::{Failure, Misfit, Verb};
use crate::pattern::Pattern;
use crate::process;
use crate::scenario::Setting;
use crate::world::World;

/// `{ run = "ip link set eth0 down", in = "web" }`: a shell command, which must exit 0 unless `expect` says otherwise.
#[derive(Debug)]
pub(super) struct Run {
    command: String,
    options: RunOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunOptions {
    r#in: String,
    timeout_ms: Option<u64>,
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
        let program = self.command.split_whitespace().next()?;
        let shell = ["-c", "command -v \"$0\" >/dev/null", program];
        let found = std::process::Command::new("sh").args(shell).status().is_ok_and(|status| status.success());
        (!found).then(|| format!("{program} is not installed"))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let mut command = world.place(&self.options.r#in)?.command("sh")?;
        command.args(["-c", &self.command]);
        let patience = Duration::from_millis(self.options.timeout_ms.unwrap_or(10_000));
        let finished = process::run(command, b"", patience)?;
        let evidence = |failure: Failure| failure.with("stdout", &*finished.stdout).with("stderr", &*finished.stderr);
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

/// No options.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoOptions {}

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

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.lab.crash(&self.0)?;
        for attached in world.attached.values_mut().filter(|attached| attached.namespace == self.0) {
            attached.open = false;
        }
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

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.lab.namespace(&self.0)?.kill_processes()?;
        Ok(String::new())
    }
}
