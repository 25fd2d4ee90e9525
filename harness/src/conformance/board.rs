//! The scoreboard: rule by rule, what came of it, for people (text), for pages (Markdown) and for programs (JSON).
//!
//! Invariant: the same lines in all three; whatever is not a pass says why, and what counts against a plugin says its source.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Rule, Strength};
use crate::scenario::Scenario;

/// What came of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The plugin keeps it.
    Pass,
    /// The plugin does not, and must.
    Fail,
    /// The plugin does not, and should.
    FallsShort,
    /// It is not about such a plugin.
    DoesNotApply,
    /// This machine lacks something for it, or the harness could not do its part.
    NotTried,
}

/// One rule, and one plugin.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its number.
    pub rule: u32,
    /// What it claims.
    pub claim: String,
    /// How strong it is.
    pub strength: Strength,
    /// Where it stands.
    pub source: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it is no pass.
    pub why: Option<String>,
}

/// One plugin.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Its type.
    pub plugin: String,
    /// The versions that it speaks.
    pub versions: Vec<String>,
    /// Its rules, in order.
    pub lines: Vec<Line>,
}

/// All plugins, side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Board {
    /// Each of them, held against the same rules.
    pub columns: Vec<Column>,
}

/// The longest reason that is told outside of JSON, in characters.
const LONGEST: usize = 300;

impl Verdict {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::FallsShort, Self::DoesNotApply, Self::NotTried];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::FallsShort => "falls short",
            Self::DoesNotApply => "does not apply",
            Self::NotTried => "not tried",
        }
    }

    /// Whether it says something against the plugin.
    pub fn is_against(self) -> bool {
        matches!(self, Self::Fail | Self::FallsShort)
    }
}

impl Line {
    /// What came of the rule in `scenario`; its number is the beginning of the file's name.
    pub fn new(scenario: &Scenario, rule: &Rule, verdict: Verdict, why: Option<String>) -> Result<Self> {
        let name = scenario.file.file_stem().unwrap_or_default().to_string_lossy();
        let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
        let number = number.with_context(|| format!("find the number of a rule in {}", scenario.file.display()))?;
        let (claim, source) = (scenario.summary.clone(), rule.source.clone());
        Ok(Self { rule: number, claim, strength: rule.strength, source, verdict, why })
    }

    /// Why, short enough for a line.
    fn reason(&self) -> String {
        let why = self.why.as_deref().unwrap_or_default().replace('\n', " ");
        let mut short: String = why.chars().take(LONGEST).collect();
        if short.len() < why.len() {
            short.push_str(" ..");
        }
        short
    }

    /// What it says of the plugin: a code or a word that is not the specification's breaks no "must".
    fn word(&self) -> &'static str {
        match (self.strength, self.verdict) {
            (Strength::Should, _) | (_, Verdict::FallsShort) => "should",
            (Strength::Must, _) => "must",
        }
    }
}

impl Column {
    /// How many rules ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }

    fn totals(&self) -> String {
        let told = Verdict::ALL.iter().map(|verdict| format!("{} {}", self.count(*verdict), verdict.words()));
        told.collect::<Vec<_>>().join(", ")
    }

    fn versions(&self) -> String {
        match self.versions.as_slice() {
            [] => "does not say which versions it speaks".to_owned(),
            [one] => format!("speaks {one}"),
            [first, .., last] => format!("speaks {first} to {last}"),
        }
    }
}

impl Board {
    /// For a program.
    pub fn json(&self) -> Result<String> {
        let counts = |column: &Column| -> Value {
            let count = |verdict: &Verdict| Some((name(*verdict)?, json!(column.count(*verdict))));
            Verdict::ALL.iter().filter_map(count).collect::<serde_json::Map<_, _>>().into()
        };
        let mut value = serde_json::to_value(self).context("write the scoreboard")?;
        for (at, column) in self.columns.iter().enumerate() {
            value["columns"][at]["counts"] = counts(column);
        }
        Ok(serde_json::to_string_pretty(&value).context("write the scoreboard")? + "\n")
    }

