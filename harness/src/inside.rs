//! What a child process does in a world of its own: one scenario, its report as one line of JSON.
//!
//! Invariant: it ends, and the world with it, as soon as nobody holds the other end of its standard input.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;

use crate::conformance::Subject;
use crate::lacking::Stock;
use crate::plugin::Plugins;
use crate::report::{Outcome, Report};
use crate::scenario::Scenario;
use crate::tally::Harm;
use crate::{runner, shell};

/// What a child process is to do.
#[derive(Debug, Args)]
pub struct Order {
    scenario: PathBuf,
    #[arg(long)]
    plugin_dir: PathBuf,
    /// The plugin that is held against the rules, as JSON.
    #[arg(long)]
    subject: Option<String>,
    #[arg(long)]
    keep: bool,
    /// The kernel that nodes seem to have.
    #[arg(long)]
    kernel: Option<Stock>,
}

impl Order {
    /// Where the plugins are: of another plugin than flatnet's, in its folder alone.
    pub fn plugins(&self) -> Result<Plugins> {
        match self.subject {
            Some(_) => Plugins::only(&self.plugin_dir),
            None => Plugins::locate(Some(&self.plugin_dir)),
        }
    }

    /// Does it; says whether the scenario did not fail.
    pub fn run(&self, plugins: Plugins) -> bool {
        end_with_caller();
        let (report, left) = match self.load() {
            Ok(scenario) => runner::run(&scenario, plugins),
            Err(err) => (Report::broken(&self.scenario, Harm::Wrong, &format!("{err:#}")), None),
        };
        let kept = left.filter(|_| self.keep);
        // Once the report is out, somebody may come in: the note must be there.
        if let Some(Err(err)) = kept.as_ref().map(shell::leave_note) {
            // Nobody is left to tell if this fails.
            drop(writeln!(io::stderr(), "harness: failed to {err:#}"));
        }
        let line = serde_json::to_string(&report).unwrap_or_default();
        drop(writeln!(io::stdout(), "{line}"));
        if kept.is_some() {
            loop {
                thread::park();
            }
        }
        report.outcome != Outcome::Failed
    }

    fn load(&self) -> Result<Scenario> {
        let subject: Option<Subject> =
            self.subject.as_deref().map(serde_json::from_str).transpose().context("read the plugin that is tried")?;
        let scenario = Scenario::load_for(&self.scenario, subject.as_ref())?;
        Ok(self.kernel.iter().fold(scenario, |scenario, kernel| scenario.on(*kernel)))
    }
}

/// Ends this process, and with it the world, as soon as nobody holds the other end of its standard input.
pub fn end_with_caller() {
    thread::spawn(|| {
        drop(io::stdin().read_to_end(&mut Vec::new()));
        leave()
    });
}

#[expect(clippy::exit, reason = "the thread that watches the caller must end the others")]
fn leave() -> ! {
    std::process::exit(1)
}
