//! `macspoofchk`: a container speaks for itself only.
//!
//! From a port under control pass IPv4 and IPv6 from the container's own MAC and addresses, and ARP and neighbour discovery that say
//! nothing else of their sender (or no address yet, as a probe does). Everything else is dropped: another's MAC or address, the gateway's,
//! router advertisements, what a server of DHCP says, a family that the container was given no address of, and whatever a tag or another
//! ethertype wraps. One nftables table, whose rules never change: who may say what are elements of its sets, written before the port is up.
//! It is of the family bridge; where the kernel has none (stock WSL2 for x86), of the family netdev: there each port has a chain of its own,
//! which leads to the same rules.
//!
//! A port is known by its number, which the kernel gives to no other link: an element whose link is gone is harmless. Attachments that are
//! taken back later take it away, and the table with the last; which ports are under control, and what they may say, is in the links' own
//! records, so that a table that was flushed is made again from the kernel alone.

mod rules;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use self::table::{Found, Standing};
use super::lock;
use crate::error::{Doing, Error, Result};
use crate::ipam::lease;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};
use crate::nft::{Family, Nftables, Problem};

/// What the kernel lacks where neither way is there.
const NEITHER: &str = "nftables' families bridge and netdev (CONFIG_NF_TABLES_BRIDGE, CONFIG_NF_TABLES_NETDEV)";
/// At how many other ports each attachment that is taken back has a look.
const LOOKED_AFTER: usize = 8;
/// How often a transaction is tried anew because a link went at the same moment.
const ATTEMPTS: u32 = 3;

/// How the rules come to see the frames of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The bridge shows them, those of all its ports.
    Bridge,
    /// Each link does (`CONFIG_NF_TABLES_NETDEV`).
    Links,
}

/// What a port may say of whoever speaks there; one for each of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllowedSource {
    /// Index of the host end.
    pub(crate) port: u32,
    pub(crate) mac: Mac,
    pub(crate) address: IpAddr,
}

/// A port under control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// The host end's name.
    pub(crate) link: String,
    /// One at least.
    pub(crate) allowed_sources: Vec<AllowedSource>,
}

impl Way {
    /// In the order of preference.
    const BOTH: [Self; 2] = [Self::Bridge, Self::Links];

    const fn family(self) -> Family {
        match self {
            Self::Bridge => Family::Bridge,
            Self::Links => Family::Netdev,
        }
    }

