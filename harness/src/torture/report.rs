//! What a proof is worth: how much was done, what was wrong, and how the reference plugins did.
//!
//! Invariant: the same counts for people (text), for pages (Markdown) and for programs (JSON); zeros are said, too.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Campaign;
use crate::tally::{Harm, Tally};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Half a minute, for every change.
    Short,
    /// Everything, for a release.
    Long,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How much was done.
    pub form: Form,
    /// What every choice followed from.
    pub seed: u32,
    /// How many scenarios ran at the same time.
    pub jobs: usize,
    /// How long it took.
    pub seconds: f64,
    /// The campaigns' counts.
    pub rows: Vec<Row>,
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// What this machine lacks something for.
    pub skipped: Vec<String>,
    /// The reference plugins beside flatnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// The counts of a campaign.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which one.
    pub campaign: Campaign,
    /// How many scenarios it had.
    pub scenarios: usize,
    /// What they did.
    pub tally: Tally,
}

/// Something that should not be.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Where it was found.
    pub campaign: Campaign,
    /// What kind of harm it is.
    pub harm: Harm,
    /// All that is known.
    pub what: String,
    /// The command that shows it again.
    pub replay: String,
}

/// flatnet and the reference plugins, after the same steps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Beside {
    /// Line by line.
    pub comparisons: Vec<Comparison>,
}

/// One line: the same done to both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// What was done and what is counted.
    pub what: String,
    /// What became of flatnet.
    pub flatnet: Count,
    /// What became of the reference.
    pub reference: Count,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many were lost.
    pub lost: u64,
    /// How often it was tried.
    pub of: u64,
}

impl Beside {
    /// As a Markdown table.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| | flatnet | bridge + host-local |\n|---|---|---|\n");
        for Comparison { what, flatnet, reference } in &self.comparisons {
            line(
                &mut text,
                format_args!(
                    "| {what} | {} of {} | {} of {} |",
                    flatnet.lost, flatnet.of, reference.lost, reference.of
                ),
            );
        }
        text
    }
}

impl Report {
    /// For a program: everything, and how often each kind of harm was found.
    pub fn json(&self) -> Result<String> {
        let mut value = serde_json::to_value(self).context("write the report")?;
        value["harms"] = Harm::ALL.iter().map(|harm| (harm.to_string(), Value::from(self.count(*harm)))).collect();
        Ok(serde_json::to_string_pretty(&value).context("write the report")? + "\n")
    }

    /// For a person: the counts, then what was wrong and how to see it again.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let form = if self.form == Form::Long { "long" } else { "short" };
        line(
            &mut text,
            format_args!("{form} form, seed {}, {:.1} s, {} at a time\n", self.seed, self.seconds, self.jobs),
        );
        for (what, count) in self.counts() {
            line(&mut text, format_args!("  {what:32}{count}"));
        }
        let harms: Vec<String> =
            Harm::ALL.iter().map(|harm| format!("{} {}", harm.plural(), self.count(*harm))).collect();
        line(&mut text, format_args!("\n  {}", harms.join("   ")));
        for skipped in &self.skipped {
            line(&mut text, format_args!("  skip  {skipped}"));
        }
        if let Some(beside) = &self.beside {
            line(&mut text, format_args!("\n{}", beside.plain()));
        }
        for Finding { campaign, harm, what, replay } in &self.findings {
            line(&mut text, format_args!("\n{harm}, by {campaign}:\n{}\n  again: {replay}", what.trim_end()));
        }
        text
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| | |\n|---|---|\n");
        for (what, count) in self.counts() {
            line(&mut text, format_args!("| {what} | {count} |"));
        }
        let harms: Vec<String> =
            Harm::ALL.iter().map(|harm| format!("{} {}", self.count(*harm), harm.plural())).collect();
        line(&mut text, format_args!("| and of all that | {} |", harms.join(", ")));
        if let Some(beside) = &self.beside {
            line(&mut text, format_args!("\n{}", beside.markdown().trim_end()));
        }
        text
    }

    /// What was done, in the order in which it is told.
    fn counts(&self) -> Vec<(&'static str, String)> {
        let of = |campaign| self.rows.iter().filter(move |row| row.campaign == campaign);
        let all = self.rows.iter().fold(Tally::default(), |mut sum, row| {
            sum += &row.tally;
            sum
        });
        let inputs: u64 = of(Campaign::Input).map(|row| row.tally.refused).sum();
        let scenarios: usize = self.rows.iter().map(|row| row.scenarios).sum();
        let verbs: BTreeSet<&String> = all.killed.keys().chain(all.failed.keys()).collect();
        let by_verb = |counts: &std::collections::BTreeMap<String, u64>| {
            let one = |verb: &&String| format!("{verb} {}", counts.get(*verb).copied().unwrap_or_default());
            verbs.iter().map(one).collect::<Vec<_>>().join("  ")
        };
        let mut counts = Vec::new();
        if !verbs.is_empty() {
            counts.push(("killed at a system call", by_verb(&all.killed)));
            counts.push(("system calls that failed", by_verb(&all.failed)));
        }
        counts.extend([
            ("ADDs among others at once", all.stormed.to_string()),
            ("bad inputs refused", inputs.to_string()),
            ("mishaps survived", all.mishaps.to_string()),
            ("addresses given", all.addresses.to_string()),
            ("calls in all", all.calls.to_string()),
            ("scenarios", scenarios.to_string()),
        ]);
        counts
    }
}

