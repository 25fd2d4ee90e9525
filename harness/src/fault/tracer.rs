//! The loop that follows a plugin from stop to stop, and does to it what the plan says.
//!
//! Invariant: one thread starts the plugin and traces it; it sees every thread and process that comes of it, to its end.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::call::{self, Descriptors};
use super::tracee::{self, Stop};
use super::{Fault, Outcome, Plan, SystemCall, When};
use crate::process::{self, Finished};

/// Starts `command`, which asks to be traced, and follows it and all that it starts until they have ended; kills them when the
/// patience is over. Needs a thread of its own.
pub(super) fn run(command: &mut Command, stdin: &[u8], patience: Duration, plan: &Plan) -> Result<Outcome> {
    let start = Instant::now();
    let mut child = process::start(command, stdin)?;
    let main = Pid::from_raw(child.id().cast_signed());
    let watch = Watch::default();
    thread::scope(|scope| {
        let reader = scope.spawn(|| process::outputs(&mut child, start + patience));
        let (ended, end) = mpsc::channel::<()>();
        let watch = &watch;
        scope.spawn(move || {
            if end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                watch.expire();
            }
        });
        let mut tracer = Tracer::new(plan, watch, main);
        let followed = tracer.follow();
        if followed.is_err() {
            watch.expire();
        }
        drop(ended);
        let outputs = reader.join().map_err(|_| anyhow!("go on after a panic of a reader"))?;
        followed.context("trace the plugin")?;
        let [stdout, stderr] = outputs.context("read the plugin's output")?;
        Ok(tracer.finish(start, stdout, stderr))
    })
}

/// The processes, to be killed when the patience is over.
#[derive(Default)]
struct Watch {
    expired: AtomicBool,
    processes: Mutex<Vec<OwnedFd>>,
}

impl Watch {
    fn add(&self, process: Pid) {
        // SAFETY: the call takes two numbers and gives a new descriptor, or a negative number.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
        let Some(opened) = i32::try_from(opened).ok().filter(|opened| *opened >= 0) else { return };
        // SAFETY: the kernel has just given it to nobody else.
        let process = unsafe { OwnedFd::from_raw_fd(opened) };
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process);
        if self.expired.load(Ordering::SeqCst) {
            self.expire();
        }
    }

    /// By descriptor: the number of a process that has ended may be another's.
    fn expire(&self) {
        self.expired.store(true, Ordering::SeqCst);
        for process in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: the descriptor is open, and no further information goes with the signal. One that has ended is no error.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, none, 0) };
        }
    }
}

struct Tracer<'a> {
    plan: &'a Plan,
    watch: &'a Watch,
    main: Pid,
    threads: HashMap<Pid, Thread>,
    processes: Vec<Process>,
    calls: Vec<SystemCall>,
    struck: Option<usize>,
    status: Option<(ExitStatus, Instant)>,
}

struct Process {
    leader: Pid,
    /// How many calls it has made, and how many of those that count.
    made: usize,
    counted: usize,
    descriptors: Descriptors,
}

struct Thread {
    process: usize,
    /// Whether it has still to come to the stop with which tracing begins.
    new: bool,
    call: Option<Pending>,
}

/// A call that has begun.
struct Pending {
    index: usize,
    arguments: [u64; 6],
    then: Then,
}

/// What happens once it is over.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    Kill,
    Answer(i64),
}

impl<'a> Tracer<'a> {
    fn new(plan: &'a Plan, watch: &'a Watch, main: Pid) -> Self {
        let mut tracer = Self {
            plan,
            watch,
            main,
            threads: HashMap::new(),
            processes: Vec::new(),
            calls: Vec::new(),
            struck: None,
            status: None,
        };
        tracer.enlist(main, main, Descriptors::default());
        tracer
    }

    fn follow(&mut self) -> Result<(), Errno> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => self.took_place(status)?,
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn took_place(&mut self, status: WaitStatus) -> Result<(), Errno> {
        match status {
            WaitStatus::Exited(thread, code) => self.ended(thread, ExitStatus::from_raw((code & 0xff) << 8)),
            WaitStatus::Signaled(thread, signal, _) => self.ended(thread, ExitStatus::from_raw(signal as i32)),
            WaitStatus::Stopped(thread, signal) => {
                let begins = self.thread(thread).new;
                self.thread(thread).new = false;
                if begins && thread == self.main {
                    let all = Options::PTRACE_O_TRACESYSGOOD
                        | Options::PTRACE_O_EXITKILL
                        | Options::PTRACE_O_TRACECLONE
                        | Options::PTRACE_O_TRACEEXEC
                        | Options::PTRACE_O_TRACEFORK
                        | Options::PTRACE_O_TRACEVFORK;
                    alive(ptrace::setoptions(thread, all))?;
                }
                alive(ptrace::syscall(thread, (!begins).then_some(signal)))?;
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                self.event(thread, event);
                alive(ptrace::syscall(thread, None))?;
            }
            WaitStatus::PtraceSyscall(thread) => {
                alive(self.at_call(thread))?;
                alive(ptrace::syscall(thread, None))?;
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
        Ok(())
    }

    /// A thread or process that is new may be heard of by itself, before its parent tells of it.
    fn thread(&mut self, thread: Pid) -> &mut Thread {
        if !self.threads.contains_key(&thread) {
            let (leader, parent) = relatives(thread);
            let descriptors = self.process_of(parent).map(|parent| self.processes[parent].descriptors.clone());
            self.enlist(thread, leader, descriptors.unwrap_or_default());
        }
        self.threads.entry(thread).or_insert(Thread { process: 0, new: false, call: None })
    }

    fn event(&mut self, thread: Pid, event: i32) {
        let process = self.thread(thread).process;
        let born = || ptrace::getevent(thread).ok().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Some(child) = born().filter(|child| !self.threads.contains_key(child)) {
                    let leader = if event == libc::PTRACE_EVENT_CLONE { self.processes[process].leader } else { child };
                    let descriptors = self.processes[process].descriptors.clone();
                    self.enlist(child, leader, descriptors);
                }
            }
            libc::PTRACE_EVENT_EXEC => self.processes[process].descriptors.clear(),
            _ => {}
        }
    }

