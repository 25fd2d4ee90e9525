//! Times the plugin, without and with `macspoofchk`, against the reference bridge and host-local: the same verbs, in turn, in the same world.
//!
//! Invariant: a figure counts only from calls that succeeded, and a ratio only compares calls of the same round, as machines
//! are noisy and drift. Processor time is the plugin's alone, and says the same on a busy machine.

pub mod gateway;
mod memory;
mod took;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::wait::waitpid;
use serde::Serialize;
use serde_json::{Value, json};

use self::took::Took;
use crate::lab::Namespace;
use crate::plugin;
use crate::shipped;

/// Rounds before those that count: the first ADD makes the bridge, and caches fill.
const WARM_UP_ROUNDS: u32 = 3;

/// The verbs that are timed, in the order in which a container lives them.
const VERBS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// What is compared.
#[derive(Debug)]
pub struct Bench {
    /// The folder of flatnet.
    pub plugin_dir: PathBuf,
    /// The folder of the reference `bridge` and `host-local`.
    pub against: PathBuf,
    /// How often each verb of each is timed.
    pub rounds: NonZero<u32>,
    /// How many containers that stay each has on its bridge.
    pub beside: NonZero<u32>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured, with its unit.
    pub what: String,
    /// flatnet's median.
    pub flatnet: f64,
    /// The reference's median.
    pub reference: f64,
    /// The median of the ratios flatnet / reference, round by round.
    pub ratio: f64,
    /// flatnet's median with `macspoofchk`.
    pub guarded: f64,
    /// The median of the ratios with `macspoofchk` / without, round by round.
    pub guarded_ratio: f64,
}

/// What one round measured of one thing.
#[derive(Clone, Copy)]
struct Sample {
    flatnet: f64,
    reference: f64,
    guarded: f64,
}

/// How many plugins are compared.
const CONTENDERS: usize = 3;

/// A plugin that is compared, with the configuration that it gets.
struct Contender {
    binary: PathBuf,
    path: PathBuf,
    config: Value,
}

/// Where the contenders live.
struct Place<'a> {
    /// The container's id.
    id: String,
    /// Its namespace.
    container: &'a Namespace,
    /// A folder of the world.
    folder: PathBuf,
}

impl Bench {
    /// The inside of a bench: the table, or the same as JSON, on standard output; progress where somebody watches. Must be called inside a
    /// [`crate::sandbox`].
    pub fn report(&self, json: bool) -> Result<()> {
        let watched = io::stderr().is_terminal();
        let rows = self.run(|done, of| {
            if watched {
                // A line that does not appear is no reason to stop.
                drop(write!(io::stderr(), "\rround {done} of {of}{}", if done == of { "\n" } else { "" }));
            }
        })?;
        let text =
            if json { serde_json::to_string_pretty(&rows).context("write the figures")? + "\n" } else { table(&rows) };
        io::stdout().write_all(text.as_bytes()).context("write the figures")
    }

    /// Must be called inside a [`crate::sandbox`]; `progress` hears how many rounds of how many are done.
    pub fn run(&self, progress: impl Fn(u32, u32) + Sync) -> Result<Vec<Row>> {
        let node = Namespace::create("bench-node")?;
        let container = Namespace::create("bench-container")?;
        let neighbour = Namespace::create("bench-neighbour")?;
        let folder = Path::new("/run/bench").to_owned();
        fs::create_dir_all(&folder).context("make a folder for the bench")?;
        let beside = Place { id: "neighbour".into(), container: &neighbour, folder: folder.clone() };
        let place = Place { id: "bench".into(), container: &container, folder };
        // On a thread that stays there: a child that is started without further ado starts faster, and alike for both.
        node.enter(|| self.compare(&place, &beside, &progress))
    }

