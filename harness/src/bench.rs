//! Times the plugin, without and with `macspoofchk`, against the reference bridge and host-local, without and with masquerade, and against
//! netavark's bridge driver where it is: the same verbs, in turn, in the same world.
//!
//! Invariant: a figure counts only from calls that succeeded, and a ratio only compares calls of the same round. Processor time is the
//! plugin's alone, and says the same on a busy machine.

mod chart;
pub mod command;
mod contender;
pub mod gateway;
mod memory;
pub mod table;
mod took;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use self::contender::{Contender, Place};
use self::table::{Figures, Group, Row, median};
use self::took::Took;
use crate::lab::Namespace;

/// Rounds before those that count: the first ADD makes the bridge, and caches fill.
const WARM_UP_ROUNDS: u32 = 3;

/// The verbs that are timed, in the order in which a container lives them.
const VERBS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// The column that the others are compared with: the reference without masquerade.
const REFERENCE: usize = 2;

/// What is compared.
#[derive(Debug)]
pub struct Bench {
    /// The folder of flatnet.
    pub plugin_dir: PathBuf,
    /// The folder of the reference `bridge` and `host-local`.
    pub against: PathBuf,
    /// netavark's program, where it is to be a column.
    pub netavark: Option<PathBuf>,
    /// How often each verb of each is timed.
    pub rounds: NonZero<u32>,
    /// How many containers that stay each has on its bridge: a table for each number.
    pub beside: Vec<NonZero<u32>>,
}

/// How the figures are given.
#[derive(Debug, Default)]
pub struct Output {
    /// As JSON on standard output, and not as a table.
    pub json: bool,
    /// Where a chart is written, too.
    pub chart: Option<PathBuf>,
}

impl Bench {
    /// The inside of a bench: the figures on standard output; progress where somebody watches. Must be called inside a
    /// [`crate::sandbox`].
    pub fn report(&self, output: &Output) -> Result<()> {
        let watched = io::stderr().is_terminal();
        let figures = self.run(|doing| {
            if watched {
                // A line that does not appear is no reason to stop.
                drop(write!(io::stderr(), "\r\x1b[K{doing}"));
            }
        })?;
        if watched {
            drop(writeln!(io::stderr()));
        }
        let text = if output.json {
            serde_json::to_string_pretty(&figures).context("write the figures")? + "\n"
        } else {
            figures.tables()
        };
        if let Some(file) = &output.chart {
            fs::write(file, chart::svg(&figures, &VERBS)).with_context(|| format!("write {}", file.display()))?;
        }
        io::stdout().write_all(text.as_bytes()).context("write the figures")
    }

    /// Must be called inside a [`crate::sandbox`]; `progress` hears what is done now.
    pub fn run(&self, progress: impl Fn(&str) + Sync) -> Result<Figures> {
        let mut groups: Vec<Group> = Vec::new();
        for beside in &self.beside {
            let names = ["node", "container", "neighbour"].map(|name| format!("bench-{name}-{beside}"));
            let [node, container, neighbour] = &names;
            let (node, container, neighbour) =
                (Namespace::create(node)?, Namespace::create(container)?, Namespace::create(neighbour)?);
            let folder = Path::new("/run/bench");
            // What a contender remembers is of the node that it was on.
            drop(fs::remove_dir_all(folder));
            fs::create_dir_all(folder).context("make a folder for the bench")?;
            let (place, others) = (Place { container: &container, folder }, Place { container: &neighbour, folder });
            // On a thread that stays there: a child that is started without further ado starts faster, and alike for all.
            let rows = node.enter(|| self.compare(place, (others, *beside), &progress))?;
            groups.push(Group { beside: beside.get(), rows });
        }
        let contenders = self.contenders()?.iter().map(|contender| contender.name).collect();
        Ok(Figures { contenders, reference: REFERENCE, groups })
    }

    fn contenders(&self) -> Result<Vec<Contender>> {
        let mut contenders = vec![
            Contender::flatnet(&self.plugin_dir, false)?,
            Contender::flatnet(&self.plugin_dir, true)?,
            Contender::reference(&self.against, false)?,
            Contender::reference(&self.against, true)?,
        ];
        if let Some(netavark) = &self.netavark {
            contenders.push(Contender::netavark(netavark)?);
        }
        Ok(contenders)
    }

    /// Each has other containers on its bridge, as hosts have: what only the first one pays is not counted.
    fn compare(
        &self,
        place: Place<'_>,
        (others, beside): (Place<'_>, NonZero<u32>),
        progress: &impl Fn(&str),
    ) -> Result<Vec<Row>> {
        let contenders = self.contenders()?;
        let mut stay = Vec::new();
        for number in 0..beside.get() {
            for contender in &contenders {
                stay.push(contender.add_beside(others, number)?);
            }
            progress(&format!("{} of {beside} other containers", number + 1));
        }
        let mut lives = Vec::new();
        let rounds = WARM_UP_ROUNDS + self.rounds.get();
        for round in 0..rounds {
            let mut life = vec![[None; VERBS.len()]; contenders.len()];
            // Who goes first changes from round to round.
            for turn in 0..contenders.len() {
                let which = (round as usize + turn) % contenders.len();
                life[which] = contenders[which].live(place)?;
            }
            if round >= WARM_UP_ROUNDS {
                lives.push(life);
            }
            progress(&format!("beside {beside}: round {} of {rounds}", round + 1));
        }
        let of = |what: &str, verb: usize, part: fn(&Took) -> Duration| {
            let round = |life: &Vec<[Option<Took>; VERBS.len()]>| {
                life.iter().map(|verbs| verbs[verb].as_ref().map(|took| milliseconds(part(took)))).collect()
            };
            Row::new(format!("{}, {what}", VERBS[verb]), &lives.iter().map(round).collect::<Vec<_>>(), REFERENCE)
        };
        let mut rows: Vec<_> = (0..VERBS.len()).map(|verb| of("ms", verb, |took| took.wall)).collect();
        rows.extend((0..VERBS.len()).map(|verb| of("ms of a processor", verb, |took| took.processor)));
        let peaks: Result<Vec<_>> = contenders.iter().map(|it| it.peak_memory(place).map(Some)).collect();
        rows.push(Row::new("peak memory of ADD, MiB".into(), &[peaks?], REFERENCE));
        Ok(rows)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
