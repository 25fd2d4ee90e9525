//! The way to containers through other firewalls: where one would drop what is forwarded, flatnet puts an accept of its own there.
//!
//! The accepts are for what comes from and goes to links that no other program's containers are behind, for answers, and for published ports.
//! They are scoped by bridge and subnet, are there once, and go when the bridge has gone. Each family is looked at apart, and one
//! that the network does not have not at all. Nothing is written where nothing drops, and of the kernel no more is asked than a list
//! of chains where no other firewall has any for what is forwarded. Rules of nftables, and so of today's iptables, are read and
//! written without any program; only those of the older iptables need theirs.

mod legacy;
mod nftables;
mod outside;
mod plan;

use std::fs;

use self::plan::{Outside, Plan, Wanted};
use super::lock;
use crate::config::Network;
use crate::error::{Error, Result, both};
use crate::family::IpFamily;
use crate::filter::rules::Ruleset;
use crate::netlink::Netlink;

/// Whether bridges show what they pass to iptables and nftables, too; without `br_netfilter` there are no such files.
const BRIDGE_CALLS: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const BRIDGE_CALLS_IPV6: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
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
    let mut beyond = None;
    for family in families(network) {
        for store in Store::BOTH {
            match store.mend(host, family, Some(network)).await {
                Err(Trouble::Failed(error)) => return Err(error),
                Err(Trouble::Beyond(error)) => beyond = Some(error),
                Ok(()) => {}
            }
        }
    }
    Ok(beyond)
}

/// Takes away what was written for networks whose bridge has gone.
pub(crate) async fn sweep(host: &Netlink) -> Result<()> {
    let mut swept = Ok(());
    for (family, store) in everywhere() {
        swept = both(swept, within_power(store.mend(host, family, None).await));
    }
    swept
}

/// What cuts the network's containers off, in words, for CHECK.
pub(crate) async fn problem(host: &Netlink, network: &Network) -> Result<Option<String>> {
    for family in families(network) {
        for store in Store::BOTH {
            let Some(ruleset) = within_power(store.read(family).await)? else { continue };
            if !ruleset.can_drop() {
                continue;
            }
            let wanted = Wanted::of(host, network, family).await?;
            if let Some(chain) = plan::open(&ruleset, &wanted).obstacles.first() {
                return Ok(Some(format!("{chain} drops forwarded packets, and flatnet's accept rule is missing")));
            }
        }
    }
    Ok(None)
}

/// Whether something is there for that bridge.
pub(crate) async fn exists(bridge: &str) -> Result<bool> {
    for (family, store) in everywhere() {
        let ruleset = within_power(store.read(family).await)?.unwrap_or_default();
        if plan::bridges(&ruleset).iter().any(|it| it == bridge) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether frames between ports of one bridge meet the rules as well.
pub(crate) fn is_bridged(family: IpFamily) -> bool {
    let file = match family {
        IpFamily::V4 => BRIDGE_CALLS,
        IpFamily::V6 => BRIDGE_CALLS_IPV6,
    };
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// Those of which the network has subnets, and the host sees its containers' packets.
fn families(network: &Network) -> impl Iterator<Item = IpFamily> {
    let is_seen = |family| network.options.is_gateway || is_bridged(family);
    IpFamily::BOTH.into_iter().filter(move |family| network.has(*family) && is_seen(*family))
}

fn everywhere() -> impl Iterator<Item = (IpFamily, Store)> {
    IpFamily::BOTH.into_iter().flat_map(|family| Store::BOTH.map(|store| (family, store)))
}

impl<'a> Wanted<'a> {
    /// What the network needs of a family.
    async fn of(host: &Netlink, network: &'a Network, family: IpFamily) -> Result<Self> {
        let subnets = network.subnets_of(family);
        let gateway_link = network.options.is_gateway.then(|| network.gateway_link());
        let bridge = is_bridged(family).then_some(network.bridge.as_str());
        let outside = match gateway_link {
            Some(_) => outside::links(host, network, family).await?,
            None => Outside::default(),
        };
        Ok(Self { network: &network.name, gateway_link, outside, bridge, subnets })
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
    const BOTH: [Self; 2] = [Self::Nftables, Self::Legacy];

    /// Nothing where it has no chain that forwarded packets of that family meet.
    async fn read(self, family: IpFamily) -> Result<Option<Ruleset>, Trouble> {
        match self {
            Self::Nftables => nftables::read(family).await,
            Self::Legacy => legacy::read(family).await,
        }
    }

    async fn change(self, family: IpFamily, plan: &Plan) -> Result<Changed, Trouble> {
        match self {
            Self::Nftables => nftables::change(family, &plan.edits).await,
            Self::Legacy => legacy::change(family, &plan.edits).await,
        }
    }

    /// What is planned under the lock is done under it: no accept comes twice, however many first ADDs there are.
    async fn mend(self, host: &Netlink, family: IpFamily, network: Option<&Network>) -> Result<(), Trouble> {
        if self.plan(host, family, network).await?.edits.is_empty() {
            return Ok(());
        }
        let _lock = lock().await?;
        let mut tries = 0;
        loop {
            let plan = self.plan(host, family, network).await?;
            if plan.edits.is_empty() {
                return Ok(());
            }
            tries += 1;
            match self.change(family, &plan).await? {
                Changed::Done => return Ok(()),
                Changed::Overtaken(error) if tries == TRIES => return Err(error.into()),
                Changed::Overtaken(_) => {}
            }
        }
    }

    async fn plan(self, host: &Netlink, family: IpFamily, network: Option<&Network>) -> Result<Plan, Trouble> {
        let Some(ruleset) = self.read(family).await? else { return Ok(Plan::default()) };
        let mut plan = match network.filter(|_| ruleset.can_drop()) {
            Some(network) => plan::open(&ruleset, &Wanted::of(host, network, family).await?),
            None => Plan::default(),
        };
        let mut gone = Vec::new();
        for bridge in plan::bridges(&ruleset) {
            let link = host.link(&bridge).await?;
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
    let doing = "accept container traffic in another firewall".into();
    Error::Firewall { doing, problem: problem.into(), remedy: remedy.into() }
}
