//! Masquerade: what containers send beyond the flat range leaves with the host's own address, so that an answer finds its way back.
//!
//! A network's rules are one chain of flatnet's table, named after its bridge, for each family of its subnets: written in one transaction,
//! read back and compared as a whole, and replaced as a whole where anything is missing, altered, stale or foreign. Networks that share the
//! bridge share the chain, as do containers whose runtime named other ranges: it is for all their subnets. They live as long as the bridge, which stays when containers go. While there may be any of a family, the bridge carries an alternative name that says so: of
//! what a network does not have netfilter is not even asked. Who comes from outside is never translated, as only a connection's first
//! packet is looked at here.

mod rules;
mod sharing;

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

pub(crate) use self::rules::families;
use self::rules::{bridge_of, chain_name, wanted};
use self::sharing::{candidates, in_need, own_subnets, subnets_found};
use super::{TABLE, lock};
use crate::config::Network;
use crate::error::{Error, Result, unless_there};
use crate::family::IpFamily;
use crate::netlink::{Link, Netlink};
use crate::nft::{Batch, Chain, Nftables, PlacedRule, Problem, Rule};

/// How the bridge's alternative name begins while it may have rules for IPv4; its name follows. It is there before the rules, and goes after
/// them.
const MARK_PREFIX: &str = "flatnet-masquerade-";
/// The same for IPv6.
const MARK_PREFIX_IPV6: &str = "flatnet-masquerade6-";
/// How many subnets a rule can be about: each takes three of the 128 expressions that it may have (`NFT_RULE_MAXEXPRS`).
const SUBNETS_MAX: usize = 40;
/// How often a transaction is tried anew because somebody else changed the rules at the same moment.
const ATTEMPTS: u32 = 8;

/// Brings the network's rules to what its configuration says, on a bridge that exists: there and right, or not there. Say it once the
/// network's addresses are claimed: rules that are written anew are for all who share the bridge and have a container there, as leases tell.
///
/// An ADD that fails after this leaves them, as it leaves the bridge that they belong to: other ADDs may already count on both.
/// `beside` are the subnets of other networks on the bridge that masquerade, where the caller knows of any. Errors: 109.
pub(crate) async fn ensure(host: &Netlink, network: &Network, bridge: &Link, beside: &[IpNetwork]) -> Result<()> {
    if !has_say(network) {
        return Ok(());
    }
    let failed = |problem| failed(network, &problem);
    let is_marked = |family| bridge.names.contains(&mark_of(family, &bridge.name));
    let mut wanting: Vec<_> = families(network).collect();
    for family in IpFamily::BOTH.into_iter().filter(|family| !wanting.contains(family) && is_marked(*family)) {
        let is_beside = beside.iter().any(|subnet| family.has(*subnet));
        if !(network.masquerade && is_beside) {
            take_off(host, network, bridge, family).await?;
        }
    }
    if wanting.is_empty() {
        return Ok(());
    }
    let mut nftables = Nftables::open().map_err(failed)?;
    let known = |family: IpFamily| {
        let beside = beside.iter().copied().filter(move |subnet| family.has(*subnet));
        own_subnets(network, family).into_iter().chain(beside).collect::<BTreeSet<_>>()
    };
    // Without the mark somebody may be taking away what an earlier bridge of that name has left.
    for family in wanting.clone().into_iter().filter(|family| is_marked(*family)) {
        let found = find(&mut nftables, network, family).await.map_err(failed)?;
        // Who was there stays: else two networks would rewrite them in turns.
        let is_right =
            |found: &Found| is_same(found, &wanted(network, family, &(&known(family) | &subnets_found(found))));
        if found.as_ref().is_some_and(is_right) {
            wanting.retain(|it| *it != family);
        }
    }
    if wanting.is_empty() {
        return Ok(());
    }
    let _lock = lock().await?;
    for family in wanting {
        mark(host, bridge, family).await?;
        write_for_all(host, &mut nftables, network, bridge, (family, &known(family))).await?;
    }
    sweep_locked(host, &mut nftables).await
}