    /// The first that the kernel has.
    async fn find(nftables: &mut Nftables) -> std::result::Result<Self, Problem> {
        for way in Self::BOTH {
            match nftables.try_out(&table::trial(way)).await {
                Ok(()) => return Ok(way),
                Err(Problem::Lacking { .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::Lacking { piece: NEITHER })
    }

    /// What there is of either, or nothing of the one that would be taken.
    async fn read(nftables: &mut Nftables) -> std::result::Result<Vec<(Self, Found)>, Problem> {
        let mut all = Vec::new();
        for way in Self::BOTH {
            let found = Found::read(nftables, way).await?;
            if found != Found::default() {
                all.push((way, found));
            }
        }
        if all.is_empty() {
            all.push((Self::find(nftables).await?, Found::default()));
        }
        Ok(all)
    }
}

/// Puts the port under control; said before it is set up, by [`Netlink::set_up_port`]. Rules that somebody changed are mended, and
/// where they are gone, those of all ports come back. Errors: 109.
pub(crate) async fn guard(host: &Netlink, guarded: Guarded) -> Result<()> {
    let failed = |problem: Problem| failed("keep the container from spoofing", &problem);
    let _lock = lock().await?;
    let mut nftables = Nftables::open().map_err(failed)?;
    let own = [guarded];
    for way in Way::BOTH {
        match Found::standing(&mut nftables, way).await.map_err(failed)? {
            Standing::Missing => continue,
            // Somebody made the table another.
            Standing::Changed => return restore(host, &mut nftables, way, &own).await?.map_err(failed),
            Standing::Intact => {}
        }
        match nftables.apply(&table::admit(way, &own)).await {
            Ok(()) => return Ok(()),
            // Somebody took a set away.
            Err(Problem::Refused { .. }) => {}
            Err(problem) => return Err(failed(problem)),
        }
    }
    // It is the first, or somebody flushed the table. Written without a trial: the kernel takes milliseconds to give up a transaction.
    if restore(host, &mut nftables, Way::Bridge, &own).await?.is_ok() {
        return Ok(());
    }
    let way = Way::find(&mut nftables).await.map_err(failed)?;
    restore(host, &mut nftables, way, &own).await?.map_err(failed)
}

/// Takes away what was said of a link that is known to be gone, and the table with the last; also what a crash has left, where one of the few ports
/// that are looked after each time has gone. No list of the host's links, however many others there are.
pub(crate) async fn forget(host: &Netlink, link: &Link) -> Result<()> {
    let failed = |problem: Problem| failed("take back the rules against spoofing", &problem);
    let allowed: Vec<_> = allowed_sources(link).collect();
    let Ok(mut nftables) = Nftables::open() else { return Ok(()) };
    for (way, batch) in table::dismissals(&allowed) {
        match nftables.apply(&batch).await {
            Ok(()) => {
                let ports = table::ports(&mut nftables, way).await.map_err(failed)?;
                nftables.close_soon().doing(|| "let go of a netfilter socket".into())?;
                return if !ports.is_empty() && all_are_there(host, &ports, link.index).await? {
                    Ok(())
                } else {
                    forget_gone(host).await
                };
            }
            // It is the other way's, or not all of it is there.
            Err(Problem::Lacking { .. }) => {}
            Err(problem) if problem.errno() == Some(Errno::ENOENT) => {}
            Err(problem) => return Err(failed(problem)),
        }
    }
    drop(nftables);
    forget_gone(host).await
}

/// Whether those of the ports that are looked after have their links: the next ones after `port`, so that in the course of time all are.
async fn all_are_there(host: &Netlink, ports: &BTreeSet<u32>, port: u32) -> Result<bool> {
    for port in ports.range(port..).chain(ports.range(..port)).take(LOOKED_AFTER) {
        if host.link_by_index(*port).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes away what is said of links that are gone, and the table with the last. A host without it is not changed.
pub(crate) async fn forget_gone(host: &Netlink) -> Result<()> {
    let failed = |problem: Problem| failed("delete anti-spoofing rules", &problem);
    // A kernel without nftables has none of flatnet's.
    let Ok(mut nftables) = Nftables::open() else { return Ok(()) };
    let mut changed = false;
    for way in Way::BOTH {
        if !Found::is_there(&mut nftables, way).await.map_err(failed)? {
            continue;
        }
        let _lock = lock().await?;
        for attempt in 1..=ATTEMPTS {
            let Some(found) = Found::elements(&mut nftables, way).await.map_err(failed)? else { break };
            let links = host.links().await?;
            let is_gone = |port| !links.iter().any(|link| link.index == port);
            let Some(batch) = table::without(way, &found, is_gone) else { break };
            match nftables.apply(&batch).await {
                // A firewall's reload was faster, or the kernel, which takes a link's chain away with the link.
                Err(problem) if problem.errno() == Some(Errno::ENOENT) && attempt < ATTEMPTS => {}
                // What of it is still there is harmless, and goes the next time.
                Err(problem) if problem.errno() == Some(Errno::ENOENT) => break,
                done => {
                    done.map_err(failed)?;
                    changed = true;
                    break;
                }
            }
        }
    }
    if changed { nftables.close_soon().doing(|| "close a netfilter socket".into()) } else { Ok(()) }
}

/// Where links are under control whose rules are gone or not as they should be, makes the table anew.
pub(crate) async fn repair(host: &Netlink) -> Result<()> {
    let failed = |problem: Problem| failed("repair anti-spoofing rules", &problem);
    let links = host.links().await?;
    if links.iter().all(|link| allowed_sources(link).next().is_none()) {
        return Ok(());
    }
    let _lock = lock().await?;
    let mut nftables = Nftables::open().map_err(failed)?;
    let found = Way::read(&mut nftables).await.map_err(failed)?;
    // Some may have come or gone until now.
    let links = host.links().await?;
    let allowed_sources: Vec<_> = links.iter().flat_map(allowed_sources).collect();
    if found.iter().any(|(way, found)| found.problem(*way, &allowed_sources).is_none()) {
        return Ok(());
    }
    let way = found.first().map_or(Way::Bridge, |(way, _)| *way);
    restore(host, &mut nftables, way, &[]).await?.map_err(failed)
}

/// What is not as it should be with the rules for these host ends. One that is not under control is not looked at.
pub(crate) async fn problem(links: &[Link]) -> Result<Option<String>> {
    let guarded = || links.iter().filter(|link| lease::guarded_mac(link).is_some());
    if guarded().next().is_none() {
        return Ok(None);
    }
    let failed = |problem: Problem| failed("read anti-spoofing rules", &problem);
    let mut nftables = Nftables::open().map_err(failed)?;
    let found = Way::read(&mut nftables).await.map_err(failed)?;
    Ok(guarded().find_map(|link| {
        if !link.port.filtered {
            return Some(format!("frames to link-local multicast groups are not filtered at host link {}", link.name));
        }
        let allowed_sources: Vec<_> = allowed_sources(link).collect();
        let problems: Option<Vec<_>> = found.iter().map(|(way, found)| found.problem(*way, &allowed_sources)).collect();
        let what = problems?.into_iter().next()?;
        Some(format!("{what}, for host link {}", link.name))
    }))
}

/// Errors: 109 where the kernel could not keep containers from spoofing. Changes nothing.
pub(crate) async fn refuse_lacking() -> Result<()> {
    let failed = |problem: Problem| failed("keep containers from spoofing", &problem);
    Way::find(&mut Nftables::open().map_err(failed)?).await.map(drop).map_err(failed)
}

/// Whether there can be rules for the link: it is under control, or an ADD was cut short before the link's record said so.
pub(crate) fn may_be_guarded(link: &Link) -> bool {
    lease::record(link).is_none() || allowed_sources(link).next().is_some()
}

/// What the link may say, if it is under control.
pub(crate) fn allowed_sources(link: &Link) -> impl Iterator<Item = AllowedSource> + '_ {
    let mac = lease::guarded_mac(link);
    lease::leases(link).filter_map(move |address| Some(AllowedSource { port: link.index, mac: mac?, address }))
}

/// Makes the table anew, for all links that are under control, and `more`. The inner result is nftables'.
async fn restore(
    host: &Netlink,
    nftables: &mut Nftables,
    way: Way,
    more: &[Guarded],
) -> Result<std::result::Result<(), Problem>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (is_new, known) = match Found::elements(nftables, way).await {
            Ok(found) => (found.is_none(), found.unwrap_or_default()),
            Err(problem) => return Ok(Err(problem)),
        };
        let links = host.links().await?;
        let all: Vec<_> = links.iter().filter_map(|link| guarded(link, &known, more)).collect();
        if is_new
            && let done @ (Ok(()) | Err(Problem::Lacking { .. })) =
                nftables.apply(&table::whole(way, &all, false)).await
        {
            return Ok(done);
        }
        match nftables.apply(&table::whole(way, &all, true)).await {
            // One of the links has gone since, and a chain of its own needs it.
            Err(problem) if problem.errno() == Some(Errno::ENOENT) && attempt < ATTEMPTS => {}
            done => return Ok(done),
        }
    }
}

/// Who may speak at the link, if it is under control: by its record; an ADD that is at work has told nftables, and not yet the link.
fn guarded(link: &Link, known: &Found, more: &[Guarded]) -> Option<Guarded> {
    let is_its = |source: &AllowedSource| source.port == link.index;
    let mut all: Vec<_> = allowed_sources(link).collect();
    if lease::record(link).is_none() {
        all.extend(known.allowed_sources().filter(is_its));
    }
    all.extend(more.iter().flat_map(|guarded| &guarded.allowed_sources).copied().filter(is_its));
    (!all.is_empty()).then(|| Guarded { link: link.name.clone(), allowed_sources: all })
}

fn failed(doing: &str, problem: &Problem) -> Error {
    let remedy = match problem {
        Problem::Lacking { .. } => {
            "leave macspoofchk out of the network's configuration (containers with NET_RAW can then spoof), or use a kernel that has either (WSL's has from 6.6 on: `uname -r`, `wsl --update`)"
        }
        Problem::Refused { .. } => "see `nft list table bridge flatnet`, `nft list table netdev flatnet` and `dmesg`",
    };
    Error::Firewall { doing: doing.to_owned(), problem: problem.to_string(), remedy: remedy.into() }
}
