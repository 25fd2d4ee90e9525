//! Whether what is true after a round can be, given what was before and what each call answered.
//!
//! Invariant: pure, and never more lenient than the race: of calls that do not meet there is one right outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::facts::Facts;
use super::plan::{Action, Kind};
use crate::plugin::Broken;
use crate::tally::Harm;

/// flatnet's codes: of an operation that the kernel refused, a full pool, a taken interface, a known attachment, a change.
const KERNEL: u32 = 100;
const POOL_FULL: u32 = 101;
const EXISTS: [u32; 2] = [103, 104];
const CHANGED: u32 = 106;

/// In which way something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// An address has two containers.
    Duplicate,
    /// An address or a link is held, and no container has it.
    Leak,
    /// A container is not attached as its ADD said.
    Lost,
    /// A call was refused without a reason, or for the wrong one.
    Refused,
    /// CHECK does not pass for a container that nothing has befallen.
    Check,
    /// A call hung, panicked, or broke the rules of CNI in another way.
    Manners(Harm),
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// In which way.
    pub fault: Fault,
    /// What, in words.
    pub text: String,
}

/// What a call answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It did what it was asked; ADD gives addresses.
    Done(BTreeSet<IpAddr>),
    /// It said that it could not.
    Refused {
        /// The CNI code.
        code: u32,
        /// The sentence.
        msg: String,
    },
    /// It did not answer as a plugin must.
    Broken(Broken),
}

/// A call and its answer.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was called.
    pub action: Action,
    /// What came of it.
    pub said: Said,
}

/// What is asked of a plugin beyond what every plugin owes.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Codes that any call may be refused with.
    pub excused: BTreeSet<u32>,
    /// Whether a refusal must have flatnet's own code for its reason; else any code is right where there is a reason.
    pub own_codes: bool,
    /// How many containers there are addresses for.
    pub pool: usize,
    /// What containers are called before their numbers.
    pub prefix: String,
}

/// A round, and the states that it lies between.
#[derive(Debug)]
pub struct Trial<'a> {
    /// What is asked.
    pub rules: &'a Rules,
    /// What was called, and answered.
    pub calls: &'a [Done],
    /// What was true when it began.
    pub before: &'a Facts,
}

impl Rules {
    /// The id of a container.
    pub fn id(&self, container: usize) -> String {
        format!("{}-{container}", self.prefix)
    }

    /// The ids of those with a lease that are not the storm's.
    pub fn others<'a>(&self, facts: &'a Facts) -> BTreeSet<&'a str> {
        facts.leases.iter().map(|(_, id)| id.as_str()).filter(|id| self.number(id).is_none()).collect()
    }

    fn number(&self, id: &str) -> Option<usize> {
        id.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()
    }
}

