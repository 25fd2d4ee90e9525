//! `add`, `del`, `check`, `version` and `cni`: the plugin itself, called as a runtime calls it.
//!
//! Invariant: configuration and environment reach the plugin as libcni would send them, unless the step says otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::cni_expect::{self, Expect};
use super::{Failure, Misfit, Verb, misfit};
use crate::lab::FOLDER;
use crate::plugin::{Answer, Call, PATIENCE, environment};
use crate::process::Finished;
use crate::scenario::{Network, Setting};
use crate::world::{Attached, Attachment, World};

/// The options of all these verbs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    on: Option<String>,
    network: Option<String>,
    container: Option<String>,
    ifname: Option<String>,
    id: Option<String>,
    args: Option<String>,
    netns: Option<String>,
    env: BTreeMap<String, Variable>,
    stdin: Option<String>,
    stdin_file: Option<PathBuf>,
    set: BTreeMap<String, toml::Value>,
    unset: Vec<String>,
    prev: Option<Prev>,
    together: Option<usize>,
    timeout_ms: Option<u64>,
    expect: Expect,
}

/// A variable of the plugin's environment.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or false to leave the variable out")]
enum Variable {
    Text(String),
    Kept(bool),
}

/// What goes in as `prevResult`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected changes to the result of ADD, or false to leave it out")]
enum Prev {
    Kept(bool),
    Changed(toml::Table),
}

/// One call, or several at once.
#[derive(Debug)]
pub(super) struct Cni {
    command: String,
    container: String,
    options: Options,
}

/// `{ add = "web" }`
pub(super) fn add(container: String, options: Options) -> Cni {
    Cni { command: "ADD".to_owned(), container, options }
}

/// `{ del = "web" }`
pub(super) fn del(container: String, options: Options) -> Cni {
    Cni { command: "DEL".to_owned(), container, options }
}

/// `{ check = "web" }`
pub(super) fn check(container: String, options: Options) -> Cni {
    Cni { command: "CHECK".to_owned(), container, options }
}

/// `{ version = true }`: libcni sends made-up values for everything that the verb does not need.
pub(super) fn version(_: bool, mut options: Options) -> Cni {
    options.netns.get_or_insert_with(|| "dummy".to_owned());
    options.ifname.get_or_insert_with(|| "dummy".to_owned());
    options.id.get_or_insert_with(String::new);
    Cni { command: "VERSION".to_owned(), container: String::new(), options }
}

/// `{ cni = "STATUS", container = "web" }`
pub(super) fn any(command: String, mut options: Options) -> Cni {
    let container = options.container.take().unwrap_or_default();
    Cni { command, container, options }
}

/// One call, ready to be made, and whom it is about.
pub(super) struct Prepared {
    pub(super) call: Call,
    pub(super) container: String,
    pub(super) attachment: Attachment,
    pub(super) network: Network,
}

impl Verb for Cni {
    fn describe(&self) -> String {
        let Options { together, ifname, network, .. } = &self.options;
        let mut text = match self.command.as_str() {
            "ADD" | "DEL" | "CHECK" => format!("{} {}", self.command.to_lowercase(), self.container),
            "VERSION" => "version".to_owned(),
            command => format!("cni {command}"),
        };
        for (word, value) in [("", ifname.as_ref().filter(|name| *name != "dummy")), ("network ", network.as_ref())] {
            text.extend(value.map(|value| format!(" {word}{value}")));
        }
        text.extend(together.map(|together| format!(", {together} at once")));
        text
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let Options { on, network, prev, together, expect, .. } = &self.options;
        let asks_for = |what: &str, wrong: bool| if wrong { Err(format!("{what} `{}`", self.command)) } else { Ok(()) };
        misfit("on", setting.node(on.as_deref()))?;
        misfit(
            "network",
            setting.network(network.as_deref()).ok_or("[networks] has no network of that name".to_owned()),
        )?;
        misfit("container", asks_for("`container` does not belong to", self.options.container.is_some()))?;
        misfit("prev", asks_for("`prev` does not belong to", prev.is_some() && self.command == "ADD"))?;
        misfit("together", asks_for("`together` does not belong to", together.is_some() && self.container.is_empty()))?;
        misfit("together", if *together == Some(0) { Err("nothing happens 0 times".to_owned()) } else { Ok(()) })?;
        misfit("expect", expect.fits(&self.command, *together))
    }

