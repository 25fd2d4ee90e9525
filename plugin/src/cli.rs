//! What the binary says when a person runs it, and not a CNI runtime.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::spec;

/// Answers `--help` and `--version`; everything else is an error, exit code 2.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let first = arguments.next();
    let text = first.as_ref().map(|first| first.to_string_lossy());
    match (text.as_deref(), arguments.next()) {
        (None | Some("help" | "--help" | "-h"), None) => print(&help()),
        (Some("--version" | "-V"), None) => print(&format!("{}\n", version())),
        (unknown, _) => {
            let unknown = unknown.unwrap_or_default();
            eprintln!("flatnet: unknown arguments, starting at {unknown:?}: try `flatnet --help`");
            ExitCode::from(2)
        }
    }
}

fn version() -> String {
    concat!("flatnet ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn help() -> String {
    format!(
        "{version}: a CNI plugin that gives every container a flat address of its own, without NAT

It is not run by hand: a CNI runtime such as Podman starts it, with CNI_COMMAND in the environment and the network's
configuration on standard input. It speaks CNI {versions}:
ADD, DEL, CHECK, GC, STATUS and VERSION.

  binary          /opt/cni/bin/flatnet
  configuration   /etc/cni/net.d/flatnet.conflist
  leases          `ip link show master flatnet-br0`: the names flatnet-ip-<address> are the leases
  manual          README.md, where you got flatnet from

Usage:
  flatnet --help      this text
  flatnet --version   the version
",
        version = version(),
        versions = spec::supported_list(),
    )
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
