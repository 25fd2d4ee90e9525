//! What was done to the plugin, counted; and the kinds of harm that it must never do.
//!
//! Invariant: only what was really done counts, and by whoever did it: a scenario's tally is its steps' own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::plugin::Answer;

/// The counts of one scenario, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Calls of the plugin that ran to their own end.
    pub calls: u64,
    /// Calls that answered with an error, and were to.
    pub refused: u64,
    /// Addresses that were given.
    pub addresses: u64,
    /// System calls at which the plugin was killed, by CNI's verb.
    pub killed: BTreeMap<String, u64>,
    /// System calls that were made to fail, by CNI's verb.
    pub failed: BTreeMap<String, u64>,
    /// ADDs made while others ran.
    pub stormed: u64,
    /// What befell a host or a container: a crash, a reboot, a cut wire, another address, a full disk.
    pub mishaps: u64,
}

impl Tally {
    /// Counts a call of the plugin and what it answered.
    pub fn answered(&mut self, command: &str, answer: &Answer) {
        self.calls += 1;
        match answer {
            Answer::Done(Some(_)) if command == "ADD" => self.addresses += 1,
            Answer::Done(_) => {}
            Answer::Refused(_) => self.refused += 1,
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.calls += other.calls;
        self.refused += other.refused;
        self.addresses += other.addresses;
        self.stormed += other.stormed;
        self.mishaps += other.mishaps;
        for (mine, theirs) in [(&mut self.killed, &other.killed), (&mut self.failed, &other.failed)] {
            for (verb, count) in theirs {
                *mine.entry(verb.clone()).or_default() += count;
            }
        }
    }
}

/// What kind of harm a failure is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Harm {
    /// Something was left that nothing will take away.
    Leak,
    /// Two had one address.
    Duplicate,
    /// No end in time.
    Hang,
    /// A panic, or the end by a signal of its own.
    Panic,
    /// Any other thing that should not be.
    #[default]
    Wrong,
}

impl Harm {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Leak, Self::Duplicate, Self::Hang, Self::Panic, Self::Wrong];

    /// Several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Leak => "leaks",
            Self::Duplicate => "duplicates",
            Self::Hang => "hangs",
            Self::Panic => "panics",
            Self::Wrong => "wrong answers",
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leak => "leak",
            Self::Duplicate => "duplicate",
            Self::Hang => "hang",
            Self::Panic => "panic",
            Self::Wrong => "wrong",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn tallies_add_up_verb_by_verb() {
        let one = Tally { addresses: 2, killed: [("ADD".to_owned(), 3)].into(), ..Tally::default() };
        let other =
            Tally { addresses: 1, killed: [("ADD".to_owned(), 1), ("DEL".to_owned(), 5)].into(), ..Tally::default() };
        let mut sum = one;
        sum += &other;
        let killed = [("ADD".to_owned(), 4), ("DEL".to_owned(), 5)].into();
        assert_eq!(sum, Tally { addresses: 3, killed, ..Tally::default() });
    }
}
