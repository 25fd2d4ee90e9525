//! Many calls at once, round after round, and what must be true after each round: no address twice, none lost, none leaked.
//!
//! Invariant: what is attached and leased is read from the kernel and the plugin's books after every round; the calls of a round
//! have ended by then, and each was given a deadline.

mod facts;
mod judge;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use crate::lab::{self, Lab, Namespace};
use crate::plugin::{Answer, Broken, Call, PATIENCE, Plugins, environment};
use crate::process::Finished;
use crate::sandbox::Distro;
use crate::scenario::Network;
use crate::tally;

pub use facts::{Books, Facts};
pub use judge::{Done, Fault, Finding, Rules, Said, Trial};
pub use plan::{Action, Kind, Plan, Shape};

/// What every container's interface is called.
const INTERFACE: &str = "eth0";
/// Where host-local keeps a folder for each network.
const HOST_LOCAL: &str = "/var/lib/cni/networks";
/// The network's own address and the gateway's; of IPv4 the broadcast's, too.
const NOT_GIVEN: u128 = 2;

/// A plugin and a network in a storm.
#[derive(Debug)]
pub struct Storm {
    binary: PathBuf,
    path: String,
    network: Network,
    books: Books,
    rules: Rules,
    node: Namespace,
    /// Where the calls for containers of even number are made, if not in the world's own.
    distro: Option<Arc<Distro>>,
    /// The most calls at the same moment.
    at_once: usize,
    containers: BTreeMap<usize, Namespace>,
    /// By the container and what it was given.
    results: BTreeMap<(usize, BTreeSet<IpAddr>), Value>,
    last: BTreeMap<usize, BTreeSet<IpAddr>>,
    facts: Facts,
}

/// What happened beside the calls of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Nothing that would excuse anything.
    Nothing,
    /// Containers that are not the storm's may have come or gone.
    OthersMoved,
    /// The node went down and came up: no call of the round has to have ended well, and nothing is attached any more.
    Restarted,
}

/// What came of a round.
#[derive(Debug)]
pub struct Outcome {
    /// Its calls, with their answers.
    pub calls: Vec<Done>,
    /// What is wrong after it.
    pub findings: BTreeSet<Finding>,
}

/// What a storm was about, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many calls were made, by kind; without the CHECKs of survivors.
    pub calls: BTreeMap<Kind, usize>,
    /// How many survivors were checked.
    pub checked: usize,
    /// How many calls were refused, by kind and code.
    pub refused: BTreeMap<(Kind, u32), usize>,
    /// The longest that one call took.
    pub slowest: Duration,
    /// All that was wrong, once each, with the round that it was first seen after.
    pub findings: Vec<(usize, Finding)>,
}

impl Storm {
    /// A storm over the plugin that the network names: flatnet, or the reference `bridge` with `host-local`, which writes its leases
    /// to files. `prefix` is what containers are called before their numbers.
    pub fn new(plugins: &Plugins, network: Network, node: &Namespace, prefix: &str) -> Result<Self> {
        let books = match network.kind() {
            "flatnet" => Books::Names,
            _ => Books::Files(Path::new(HOST_LOCAL).join(network.name())),
        };
        let own_codes = matches!(books, Books::Names);
        let rules = Rules { own_codes, pool: pool(&network), prefix: prefix.to_owned(), ..Rules::default() };
        let mut storm = Self {
            binary: plugins.find(network.kind())?,
            path: plugins.path(),
            network,
            books,
            rules,
            node: node.clone(),
            distro: None,
            at_once: usize::MAX,
            containers: BTreeMap::new(),
            results: BTreeMap::new(),
            last: BTreeMap::new(),
            facts: Facts::default(),
        };
        storm.facts = storm.read()?;
        storm.facts.foreign = storm.facts.ports.len().saturating_sub(storm.rules.others(&storm.facts).len());
        Ok(storm)
    }

