//! Work that may hang in the kernel, as reading a file does whose server is gone: a child process does it, and whoever waits for it can
//! give it up.
//!
//! A thread would not do: a process is not gone before its last thread is, and the runtime waits for that.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, alarm, dup2_stderr, dup2_stdin, dup2_stdout, fork};
use tokio::net::unix::pipe::Receiver;

use super::read_to_end;
use crate::deadline;
use crate::error::errno_of;

/// Dropped, it is killed: it ends as soon as the kernel lets it.
struct Aside(Pid);

impl Drop for Aside {
    fn drop(&mut self) {
        // Nobody has waited for it, so that the number is still its own.
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// The bytes that `work` gives; none where it panics. The process must have one thread. Must be called in a tokio runtime.
/// Errors: `FileTooLarge` where there are more than `max_bytes`.
pub(crate) async fn aside(max_bytes: usize, work: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let (reader, mut writer) = io::pipe()?;
    let reader = Receiver::from_owned_fd(OwnedFd::from(reader))?;
    // SAFETY: the process has one thread, so that the child has everything that it had, in a usable state; and the child never
    // returns from here.
    let _child = match unsafe { fork() }? {
        ForkResult::Parent { child } => Aside(child),
        ForkResult::Child => {
            alarm::set(deadline::CHILD_S);
            // Where that fails, the runtime waits a little longer for its streams.
            let _ = detach();
            if let Ok(bytes) = catch_unwind(AssertUnwindSafe(work)) {
                // Nobody hears it where the parent has given up.
                let _ = writer.write_all(&bytes);
            }
            // SAFETY: ends the process at once; nothing of the parent's copied state is flushed or dropped a second time.
            unsafe { libc::_exit(0) }
        }
    };
    drop(writer);
    read_to_end(&reader, max_bytes).await
}

/// Lets go of the parent's standard streams: a runtime reads them until nobody holds them.
pub(crate) fn detach() -> Result<(), Errno> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|e| errno_of(&e))?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// More than a child of another test lives, which was begun at the same moment and so holds this one's pipe open as well.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// The outcome, if there is one in time.
    fn outcome(patience: Duration, work: impl FnOnce() -> Vec<u8>) -> Option<io::Result<Vec<u8>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(patience, aside(5, work)).await.ok() })
    }

    #[test]
    fn what_is_done_is_heard() {
        let heard = |work: fn() -> Vec<u8>| outcome(PATIENCE, work).expect("in time");
        assert_eq!(heard(|| b"hello".to_vec()).expect("bytes"), b"hello");
        assert_eq!(heard(|| vec![0; 6]).expect_err("too much").kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_hangs_is_given_up() {
        let start = Instant::now();
        // Nobody unparks it.
        let hangs = || loop {
            std::thread::park();
        };
        assert!(outcome(Duration::from_millis(500), hangs).is_none());
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }
}
