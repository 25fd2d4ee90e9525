//! flatnet and the reference `bridge` with `host-local`, side by side: the same steps in worlds of their own, and what each loses.
//!
//! Invariant: nothing is done to one that is not done to the other, and what is lost is read from the kernel and from the plugin's
//! own books, never from what it answered.

mod ground;
mod kill;
mod reboot;
mod storm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::report::{Beside, Comparison, Count, Finding};
use super::{Campaign, Form, PATIENCE, Progress};
use crate::suite;
use crate::tally::Harm;
use crate::world::own_binary;
use ground::{Contender, Ground};

/// A part of the comparison, in a world of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The plugin is killed.
    Kill,
    /// The host restarts.
    Reboot,
    /// Many calls at once.
    Storm,
}

/// Whom it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// flatnet.
    Flatnet,
    /// The reference `bridge` with `host-local`.
    Reference,
}

/// What a child process is to do.
#[derive(Clone, Debug, Args)]
pub struct Order {
    /// To whom.
    #[arg(long)]
    pub who: Who,
    /// Which part.
    #[arg(long)]
    pub part: Part,
    /// How much of it.
    #[arg(long)]
    pub form: Form,
    /// What every choice follows from.
    #[arg(long)]
    pub seed: u32,
    /// The folder of the plugins.
    #[arg(long)]
    pub plugin_dir: PathBuf,
}

/// What is lost, and of how many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// What was done and what is counted.
    pub what: String,
    /// How many.
    pub count: Count,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Reboot, Self::Storm];

    /// The campaign that it belongs to.
    pub fn campaign(self) -> Campaign {
        match self {
            Self::Kill => Campaign::Kill,
            Self::Reboot => Campaign::Reboot,
            Self::Storm => Campaign::Storm,
        }
    }
}

/// Whether the reference plugins are in that folder.
pub(super) fn look_for(folder: &Path) -> Result<()> {
    Contender::new(Who::Reference, folder).map(drop)
}

/// Does all parts of `orders` to both; `progress` hears of each that has ended.
pub(super) fn compare(plan: &Plan<'_>, jobs: usize, progress: &impl Progress) -> (Beside, Vec<Finding>) {
    let orders = plan.orders();
    let queue = Mutex::new(orders.iter());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, orders.len().max(1)) {
            scope.spawn(|| {
                // In the loop's own condition the lock would be held for the whole of its body.
                let next = || lock(&queue).next();
                while let Some(order) = next() {
                    let start = Instant::now();
                    let losses = order.run();
                    let word = if losses.is_ok() { "ok" } else { "FAIL" };
                    let (campaign, who, seconds) =
                        (order.part.campaign(), value(&order.who), start.elapsed().as_secs_f64());
                    progress(&format!("{word:6} {campaign:6}  side by side: {who}  ({seconds:.1} s)"));
                    lock(&done).push((order.part, order.who, losses));
                }
            });
        }
    });
    plan.put_together(std::mem::take(&mut *lock(&done)))
}

/// What is compared.
pub(super) struct Plan<'a> {
    pub(super) parts: Vec<Part>,
    pub(super) form: Form,
    pub(super) seed: u32,
    /// The folders of flatnet and of the reference.
    pub(super) folders: [&'a Path; 2],
}

impl Plan<'_> {
    fn orders(&self) -> Vec<Order> {
        let (form, seed) = (self.form, self.seed);
        let order = |part, who| Order { who, part, form, seed, plugin_dir: self.folders[who as usize].to_owned() };
        self.parts.iter().flat_map(|part| [Who::Flatnet, Who::Reference].map(|who| order(*part, who))).collect()
    }

    /// The same lines of both beside each other; what could not be done, or what flatnet has lost, is a finding.
    fn put_together(&self, done: Vec<(Part, Who, Result<Vec<Loss>>)>) -> (Beside, Vec<Finding>) {
        let (mut comparisons, mut findings) = (Vec::new(), Vec::new());
        let mut told: Vec<(Part, Who, Vec<Loss>)> = Vec::new();
        for (part, who, losses) in done {
            match losses {
                Ok(losses) => told.push((part, who, losses)),
                Err(err) => findings.push(self.finding(part, format!("failed to {err:#}"))),
            }
        }
        let of = |part: Part, who| told.iter().filter(move |it| it.0 == part && it.1 == who).flat_map(|it| &it.2);
        for part in &self.parts {
            for (ours, theirs) in of(*part, Who::Flatnet).zip(of(*part, Who::Reference)) {
                let Loss { what, count } = ours;
                if count.lost > 0 {
                    findings.push(self.finding(*part, format!("{what}: {} of {}", count.lost, count.of)));
                }
                comparisons.push(Comparison { what: what.clone(), flatnet: *count, reference: theirs.count });
            }
        }
        (Beside { comparisons }, findings)
    }

    fn finding(&self, part: Part, what: String) -> Finding {
        let long = if self.form == Form::Long { " --long" } else { "" };
        let (campaign, seed, [flatnet, reference]) = (part.campaign(), self.seed, self.folders.map(Path::display));
        let replay = format!(
            "harness torture{long} --only {campaign} --seed {seed} --plugin-dir {flatnet} --against {reference}"
        );
        Finding { campaign, harm: Harm::Wrong, what, replay }
    }
}