    /// From now on, containers of even number are another distribution's.
    pub fn share_with(&mut self, distro: Arc<Distro>) {
        self.distro = Some(distro);
    }

    /// From now on, no more calls than these are under way at the same moment: the machine has to keep up.
    pub fn limit(&mut self, at_once: usize) {
        self.at_once = at_once.max(1);
    }

    /// The codes that any call may be refused with, from now on.
    pub fn excuse(&mut self, codes: &[u32]) {
        self.rules.excused = codes.iter().copied().collect();
    }

    /// Makes all rounds of the plan; then detaches all, and attaches as many as there may be: the pool must be as large as it was.
    pub fn run(&mut self, lab: &mut Lab, plan: &Plan) -> Result<Tally> {
        let mut tally = Tally::default();
        for (number, round) in (1..).zip(plan.rounds.iter().chain(&self.finale(plan))) {
            self.furnish(lab, round)?;
            let Outcome { findings, .. } = self.round(round, &mut tally, || Ok(Aside::Nothing))?;
            tally.note(number, findings);
        }
        Ok(tally)
    }

    /// The rounds that end a storm: all go, as many as the pool holds come, all go.
    pub fn finale(&self, plan: &Plan) -> Vec<Vec<Action>> {
        let containers: BTreeSet<usize> = plan.rounds.iter().flatten().filter_map(Action::container).collect();
        let del = || containers.iter().copied().map(Action::Del).collect();
        let room = self.rules.pool.saturating_sub(self.rules.others(&self.facts).len());
        let add = containers.iter().copied().take(room).map(Action::Add).collect();
        vec![del(), add, del()]
    }

    /// Makes sure that the containers of a round exist.
    pub fn furnish(&mut self, lab: &mut Lab, round: &[Action]) -> Result<()> {
        for number in round.iter().filter_map(Action::container) {
            self.containers.insert(number, lab.container(&self.rules.id(number))?.clone());
        }
        Ok(())
    }

    /// Makes the calls of a round at the same moment, does `meanwhile` once half of them have ended, and tells what is wrong afterwards.
    pub fn round(
        &mut self,
        round: &[Action],
        tally: &mut Tally,
        meanwhile: impl FnOnce() -> Result<Aside>,
    ) -> Result<Outcome> {
        let (calls, aside) = self.make(round, tally, meanwhile)?;
        if aside == Aside::Restarted {
            self.containers.clear();
            self.facts = Facts::default();
            return Ok(Outcome { findings: judge::cut_off(&calls), calls });
        }
        if aside == Aside::OthersMoved {
            let (now, own) = (self.read()?, |id: &str| id.starts_with(&format!("{}-", self.rules.prefix)));
            self.facts.leases.retain(|(_, id)| own(id));
            self.facts.leases.extend(now.leases.into_iter().filter(|(_, id)| !own(id)));
        }
        let (after, mut findings) = self.settle(&calls)?;
        self.facts = after;
        findings.extend(self.check_survivors(tally)?);
        Ok(Outcome { calls, findings })
    }

    /// The results of those that are attached, by container.
    pub fn attached(&self) -> impl Iterator<Item = (String, &Value)> {
        let given = self.facts.attached.iter().map(|(number, addresses)| (*number, addresses.clone()));
        given.filter_map(|key| Some((self.rules.id(key.0), self.results.get(&key)?)))
    }

    fn read(&self) -> Result<Facts> {
        let place = (self.network.bridge(), self.network.subnets());
        let facts = self.books.read(&self.node, &self.containers, (place.0, &place.1))?;
        Ok(Facts { foreign: self.facts.foreign, ..facts })
    }

    /// The state once the kernel has cleared away, and what is wrong.
    fn settle(&self, calls: &[Done]) -> Result<(Facts, BTreeSet<Finding>)> {
        let trial = Trial { rules: &self.rules, calls, before: &self.facts };
        let look = || self.read().map(|after| (trial.state(&after), after));
        // Whoever leaves something behind in files does not get better by waiting.
        let (mut found, after) =
            if self.rules.own_codes { lab::settle(look, |(found, _)| found.is_empty())? } else { look()? };
        found.extend(trial.answers());
        Ok((after, found))
    }