/// Writes the rules for the subnets that are known, and for those of which somebody else on the bridge has an address.
async fn write_for_all(
    host: &Netlink,
    nftables: &mut Nftables,
    network: &Network,
    bridge: &Link,
    (family, known): Of<'_>,
) -> Result<()> {
    let failed = |problem| failed(network, &problem);
    let found = find(nftables, network, family).await.map_err(failed)?;
    let mut others = candidates(host, bridge, family, found.as_ref()).await?;
    others.retain(|other| !known.iter().any(|it| it.contains(other.ip()) && it.prefix() <= other.prefix()));
    let room = SUBNETS_MAX.saturating_sub(known.len());
    let mut subnets = BTreeSet::new();
    // Whoever claimed an address meanwhile, and saw the former rules, is among those who need them now.
    loop {
        let mut needed = known.clone();
        needed.extend(in_need(host, network, bridge, &others).await?.into_iter().take(room));
        if needed == subnets {
            return Ok(());
        }
        subnets = needed;
        write(nftables, network, (family, &subnets), true).await.map_err(failed)?;
    }
}

/// The network's rules as they are.
async fn find(nftables: &mut Nftables, network: &Network, family: IpFamily) -> Result<Option<Found>, Problem> {
    nftables.chain(family.tables(), TABLE, &chain_name(network.gateway_link())).await
}

/// Says on the bridge that it may have rules of that family.
async fn mark(host: &Netlink, bridge: &Link, family: IpFamily) -> Result<()> {
    let mark = mark_of(family, &bridge.name);
    if unless_there(host.add_alternative_name(bridge, &mark).await)? {
        return Ok(());
    }
    // It is there, or another ADD was faster; or a bridge has it that was renamed.
    match host.link_by_alternative_name(&mark).await? {
        Some(holder) if holder.index != bridge.index => {
            host.delete_alternative_name(&holder, &mark).await?;
            host.add_alternative_name(bridge, &mark).await
        }
        _ => Ok(()),
    }
}

/// Who is no gateway, and asks for no rules, has no say in those of a gateway on the same bridge.
pub(crate) fn has_say(network: &Network) -> bool {
    network.options.is_gateway || network.masquerade
}

/// What is wrong with the network's rules, for CHECK. Errors: 109.
pub(crate) async fn problem(network: &Network) -> Result<Option<String>> {
    let failed = |problem| failed(network, &problem);
    let Some(mut nftables) = opened_for(network)? else { return Ok(None) };
    for family in families(network) {
        let found = find(&mut nftables, network, family).await.map_err(failed)?;
        let chain = chain_name(network.gateway_link());
        let place = format!("chain {chain} of table {} {TABLE}", family.tables().as_str());
        // Whoever shares the bridge is not judged here.
        let with_others = |found| &own_subnets(network, family) | &subnets_found(found);
        match &found {
            None => return Ok(Some(format!("masquerading rules are missing: there is no {place}"))),
            Some(found) if is_same(found, &wanted(network, family, &with_others(found))) => {}
            Some(_) => {
                let what = "masquerading rules were altered, or are from an earlier configuration";
                return Ok(Some(format!("{what}: {place}")));
            }
        }
    }
    Ok(None)
}

/// Whether the kernel would take the network's rules; nothing is changed. Errors: 109 with what it lacks.
pub(crate) async fn try_out(network: &Network) -> Result<()> {
    let Some(mut nftables) = opened_for(network)? else { return Ok(()) };
    for family in families(network) {
        let subnets = own_subnets(network, family);
        write(&mut nftables, network, (family, &subnets), false).await.map_err(|problem| failed(network, &problem))?;
    }
    Ok(())
}

/// A socket for the network's rules; none where it has none. Errors: 109.
fn opened_for(network: &Network) -> Result<Option<Nftables>> {
    let has_rules = families(network).next().is_some();
    has_rules.then(Nftables::open).transpose().map_err(|problem| failed(network, &problem))
}

