//! The findings as a person or a script reads them.

use serde_json::json;

use super::finding::{Finding, State};

/// One object: whether nothing is bad, and every finding.
pub(super) fn json(findings: &[Finding]) -> String {
    let ok = findings.iter().all(|finding| finding.state != State::Bad);
    format!("{:#}\n", json!({"ok": ok, "findings": findings}))
}

/// One line a finding, under a bad one what is needed and what to do, and a line that sums it up.
pub(super) fn table(findings: &[Finding]) -> String {
    let several = findings
        .iter()
        .filter_map(|finding| finding.network.as_ref())
        .any(|network| findings.iter().filter_map(|finding| finding.network.as_ref()).any(|other| other != network));
    let title = |finding: &Finding| match &finding.network {
        Some(network) if several => format!("{} ({network})", finding.id),
        _ => finding.id.to_owned(),
    };
    let width = findings.iter().map(|finding| title(finding).chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        line(&mut text, &format!("{:7}  {:width$}  {}", finding.state.as_str(), title(finding), finding.found));
        if finding.state == State::Bad || finding.state == State::Warning {
            line(&mut text, &format!("{:9}needed: {}", "", finding.needed));
            for remedy in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
                line(&mut text, &format!("{:9}fix:    {remedy}", ""));
            }
        }
    }
    line(&mut text, &summary(findings));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn summary(findings: &[Finding]) -> String {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let counts = [State::Ok, State::Warning, State::Bad, State::Skipped].map(|state| (count(state), state.as_str()));
    let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let verdict = match (count(State::Bad), count(State::Warning)) {
        (0, 0) => "all is well",
        (0, _) => "nothing is bad",
        (1, _) => "fix it, then run doctor again",
        _ => "fix the first bad line first (others may depend on it), then run doctor again",
    };
    format!("\n{}: {verdict}", counts.join(", "))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_table_says_how_to_mend_what_is_bad() {
        insta::assert_snapshot!(table(&findings()), @r"
        bad      ip-forward  net.ipv4.ip_forward = 0
                 needed: net.ipv4.ip_forward = 1
                 fix:    run `sysctl -w net.ipv4.ip_forward=1`
        ok       bridge      flatnet-br0, up, 10.87.1.1/24
        warning  pool        250 of 253 in use
                 needed: a free address of each range
                 fix:    remove containers
        skipped  wsl         not WSL

        1 ok, 1 warning, 1 bad, 1 skipped: fix it, then run doctor again
        ");
    }

    #[test]
    fn names_of_networks_are_told_where_there_are_several() {
        let several = [BRIDGE.ok("flatnet-br0").of("flatnet"), BRIDGE.ok("flatnet-br1").of("second")];
        insta::assert_snapshot!(table(&several), @r"
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
