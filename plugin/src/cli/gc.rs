//! `flatnet gc`: what Podman never calls. Takes away attachments whose container is gone, and what an ADD that was cut short has left.
//!
//! Who exists is asked of Podman; another runtime's containers are none that Podman knows, so nothing of a container goes unasked.

use std::collections::BTreeSet;
use std::io::Write;
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::install::plan::PROGRAM_PATIENCE;
use super::probe::{self, Ran};
use crate::command::{self, DEADLINE, Published, block_on, within_deadline};
use crate::config::DEFAULT_BRIDGE;
use crate::error::Doing;
use crate::firewall;
use crate::ipam::lease;
use crate::netlink::{Link, Netlink};
use crate::request::{Args as CniArgs, Target};

/// Take away what containers that are gone have left
///
/// Leases end with their containers, so there is little to find: links whose container Podman no longer knows (one that was removed while its
/// network namespace stayed), and links of a start that was cut short.
#[derive(Args)]
pub(super) struct Arguments {
    /// Show what would go, and take nothing away
    #[arg(long)]
    dry_run: bool,
    /// Take away what is of containers that Podman does not know: no other runtime has containers on flatnet's networks
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let first = links()?;
    let gone = gone(&first)?;
    let unfinished = unfinished(&first)?;
    for link in &gone {
        writeln!(out, "{}: {}, whose container Podman does not know", link.name, words(link)).context("write it")?;
    }
    for link in &unfinished {
        writeln!(out, "{}: left by a start that was cut short", link.name).context("write it")?;
    }
    if gone.is_empty() && unfinished.is_empty() {
        return writeln!(out, "nothing to do: every lease has its container").context("write it");
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !gone.is_empty() && !arguments.yes {
        bail!("take them away without your word, as another runtime's containers would lose their network: say --yes");
    }
    gone.iter().try_for_each(detach)?;
    unfinished.iter().try_for_each(delete)
}

fn links() -> Result<Vec<Link>> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        host.links().await.doing(|| "list the host's links".into())
    }))?)
}

/// Attachments of containers that Podman does not know, if there is a Podman.
fn gone(links: &[Link]) -> Result<Vec<Link>> {
    let attached = || links.iter().filter(|link| lease::leases(link).next().is_some());
    if attached().next().is_none() {
        return Ok(Vec::new());
    }
    let known: BTreeSet<String> =
        match probe::run_within(PROGRAM_PATIENCE, "podman", &["ps", "--all", "--quiet", "--no-trunc"]) {
            Ran::Well(text) => text.lines().map(str::to_owned).collect(),
            Ran::Missing => {
                bail!("ask Podman which containers exist: there is no Podman here, so its own runtime has to clean up")
            }
            Ran::Badly(why) => bail!("ask Podman which containers exist: `podman ps` {why}"),
        };
    let is_gone = |link: &&Link| part(link, "container").is_some_and(|id| !known.contains(id));
    Ok(attached().filter(is_gone).cloned().collect())
}

/// An ADD that runs just now looks the same, but not for longer than it may last.
fn unfinished(links: &[Link]) -> Result<Vec<Link>> {
    let mut found: Vec<_> = links.iter().filter(|link| lease::is_unfinished(link) && is_named(link)).cloned().collect();
    if found.is_empty() {
        return Ok(found);
    }
    thread::sleep(DEADLINE);
    let now = self::links()?;
    found.retain(|link| now.iter().any(|other| other.index == link.index && lease::is_unfinished(other)));
    Ok(found)
}

/// Whether it has a name that flatnet gives: other veth pairs have no alias either.
fn is_named(link: &Link) -> bool {
    let digits = link.name.strip_prefix("fn-");
    digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn part<'a>(link: &'a Link, key: &str) -> Option<&'a str> {
    lease::record_part(link.alias.as_deref()?, key)
}

fn words(link: &Link) -> String {
    let addresses: Vec<_> = lease::leases(link).map(|address| address.to_string()).collect();
    format!("{} of {}", addresses.join(", "), part(link, "name").or(part(link, "container")).unwrap_or("nobody"))
}

/// As DEL does it, with the ports that were published.
fn detach(link: &Link) -> Result<()> {
    let (Some(container), Some(interface)) = (part(link, "container"), part(link, "interface")) else { return Ok(()) };
    let target = Target {
        container: container.to_owned(),
        interface: interface.to_owned(),
        netns: std::path::PathBuf::new(),
        args: CniArgs::default(),
    };
    let published =
        if firewall::is_in_use(DEFAULT_BRIDGE) { Published::Perhaps(DEFAULT_BRIDGE) } else { Published::Never };
    let network = part(link, "network").unwrap_or_default();
    Ok(block_on(command::detach(&target, network, published))?)
}

fn delete(link: &Link) -> Result<()> {
    Ok(block_on(within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        host.delete_link(link.index).await.doing(|| format!("delete link {}", link.name))
    }))?)
}
