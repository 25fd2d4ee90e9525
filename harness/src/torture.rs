//! The proof in one command: everything that may befall the plugin befalls it, and what came of it is counted.
//!
//! Invariant: whatever is done is done by scenarios, shipped or made up here, so each finding can be replayed alone; and a proof
//! holds only if every one of them ran: what this machine lacks is told, and counts as a failure where `CI` is set.

pub mod against;
mod campaign;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::report::Outcome;
use crate::suite::Suite;
use crate::tally::{Harm, Tally};

pub use campaign::Campaign;
use campaign::Case;
pub use report::{Beside, Comparison, Count, Finding, Form, Report, Row};

/// The longest that one scenario may take: some of them do thousands of things.
const PATIENCE: Duration = Duration::from_mins(15);

/// What is asked for.
#[derive(Debug)]
pub struct Torture {
    /// The folder of the plugin.
    pub plugin_dir: PathBuf,
    /// What is to befall it.
    pub campaigns: Vec<Campaign>,
    /// All of it, or as much as a minute holds.
    pub form: Form,
    /// What every choice follows from.
    pub seed: u32,
    /// The folder of the reference plugins, if they are to bear the same.
    pub against: Option<PathBuf>,
    /// How many scenarios run at the same time.
    pub jobs: usize,
}

/// Hears how far it is: a line for a person.
pub trait Progress: Fn(&str) + Sync {}

impl<F: Fn(&str) + Sync> Progress for F {}

impl Torture {
    /// Does all of it.
    pub fn run(&self, progress: &impl Progress) -> Result<Report> {
        let start = Instant::now();
        self.against.as_deref().map_or(Ok(()), against::look_for)?;
        let scratch = Scratch::make(self.seed)?;
        let mut cases = BTreeMap::new();
        for campaign in &self.campaigns {
            for case in campaign.cases(self.form, self.seed)? {
                cases.insert(scratch.file(&case)?, (*campaign, case));
            }
        }
        let ((rows, skipped, mut findings), compared) = thread::scope(|scope| {
            let compared = self.against.as_deref().map(|folder| scope.spawn(|| self.compare(folder, progress)));
            (self.run_scenarios(&cases, progress), compared.map(thread::ScopedJoinHandle::join))
        });
        let compared = compared.transpose().map_err(|_| anyhow!("go on after a panic of the comparison"))?;
        let beside = compared.map(|(beside, found)| {
            findings.extend(found);
            beside
        });
        // Their scenarios are what replays them.
        scratch.remove_all_but(&findings)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Report { form: self.form, seed: self.seed, jobs: self.jobs, seconds, rows, findings, skipped, beside })
    }

    fn run_scenarios(
        &self,
        cases: &BTreeMap<PathBuf, (Campaign, Case)>,
        progress: &impl Progress,
    ) -> (Vec<Row>, Vec<String>, Vec<Finding>) {
        let plugin_dir = self.plugin_dir.clone();
        let suite = Suite { plugin_dir, subject: None, kernel: None, keep: false, jobs: self.jobs, patience: PATIENCE };
        // The long ones first, so that none runs alone at the end.
        let mut files: Vec<PathBuf> = cases.keys().cloned().collect();
        files.sort_by_key(|file| std::cmp::Reverse(cases[file].1.weight));
        let (reports, _) = suite.run(&files, |report| {
            let (campaign, case) = &cases[Path::new(&report.file)];
            let (word, seconds) = (word(&report.outcome), report.duration_ms / 1e3);
            progress(&format!("{word:6} {campaign:6}  {}  ({seconds:.1} s)", case.name));
        });
        let mut rows: BTreeMap<Campaign, Row> = self.campaigns.iter().map(|it| (*it, Row::new(*it))).collect();
        let (mut skipped, mut findings) = (Vec::new(), Vec::new());
        for report in reports {
            let file = Path::new(&report.file);
            let (campaign, case) = &cases[file];
            let row = rows.entry(*campaign).or_insert_with(|| Row::new(*campaign));
            match report.outcome {
                Outcome::Passed | Outcome::Failed => row.add(&report.tally),
                Outcome::Skipped => {
                    skipped.push(format!("{}: {}", case.name, report.reason.as_deref().unwrap_or_default()));
                }
            }
            if report.outcome == Outcome::Failed {
                let replay = format!("harness run --plugin-dir {} {}", self.plugin_dir.display(), file.display());
                let harm = report.harm.unwrap_or_default();
                findings.push(Finding { campaign: *campaign, harm, what: report.transcript, replay });
            }
        }
        (rows.into_values().collect(), skipped, findings)
    }

    fn compare(&self, folder: &Path, progress: &impl Progress) -> (Beside, Vec<Finding>) {
        let parts = against::Part::ALL.into_iter().filter(|part| self.campaigns.contains(&part.campaign())).collect();
        let folders = [self.plugin_dir.as_path(), folder];
        // Beside the scenarios: half of what runs at the same time.
        let jobs = self.jobs.div_ceil(2);
        against::compare(&against::Plan { parts, form: self.form, seed: self.seed, folders }, jobs, progress)
    }
}

impl Row {
    fn new(campaign: Campaign) -> Self {
        Self { campaign, scenarios: 0, tally: Tally::default() }
    }

    fn add(&mut self, tally: &Tally) {
        self.scenarios += 1;
        self.tally += tally;
    }
}

impl Report {
    /// Whether nothing at all was wrong.
    pub fn is_clean(&self) -> bool {
        let lacks = !self.skipped.is_empty() && std::env::var_os("CI").is_some();
        self.findings.is_empty() && !lacks
    }

    /// How many findings are of that kind.
    pub fn count(&self, harm: Harm) -> usize {
        self.findings.iter().filter(|finding| finding.harm == harm).count()
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "skip",
    }
}

/// A folder for the scenarios that are made up.
struct Scratch(PathBuf);

impl Scratch {
    fn make(seed: u32) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("flatnet-torture-{seed}-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// The file of a case, written if it is made up.
    fn file(&self, case: &Case) -> Result<PathBuf> {
        match &case.source {
            campaign::Source::Shipped(file) => Ok(file.clone()),
            campaign::Source::MadeUp(text) => {
                let file = self.0.join(format!("{}.toml", case.name));
                fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
                Ok(file)
            }
        }
    }

    fn remove_all_but(&self, findings: &[Finding]) -> Result<()> {
        for entry in fs::read_dir(&self.0).context("list the made-up scenarios")?.flatten() {
            let path = entry.path();
            let needed = findings.iter().any(|finding| finding.replay.ends_with(&path.display().to_string()));
            if !needed {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        // Where one is needed, it is not empty.
        drop(fs::remove_dir(&self.0));
        Ok(())
    }
}
