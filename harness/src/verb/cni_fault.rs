//! A CNI verb that is struck by one fault after the other, and what must hold after each.
//!
//! Invariant: whatever befell a call, nothing remains once DEL has come or the container's namespace has ended, and the next ADD
//! succeeds. A call that was not killed has answered by the rules, and a refusal is the kernel's: it does not blame anybody else.

use std::time::Duration;

use super::Failure;
use super::cni::{Cni, Prepared, with_evidence};
use super::cni_expect::Expect;
use crate::fault::{self, Fault, Outcome, Plan, Sweep, SystemCall};
use crate::inventory::Inventory;
use crate::lab;
use crate::plugin::{Answer, Refusal};
use crate::tally::Harm;
use crate::world::World;

/// What a refusal may say where the kernel has failed: standard input, the deadline, the kernel, the packet filter.
const CODES: [u32; 4] = [5, 11, 100, 109];
/// STATUS says what it found as "an ADD would not succeed".
const CODE_OF_STATUS: u32 = 50;

/// Every third round the container ends without DEL: the kernel takes its time to bury a namespace.
const CRASH_EVERY: usize = 3;

/// What a verb does to an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Attaches,
    Detaches,
    Looks,
}

/// What became of a call that was struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Killed,
    Done,
    Refused,
}

/// Calls the verb of `cni` once for each fault; at the end a container of ADD is attached, one of DEL or GC is not.
pub(super) fn run(cni: &Cni, sweep: &Sweep, world: &mut World) -> Result<String, Failure> {
    let kind = match cni.command() {
        "ADD" => Kind::Attaches,
        "DEL" | "GC" => Kind::Detaches,
        _ => Kind::Looks,
    };
    let node = cni.node(world)?;
    if kind != Kind::Looks {
        plain(cni, world, "DEL")?;
    }
    let bare = world.inventory(&node)?;
    let mut siege = Siege { cni, world, kind, node, bare, rounds: 0, slowest: Duration::ZERO };
    let count = sweep.run(|plan| siege.round(plan))?;
    siege.end()?;
    let Siege { rounds, slowest, .. } = siege;
    // Of the many, a person may have asked for one that another step has.
    if count == 0 && std::env::var_os(fault::ONLY).is_none() {
        return Err(Failure::wrong("nothing was struck: the plugin made none of these calls"));
    }
    let deed = if matches!(sweep.faults.first(), Some(Fault::Kill(_))) { "killed" } else { "failed" };
    let tally = if deed == "killed" { &mut world.tally.killed } else { &mut world.tally.failed };
    *tally.entry(cni.command().to_owned()).or_default() += count as u64;
    Ok(format!("{deed} {count} times in {rounds} calls, the slowest {:.0} ms", slowest.as_secs_f64() * 1000.0))
}

/// One call that nothing befalls, which must succeed; ADD and CHECK say that all is whole.
fn plain(cni: &Cni, world: &mut World, command: &str) -> Result<(), Failure> {
    let prepared = cni.prepare(world, command, cni.container().to_owned())?;
    let node = cni.node(world)?;
    call_with(world, &prepared);
    let finished = prepared.call.run(&world.lab.host(&node)?.namespace)?;
    let judged = prepared.call.read(&finished).map_err(Failure::from).and_then(|answer| {
        world.tally.answered(command, &answer);
        Cni::remember(world, &prepared, &answer);
        Expect::default().judge(world, &node, &prepared, &answer)
    });
    judged.map_err(|failure| with_evidence(failure, &prepared, &finished))
}

/// The furniture of the network may stand from now on.
fn call_with(world: &mut World, prepared: &Prepared) {
    if prepared.call.command == "ADD" && !world.called_with.contains(&prepared.network) {
        world.called_with.push(prepared.network.clone());
    }
}

struct Siege<'a> {
    cni: &'a Cni,
    world: &'a mut World,
    kind: Kind,
    node: String,
    /// The node without the attachment; for a verb that only looks, with it.
    bare: Inventory,
    rounds: usize,
    slowest: Duration,
}

