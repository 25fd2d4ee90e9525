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

use super::cni_before::Prev;
use super::cni_expect::Expect;
use super::cni_fault;
use super::cni_told::{summary, with_evidence};
use super::fault::{FailOptions, KillOptions, LoseOptions};
use super::{Failure, Misfit, Verb, misfit};
use crate::fault::Sweep;
use crate::lab::FOLDER;
use crate::plugin::{Answer, Call, PATIENCE, environment};
use crate::process::Finished;
use crate::scenario::{Network, Setting};
use crate::seeds::{self, Seed};
use crate::tally::Harm;
use crate::world::{Attached, Attachment, World};

/// The options of all these verbs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    on: Option<String>,
    distro: Option<String>,
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
    alone: bool,
    prev: Option<Prev>,
    together: Option<usize>,
    timeout_ms: Option<u64>,
    kill: Option<KillOptions>,
    fail: Option<FailOptions>,
    lose: Option<LoseOptions>,
    expect: Expect,
}

/// A variable of the plugin's environment.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or false to leave the variable out")]
enum Variable {
    Text(String),
    Kept(bool),
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
        self.faults_fit()?;
        misfit("prev", asks_for("`prev` does not belong to", prev.is_some() && self.command == "ADD"))?;
        misfit("together", asks_for("`together` does not belong to", together.is_some() && self.container.is_empty()))?;
        misfit("together", if *together == Some(0) { Err("nothing happens 0 times".to_owned()) } else { Ok(()) })?;
        misfit("expect", expect.fits(&self.command, *together))
    }

    fn introduces(&self) -> Vec<String> {
        self.containers().filter(|name| !name.is_empty()).collect()
    }

    fn seeds(&self, setting: &Setting) -> Vec<Seed> {
        let options = &self.options;
        let Some(network) = setting.network(options.network.as_deref()).cloned() else { return Vec::new() };
        let id = options.id.as_ref().unwrap_or(&self.container);
        let netns = options.netns.as_ref().map_or_else(|| Path::new(FOLDER).join("web"), PathBuf::from);
        let ifname = options.ifname.as_deref().unwrap_or("eth0");
        let env = self.environment(&self.command, id, Some(&netns), ifname, "/opt/cni/bin");
        let before = (self.command == "CHECK").then(seeds::result_of_add);
        let stdin = options.stdin.clone().or_else(|| Some(self.changed(network, before).ok()?.to_json()));
        stdin.map(|stdin| seeds::of_cni(&env, stdin)).unwrap_or_default()
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        if let Some(sweep) = self.sweep() {
            return cni_fault::run(self, &sweep, world);
        }
        let node = self.node(world)?;
        let prepared: Vec<Prepared> =
            self.containers().map(|name| self.prepare(world, &self.command, name)).collect::<Result<_, _>>()?;
        // A failed ADD must leave nothing: that is looked at wherever a step expects one.
        // A runtime sends DEL even then: of another plugin only what is left after that counts.
        let judged = self.expects_failed_add() && world.setting().subject.is_none();
        let before = if judged { Some(world.inventory(&node)?) } else { None };
        let known = self.options.expect.known_links(world, &node)?;
        if self.command == "ADD" {
            world.called_with.extend(prepared.iter().map(|prepared| prepared.network.clone()));
        }
        if self.command == "ADD" && prepared.len() > 1 {
            world.tally.stormed += prepared.len() as u64;
        }
        let finished = self.make_calls(world, &node, &prepared)?;
        world.last_call = prepared.last().map(|prepared| prepared.call.clone());
        let mut answers = Vec::new();
        for (prepared, finished) in prepared.iter().zip(&finished) {
            let evidence = |failure: Failure| with_evidence(failure, prepared, finished);
            let answer = prepared.call.read(finished).map_err(|broken| evidence(broken.into()))?;
            world.tally.answered(&self.command, &answer);
            Self::remember(world, prepared, &answer);
            self.options.expect.judge(world, &node, prepared, &answer).map_err(evidence)?;
            self.options.expect.judge_complete(world, &node, &known, prepared, &answer).map_err(evidence)?;
            self.options.expect.judge_warnings(&finished.stderr).map_err(evidence)?;
            answers.push(answer);
        }
        self.options.expect.judge_all(&answers)?;
        let changes = before.map(|before| world.changes_since(&node, &before)).transpose()?.unwrap_or_default();
        if !changes.is_empty() {
            let failure = Failure::wrong(format!("the failed ADD left something behind: {}", changes.join(", "))).harm(Harm::Leak);
            return Err(failure.with("changes", changes.join("\n")));
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

    /// The faults that are to befall it.
    fn sweep(&self) -> Option<Sweep> {
        let Options { kill, fail, lose, .. } = &self.options;
        let kills = kill.as_ref().map(KillOptions::sweep);
        kills.or_else(|| fail.as_ref().map(FailOptions::sweep)).or_else(|| lose.as_ref().map(LoseOptions::sweep))
    }

    /// A step that is struck over and over judges by rules of its own.
    fn faults_fit(&self) -> Result<(), Misfit> {
        let Options { kill, fail, lose, together, prev, expect, .. } = &self.options;
        let wrong = |wrong: bool, text: &str| if wrong { Err(text.to_owned()) } else { Ok(()) };
        misfit("fail", fail.as_ref().map_or(Ok(()), FailOptions::check))?;
        misfit("lose", lose.as_ref().map_or(Ok(()), LoseOptions::check))?;
        let faults = [("kill", kill.is_some()), ("fail", fail.is_some()), ("lose", lose.is_some())];
        let mut said = faults.iter().filter(|(_, said)| *said).map(|(option, _)| *option);
        let (Some(option), other) = (said.next(), said.next()) else { return Ok(()) };
        misfit(option, wrong(other.is_some(), "a step has one of kill, fail and lose"))?;
        misfit(option, wrong(self.is_fresh() && self.command != "ADD", "only the first ADD finds a `fresh` node"))?;
        let others = together.is_some() || prev.is_some() || expect.is_any();
        misfit(option, wrong(others, &format!("`{option}` goes with neither of together, prev, expect")))
    }

    /// Whether each call that is struck finds the node as after a boot.
    pub(super) fn is_fresh(&self) -> bool {
        let Options { kill, fail, .. } = &self.options;
        kill.as_ref().is_some_and(KillOptions::is_fresh) || fail.as_ref().is_some_and(FailOptions::is_fresh)
    }

    pub(super) fn command(&self) -> &str {
        &self.command
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    pub(super) fn node(&self, world: &World) -> Result<String, Failure> {
        world.setting().node(self.options.on.as_deref()).map(str::to_owned).map_err(Failure::wrong)
    }

    /// One call of `command` with the options of this step.
    pub(super) fn prepare(&self, world: &mut World, command: &str, container: String) -> Result<Prepared, Failure> {
        let options = &self.options;
        let ifname = options.ifname.clone().unwrap_or_else(|| "eth0".to_owned());
        let id = options.id.clone().unwrap_or_else(|| container.clone());
        // DEL comes for containers that are gone, too.
        if options.netns.is_none() && matches!(command, "ADD" | "CHECK") {
            world.lab.container(&container)?;
        }
        let own = || (!container.is_empty()).then(|| Path::new(FOLDER).join(&container));
        let netns = options.netns.as_ref().map(PathBuf::from).or_else(own);
        let path = world.plugins.path();
        let env = self.environment(command, &id, netns.as_deref(), &ifname, &path);
        let network = world.network(options.network.as_deref())?.name().to_owned();
        let attachment = Attachment { container: id, ifname, network };
        let network = self.network(world, command, &attachment)?;
        let stdin = match (&options.stdin, &options.stdin_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
            (None, None) => network.to_json(),
        };
        let binary = world.plugins.find(network.kind())?;
        let patience = options.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let call = Call { binary, command: command.to_owned(), env, stdin, patience };
        Ok(Prepared { call, container, attachment, network })
    }

    /// What a runtime would say, with the changes of this step.
    fn environment(
        &self,
        command: &str,
        id: &str,
        netns: Option<&Path>,
        ifname: &str,
        path: &str,
    ) -> BTreeMap<String, String> {
        let mut env = environment(command, id, netns, ifname, self.options.args.as_deref(), path);
        for (name, variable) in &self.options.env {
            match variable {
                Variable::Text(value) => drop(env.insert(name.clone(), value.clone())),
                Variable::Kept(true) => {}
                Variable::Kept(false) => drop(env.remove(name)),
            }
        }
        env
    }

    /// The configuration with the changes of this step, and with the result of ADD where a runtime would send it.
    fn network(&self, world: &World, command: &str, attachment: &Attachment) -> Result<Network, Failure> {
        let network = world.network(self.options.network.as_deref())?.clone();
        let wanted = |attached: &&Attached| command == "CHECK" || (command == "DEL" && attached.open);
        let before = world.attached.get(attachment).filter(wanted);
        let before = before.map(|attached| Prev::seen(self.options.prev.as_ref(), world, attached)).transpose()?;
        self.changed(network, before)
    }

    fn changed(&self, mut network: Network, before: Option<Value>) -> Result<Network, Failure> {
        let options = &self.options;
        // Even a wrong `type` must not keep the step from reaching the plugin under test.
        let json = |value: &toml::Value| serde_json::to_value(value).context("say that in JSON");
        for (path, value) in &options.set {
            network.set(path, json(value)?);
        }
        if options.alone {
            network.set_alone();
        }
        Prev::put(options.prev.as_ref(), before, &mut network)?;
        options.unset.iter().for_each(|path| network.unset(path));
        Ok(network)
    }

    /// Makes all calls at the same moment.
    fn make_calls(&self, world: &mut World, node: &str, prepared: &[Prepared]) -> Result<Vec<Finished>, Failure> {
        let distro = world.distro(self.options.distro.as_deref())?;
        let (distro, node) = (distro.as_deref(), &world.lab.host(node)?.namespace);
        let start = Barrier::new(prepared.len());
        let finished: anyhow::Result<Vec<Finished>> = thread::scope(|scope| {
            let calls: Vec<_> = prepared
                .iter()
                .map(|prepared| {
                    scope.spawn(|| {
                        start.wait();
                        prepared.call.run_in(node, distro)
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap_or_else(|_| anyhow::bail!("make a call"))).collect()
        });
        Ok(finished?)
    }

    /// What a runtime keeps in mind of an answer.
    pub(super) fn remember(world: &mut World, prepared: &Prepared, answer: &Answer) {
        match (prepared.call.command.as_str(), answer) {
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
