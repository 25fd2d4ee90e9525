//! Every scenario file is a test, found when the tests run: a new file needs no line of Rust.
//!
//! Invariant: no scenario passes unseen: an empty folder fails, a skipped one says why, and fails where `CI` is set. Those that take
//! long are told as ignored, and run with `-- --ignored`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use harness::plugin::Plugins;
use harness::report::{Outcome, Report};
use harness::suite;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// How many run at the same time, unless `--test-threads` says otherwise.
const SCENARIOS_PER_CORE: usize = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Half of what a scenario takes is waiting, for the kernel or for somebody who never answers.
    arguments.test_threads.get_or_insert_with(|| SCENARIOS_PER_CORE * suite::cores());
    let trials = match suite::find(&[]) {
        Ok(files) => {
            let trial = |file: PathBuf| {
                let long = suite::is_long(&file);
                Trial::ignorable_test(suite::name(&file), move || run(&file)).with_ignored_flag(long)
            };
            suite::slow_first(files).into_iter().map(trial).collect()
        }
        // A trial, so that it is told like any other failure.
        Err(err) => vec![Trial::test("there-are-scenarios", move || Err(format!("failed to {err:#}").into()))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(file: &Path) -> Result<Completion, Failed> {
    let plugin_dir = plugin_dir().as_ref().map_err(String::as_str)?;
    let mut harness = Command::new(env!("CARGO_BIN_EXE_harness"));
    let output = harness.args(["run", "--json", "--plugin-dir"]).arg(plugin_dir).arg(file).output()?;
    let [report]: [Report; 1] = serde_json::from_slice(&output.stdout)
        .map_err(|err| format!("no report ({err}): {}", String::from_utf8_lossy(&output.stderr)))?;
    match (report.outcome, report.reason) {
        (Outcome::Passed, _) => Ok(Completion::Completed),
        (Outcome::Skipped, reason) => Ok(Completion::ignored_with(reason.unwrap_or_default())),
        (Outcome::Failed, _) => Err(format!("\n{}", report.transcript).into()),
    }
}

/// Built once, by the first test that needs it.
fn plugin_dir() -> &'static Result<PathBuf, String> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let plugins = Plugins::locate(None).map_err(|err| format!("failed to {err:#}"))?;
        tell(plugins.folder());
        Ok(plugins.folder().to_owned())
    })
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests should know which binary they are about")]
fn tell(folder: &Path) {
    eprintln!("plugin under test: {}", folder.join("flatnet").display());
}