    /// Each has other containers on its bridge, as hosts have: what only the first one pays is not counted.
    fn compare(&self, place: &Place<'_>, beside: &Place<'_>, progress: &impl Fn(u32, u32)) -> Result<Vec<Row>> {
        let contenders = [self.flatnet(false)?, self.reference()?, self.flatnet(true)?];
        for n in 0..self.beside.get() {
            let beside = Place { id: format!("{}-{n}", beside.id), folder: beside.folder.clone(), ..*beside };
            for (contender, prefix) in contenders.iter().zip(["f", "r", "g"]) {
                contender.add_beside(&beside, &format!("{prefix}{n}"))?;
            }
        }
        let mut times = [const { (Vec::new(), Vec::new()) }; VERBS.len()];
        let rounds = WARM_UP_ROUNDS + self.rounds.get();
        for round in 0..rounds {
            let mut lives = [[Took::default(); VERBS.len()]; CONTENDERS];
            // Who goes first changes from round to round.
            let first = round as usize;
            for which in (first..first + CONTENDERS).map(|turn| turn % CONTENDERS) {
                lives[which] = contenders[which].live(place)?;
            }
            if round >= WARM_UP_ROUNDS {
                for (verb, (wall, processor)) in times.iter_mut().enumerate() {
                    wall.push(Sample::new(lives.map(|life| milliseconds(life[verb].wall))));
                    processor.push(Sample::new(lives.map(|life| milliseconds(life[verb].processor))));
                }
            }
            progress(round + 1, rounds);
        }
        let mut rows: Vec<_> =
            VERBS.iter().zip(&times).map(|(verb, (wall, _))| row(format!("{verb}, ms"), wall)).collect();
        let of_processor = |(verb, (_, time)): (&&str, &(_, Vec<_>))| row(format!("{verb}, ms of a processor"), time);
        rows.extend(VERBS.iter().zip(&times).map(of_processor));
        rows.push(Self::memory(&contenders, place)?);
        Ok(rows)
    }

    /// The peak resident memory of an ADD's own process, in MiB.
    fn memory(contenders: &[Contender; CONTENDERS], place: &Place<'_>) -> Result<Row> {
        let mut peaks = [0.0; CONTENDERS];
        for (contender, peak) in contenders.iter().zip(&mut peaks) {
            *peak = memory::peak_mebibytes(contender.command("ADD", &contender.config, place)?)?;
            contender.call("DEL", &contender.config, place)?;
        }
        Ok(row("peak memory of ADD, MiB".into(), &[Sample::new(peaks)]))
    }

    /// The guarded one has the same bridge under another name: what one leaves behind does not help the other.
    fn flatnet(&self, macspoofchk: bool) -> Result<Contender> {
        let list = shipped::list()?;
        let mut config: Value = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        if macspoofchk {
            config["name"] = json!("guarded");
            config["bridge"] = json!("flatnet-br1");
            config["macspoofchk"] = json!(true);
        }
        // As many addresses as a bridge may have ports, and more.
        config["ipam"] = json!({ "subnet": if macspoofchk { "10.87.16.0/21" } else { "10.87.8.0/21" } });
        config["cniVersion"] = list["cniVersion"].clone();
        Contender::new(&self.plugin_dir, "flatnet", config)
    }

    /// As near to flatnet's work as the reference gets: a gateway, a default route, no masquerade.
    fn reference(&self) -> Result<Contender> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "reference-br0", "isGateway": true,
            "ipam": {
                "type": "host-local", "subnet": "10.88.8.0/21", "routes": [{ "dst": "0.0.0.0/0" }],
                "dataDir": "/run/bench/host-local",
            },
        });
        Contender::new(&self.against, "bridge", config)
    }
}

