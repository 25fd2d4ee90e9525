//! `harness conformance`: which plugins are held against the rules, and how the scoreboard is told.
//!
//! Invariant: exit 0 only if the plugin in question (flatnet, where others stand beside it) breaks no "must", and with `--strict` only if it passes
//! every rule; 2 for what was asked wrongly.

use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;

use super::progress::Progress;
use super::{Board, Column, FOLDER, ROOM, Subject, Verdict, Version, find, hold, probe};
use crate::asked;
use crate::plugin::Plugins;
use crate::scenario::Network;
use crate::suite;

/// The networks of the reference plugins, below the folder of the rules.
const NETWORKS: &str = "networks";

/// How many rules are tried at the same time on each core.
const JOBS_PER_CORE: usize = 4;

/// What is asked.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the rules whose names contain one of these, such as 07 or del.
    rules: Vec<String>,
    /// The folder of the plugin and of its IPAM plugins; without it flatnet is built from this repository.
    #[arg(long)]
    plugin_dir: Option<PathBuf>,
    /// The plugin's network, a .conf, or a .conflist with that one plugin; without it the one that flatnet ships.
    #[arg(long)]
    network: Option<PathBuf>,
    /// The folder of the reference plugins, such as /usr/lib/cni, which then stand beside flatnet.
    #[arg(long, conflicts_with = "network")]
    against: Option<PathBuf>,
    /// Exit 1 also if the plugin in question falls short of a rule, or one is not tried or does not apply to it.
    #[arg(long)]
    strict: bool,
    /// Print the scoreboard as JSON.
    #[arg(long)]
    json: bool,
    /// Print the scoreboard as Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// How many rules are tried at the same time.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
}

/// Whom to hold against the rules, and where it is.
struct Contender {
    network: Network,
    plugin_dir: PathBuf,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let folder = Plugins::locate(arguments.plugin_dir.as_deref())?.folder().to_owned();
    let contenders = contenders(arguments, &folder).map_err(asked::wrongly)?;
    let files = find(&arguments.rules).map_err(asked::wrongly)?;
    // Most of their time they wait, for the kernel or for a plugin that does.
    let jobs = arguments.jobs.map_or_else(|| JOBS_PER_CORE * suite::cores(), NonZero::get).div_ceil(contenders.len());
    let progress = Progress::new(contenders.len() * files.len());
    let board = Board { columns: at_once(&contenders, |contender| contender.hold(&files, jobs, &progress))? };
    drop(progress);
    let text = match (arguments.json, arguments.markdown) {
        (true, _) => board.json()?,
        (_, true) => board.markdown(),
        _ => board.text(),
    };
    io::stdout().write_all(text.as_bytes()).context("write the scoreboard")?;
    let kept = if arguments.strict { is_all_passed(&board) } else { is_kept(&board) };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first is the one in question. Where everything is installed on purpose, a rule that cannot be tried is a finding.
fn is_kept(board: &Board) -> bool {
    let count = |verdict| board.columns.first().map_or(0, |column| column.count(verdict));
    let all_are_tried = count(Verdict::NotTried) == 0 || std::env::var_os("CI").is_none();
    count(Verdict::Fail) == 0 && all_are_tried
}

/// Whether the one in question passes whatever was asked.
fn is_all_passed(board: &Board) -> bool {
    board.columns.first().is_some_and(|column| column.count(Verdict::Pass) == column.lines.len())
}

fn contenders(arguments: &Arguments, folder: &Path) -> Result<Vec<Contender>> {
    let network = match &arguments.network {
        Some(file) => Network::from_file(file)?,
        None => Network::shipped()?,
    };
    let mut contenders = vec![Contender::new(network, folder)?];
    let Some(against) = &arguments.against else { return Ok(contenders) };
    let networks = suite::folder().join(FOLDER).join(NETWORKS);
    let entries = fs::read_dir(&networks).with_context(|| format!("list {}", networks.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().context("list networks")?;
    files.sort();
    for file in files {
        contenders.push(Contender::new(Network::from_file(&file)?, against)?);
    }
    Ok(contenders)
}

impl Contender {
    fn new(network: Network, folder: &Path) -> Result<Self> {
        let binary = folder.join(network.kind());
        let shown = binary.display();
        ensure!(
            binary.is_file(),
            "find the plugin {shown}: there is no such file (--plugin-dir says where plugins are)"
        );
        let (name, version) = (network.name(), network.version());
        ensure!(
            Version::parse(version).is_some(),
            "read the cniVersion of the network {name}: it is \"{version}\" (write one like \"1.0.0\" into its file)"
        );
        if let Some(room) = network.room().filter(|room| *room < ROOM as u128) {
            bail!(
                "have {ROOM} containers in the network {name} at once, as the rules do: its ipam has addresses for {room} (give it a larger \
                 subnet or range, such as a /28, which has 13; nothing of this machine's network is touched, so any subnet will do)"
            );
        }
        Ok(Self { network, plugin_dir: folder.to_owned() })
    }

    /// Looks at the plugin, then holds it against the rules.
    fn hold(&self, files: &[PathBuf], jobs: usize, progress: &Progress) -> Result<Column> {
        progress.looks_at(self.network.kind());
        let traits = probe::look(&self.network, &self.plugin_dir)?;
        let subject = Subject { network: self.network.clone(), traits };
        hold(&subject, &self.plugin_dir, files, jobs, || progress.has_come_of_one())
    }
}

/// Does the same with each, all at the same time.
fn at_once<T: Send>(contenders: &[Contender], does: impl Fn(&Contender) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let does = &does;
        let all: Vec<_> = contenders.iter().map(|contender| scope.spawn(move || does(contender))).collect();
        all.into_iter().map(|one| one.join().map_err(|_| anyhow!("go on after a panic"))?).collect()
    })
}
