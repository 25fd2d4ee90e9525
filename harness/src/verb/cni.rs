//! `add`, `del`, `check`, `version` and `cni`: the plugin itself, called as a runtime calls it.
//!
//! Invariant: configuration and environment reach the plugin as libcni would send them, unless the step says otherwise.

mod before;
mod chain;
mod request;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

pub(super) use request::{Prepared, with_evidence};

use super::cni_expect::{self, Expect};
use super::cni_fault;
use super::fault::{FailOptions, KillOptions, LoseOptions};
use super::{Failure, Misfit, Verb, Weight, misfit};
use crate::fault::Sweep;
use crate::lab::FOLDER;
use crate::plugin::{Answer, reference_folder};
use crate::scenario::{Network, Setting};
use crate::seeds::{self, Seed};
use crate::tally::Harm;
use crate::world::{Attached, World};

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
    runtime: Option<toml::Table>,
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

/// What goes in as `prevResult`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected changes to the result of ADD, \"as seen\", or false to leave it out")]
enum Prev {
    Kept(bool),
    Word(before::Word),
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
        self.chain_fits(setting)?;
        misfit("prev", asks_for("`prev` does not belong to", prev.is_some() && self.command == "ADD"))?;
        misfit("together", asks_for("`together` does not belong to", together.is_some() && self.container.is_empty()))?;
        misfit("together", if *together == Some(0) { Err("nothing happens 0 times".to_owned()) } else { Ok(()) })?;
        misfit("expect", expect.fits(&self.command, *together))
    }

    fn introduces(&self) -> Vec<String> {
        self.containers().filter(|name| !name.is_empty()).collect()
    }

    fn lacks(&self, setting: &Setting) -> Option<String> {
        // Where a step says where plugins are, it has put them there itself.
        let own = self.options.env.contains_key("CNI_PATH");
        let name = self.options.network.as_deref();
        let (chain, under_test) = (setting.chain(name).filter(|_| !own)?, setting.network(name)?.kind());
        // A list may have the plugin under test more than once.
        let mut others = chain.others().map(Network::kind).filter(|kind| *kind != under_test);
        let missing = others.find(|kind| reference_folder(&[kind]).is_none())?;
        Some(format!("the plugin {missing} is not installed"))
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

    fn takes_away(&self) -> bool {
        ["DEL", "GC"].contains(&self.command.as_str())
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        if let Some(sweep) = self.sweep() {
            return cni_fault::run(self, &sweep, world);
        }
        let node = self.node(world)?;
        let prepared: Vec<Vec<Prepared>> =
            self.containers().map(|name| chain::prepare(self, world, name)).collect::<Result<_, _>>()?;
        // A failed ADD must leave nothing: that is looked at wherever a step expects one. What plugins before it have done stays until DEL.
        let known = self.options.expect.known_links(world, &node)?;
        let before = if self.expects_failed_add(world) { Some(world.inventory(&node)?) } else { None };
        if self.command == "ADD" {
            world.called_with.extend(prepared.iter().flatten().map(|prepared| prepared.network.clone()));
        }
        if self.command == "ADD" && prepared.len() > 1 {
            world.tally.stormed += prepared.len() as u64;
        }
        let crowded = self.wants_room(world, prepared.len()).and_then(|more| world.lacks_room(more));
        let finished = chain::run(world, &node, self.options.distro.as_deref(), prepared)?;
        world.last_call = finished.last().map(|(prepared, _)| prepared.call.clone());
        let mut answers = Vec::new();
        for (prepared, finished) in &finished {
            let evidence = |failure: Failure| with_evidence(failure, prepared, finished);
            let answer = prepared.call.read(finished).map_err(|broken| evidence(broken.into()))?;
            world.tally.answered(&self.command, &answer);
            Self::remember(world, prepared, &answer);
            let judged = self.options.expect.judge(world, &node, prepared, &answer);
            judged.map_err(|failure| evidence(excuse(failure, &answer, crowded.as_deref())))?;
            self.options.expect.judge_complete(world, &node, &known, prepared, &answer).map_err(evidence)?;
            self.options.expect.judge_warnings(&finished.stderr).map_err(evidence)?;
            answers.push(answer);
        }
        self.options.expect.judge_all(&answers)?;
        let changes = before.map(|before| world.changes_since(&node, &before)).transpose()?.unwrap_or_default();
        if !changes.is_empty() {
            let failure = Failure::wrong("the failed ADD left something behind").harm(Harm::Leak);
            return Err(failure.with("changes", changes.join("\n")));
        }
        Ok(summary(&answers, finished.iter().map(|(_, finished)| finished.wall)))
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

    /// For how many more containers it wants an address of the network's own: STATUS says whether there is one.
    fn wants_room(&self, world: &World, calls: usize) -> Option<usize> {
        let own = world.setting().network(self.network_name())?.ipam_kind();
        let asked = self.options.set.get("ipam.type").map_or(own, toml::Value::as_str);
        match self.command.as_str() {
            "ADD" if asked == own => Some(calls),
            "STATUS" if asked == own => Some(1),
            _ => None,
        }
    }

    fn expects_failed_add(&self, world: &World) -> bool {
        let alone = world.setting().alone(self.options.network.as_deref()).is_ok();
        // Of a plugin that is held against one rule, only what the rule is about counts; and a runtime sends DEL even then.
        let judged = alone && world.setting().subject.is_none();
        judged && self.command == "ADD" && self.options.expect.fails()
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

    /// What concerns one call alone does not go with a network of several plugins.
    fn chain_fits(&self, setting: &Setting) -> Result<(), Misfit> {
        let Options { kill, fail, lose, stdin, stdin_file, network, .. } = &self.options;
        let options = [
            ("kill", kill.is_some()),
            ("fail", fail.is_some()),
            ("lose", lose.is_some()),
            ("stdin", stdin.is_some()),
            ("stdin_file", stdin_file.is_some()),
        ];
        let said = options.iter().find(|(_, said)| *said);
        said.map_or(Ok(()), |(option, _)| misfit(option, setting.alone(network.as_deref())))
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

    pub(super) fn network_name(&self) -> Option<&str> {
        self.options.network.as_deref()
    }

    /// Where the step says that plugins are, if it does.
    pub(super) fn plugin_path(&self) -> Option<&str> {
        match self.options.env.get("CNI_PATH") {
            Some(Variable::Text(path)) => Some(path),
            _ => None,
        }
    }

    pub(super) fn node(&self, world: &World) -> Result<String, Failure> {
        world.setting().node(self.options.on.as_deref()).map(str::to_owned).map_err(Failure::wrong)
    }

    /// What a runtime keeps in mind of an answer.
    pub(super) fn remember(world: &mut World, prepared: &Prepared, answer: &Answer) {
        match (prepared.call.command.as_str(), answer) {
            ("ADD", Answer::Done(Some(result))) => {
                let Prepared { container, wishes, .. } = prepared.clone();
                let attached = Attached { namespace: container, result: result.clone(), wishes, open: true };
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

/// A refusal where the network has no room, `crowded` says, is no fault of the plugin's.
fn excuse(failure: Failure, answer: &Answer, crowded: Option<&str>) -> Failure {
    match (answer, crowded) {
        (Answer::Refused(refusal), Some(crowded)) if failure.weight != Weight::Nothing => {
            Failure::wrong(format!("{crowded}: error {}: {}", refusal.code, refusal.msg)).weight(Weight::Unknown)
        }
        _ => failure,
    }
}

/// The outcome in a few words, and the time that the slowest took.
fn summary(answers: &[Answer], took: impl Iterator<Item = Duration>) -> String {
    let slowest = took.max().unwrap_or_default();
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
        Answer::Done(Some(result)) => cni_expect::addresses(result),
        Answer::Done(None) => String::new(),
    }
}

/// The value at `key`, or null.
pub(super) fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&Value::Null)
}
