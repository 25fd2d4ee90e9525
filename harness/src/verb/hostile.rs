//! `hostile`: every request of the table in [`crate::hostile`], one process each.
//!
//! Invariant: each is answered in time and by the rules, refused with a code of its own or taken and taken back; and after all of them
//! nothing is there that was not before: nothing in the kernel, no file in the plugin's own folders, no file anywhere else.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Deserialize;

use super::netavark_answer::{self, Answer as NetavarkAnswer};
use super::{Failure, Misfit, Verb, misfit};
use crate::hostile::{self, CONTAINER, Request};
use crate::inventory::{Inventory, memory};
use crate::lab::{Namespace, View};
use crate::plugin::{self, Answer};
use crate::process::{self, Finished};
use crate::sandbox::Watched;
use crate::scenario::{Network, Setting};
use crate::tally::{Harm, Tally};
use crate::world::World;

/// The longest that any of them may take: even what is larger than anybody reads is refused at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// After how many somebody looks for what they have left.
const BATCH: usize = 64;

/// `{ hostile = "wsl", every = 3 }`
#[derive(Debug)]
pub(super) struct Hostile {
    node: String,
    options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// 3 for each third of them, which is every value, but not with every key; 1 for all.
    every: NonZero<usize>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// How many there are to be: a table that shrinks unseen shows nothing.
    at_least: usize,
}

impl Hostile {
    pub(super) fn new(node: String, options: Options) -> Self {
        Self { node, options }
    }
}

impl Verb for Hostile {
    fn describe(&self) -> String {
        format!("hostile requests on {}", self.node)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("hostile", setting.node(Some(&self.node)))
    }

    fn introduces(&self) -> Vec<String> {
        vec![CONTAINER.to_owned()]
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.lab.container(CONTAINER)?;
        let network = world.network(None)?.clone();
        let requests: Vec<_> = hostile::requests(&network).into_iter().step_by(self.options.every.get()).collect();
        let least = self.options.expect.at_least;
        if requests.len() < least {
            return Err(Failure::mismatch(format!("at least {least} requests"), requests.len()));
        }
        // What is taken makes the bridge, which stays, with its rules.
        world.called_with.push(network.clone());
        let mut tally = Tally::default();
        let tried = {
            let attacker = || {
                let mut attack = Attack::begin(world, &self.node, &network, &mut tally)?;
                requests.chunks(BATCH).try_for_each(|batch| attack.batch(batch))?;
                Ok::<_, Failure>(attack.taken)
            };
            // Mounts of its own, which go with it.
            thread::scope(|scope| scope.spawn(attacker).join())
        };
        world.tally += &tally;
        let taken = tried.map_err(|_| anyhow!("go on after a panic on a thread"))??;
        Ok(format!("{} tried, {taken} taken and taken back", requests.len()))
    }
}

/// The requests so far.
struct Attack<'a> {
    world: &'a World,
    node: &'a str,
    namespace: &'a Namespace,
    network: &'a Network,
    binary: PathBuf,
    watched: Watched,
    before: Inventory,
    tally: &'a mut Tally,
    taken: usize,
}

impl<'a> Attack<'a> {
    fn begin(world: &'a World, node: &'a str, network: &'a Network, tally: &'a mut Tally) -> Result<Self, Failure> {
        Ok(Self {
            world,
            node,
            namespace: &world.lab.host(node)?.namespace,
            network,
            binary: world.plugins.find("flatnet")?,
            watched: Watched::begin()?,
            before: world.inventory(node)?,
            tally,
            taken: 0,
        })
    }

    /// Makes all of a batch and looks what is left; if anything is, looks after each of them until it is there.
    fn batch(&mut self, batch: &[Request]) -> Result<(), Failure> {
        for request in batch {
            self.attempt(request)?;
        }
        let left = self.left()?;
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = batch.iter().map(|request| request.name.as_str()).collect();
        let failure = Failure::wrong("one of these requests left something behind").harm(Harm::Leak);
        Err(failure.with("left", left.join("\n")).with("requests", names.join("\n")))
    }