    fn introduces(&self) -> Vec<String> {
        self.containers().filter(|name| !name.is_empty()).collect()
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let node = self.node(world)?;
        let prepared: Vec<Prepared> =
            self.containers().map(|name| self.prepare(world, name)).collect::<Result<_, _>>()?;
        // A failed ADD must leave nothing: that is looked at wherever a step expects one.
        let before = if self.expects_failed_add() { Some(world.inventory(&node)?) } else { None };
        if self.command == "ADD" {
            world.called_with.extend(prepared.iter().map(|prepared| prepared.network.clone()));
        }
        let finished = Self::make_calls(world, &node, &prepared)?;
        let mut answers = Vec::new();
        for (prepared, finished) in prepared.iter().zip(&finished) {
            let evidence = |failure: Failure| with_evidence(failure, prepared, finished);
            let answer = prepared.call.read(finished).map_err(|broken| evidence(Failure::wrong(broken)))?;
            self.remember(world, prepared, &answer);
            self.options.expect.judge(world, &node, prepared, &answer).map_err(evidence)?;
            self.options.expect.judge_warnings(&finished.stderr).map_err(evidence)?;
            answers.push(answer);
        }
        self.options.expect.judge_all(&answers)?;
        let changes = before.map(|before| world.changes_since(&node, &before)).transpose()?.unwrap_or_default();
        if !changes.is_empty() {
            return Err(Failure::wrong("the failed ADD left something behind").with("changes", changes.join("\n")));
        }
        Ok(summary(&answers, &finished))
    }
}

impl Cni {
    fn containers(&self) -> impl Iterator<Item = String> {
        let together = self.options.together;
        (1..=together.unwrap_or(1)).map(move |number| match together {
            Some(_) => format!("{}-{number}", self.container),
            None => self.container.clone(),
        })
    }

    fn expects_failed_add(&self) -> bool {
        self.command == "ADD" && self.options.expect.fails()
    }

    fn node(&self, world: &World) -> Result<String, Failure> {
        world.setting().node(self.options.on.as_deref()).map(str::to_owned).map_err(Failure::wrong)
    }

    fn prepare(&self, world: &mut World, container: String) -> Result<Prepared, Failure> {
        let options = &self.options;
        let ifname = options.ifname.clone().unwrap_or_else(|| "eth0".to_owned());
        let id = options.id.clone().unwrap_or_else(|| container.clone());
        // DEL comes for containers that are gone, too.
        if options.netns.is_none() && matches!(self.command.as_str(), "ADD" | "CHECK") {
            world.lab.container(&container)?;
        }
        let own = || (!container.is_empty()).then(|| Path::new(FOLDER).join(&container));
        let netns = options.netns.as_ref().map(PathBuf::from).or_else(own);
        let path = world.plugins.path();
        let mut env = environment(&self.command, &id, netns.as_deref(), &ifname, options.args.as_deref(), &path);
        for (name, variable) in &options.env {
            match variable {
                Variable::Text(value) => drop(env.insert(name.clone(), value.clone())),
                Variable::Kept(true) => {}
                Variable::Kept(false) => drop(env.remove(name)),
            }
        }
        let network = world.network(options.network.as_deref())?.name().to_owned();
        let attachment = Attachment { container: id, ifname, network };
        let network = self.network(world, &attachment)?;
        let stdin = match (&options.stdin, &options.stdin_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
            (None, None) => network.to_json(),
        };
        let binary = world.plugins.find(network.kind())?;
        let patience = options.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let call = Call { binary, command: self.command.clone(), env, stdin, patience };
        Ok(Prepared { call, container, attachment, network })
    }

