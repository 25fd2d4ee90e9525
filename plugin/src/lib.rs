//! flatnet: a CNI plugin that gives every container a flat address of its own, without NAT.
//!
//! plugin/manual/design.md has the code map; plugin/tests/floors.rs holds which module may use which.

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

/// Does what the process was started for: a CNI runtime's call where `CNI_COMMAND` is set, else an operator's command.
pub fn run() -> ExitCode {
    match std::env::var_os("CNI_COMMAND") {
        Some(_) => command::answer(),
        None => cli::run(std::env::args_os()),
    }
}