    fn make(
        &mut self,
        round: &[Action],
        tally: &mut Tally,
        meanwhile: impl FnOnce() -> Result<Aside>,
    ) -> Result<(Vec<Done>, Aside)> {
        let calls: Vec<(Action, Call)> =
            round.iter().filter_map(|action| Some((action.clone(), self.call(action)?))).collect();
        let (ended, ends) = mpsc::channel();
        let half = calls.len() / 2;
        let (finished, aside) = thread::scope(|scope| -> Result<(Vec<_>, Aside)> {
            let running = scope.spawn(|| self.run_together(&calls, &{ ended }));
            ends.iter().take(half).for_each(drop);
            let aside = meanwhile();
            let finished = running.join().unwrap_or_else(|_| Err(anyhow!("make calls")));
            Ok((finished?, aside?))
        })?;
        let mut done = Vec::new();
        for ((action, call), finished) in calls.into_iter().zip(finished) {
            tally.slowest = tally.slowest.max(finished.wall);
            *tally.calls.entry(action.kind()).or_default() += 1;
            let said = self.hear(&action, call.read(&finished));
            if let Said::Refused { code, .. } = said {
                *tally.refused.entry((action.kind(), code)).or_default() += 1;
            }
            done.push(Done { action, said });
        }
        Ok((done, aside))
    }

    /// Makes calls at the same moment, or as many as may be under way; tells of each end. The answers are in the calls' order.
    fn run_together(&self, calls: &[(Action, Call)], ended: &mpsc::Sender<()>) -> Result<Vec<Finished>> {
        let workers = self.at_once.min(calls.len());
        let (start, next) = (Barrier::new(workers), AtomicUsize::new(0));
        let work = || {
            start.wait();
            let mut finished = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((action, call)) = calls.get(number) else { return finished };
                finished.push((number, call.run_in(&self.node, self.distro_of(action.container()))));
                let _ = ended.send(());
            }
        };
        let mut all: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let ends = running.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("make calls")));
            ends.collect::<Result<Vec<_>>>().map(|ends| ends.into_iter().flatten().collect())
        })?;
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, finished)| finished).collect()
    }

    /// Reads an answer, and keeps the result of an ADD.
    fn hear(&mut self, action: &Action, answer: Result<Answer, Broken>) -> Said {
        match (answer, action) {
            (Err(how), _) => Said::Broken(how),
            (Ok(Answer::Refused(refusal)), _) => Said::Refused { code: refusal.code, msg: refusal.msg },
            (Ok(Answer::Done(Some(result))), Action::Add(container)) => {
                let addresses = addresses_in(&result);
                self.results.insert((*container, addresses.clone()), result);
                self.last.insert(*container, addresses.clone());
                Said::Done(addresses)
            }
            (Ok(Answer::Done(_)), _) => Said::Done(BTreeSet::new()),
        }
    }

    /// The call as libcni makes it; none for a CHECK of what was never added.
    fn call(&self, action: &Action) -> Option<Call> {
        let kind = action.kind();
        let mut network = self.network.clone();
        if let Action::Gc(kept) = action {
            let kept = kept.iter().map(|number| self.rules.id(*number));
            let others = self.rules.others(&self.facts).into_iter().map(str::to_owned);
            let list = kept.chain(others).map(|id| json!({ "containerID": id, "ifname": INTERFACE }));
            network.set("cni.dev/valid-attachments", list.collect());
            return Some(self.command(kind, "", None, &network));
        }
        let number = action.container()?;
        let result = self.last.get(&number).and_then(|given| self.results.get(&(number, given.clone())));
        match (kind, result) {
            (Kind::Check, None) => return None,
            (Kind::Check | Kind::Del, Some(result)) => network.set("prevResult", result.clone()),
            _ => {}
        }
        let id = self.rules.id(number);
        let netns = Namespace::named(&id);
        Some(self.command(kind, &id, Some(&netns), &network))
    }

    fn distro_of(&self, container: Option<usize>) -> Option<&Distro> {
        self.distro.as_deref().filter(|_| container.is_some_and(|number| number % 2 == 0))
    }

    fn command(&self, kind: Kind, id: &str, netns: Option<&Namespace>, network: &Network) -> Call {
        let mut env = environment(kind.command(), id, netns.map(Namespace::path), INTERFACE, None, &self.path);
        if kind == Kind::Gc {
            env.retain(|name, _| !matches!(name.as_str(), "CNI_CONTAINERID" | "CNI_IFNAME"));
        }
        let command = kind.command().to_owned();
        Call { binary: self.binary.clone(), command, env, stdin: network.to_json(), patience: PATIENCE }
    }

    /// CHECK of all that are attached, with the result of the ADD that gave what they have.
    fn check_survivors(&self, tally: &mut Tally) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        let mut checks = Vec::new();
        for (number, addresses) in &self.facts.attached {
            let Some(result) = self.results.get(&(*number, addresses.clone())) else { continue };
            let mut network = self.network.clone();
            network.set("prevResult", result.clone());
            let id = self.rules.id(*number);
            let call = self.command(Kind::Check, &id, Some(&Namespace::named(&id)), &network);
            checks.push((Action::Check(*number), call));
        }
        tally.checked += checks.len();
        let finished = self.run_together(&checks, &mpsc::channel().0)?;
        for ((action, call), finished) in checks.iter().zip(&finished) {
            let finding = |fault, text| Finding { fault, text: format!("{action}, which survives: {text}") };
            match call.read(finished) {
                Ok(Answer::Done(_)) => {}
                Ok(Answer::Refused(it)) => found.push(finding(Fault::Check, format!("{}: {}", it.code, it.msg))),
                Err(how) => found.push(finding(Fault::Manners(how.harm), how.text)),
            }
        }
        Ok(found)
    }
}