    /// The configuration with the changes of this step, and with the result of ADD where a runtime would send it.
    fn network(&self, world: &World, attachment: &Attachment) -> Result<Network, Failure> {
        let options = &self.options;
        let mut network = world.network(options.network.as_deref())?.clone();
        // Even a wrong `type` must not keep the step from reaching the plugin under test.
        let json = |value: &toml::Value| serde_json::to_value(value).context("say that in JSON");
        for (path, value) in &options.set {
            network.set(path, json(value)?);
        }
        let wanted = |attached: &&Attached| self.command == "CHECK" || (self.command == "DEL" && attached.open);
        let before = world.attached.get(attachment).filter(wanted).map(|attached| &attached.result);
        match (&options.prev, before) {
            (Some(Prev::Kept(false)), _) | (None | Some(Prev::Kept(true)), None) => {}
            (Some(Prev::Changed(changes)), before) => {
                network.set("prevResult", before.cloned().unwrap_or_default());
                for (path, value) in changes {
                    network.set(&format!("prevResult.{path}"), json(value)?);
                }
            }
            (None | Some(Prev::Kept(true)), Some(before)) => network.set("prevResult", before.clone()),
        }
        options.unset.iter().for_each(|path| network.unset(path));
        Ok(network)
    }

    /// Makes all calls at the same moment.
    fn make_calls(world: &World, node: &str, prepared: &[Prepared]) -> Result<Vec<Finished>, Failure> {
        let node = &world.lab.host(node)?.namespace;
        let start = Barrier::new(prepared.len());
        let finished: anyhow::Result<Vec<Finished>> = thread::scope(|scope| {
            let calls: Vec<_> = prepared
                .iter()
                .map(|prepared| {
                    scope.spawn(|| {
                        start.wait();
                        prepared.call.run(node)
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap_or_else(|_| anyhow::bail!("make a call"))).collect()
        });
        Ok(finished?)
    }

    fn remember(&self, world: &mut World, prepared: &Prepared, answer: &Answer) {
        match (self.command.as_str(), answer) {
            ("ADD", Answer::Done(Some(result))) => {
                let attached = Attached { namespace: prepared.container.clone(), result: result.clone(), open: true };
                world.attached.insert(prepared.attachment.clone(), attached);
            }
            ("DEL", Answer::Done(_)) => {
                if let Some(attached) = world.attached.get_mut(&prepared.attachment) {
                    attached.open = false;
                }
            }
            _ => {}
        }
    }
}

/// All that went in and came out.
fn with_evidence(failure: Failure, prepared: &Prepared, finished: &Finished) -> Failure {
    let env: Vec<String> = prepared.call.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    failure
        .with("plugin", format!("{} ended with {}", prepared.call.binary.display(), finished.status_text()))
        .with("environment", env.join("\n"))
        .with("stdin", prepared.call.stdin.as_str())
        .with("stdout", finished.stdout.trim_end())
        .with("stderr", finished.stderr.trim_end())
}

/// The outcome in a few words, and the time that the slowest call took.
fn summary(answers: &[Answer], finished: &[Finished]) -> String {
    let slowest = finished.iter().map(|one| one.wall).max().unwrap_or_default();
    let words = match answers {
        [one] => one_summary(one),
        many => format!("{} answers", many.len()),
    };
    let gap = if words.is_empty() { "" } else { "  " };
    format!("{words}{gap}plugin {:.1} ms", slowest.as_secs_f64() * 1000.0)
}

fn one_summary(answer: &Answer) -> String {
    match answer {
        Answer::Refused(refusal) => format!("refused with {}: {}", refusal.code, refusal.msg),
        Answer::Done(Some(result)) => cni_expect::address(result).unwrap_or_default(),
        Answer::Done(None) => String::new(),
    }
}

/// The value at `key`, or null.
pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&Value::Null)
}
