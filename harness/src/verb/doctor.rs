//! `doctor`: what `flatnet doctor` says on a host.
//!
//! Invariant: what is not said to be bad must not be; exit code, `ok` and the findings have to agree.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::deadline;
use crate::installed;
use crate::pattern::Pattern;
use crate::process;
use crate::scenario::Setting;
use crate::world::World;

/// How long the host may take to come to the expected state: ports forward a moment after they are made.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);

/// `{ doctor = "wsl", expect = { bad = { ip-forward = "*sysctl -w net.ipv4.ip_forward=1*" } } }`: these lines are bad, with these
/// remedies, and no others are.
#[derive(Debug)]
pub(super) struct Doctor {
    host: String,
    options: DoctorOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DoctorOptions {
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    expect: Expect,
}

/// By id: of bad lines and warnings the remedy, of the others what was found.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    bad: BTreeMap<String, Pattern>,
    warning: BTreeMap<String, Pattern>,
    ok: BTreeMap<String, Pattern>,
    skipped: BTreeMap<String, Pattern>,
}

#[derive(Debug, Deserialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    id: String,
    state: String,
    found: String,
    remedy: Option<String>,
}

impl Doctor {
    pub(super) fn new(host: String, options: DoctorOptions) -> Self {
        Self { host, options }
    }

    fn look(&self, world: &mut World) -> Result<String, Failure> {
        let binary = world.plugins.find("flatnet")?;
        let mut command = world.place(&self.host)?.command(binary)?;
        installed::prefer(&mut command);
        command.args(["doctor", "--json"]).args(&self.options.arguments);
        let finished = process::run(command, b"", LOOK_PATIENCE)?;
        let evidence = |failure: Failure| failure.with("stdout", &*finished.stdout).with("stderr", &*finished.stderr);
        let report: Report = serde_json::from_str(&finished.stdout)
            .map_err(|err| evidence(Failure::wrong(format!("read what doctor says: {err}"))))?;
        let exit = finished.status.and_then(|status| status.code());
        self.options.expect.judge(&report, exit).map_err(evidence)
    }
}

impl Expect {
    fn judge(&self, report: &Report, exit: Option<i32>) -> Result<String, Failure> {
        let well = self.bad.is_empty();
        if exit != Some(i32::from(!well)) || report.ok != well {
            let got = format!("exit status {exit:?}, ok = {}; {}", report.ok, report.bad());
            return Err(Failure::mismatch(format!("exit status {}, ok = {well}", i32::from(!well)), got));
        }
        if let Some(other) = report.findings.iter().find(|it| it.state == "bad" && !self.bad.contains_key(&it.id)) {
            return Err(Failure::mismatch(format!("{} is not bad", other.id), &other.found));
        }
        for (state, wanted) in
            [("bad", &self.bad), ("warning", &self.warning), ("ok", &self.ok), ("skipped", &self.skipped)]
        {
            for (id, pattern) in wanted {
                report.holds(id, state, pattern)?;
            }
        }
        Ok(if well { "nothing is bad".to_owned() } else { report.bad() })
    }
}

impl Report {
    fn bad(&self) -> String {
        let bad = self.findings.iter().filter(|finding| finding.state == "bad");
        let bad: Vec<_> = bad.map(|finding| finding.id.as_str()).collect();
        format!("bad: {}", bad.join(", "))
    }

    fn holds(&self, id: &str, state: &str, pattern: &Pattern) -> Result<(), Failure> {
        let lines: Vec<_> = self.findings.iter().filter(|finding| finding.id == id).collect();
        let text = |finding: &Finding| finding.remedy.clone().unwrap_or_else(|| finding.found.clone());
        if lines.iter().any(|finding| finding.state == state && pattern.matches(&text(finding))) {
            return Ok(());
        }
        let got: Vec<_> =
            lines.iter().map(|finding| format!("{} ({}): {}", id, finding.state, text(finding))).collect();
        Err(Failure::mismatch(format!("{id} ({state}): {pattern}"), got.join("\n")))
    }
}

impl Verb for Doctor {
    fn describe(&self) -> String {
        format!("doctor {}", self.host)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let stranger = "`doctor` needs `installed = true`: else the machine's own files and Podman would be looked at";
        misfit("doctor", if setting.installed { Ok(()) } else { Err(stranger.to_owned()) })
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("doctor", &self.host))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let mut last = None;
        let seen = deadline::until(PATIENCE, || match self.look(world) {
            Ok(seen) => Some(seen),
            Err(failure) => {
                last = Some(failure);
                None
            }
        });
        seen.ok_or_else(|| last.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn judge(expect: serde_json::Value, states: &[(&str, &str)], exit: i32) -> Result<String, String> {
        let finding = |(id, state): &(&str, &str)| json!({"id": id, "state": state, "found": "f", "remedy": "mend it"});
        let ok = !states.iter().any(|(_, state)| *state == "bad");
        let report = json!({"ok": ok, "findings": states.iter().map(finding).collect::<Vec<_>>()});
        let report: Report = serde_json::from_value(report).unwrap();
        let expect: Expect = serde_json::from_value(expect).unwrap();
        expect.judge(&report, Some(exit)).map_err(|failure| failure.got)
    }

    #[rstest]
    #[case::nothing_bad(json!({}), &[("a", "ok"), ("b", "warning")], 0, true)]
    #[case::what_is_bad(json!({"bad": {"a": "mend*"}}), &[("a", "bad"), ("b", "ok")], 1, true)]
    #[case::bad_all_the_same(json!({}), &[("a", "bad")], 1, false)]
    #[case::more_is_bad(json!({"bad": {"a": "*"}}), &[("a", "bad"), ("b", "bad")], 1, false)]
    #[case::not_bad(json!({"bad": {"a": "*"}}), &[("a", "ok"), ("b", "bad")], 1, false)]
    #[case::another_remedy(json!({"bad": {"a": "other"}}), &[("a", "bad")], 1, false)]
    #[case::exit_code(json!({"bad": {"a": "*"}}), &[("a", "bad")], 0, false)]
    #[case::exit_code_of_well(json!({}), &[("a", "ok")], 1, false)]
    #[case::no_such_line(json!({"ok": {"c": "*"}}), &[("a", "ok")], 0, false)]
    fn reports(
        #[case] expect: serde_json::Value,
        #[case] states: &[(&str, &str)],
        #[case] exit: i32,
        #[case] passes: bool,
    ) {
        let judged = judge(expect, states, exit);
        assert_eq!(judged.is_ok(), passes, "{judged:?}");
    }
}