impl Contender {
    fn new(folder: &Path, name: &str, config: Value) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("find the plugin folder {}", folder.display()))?;
        let binary = folder.join(name);
        if !binary.is_file() {
            bail!("find the plugin {name} in {}", folder.display());
        }
        Ok(Self { binary, path: folder, config })
    }

    /// Attaches a container that stays.
    fn add_beside(&self, place: &Place<'_>, interface: &str) -> Result<()> {
        let mut command = self.command("ADD", &self.config, place)?;
        let status = command
            .env("CNI_IFNAME", interface)
            .status()
            .with_context(|| format!("start {}", self.binary.display()))?;
        if !status.success() {
            bail!("attach a neighbour by {}: {status}", self.binary.display());
        }
        Ok(())
    }

    /// ADD, CHECK and DEL; the time that each took.
    fn live(&self, place: &Place<'_>) -> Result<[Took; VERBS.len()]> {
        let add = self.call("ADD", &self.config, place)?;
        let result = fs::read_to_string(place.folder.join("stdout")).context("read the result of ADD")?;
        let mut with_result = self.config.clone();
        with_result["prevResult"] = serde_json::from_str(&result).context("read the result of ADD")?;
        let check = self.call("CHECK", &with_result, place)?;
        let del = self.call("DEL", &with_result, place)?;
        Ok([add, check, del])
    }

    /// One call, from the start of the process to its end.
    fn call(&self, verb: &str, config: &Value, place: &Place<'_>) -> Result<Took> {
        let mut command = self.command(verb, config, place)?;
        let (took, status) = took::by(|| command.status())?;
        let status = status.with_context(|| format!("start {}", self.binary.display()))?;
        reap_orphans();
        if !status.success() {
            let said = fs::read_to_string(place.folder.join("stdout")).unwrap_or_default();
            bail!("run {verb} of {}: {status}: {}", self.binary.display(), said.trim());
        }
        Ok(took)
    }

    /// Files, and not pipes, for input and output: nobody has to be waited for.
    fn command(&self, verb: &str, config: &Value, place: &Place<'_>) -> Result<Command> {
        let (input, output) = (place.folder.join("stdin"), place.folder.join("stdout"));
        fs::write(&input, config.to_string()).context("write the configuration")?;
        let netns = place.container.path();
        let path = self.path.display().to_string();
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .envs(plugin::environment(verb, &place.id, Some(netns), "eth0", None, &path))
            .stdin(Stdio::from(File::open(&input).context("open the configuration")?))
            .stdout(Stdio::from(File::create(&output).context("open a file for the output")?));
        Ok(command)
    }
}

/// What a plugin leaves to be done behind it must be over before the next call is timed. As the world's first process, this one
/// inherits every orphan.
fn reap_orphans() {
    while waitpid(None, None).is_ok() {}
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Sample {
    const fn new([flatnet, reference, guarded]: [f64; CONTENDERS]) -> Self {
        Self { flatnet, reference, guarded }
    }
}

fn row(what: String, samples: &[Sample]) -> Row {
    let middle = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
    Row {
        what,
        flatnet: middle(|it| it.flatnet),
        reference: middle(|it| it.reference),
        ratio: middle(|it| it.flatnet / it.reference),
        guarded: middle(|it| it.guarded),
        guarded_ratio: middle(|it| it.guarded / it.flatnet),
    }
}

/// The middle value; of an even number, the upper of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    const HEAD: &str = "| | flatnet | bridge + host-local | ratio | with `macspoofchk` | ratio to without |\n|---|---|---|---|---|---|\n";
    let mut text = HEAD.to_owned();
    for row in rows {
        let Row { what, flatnet, reference, ratio, guarded, guarded_ratio } = row;
        let line =
            format!("| {what} | {flatnet:.2} | {reference:.2} | {ratio:.2} | {guarded:.2} | {guarded_ratio:.2} |\n");
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_round_by_round() {
        // The machine was ten times slower in the third round: the ratio does not see it.
        let samples = [[2.0, 8.0, 3.0], [3.0, 12.0, 4.5], [20.0, 80.0, 30.0]].map(Sample::new);
        let row = row("ADD, ms".into(), &samples);
        insta::assert_snapshot!(table(&[row]), @r"
        | | flatnet | bridge + host-local | ratio | with `macspoofchk` | ratio to without |
        |---|---|---|---|---|---|
        | ADD, ms | 3.00 | 12.00 | 0.25 | 4.50 | 1.50 |
        ");
    }
}
