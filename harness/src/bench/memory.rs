//! The peak memory of a process, read at its last moment.
//!
//! What `wait4` reports would include the memory of the process that it was forked from.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const BYTES_PER_KIBIBYTE: f64 = 1024.0;

/// Runs `command` to its end and gives its peak resident memory (`VmHWM` of proc(5)), in MiB.
pub(super) fn peak_mebibytes(mut command: Command) -> Result<f64> {
    // SAFETY: between fork and exec the closure makes one system call and touches no memory.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    // The child stops at its exec, so `spawn` returns.
    let child = command.spawn().context("start a process to measure")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("read a process id")?);
    let mut peak = None;
    loop {
        match waitpid(pid, None).context("wait for the process")? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) if peak.is_none() => {
                ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACEEXIT).context("watch for its end")?;
                ptrace::cont(pid, None).context("let it run")?;
            }
            WaitStatus::PtraceEvent(..) => {
                peak = Some(high_water_mark(pid)?);
                ptrace::cont(pid, None).context("let it end")?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).context("pass a signal on")?,
            WaitStatus::Exited(_, 0) => break,
            other => bail!("measure a process: it ended with {other:?}"),
        }
    }
    peak.context("see the process end")
}

fn high_water_mark(pid: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the status of a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("find VmHWM")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().context("read VmHWM")?;
    Ok(kibibytes / BYTES_PER_KIBIBYTE)
}