    /// One request, and what takes it back if it was taken.
    fn attempt(&mut self, request: &Request) -> Result<(), Failure> {
        let finished = self.call(request)?;
        let told = |failure: Failure| with_evidence(failure, request, &finished);
        let is_done = self.judge(request, &finished).map_err(told)?;
        if !is_done || !matches!(request.command().as_ref(), "ADD" | "setup") {
            return Ok(());
        }
        self.taken += 1;
        let undoing = hostile::undoing(request, self.network);
        let undone = self.call(&undoing)?;
        self.judge(&undoing, &undone).map_err(|failure| with_evidence(failure, &undoing, &undone))?;
        if request.lasts { self.tidy_up() } else { Ok(()) }
    }

    fn call(&self, request: &Request) -> Result<Finished, Failure> {
        let mut command = self.namespace.command(&self.binary)?;
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // Somewhere where what is written to a relative path is seen.
        command.envs(&request.env).args(&request.arguments).current_dir("/tmp");
        Ok(process::run(command, &request.stdin, PATIENCE)?)
    }

    /// Whether it was done; refused as it may be is well, too.
    fn judge(&mut self, request: &Request, finished: &Finished) -> Result<bool, Failure> {
        let command = request.command();
        if !request.arguments.is_empty() {
            let answer = netavark_answer::read(&command, finished).map_err(Failure::wrong)?;
            self.tally.calls += 1;
            let NetavarkAnswer::Error(error) = answer else { return Ok(true) };
            self.tally.refused += 1;
            can_be_shown(&error)?;
            return Ok(false);
        }
        let answer = plugin::read(&command, finished)?;
        self.tally.answered(&command, &answer);
        match answer {
            Answer::Refused(refusal) if request.codes.contains(&refusal.code) => {
                can_be_shown(&refusal.msg)?;
                can_be_shown(&refusal.details)?;
                Ok(false)
            }
            Answer::Refused(refusal) => Err(Failure::mismatch(format!("error of {:?}", request.codes), refusal.code)),
            Answer::Done(_) if request.may_succeed => Ok(true),
            Answer::Done(_) => Err(Failure::mismatch(format!("error of {:?}", request.codes), "success")),
        }
    }

    /// A bridge stays, of whatever name it was; its rules go with the next ADD.
    fn tidy_up(&mut self) -> Result<(), Failure> {
        let view = View::of(self.namespace)?;
        for link in view.links.iter().filter(|link| link.kind == "bridge") {
            self.namespace.netlink(async |handle| {
                handle.link().del(link.index).execute().await.with_context(|| format!("remove {}", link.name))
            })?;
        }
        for request in hostile::harmless(self.network) {
            let finished = self.call(&request)?;
            self.judge(&request, &finished).map_err(|failure| with_evidence(failure, &request, &finished))?;
        }
        Ok(())
    }

    fn left(&self) -> Result<Vec<String>, Failure> {
        let mut left = self.world.changes_since(self.node, &self.before)?;
        let written = self.watched.written()?.into_iter().filter(|path| !is_memory(path));
        left.extend(written.map(|path| format!("+ written {}", path.display())));
        Ok(left)
    }
}

/// The one thing that flatnet writes: which name had which address, in its own folder.
fn is_memory(written: &Path) -> bool {
    Watched::original(written).is_some_and(|file| memory::is_part(&file, written))
}

/// What a person reads in a terminal or a log is one line, of a length that can be read.
fn can_be_shown(text: &str) -> Result<(), Failure> {
    const LONGEST_BYTES: usize = 8 << 10;
    if text.len() > LONGEST_BYTES {
        return Err(Failure::mismatch(format!("{LONGEST_BYTES} bytes of error at most"), text.len()));
    }
    match text.chars().find(|it| it.is_control()) {
        Some(control) => Err(Failure::wrong(format!("the error has {control:?} in it: {text:?}"))),
        None => Ok(()),
    }
}

fn with_evidence(failure: Failure, request: &Request, finished: &Finished) -> Failure {
    failure
        .with("request", format!("{}\nended with {}", request.name, finished.status_text()))
        .with("environment and standard input", request.shown())
        .with("stdout", finished.stdout.trim_end())
        .with("stderr", finished.stderr.trim_end())
}
