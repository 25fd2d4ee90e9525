//! The host's loopback addresses, where another plugin has opened a bridge to them: `portmap` sets `route_localnet` on it, so that the host
//! reaches published ports by 127.0.0.1, and does not keep containers from sending there.
//!
//! The setting is not flatnet's and stays. One chain of the table `ip flatnet` drops what comes in by such a bridge to or from a loopback
//! address; it is there while one of flatnet's bridges is open, and a host where none is has no such chain. Not on the way of an ADD.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::ports::{LOOPBACK, is_open};
use super::{TABLE, lock};
use crate::error::{Error, Result};
use crate::ipam::lease;
use crate::netlink::{Link, Netlink};
use crate::nft::{
    BaseChain, Batch, Chain, Expression, Family, Hook, Meta, Nftables, Problem, Rule, Verdict, from_network, link,
    to_network,
};

const CHAIN: &str = "guard_localnet";
/// `NF_IP_PRI_RAW` of Linux: before a destination is translated.
const BEFORE_ALL: i32 = -300;
/// How the alternative names of bridges begin that flatnet has rules for.
const MARK_PREFIX: &str = "flatnet-";

/// Guards the bridges that are open, and takes the guard away where none is. Errors: 109.
pub(crate) async fn ensure(host: &Netlink) -> Result<()> {
    let failed = |problem: Problem| failed("keep containers from this host's loopback addresses", &problem);
    let _lock = lock().await?;
    let open = open(&host.links().await?);
    let mut nftables = match Nftables::open() {
        Err(Problem::Lacking { .. }) if open.is_empty() => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let found = match find(&mut nftables).await {
        Err(Problem::Lacking { .. }) if open.is_empty() => return Ok(()),
        found => found.map_err(failed)?,
    };
    match found {
        None if open.is_empty() => Ok(()),
        Some(_) if open.is_empty() => remove(&mut nftables).await.map_err(failed),
        Some(found) if found == wanted(&open) => Ok(()),
        found => nftables.apply(&written(&open, found.is_some())).await.map_err(failed),
    }
}

/// The first of flatnet's bridges by which a container reaches the host's loopback addresses. Errors: 109.
pub(crate) async fn unguarded(links: &[Link]) -> Result<Option<String>> {
    let failed = |problem: Problem| failed("read the rules that protect this host's loopback addresses", &problem);
    let open = open(links);
    let Some(first) = open.first() else { return Ok(None) };
    let found = find(&mut Nftables::open().map_err(failed)?).await.map_err(failed)?;
    Ok((found != Some(wanted(&open))).then(|| first.clone()))
}

/// Those of flatnet's bridges, and the VLANs on them, that take packets to loopback addresses.
fn open(links: &[Link]) -> BTreeSet<String> {
    let used: BTreeSet<_> =
        links.iter().filter(|link| lease::is_host_end(link)).filter_map(|link| link.bridge).collect();
    let is_marked = |link: &Link| link.names.iter().any(|name| name.starts_with(MARK_PREFIX));
    let is_its = |link: &&Link| match link.kind.as_deref() {
        Some("bridge") => used.contains(&link.index) || is_marked(link),
        Some("vlan") => link.peer.is_some_and(|bridge| used.contains(&bridge)) || is_marked(link),
        _ => false,
    };
    links.iter().filter(is_its).map(|link| link.name.clone()).filter(|name| is_open(name)).collect()
}

async fn find(nftables: &mut Nftables) -> Result<Option<(Chain, Vec<Rule>)>, Problem> {
    let found = nftables.chain(Family::Ip, TABLE, CHAIN).await?;
    Ok(found.map(|(chain, placed)| (chain, placed.into_iter().map(|placed| placed.rule).collect())))
}

fn wanted(open: &BTreeSet<String>) -> (Chain, Vec<Rule>) {
    let base = BaseChain { kind: "filter".into(), hook: Hook::Prerouting as u32, priority: BEFORE_ALL, accept: true };
    let chain = Chain { table: TABLE.into(), name: CHAIN.into(), base: Some(base) };
    let dropped = |bridge: &str, network: Vec<Expression>| Rule {
        expressions: [&link(Meta::InLink, bridge, true)[..], &network, &[Expression::Verdict(Verdict::Drop)]].concat(),
        comment: None,
    };
    let rules = open.iter().flat_map(|bridge| {
        [to_network(LOOPBACK.into(), true), from_network(LOOPBACK.into(), true)].map(|network| dropped(bridge, network))
    });
    (chain, rules.collect())
}

fn written(open: &BTreeSet<String>, is_there: bool) -> Batch {
    let (chain, rules) = wanted(open);
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.add_table();
    if is_there {
        // It may have another hook, which cannot be changed.
        batch.flush_chain(CHAIN);
        batch.delete_chain(CHAIN);
    }
    batch.add_chain(&chain);
    for rule in &rules {
        batch.add_rule(CHAIN, rule);
    }
    batch
}

async fn remove(nftables: &mut Nftables) -> Result<(), Problem> {
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.flush_chain(CHAIN);
    batch.delete_chain(CHAIN);
    match nftables.take_away(&batch).await {
        // A firewall's reload was faster.
        Err(problem) if problem.errno() == Some(Errno::ENOENT) => Ok(()),
        done => done,
    }
}

fn failed(doing: &str, problem: &Problem) -> Error {
    Error::Firewall {
        doing: doing.to_owned(),
        problem: problem.to_string(),
        remedy: "without nftables, set route_localnet of each bridge that `sysctl -a | grep route_localnet` shows to 0: `sysctl -w net.ipv4.conf.<bridge>.route_localnet=0`; published ports are then not reachable at 127.0.0.1".into(),
    }
}
