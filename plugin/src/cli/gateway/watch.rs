//! What wakes `flatnet gateway`: the kernel's announcements of links and addresses, and of rules where a network masquerades.
//!
//! Nobody listens to nftables where no network needs it: that alone may load kernel modules.

use std::pin::pin;

use futures_util::future::select;
use nix::errno::Errno;

use crate::error::{Doing, Result};
use crate::netlink::Changes;

/// The announcements that count.
pub(super) struct Watch {
    links: Changes,
    rules: Rules,
}

enum Rules {
    NotAsked,
    /// Nothing where the kernel has no nftables; the rules themselves then say what it lacks.
    Asked(Option<Changes>),
}

impl Watch {
    pub(super) fn open() -> Result<Self> {
        let links = Changes::open().doing(|| "listen to the kernel's announcements".into())?;
        Ok(Self { links, rules: Rules::NotAsked })
    }

    /// Listens to nftables from now on.
    pub(super) fn also_rules(&mut self) {
        if matches!(self.rules, Rules::NotAsked) {
            self.rules = Rules::Asked(Changes::of_rules().ok());
        }
    }

    /// Ends as soon as something has changed.
    pub(super) async fn change(&self) -> Result<(), Errno> {
        let Rules::Asked(Some(rules)) = &self.rules else { return self.links.wait().await };
        select(pin!(self.links.wait()), pin!(rules.wait())).await.factor_first().0
    }
}
