//! flatnet: a CNI plugin that gives every container a flat address of its own, without NAT.
//!
//! plugin/manual/design.md has the code map; plugin/tests/floors.rs holds which module may use which.

mod attachment;
mod call;
mod child;
mod cli;
mod cni;
mod config;
mod deadline;
mod delegate;
mod error;
mod family;
mod filter;
mod firewall;
mod hash;
mod ipam;
mod layout;
mod link;
mod logging;
mod mac;
mod names;
mod netavark;
mod netlink;
mod netns;
mod nft;
mod processes;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod reach;
mod reply;
mod rootless;
mod spec;
mod sysctl;

use std::process::ExitCode;

/// Does what the process was started for: a CNI runtime's call where `CNI_COMMAND` is set, else an operator's command.
pub fn run() -> ExitCode {
    logging::start();
    match std::env::var_os("CNI_COMMAND") {
        Some(_) => cni::answer(),
        None => cli::run(std::env::args_os()),
    }
}
