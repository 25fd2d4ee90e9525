//! A named network namespace, as `ip netns` knows it.
//!
//! Invariant: nothing here keeps a namespace alive: sockets and descriptors close with the call that opened them,
//! and only short-lived threads and child processes ever enter one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline;
use crate::lacking::{self, Piece};

/// Where namespaces are mounted under their names.
pub const FOLDER: &str = "/run/netns";

/// The longest that any netlink conversation may take.
const NETLINK_PATIENCE: Duration = Duration::from_secs(10);

/// How long killed processes may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace mounted at `/run/netns/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    lacks: BTreeSet<Piece>,
}

impl Namespace {
    /// Makes an empty one (its `lo` down) under `name`.
    pub fn create(name: &str) -> Result<Self> {
        let namespace = Self::named(name);
        fs::create_dir_all(FOLDER).context("make the folder of namespaces")?;
        File::create_new(&namespace.path).with_context(|| format!("name a namespace {name}"))?;
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &namespace.path, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("mount the namespace {name}"))
        })?;
        Ok(namespace)
    }

    /// The one that is already there under `name`.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), path: Path::new(FOLDER).join(name), lacks: BTreeSet::new() }
    }

    /// The one that this file stands for.
    pub fn at(path: &Path) -> Self {
        Self { name: path.display().to_string(), path: path.to_owned(), lacks: BTreeSet::new() }
    }

    /// The same, whose commands find a kernel without these.
    #[must_use]
    pub fn lacking(self, lacks: BTreeSet<Piece>) -> Self {
        Self { lacks, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `inside` on a thread that has entered the namespace, and waits for it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        on_thread(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", self.name))?;
            drop(file);
            inside()
        })
    }

    /// Holds one netlink conversation in the namespace, for ten seconds at most.
    pub fn netlink<T: Send>(&self, talk: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T> + Send) -> Result<T> {
        self.enter(|| converse(talk)).with_context(|| format!("speak netlink in {}", self.name))
    }

    /// A command that will run in the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and touches no memory but its own descriptor.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        lacking::impose(&mut command, &self.lacks)?;
        Ok(command)
    }

    /// The processes that have it as their network namespace.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let wanted = fs::metadata(&self.path).with_context(|| format!("look at {}", self.name))?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let same = |seen: fs::Metadata| seen.ino() == wanted.ino() && seen.dev() == wanted.dev();
            if fs::metadata(entry.path().join("ns/net")).is_ok_and(same) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// What the processes that are there now have used of the processors until now: those of that `name`, or all.
    pub fn processor_time(&self, name: Option<&str>) -> Result<Duration> {
        let mut nanoseconds = 0_u64;
        for pid in self.processes()? {
            let called = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.is_some_and(|name| called.trim_end() != name) {
                continue;
            }
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            // The first number is the time on a processor (sched-stats.rst).
            let used = |thread: fs::DirEntry| {
                let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok())
            };
            nanoseconds += threads.filter_map(used).sum::<u64>();
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Kills its processes with SIGKILL, and waits until they are gone.
    pub fn kill_processes(&self) -> Result<()> {
        for pid in self.processes()? {
            match kill(pid, Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(err) => return Err(err).with_context(|| format!("kill process {pid}")),
            }
        }
        // One that waits for its parent to take note has left the namespace already.
        let gone =
            deadline::until(KILL_PATIENCE, || self.processes().map(|left| left.is_empty().then_some(())).transpose());
        gone.unwrap_or_else(|| Err(anyhow!("see the processes of {} end", self.name)))
    }

    /// Takes its name away; the kernel ends it once no process is left in it.
    pub fn remove(&self) -> Result<()> {
        umount2(&self.path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", self.name))?;
        fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }

    fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("open the namespace {}", self.name))
    }
}

/// Holds one netlink conversation in the caller's own namespace, which must be the world's first.
pub(super) fn at_home<T: Send>(talk: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T> + Send) -> Result<T> {
    on_thread(|| converse(talk)).context("speak netlink in the world's own namespace")
}

fn converse<T>(talk: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        tokio::time::timeout(NETLINK_PATIENCE, talk(handle)).await.context("hear from the kernel in time")?
    })
}

pub(super) fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("go on after a panic on a thread"))?
}
