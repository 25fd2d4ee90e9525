//! Many faults, one after the other: every system call, or every one of a kind, each killed or failed in every way.
//!
//! Invariant: goes by what the calls of each run are, never by a list made before: it ends when a run has no further call.

use std::fmt;

use nix::errno::Errno;

use super::{Calls, Fault, Plan, Point, SystemCall, When};

/// The variable that has every sweep try one fault alone: `<process>:<nth>:<before, after or an errno>`. Sweeps that have no
/// such fault then try none.
pub const ONLY: &str = "HARNESS_FAULT";

/// More calls than any run has: a plugin that would go on for ever is not followed for ever.
const CALLS_MAX: usize = 5_000;

/// Which faults to try.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// What happens at each of the calls.
    pub faults: Vec<Fault>,
    /// The calls.
    pub calls: Calls,
    /// One of them alone.
    pub only: Option<Point>,
    /// Whether calls that follow fail alike.
    pub lasting: bool,
    /// Whether each call is struck once only, by one fault after the other.
    pub in_turn: bool,
}

impl Sweep {
    /// Tries all of them by `round`, which tells the call that was struck, if it came to it; tells how many faults there were.
    ///
    /// A kill after a call that changes nothing is a kill before the next: it is not tried twice.
    pub fn run<E>(&self, mut round: impl FnMut(&Plan) -> Result<Option<SystemCall>, E>) -> Result<usize, E> {
        if let Ok(only) = std::env::var(ONLY) {
            return match self.parse(&only) {
                Some(plan) => round(&plan).map(|struck| usize::from(struck.is_some())),
                None => Ok(0),
            };
        }
        let mut count = 0;
        match self.only {
            Some(point) => count += self.at(point, &mut round)?,
            None => {
                for process in 0.. {
                    let of_process = self.process(process, &mut round)?;
                    count += of_process;
                    // The plugin itself may make none of these calls, and a child of its may.
                    if of_process == 0 && process > 0 {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }

    fn process<E>(
        &self,
        process: usize,
        round: &mut impl FnMut(&Plan) -> Result<Option<SystemCall>, E>,
    ) -> Result<usize, E> {
        let mut count = 0;
        for nth in 1..=CALLS_MAX {
            match self.at(Point { process, nth }, round)? {
                0 => break,
                more => count += more,
            }
        }
        Ok(count)
    }

    /// Every fault at one call.
    fn at<E>(&self, point: Point, round: &mut impl FnMut(&Plan) -> Result<Option<SystemCall>, E>) -> Result<usize, E> {
        let mut count = 0;
        let mut changes = true;
        let turn = (point.nth - 1) % self.faults.len().max(1);
        let faults = if self.in_turn { self.faults.get(turn..=turn) } else { Some(&*self.faults) };
        for fault in faults.unwrap_or_default() {
            if *fault == Fault::Kill(When::After) && !changes {
                continue;
            }
            match round(&self.plan(*fault, point))? {
                Some(struck) => changes = struck.changes,
                None => break,
            }
            count += 1;
        }
        Ok(count)
    }

    fn plan(&self, fault: Fault, at: Point) -> Plan {
        Plan { fault, calls: self.calls.clone(), at, lasting: self.lasting }
    }

    fn parse(&self, only: &str) -> Option<Plan> {
        let [process, nth, fault] = only.split(':').collect::<Vec<_>>().try_into().ok()?;
        let fault = self.faults.iter().find(|known| known.to_string() == fault)?;
        Some(self.plan(*fault, Point { process: process.parse().ok()?, nth: nth.parse().ok()? }))
    }
}

impl Plan {
    /// As [`ONLY`] takes it.
    pub fn key(&self) -> String {
        format!("{}:{}:{}", self.at.process, self.at.nth, self.fault)
    }
}

/// In one word.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Kill(When::Before) => f.write_str("before"),
            Self::Kill(When::After) => f.write_str("after"),
            Self::Fail(errno) => write!(f, "{errno:?}"),
            Self::Swallow => f.write_str("lost"),
        }
    }
}

/// The failures that the kernel may have for a call, by their names.
pub fn errno(name: &str) -> Option<Errno> {
    use Errno::{EACCES, EAGAIN, EBUSY, EINTR, EIO, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM, EROFS};
    let known = [EACCES, EAGAIN, EBUSY, EINTR, EIO, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM, EROFS];
    known.into_iter().find(|errno| format!("{errno:?}") == name)
}

#[cfg(test)]
mod tests {
    use super::{Calls, Fault, Plan, Sweep, When};
    use crate::fault::{Point, SystemCall};
    use nix::errno::Errno;

    fn sweep(faults: &[Fault]) -> Sweep {
        Sweep { faults: faults.to_vec(), calls: Calls::All, only: None, lasting: false, in_turn: false }
    }

    /// What is tried where the plugin makes `calls` and its child makes `calls_of_child`; `true` is one that changes something.
    fn tried(sweep: &Sweep, calls: &[bool], calls_of_child: &[bool]) -> Vec<String> {
        let mut tried = Vec::new();
        let outcome: Result<usize, ()> = sweep.run(|plan: &Plan| {
            let Point { process, nth } = plan.at;
            let changes = [calls, calls_of_child].get(process).and_then(|calls| calls.get(nth - 1));
            Ok(changes.map(|changes| {
                tried.push(plan.key());
                SystemCall::made_up("sendto", process, nth, *changes)
            }))
        });
        assert_eq!(outcome, Ok(tried.len()));
        tried
    }

    #[test]
    fn every_call_is_killed_and_a_change_twice() {
        let kills = sweep(&[Fault::Kill(When::Before), Fault::Kill(When::After)]);
        let expected = ["0:1:before", "0:2:before", "0:2:after", "1:1:before"];
        assert_eq!(tried(&kills, &[false, true], &[false]), expected);
    }

    #[test]
    fn every_call_fails_in_every_way() {
        let fails = sweep(&[Fault::Fail(Errno::EINTR), Fault::Fail(Errno::ENOBUFS)]);
        assert_eq!(tried(&fails, &[true, true], &[]), ["0:1:EINTR", "0:1:ENOBUFS", "0:2:EINTR", "0:2:ENOBUFS"]);
        assert_eq!(tried(&fails, &[], &[true]), ["1:1:EINTR", "1:1:ENOBUFS"]);
    }

    #[test]
    fn every_call_fails_in_one_way_after_the_other() {
        let faults = [Fault::Fail(Errno::EINTR), Fault::Fail(Errno::ENOBUFS)];
        let fails = Sweep { in_turn: true, ..sweep(&faults) };
        assert_eq!(tried(&fails, &[true; 3], &[true]), ["0:1:EINTR", "0:2:ENOBUFS", "0:3:EINTR", "1:1:EINTR"]);
    }

    #[test]
    fn one_call_alone() {
        let one = Sweep { only: Some(Point { process: 0, nth: 2 }), ..sweep(&[Fault::Swallow]) };
        assert_eq!(tried(&one, &[true, true, true], &[]), ["0:2:lost"]);
    }

    #[test]
    fn a_fault_is_found_again_by_its_key() {
        let fails = sweep(&[Fault::Fail(Errno::EINTR), Fault::Fail(Errno::ENOBUFS)]);
        let plan = fails.parse("1:12:ENOBUFS").unwrap();
        assert_eq!((plan.key().as_str(), plan.fault), ("1:12:ENOBUFS", Fault::Fail(Errno::ENOBUFS)));
        assert!(["1:12:before", "1:x:EINTR", "1:12", ""].iter().all(|key| fails.parse(key).is_none()));
    }
}