/// Whether there are rules of a bridge of that name. A kernel without nftables has none.
pub(crate) async fn exists(bridge: &str) -> Result<bool> {
    for family in IpFamily::BOTH {
        if exists_of(family, bridge).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes away the rules of a bridge of that name, if there are any.
pub(crate) async fn remove(bridge: &str) -> Result<()> {
    for family in IpFamily::BOTH {
        if exists_of(family, bridge).await? {
            let _lock = lock().await?;
            remove_locked(family, bridge).await?;
        }
    }
    Ok(())
}

/// Takes away the rules of bridges that are gone.
pub(crate) async fn sweep(host: &Netlink) -> Result<()> {
    let mut nftables = match Nftables::open() {
        Err(Problem::Lacking { .. }) => return Ok(()),
        opened => opened.map_err(|problem| not_removed(&problem))?,
    };
    let _lock = lock().await?;
    sweep_locked(host, &mut nftables).await
}

async fn exists_of(family: IpFamily, bridge: &str) -> Result<bool> {
    let found = async {
        let mut nftables = Nftables::open()?;
        nftables.chain(family.tables(), TABLE, &chain_name(bridge)).await
    };
    match found.await {
        Ok(found) => Ok(found.is_some()),
        Err(Problem::Lacking { .. }) => Ok(false),
        Err(problem) => Err(not_removed(&problem)),
    }
}

async fn remove_locked(family: IpFamily, bridge: &str) -> Result<()> {
    let mut nftables = Nftables::open().map_err(|problem| not_removed(&problem))?;
    delete(&mut nftables, family, &[chain_name(bridge)]).await
}

/// The network has no use for them now, and had; nor has a container of another, if this one masquerades too. Mark and rules go under one
/// lock, as they come: no rules are left that nobody knows of.
async fn take_off(host: &Netlink, network: &Network, bridge: &Link, family: IpFamily) -> Result<()> {
    let _lock = lock().await?;
    if network.masquerade {
        let mut nftables = Nftables::open().map_err(|problem| not_removed(&problem))?;
        let found = find(&mut nftables, network, family).await.map_err(|problem| not_removed(&problem))?;
        let candidates = candidates(host, bridge, family, found.as_ref()).await?;
        if !in_need(host, network, bridge, &candidates).await?.is_empty() {
            return Ok(());
        }
    }
    if exists_of(family, &bridge.name).await? {
        remove_locked(family, &bridge.name).await?;
    }
    let mark = mark_of(family, &bridge.name);
    host.delete_alternative_name(bridge, &mark).await
}

/// Tries until nobody interferes; under the lock only strangers can. Without `commit` the kernel only says whether it would do it.
async fn write(nftables: &mut Nftables, network: &Network, of: Of<'_>, commit: bool) -> Result<(), Problem> {
    for _ in 1..ATTEMPTS {
        match attempt(nftables, network, of, commit).await {
            Err(problem) if is_race(&problem) => {}
            done => return done,
        }
    }
    attempt(nftables, network, of, commit).await
}

/// A family, and the subnets of it that rules are for.
type Of<'a> = (IpFamily, &'a BTreeSet<IpNetwork>);

/// One transaction, made for what is there at the moment; none where all is as wanted.
async fn attempt(
    nftables: &mut Nftables,
    network: &Network,
    (family, subnets): Of<'_>,
    commit: bool,
) -> Result<(), Problem> {
    let wanted @ (chain, rules) = &wanted(network, family, subnets);
    let found = find(nftables, network, family).await?;
    let mut batch = Batch::new(family.tables(), TABLE);
    batch.add_table();
    match &found {
        Some(found) if is_same(found, wanted) => return Ok(()),
        Some((found, _)) if found.base == chain.base => batch.flush_chain(&chain.name),
        // Its hook cannot be changed.
        Some(_) => batch.delete_chain(&chain.name),
        None => {}
    }
    batch.add_chain(chain);
    for rule in rules {
        batch.add_rule(&chain.name, rule);
    }
    if commit { nftables.apply(&batch).await } else { nftables.try_out(&batch).await }
}

/// What was read a moment ago is no longer so.
fn is_race(problem: &Problem) -> bool {
    matches!(problem.errno(), Some(Errno::ENOENT | Errno::EEXIST))
}

fn is_same((chain, rules): &Found, (wanted_chain, wanted_rules): &(Chain, Vec<Rule>)) -> bool {
    chain == wanted_chain && rules.iter().map(|placed| &placed.rule).eq(wanted_rules)
}

/// A chain as it was read.
type Found = (Chain, Vec<PlacedRule>);

/// While the lock is held no bridge gets its mark and its rules, so one that is gone now, or has no mark, has nobody who counts on them.
async fn sweep_locked(host: &Netlink, nftables: &mut Nftables) -> Result<()> {
    let chains = match nftables.all_chains().await {
        Err(Problem::Lacking { .. }) => return Ok(()),
        chains => chains.map_err(|problem| not_removed(&problem))?,
    };
    for family in IpFamily::BOTH {
        let mut stale = Vec::new();
        let own = chains.iter().filter(|(of, chain)| *of == family.number() && chain.table == TABLE);
        for (_, chain) in own {
            let Some(bridge) = bridge_of(&chain.name) else { continue };
            let link = host.link(bridge).await?;
            // The kernel finds a link by its alternative names as well.
            let is_bridge =
                |link: &Link| link.name == bridge && matches!(link.kind.as_deref(), Some("bridge" | "vlan"));
            // One without the mark is another, which was made after the first had gone.
            let mark = mark_of(family, bridge);
            if !link.is_some_and(|link| is_bridge(&link) && link.names.contains(&mark)) {
                stale.push(chain.name.clone());
            }
        }
        if !stale.is_empty() {
            delete(nftables, family, &stale).await?;
        }
    }
    Ok(())
}

async fn delete(nftables: &mut Nftables, family: IpFamily, chains: &[String]) -> Result<()> {
    let mut batch = Batch::new(family.tables(), TABLE);
    for chain in chains {
        batch.delete_chain(chain);
    }
    match nftables.take_away(&batch).await {
        // A firewall's reload was faster.
        Err(problem) if matches!(problem.errno(), Some(Errno::EBUSY | Errno::ENOENT)) => {}
        done => return done.map_err(|problem| not_removed(&problem)),
    }
    for chain in chains {
        let mut batch = Batch::new(family.tables(), TABLE);
        batch.delete_chain(chain);
        match nftables.apply(&batch).await {
            Err(problem) if problem.errno() != Some(Errno::ENOENT) => return Err(not_removed(&problem)),
            _ => {}
        }
    }
    Ok(())
}

fn mark_of(family: IpFamily, bridge: &str) -> String {
    let prefix = match family {
        IpFamily::V4 => MARK_PREFIX,
        IpFamily::V6 => MARK_PREFIX_IPV6,
    };
    format!("{prefix}{bridge}")
}

fn failed(network: &Network, problem: &Problem) -> Error {
    let remedy = match problem {
        Problem::Lacking { .. } => {
            "set `\"ipMasq\": false` in the network's .conflist (with Podman 5 create it with `--opt ipmasq=false`; `flatnet install --no-masquerade` does either): containers then reach only hosts with a route back to them. Or use a kernel that has it (on WSL: `wsl --update`)".to_owned()
        }
        Problem::Refused { errno: Errno::EPERM, .. } => "flatnet needs CAP_NET_ADMIN: run it as root".to_owned(),
        Problem::Refused { .. } => {
            "see `nft list ruleset` and `dmesg`; the tables called flatnet may be deleted: the next container's start creates them again".to_owned()
        }
    };
    let doing = format!("masquerade traffic that leaves network {}", network.name);
    Error::Firewall { doing, problem: problem.to_string(), remedy }
}

fn not_removed(problem: &Problem) -> Error {
    Error::Firewall {
        doing: "delete masquerading rules".into(),
        problem: problem.to_string(),
        remedy: "delete them by hand: they are in the tables called flatnet (`nft list ruleset`)".into(),
    }
}
