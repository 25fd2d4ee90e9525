//! The undo ledger of an ADD: what it has made, or may have made, in the order of making.
//!
//! Invariant: an entry is written before what it is about is made, so that undoing misses nothing, whatever cuts the ADD short; and undoing
//! takes away nothing that another ADD has made.

use crate::call::{undone, within_part};
use crate::delegate::Delegate;
use crate::error::{Result, both};
use crate::firewall::{ports, spoofing};
use crate::link::veth;
use crate::netlink::{Link, Netlink};

/// What one ADD has made.
#[derive(Default)]
pub(super) struct Ledger<'a> {
    entries: Vec<Entry<'a>>,
    /// The index of the bridge that the ADD uses, once there is one. The bridge stays; but whatever fails when it has been deleted is worth
    /// another try.
    pub(super) bridge: Option<u32>,
}

/// One thing that has to be undone.
pub(super) enum Entry<'a> {
    /// Another plugin was started to give addresses.
    Delegated(&'a Delegate<'a>),
    /// Rules about what the container may send. They go when their link has gone: the entry is written before the pair's.
    AllowedSources,
    /// The kernel is asked for a pair whose host end has this name.
    PairRequested(String),
    /// It has made the pair, and this is the host end.
    Pair(Box<Link>),
    /// Ports are published under the attachment's name, which is the ADD's own.
    Published(String),
}

impl<'a> Ledger<'a> {
    /// To be called before it is made.
    pub(super) fn write(&mut self, entry: Entry<'a>) {
        self.entries.push(entry);
    }

    /// The last entry is about nothing: it was not made.
    pub(super) fn strike(&mut self) {
        self.entries.pop();
    }

    /// More is known of what the last entry is about.
    pub(super) fn amend(&mut self, entry: Entry<'a>) {
        self.entries.pop();
        self.entries.push(entry);
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The outcome of the ADD; where it is a failure, after undoing all of it. Reports both failures if there are two.
    pub(super) async fn settle<T>(&mut self, outcome: Result<T>, host: &Netlink) -> Result<T> {
        undone(outcome, || self.undo_from(0, host)).await
    }

    /// Undoes in reverse what was written after the first `kept` entries; goes on past errors, and reports them all.
    pub(super) async fn undo_from(&mut self, kept: usize, host: &Netlink) -> Result<()> {
        let (mut outcome, mut reopened) = (Ok(()), None);
        if host.is_dead() && self.entries.len() > kept {
            match Netlink::open() {
                Ok(opened) => reopened = Some(opened),
                Err(error) => outcome = Err(error),
            }
        }
        // Where there is none, that has been reported.
        let host = reopened.as_ref().or(Some(host).filter(|host| !host.is_dead()));
        while self.entries.len() > kept {
            let Some(entry) = self.entries.last() else { break };
            outcome = both(outcome, entry.undo(host).await);
            // Not before: what is cut short here is undone by whoever comes next.
            self.entries.pop();
        }
        outcome
    }
}

impl Entry<'_> {
    async fn undo(&self, host: Option<&Netlink>) -> Result<()> {
        match (self, host) {
            (Self::Delegated(delegate), _) => delegate.undo().await,
            (_, None) => Ok(()),
            // It may be the packet filter that never answers: what else there is to undo needs some of the time.
            (Self::AllowedSources, Some(host)) => within_part(spoofing::forget_gone(host)).await,
            (Self::PairRequested(name), Some(host)) => veth::delete_new(host, name).await,
            (Self::Pair(link), Some(host)) => host.delete_link(link).await,
            // On the heap: it is large, and CNI never comes here.
            (Self::Published(attachment), Some(host)) => {
                Box::pin(within_part(ports::unpublish(host, attachment))).await
            }
        }
    }
}