impl Tally {
    /// Counts what is wrong after a round; what was wrong before is not counted again.
    pub fn note(&mut self, round: usize, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if !self.findings.iter().any(|(_, known)| *known == finding) {
                self.findings.push((round, finding));
            }
        }
    }

    /// What was done, as everybody counts it.
    pub fn counts(&self) -> tally::Tally {
        let (made, refused) = (
            |kind| self.calls.get(&kind).copied().unwrap_or_default(),
            |kind: &Kind| self.refused.iter().filter(|((of, _), _)| of == kind).map(|(_, count)| count).sum::<usize>(),
        );
        let adds = made(Kind::Add);
        tally::Tally {
            calls: (self.total() + self.checked) as u64,
            refused: self.refused.values().sum::<usize>() as u64,
            addresses: adds.saturating_sub(refused(&Kind::Add)) as u64,
            stormed: adds as u64,
            ..tally::Tally::default()
        }
    }

    /// How many calls were made.
    pub fn total(&self) -> usize {
        self.calls.values().sum()
    }
}

/// How many containers a network has addresses for: the smallest subnet decides. A range within a subnet is not looked at.
fn pool(network: &Network) -> usize {
    let room = |subnet: &IpNetwork| match subnet {
        IpNetwork::V4(subnet) => u128::from(subnet.size()).saturating_sub(NOT_GIVEN + 1),
        IpNetwork::V6(subnet) => subnet.size().saturating_sub(NOT_GIVEN),
    };
    let least = network.subnets().iter().map(room).min().unwrap_or_default();
    usize::try_from(least).unwrap_or(usize::MAX)
}

/// The addresses of a result.
fn addresses_in(result: &Value) -> BTreeSet<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let texts = ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next());
    texts.filter_map(|text| text.parse().ok()).collect()
}
