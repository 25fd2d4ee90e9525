//! The rules of CNI, held against any plugin: one scenario for each, and a scoreboard of what came of them.
//!
//! Invariant: a plugin fails only where a scenario that says its source shows it; what cannot be tried, or is not about such a
//! plugin, is said with the reason and counts for nothing.

mod board;
pub mod command;
pub mod probe;
mod progress;
mod rule;
mod subject;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::report::{Outcome, Report};
use crate::scenario::Scenario;
use crate::suite::{self, Suite};
use crate::verb::Weight;

pub use board::{Board, Column, Line, Verdict};
pub use rule::{Judged, Missing, Need, Rule, Strength, Version};
pub use subject::{Ipam, Subject, Traits, in_time_for};

/// How many containers the rules have at once, at most.
pub const ROOM: usize = 8;

/// The folder of the rules, below that of all scenarios.
pub const FOLDER: &str = "conformance";

/// The rules whose names contain one of `wanted`; all without any.
pub fn find(wanted: &[String]) -> Result<Vec<PathBuf>> {
    let folder = suite::folder().join(FOLDER);
    let mut files = suite::find(&[folder.display().to_string()])?;
    files.retain(|file| wanted.is_empty() || wanted.iter().any(|part| suite::name(file).contains(part.as_str())));
    ensure!(!files.is_empty(), "find a rule: no name has {}", wanted.join(" or "));
    Ok(files)
}

/// Holds `subject`, whose plugins are in `plugin_dir`, against the rules of `files`, and tells whenever something has come of one.
pub fn hold(
    subject: &Subject,
    plugin_dir: &Path,
    files: &[PathBuf],
    jobs: usize,
    told: impl Fn() + Sync,
) -> Result<Column> {
    let (mut lines, mut tried) = (Vec::new(), Vec::new());
    for file in files {
        let scenario = Scenario::load_for(file, Some(subject))?;
        let rule = scenario.setting.rule.as_ref().with_context(|| format!("find [rule] in {}", file.display()))?;
        match scenario.setting.missing(&rule.needs) {
            Some(missing) => {
                lines.push(Line::new(&scenario, rule, missing.verdict, Some(missing.why))?);
                told();
            }
            None => tried.push((file.clone(), scenario)),
        }
    }
    let suite = Suite {
        plugin_dir: plugin_dir.to_owned(),
        subject: Some(serde_json::to_string(subject).context("tell a child process of a plugin")?),
        kernel: None,
        keep: false,
        jobs,
        patience: suite::PATIENCE,
    };
    let files: Vec<PathBuf> = tried.iter().map(|(file, _)| file.clone()).collect();
    let (reports, _) = suite.run(&files, |_| told());
    for (file, scenario) in &tried {
        let report =
            reports.iter().find(|report| Path::new(&report.file) == file).context("find the report of a rule")?;
        let Some(rule) = &scenario.setting.rule else { continue };
        let (verdict, why) = judge(rule, report);
        lines.push(Line::new(scenario, rule, verdict, why)?);
    }
    lines.sort_by_key(|line| line.rule);
    Ok(Column { plugin: subject.network.kind().to_owned(), versions: subject.traits.versions.clone(), lines })
}

fn judge(rule: &Rule, report: &Report) -> (Verdict, Option<String>) {
    let should = rule.strength == Strength::Should || report.weight == Weight::Words;
    match (&report.outcome, &report.reason) {
        (Outcome::Passed, _) => (Verdict::Pass, None),
        (_, Some(reason)) if report.weight == Weight::Nothing => (Verdict::DoesNotApply, Some(reason.clone())),
        (_, Some(reason)) => (Verdict::NotTried, Some(reason.clone())),
        _ if report.weight == Weight::Unknown => (Verdict::NotTried, report.why.clone()),
        _ if should => (Verdict::FallsShort, report.why.clone()),
        _ => (Verdict::Fail, report.why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, ROOM, Rule, Verdict, find, judge};
    use crate::report::{Outcome, Report};
    use crate::scenario::Scenario;
    use crate::tally::Harm;
    use crate::verb::Weight;
    use rstest::rstest;
    use std::path::Path;

    #[rstest]
    #[case(Outcome::Passed, Weight::Full, None, "must", Verdict::Pass)]
    #[case(Outcome::Failed, Weight::Full, None, "must", Verdict::Fail)]
    #[case(Outcome::Failed, Weight::Full, None, "should", Verdict::FallsShort)]
    #[case(Outcome::Failed, Weight::Words, None, "must", Verdict::FallsShort)]
    #[case(Outcome::Failed, Weight::Unknown, None, "must", Verdict::NotTried)]
    #[case(Outcome::Skipped, Weight::Nothing, Some("it is none"), "must", Verdict::DoesNotApply)]
    #[case(Outcome::Skipped, Weight::Full, Some("ip is not installed"), "must", Verdict::NotTried)]
    // Where CI is set.
    #[case(Outcome::Failed, Weight::Full, Some("ip is not installed"), "must", Verdict::NotTried)]
    fn a_verdict_is_of_the_strength_of_the_rule_and_of_the_failure(
        #[case] outcome: Outcome,
        #[case] weight: Weight,
        #[case] reason: Option<&str>,
        #[case] strength: &str,
        #[case] expected: Verdict,
    ) {
        let rule: Rule = toml::from_str(&format!("source = \"x\"\nstrength = \"{strength}\"")).unwrap();
        let broken = Report::broken(Path::new("x.toml"), Harm::Wrong, "why");
        let report = Report { outcome, weight, reason: reason.map(str::to_owned), ..broken };
        assert_eq!(judge(&rule, &report).0, expected);
    }

    #[test]
    fn every_rule_has_one_scenario_that_names_no_plugin() {
        let mut numbers = Vec::new();
        for file in find(&[]).unwrap() {
            let scenario = Scenario::load(&file).unwrap();
            let rule = scenario.setting.rule.as_ref().unwrap();
            let line = Line::new(&scenario, rule, Verdict::Pass, None).unwrap();
            numbers.push(line.rule);
            let text = std::fs::read_to_string(&file).unwrap();
            let at_once = text.split("together = ").skip(1).filter_map(|rest| rest.split([' ', ',']).next());
            let at_once = at_once.filter_map(|number| number.parse::<usize>().ok()).max().unwrap_or_default();
            assert!(at_once <= ROOM, "{} has {at_once} containers at once", file.display());
            for name in ["flatnet", "fn-", "10.87.", "cni0"] {
                assert!(!text.contains(name), "{} is about {name}", file.display());
            }
        }
        assert_eq!(numbers, (1..=45).collect::<Vec<_>>());
    }
}
