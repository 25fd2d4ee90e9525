//! The deadlines, all in one table, and what a piece of work waits for, so that one that a deadline ends can say so.
//!
//! A wait is on the list of the work that waits, from its first moment until it ends or is dropped: the last of the list is what keeps the
//! work from going on.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A runtime's call, reading what it asks included, and each thing that an operator's command does. Runtimes hold locks meanwhile and have
/// no limit of their own.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// Undoing what a call has made that failed.
pub(crate) const UNDO: Duration = Duration::from_secs(4);
/// A part of that, or of a DEL, after which something is left to do.
pub(crate) const UNDO_PART: Duration = Duration::from_secs(2);
/// Another plugin that gives a network's addresses (`ipam.type`): the rest of the call is flatnet's.
pub(crate) const DELEGATE: Duration = Duration::from_secs(8);
/// The same plugin, when it is to take back what it may have given to an ADD that failed: a runtime waits for the error already. Less than
/// [`UNDO`], which would not say who did not answer.
pub(crate) const DELEGATE_UNDO: Duration = Duration::from_secs(3);
/// Reading `ipam.resolvConf`, which may be a file of another host's.
pub(crate) const RESOLV_CONF: Duration = Duration::from_secs(5);
/// The life of a child process that may hang in the kernel, in seconds, whatever has become of its parent: twice as long as that waits.
pub(crate) const CHILD_S: u32 = 20;
/// A program that was killed, and may hang in the kernel, where nothing ends it: then init waits for it.
pub(crate) const KILLED: Duration = Duration::from_secs(1);
/// A program that an operator's command asks: Podman, at its first start after a boot, takes seconds.
pub(crate) const PROGRAM: Duration = Duration::from_secs(10);
/// The name service of this host, asked by doctor: longer than it may take to try containers of which some do not answer.
pub(crate) const NAME_SERVICE: Duration = Duration::from_secs(5);
/// A gateway, asked by doctor: longer than flatnet.conf lets it wait for the name service. Then it says that it does not reach this host.
pub(crate) const GATEWAY: Duration = Duration::from_secs(9);
/// Podman, asked about all containers: whoever starts or stops one holds its lock meanwhile, through an ADD and the ten seconds of a stop.
pub(crate) const PODMAN: Duration = Duration::from_secs(30);
/// A program that changes something for install or uninstall: Podman and systemd may wait for others.
pub(crate) const INSTALL: Duration = Duration::from_mins(2);

tokio::task_local! {
    /// Of the innermost [`watched`] work.
    static WAITS: Waits;
}

/// A wait that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// What for, to follow "waited for".
    pub(crate) what: Cow<'static, str>,
    since: Instant,
}

/// The waits of a piece of work, the outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits(Rc<RefCell<Vec<Wait>>>);

/// Takes the wait off its list when it ends, in whatever way.
struct Entered(Waits);

impl Wait {
    /// How long it has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Waits {
    /// What keeps the work from going on, if it waits for anything.
    pub(crate) fn innermost(&self) -> Option<Wait> {
        self.0.borrow().last().cloned()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.borrow_mut().pop();
    }
}

/// `work`, whose waits are put on this list.
pub(crate) fn watched<T>(waits: Waits, work: impl Future<Output = T>) -> impl Future<Output = T> {
    WAITS.scope(waits, work)
}

/// `work`, which is a wait for `what`. Waits of one piece of work are one inside the other, never side by side.
pub(crate) async fn waiting_for<T>(what: impl Into<Cow<'static, str>>, work: impl Future<Output = T>) -> T {
    let entered = WAITS.try_with(Waits::clone).ok().map(|waits| {
        waits.0.borrow_mut().push(Wait { what: what.into(), since: Instant::now() });
        Entered(waits)
    });
    let done = work.await;
    drop(entered);
    done
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
    }

    #[test]
    fn the_innermost_wait_is_named_while_it_lasts() {
        let waits = Waits::default();
        runtime().block_on(async {
            let work = watched(waits.clone(), async {
                waiting_for("a first thing", async {}).await;
                waiting_for("the outer", waiting_for(format!("the inner {}", 1), pending::<()>())).await;
            });
            let mut work = std::pin::pin!(work);
            let ended = tokio::time::timeout(Duration::from_secs(1), work.as_mut()).await;
            assert!(ended.is_err());
            assert_eq!(waits.innermost().map(|wait| wait.what), Some("the inner 1".into()));
        });
        assert_eq!(waits.innermost(), None, "what was dropped waits no more");
    }

    #[test]
    fn nobody_listens_outside() {
        assert_eq!(runtime().block_on(waiting_for("anything", async { 1 })), 1);
    }
}
