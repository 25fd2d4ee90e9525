//! Suites whose cases each run in a world of their own, by a child of the test program.
//!
//! Invariant: a case that cannot run says why, and fails where nothing may be skipped (`CI` is set);
//! no case passes while anything is left behind.

use std::env;
use std::fmt;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::http::{forwarder, server};
use harness::plugin::{ENV_PLUGIN_DIR, Plugins};
use harness::podman;
use harness::process;
use harness::sandbox::{Sandbox, Users};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// How long a case may take before its world is ended.
const PATIENCE: Duration = Duration::from_mins(2);
/// The exit status of a case that could not run; its reason is on standard output.
const SKIPPED: u8 = 77;

/// The parts that a test program plays beside that of the tests, by its first argument.
const WORLD: &str = "__world";
const CASE: &str = "__case";
/// A world starts a gateway's forwarder and a container's server by these arguments of whichever program it lives in.
const GATEWAY: &str = "__gateway";
const SERVER: &str = "__serve";

/// A case, by its name.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Who is root in its world.
    pub(crate) users: Users,
    /// What this machine lacks for it.
    pub(crate) lacks: Option<String>,
    /// Plays it in its world, and names what is left then.
    pub(crate) play: Box<dyn Fn() -> Result<Vec<String>>>,
}

/// A case that turns out not to be able to run on this machine.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// The whole of a test program; its cases find `env` in their environment.
pub(crate) fn run(cases: &[Case], env: &[(&str, &str)]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let find = |name: &str| cases.iter().find(|case| case.name == name).context("find the case");
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORLD, name] => find(name).and_then(|case| make_world(case, env)),
        [CASE, name] => find(name).and_then(play),
        [GATEWAY] => forwarder::run().map(|()| 0),
        [SERVER, "--name", name, "--port", port] => serve(name, port).map(|()| 0),
        _ => return run_tests(cases),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            report(&err);
            ExitCode::FAILURE
        }
    }
}

fn run_tests(cases: &[Case]) -> ExitCode {
    let arguments = Arguments::from_args();
    // Built once, before the cases ask for it all at the same time.
    let plugins = match Plugins::locate(None) {
        Ok(plugins) => plugins,
        Err(err) => {
            report(&err);
            return ExitCode::FAILURE;
        }
    };
    let trials = cases.iter().map(|case| {
        let (name, missing, plugins) = (case.name.clone(), case.lacks.clone(), plugins.clone());
        Trial::ignorable_test(case.name.clone(), move || match missing {
            Some(reason) => skip(&reason),
            None => run_case(&name, &plugins),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs a case in a child, whose output is shown if it fails.
fn run_case(name: &str, plugins: &Plugins) -> Result<Completion, Failed> {
    let mut command = this_program(WORLD).map_err(|err| format!("{err:#}"))?;
    command.arg(name).env(ENV_PLUGIN_DIR, plugins.folder());
    let done = process::run(command, &[], PATIENCE).map_err(|err| format!("{err:#}"))?;
    let said = format!("{}{}", done.stdout, done.stderr);
    match done.status.and_then(|status| status.code()) {
        Some(0) => Ok(Completion::Completed),
        Some(code) if code == i32::from(SKIPPED) => skip(done.stdout.trim()),
        _ if podman::lacks_cni(&said) => skip("it was built without its CNI backend"),
        _ => Err(format!("{}\n{said}", done.status_text()).into()),
    }
}

fn skip(reason: &str) -> Result<Completion, Failed> {
    match env::var_os("CI") {
        Some(_) => Err(format!("nothing may be skipped in CI: {reason}").into()),
        None => Ok(Completion::ignored_with(reason)),
    }
}

/// Makes the case's world and stays its first process.
fn make_world(case: &Case, env: &[(&str, &str)]) -> Result<u8> {
    let mut command = this_program(CASE)?;
    command.arg(&case.name).envs(env.iter().copied());
    Sandbox { users: case.users }.run(|| {
        podman::with_orphans_reaped(command).unwrap_or_else(|err| {
            report(&err);
            1
        })
    })
}

fn serve(name: &str, port: &str) -> Result<()> {
    server::run(name, port.parse().context("read the port")?, None)
}

/// Plays a case inside its world.
fn play(case: &Case) -> Result<u8> {
    let left = match (case.play)() {
        Ok(left) => left,
        Err(err) if err.is::<Skipped>() => {
            say(&err.to_string());
            return Ok(SKIPPED);
        }
        Err(err) => return Err(err),
    };
    if !left.is_empty() {
        bail!("leave nothing behind: {}", left.join("; "));
    }
    Ok(0)
}

fn this_program(part: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("find this program")?);
    command.arg(part);
    Ok(command)
}

fn report(err: &anyhow::Error) {
    // Nobody is left to tell if this fails.
    drop(io::Write::write_fmt(&mut io::stderr(), format_args!("failed to {err:#}\n")));
}

fn say(text: &str) {
    drop(io::Write::write_fmt(&mut io::stdout(), format_args!("{text}\n")));
}
