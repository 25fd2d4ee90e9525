//! The rules of nftables, and so of today's iptables and of firewalld: over netlink.

use nix::errno::Errno;

use super::plan::{Accept, Edit, Far, Place, Position, Way};
use super::{Changed, Trouble, failed};
use crate::error::Error;
use crate::family::IpFamily;
use crate::filter::rules::{Chain, Hook, Policy, Ruleset, Tool};
use crate::filter::{iptables, meaning};
use crate::firewall::TABLE;
use crate::nft::{
    Batch, Expression, Family, Hook as KernelHook, Meta, Nftables, Problem, Rule, Slot, Verdict, from_network, link,
    to_network,
};

/// The states of connection tracking that are answers, as bits; the same for nftables and iptables: established, related.
const ANSWERS: u16 = 2 | 4;
/// `XT_CONNTRACK_STATE_DNAT`: iptables takes it for a state.
const IPTABLES_DNAT: u16 = 128;
/// `IPS_DST_NAT`.
const DNAT: u32 = 32;

/// The families of tables whose chains see packets of that family.
const fn families(family: IpFamily) -> [Family; 2] {
    [family.tables(), Family::Inet]
}

/// The tables that have a chain for forwarded packets; nothing where there is none, or no nftables. flatnet's own does not drop.
pub(super) async fn read(family: IpFamily) -> Result<Option<Ruleset>, Trouble> {
    let mut nftables = match Nftables::open() {
        Err(Problem::Lacking { .. }) => return Ok(None),
        opened => opened.map_err(|problem| refused(&problem))?,
    };
    let found = match nftables.all_chains().await {
        Err(Problem::Lacking { .. }) => return Ok(None),
        found => found.map_err(|problem| refused(&problem))?,
    };
    let mut ruleset = Ruleset::default();
    for tables_family in families(family) {
        let own = found.iter().filter(|(of, chain)| *of == tables_family as u8 && chain.table != TABLE);
        let chains: Vec<_> = own.map(|(_, chain)| chain).collect();
        let is_start = |chain: &&&crate::nft::Chain| hook(chain).is_some();
        let mut tables: Vec<_> = chains.iter().filter(is_start).map(|chain| chain.table.as_str()).collect();
        tables.dedup();
        for table in tables {
            let of_table = chains.iter().filter(|chain| chain.table == table);
            let mut read: Vec<_> = of_table.map(|found| chain(tables_family, family, found)).collect();
            for (of, placed) in nftables.rules(tables_family, table).await.map_err(|problem| refused(&problem))? {
                if let Some(chain) = read.iter_mut().find(|chain| chain.name == of) {
                    chain.rules.push(meaning::of(family, &placed));
                }
            }
            ruleset.chains.extend(read);
        }
    }
    Ok(if ruleset.chains.is_empty() { None } else { Some(ruleset) })
}

