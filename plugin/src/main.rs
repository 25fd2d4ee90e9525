//! flatnet: a CNI plugin that gives every container a flat address of its own, without NAT.
//!
//! This file reads, dispatches, prints and exits; plugin/manual/design.md has the code map.

mod child;
mod cli;
mod command;
mod config;
mod deadline;
mod error;
mod firewall;
mod hash;
mod ipam;
mod layout;
mod link;
mod mac;
mod netavark;
mod netlink;
mod netns;
mod processes;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reach;
mod reply;
mod request;
mod rootless;
mod spec;
mod sysctl;

use std::process::ExitCode;

use error::Error;
use reply::Reply;
use request::{Environment, Input};
use serde_json::{Map, Value};

fn main() -> ExitCode {
    match std::env::var_os("CNI_COMMAND") {
        Some(_) => answer(),
        None => cli::run(std::env::args_os()),
    }
}

/// Answers a CNI runtime: one object or nothing on standard output, and the exit code.
fn answer() -> ExitCode {
    command::begin_call();
    // A panic's own text goes to standard error; the runtime still gets its error object.
    let outcome = std::panic::catch_unwind(carry_out).unwrap_or_else(|panic| {
        let message = command::panic_message(panic.as_ref());
        Err(reply::error(spec::NEWEST, &Error::Internal { message }))
    });
    match (reply::write(&outcome), outcome) {
        (Ok(()), Ok(_)) => ExitCode::SUCCESS,
        (Ok(()), Err(_)) => ExitCode::FAILURE,
        (Err(e), _) => {
            eprintln!("flatnet: failed to write standard output: {e}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<Reply, Value> {
    let environment = Environment::read();
    let mut config = Map::new();
    let outcome = environment.command().and_then(|command| {
        let text = request::read_stdin(command::DEADLINE)?;
        config = Input::read(command, &text)?;
        command::run(command, &environment, config.clone(), &text)
    });
    outcome.map_err(|error| reply::error(request::version_to_answer(&config), &error))
}
