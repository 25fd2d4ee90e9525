//! Podman end to end: each promise to its users is a case, run in a world of its own by a child of this program.
//!
//! Invariant: a case that cannot run says why, and fails where nothing may be skipped (`CI` is set);
//! no case passes while anything of its containers is left.

mod cases;
mod world;

use std::env;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::http::forwarder;
use harness::plugin::{ENV_PLUGIN_DIR, Plugins};
use harness::podman::{self, SOCKET};
use harness::process;
use harness::sandbox::{Sandbox, Users};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::cases::CASES;
use crate::world::{Skipped, World};

/// How long a case may take before its world is ended.
const PATIENCE: Duration = Duration::from_mins(2);
/// The exit status of a case that could not run; its reason is on standard output.
const SKIPPED: u8 = 77;

/// The parts that this program plays beside that of the tests, by its first argument.
const WORLD: &str = "__world";
const CASE: &str = "__case";
/// A world starts its gateway's forwarder by this argument of whichever program it lives in.
const GATEWAY: &str = "__gateway";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORLD, case] => make_world(case),
        [CASE, case] => play(case),
        [GATEWAY] => forwarder::run().map(|()| 0),
        _ => return run_tests(),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(err) => {
            report(&err);
            ExitCode::FAILURE
        }
    }
}

fn run_tests() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = podman::reason_to_skip();
    // Built once, before the cases ask for it all at the same time.
    let plugins = match Plugins::locate(None) {
        Ok(plugins) => plugins,
        Err(err) => {
            report(&err);
            return ExitCode::FAILURE;
        }
    };
    let trials = CASES.iter().map(|(name, _)| {
        let (missing, plugins) = (missing.clone(), plugins.clone());
        Trial::ignorable_test(*name, move || match missing {
            Some(reason) => skip(&reason),
            None => run_case(name, &plugins),
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
        _ if podman::lacks_cni(&said) => skip("this Podman was built without its CNI backend"),
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
fn make_world(case: &str) -> Result<u8> {
    let mut command = this_program(CASE)?;
    command.arg(case).env("DOCKER_HOST", SOCKET);
    Sandbox { users: Users::Machine }.run(|| {
        podman::with_orphans_reaped(command).unwrap_or_else(|err| {
            report(&err);
            1
        })
    })
}

/// Plays a case inside its world.
fn play(name: &str) -> Result<u8> {
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).context("find the case")?;
    let mut world = World::build()?;
    match case(&mut world) {
        Ok(()) => {}
        Err(err) if err.is::<Skipped>() => {
            say(&err.to_string());
            return Ok(SKIPPED);
        }
        Err(err) => return Err(err),
    }
    let left = world.end()?;
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