/// A transaction for each table.
pub(super) async fn change(family: IpFamily, edits: &[Edit]) -> Result<Changed, Trouble> {
    let mut nftables = Nftables::open().map_err(|problem| refused(&problem))?;
    let mut tables: Vec<_> = edits.iter().map(|edit| place(edit).table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    for table in tables {
        let Some((tables_family, name)) = split(family, table) else { continue };
        let batch = |is_iptables| {
            let mut batch = Batch::new(tables_family, name);
            for edit in edits.iter().filter(|edit| place(edit).table == table) {
                add(&mut batch, (tables_family, family), is_iptables, edit);
            }
            batch
        };
        let is_iptables = table == iptables::table(family);
        let mut applied = nftables.apply(&batch(is_iptables)).await;
        // The kernel may lack iptables' conditions (CONFIG_NFT_COMPAT): that table was made without them.
        if is_iptables && applied.as_ref().is_err_and(|problem| problem.errno() == Some(Errno::ENOENT)) {
            applied = nftables.apply(&batch(false)).await;
        }
        match applied {
            Ok(()) => {}
            // The chain, or the rule, has just gone: somebody reloads.
            Err(problem) if problem.errno() == Some(Errno::ENOENT) => return Ok(Changed::Overtaken(refused(&problem))),
            // `NFT_TABLE_F_OWNER`: firewalld 2.1 and newer keep their table to themselves.
            Err(problem) if problem.errno() == Some(Errno::EPERM) => {
                let remedy = "that firewall owns its rules and must be configured itself: `flatnet install` configures firewalld, and `flatnet doctor` shows the commands";
                return Err(Trouble::Beyond(failed(problem.to_string(), remedy)));
            }
            Err(problem) => return Err(refused(&problem).into()),
        }
    }
    Ok(Changed::Done)
}

fn hook(chain: &crate::nft::Chain) -> Option<Policy> {
    let base = chain.base.as_ref()?;
    let is_forward = base.kind == "filter" && base.hook == KernelHook::Forward as u32;
    is_forward.then_some(if base.accept { Policy::Accept } else { Policy::Drop })
}

fn chain(tables_family: Family, family: IpFamily, found: &crate::nft::Chain) -> Chain {
    let table = format!("{} {}", tables_family.as_str(), found.table);
    let tool = if table == iptables::table(family) { Tool::Iptables } else { Tool::Nft };
    let start = hook(found).map(|policy| (Hook::Forward, policy));
    Chain { tool, table, name: found.name.clone(), start, rules: Vec::new() }
}

fn place(edit: &Edit) -> &Place {
    let (Edit::Remove { chain, .. } | Edit::Insert { chain, .. }) = edit;
    chain
}

fn split(family: IpFamily, table: &str) -> Option<(Family, &str)> {
    let (of, name) = table.split_once(' ')?;
    families(family).into_iter().find(|family| family.as_str() == of).map(|family| (family, name))
}

fn add(batch: &mut Batch, families: (Family, IpFamily), is_iptables: bool, edit: &Edit) {
    match edit {
        Edit::Remove { chain, handle: Some(handle), .. } => batch.delete_rule(&chain.name, *handle),
        // What was read from the kernel has a handle.
        Edit::Remove { handle: None, .. } => {}
        Edit::Insert { chain, accept, position } => {
            let rule = rule(families, is_iptables, accept);
            match position {
                Position::Before(_, Some(handle)) => batch.insert_rule_before(&chain.name, *handle, &rule),
                Position::Last => batch.add_rule(&chain.name, &rule),
                Position::First | Position::Before(_, None) => batch.insert_rule(&chain.name, &rule),
            }
        }
    }
}

/// With a comment and a counter as iptables would write it: it lists and saves the rule like its own, if the condition is one that it has.
fn rule((tables_family, family): (Family, IpFamily), is_iptables: bool, accept: &Accept) -> Rule {
    let mut expressions = Vec::new();
    if tables_family == Family::Inet {
        expressions.push(Expression::Meta { key: Meta::Family, to: Slot::FIRST });
        expressions.push(Expression::Compare { slot: Slot::FIRST, equal: true, value: vec![family.number()] });
    }
    let (near, network, far) = match accept.way {
        Way::In => (Meta::OutLink, to_network(accept.subnet, true), Meta::InLink),
        Way::Out => (Meta::InLink, from_network(accept.subnet, true), Meta::OutLink),
    };
    expressions.extend(link(near, &accept.bridge, true));
    if let Far::Link(name) = &accept.far {
        expressions.extend(link(far, name, true));
    }
    expressions.extend(network);
    let to = Slot::FIRST;
    match &accept.far {
        Far::Anybody | Far::Link(_) => {}
        Far::Answers if is_iptables => expressions.push(Expression::Tracked { states: ANSWERS }),
        Far::Published if is_iptables => expressions.push(Expression::Tracked { states: IPTABLES_DNAT }),
        Far::Answers => expressions.extend(any_of(Expression::State { to }, ANSWERS.into())),
        Far::Published => expressions.extend(any_of(Expression::Status { to }, DNAT)),
    }
    expressions.extend([Expression::Counter, Expression::Verdict(Verdict::Accept)]);
    Rule { expressions, comment: Some(accept.comment.clone()) }
}

/// What `load` has got has one of these bits.
fn any_of(load: Expression, bits: u32) -> [Expression; 3] {
    let (slot, bits) = (Slot::FIRST, bits.to_ne_bytes().to_vec());
    [load, Expression::Mask { slot, bits }, Expression::Compare { slot, equal: false, value: vec![0; 4] }]
}

fn refused(problem: &Problem) -> Error {
    failed(problem.to_string(), "`flatnet doctor` shows which chain drops forwarded packets, and the fix")
}
