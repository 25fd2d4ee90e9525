//! A child process with an end to the patience: its output captured, its time taken.
//!
//! Invariant: returns by the deadline; a process that is late is killed by its own id, and said to have been.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::deadline;

/// What became of a process.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended; `None` if it was killed for being late.
    pub status: Option<ExitStatus>,
    /// All that it wrote to its standard output.
    pub stdout: String,
    /// All that it wrote to its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub wall: Duration,
}

impl Finished {
    /// Its exit status in words.
    pub fn status_text(&self) -> String {
        self.status.map_or_else(|| "killed: it was late".to_owned(), |status| status.to_string())
    }
}

/// Runs `command` with `stdin`, for `patience` at most.
///
/// Like every caller that reads a child's output, this waits until all holders of the pipes are done, not only the child.
pub fn run(mut command: Command, stdin: &[u8], patience: Duration) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = self::start(&mut command, stdin)?;
    let [stdout, stderr] =
        outputs(&mut child, start + patience).with_context(|| format!("read the output of {name}"))?;
    let left = patience.saturating_sub(start.elapsed());
    let ended = deadline::until(left, || child.try_wait().transpose());
    let status = ended.transpose().with_context(|| format!("wait for {name}"))?;
    if status.is_none() {
        child.kill().and_then(|()| child.wait()).with_context(|| format!("kill {name}"))?;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr), wall: start.elapsed() })
}

/// Starts `command`, all three of its streams pipes, and sees to it that it gets `stdin`.
pub(crate) fn start(command: &mut Command, stdin: &[u8]) -> Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    if let Some(mut pipe) = child.stdin.take() {
        let text = stdin.to_vec();
        // Whoever does not read its input closes the pipe: no error of ours.
        thread::spawn(move || drop(pipe.write_all(&text)));
    }
    Ok(child)
}

/// Reads both outputs to their ends, or to the deadline.
pub(crate) fn outputs(child: &mut Child, end: Instant) -> io::Result<[Vec<u8>; 2]> {
    let stdout = child.stdout.take().map(OwnedFd::from).map(File::from);
    let stderr = child.stderr.take().map(OwnedFd::from).map(File::from);
    let mut pipes = [stdout, stderr];
    let mut texts = [Vec::new(), Vec::new()];
    while pipes.iter().any(Option::is_some) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let ready = wait_for_any(&pipes, left)?;
        let open = pipes.iter_mut().zip(&mut texts).filter(|(pipe, _)| pipe.is_some());
        for ((pipe, text), ready) in open.zip(ready) {
            if ready && !drain(pipe, text)? {
                *pipe = None;
            }
        }
    }
    Ok(texts)
}

/// Which of the open pipes have something to say.
fn wait_for_any(pipes: &[Option<File>], patience: Duration) -> io::Result<Vec<bool>> {
    let open = pipes.iter().flatten();
    let mut ends: Vec<PollFd> = open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut ends, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
        Ok(_) => Ok(ends.iter().map(|end| end.revents().is_some_and(|seen| !seen.is_empty())).collect()),
        Err(Errno::EINTR) => Ok(vec![false; ends.len()]),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes what is there; false at the end.
fn drain(pipe: &mut Option<File>, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 8192];
    let read = pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer))?;
    into.extend_from_slice(&buffer[..read]);
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn input_and_both_outputs_pass() {
        let done = run(shell("cat; echo two >&2; exit 3"), b"one", Duration::from_secs(5)).unwrap();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one", "two\n"));
        assert_eq!(done.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_late_process_is_killed_and_said_to_be_late() {
        let done = run(shell("echo early; exec sleep 30"), b"", Duration::from_millis(100)).unwrap();
        assert_eq!((done.status, done.stdout.as_str()), (None, "early\n"));
        assert!(done.wall < Duration::from_secs(5));
    }
}
