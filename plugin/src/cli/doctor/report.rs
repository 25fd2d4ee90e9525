//! The findings as a person or a script reads them.

use std::collections::BTreeSet;

use serde_json::json;

use super::finding::{Finding, State};
use crate::cli::table::Table;
use crate::cli::terminal::{BAD, GOOD, HEADING, QUIET, WARNING, paint, wrap_to};

/// One object: whether nothing is bad, and every finding.
pub(super) fn json(findings: &[Finding]) -> String {
    let ok = findings.iter().all(|finding| finding.state != State::Bad);
    format!("{:#}\n", json!({"ok": ok, "findings": findings}))
}

/// Which findings a person is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What is bad first, then warnings, then what was skipped; of the rest the number.
    WhatMatters,
    /// All of them, as they come.
    All,
}

/// One line a finding, under a bad one and a warning what is needed and what to do; then what it comes to.
pub(super) fn text(findings: &[Finding], extent: Extent, width: Option<usize>) -> String {
    let mut shown: Vec<_> = findings.iter().collect();
    let mut folded = 0;
    if extent == Extent::WhatMatters {
        shown.retain(|finding| finding.state != State::Ok);
        folded = findings.len() - shown.len();
        shown.sort_by_key(|finding| match finding.state {
            State::Bad => 0,
            State::Warning => 1,
            State::Skipped | State::Ok => 2,
        });
    }
    let table = table(findings, &shown).text(width);
    let checks = if folded == 1 { "1 check".to_owned() } else { format!("{folded} checks") };
    let folded =
        if folded == 0 { String::new() } else { format!("{}  {checks} passed; --all shows them\n", pad(State::Ok)) };
    // Not wrapped: it is to be copied.
    let what = if findings.iter().any(|it| it.state == State::Bad) { "what is bad" } else { "the warnings" };
    let command = |command| format!("one command fixes {what}: {}\n", paint(HEADING, command));
    let command = one_command(findings).map(command).unwrap_or_default();
    format!("{table}{folded}\n{}\n{command}", wrap_to(&summary(findings), 0, width))
}

/// Where a network's name tells findings apart, it is part of their names.
fn table(all: &[Finding], shown: &[&Finding]) -> Table {
    let networks: BTreeSet<_> = all.iter().filter_map(|finding| finding.network.as_ref()).collect();
    let title = |finding: &Finding| match &finding.network {
        Some(network) if networks.len() > 1 => format!("{} ({network})", finding.id),
        _ => finding.id.to_owned(),
    };
    let mut table = Table::list();
    for finding in shown {
        let is_quiet = finding.state == State::Skipped;
        let found = if is_quiet { paint(QUIET, &finding.found) } else { finding.found.clone() };
        let row = table.row([pad(finding.state), title(finding), found]);
        if finding.state == State::Bad || finding.state == State::Warning {
            row.below("needed: ", finding.needed);
            for remedy in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
                row.below("fix:    ", remedy);
            }
        }
    }
    table
}

/// As wide as the widest of them, whichever there are.
fn pad(state: State) -> String {
    let style = match state {
        State::Ok => GOOD,
        State::Warning => WARNING,
        State::Bad => BAD,
        State::Skipped => QUIET,
    };
    let word = state.as_str();
    let fill = State::Skipped.as_str().len() - word.len();
    format!("{}{:fill$}", paint(style, word), "")
}

fn summary(findings: &[Finding]) -> String {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let counts = [State::Ok, State::Warning, State::Bad, State::Skipped].map(|state| (count(state), state.as_str()));
    let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let (style, verdict) = match (count(State::Bad), count(State::Warning)) {
        (0, 0) => (GOOD, "all is well"),
        (0, _) => (WARNING, "nothing is bad"),
        (1, _) => (BAD, "fix it, then run doctor again"),
        _ => (BAD, "fix the first bad line first (others may depend on it), then run doctor again"),
    };
    format!("{}: {}", counts.join(", "), paint(style, verdict))
}

