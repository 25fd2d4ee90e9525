//! `flatnet ls`: every lease of this host, for a person or a script.
//!
//! Nothing is remembered: each line is what the kernel says now, so the list cannot be out of date.

mod watch;

use std::io::Write;
use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::gc;
use super::names::{Double, Names};
use super::table::Table;
use super::terminal::{BAD, GOOD, QUIET, line_width, note, paint};
use crate::error::Result;
use crate::ipam::lease;
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};
use crate::{attachment, call};

/// Every leased address and the container that has it
///
/// Where the terminal (or COLUMNS) is too narrow for all columns, the least important ones are left out; a pipe without COLUMNS, and --json,
/// have all.
#[derive(Args)]
pub(super) struct Arguments {
    /// Print one JSON array, for scripts
    #[arg(long)]
    json: bool,
    /// Print the list again whenever it changes, until Ctrl-C: on a terminal in the place of the one before
    #[arg(short, long)]
    watch: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let show = |lines: &[Line]| if arguments.json { json(lines) } else { table(lines, line_width()) };
    if arguments.watch {
        return watch::follow(show, out);
    }
    let (lines, doubles) = read()?;
    let text = show(&lines);
    out.write_all(text.as_bytes()).context("failed to write the list")?;
    if !arguments.json {
        // Not in the list, which scripts may read by its columns.
        for double in doubles {
            note(&format!("flatnet: {double}"));
        }
        // Who is not root may not ask; the list is whole without it.
        let dead = if nix::unistd::geteuid().is_root() { gc::uninhabited().unwrap_or_default() } else { Vec::new() };
        if !dead.is_empty() {
            let names = gc::names(&dead);
            note(&format!(
                "flatnet: no process is left in {names}: unless it starts now, `flatnet gc` frees its address"
            ));
        }
    }
    Ok(())
}

/// One leased address. What the link's record does not have, or the kernel does not tell, is absent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Line {
    pub(super) address: IpAddr,
    pub(super) network: Option<String>,
    /// The container's name, where the runtime told it.
    pub(super) name: Option<String>,
    /// The container's id.
    pub(super) container: Option<String>,
    /// The container's end of the pair.
    interface: Option<String>,
    /// The hardware address of that end, now.
    mac: Option<String>,
    /// The host's end of the pair.
    link: String,
    state: State,
    /// The container's name leads to another container, or is an address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shadowed: bool,
}

/// Whether frames reach the container, as far as the host's end tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Forwarding,
    /// Up, but its bridge passes nothing: the container's end is down, or the port has just been made.
    Blocked,
    Down,
}

impl State {
    fn of(link: &Link) -> Self {
        match (link.up, link.forwarding) {
            (true, true) => Self::Forwarding,
            (true, false) => Self::Blocked,
            (false, _) => Self::Down,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::Blocked => "blocked",
            Self::Down => "down",
        }
    }
}

/// All leases of the caller's network namespace: those of an attachment together, by the lowest address of each. With them the
/// containers that are not reached by their names.
pub(super) fn read() -> Result<(Vec<Line>, Vec<Double>)> {
    call::block_on(list())
}

async fn list() -> Result<(Vec<Line>, Vec<Double>)> {
    call::within_deadline(async {
        let host = Netlink::open()?;
        let found = host.links().await?;
        let mut attachments = Vec::new();
        for link in found.iter().filter(|link| lease::leases(link).next().is_some()) {
            // It may vanish meanwhile, and who is not root may not ask: the lease is there all the same.
            let peer = host.peer(link).await.ok().flatten();
            attachments.push(lines_of(link, peer.and_then(|peer| peer.mac)));
        }
        attachments.sort();
        let (mut lines, doubles): (Vec<_>, _) =
            (attachments.into_iter().flatten().collect(), Names::of(&found).doubles());
        for line in &mut lines {
            line.shadowed = doubles.iter().any(|double| double.container == line.container);
        }
        Ok((lines, doubles))
    })
    .await
}

