//! A program that flatnet runs: fed from memory, heard to its end, and ended where the caller's patience ends first.
//!
//! It leads a process group of its own, so that whoever gives it up ends what it has started as well: a child of a child keeps
//! the output open, and would keep everybody waiting.

pub(crate) mod aside;
pub(crate) mod place;
pub(crate) mod program;

use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe::Receiver;

use crate::deadline;

/// A program ends a moment after its output: how often that is looked at.
const END_INTERVAL: Duration = Duration::from_millis(1);

/// A running program. Dropped before it has ended, it is killed with all of its group.
pub(crate) struct Child {
    process: process::Child,
    output: Receiver,
    ended: bool,
}

impl Child {
    /// Starts `command`, whose standard output is heard. Must be called in a tokio runtime.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        debug!("starting {command:?}");
        let mut process = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let output = process.stdout.take().ok_or_else(|| io::Error::from(ErrorKind::BrokenPipe));
        match output.and_then(|output| Receiver::from_owned_fd(OwnedFd::from(output))) {
            Ok(output) => Ok(Self { process, output, ended: false }),
            Err(e) => {
                end(&mut process);
                Err(e)
            }
        }
    }

    /// Its output and how it ended. Errors: `FileTooLarge` where it says more than `max_bytes`.
    pub(crate) async fn hear(mut self, max_bytes: usize) -> io::Result<(Vec<u8>, ExitStatus)> {
        let said = read_to_end(&self.output, max_bytes).await?;
        loop {
            if let Some(status) = self.process.try_wait()? {
                self.ended = true;
                return Ok((said, status));
            }
            tokio::time::sleep(END_INTERVAL).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            end(&mut self.process);
        }
    }
}

/// Nobody has waited for the process yet, so that its number is still its own, and its group's.
fn end(process: &mut process::Child) {
    if let Ok(pid) = i32::try_from(process.id()) {
        // It fails where all have ended already.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let until = Instant::now() + deadline::KILLED;
    while process.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < until {
        // Not tokio's sleep: a drop cannot await.
        thread::sleep(END_INTERVAL);
    }
}

/// A file in memory with this text, to be read from its start: neither end of it ever waits for the other.
pub(crate) fn memory(name: &str, text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

async fn read_to_end(pipe: &Receiver, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if bytes.len() > max_bytes {
            return Err(ErrorKind::FileTooLarge.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_fed_and_heard_to_its_end() {
        let (said, status) = runtime()
            .block_on(async {
                let input = memory("test", "hello")?;
                Child::start(shell("cat; exit 3").stdin(input))?.hear(5).await
            })
            .expect("an end");
        assert_eq!((said.as_slice(), status.code()), (b"hello".as_slice(), Some(3)));
    }

    #[test]
    fn one_that_says_too_much_is_ended() {
        let outcome = runtime().block_on(async { Child::start(&mut shell("exec cat /dev/zero"))?.hear(1 << 20).await });
        assert_eq!(outcome.expect_err("too much").kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn one_that_is_given_up_takes_its_children_along() {
        let mut read = None;
        runtime().block_on(async {
            let (reader, writer) = io::pipe().expect("a pipe");
            read = Some(reader);
            // The shell ends at once, and leaves its output to a child; whose end is that of the pipe.
            let child = Child::start(shell("sleep 60 & exit 0").stderr(writer)).expect("a start");
            let heard = tokio::time::timeout(Duration::from_millis(50), child.hear(0)).await;
            assert!(heard.is_err(), "{heard:?}");
        });
        let start = Instant::now();
        let all = io::read_to_string(read.expect("a pipe")).expect("an end");
        assert_eq!(all, "");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
