//! The options `kill` and `fail`: which faults befall a call of the plugin.
//!
//! Invariant: `every` means that the call is made once for each of them, on its own.

use serde::Deserialize;

use crate::fault::{Calls, Fault, GROUPS, Point, Sweep, When, errno};

/// `kill = { at = "every syscall" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KillOptions {
    at: At,
    #[serde(default)]
    process: usize,
    when: Option<KillWhen>,
    #[serde(default)]
    fresh: bool,
}

/// `fail = { syscall = "sendto", errno = "ENOBUFS", at = "every" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailOptions {
    syscall: OneOrMore,
    errno: OneOrMore,
    at: At,
    #[serde(default)]
    process: usize,
    #[serde(default)]
    lasting: bool,
    #[serde(default)]
    in_turn: bool,
    #[serde(default)]
    fresh: bool,
}

/// `lose = { syscall = "sendto NEWLINK", at = 1 }`: the message goes nowhere, and no answer ever comes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoseOptions {
    syscall: OneOrMore,
    at: At,
    #[serde(default)]
    process: usize,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"every syscall\", \"every change\", or the number of a call")]
enum At {
    Number(usize),
    Every(Every),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Every {
    #[serde(rename = "every syscall", alias = "every")]
    Call,
    #[serde(rename = "every change")]
    Change,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KillWhen {
    Before,
    After,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a name, or a list of names")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(list) => list,
        }
    }

    /// Whether the names are those of calls.
    fn check(&self) -> Result<(), String> {
        match self.list().iter().find(|word| !Calls::has(word)) {
            Some(strange) => {
                Err(format!("{strange} is neither a system call nor one of the groups {}", GROUPS.join(", ")))
            }
            None => Ok(()),
        }
    }

    fn calls(&self) -> Calls {
        Calls::Named(self.list().to_vec())
    }
}

impl At {
    fn point(&self, process: usize) -> Option<Point> {
        match self {
            Self::Number(nth) => Some(Point { process, nth: *nth }),
            Self::Every(_) => None,
        }
    }
}

impl KillOptions {
    /// Whether each call finds the node as after a boot.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn sweep(&self) -> Sweep {
        let faults = match self.when {
            Some(KillWhen::Before) => vec![Fault::Kill(When::Before)],
            Some(KillWhen::After) => vec![Fault::Kill(When::After)],
            None => vec![Fault::Kill(When::Before), Fault::Kill(When::After)],
        };
        let calls = if matches!(self.at, At::Every(Every::Change)) { Calls::Changes } else { Calls::All };
        Sweep { faults, calls, only: self.at.point(self.process), lasting: false, in_turn: false }
    }
}

impl FailOptions {
    /// Whether each call finds the node as after a boot.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether the names are those of calls and failures.
    pub(super) fn check(&self) -> Result<(), String> {
        self.syscall.check()?;
        if let Some(strange) = self.errno.list().iter().find(|name| errno(name).is_none()) {
            return Err(format!("{strange} is not a failure that the harness knows"));
        }
        match self.at {
            At::Every(Every::Change) => Err("`fail` goes by `syscall`, not by changes".to_owned()),
            _ => Ok(()),
        }
    }

    pub(super) fn sweep(&self) -> Sweep {
        let faults = self.errno.list().iter().filter_map(|name| errno(name)).map(Fault::Fail).collect();
        let calls = self.syscall.calls();
        Sweep { faults, calls, only: self.at.point(self.process), lasting: self.lasting, in_turn: self.in_turn }
    }
}

impl LoseOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        self.syscall.check()
    }

    pub(super) fn sweep(&self) -> Sweep {
        let only = self.at.point(self.process);
        Sweep { faults: vec![Fault::Swallow], calls: self.syscall.calls(), only, lasting: false, in_turn: false }
    }
}
