//! `parallel`: many containers, and calls for all of them at once, round after round.
//!
//! Invariant: what is called in which round follows from the step and its seed; a failure names the seed.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Map;

use super::meanwhile::Meanwhile;
use super::{Failure, Misfit, Verb, misfit};
use crate::scenario::Setting;
use crate::storm::{Action, Aside, Done, Kind, Outcome, Plan, Said, Shape, Storm, Tally};
use crate::world::{Attached, Attachment, World};

/// The first version of the specification that has GC.
const GC_SINCE: (u32, u32) = (1, 1);
/// The variable by which steps without a seed get another one than [`USUAL_SEED`].
const SEED: &str = "HARNESS_SEED";
const USUAL_SEED: u32 = 14;

/// `{ parallel = "c", containers = 64, rounds = 8, seed = 7, mix = ["ADD", "DEL", "GC", "CHECK"] }`: c-1 to c-64.
#[derive(Debug)]
pub(super) struct Parallel {
    prefix: String,
    options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    containers: usize,
    #[serde(default = "one")]
    rounds: usize,
    seed: Option<u64>,
    #[serde(default = "add_alone")]
    mix: BTreeSet<Kind>,
    on: Option<String>,
    distro: Option<String>,
    network: Option<String>,
    at_once: Option<usize>,
    #[serde(default = "yes")]
    overlap: bool,
    #[serde(default)]
    stay: bool,
    #[serde(default)]
    excuse: Vec<u32>,
    #[serde(default)]
    meanwhile: Meanwhile,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn add_alone() -> BTreeSet<Kind> {
    [Kind::Add].into()
}

impl Parallel {
    pub(super) fn new(prefix: String, options: Options) -> Self {
        Self { prefix, options }
    }
}

impl Verb for Parallel {
    fn describe(&self) -> String {
        let Options { containers, rounds, mix, .. } = &self.options;
        let mix: Vec<_> = mix.iter().map(|kind| kind.command()).collect();
        let rounds = if *rounds == 1 { "one round".to_owned() } else { format!("{rounds} rounds") };
        format!("parallel {}-1 to {containers}, {rounds} of {}", self.prefix, mix.join(" "))
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let Options { containers, rounds, mix, on, network, excuse, meanwhile, .. } = &self.options;
        misfit("on", setting.node(on.as_deref()))?;
        let network = setting.network(network.as_deref()).ok_or("[networks] has no network of that name".to_owned());
        misfit("network", network.as_ref().map_err(Clone::clone))?;
        misfit("network", setting.alone(self.options.network.as_deref()))?;
        let some =
            |number: usize, what| if number == 0 { Err(format!("without {what} nothing happens")) } else { Ok(()) };
        misfit("containers", some(*containers, "containers"))?;
        misfit("rounds", some(*rounds, "rounds"))?;
        misfit("mix", some(mix.len(), "calls"))?;
        let idle = !excuse.is_empty() && meanwhile.steps().is_empty();
        misfit("excuse", if idle { Err("there is nothing to excuse without `meanwhile`".to_owned()) } else { Ok(()) })?;
        let speaks_gc = network.is_ok_and(|network| version(network.version()) >= GC_SINCE);
        let fits =
            if mix.contains(&Kind::Gc) && !speaks_gc { Err("GC needs cniVersion 1.1.0".to_owned()) } else { Ok(()) };
        misfit("mix", fits)
    }

    fn introduces(&self) -> Vec<String> {
        (1..=self.options.containers).map(|number| format!("{}-{number}", self.prefix)).collect()
    }

