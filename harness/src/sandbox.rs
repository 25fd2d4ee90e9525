//! A throwaway world: user, network, mount, process, IPC and host-name namespaces of its own, entered by one process.
//!
//! Invariant: the world dies with the process that entered it, however that ends, and nothing in it is visible outside.

mod distro;
mod mounts;
mod refusal;
mod watched;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid, pipe};

pub use distro::Distro;
pub use mounts::{COMMANDS, STATE_FOLDERS};

pub use mounts::{Condition, empty_folder, require_world, set_condition};
pub use watched::Watched;

/// Who is root in the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Users {
    /// A user namespace in which the caller is root; without one if the kernel refuses it to the real root.
    #[default]
    Own,
    /// The machine's users, for programs that need the real root (Podman with its own storage).
    Machine,
}

/// How to enter a world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sandbox {
    /// Who is root in it.
    pub users: Users,
}

impl Sandbox {
    /// Runs `inside` as the first process of a new world and returns the exit status (0-255) that it gives.
    ///
    /// The calling process itself moves into the world's namespaces (its process namespace apart) and only waits there,
    /// so a caller that wants to go on with its own work starts a child of its own for this.
    /// Must be called while the process has one thread.
    pub fn run(self, inside: impl FnOnce() -> u8) -> Result<u8> {
        require_one_thread()?;
        let users = self.unshare()?;
        let (alive, lifeline) = pipe().context("make a pipe")?;
        // SAFETY: the process has one thread, so the child may do all that a new process may.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => {
                drop(alive);
                let status = wait(child);
                drop(lifeline);
                status
            }
            ForkResult::Child => {
                drop(lifeline);
                let status = begin(users, &alive).map_or_else(
                    |err| {
                        report(&err);
                        1
                    },
                    |()| inside(),
                );
                leave(status)
            }
        }
    }

    /// Moves this process into the new namespaces and says whether a user namespace is among them.
    fn unshare(self) -> Result<Users> {
        let world = CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        let real_root = geteuid().is_root();
        if self.users == Users::Own {
            let (uid, gid) = (geteuid(), getegid());
            match unshare(CloneFlags::CLONE_NEWUSER) {
                Ok(()) => {
                    map_to_root(uid.as_raw(), gid.as_raw()).map_err(|err| refusal::explain(&err))?;
                    unshare(world).map_err(|err| refusal::explain(&err.into()))?;
                    return Ok(Users::Own);
                }
                Err(err) if !real_root => return Err(refusal::explain(&err.into())),
                Err(_) => {}
            }
        } else if !real_root {
            bail!("enter a world with the machine's users: that needs root");
        }
        unshare(world).context("unshare namespaces as root")?;
        Ok(Users::Machine)
    }
}

/// Makes the caller the world's user and group 0.
fn map_to_root(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// First acts of the world's first process: bind its life to its parent's, then make the mounts private.
fn begin(users: Users, alive: &OwnedFd) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("tie the world to its parent")?;
    // The parent may have died before the line above: then its end of the pipe is closed already.
    let mut ends = [PollFd::new(std::os::fd::AsFd::as_fd(alive), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).context("look for the parent")?;
    if ends[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)) {
        bail!("stay in a world whose parent is gone");
    }
    mounts::make_private().map_err(|err| match users {
        Users::Own => refusal::explain_mounts(err),
        Users::Machine => err,
    })
}

fn require_one_thread() -> Result<()> {
    let threads = fs::read_dir("/proc/self/task").context("count threads")?.count();
    if threads != 1 {
        bail!("enter a world: the process has {threads} threads and must have one");
    }
    Ok(())
}

/// Waits for the world's end; a signal counts as 128 + its number, as a shell has it.
fn wait(child: Pid) -> Result<u8> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(u8::try_from(status & 0xff).unwrap_or(1)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as u8),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(err) => return Err(err).context("wait for the world"),
        }
    }
}

#[expect(clippy::print_stderr, reason = "the world's first process has nobody to return an error to")]
fn report(err: &anyhow::Error) {
    eprintln!("harness: failed to {err:#}");
}

#[expect(clippy::exit, reason = "the forked child must never return into its parent's code")]
fn leave(status: u8) -> ! {
    std::process::exit(i32::from(status))
}
