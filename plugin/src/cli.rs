//! The operator's tool: what the binary does when a person runs it, and not a CNI runtime.
//!
//! A file for each command, with its arguments and its `run`. Exit code 1 where the work fails, 2 where the arguments do.

mod doctor;
mod explain;
mod gateway;
mod gc;
mod install;
mod ls;
mod manual;
mod names;
mod podman;
mod probe;
mod status;
mod table;
mod terminal;
mod uninstall;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use self::terminal::Color;
use crate::error::Error;
use crate::{netavark, spec};

#[derive(Parser)]
#[command(name = "flatnet", version, about = ABOUT, long_about = about(), after_help = AFTER)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Verb>,
    /// When to write in colour: auto, always or never
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    color: Color,
}

#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::Arguments),
    Explain(explain::Arguments),
    Gateway(gateway::Arguments),
    Gc(gc::Arguments),
    Install(install::Arguments),
    Ls(ls::Arguments),
    Status(status::Arguments),
    Uninstall(uninstall::Arguments),
    Man(manual::Man),
    Completions(manual::Completions),
    #[command(flatten)]
    Netavark(netavark::Call),
}

const AFTER: &str = "\
Where things are:
  binary          /opt/cni/bin/flatnet; with Podman 5 /usr/local/libexec/netavark/flatnet
  configuration   /etc/cni/net.d/flatnet.conflist; with Podman 5 `podman network inspect flatnet`
  leases          the kernel holds them, as the names flatnet-ip-<address> of links
  manual          `flatnet man | man -l -`, and plugin/manual where you got flatnet from";

const ABOUT: &str = "A CNI plugin that gives every container a flat address of its own, without NAT";

fn about() -> String {
    format!(
        "{ABOUT}

A CNI runtime such as Podman starts it, with CNI_COMMAND in the environment and the network's \
configuration on standard input. It speaks CNI {versions}: ADD, DEL, CHECK, GC, STATUS and VERSION. \
Podman 5 starts it by netavark, as the driver of a network, with info, create, setup or teardown. \
The commands below are for people.",
        versions = spec::supported_list(),
    )
}

/// What a shell gives for a program that a closed pipe has ended.
const ENDED_BY_SIGPIPE: u8 = 141;

/// Carries out one command of a person; `arguments` starts with the program's name.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<_> = arguments.collect();
    Color::said(&words).apply();
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(refusal) => return refuse(&refusal),
    };
    if let Some(Verb::Netavark(call)) = &arguments.command {
        return netavark::run(call);
    }
    let mut out = terminal::stdout();
    let outcome = carry_out(arguments.command, &mut out);
    match outcome.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        // Who read standard output has gone (`| head`): an end like any other program's, without a word.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(ENDED_BY_SIGPIPE),
        Err(error) => {
            terminal::note(&format!("{} {error:#}", terminal::paint(terminal::BAD, "flatnet:")));
            if let Some(remedy) = error.downcast_ref::<Error>().map(Error::remedy) {
                terminal::note(&remedy);
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| kind == io::ErrorKind::BrokenPipe)
}

fn carry_out(command: Option<Verb>, out: &mut impl Write) -> Result<ExitCode> {
    match command {
        None => help(out),
        Some(Verb::Doctor(arguments)) => return doctor::run(&arguments, out),
        Some(Verb::Explain(arguments)) => explain::run(&arguments, out),
        Some(Verb::Gateway(arguments)) => gateway::run(&arguments, out),
        Some(Verb::Install(arguments)) => return install::run(&arguments, out),
        Some(Verb::Uninstall(arguments)) => return uninstall::run(&arguments, out),
        Some(Verb::Gc(arguments)) => gc::run(&arguments, out),
        Some(Verb::Ls(arguments)) => ls::run(&arguments, out),
        Some(Verb::Status(arguments)) => return status::run(&arguments, out),
        // For programs, byte by byte.
        Some(Verb::Man(arguments)) => manual::man(&arguments, &mut io::stdout()),
        Some(Verb::Completions(arguments)) => manual::completions(&arguments, &mut io::stdout()),
        Some(Verb::Netavark(_)) => unreachable!("answered before: its errors have a shape of their own"),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Without a command.
fn help(out: &mut impl Write) -> Result<()> {
    let text = Arguments::command().render_long_help().ansi().to_string();
    Ok(out.write_all(terminal::fit(&text, terminal::width()).as_bytes())?)
}

/// Help and version are refusals too, to clap.
fn refuse(refusal: &clap::Error) -> ExitCode {
    let text = refusal.render().ansi().to_string();
    if refusal.use_stderr() {
        terminal::note(text.trim_end());
        return ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(2));
    }
    let printed = terminal::stdout().write_all(terminal::fit(&text, terminal::width()).as_bytes());
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(ENDED_BY_SIGPIPE),
        Err(e) => {
            eprintln!("flatnet: failed to print: {e}");
            ExitCode::FAILURE
        }
    }
}
