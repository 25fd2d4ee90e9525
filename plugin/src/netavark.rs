//! netavark's driver contract, by which Podman 5 starts the binary: `info`, `create`, `setup`, `teardown`.
//!
//! The JSON is lowered to the same meaning as CNI's, and the recipes of ADD and DEL do the work: a container is attached alike,
//! whichever of the two asked. An answer is one JSON object on standard output; an error is `{"error": ..}` with exit code 1.
//!
//! **Who allocates.** `create` sets the IPAM driver `none`, so that Podman picks no addresses: flatnet does, from the kernel's leases, as for
//! CNI. There is then one list of what is taken, also for containers that came by CNI to the same bridge, and no second one in a file that
//! survives a crash. `podman run --ip`, `network connect --ip` and `podman inspect` work as before: with `none` Podman passes a
//! requested address on and shows what the driver answers. Whoever asks for `--ipam-driver host-local` gets Podman's choice, claimed in
//! the kernel like any other.
//!
//! **DNS.** netavark runs aardvark-dns for its own bridges only, never for a driver's. `create` therefore turns `dns_enabled` off, which Podman sets
//! unless told otherwise; containers then get the host's name servers in resolv.conf.

mod create;
pub(crate) mod network;
mod options;
pub(crate) mod planned;
pub(crate) mod ports;
pub(crate) mod request;
mod status;
mod subnets;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Subcommand;
use log::debug;
use serde_json::{Map, Value, json};

use self::request::{Setup, Teardown};
use crate::call;
use crate::cni::request::{Input, read_stdin};
use crate::cni::{self, Published, Source};
use crate::config::Network;
use crate::deadline;
use crate::error::{Error, Result};
use crate::reply::one_line;
use crate::rootless;

/// The version of the contract (plugin-API.md of netavark, "Info subcommand").
const API_VERSION: &str = "1.0.0";

/// What netavark and Podman call a driver with. They are no commands for people, so help does not list them.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Call {
    /// Netavark's driver contract: the versions of flatnet and of the contract
    #[command(hide = true)]
    Info,
    /// Netavark's driver contract: completes a network's configuration (`podman network create -d flatnet`)
    #[command(hide = true)]
    Create,
    /// Netavark's driver contract: ties a container to the network
    #[command(hide = true)]
    Setup {
        /// The path of the container's network namespace
        netns: String,
    },
    /// Netavark's driver contract: takes an attachment back
    #[command(hide = true)]
    Teardown {
        /// The path of the container's network namespace, which may be gone
        netns: String,
    },
}

/// A network as Podman keeps it, with the meaning that `setup` gives it. Errors: 2 and 7.
pub(crate) fn network(config: &Map<String, Value>) -> Result<Network> {
    network::parse("", config).map(|(network, _)| network)
}

/// Answers one call.
pub(crate) fn run(call: &Call) -> ExitCode {
    if !matches!(call, Call::Info) && io::stdin().is_terminal() {
        eprintln!("flatnet: {}", by_hand());
        return ExitCode::from(2);
    }
    call::begin_call();
    debug!("netavark: {call:?}");
    // A panic's own text goes to standard error; the caller still gets its error object.
    let outcome = std::panic::catch_unwind(|| answer(call))
        .unwrap_or_else(|panic| Err(Error::Internal { message: call::panic_message(panic.as_ref()) }));
    let (answer, code) = match outcome {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => {
            debug!("failed with code {}: {error}", error.code());
            (Some(json!({ "error": one_line(&message(&error)) })), ExitCode::FAILURE)
        }
    };
    let written = answer.map_or(Ok(()), |answer| writeln!(io::stdout(), "{answer}"));
    if let Err(e) = written {
        eprintln!("flatnet: failed to write standard output: {e}");
        return ExitCode::FAILURE;
    }
    code
}

fn by_hand() -> &'static str {
    "this command is netavark's, which starts flatnet as the driver of Podman 5's networks and sends it JSON on standard input.
To make a network: podman network create -d flatnet flatnet
To put a container on it: podman run --network flatnet ..."
}

/// What goes to standard output, if anything.
fn answer(call: &Call) -> Result<Option<Value>> {
    match call {
        Call::Info => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": API_VERSION }))),
        Call::Create => {
            let config = Input::object(&read_stdin(deadline::CALL)?)?;
            rootless::refuse()?;
            create::create(config).map(Some)
        }
        Call::Setup { netns } => {
            let request = Input::object(&read_stdin(deadline::CALL)?)?;
            rootless::refuse()?;
            let Setup { target, network, ports } = Setup::parse(&request, netns)?;
            let interface = target.interface.clone();
            let success = call::block_on(cni::attach(target, Source::Pools(network), Some(&ports)))?;
            Ok(Some(status::block(&success, &interface)))
        }
        Call::Teardown { netns } => {
            let request = Teardown::parse(&Input::lenient_object(&read_stdin(deadline::CALL)?)?, netns)?;
            let published = Published::Perhaps { bridge: &request.gateway_link, asked: request.published };
            call::block_on(cni::detach(&request.target, &request.network, published)).map(|()| None)
        }
    }
}

/// An error is one text here: what went wrong, and what to do.
fn message(error: &Error) -> String {
    let asked = |words: &str| {
        format!("invalid configuration: {words} (see `podman network create --help` and `podman network inspect`)")
    };
    match error {
        // These are worded for CNI, whose requests come by other ways.
        Error::Config { key, problem } => asked(&format!("{key} {problem}")),
        Error::UnknownKey { key, value, hint } => asked(&format!("unknown key {key}: {hint} (its value is {value})")),
        Error::Environment { problems } => {
            let problems: Vec<_> = problems.iter().map(|(_, problem)| problem.as_str()).collect();
            format!("invalid network namespace: it {}", problems.join(", it "))
        }
        Error::Stdin { .. } | Error::Json { .. } => {
            format!("{error} (netavark sends JSON: {})", by_hand().lines().next().unwrap_or_default())
        }
        error => format!("{error} ({})", error.remedy()),
    }
}
