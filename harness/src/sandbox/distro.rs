//! A second distribution beside the world's own, as WSL has them: other files, the same network.
//!
//! Invariant: it sees the containers' namespaces that the world makes, before and after; nothing that it mounts or writes is seen
//! in the world, and it ends with its last process and with this value.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::mounts::{STATE_FOLDERS, empty_folder};

/// Where the containers' namespaces are, in every distribution.
const NAMESPACES: &str = "/run/netns";

/// A mount namespace with state folders of its own.
#[derive(Debug)]
pub struct Distro(File);

impl Distro {
    /// Makes one, its folders empty. Must be called inside a world.
    pub fn create() -> Result<Self> {
        let none = None::<&str>;
        // What is mounted there from now on is to be seen in the other as well.
        mount(none, "/run", none, MsFlags::MS_SHARED, none).context("share /run")?;
        fs::create_dir_all(NAMESPACES).context("make the folder of namespaces")?;
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare mounts")?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("cut mounts off")?;
            let namespaces = File::open(NAMESPACES).context("open the folder of namespaces")?;
            STATE_FOLDERS.iter().try_for_each(|folder| empty_folder(folder))?;
            fs::create_dir_all(NAMESPACES).context("make the folder of namespaces")?;
            let seen = format!("/proc/thread-self/fd/{}", namespaces.as_raw_fd());
            mount(Some(seen.as_str()), NAMESPACES, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
                .context("show the containers' namespaces")?;
            File::open("/proc/thread-self/ns/mnt").context("open a mount namespace").map(Self)
        })
    }

    /// Makes a command run in it.
    pub fn adopt(&self, command: &mut Command) -> Result<()> {
        let mounts = self.0.try_clone().context("keep a mount namespace open")?;
        // SAFETY: between fork and exec the closure makes one system call and touches no memory but its own descriptor.
        unsafe {
            command.pre_exec(move || Ok(setns(&mounts, CloneFlags::CLONE_NEWNS)?));
        }
        Ok(())
    }

    /// Runs `inside` on a thread that sees its files, and waits for it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_FS).context("leave the other threads' folder")?;
            setns(&self.0, CloneFlags::CLONE_NEWNS).context("enter a mount namespace")?;
            inside()
        })
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("go on after a panic on a thread"))?
}