impl Siege<'_> {
    /// One call under `plan`, and all that must hold then; tells which system call was struck.
    fn round(&mut self, plan: &Plan) -> Result<Option<SystemCall>, Failure> {
        self.rounds += 1;
        let place = |stage: &str, failure: Failure| failure.with("when", stage);
        self.begin().map_err(|failure| place("before the call that was to be struck", failure))?;
        let prepared = self.cni.prepare(self.world, self.cni.command(), self.cni.container().to_owned())?;
        call_with(self.world, &prepared);
        let outcome = fault::run(&prepared.call, &self.world.lab.host(&self.node)?.namespace, plan)?;
        self.slowest = self.slowest.max(outcome.finished.wall);
        let after = self
            .judge(plan, &prepared, &outcome)
            .map_err(|failure| with_evidence(failure, &prepared, &outcome.finished))
            .and_then(|came| self.recover(came, plan));
        match after {
            Ok(()) => Ok(outcome.struck),
            Err(failure) => Err(told(failure, plan, &outcome)),
        }
    }

    /// What the verb needs to be there.
    fn begin(&mut self) -> Result<(), Failure> {
        match self.kind {
            Kind::Attaches if self.cni.is_fresh() => {
                self.plain("DEL")?;
                self.nothing_remains()?;
                Ok(self.world.reboot(&self.node)?)
            }
            Kind::Attaches => self.plain("DEL"),
            Kind::Detaches => self.plain("ADD"),
            Kind::Looks => Ok(()),
        }
    }

    /// What the last round leaves to be seen.
    fn end(&mut self) -> Result<(), Failure> {
        if self.kind == Kind::Detaches { self.plain("DEL").and_then(|()| self.nothing_remains()) } else { Ok(()) }
    }

    fn judge(&mut self, plan: &Plan, prepared: &Prepared, outcome: &Outcome) -> Result<Came, Failure> {
        let kills = matches!(plan.fault, Fault::Kill(_));
        if kills && outcome.struck.as_ref().is_some_and(|struck| struck.process == 0) {
            let status = outcome.finished.status_text();
            let killed = outcome.finished.status.is_some_and(|status| status.code().is_none());
            return if killed { Ok(Came::Killed) } else { Err(Failure::mismatch("a plugin that was killed", status)) };
        }
        let answer = prepared.call.read(&outcome.finished)?;
        self.world.tally.answered(self.cni.command(), &answer);
        Cni::remember(self.world, prepared, &answer);
        match &answer {
            Answer::Refused(refusal) if outcome.struck.is_some() => self.judge_refusal(refusal).map(|()| Came::Refused),
            answer => Expect::default().judge(self.world, &self.node, prepared, answer).map(|()| Came::Done),
        }
    }

    fn judge_refusal(&self, refusal: &Refusal) -> Result<(), Failure> {
        let Refusal { code, msg, details, .. } = refusal;
        let of_status = *code == CODE_OF_STATUS && self.cni.command() == "STATUS";
        if !CODES.contains(code) && !of_status {
            let codes = CODES.map(|code| code.to_string()).join(", ");
            return Err(Failure::mismatch(
                format!("success, or error {codes}"),
                format!("error {code}: {msg} ({details})"),
            ));
        }
        if msg.is_empty() || details.is_empty() {
            return Err(Failure::wrong(format!("error {code} says too little: {msg} ({details})")));
        }
        Ok(())
    }

    /// Brings the node back as a runtime would, by the verb for it or, now and then, by the end of the container, of which nobody is
    /// told; then attaches the container again.
    fn recover(&mut self, came: Came, plan: &Plan) -> Result<(), Failure> {
        let stage = |stage: &str, done: Result<(), Failure>| done.map_err(|failure| failure.with("when", stage));
        let again = self.cni.command();
        if self.kind == Kind::Looks {
            stage("the same call again", self.plain(again))?;
            return stage("after the call", self.nothing_remains());
        }
        let undone = came == Came::Refused && self.kind == Kind::Attaches && !plan.lasting;
        let gone = undone || (came == Came::Done && self.kind == Kind::Detaches);
        if came == Came::Done && self.kind == Kind::Attaches {
            stage("CHECK of what was added", self.plain("CHECK"))?;
        }
        if gone {
            stage("right after the call", self.nothing_remains_yet())?;
        } else if self.rounds.is_multiple_of(CRASH_EVERY) {
            self.world.crash(self.cni.container())?;
            stage("after the end of the container, without DEL", self.nothing_remains_yet())?;
        } else {
            let verb = if self.kind == Kind::Attaches { "DEL" } else { again };
            stage(&format!("{verb} after the call"), self.plain(verb))?;
            stage(&format!("after {verb}"), self.nothing_remains_yet())?;
        }
        if self.kind == Kind::Attaches {
            stage("the next ADD", self.plain("ADD"))?;
            stage("CHECK of the next ADD", self.plain("CHECK"))?;
        }
        Ok(())
    }

    fn plain(&mut self, command: &str) -> Result<(), Failure> {
        plain(self.cni, self.world, command)
    }

    /// On a fresh node the bridge may be half made, until the next ADD makes it whole.
    fn nothing_remains_yet(&self) -> Result<(), Failure> {
        if !self.cni.is_fresh() {
            return self.nothing_remains();
        }
        let networks = self.world.networks();
        // So may its rules be, before it: those of a bridge that is not there go with the next change to any rules.
        let of_rules = |line: &str| line.starts_with("+ nftables ") && line.contains(" ip flatnet");
        let of_bridge = |line: &str| of_rules(line) || networks.iter().any(|network| line.contains(network.bridge()));
        let look = || {
            let now = self.world.inventory(&self.node)?;
            Ok(self.bare.differences(&now, &networks).filter(|line| !of_bridge(line)).collect::<Vec<_>>())
        };
        let changes = lab::settle(look, Vec::is_empty)?;
        if changes.is_empty() { Ok(()) } else { Err(remains(&changes)) }
    }

    fn nothing_remains(&self) -> Result<(), Failure> {
        let changes = self.world.changes_since(&self.node, &self.bare)?;
        if changes.is_empty() { Ok(()) } else { Err(remains(&changes)) }
    }
}

fn remains(changes: &[String]) -> Failure {
    Failure::wrong("the node is not as it was before").harm(Harm::Leak).with("changes", changes.join("\n"))
}

/// Says which fault it was, and how to bring it about alone.
fn told(failure: Failure, plan: &Plan, outcome: &Outcome) -> Failure {
    let Some(struck) = &outcome.struck else { return failure.with("fault", "none: this call was to succeed") };
    let total = outcome.calls.iter().filter(|call| call.process == struck.process).count();
    let place = struck.place();
    let text = match plan.fault {
        Fault::Kill(_) => format!("killed {} {place} of {total} or more, {struck}", plan.fault),
        fault => format!("{fault} from {place} of {total}, {struck}"),
    };
    let last = outcome.calls.iter().filter(|call| call.process == struck.process);
    let lines: Vec<String> = last
        .filter(|call| call.number + 6 > struck.number && call.number <= struck.number + 3)
        .map(|call| {
            let result = call.result.map(|result| format!(" = {result}")).unwrap_or_default();
            format!("{:4}  {call}{result}", call.number)
        })
        .collect();
    let mut failure = failure.with("fault", text).with("system calls around it", lines.join("\n"));
    failure.fault = Some(plan.key());
    failure
}
