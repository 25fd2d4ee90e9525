//! `macspoofchk`: a container speaks for itself only.
//!
//! From a port under control pass IPv4 and IPv6 from the container's own MAC and addresses, and ARP and neighbour discovery that say
//! nothing else of their sender (or no address yet, as a probe does). Everything else is dropped: another's MAC or address, the gateway's,
//! router advertisements, a family that the container was given no address of, and whatever a tag or another ethertype wraps. One nftables
//! table of the family bridge, whose rules never change: who may say what are elements of its sets, written before the port is up.
//!
//! A port is known by its number, which the kernel gives to no other link: an element whose link is gone is harmless. The next attachment that
//! is taken back takes it away, and the table with the last; which ports are under control, and what they may say, is in the links' own
//! records, so that a table that was flushed is made again from the kernel alone.

mod rules;
mod table;

use std::net::IpAddr;

use nix::errno::Errno;

use self::table::Found;
use super::lock;
use crate::error::{Doing, Error, Result};
use crate::ipam::lease;
use crate::mac::Mac;
use crate::netlink::nftables::{Nftables, Problem};
use crate::netlink::{Link, Netlink};

/// What a port may say of whoever speaks there; one for each of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    /// Index of the host end.
    pub(crate) port: u32,
    pub(crate) mac: Mac,
    pub(crate) address: IpAddr,
}

/// Puts the port under control; said before it is set up, by [`Netlink::set_up_port`]. Rules that somebody changed are mended, and
/// where they are gone, those of all ports come back. Errors: 109.
pub(crate) async fn guard(host: &Netlink, speakers: &[Speaker]) -> Result<()> {
    let failed = |problem: Problem| failed("keep the container from spoofing", &problem);
    let _lock = lock().await?;
    let mut nftables = Nftables::open().map_err(failed)?;
    match nftables.apply(&table::admit(speakers)).await {
        Ok(()) if Found::is_intact(&mut nftables).await.map_err(failed)? => Ok(()),
        // It is the first, or somebody flushed the table or made it another.
        Ok(()) | Err(Problem::Refused { .. }) => restore(host, &mut nftables, speakers).await?.map_err(failed),
        Err(problem) => Err(failed(problem)),
    }
}

/// Takes away what is said of links that are gone, and the table with the last. A host without it is not changed.
pub(crate) async fn forget_gone(host: &Netlink) -> Result<()> {
    let failed = |problem: Problem| failed("take back the rules against spoofing", &problem);
    // A kernel without nftables has none of flatnet's.
    let Ok(mut nftables) = Nftables::open() else { return Ok(()) };
    match Found::is_there(&mut nftables).await {
        Ok(true) => {}
        Ok(false) | Err(Problem::Lacking { .. }) => return Ok(()),
        Err(problem) => return Err(failed(problem)),
    }
    let _lock = lock().await?;
    let Some(found) = Found::elements(&mut nftables).await.map_err(failed)? else { return Ok(()) };
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let Some(batch) = table::without(&found, |port| !links.iter().any(|link| link.index == port)) else {
        return Ok(());
    };
    match nftables.apply(&batch).await {
        // A firewall's reload was faster; what of it is still there is harmless, and goes the next time.
        Err(problem) if problem.errno() == Some(Errno::ENOENT) => return Ok(()),
        done => done.map_err(failed)?,
    }
    nftables.close_soon().doing(|| "let go of a netfilter socket".into())
}

/// Where links are under control whose rules are gone or not as they should be, makes the table anew.
pub(crate) async fn repair(host: &Netlink) -> Result<()> {
    let failed = |problem: Problem| failed("mend the rules against spoofing", &problem);
    let links = host.links().await.doing(|| "list the host's links".into())?;
    if links.iter().all(|link| speakers(link).next().is_none()) {
        return Ok(());
    }
    let _lock = lock().await?;
    let mut nftables = Nftables::open().map_err(failed)?;
    let found = Found::read(&mut nftables).await.map_err(failed)?;
    // Some may have come or gone until now.
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let speakers: Vec<_> = links.iter().flat_map(speakers).collect();
    match found.problem(&speakers) {
        Some(_) => restore(host, &mut nftables, &[]).await?.map_err(failed),
        None => Ok(()),
    }
}

/// What is not as it should be with the rules for these host ends, to follow "failed to ...: ". One that is not under control is not looked at.
pub(crate) async fn problem(links: &[Link]) -> Result<Option<String>> {
    let guarded = || links.iter().filter(|link| lease::guarded_mac(link).is_some());
    if guarded().next().is_none() {
        return Ok(None);
    }
    let failed = |problem: Problem| failed("read the rules against spoofing", &problem);
    let mut nftables = Nftables::open().map_err(failed)?;
    let found = Found::read(&mut nftables).await.map_err(failed)?;
    Ok(guarded().find_map(|link| {
        if !link.port.filtered {
            return Some(format!("frames to link-local groups pass unseen at host link {}", link.name));
        }
        let what = found.problem(&speakers(link).collect::<Vec<_>>())?;
        Some(format!("{what}, for host link {}", link.name))
    }))
}

/// Errors: 109 where the kernel could not keep containers from spoofing. Changes nothing.
pub(crate) async fn refuse_lacking() -> Result<()> {
    let failed = |problem: Problem| failed("keep containers from spoofing", &problem);
    Nftables::open().map_err(failed)?.try_out(&table::whole(&[], true)).await.map_err(failed)
}

/// Whether there can be rules for the link: it is under control, or an ADD was cut short before the link's record said so.
pub(crate) fn may_be_guarded(link: &Link) -> bool {
    lease::record(link).is_none() || speakers(link).next().is_some()
}

/// What the link may say, if it is under control.
pub(crate) fn speakers(link: &Link) -> impl Iterator<Item = Speaker> + '_ {
    let mac = lease::guarded_mac(link);
    lease::leases(link).filter_map(move |address| Some(Speaker { port: link.index, mac: mac?, address }))
}

/// Makes the table anew, for all links that are under control, and `more`. The inner result is nftables'.
async fn restore(
    host: &Netlink,
    nftables: &mut Nftables,
    more: &[Speaker],
) -> Result<std::result::Result<(), Problem>> {
    let (is_new, known) = match Found::elements(nftables).await {
        Ok(found) => (found.is_none(), found.unwrap_or_default()),
        Err(problem) => return Ok(Err(problem)),
    };
    let links = host.links().await.doing(|| "list the host's links".into())?;
    // An ADD that is at work has told nftables, and not yet the link.
    let is_unrecorded = |port| links.iter().any(|link| link.index == port && lease::record(link).is_none());
    let recorded = links.iter().flat_map(speakers);
    let unrecorded = known.speakers().filter(|speaker| is_unrecorded(speaker.port));
    let all: Vec<_> = recorded.chain(unrecorded).chain(more.iter().copied()).collect();
    if is_new && nftables.apply(&table::whole(&all, false)).await.is_ok() {
        return Ok(Ok(()));
    }
    Ok(nftables.apply(&table::whole(&all, true)).await)
}

fn failed(doing: &str, problem: &Problem) -> Error {
    let remedy = match problem {
        Problem::Lacking { .. } => {
            "leave macspoofchk out of the network's configuration (containers with NET_RAW can then spoof), or use a kernel that has it (on WSL: `wsl --update`)"
        }
        Problem::Refused { .. } => "see `nft list table bridge flatnet` and `dmesg`",
    };
    Error::Firewall { doing: doing.to_owned(), problem: problem.to_string(), remedy: remedy.into() }
}