    fn within(&self) -> &[Box<dyn Verb>] {
        self.options.meanwhile.steps()
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let Options { containers, rounds, mix, overlap, seed, .. } = &self.options;
        let shape = Shape { containers: *containers, rounds: *rounds, mix: mix.clone(), overlap: *overlap };
        // TOML's integers are signed: a seed must be one that can be written down.
        let plan = Plan::new(&shape, seed.unwrap_or_else(usual_seed));
        let node = world.setting().node(self.options.on.as_deref()).map(str::to_owned).map_err(Failure::wrong)?;
        let network = world.network(self.options.network.as_deref())?.clone();
        let name = network.name().to_owned();
        let mut storm = Storm::new(&world.plugins, network, &world.lab.host(&node)?.namespace, &self.prefix)?;
        if let Some(distro) = world.distro(self.options.distro.as_deref())? {
            storm.share_with(distro);
        }
        storm.limit(self.options.at_once.unwrap_or(*containers));
        let mut tally = Tally::default();
        let tail = if self.options.stay { Vec::new() } else { storm.finale(&plan) };
        let done = (1..)
            .zip(plan.rounds.iter().chain(&tail))
            .try_for_each(|(number, round)| self.round(world, &node, &mut storm, (number, round), &mut tally));
        world.tally += &tally.counts();
        done.map_err(|failure| failure.with("to have the same calls again", format!("seed = {}", plan.seed)))?;
        for (container, result) in storm.attached() {
            let (namespace, result) = (container.clone(), result.clone());
            let attached = Attached { namespace, result, wishes: Map::new(), open: true };
            let attachment = Attachment { container, ifname: "eth0".to_owned(), network: name.clone() };
            world.attached.insert(attachment, attached);
        }
        Ok(summary(&plan, &tally))
    }
}

impl Parallel {
    fn round(
        &self,
        world: &mut World,
        node: &str,
        storm: &mut Storm,
        (number, round): (usize, &[Action]),
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        storm.furnish(&mut world.lab, round)?;
        // In the middle: there is something to disturb by then, and rounds follow that show what it did.
        let disturbed = number == self.options.rounds.div_ceil(2);
        storm.excuse(if disturbed { &self.options.excuse } else { &[] });
        let boots = world.boots;
        let mut failure = None;
        let outcome = storm.round(round, tally, || {
            if !disturbed {
                return Ok(Aside::Nothing);
            }
            failure = self.options.meanwhile.run(world, || ()).err();
            Ok(if world.boots == boots { Aside::OthersMoved } else { Aside::Restarted })
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if world.boots != boots {
            // What the runtimes had started still, while the node went down.
            world.reboot(node)?;
        }
        let Outcome { calls, findings } = outcome;
        if findings.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let calls: Vec<_> = calls.iter().map(line).collect();
        let harm = findings.iter().map(|finding| finding.fault.harm()).min().unwrap_or_default();
        let failure = Failure::wrong(format!("after round {number}: {}", lines.join("\n         ")));
        Err(failure.harm(harm).with(format!("round {number}"), calls.join("\n")))
    }
}

/// `1.1.0` as two numbers.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn line(done: &Done) -> String {
    let Done { action, said } = done;
    match said {
        Said::Done(addresses) if addresses.is_empty() => format!("{action}: done"),
        Said::Done(addresses) => {
            format!("{action}: {}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        }
        Said::Refused { code, msg } => format!("{action}: {code} {msg}"),
        Said::Broken(how) => format!("{action}: {how}"),
    }
}

/// Of a step that does not name one: the same each time, unless the environment asks for another.
fn usual_seed() -> u64 {
    std::env::var(SEED).ok().and_then(|seed| seed.parse::<u32>().ok()).unwrap_or(USUAL_SEED).into()
}

fn summary(plan: &Plan, tally: &Tally) -> String {
    let calls: Vec<_> = tally.calls.iter().map(|(kind, count)| format!("{count} {}", kind.command())).collect();
    let refused: usize = tally.refused.values().sum();
    let slowest = tally.slowest.as_secs_f64() * 1000.0;
    let Tally { checked, .. } = tally;
    format!(
        "seed {}: {}, {refused} refused, {checked} survivors checked, slowest {slowest:.0} ms",
        plan.seed,
        calls.join(", ")
    )
}
