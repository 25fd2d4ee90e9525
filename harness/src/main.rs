//! `harness`: replays scenarios against the real plugin in throwaway networks, and opens shells in them.
//!
//! Invariant: the exit status is 0 only if nothing that was asked for failed; what this machine lacks a program for is
//! skipped, which exits 0 too, unless `CI` is set: then it is a failure. So is all that is skipped with `--no-skips`. What was
//! asked wrongly exits 2.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use harness::lacking::Stock;
use harness::plugin::Plugins;
use harness::report::{self, Outcome, Report};
use harness::sandbox::Sandbox;
use harness::scenario::Scenario;
use harness::suite::{self, Suite};
use harness::terminal::{self, Color};
use harness::torture::against::Order;
use harness::torture::{Campaign, Form, Torture};
use harness::{asked, bench, conformance, demo, http, inside, seeds, shell};
use serde_json::json;

/// Replays scenarios against the real flatnet in throwaway networks: no root, and nothing of yours is touched.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
    /// When to write in colour: auto, always or never.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    color: Color,
}

#[derive(Subcommand)]
enum Verb {
    /// Run scenarios: files, folders or parts of names; if you name none, all but those that take long.
    Run {
        scenarios: Vec<String>,
        /// The folder of the plugin to test; without it the plugin is built from this repository.
        #[arg(long)]
        plugin_dir: Option<PathBuf>,
        /// Print the reports as JSON.
        #[arg(long)]
        json: bool,
        /// Keep the worlds of failed scenarios until you press Enter.
        #[arg(long)]
        keep: bool,
        /// How many run at the same time.
        #[arg(long)]
        jobs: Option<NonZero<usize>>,
        /// Fail if anything is skipped, for want of a program or of the kernel's.
        #[arg(long)]
        no_skips: bool,
        /// Have all nodes lack what this kernel lacks; those of a scenario that says so itself, that too.
        #[arg(long)]
        kernel: Option<Stock>,
    },
    /// List scenarios and what they claim.
    List {
        scenarios: Vec<String>,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Open a shell in a network where a container serves a page and a gateway reaches it, in that of a scenario, or in a kept world.
    Shell {
        /// A scenario (file or part of its name), or the process number of a kept world.
        scenario: Option<String>,
        /// Replay up to this step; without it, up to the first that takes something away, or fails.
        #[arg(long, requires = "scenario")]
        until: Option<usize>,
        /// The folder of the plugin to use; without it the plugin is built from this repository.
        #[arg(long)]
        plugin_dir: Option<PathBuf>,
    },
    /// Show what flatnet does: an address, a page through the gateway, and nothing left behind.
    Demo {
        /// Show each call, too, and what it answered.
        #[arg(long, short)]
        verbose: bool,
        /// The folder of the plugin to show; without it the plugin is built from this repository.
        #[arg(long)]
        plugin_dir: Option<PathBuf>,
    },
    /// Time flatnet against the reference bridge and host-local, or its gateway against a plain nginx, in the same throwaway network.
    Bench(bench::command::Arguments),
    /// Write what the scenarios send to flatnet, for its fuzz targets to begin with.
    Seeds {
        /// The folder, with one below it for each target.
        folder: PathBuf,
    },
    /// Do everything to flatnet that may befall it, and count what came of it: nothing may be lost.
    Torture(TortureArguments),
    /// Hold a plugin against the rules of CNI, one scenario for each: flatnet, or any other.
    Conformance(conformance::command::Arguments),
    #[command(name = "__probe", hide = true)]
    Probe(conformance::probe::Order),
    #[command(name = "__against", hide = true)]
    Against(Order),
    #[command(name = "__world", hide = true)]
    World(inside::Order),
    #[command(name = "__serve", hide = true)]
    Serve {
        #[arg(long)]
        name: String,
        #[arg(long)]
        port: u16,
        #[arg(long)]
        body: Option<String>,
    },
    #[command(name = "__gateway", hide = true)]
    Gateway,
}

#[derive(Args)]
struct TortureArguments {
    /// All of it, which takes a quarter of an hour, and not what a minute holds.
    #[arg(long)]
    long: bool,
    /// What every choice follows from.
    #[arg(long, default_value = "1")]
    seed: u32,
    /// The folder of the reference plugins, such as /usr/lib/cni, which then bear the same.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Campaign>,
    /// The folder of flatnet; without it the plugin is built from this repository.
    #[arg(long)]
    plugin_dir: Option<PathBuf>,
    /// How many scenarios run at the same time.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print the report as Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// What a shell gives for a program that a closed pipe has ended.
const ENDED_BY_SIGPIPE: u8 = 141;

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    let kinds = err.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| kind == io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    let Arguments { command, color } = Arguments::parse();
    color.apply();
    match act(command) {
        Ok(code) => code,
        // Who read standard output has gone (`| head`): an end like any other program's, without a word.
        Err(err) if is_broken_pipe(&err) => ExitCode::from(ENDED_BY_SIGPIPE),
        Err(err) => {
            say_wrong(&err);
            if err.is::<asked::Wrongly>() { ExitCode::from(asked::STATUS) } else { ExitCode::FAILURE }
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run { scenarios, plugin_dir, json, keep, jobs, no_skips, kernel } => {
            let mut files = suite::find(&scenarios)?;
            if scenarios.is_empty() {
                leave_out_long(&mut files)?;
            }
            let plugins = Plugins::locate(plugin_dir.as_deref())?;
            let (plugin_dir, jobs) = (plugins.folder().to_owned(), number_of_jobs(jobs));
            let suite = Suite { plugin_dir, subject: None, kernel, keep, jobs, patience: suite::PATIENCE };
            run(&suite, &files, json, no_skips)
        }
        Verb::List { scenarios, json } => list(&suite::find(&scenarios)?, json),
        Verb::Shell { scenario: None, plugin_dir, .. } => {
            let plugins = Plugins::locate(plugin_dir.as_deref())?;
            in_sandbox(|| shell::living(plugins))
        }
        Verb::Shell { scenario: Some(scenario), until, plugin_dir } => match scenario.parse() {
            Ok(pid) => Ok(ExitCode::from(shell::enter(pid)?)),
            Err(_) => replay(&scenario, until, plugin_dir.as_deref()),
        },
        Verb::Demo { verbose, plugin_dir } => {
            let plugins = Plugins::locate(plugin_dir.as_deref())?;
            in_sandbox(|| demo::run(plugins, verbose).map(|()| 0))
        }
        Verb::Bench(arguments) => {
            let plugins = Plugins::locate(arguments.plugin_dir.as_deref())?;
            in_sandbox(|| bench::command::run(&arguments, plugins).map(|()| 0))
        }
        Verb::Torture(arguments) => torture(arguments),
        Verb::Against(order) => in_sandbox(|| compare(&order).map(|()| 0)),
        Verb::Seeds { folder } => {
            let written = seeds::write(&folder)?;
            writeln!(io::stdout(), "{written} seeds in {}", folder.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Conformance(arguments) => conformance::command::run(&arguments),
        Verb::Probe(order) => in_sandbox(|| probe(&order).map(|()| 0)),
        Verb::World(order) => {
            let plugins = order.plugins()?;
            let status = Sandbox::default().run(|| u8::from(!order.run(plugins)))?;
            Ok(ExitCode::from(status))
        }
        Verb::Serve { name, port, body } => http::server::run(&name, port, body).map(|()| ExitCode::SUCCESS),
        Verb::Gateway => http::forwarder::run().map(|()| ExitCode::SUCCESS),
    }
}

/// Leaves out what has to be asked for, and says so.
fn leave_out_long(files: &mut Vec<PathBuf>) -> Result<()> {
    let all = files.len();
    files.retain(|file| !suite::is_long(file));
    let left = all - files.len();
    if left > 0 {
        let folder = suite::LONG;
        writeln!(io::stderr(), "{left} that take long are left out: cargo run -p harness -- run scenarios/{folder}")?;
    }
    Ok(())
}

fn run(suite: &Suite, files: &[PathBuf], json: bool, no_skips: bool) -> Result<ExitCode> {
    let mut out = io::stdout();
    if !json {
        writeln!(out, "plugin under test: {}", suite.plugin_dir.join("flatnet").display())?;
    }
    let alone = files.len() == 1;
    let (ok, skip) = (terminal::paint(terminal::GOOD, "ok"), terminal::paint(terminal::QUIET, "skip"));
    let (reports, kept) = suite.run(files, |report| {
        let name = suite::name(Path::new(&report.file));
        let line = match report.outcome {
            _ if json => String::new(),
            Outcome::Passed if !alone => format!("{ok}    {name}  ({:.0} ms)\n", report.duration_ms),
            Outcome::Skipped if !alone => format!("{skip}  {name}: {}\n", report.reason.as_deref().unwrap_or_default()),
            _ => report::painted(&report.transcript),
        };
        // A closed pipe ends the run by itself.
        drop(write!(terminal::stdout(), "{line}"));
    });
    let count = |outcome: &Outcome| reports.iter().filter(|report| report.outcome == *outcome).count();
    let (failed, skipped) = (count(&Outcome::Failed), count(&Outcome::Skipped));
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&reports).context("write reports")?)?;
    } else {
        let passed = count(&Outcome::Passed);
        writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    }
    if !kept.is_empty() {
        wait_for_enter(&reports)?;
    }
    if no_skips && skipped > 0 {
        bail!("run all that was asked for: {skipped} skipped");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_for_enter(reports: &[Report]) -> Result<()> {
    let mut err = io::stderr();
    for (report, world) in reports.iter().filter_map(|report| Some((report, report.world?))) {
        writeln!(err, "kept: {}   enter it with: harness shell {world}", report.file)?;
    }
    writeln!(err, "press Enter to end the kept worlds")?;
    io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
    Ok(())
}

fn replay(name: &str, until: Option<usize>, plugin_dir: Option<&Path>) -> Result<ExitCode> {
    let files = suite::find(&[name.to_owned()])?;
    let [file] = files.as_slice() else {
        let names: Vec<String> = files.iter().map(|file| suite::name(file)).collect();
        return Err(asked::wrongly(anyhow!("choose among {}", names.join(", "))));
    };
    let scenario = Scenario::load(file)?;
    let plugins = Plugins::locate(plugin_dir)?;
    in_sandbox(|| shell::replay(&scenario, plugins, until))
}

/// Does `work` in a world of its own; what it gives is the exit status.
fn in_sandbox(work: impl FnOnce() -> Result<u8>) -> Result<ExitCode> {
    Ok(ExitCode::from(Sandbox::default().run(|| status(work()))?))
}

/// What a world ends with, its error told.
fn status(outcome: Result<u8>) -> u8 {
    outcome.unwrap_or_else(|err| {
        say_wrong(&err);
        1
    })
}

/// The whole proof: progress on standard error, the report on standard output.
fn torture(arguments: TortureArguments) -> Result<ExitCode> {
    let TortureArguments { long, seed, against, only, plugin_dir, jobs, json, markdown } = arguments;
    let plugins = Plugins::locate(plugin_dir.as_deref())?;
    let torture = Torture {
        plugin_dir: plugins.folder().to_owned(),
        campaigns: if only.is_empty() { Campaign::ALL.to_vec() } else { only },
        form: if long { Form::Long } else { Form::Short },
        seed,
        against,
        // Most of their time they wait for the kernel.
        jobs: jobs.map_or_else(|| 2 * number_of_jobs(None), NonZero::get),
    };
    // A line that does not appear is no reason to stop.
    let report = torture.run(&|line: &str| drop(writeln!(io::stderr(), "{line}")))?;
    let text = match (json, markdown) {
        (true, _) => report.json()?,
        (_, true) => report.markdown(),
        _ => report.text(),
    };
    io::stdout().write_all(text.as_bytes()).context("write the report")?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The inside of a first look at a plugin: what it has, as one line of JSON.
fn probe(order: &conformance::probe::Order) -> Result<()> {
    inside::end_with_caller();
    writeln!(io::stdout(), "{}", order.inside()?).context("write what a plugin has")
}

/// The inside of a comparison: what is lost, as one line of JSON.
fn compare(order: &Order) -> Result<()> {
    inside::end_with_caller();
    let losses = serde_json::to_string(&order.inside()?).context("write what is lost")?;
    writeln!(io::stdout(), "{losses}").context("write what is lost")
}

fn number_of_jobs(asked: Option<NonZero<usize>>) -> usize {
    asked.map_or_else(suite::cores, NonZero::get)
}

fn list(files: &[PathBuf], json: bool) -> Result<ExitCode> {
    let mut out = io::stdout();
    let mut entries = Vec::new();
    for file in files {
        let scenario = Scenario::load(file)?;
        let (name, steps) = (suite::name(file), scenario.steps.len());
        if json {
            entries.push(json!({ "name": name, "file": file, "summary": scenario.summary, "steps": steps }));
        } else {
            writeln!(out, "{name}\n    {}", scenario.summary)?;
        }
    }
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries).context("write the list")?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say_wrong(err: &anyhow::Error) {
    // Nobody is left to tell if this fails.
    drop(writeln!(io::stderr(), "harness: failed to {err:#}"));
}