impl Beside {
    fn plain(&self) -> String {
        let width = self.comparisons.iter().map(|line| line.what.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        line(&mut text, format_args!("  {:width$}  {:>14}  {:>18}", "lost", "flatnet", "bridge+host-local"));
        for Comparison { what, flatnet, reference } in &self.comparisons {
            let cell = |count: &Count| format!("{} of {}", count.lost, count.of);
            line(&mut text, format_args!("  {what:width$}  {:>14}  {:>18}", cell(flatnet), cell(reference)));
        }
        text.trim_end().to_owned()
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::{Beside, Comparison, Count, Finding, Form, Report, Row};
    use crate::tally::{Harm, Tally};
    use crate::torture::Campaign;

    fn report(findings: Vec<Finding>) -> Report {
        let killed = Tally {
            calls: 900,
            addresses: 320,
            killed: [("ADD".to_owned(), 210), ("DEL".to_owned(), 90)].into(),
            failed: [("ADD".to_owned(), 80)].into(),
            ..Tally::default()
        };
        let input = Tally { calls: 120, refused: 118, ..Tally::default() };
        let rows = vec![
            Row { campaign: Campaign::Kill, scenarios: 4, tally: killed },
            Row { campaign: Campaign::Input, scenarios: 5, tally: input },
        ];
        let comparisons = vec![Comparison {
            what: "a reboot: addresses lost".to_owned(),
            flatnet: Count { lost: 0, of: 20 },
            reference: Count { lost: 19, of: 19 },
        }];
        let skipped = vec!["faults/x: nft is not installed".to_owned()];
        let beside = Some(Beside { comparisons });
        Report { form: Form::Short, seed: 7, jobs: 2, seconds: 31.24, rows, findings, skipped, beside }
    }

    fn leak() -> Finding {
        Finding {
            campaign: Campaign::Kill,
            harm: Harm::Leak,
            what: "  FAIL  1  add web\n".to_owned(),
            replay: "harness run /tmp/kill-add.toml".to_owned(),
        }
    }

    #[test]
    fn a_person_reads_what_was_done_what_was_wrong_and_how_to_see_it_again() {
        insta::assert_snapshot!(report(vec![leak()]).text(), @r"
        short form, seed 7, 31.2 s, 2 at a time

          killed at a system call         ADD 210  DEL 90
          system calls that failed        ADD 80  DEL 0
          ADDs among others at once       0
          bad inputs refused              118
          mishaps survived                0
          addresses given                 320
          calls in all                    1020
          scenarios                       9

          leaks 1   duplicates 0   hangs 0   panics 0   wrong answers 0
          skip  faults/x: nft is not installed

          lost                             flatnet   bridge+host-local
          a reboot: addresses lost         0 of 20            19 of 19

        leak, by kill:
          FAIL  1  add web
          again: harness run /tmp/kill-add.toml
        ");
    }

    #[test]
    fn a_page_has_tables() {
        insta::assert_snapshot!(report(Vec::new()).markdown(), @r"
        | | |
        |---|---|
        | killed at a system call | ADD 210  DEL 90 |
        | system calls that failed | ADD 80  DEL 0 |
        | ADDs among others at once | 0 |
        | bad inputs refused | 118 |
        | mishaps survived | 0 |
        | addresses given | 320 |
        | calls in all | 1020 |
        | scenarios | 9 |
        | and of all that | 0 leaks, 0 duplicates, 0 hangs, 0 panics, 0 wrong answers |

        | | flatnet | bridge + host-local |
        |---|---|---|
        | a reboot: addresses lost | 0 of 20 | 19 of 19 |
        ");
    }

    #[test]
    fn what_is_lost_is_no_proof() {
        let mut lost = report(Vec::new());
        lost.skipped.clear();
        assert!(lost.is_clean() && !report(vec![leak()]).is_clean());
    }
}