/// The command that each bad line asks for; where nothing is bad, each warning.
fn one_command(findings: &[Finding]) -> Option<&str> {
    let of = |state| findings.iter().filter(move |finding| finding.state == state);
    let state = if of(State::Bad).next().is_some() { State::Bad } else { State::Warning };
    let mut commands = of(state).map(Finding::command);
    let first = commands.next()??;
    commands.all(|command| command == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::super::finding::{BRIDGE, IP_FORWARD, POOL, WSL};
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            IP_FORWARD.bad("net.ipv4.ip_forward = 0", "run `sysctl -w net.ipv4.ip_forward=1`"),
            BRIDGE.ok("flatnet-br0, up, 10.87.1.1/24").of("flatnet"),
            POOL.warning("250 of 253 in use", "remove containers").of("flatnet"),
            WSL.skipped("not WSL"),
        ]
    }

    fn plain(findings: &[Finding], extent: Extent) -> String {
        strip_str(&text(findings, extent, Some(80))).to_string()
    }

    #[test]
    fn all_findings_come_in_their_order_with_what_mends_them() {
        insta::assert_snapshot!(plain(&findings(), Extent::All), @r"
        bad      ip-forward  net.ipv4.ip_forward = 0
                 needed: net.ipv4.ip_forward = 1
                 fix:    run `sysctl -w net.ipv4.ip_forward=1`
        ok       bridge      flatnet-br0, up, 10.87.1.1/24
        warning  pool        250 of 253 in use
                 needed: a free address of each range
                 fix:    remove containers
        skipped  wsl         not WSL

        1 ok, 1 warning, 1 bad, 1 skipped: fix it, then run doctor again
        one command fixes what is bad: sysctl -w net.ipv4.ip_forward=1
        ");
    }

    #[test]
    fn what_is_bad_comes_first_and_what_is_well_is_a_number() {
        let mut findings = findings();
        findings.rotate_left(1);
        insta::assert_snapshot!(plain(&findings, Extent::WhatMatters), @r"
        bad      ip-forward  net.ipv4.ip_forward = 0
                 needed: net.ipv4.ip_forward = 1
                 fix:    run `sysctl -w net.ipv4.ip_forward=1`
        warning  pool        250 of 253 in use
                 needed: a free address of each range
                 fix:    remove containers
        skipped  wsl         not WSL
        ok       1 check passed; --all shows them

        1 ok, 1 warning, 1 bad, 1 skipped: fix it, then run doctor again
        one command fixes what is bad: sysctl -w net.ipv4.ip_forward=1
        ");
    }

    #[test]
    fn one_command_is_named_where_each_bad_line_asks_for_it() {
        let install = "run `flatnet install`";
        let forward = &findings()[0];
        let two = [BRIDGE.bad("", install), POOL.bad("", "run `flatnet install`; or not"), WSL.warning("", "else")];
        assert_eq!(one_command(&two), Some("flatnet install"));
        assert_eq!(one_command(&[two[0].clone(), forward.clone()]), None);
        assert_eq!(one_command(&[two[0].clone(), POOL.bad("", "remove containers")]), None);
        assert_eq!(one_command(&[WSL.warning("", install), POOL.ok("")]), Some("flatnet install"));
        assert_eq!(one_command(&[POOL.ok("")]), None);
    }

    #[test]
    fn long_lines_go_on_in_their_column() {
        let long = "what containers send each other is dropped by a chain that somebody has made, whoever it was";
        let finding = [BRIDGE.bad(long, "run `nft delete table inet of-somebody`, or say there what may pass")];
        insta::assert_snapshot!(plain(&finding, Extent::WhatMatters), @r"
        bad      bridge  what containers send each other is dropped by a chain that
                         somebody has made, whoever it was
                 needed: a bridge that is up, with each gateway's address
                 fix:    run `nft delete table inet of-somebody`, or say there what may
                         pass

        1 bad: fix it, then run doctor again
        one command fixes what is bad: nft delete table inet of-somebody
        ");
    }

    #[test]
    fn names_of_networks_are_told_where_there_are_several() {
        let several = [BRIDGE.ok("flatnet-br0").of("flatnet"), BRIDGE.ok("flatnet-br1").of("second")];
        insta::assert_snapshot!(plain(&several, Extent::All), @r"
        ok       bridge (flatnet)  flatnet-br0
        ok       bridge (second)   flatnet-br1

        2 ok: all is well
        ");
    }

    #[test]
    fn a_script_gets_an_object() {
        insta::assert_snapshot!(json(&findings()[..1]), @r#"
        {
          "ok": false,
          "findings": [
            {
              "id": "ip-forward",
              "title": "forwarding",
              "state": "bad",
              "found": "net.ipv4.ip_forward = 0",
              "needed": "net.ipv4.ip_forward = 1",
              "remedy": "run `sysctl -w net.ipv4.ip_forward=1`"
            }
          ]
        }
        "#);
    }
}
