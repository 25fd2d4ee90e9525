//! Faults from outside: a plugin runs under ptrace, and is killed or lied to at one system call of the caller's choosing.
//!
//! Invariant: no call but those that the plan names is touched, and every process that the plugin started has ended when
//! [`run`] returns. Needs no root; any number of runs may go on side by side.

mod call;
mod netlink;
mod sweep;
mod tracee;
mod tracer;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::sys::ptrace;

use crate::lab::Namespace;
use crate::plugin::Call;
use crate::process::Finished;

pub use call::{Calls, GROUPS, SystemCall};
pub use sweep::{ONLY, Sweep, errno};

/// What befalls a call of the plugin, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What happens.
    pub fault: Fault,
    /// The system calls that count.
    pub calls: Calls,
    /// Which of them it is.
    pub at: Point,
    /// Whether all that follow in the same process fare alike: a disk that is full stays full. Of no effect on a kill.
    pub lasting: bool,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: the calls are only looked at.
    None,
    /// The process that makes the call, with all its threads, gets SIGKILL. What it has started is left alone.
    Kill(When),
    /// The kernel does not do it, and says why.
    Fail(Errno),
    /// The kernel does not do it, and says that it did: for a message, which is lost.
    Swallow,
}

/// When a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The call is not made any more.
    Before,
    /// The call has been made, and the process never hears of it. A call that never returns is not killed.
    After,
}

/// One of the system calls that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// 0 is the plugin, 1 the first process that it starts, and so on.
    pub process: usize,
    /// Among those of this process that count; the first is 1.
    pub nth: usize,
}

impl Plan {
    /// Only looks.
    pub fn count() -> Self {
        Self::new(Fault::None, Calls::All, Point { process: 0, nth: 1 })
    }

    /// Kills at a system call.
    pub fn kill(at: Point, when: When) -> Self {
        Self::new(Fault::Kill(when), Calls::All, at)
    }

    /// Has one of `calls` fail.
    pub fn fail(calls: Calls, at: Point, errno: Errno) -> Self {
        Self::new(Fault::Fail(errno), calls, at)
    }

    /// Has one of `calls`, which should be those that send, lose what it sends.
    pub fn swallow(calls: Calls, at: Point) -> Self {
        Self::new(Fault::Swallow, calls, at)
    }

    fn new(fault: Fault, calls: Calls, at: Point) -> Self {
        Self { fault, calls, at, lasting: false }
    }
}

/// What came of a call of the plugin.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it said and how it ended; the answer is [`Call::read`] of it.
    pub finished: Finished,
    /// Every system call, in the order in which they began.
    pub calls: Vec<SystemCall>,
    /// The one that the fault befell first; none if the plugin never came to it.
    pub struck: Option<SystemCall>,
    /// How many processes there were, the plugin's own included.
    pub processes: usize,
}

/// Calls the plugin in the network of `node`, and lets `plan` befall it.
pub fn run(call: &Call, node: &Namespace, plan: &Plan) -> Result<Outcome> {
    trace(call.command_in(node)?, call.stdin.as_bytes(), call.patience, plan)
}

fn trace(mut command: Command, stdin: &[u8], patience: Duration, plan: &Plan) -> Result<Outcome> {
    // SAFETY: between fork and exec the closure makes one system call and touches no memory.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    // A tracer is a thread: its own, so that it waits for nobody else's children.
    let traced = thread::scope(|scope| scope.spawn(|| tracer::run(&mut command, stdin, patience, plan)).join());
    traced.map_err(|_| anyhow!("go on after a panic of the tracer"))?
}

#[cfg(test)]
mod tests;
