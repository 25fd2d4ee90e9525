//! Waiting until the kernel has buried the network namespaces that nobody uses any more.
//!
//! It buries them in the background, one queue for the whole machine, in the order in which they died (`cleanup_net` of
//! `net/core/net_namespace.c`). So one that dies now is a mark: once it is gone, those that died before are gone too, however busy the
//! machine is.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::namespace::{at_home, on_thread};
use crate::deadline;

/// How long the kernel may take to clear away what was deleted.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after that whoever waits for the kernel (the child that a DEL leaves) may take to end.
const LATE: Duration = Duration::from_secs(2);

/// Looks until it is clean: while the kernel buries what died, and then a moment for whoever waits for it. Gives what was seen last.
pub(crate) fn settle<T>(mut look: impl FnMut() -> Result<T>, is_clean: impl Fn(&T) -> bool) -> Result<T> {
    let mut last = look()?;
    if is_clean(&last) {
        return Ok(last);
    }
    let burial = Burial::queue()?;
    let mut over: Option<Instant> = None;
    let settled = deadline::until(PATIENCE, || -> Option<Result<()>> {
        // In this order: what is seen after the burial is what stays.
        let looked = burial.is_over().and_then(|is_over| {
            over = over.or_else(|| is_over.then(Instant::now));
            look()
        });
        match looked {
            Ok(seen) => last = seen,
            Err(err) => return Some(Err(err)),
        }
        let is_late = over.is_some_and(|over| over.elapsed() >= LATE);
        (is_clean(&last) || is_late).then_some(Ok(()))
    });
    settled.unwrap_or(Ok(())).map(|()| last)
}

/// A namespace that was let die, and the end of a veth pair that dies with it: in the world's own namespace, which is no host's.
struct Burial {
    mark: String,
}

impl Burial {
    /// Queues up behind all namespaces that are dead by now.
    fn queue() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("burial{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let dying = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            File::open("/proc/thread-self/ns/net").context("open a namespace")
        })?;
        let far = LinkMessageBuilder::<LinkUnspec>::new().name("far".to_owned()).setns_by_fd(dying.as_raw_fd());
        let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(mark.clone());
        let pair = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).build();
        at_home(async |handle| handle.link().add(pair).execute().await.context("mark a namespace that is to die"))?;
        Ok(Self { mark })
    }

    /// Whether all that were dead when it queued up are gone.
    fn is_over(&self) -> Result<bool> {
        match if_nametoindex(self.mark.as_str()) {
            Ok(_) => Ok(false),
            Err(Errno::ENODEV) => Ok(true),
            Err(errno) => Err(errno).context("look for the mark of a dying namespace"),
        }
    }
}
