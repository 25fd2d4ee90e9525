//! What a child process took: by the clock, and of a processor.
//!
//! Invariant: of processor time only what the children that were waited for meanwhile have used counts, in and for the kernel as well.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;

/// What one call took.
#[derive(Clone, Copy, Default)]
pub(super) struct Took {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
}

/// Measures `work`, which starts a process and waits for it.
pub(super) fn by<T>(work: impl FnOnce() -> T) -> Result<(Took, T)> {
    let before = of_children()?;
    let start = Instant::now();
    let done = work();
    let wall = start.elapsed();
    Ok((Took { wall, processor: of_children()?.saturating_sub(before) }, done))
}

/// The processor time of all children that were waited for.
fn of_children() -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of that type's size, and a rusage of zeros is one.
    let usage = unsafe {
        Errno::result(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr())).context("ask what processes used")?;
        usage.assume_init()
    };
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::from_secs(time.tv_sec.try_into()?) + Duration::from_micros(time.tv_usec.try_into()?))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn waiting_takes_no_processor_and_counting_does() {
        let run = |script| by(|| Command::new("sh").args(["-c", script]).status()).expect("a measure").0;
        let (waits, counts) =
            (run("read x </dev/null; sleep 0.3"), run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"));
        assert!(waits.wall >= Duration::from_millis(300) && waits.processor < waits.wall / 2, "{:?}", waits.processor);
        assert!(counts.processor > waits.processor, "{:?}", counts.processor);
    }
}
