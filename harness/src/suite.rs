//! Many scenarios: found in folders, run at the same time, one child process and world each.
//!
//! Invariant: a scenario that crashes, hangs or leaks takes nothing but its own world along, and is reported.

use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::asked;
use crate::lacking::Stock;
use crate::plugin::repository;
use crate::report::{Outcome, Report};
use crate::scenario::Scenario;
use crate::tally::Harm;
use crate::world::own_binary;

/// The longest that an ordinary scenario may take. Its steps have deadlines of their own: this ends what hangs in spite of them, and must not end
/// what a busy machine makes slow.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// The longest that one of those below [`LONG`] may take.
const LONG_PATIENCE: Duration = Duration::from_mins(15);

/// The folder of scenarios that are run only when they are asked for: each takes as long as many others together.
pub const LONG: &str = "long";

/// How to run scenarios.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The folder of the plugin under test.
    pub plugin_dir: PathBuf,
    /// The plugin that is held against the rules, as a child process gets it, if it is not flatnet as every other scenario has it.
    pub subject: Option<String>,
    /// Whether the worlds of failed scenarios stay until [`Kept`] goes.
    pub keep: bool,
    /// How many run at the same time.
    pub jobs: usize,
    /// The kernel that nodes seem to have, if not the machine's own.
    pub kernel: Option<Stock>,
    /// The longest that one may take; those below [`LONG`] have theirs.
    pub patience: Duration,
}

/// The worlds that stay as long as this does.
#[derive(Debug, Default)]
pub struct Kept(Vec<Child>);

impl Kept {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for world in &mut self.0 {
            drop(world.kill());
            drop(world.wait());
        }
    }
}

/// The folder of all scenarios.
pub fn folder() -> PathBuf {
    repository().join("scenarios")
}

/// A scenario's name: its path below the folder of all scenarios, without `.toml`.
pub fn name(file: &Path) -> String {
    let full = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let below = full.strip_prefix(folder()).map_or_else(|_| file.to_owned(), Path::to_owned);
    below.with_extension("").display().to_string()
}

/// Whether a scenario is run only when it is asked for.
pub fn is_long(file: &Path) -> bool {
    Path::new(&name(file)).starts_with(LONG)
}

/// The files that `wanted` asks for: files, folders, or parts of names; all scenarios if it asks for nothing.
pub fn find(wanted: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if wanted.is_empty() {
        collect(&folder(), &mut found)?;
    }
    for wanted in wanted {
        let before = found.len();
        let path = Path::new(wanted);
        if path.is_dir() {
            collect(path, &mut found)?;
        } else if path.is_file() {
            found.push(path.to_owned());
        } else {
            let mut all = Vec::new();
            collect(&folder(), &mut all)?;
            found.extend(all.into_iter().filter(|file| name(file).contains(wanted)));
        }
        if found.len() == before {
            let text = format!("find a scenario: {wanted} is no file, no folder with one, and no part of a name");
            return Err(asked::wrongly(anyhow!(text)));
        }
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        bail!("find a scenario in {}", folder().display());
    }
    Ok(found)
}

/// How many cores this process may use; one where that cannot be told.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The same files, the slow ones first: they mostly wait, and the others run meanwhile. One that cannot be read is not slow.
pub fn slow_first(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort_by_cached_key(|file| !Scenario::load(file).is_ok_and(|scenario| scenario.slow));
    files
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    Ok(())
}

impl Suite {
    /// Runs `files`, and tells of each as soon as it has ended.
    pub fn run(&self, files: &[PathBuf], told: impl Fn(&Report) + Sync) -> (Vec<Report>, Kept) {
        let files = slow_first(files.to_vec());
        let queue = Mutex::new(files.iter());
        let ended = Mutex::new((Vec::new(), Kept::default()));
        thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, files.len().max(1)) {
                scope.spawn(|| {
                    // A function: in the condition itself the lock would be held as long as the scenario runs.
                    let next = || lock(&queue).next();
                    while let Some(file) = next() {
                        let (report, kept) = self.run_one(file);
                        let mut ended = lock(&ended);
                        told(&report);
                        ended.0.push(report);
                        ended.1.0.extend(kept);
                    }
                });
            }
        });
        let (mut reports, kept) = ended.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        reports.sort_by(|a, b| a.file.cmp(&b.file));
        (reports, kept)
    }

    /// Once as it is, and once on each kernel that the scenario names, until it does not pass.
    fn run_one(&self, file: &Path) -> (Report, Option<Child>) {
        let (mut report, mut kept) = self.run_on(file, self.kernel);
        let also = if self.kernel.is_none() {
            Scenario::load(file).map(|it| it.kernels).unwrap_or_default()
        } else {
            Vec::new()
        };
        for kernel in also {
            if report.outcome != Outcome::Passed {
                break;
            }
            let before = report;
            (report, kept) = self.run_on(file, Some(kernel));
            report.duration_ms += before.duration_ms;
            report.transcript =
                format!("{}\nonce more, on a kernel like {}\n{}", before.transcript, kernel.name(), report.transcript);
        }
        (report, kept)
    }

    fn run_on(&self, file: &Path, kernel: Option<Stock>) -> (Report, Option<Child>) {
        let mut command = Command::new(own_binary());
        command.arg("__world").arg(file).arg("--plugin-dir").arg(&self.plugin_dir);
        command.args(self.keep.then_some("--keep"));
        command.args(self.subject.iter().flat_map(|subject| ["--subject", subject]));
        command.args(kernel.iter().flat_map(|kernel| ["--kernel", kernel.name()]));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(err) => return (Report::broken(file, Harm::Wrong, &format!("failed to start a world: {err}")), None),
        };
        let patience = self.patience.max(if is_long(file) { LONG_PATIENCE } else { Duration::ZERO });
        let Some(mut report) =
            first_line(&mut child, patience).and_then(|line| serde_json::from_str::<Report>(&line).ok())
        else {
            let (harm, why) = why_broken(child);
            return (Report::broken(file, harm, &why), None);
        };
        if self.keep && report.outcome == Outcome::Failed {
            report.world = Some(child.id());
            return (report, Some(child));
        }
        // Its end closes the world; it has said all that it had to say.
        drop(child.stdin.take());
        drop(child.wait());
        (report, None)
    }
}

/// The report is one line. Whoever does not come to it in time is killed.
pub(crate) fn first_line(child: &mut Child, patience: Duration) -> Option<String> {
    let out = child.stdout.take()?;
    let (said, line) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        drop(BufReader::new(out).read_line(&mut text));
        drop(said.send(text));
    });
    line.recv_timeout(patience).ok()
}

pub(crate) fn why_broken(mut child: Child) -> (Harm, String) {
    let late = child.try_wait().is_ok_and(|status| status.is_none()) && child.kill().is_ok();
    let harm = if late { Harm::Hang } else { Harm::Wrong };
    let why = match child.wait_with_output() {
        Ok(output) => {
            let end = if late { "did not end in time".to_owned() } else { format!("ended with {}", output.status) };
            format!("the world {end} and gave no report\n{}", String::from_utf8_lossy(&output.stderr).trim_end())
        }
        Err(err) => format!("failed to wait for the world: {err}"),
    };
    (harm, why)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
