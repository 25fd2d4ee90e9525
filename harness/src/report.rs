//! What came of a scenario, for people and for programs.
//!
//! Invariant: a person sees passed steps in one line each and the failing one whole; a program gets the same facts as JSON.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault;
use crate::scenario::{Scenario, Step};
use crate::tally::{Harm, Tally};
use crate::terminal::{BAD, GOOD, HEADING, QUIET, paint};
use crate::verb::{Failure, Weight};

/// How many lines of what was left tell why.
const FEW: usize = 3;

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All steps did as they should, and nothing was left.
    Passed,
    /// A step did not, or something was left.
    Failed,
    /// This machine lacks something; the reason says what.
    Skipped,
}

/// What came of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its file.
    pub file: String,
    /// Its claim.
    pub summary: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, if it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was done to the plugin.
    #[serde(default)]
    pub tally: Tally,
    /// What kind of harm the failure is, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm: Option<Harm>,
    /// Why it failed, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How much that counts where a plugin is held against a rule.
    #[serde(default)]
    pub weight: Weight,
    /// All of it, for a person to read.
    pub transcript: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// The process to enter with `harness shell`, if its world was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<u32>,
}

impl Report {
    /// A report on a file that could not even be run.
    pub fn broken(file: &Path, harm: Harm, why: &str) -> Self {
        Self {
            file: file.display().to_string(),
            summary: String::new(),
            outcome: Outcome::Failed,
            reason: None,
            tally: Tally::default(),
            harm: Some(harm),
            why: Some(why.lines().next().unwrap_or_default().to_owned()),
            weight: Weight::Unknown,
            transcript: format!("{why}\n"),
            duration_ms: 0.0,
            world: None,
        }
    }
}

/// A transcript as a terminal shows it: its lines begin with what came of a step.
pub fn painted(transcript: &str) -> String {
    const EVIDENCE: &str = "         ";
    let of_line = |(number, line): (usize, &str)| {
        let word = line.split_whitespace().next().filter(|_| !line.starts_with(EVIDENCE));
        let style = match word {
            // The claim.
            _ if number == 0 => return paint(HEADING, line) + "\n",
            Some("ok" | "expected") => GOOD,
            Some("FAIL" | "got") => BAD,
            Some("skip" | "--") => QUIET,
            _ => return format!("{line}\n"),
        };
        word.map_or_else(String::new, |word| line.replacen(word, &paint(style, word), 1) + "\n")
    };
    transcript.lines().enumerate().map(of_line).collect()
}

/// The growing text of a run.
#[derive(Debug)]
pub struct Transcript<'a> {
    scenario: &'a Scenario,
    text: String,
    harm: Option<Harm>,
    why: Option<String>,
    weight: Weight,
}

impl<'a> Transcript<'a> {
    /// Begins with the claim.
    pub fn new(scenario: &'a Scenario) -> Self {
        let text = format!("{}: {}\n", scenario.file.display(), scenario.summary);
        Self { scenario, text, harm: None, why: None, weight: Weight::Full }
    }

    /// A step that did as it should.
    pub fn passed(&mut self, number: usize, step: &Step, outcome: &str, took: Duration) {
        let gap = if outcome.is_empty() { "" } else { "  " };
        let millis = took.as_secs_f64() * 1000.0;
        self.line(format_args!("  ok   {number:2}  {}{gap}{outcome}  ({millis:.1} ms)", step.verb.describe()));
    }

    /// The step before which the caller stops, and why.
    pub fn stopped(&mut self, number: usize, step: &Step) {
        let (file, words) = (self.file(), step.verb.describe());
        self.line(format_args!("  --   {number:2}  {words}  (it takes something away: --until {number} does it, too)"));
        self.line(format_args!("       the whole scenario: cargo run -p harness -- run {file}"));
    }

