//! Replays a scenario: builds its world, does its steps, ends its containers, takes stock.
//!
//! Invariant: a scenario passes only if every step did as it should and the nodes are as they were before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::conformance::{Judged, Strength};
use crate::plugin::{Plugins, reference_folder};
use crate::report::{Outcome, Report, Transcript};
use crate::scenario::{Chain, Kernel, Scenario, Setting, Step};
use crate::tally::Tally;
use crate::verb::Weight;
use crate::world::World;

/// What this machine lacks for the scenario, if anything.
pub fn lacks(scenario: &Scenario) -> Option<String> {
    let inner = |step: &'_ Step| step.verb.within().iter().find_map(|verb| verb.lacks(&scenario.setting));
    scenario.steps.iter().find_map(|step| step.verb.lacks(&scenario.setting).or_else(|| inner(step)))
}

/// What the scenario needs that is not to be had here, if anything: of the kernel, or of a plugin as the distribution has it.
fn unavailable(scenario: &Scenario, plugins: &Plugins) -> Result<Option<String>> {
    match scenario.kernel.map(Kernel::lacks).transpose()?.flatten() {
        Some(reason) => Ok(Some(reason)),
        None => outdated(&scenario.setting, plugins),
    }
}

/// The first reference plugin of a network that does not speak the network's version.
fn outdated(setting: &Setting, plugins: &Plugins) -> Result<Option<String>> {
    // Of another plugin than flatnet the rules say themselves what it has to speak.
    if setting.subject.is_some() {
        return Ok(None);
    }
    let chained = setting.chains.values().flat_map(Chain::others).map(|plugin| (plugin.kind(), plugin.version()));
    let delegated = setting.lists().flatten().filter_map(|plugin| Some((plugin.ipam_kind()?, plugin.version())));
    let wanted: BTreeSet<(&str, &str)> = chained.chain(delegated).collect();
    for (kind, version) in wanted.into_iter().filter(|(kind, _)| reference_folder(&[kind]).is_some()) {
        if !plugins.versions(kind, version)?.iter().any(|spoken| spoken == version) {
            return Ok(Some(format!("the plugin {kind} that is installed does not speak CNI {version}")));
        }
    }
    Ok(None)
}

/// Runs `scenario` in this process's world; gives the report, and the world as the scenario leaves it if it failed.
pub fn run(scenario: &Scenario, plugins: Plugins) -> (Report, Option<World>) {
    let start = Instant::now();
    let mut transcript = Transcript::new(scenario);
    match unavailable(scenario, &plugins) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            // No finding even in CI: whoever installs what the suites need cannot install this.
            transcript.skipped(&reason);
            return (transcript.finish(Outcome::Skipped, Some(reason), Tally::default(), start.elapsed()), None);
        }
        Err(err) => {
            transcript.broke(&err);
            return (transcript.finish(Outcome::Failed, None, Tally::default(), start.elapsed()), None);
        }
    }
    if let Some(reason) = lacks(scenario) {
        // Where everything is installed on purpose, a scenario that cannot run is a finding.
        let outcome = if std::env::var_os("CI").is_some() { Outcome::Failed } else { Outcome::Skipped };
        transcript.skipped(&reason);
        return (transcript.finish(outcome, Some(reason), Tally::default(), start.elapsed()), None);
    }
    let mut world = match World::build(Arc::clone(&scenario.setting), plugins) {
        Ok(world) => world,
        Err(err) => {
            transcript.broke(&err);
            return (transcript.finish(Outcome::Failed, None, Tally::default(), start.elapsed()), None);
        }
    };
    let passed =
        replay(scenario, &mut world, &mut transcript, scenario.steps.len()) && take_stock(&mut world, &mut transcript);
    let inapplicable = transcript.inapplicable().map(str::to_owned);
    let outcome = match (passed, &inapplicable) {
        (true, _) => Outcome::Passed,
        (false, Some(_)) => Outcome::Skipped,
        (false, None) => Outcome::Failed,
    };
    let tally = std::mem::take(&mut world.tally);
    (transcript.finish(outcome, inapplicable, tally, start.elapsed()), (!passed).then_some(world))
}

/// Does the first `count` steps, or those before the first that fails; says whether all went well.
pub fn replay(scenario: &Scenario, world: &mut World, transcript: &mut Transcript<'_>, count: usize) -> bool {
    for (number, step) in (1..).zip(scenario.steps.iter().take(count)) {
        if let Some(missing) = scenario.setting.missing(&step.needs) {
            transcript.passed_over(number, step, &missing.why);
            continue;
        }
        let start = Instant::now();
        match step.verb.run(world) {
            Ok(outcome) => transcript.passed(number, step, &outcome, start.elapsed()),
            Err(mut failure) => {
                if step.strength == Strength::Should && failure.weight == Weight::Full {
                    failure.weight = Weight::Words;
                }
                transcript.failed(number, step, &failure);
                return false;
            }
        }
    }
    true
}

/// Looks for what is left, twice: first only the containers that still wait for a DEL are ended, as the end of one hides what
/// its DEL has failed to clear away; then all are.
fn take_stock(world: &mut World, transcript: &mut Transcript<'_>) -> bool {
    if !world.setting().judges(Judged::Leftovers) {
        return true;
    }
    match leftovers(world) {
        Ok(left) if left.is_empty() => true,
        Ok(left) => {
            transcript.left(&left);
            false
        }
        Err(err) => {
            transcript.broke(&err);
            false
        }
    }
}

fn leftovers(world: &mut World) -> Result<Vec<String>> {
    world.crash_attached()?;
    let left = world.leftovers()?;
    if !left.is_empty() {
        return Ok(left);
    }
    world.lab.crash_all()?;
    world.leftovers()
}
