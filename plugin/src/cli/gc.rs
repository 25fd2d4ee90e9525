//! `flatnet gc`: deletes the attachments of containers that are dead, which no runtime will ever DEL.
//!
//! A lease cannot outlive its link, and a link not its container's network namespace; but where Podman or a container's monitor was
//! killed, that namespace stays and nobody comes for it. An attachment goes only if Podman knows its container as one that ran
//! and the kernel shows no process in its namespace: the links are listed first, then Podman is asked (which waits for a start or a
//! restart that is at work on a container), then the processes are looked at. So what is starting meanwhile is not mistaken for dead.

mod attachment;
mod bridge;
mod delegate;
mod podman;
mod processes;
mod report;
mod verdict;

use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::Args;

use self::attachment::Attachment;
use self::delegate::Delegates;
use self::podman::Containers;
use self::processes::Processes;
use self::report::{Action, Outcome};
use self::verdict::Verdict;
use crate::error::{Result, both};
use crate::ipam::lease;
use crate::netlink::Netlink;
use crate::{call, cni, firewall, reach};

/// Free the addresses of containers that died without Podman noticing
///
/// Deletes the attachments whose container Podman knows as ended, or as running where no process of it is left (Podman or the
/// container's monitor was killed), and the ports published for them. Whatever has a process in its network namespace stays. An
/// attachment whose container Podman does not know is reported, and deleted only with --yes: it may be another runtime's
/// (nerdctl, buildah, on WSL another distribution's). Bridges go that flatnet made, no network names and no container is on. The rules of bridges that are gone go too, whether they masquerade or open the
/// way through another firewall. Exit code 0: done, also if there was nothing to do; 1: failed; 2: the arguments are wrong.
#[derive(Args)]
pub(super) struct Arguments {
    /// Delete nothing, say what would be
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Delete as well what Podman does not know and no process uses
    #[arg(short, long)]
    yes: bool,
    /// Look at the attachments of this network only
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("gc needs root (an ordinary user's Podman has other containers): run `sudo flatnet gc`");
    }
    let found = call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        attachment::list(&host, arguments.network.as_deref()).await
    }))?;
    let mut outcomes = Vec::new();
    let mut outcome = Ok(());
    // Podman may be slow, and where nothing is attached it has nothing to tell.
    if !found.is_empty() {
        let containers = podman::ask()?;
        outcome = call::block_on(collect(arguments, &found, containers.as_ref(), &mut outcomes))?;
    }
    if !arguments.dry_run {
        outcome = both(outcome, call::block_on(call::within_deadline(sweep())));
    }
    let mut bridges = Vec::new();
    let mut deleted = Ok(());
    if arguments.network.is_none() {
        let manner = bridge::Manner { dry_run: arguments.dry_run, yes: arguments.yes };
        deleted = bridge::collect(&manner, &mut bridges);
    }
    let text = if arguments.json {
        report::json(&outcomes, &bridges, arguments.dry_run)
    } else {
        report::text(&outcomes, &bridges)
    };
    out.write_all(text.as_bytes()).context("failed to write what was done")?;
    outcome?;
    deleted
}

/// Judges and deletes; goes on past what cannot be deleted. The inner result tells of all those.
async fn collect(
    arguments: &Arguments,
    found: &[Attachment],
    containers: Option<&Containers>,
    outcomes: &mut Vec<Outcome>,
) -> Result<Result<()>> {
    let host = Netlink::open()?;
    let processes = call::within_deadline(Processes::look(&host, found)).await?;
    let delegates = Delegates::read();
    let mut deleted = Ok(());
    for attachment in found {
        let verdict = verdict::judge(attachment, containers, &processes);
        let (goes, reason) = match verdict {
            Verdict::Stays => continue,
            Verdict::Stale(reason) => (true, reason),
            Verdict::Unknown(reason) => (arguments.yes, reason),
        };
        if attachment.is_half_made() && !is_still_half_made(&host, attachment).await? {
            continue;
        }
        let action = match goes {
            false => Action::Unknown,
            true if arguments.dry_run => Action::WouldRemove,
            true => {
                let removed = cni::remove(&host, &attachment.link).await;
                match both(removed, delegates.take_back(attachment).await) {
                    Ok(()) => Action::Removed,
                    Err(error) => {
                        deleted = both(deleted, Err(error));
                        Action::Failed
                    }
                }
            }
        };
        outcomes.push(Outcome { action, attachment: attachment.clone(), reason });
    }
    Ok(deleted)
}

/// The attachments of containers that have no process: they are dead, or about to start.
pub(super) fn uninhabited() -> Result<Vec<(IpAddr, String)>> {
    call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        let found = attachment::list(&host, None).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let processes = Processes::look(&host, &found).await?;
        let dead = found.iter().filter(|it| !it.is_half_made() && !processes.inhabit(it));
        Ok(dead.filter_map(|it| Some((*it.addresses.first()?, reach::who(&it.link)))).collect())
    }))
}

/// Some of them, as a list.
pub(super) fn names(dead: &[(IpAddr, String)]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = dead.iter().take(SHOWN).map(|(address, who)| format!("{who} ({address})")).collect();
    let more = dead.len().saturating_sub(SHOWN);
    format!("{}{}", shown.join(", "), if more == 0 { String::new() } else { format!(" and {more} more") })
}

/// Rules of networks whose bridge is gone belong to nobody.
async fn sweep() -> Result<()> {
    let host = Netlink::open()?;
    firewall::sweep(&host).await
}

/// An ADD leaves its link in that state for a moment only.
async fn is_still_half_made(host: &Netlink, attachment: &Attachment) -> Result<bool> {
    call::within_deadline(async {
        let link = host.link_by_index(attachment.link.index).await?;
        Ok(link.is_some_and(|link| lease::is_half_made(&link)))
    })
    .await
}
