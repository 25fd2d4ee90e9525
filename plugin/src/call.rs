//! The frame of a call, whoever makes it: an event loop, a deadline, and undoing.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::deadline::{self, Waits, watched};
use crate::error::{Doing, Error, Result, errno_of};

/// When a runtime's call has to be done. An operator's command has no such moment, and [`deadline::CALL`] for each thing that it does.
static CALL_ENDS: OnceLock<Instant> = OnceLock::new();

/// From here on reading, working and asking others share one deadline.
pub(crate) fn begin_call() {
    // A process answers one call.
    CALL_ENDS.get_or_init(|| Instant::now() + deadline::CALL);
}

/// Runs `work` to its end on this thread, which is in its own network namespace whenever anything is awaited.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| errno_of(&e)).doing(|| "start the event loop".into())?;
    runtime.block_on(work)
}

/// `work`, ended by the deadline with error 11, and by a panic with error 107.
pub(crate) fn within_deadline<T>(work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    let ends = CALL_ENDS.get();
    let left = ends.map_or(deadline::CALL, |end| end.saturating_duration_since(Instant::now()));
    within(left, deadline::CALL, work)
}

/// `work` of which something is left to do when it is late: it may take half as long as undoing may, whatever time it is.
pub(crate) fn within_part<T>(work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    within(deadline::UNDO_PART, deadline::UNDO_PART, work)
}

/// What has to be done also where the deadline has passed already.
fn within_reserve<T>(work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    within(deadline::UNDO, deadline::UNDO, work)
}

/// `work`, for what is `left` of a deadline.
fn within<T>(
    left: Duration,
    deadline: Duration,
    work: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    let waits = Waits::default();
    // On the heap at once: it may be tens of kilobytes, and each future around it would be as large once more.
    let mut guarded = Box::pin(watched(waits.clone(), AssertUnwindSafe(work).catch_unwind()));
    async move {
        // By reference: it is not dropped before its waits are asked for.
        match tokio::time::timeout(left, guarded.as_mut()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(Error::Internal { message: panic_message(panic.as_ref()) }),
            Err(_elapsed) => Err(Error::Deadline { deadline, wait: waits.innermost() }),
        }
    }
}

/// The outcome; where it is a failure, after `undo`, which has a deadline of its own. Reports both failures if there are two.
pub(crate) async fn undone<T, U>(outcome: Result<T>, undo: impl FnOnce() -> U) -> Result<T>
where
    U: Future<Output = Result<()>>,
{
    let cause = match outcome {
        Ok(done) => return Ok(done),
        Err(cause) => cause,
    };
    match within_reserve(undo()).await {
        Ok(()) => Err(cause),
        Err(undo) => Err(cause.and_then(undo)),
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked without a message".into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn or_undo<T, U>(work: impl Future<Output = Result<T>>, undo: impl FnOnce() -> U) -> Result<T>
    where
        U: Future<Output = Result<()>>,
    {
        undone(within_deadline(work).await, undo).await
    }

    async fn failing_undo() -> Result<()> {
        Err(Error::Internal { message: "undo".into() })
    }

    #[test]
    fn a_panic_is_an_error_and_is_undone() {
        let undone = Cell::new(false);
        let outcome = block_on(or_undo(
            async {
                assert_eq!(1, 2, "the panic's message");
                Ok(())
            },
            || async {
                undone.set(true);
                Ok(())
            },
        ));
        let error = outcome.expect_err("a panic");
        assert_eq!(error.code(), 107);
        assert!(error.to_string().contains("the panic's message"), "{error}");
        assert!(undone.get());
    }

    #[test]
    fn success_is_not_undone() {
        assert_eq!(block_on(or_undo(async { Ok(1) }, failing_undo)).expect("success"), 1);
    }

    #[test]
    fn both_failures_are_told() {
        let outcome = block_on(or_undo(async { Err::<(), _>(Error::Version { asked: "x".into() }) }, failing_undo));
        let error = outcome.expect_err("two failures");
        assert_eq!(error.code(), 1);
        assert!(error.remedy().contains("undo"), "{}", error.remedy());
    }

    #[test]
    fn what_never_ends_is_ended_and_undone() {
        let undone = Cell::new(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let outcome = runtime.expect("a runtime").block_on(or_undo(std::future::pending::<Result<()>>(), || async {
            undone.set(true);
            Ok(())
        }));
        assert_eq!(outcome.expect_err("a deadline").code(), 11);
        assert!(undone.get());
    }

    #[test]
    fn a_deadline_names_what_was_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let work = deadline::waiting_for("the moon", std::future::pending::<Result<()>>());
        let error = runtime.expect("a runtime").block_on(within_deadline(work)).expect_err("a deadline");
        assert_eq!(error.to_string(), "timed out after 10 s: waited 0.0 s for the moon");
    }
}