/// One line an address, IPv4 first.
pub(super) fn lines_of(link: &Link, mac: Option<Mac>) -> Vec<Line> {
    let part = |key| attachment::record_part(link.alias.as_deref().unwrap_or_default(), key).map(str::to_owned);
    let of_lease = |address| Line {
        address,
        network: part("network"),
        name: part("name"),
        container: part("container"),
        interface: part("interface"),
        mac: mac.map(|mac| mac.to_string()),
        link: link.name.clone(),
        state: State::of(link),
        shadowed: false,
    };
    let mut lines: Vec<_> = lease::leases(link).map(of_lease).collect();
    lines.sort();
    lines
}

/// One JSON array, one object a lease.
fn json(lines: &[Line]) -> String {
    format!("{:#}\n", serde_json::json!(lines))
}

/// One line a lease, under headings; a container's id is cut to twelve characters, as Podman shows it.
fn table(lines: &[Line], width: Option<usize>) -> String {
    const HEADINGS: [&str; 8] = ["ADDRESS", "NAME", "CONTAINER", "NETWORK", "INTERFACE", "MAC", "LINK", "STATE"];
    let mut table = Table::with_headings(&HEADINGS).expendable(&["MAC", "LINK", "INTERFACE", "CONTAINER"]);
    for line in lines {
        table.row(row(line));
    }
    let note = match table.left_out(width) {
        none if none.is_empty() => String::new(),
        some => paint(QUIET, format!("without {}: no room; --json has all", some.join(", "))) + "\n",
    };
    table.text(width) + &note
}

fn row(line: &Line) -> [String; 8] {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let style = if line.state == State::Forwarding { GOOD } else { BAD };
    [
        line.address.to_string(),
        shown(&line.name),
        shown(&line.container).chars().take(12).collect(),
        shown(&line.network),
        shown(&line.interface),
        shown(&line.mac),
        line.link.clone(),
        paint(style, line.state.as_str()),
    ]
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    fn link(alias: Option<&str>, up: bool, forwarding: bool) -> Link {
        let names = vec!["flatnet-att-0123456789abcdef@eth0".to_owned(), "flatnet-ip-10.87.1.2".to_owned()];
        Link { name: "fn-00000001".into(), alias: alias.map(str::to_owned), names, up, forwarding, ..Link::default() }
    }

    #[test]
    fn a_table_has_a_line_for_each_lease() {
        let record = "network=flatnet container=0123456789abcdef interface=eth0 name=web";
        let found = [link(Some(record), true, true), link(None, true, false), link(None, false, false)];
        let macs = [Some(Mac::of("10.87.1.2".parse().expect("an address"))), None, None];
        let lines: Vec<_> = found.iter().zip(macs).flat_map(|(link, mac)| lines_of(link, mac)).collect();
        let plain = |width| strip_str(&table(&lines, width)).to_string();
        insta::assert_snapshot!(plain(None), @r"
        ADDRESS    NAME  CONTAINER     NETWORK  INTERFACE  MAC                LINK         STATE
        10.87.1.2  web   0123456789ab  flatnet  eth0       0a:57:0a:57:01:02  fn-00000001  forwarding
        10.87.1.2  -     -             -        -          -                  fn-00000001  blocked
        10.87.1.2  -     -             -        -          -                  fn-00000001  down
        ");
        insta::assert_snapshot!(plain(Some(80)), @r"
        ADDRESS    NAME  CONTAINER     NETWORK  INTERFACE  LINK         STATE
        10.87.1.2  web   0123456789ab  flatnet  eth0       fn-00000001  forwarding
        10.87.1.2  -     -             -        -          fn-00000001  blocked
        10.87.1.2  -     -             -        -          fn-00000001  down
        without MAC: no room; --json has all
        ");
    }

    #[test]
    fn an_unreadable_mac_is_null_in_json() {
        let lines = lines_of(&link(None, false, false), None);
        insta::assert_snapshot!(json(&lines), @r#"
        [
          {
            "address": "10.87.1.2",
            "network": null,
            "name": null,
            "container": null,
            "interface": null,
            "mac": null,
            "link": "fn-00000001",
            "state": "down"
          }
        ]
        "#);
    }

    #[test]
    fn a_link_without_a_lease_has_no_line() {
        assert_eq!(lines_of(&Link::default(), None), []);
    }
}
