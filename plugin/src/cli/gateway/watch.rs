//! What wakes `flatnet gateway`: the kernel's announcements of links, addresses and routes, and of rules where a network has some.
//!
//! Nobody listens to nftables where no network needs it: that alone may load kernel modules.

use std::pin::pin;

use futures_util::future::{Either, select};

use crate::error::Result;
use crate::netlink::Changes;

/// The announcements that count.
pub(super) struct Watch {
    links: Changes,
    /// Where they lead is where other firewalls let containers' packets pass to.
    routes: Changes,
    rules: Rules,
}

enum Rules {
    NotAsked,
    /// Nothing where the kernel has no nftables; the rules themselves then say what it lacks.
    Asked(Option<Changes>),
}

impl Watch {
    pub(super) fn open() -> Result<Self> {
        let (links, routes) = (Changes::open()?, Changes::of_routes()?);
        Ok(Self { links, routes, rules: Rules::NotAsked })
    }

    /// Listens to nftables from now on.
    pub(super) fn also_rules(&mut self) {
        if matches!(self.rules, Rules::NotAsked) {
            self.rules = Rules::Asked(Changes::of_rules().ok());
        }
    }

    /// Ends as soon as something has changed.
    pub(super) async fn change(&self) -> Result<()> {
        let (links, routes) = (pin!(self.links.wait()), pin!(self.routes.wait()));
        let ways = select(links, routes);
        let Rules::Asked(Some(rules)) = &self.rules else { return ways.await.factor_first().0 };
        match select(ways, pin!(rules.wait())).await {
            Either::Left((ways, _)) => ways.factor_first().0,
            Either::Right((rules, _)) => rules,
        }
    }
}
