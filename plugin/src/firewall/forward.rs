//! The way to containers through other firewalls: where one would drop what is forwarded, flatnet puts an accept of its own there.
//!
//! The accepts are scoped by bridge and subnet, are there once, and go when the bridge has gone. Nothing is written where nothing
//! drops, and of the kernel no more is asked than a list of chains where no other firewall has any for what is forwarded. Rules of
//! nftables, and so of today's iptables, are read and written without any program; only those of the older iptables need theirs.

mod legacy;
mod nftables;
mod plan;

use std::fs;

use self::plan::{Plan, Wanted};
use super::lock;
use super::rules::Ruleset;
use crate::config::Network;
use crate::error::{Doing, Error, Result, both};
use crate::layout::FLAT_RANGE;
use crate::netlink::Netlink;

/// Whether bridges show what they pass to iptables and nftables, too; without `br_netfilter` there is no such file.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// How often a change is tried whose chain or rule another firewall has just taken away.
const TRIES: u32 = 3;

/// Where rules are kept; each has its own language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Nftables,
    Legacy,
}

/// What a change came to.
enum Changed {
    Done,
    /// What was there when it was planned is not any more.
    Overtaken(Error),
}

/// Why something could not be done.
enum Trouble {
    /// It is not in flatnet's power, today and tomorrow.
    Beyond(Error),
    Failed(Error),
}

/// Opens the way to the network's containers, if it is not open. Gives what keeps it shut, where that is beyond flatnet: the host
/// itself reaches containers all the same. Errors: 109 where it failed, and may not the next time.
pub(crate) async fn open(host: &Netlink, network: &Network) -> Result<Option<Error>> {
    let (first, second) =
        (Store::Nftables.mend(host, Some(network)).await, Store::Legacy.mend(host, Some(network)).await);
    let mut beyond = None;
    for outcome in [first, second] {
        match outcome {
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Beyond(error)) => beyond = Some(error),
            Ok(()) => {}
        }
    }
    Ok(beyond)
}

/// Takes away what was written for networks whose bridge has gone.
pub(crate) async fn sweep(host: &Netlink) -> Result<()> {
    both(within_power(Store::Nftables.mend(host, None).await), within_power(Store::Legacy.mend(host, None).await))
}

/// What cuts the network's containers off, in words, for CHECK.
pub(crate) async fn problem(network: &Network) -> Result<Option<String>> {
    for store in [Store::Nftables, Store::Legacy] {
        let Some(ruleset) = within_power(store.read().await)? else { continue };
        if let Some(chain) = plan::open(&ruleset, &Wanted::of(network)).obstacles.first() {
            return Ok(Some(format!("{chain} drops what is forwarded, and flatnet's accept is not there")));
        }
    }
    Ok(None)
}

/// Whether something is there for that bridge.
pub(crate) async fn exists(bridge: &str) -> Result<bool> {
    for store in [Store::Nftables, Store::Legacy] {
        let ruleset = within_power(store.read().await)?.unwrap_or_default();
        if plan::bridges(&ruleset).iter().any(|it| it == bridge) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether frames between ports of one bridge meet the rules as well.
pub(crate) fn is_bridged() -> bool {
    fs::read_to_string(BRIDGE_CALLS).is_ok_and(|text| text.trim() == "1")
}

impl<'a> Wanted<'a> {
    fn of(network: &'a Network) -> Self {
        let Network { name, bridge, .. } = network;
        let subnet = network.ipv4().map_or(FLAT_RANGE, |(subnet, _)| subnet);
        Self { network: name, bridge, subnet, bridged: is_bridged() }
    }
}

/// What cannot be looked at cannot have been written either.
fn within_power<T: Default>(outcome: Result<T, Trouble>) -> Result<T> {
    match outcome {
        Ok(done) => Ok(done),
        Err(Trouble::Beyond(_)) => Ok(T::default()),
        Err(Trouble::Failed(error)) => Err(error),
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Store {
    /// Nothing where it has no chain that forwarded packets meet.
    async fn read(self) -> Result<Option<Ruleset>, Trouble> {
        match self {
            Self::Nftables => nftables::read().await,
            Self::Legacy => legacy::read().await,
        }
    }

    async fn change(self, plan: &Plan) -> Result<Changed, Trouble> {
        match self {
            Self::Nftables => nftables::change(&plan.edits).await,
            Self::Legacy => legacy::change(&plan.edits).await,
        }
    }

    /// What is planned under the lock is done under it: no accept comes twice, however many first ADDs there are.
    async fn mend(self, host: &Netlink, network: Option<&Network>) -> Result<(), Trouble> {
        if self.plan(host, network).await?.edits.is_empty() {
            return Ok(());
        }
        let _lock = lock().await?;
        let mut tries = 0;
        loop {
            let plan = self.plan(host, network).await?;
            if plan.edits.is_empty() {
                return Ok(());
            }
            tries += 1;
            match self.change(&plan).await? {
                Changed::Done => return Ok(()),
                Changed::Overtaken(error) if tries == TRIES => return Err(error.into()),
                Changed::Overtaken(_) => {}
            }
        }
    }

    async fn plan(self, host: &Netlink, network: Option<&Network>) -> Result<Plan, Trouble> {
        let Some(ruleset) = self.read().await? else { return Ok(Plan::default()) };
        let mut plan = network.map(|network| plan::open(&ruleset, &Wanted::of(network))).unwrap_or_default();
        let mut gone = Vec::new();
        for bridge in plan::bridges(&ruleset) {
            let link = host.link(&bridge).await.doing(|| format!("look up {bridge}"))?;
            // The kernel finds a link by its alternative names as well.
            if link.is_none_or(|link| link.name != bridge) {
                gone.push(bridge);
            }
        }
        // After the rest: numbers of rules in it are counted with these.
        let is_gone = |bridge: &str| gone.iter().any(|it| it == bridge);
        let swept = plan::sweep(&ruleset, is_gone).into_iter().filter(|edit| !plan.edits.contains(edit));
        let swept: Vec<_> = swept.collect();
        plan.edits.extend(swept);
        Ok(plan)
    }
}

/// Error 109: the way could not be looked at, or not opened.
fn failed(problem: impl Into<String>, remedy: impl Into<String>) -> Error {
    let doing = "open the way to containers through another firewall".into();
    Error::Firewall { doing, problem: problem.into(), remedy: remedy.into() }
}