    fn enlist(&mut self, thread: Pid, leader: Pid, descriptors: Descriptors) {
        let process = self.process_of(leader).unwrap_or_else(|| {
            self.watch.add(leader);
            self.processes.push(Process { leader, made: 0, counted: 0, descriptors });
            self.processes.len() - 1
        });
        self.threads.insert(thread, Thread { process, new: true, call: None });
    }

    fn process_of(&self, leader: Pid) -> Option<usize> {
        self.processes.iter().position(|process| process.leader == leader)
    }

    fn ended(&mut self, thread: Pid, status: ExitStatus) {
        self.threads.remove(&thread);
        if thread == self.main {
            self.status = Some((status, Instant::now()));
        }
    }

    fn at_call(&mut self, thread: Pid) -> Result<(), Errno> {
        match tracee::stop(thread)? {
            Stop::Entry { number, arguments } => self.begins(thread, number, arguments),
            Stop::Exit { result } => self.is_over(thread, result),
            Stop::Other => Ok(()),
        }
    }

    fn begins(&mut self, thread: Pid, number: u64, arguments: [u64; 6]) -> Result<(), Errno> {
        let process = self.thread(thread).process;
        let of = &mut self.processes[process];
        of.made += 1;
        let mut call = of.descriptors.describe(thread, number, &arguments);
        (call.process, call.number) = (process, of.made);
        let hit = self.plan.fault != Fault::None && self.plan.calls.include(&call) && {
            of.counted += 1;
            let at = self.plan.at;
            at.process == process && (of.counted == at.nth || (self.plan.lasting && of.counted > at.nth))
        };
        let leader = of.leader;
        let index = self.calls.len();
        let then = if hit { self.strike(thread, leader, &call, &arguments)? } else { Then::Nothing };
        if hit && self.struck.is_none() {
            self.struck = Some(index);
        }
        self.calls.push(call);
        self.thread(thread).call = Some(Pending { index, arguments, then });
        Ok(())
    }

    fn strike(&self, thread: Pid, leader: Pid, call: &SystemCall, arguments: &[u64; 6]) -> Result<Then, Errno> {
        match self.plan.fault {
            Fault::None => Ok(Then::Nothing),
            Fault::Kill(When::After) => Ok(Then::Kill),
            Fault::Kill(When::Before) => {
                tracee::skip(thread)?;
                kill(leader, Signal::SIGKILL)?;
                Ok(Then::Nothing)
            }
            Fault::Fail(errno) => {
                tracee::skip(thread)?;
                Ok(Then::Answer(-i64::from(errno as i32)))
            }
            Fault::Swallow => {
                tracee::skip(thread)?;
                Ok(Then::Answer(call::sent(thread, call, arguments).cast_signed()))
            }
        }
    }

    fn is_over(&mut self, thread: Pid, result: i64) -> Result<(), Errno> {
        let Thread { process, call, .. } = self.thread(thread);
        let (process, Some(pending)) = (*process, call.take()) else { return Ok(()) };
        let answer = if let Then::Answer(value) = pending.then { value } else { result };
        self.calls[pending.index].result = Some(answer);
        match pending.then {
            Then::Answer(value) => tracee::answer(thread, value)?,
            Then::Kill => kill(self.processes[process].leader, Signal::SIGKILL)?,
            Then::Nothing => {
                let descriptors = &mut self.processes[process].descriptors;
                descriptors.learn(&self.calls[pending.index], &pending.arguments);
            }
        }
        Ok(())
    }

    fn finish(self, start: Instant, stdout: Vec<u8>, stderr: Vec<u8>) -> Outcome {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let late = self.watch.expired.load(Ordering::SeqCst);
        let (status, end) = self.status.map_or((None, Instant::now()), |(status, end)| (Some(status), end));
        Outcome {
            finished: Finished {
                status: status.filter(|_| !late),
                stdout: text(stdout),
                stderr: text(stderr),
                wall: end - start,
            },
            struck: self.struck.map(|index| self.calls[index].clone()),
            processes: self.processes.len(),
            calls: self.calls,
        }
    }
}

/// A thread that was killed in the meantime is no error; its end will be heard of.
fn alive(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::ESRCH) => Ok(()),
        done => done,
    }
}

/// The leader of a thread's process, and the process that started that one; the thread itself where nothing is known any more.
fn relatives(thread: Pid) -> (Pid, Pid) {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.map_or(thread, Pid::from_raw)
    };
    (field("Tgid:"), field("PPid:"))
}