impl Trial<'_> {
    /// What is wrong with the answers.
    pub fn answers(&self) -> BTreeSet<Finding> {
        let wrong = |done: &&Done| !self.is_right(done);
        self.calls.iter().filter(wrong).map(Finding::of_answer).collect()
    }

    /// What is wrong with the state that they left.
    pub fn state(&self, after: &Facts) -> BTreeSet<Finding> {
        let mut found = duplicates(after);
        found.extend(self.leaks(after));
        let containers = self.before.attached.keys().chain(after.attached.keys());
        let called = self.calls.iter().filter_map(|done| done.action.container());
        let containers: BTreeSet<usize> = containers.copied().chain(called).collect();
        found.extend(containers.into_iter().filter_map(|container| self.lost(container, after)));
        found
    }

    fn is_right(&self, done: &Done) -> bool {
        match &done.said {
            Said::Done(_) => self.may_be_done(&done.action),
            Said::Broken(_) => false,
            Said::Refused { code, .. } => {
                let reasons = self.reasons(&done.action);
                let known = if self.rules.own_codes { reasons.contains(code) } else { !reasons.is_empty() };
                known || self.rules.excused.contains(code)
            }
        }
    }

    /// Whether a call can have done what it is for.
    fn may_be_done(&self, action: &Action) -> bool {
        let Some(container) = action.container() else { return true };
        let there = self.before.attached.contains_key(&container);
        match action.kind() {
            Kind::Add => self.is_ended(container) || (!there && self.added(container).len() == 1),
            Kind::Check => there || !self.added(container).is_empty(),
            Kind::Del | Kind::Gc => true,
        }
    }

    /// The codes that a call may be refused with, in this race.
    fn reasons(&self, action: &Action) -> BTreeSet<u32> {
        let mut codes = BTreeSet::new();
        let Some(container) = action.container() else { return codes };
        let there = self.before.attached.contains_key(&container);
        let calls = |kind: Kind| {
            self.calls.iter().filter(|it| it.action.container() == Some(container) && it.action.kind() == kind).count()
        };
        let meets_its_end = self.calls.iter().any(|it| it.action.ends(container));
        match action.kind() {
            Kind::Add => {
                if there || calls(Kind::Add) > 1 {
                    codes.extend(EXISTS);
                }
                if meets_its_end {
                    codes.insert(KERNEL);
                }
                let adds = self.calls.iter().filter(|it| it.action.kind() == Kind::Add).count();
                if self.before.holders() + adds > self.rules.pool {
                    codes.insert(POOL_FULL);
                }
            }
            Kind::Check => {
                if !there || meets_its_end || calls(Kind::Add) > 0 {
                    codes.insert(CHANGED);
                }
            }
            // They have nothing to wait for and nothing to miss.
            Kind::Del | Kind::Gc => {}
        }
        codes
    }

    /// What its ADDs say that it was given.
    fn added(&self, container: usize) -> Vec<&BTreeSet<IpAddr>> {
        let adds = self.calls.iter().filter(|done| done.action == Action::Add(container));
        let done = adds.filter_map(|done| match &done.said {
            Said::Done(addresses) => Some(addresses),
            _ => None,
        });
        done.collect()
    }

    fn is_ended(&self, container: usize) -> bool {
        self.calls.iter().any(|done| done.action.ends(container))
    }

    /// A container that is not where the answers say, if so.
    fn lost(&self, container: usize, after: &Facts) -> Option<Finding> {
        let was = self.before.attached.get(&container);
        let adds = self.added(container);
        let added: BTreeSet<IpAddr> = adds.iter().copied().flatten().copied().collect();
        let ended = self.is_ended(container);
        let is = after.attached.get(&container);
        let id = self.rules.id(container);
        let kept = was.filter(|_| !ended);
        let right = match (is, kept) {
            (_, Some(kept)) => is == Some(kept),
            (Some(is), None) => adds.contains(&is),
            (None, None) => added.is_empty() || ended,
        };
        let books = after.leased_to(&id);
        match is {
            _ if !right => {
                let text = format!(
                    "{id} had {}, was given {}{}, and has {}",
                    list(was),
                    list(Some(&added)),
                    if ended { ", was ended" } else { "" },
                    list(is)
                );
                let leaked = is.is_some() && added.is_empty() && kept.is_none();
                Some(Finding { fault: if leaked { Fault::Leak } else { Fault::Lost }, text })
            }
            Some(is) if *is != books => {
                let text = format!("{id} has {} and leases {}", list(Some(is)), list(Some(&books)));
                Some(Finding { fault: if is.is_subset(&books) { Fault::Leak } else { Fault::Lost }, text })
            }
            _ => None,
        }
    }

    /// Leases and links without a container; those of others must be as they were.
    fn leaks(&self, after: &Facts) -> BTreeSet<Finding> {
        let mut found = BTreeSet::new();
        let leak = |text| Finding { fault: Fault::Leak, text };
        for (address, id) in &after.leases {
            let held = match self.rules.number(id) {
                Some(number) => after.attached.contains_key(&number),
                None => self.before.leases.contains(&(*address, id.clone())),
            };
            if !held {
                found.insert(leak(format!("{address} is leased to {id}, which is not attached")));
            }
        }
        for (address, id) in self.before.leases.difference(&after.leases) {
            if self.rules.number(id).is_none() {
                found.insert(Finding { fault: Fault::Lost, text: format!("{id} has lost {address}") });
            }
        }
        let (ports, attached) =
            (after.ports.len(), after.attached.len() + self.rules.others(after).len() + after.foreign);
        if ports != attached {
            let fault = if ports > attached { Fault::Leak } else { Fault::Lost };
            let text = format!("the bridge has {ports} ports, and {attached} containers are attached");
            found.insert(Finding { fault, text });
        }
        found
    }
}

impl Finding {
    fn of_answer(done: &Done) -> Self {
        let action = &done.action;
        match &done.said {
            Said::Broken(how) => Self { fault: Fault::Manners(how.harm), text: format!("{action}: {how}") },
            Said::Refused { code, msg } => {
                Self { fault: Fault::Refused, text: format!("{action} was refused with {code}: {msg}") }
            }
            Said::Done(_) => Self { fault: Fault::Refused, text: format!("{action} was done") },
        }
    }
}

impl Fault {
    /// What kind of harm it is.
    pub fn harm(self) -> Harm {
        match self {
            Self::Duplicate => Harm::Duplicate,
            Self::Leak => Harm::Leak,
            Self::Lost | Self::Refused | Self::Check => Harm::Wrong,
            Self::Manners(harm) => harm,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.text)
    }
}

/// What is wrong with the answers of a round that the end of the node cut off: it kills, and excuses any other answer.
pub(super) fn cut_off(calls: &[Done]) -> BTreeSet<Finding> {
    let own = |how: &Broken| matches!(how.harm, Harm::Hang | Harm::Panic) && !how.text.contains("SIGKILL");
    let wrong = calls.iter().filter(|done| matches!(&done.said, Said::Broken(how) if own(how)));
    wrong.map(Finding::of_answer).collect()
}

/// Addresses that two containers have, or that the books give twice.
fn duplicates(facts: &Facts) -> BTreeSet<Finding> {
    let mut holders: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for (container, addresses) in &facts.attached {
        for address in addresses {
            holders.entry(*address).or_default().insert(format!("container {container}"));
        }
    }
    let mut leased: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for (address, id) in &facts.leases {
        leased.entry(*address).or_default().insert(format!("the books' {id}"));
    }
    let twice = holders.into_iter().chain(leased).filter(|(_, holders)| holders.len() > 1);
    twice
        .map(|(address, holders)| {
            let holders = holders.into_iter().collect::<Vec<_>>().join(" and ");
            Finding { fault: Fault::Duplicate, text: format!("{address} is {holders}'s") }
        })
        .collect()
}

fn list(addresses: Option<&BTreeSet<IpAddr>>) -> String {
    match addresses {
        Some(all) if !all.is_empty() => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        _ => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests;