    /// The step that did not, whole.
    pub fn failed(&mut self, number: usize, step: &Step, failure: &Failure) {
        self.harm = Some(failure.harm);
        // What is said of such plugins is no matter of the step.
        let step_told = if failure.weight == Weight::Nothing { String::new() } else { step.verb.describe() + ": " };
        self.why = Some(step_told + &failure.line());
        self.weight = failure.weight;
        self.line(format_args!("  FAIL {number:2}  {}", step.verb.describe()));
        self.line(format_args!("       {}:{}", self.scenario.file.display(), step.line));
        self.block(&step.source);
        self.failure(failure);
        self.look_around(number);
    }

    /// Something was there at the end that was not there before.
    pub fn left(&mut self, lines: &[String]) {
        self.harm = Some(Harm::Leak);
        let others = lines.len().saturating_sub(FEW);
        let more = if others == 0 { String::new() } else { format!(" and {others} more") };
        self.why = Some(format!("at the end: {}{more}", lines[..lines.len() - others].join(", ")));
        self.line(format_args!("  FAIL     the world is not as it was before"));
        self.block(&lines.join("\n"));
        self.look_around(self.scenario.steps.len());
    }

    /// The world could not be built, or not be looked at.
    pub fn broke(&mut self, err: &anyhow::Error) {
        self.harm = Some(Harm::Wrong);
        self.why = Some(format!("failed to {err:#}"));
        self.weight = Weight::Unknown;
        self.line(format_args!("  FAIL     failed to {err:#}"));
    }

    /// A step that such a plugin has nothing for.
    pub fn passed_over(&mut self, number: usize, step: &Step, why: &str) {
        self.line(format_args!("  --   {number:2}  {}  ({why})", step.verb.describe()));
    }

    /// Why the rule that is tried is not about such a plugin, if that is how it ended.
    pub fn inapplicable(&self) -> Option<&str> {
        self.why.as_deref().filter(|_| self.weight == Weight::Nothing)
    }

    /// The scenario did not run at all.
    pub fn skipped(&mut self, reason: &str) {
        self.line(format_args!("  skip     {reason}"));
    }

    /// All of it so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Ends it.
    pub fn finish(self, outcome: Outcome, reason: Option<String>, tally: Tally, took: Duration) -> Report {
        Report {
            file: self.scenario.file.display().to_string(),
            summary: self.scenario.summary.clone(),
            outcome,
            reason,
            tally,
            harm: self.harm,
            why: self.why,
            weight: self.weight,
            transcript: self.text,
            duration_ms: took.as_secs_f64() * 1000.0,
            world: None,
        }
    }

    fn failure(&mut self, failure: &Failure) {
        match &failure.expected {
            Some(expected) => {
                self.line(format_args!("       expected  {expected}"));
                self.line(format_args!("       got       {}", failure.got));
            }
            None => self.line(format_args!("       {}", failure.got)),
        }
        for (title, text) in failure.evidence.iter().filter(|(_, text)| !text.is_empty()) {
            self.line(format_args!("       --- {title}"));
            self.block(text);
        }
        if let Some(fault) = &failure.fault {
            let (variable, file) = (fault::ONLY, self.file());
            self.line(format_args!("       this fault alone: {variable}={fault} cargo run -p harness -- run {file}"));
        }
    }

    /// To be pasted into a shell.
    fn file(&self) -> String {
        let file = self.scenario.file.display().to_string();
        if file.contains(' ') { format!("'{file}'") } else { file }
    }

    fn look_around(&mut self, step: usize) {
        let file = self.file();
        self.line(format_args!("       look around: cargo run -p harness -- shell {file} --until {step}"));
    }

    fn block(&mut self, text: &str) {
        for line in text.lines() {
            self.line(format_args!("         {line}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", line.to_string().trim_end());
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn a_transcript_is_painted_and_its_words_stay() {
        let transcript =
            "case.toml: a case\n  ok    1  add web\n  FAIL  2  del web\n       expected  ok\n         got  nothing\n";
        let shown = painted(transcript);
        assert_eq!(strip_str(&shown).to_string(), transcript);
        let has_style = |line: &str| strip_str(line).to_string() != line;
        let painted: Vec<_> = shown.lines().map(has_style).collect();
        assert_eq!(painted, [true, true, true, true, false], "{shown:?}");
    }
}