impl Order {
    /// Has a child process do it, in a world of its own.
    fn run(&self) -> Result<Vec<Loss>> {
        let mut command = Command::new(own_binary());
        command.args(["__against", "--who", &value(&self.who), "--part", &value(&self.part)]);
        command.args(["--form", &value(&self.form), "--seed", &self.seed.to_string()]);
        command.arg("--plugin-dir").arg(&self.plugin_dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start a world")?;
        let told = suite::first_line(&mut child, PATIENCE).and_then(|line| serde_json::from_str(&line).ok());
        let Some(losses) = told else {
            let (_, why) = suite::why_broken(child);
            bail!("do {} to {}: {why}", value(&self.part), value(&self.who));
        };
        // Its end closes the world; it has said all that it had to say.
        drop(child.stdin.take());
        drop(child.wait());
        Ok(losses)
    }

    /// Does it, in this process's world.
    pub fn inside(&self) -> Result<Vec<Loss>> {
        let mut ground = Ground::build(Contender::new(self.who, &self.plugin_dir)?)?;
        match self.part {
            Part::Kill => kill::run(&mut ground, self.form, self.seed),
            Part::Reboot => reboot::run(&mut ground, self.form),
            Part::Storm => storm::run(&mut ground, self.form, self.seed),
        }
    }
}

impl Loss {
    fn new(what: impl Into<String>, lost: usize, of: usize) -> Self {
        Self { what: what.into(), count: Count { lost: lost as u64, of: of as u64 } }
    }
}

/// How the command line has it.
fn value(of: &impl ValueEnum) -> String {
    of.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Loss, Part, Plan, Who};
    use crate::torture::{Campaign, Form};
    use anyhow::anyhow;
    use std::path::Path;

    #[test]
    fn what_flatnet_loses_is_a_finding_and_what_the_reference_loses_is_not() {
        let folders = [Path::new("/ours"), Path::new("/theirs")];
        let plan = Plan { parts: vec![Part::Reboot, Part::Storm], form: Form::Short, seed: 7, folders };
        let losses = |lost| vec![Loss::new("addresses", lost, 9)];
        let (beside, findings) = plan.put_together(vec![
            (Part::Reboot, Who::Reference, Ok(losses(9))),
            (Part::Storm, Who::Flatnet, Ok(losses(1))),
            (Part::Reboot, Who::Flatnet, Ok(losses(0))),
            (Part::Storm, Who::Reference, Ok(losses(0))),
        ]);
        let lost: Vec<_> = beside.comparisons.iter().map(|line| (line.flatnet.lost, line.reference.lost)).collect();
        assert_eq!(lost, [(0, 9), (1, 0)]);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].campaign, findings[0].what.as_str()), (Campaign::Storm, "addresses: 1 of 9"));
        assert_eq!(findings[0].replay, "harness torture --only storm --seed 7 --plugin-dir /ours --against /theirs");
    }

    #[test]
    fn what_could_not_be_done_is_a_finding() {
        let folders = [Path::new("/ours"), Path::new("/theirs")];
        let plan = Plan { parts: vec![Part::Reboot], form: Form::Long, seed: 1, folders };
        let done = vec![
            (Part::Reboot, Who::Reference, Err(anyhow!("attach the container x: no iptables"))),
            (Part::Reboot, Who::Flatnet, Ok(vec![Loss::new("addresses", 0, 9)])),
        ];
        let (beside, findings) = plan.put_together(done);
        assert!(beside.comparisons.is_empty());
        assert_eq!(findings[0].what, "failed to attach the container x: no iptables");
    }
}