    /// For a person at a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut put = |line: String| text.push_str(&(line + "\n"));
        for column in &self.columns {
            put(format!("{} {}", column.plugin, column.versions()));
            for line in &column.lines {
                put(format!("{:3}  {:14}  {}", line.rule, line.verdict.words(), line.claim));
                if line.verdict != Verdict::Pass {
                    put(format!("{:21}{}", "", line.reason()));
                }
                if line.verdict.is_against() {
                    put(format!("{:21}{}: {}", "", line.word(), line.source));
                }
            }
            put(format!("{}: {}\n", column.plugin, column.totals()));
        }
        text
    }

    /// For a page: the table, then the reasons.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut text);
        let _ = self.write_reasons(&mut text);
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        let Some(first) = self.columns.first() else { return Ok(()) };
        let names: Vec<&str> = self.columns.iter().map(|column| column.plugin.as_str()).collect();
        writeln!(text, "| | rule | {} |\n|--:|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
        for (at, line) in first.lines.iter().enumerate() {
            let verdicts = self.columns.iter().filter_map(|column| column.lines.get(at));
            let verdicts: Vec<&str> = verdicts.map(|line| mark(line.verdict)).collect();
            writeln!(text, "| {} | {} | {} |", line.rule, cell(&line.claim), verdicts.join(" | "))?;
        }
        let passes: Vec<String> = self.columns.iter().map(|column| column.count(Verdict::Pass).to_string()).collect();
        writeln!(text, "| | **passed, of {}** | {} |", first.lines.len(), passes.join(" | "))
    }

    fn write_reasons(&self, text: &mut String) -> std::fmt::Result {
        let against = self.reasons(Verdict::is_against, |line| (line.rule, line.verdict, line.reason()));
        if !against.is_empty() {
            writeln!(text, "\n| | what it does | plugin | source |\n|--:|---|---|---|")?;
        }
        for ((rule, ..), lines) in &against {
            let Some((_, line)) = lines.first() else { continue };
            let (why, plugins) = (cell(&line.reason()), plugins(lines).join(", "));
            writeln!(text, "| {rule} | {why} | {plugins} | {}: {} |", line.word(), cell(&line.source))?;
        }
        let others = self
            .reasons(|verdict| verdict != Verdict::Pass && !verdict.is_against(), |line| (line.verdict, line.reason()));
        if !others.is_empty() {
            writeln!(text)?;
        }
        others.iter().try_for_each(|((verdict, why), lines)| {
            let mut rules: Vec<u32> = lines.iter().map(|(_, line)| line.rule).collect();
            rules.dedup();
            let rules: Vec<String> = rules.iter().map(u32::to_string).collect();
            let (rules, plugins, words) = (rules.join(", "), plugins(lines).join(", "), verdict.words());
            writeln!(text, "- {rules}: {words} for {plugins}: {}", cell(why))
        })
    }

    /// The lines of those verdicts, the same ones of several plugins together, rule by rule.
    fn reasons<K: PartialEq>(
        &self,
        wanted: impl Fn(Verdict) -> bool,
        key: impl Fn(&Line) -> K,
    ) -> Vec<(K, Vec<(&Column, &Line)>)> {
        let all = self.columns.iter().flat_map(|column| column.lines.iter().map(move |line| (column, line)));
        let mut all: Vec<_> = all.filter(|(_, line)| wanted(line.verdict)).collect();
        all.sort_by_key(|(_, line)| line.rule);
        let mut groups: Vec<(K, Vec<(&Column, &Line)>)> = Vec::new();
        for (column, line) in all {
            let key = key(line);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, lines)) => lines.push((column, line)),
                None => groups.push((key, vec![(column, line)])),
            }
        }
        groups
    }
}

/// The plugins of those lines, each once.
fn plugins<'a>(lines: &[(&'a Column, &Line)]) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for (column, _) in lines {
        if !seen.contains(&column.plugin.as_str()) {
            seen.push(column.plugin.as_str());
        }
    }
    seen
}

/// A verdict in a table.
fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "**fail**",
        Verdict::FallsShort => "*should*",
        Verdict::DoesNotApply => "–",
        Verdict::NotTried => "?",
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// How JSON has it.
fn name(verdict: Verdict) -> Option<String> {
    serde_json::to_value(verdict).ok()?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{Board, Column, Line, Verdict};
    use crate::conformance::Strength;

    fn board() -> Board {
        let line = |rule, verdict, why: Option<&str>| Line {
            rule,
            claim: format!("claim | {rule}"),
            strength: if rule == 2 { Strength::Should } else { Strength::Must },
            source: format!("section {rule}"),
            verdict,
            why: why.map(str::to_owned),
        };
        let column = |plugin: &str, lines| Column {
            plugin: plugin.to_owned(),
            versions: ["0.1.0", "0.4.0", "1.0.0"].map(str::to_owned).to_vec(),
            lines,
        };
        let (fails, short) = (Some("expected success,\ngot error 7: no"), Some("del web: expected success"));
        let old = Some("it speaks up to 1.0.0, and this came with 1.1.0");
        Board {
            columns: vec![
                column("good", [1, 2, 3, 4].map(|rule| line(rule, Verdict::Pass, None)).to_vec()),
                column(
                    "bad",
                    vec![
                        line(1, Verdict::Fail, fails),
                        line(2, Verdict::FallsShort, short),
                        line(3, Verdict::DoesNotApply, old),
                        line(4, Verdict::DoesNotApply, old),
                    ],
                ),
            ],
        }
    }

    #[test]
    fn for_people() {
        insta::assert_snapshot!(board().text());
    }

    #[test]
    fn for_pages() {
        insta::assert_snapshot!(board().markdown());
    }

    #[test]
    fn for_programs() {
        insta::assert_snapshot!(board().json().unwrap());
    }
}
