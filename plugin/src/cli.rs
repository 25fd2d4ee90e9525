//! What the binary says when a person runs it, and not a CNI runtime.

mod ls;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::spec;

/// Carries out one command of a person. Exit code 1 where it fails, 2 where there is no such command.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["help" | "--help" | "-h"] => print(&help()),
        ["--version" | "-V"] => print(&format!("{}\n", version())),
        ["ls"] => list(ls::table),
        ["ls", "--json"] => list(ls::json),
        _ => {
            let line = words.join(" ");
            eprintln!("flatnet: unknown arguments: {line:?}: try `flatnet --help`");
            ExitCode::from(2)
        }
    }
}

fn list(show: fn(&[ls::Line]) -> String) -> ExitCode {
    match ls::read() {
        Ok(lines) => print(&show(&lines)),
        Err(error) => {
            eprintln!("flatnet: failed to {error}\n{}", error.remedy());
            ExitCode::FAILURE
        }
    }
}

fn version() -> String {
    concat!("flatnet ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn help() -> String {
    format!(
        "{version}: a CNI plugin that gives every container a flat address of its own, without NAT

A CNI runtime such as Podman starts it, with CNI_COMMAND in the environment and the network's
configuration on standard input. It speaks CNI {versions}:
ADD, DEL, CHECK, GC, STATUS and VERSION.

  binary          /opt/cni/bin/flatnet
  configuration   /etc/cni/net.d/flatnet.conflist
  leases          `flatnet ls`; the kernel holds them, as the names flatnet-ip-<address> of links
  manual          README.md, where you got flatnet from

Usage:
  flatnet ls          every leased address and the container that has it; --json for scripts
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
        Err(e) => {
            eprintln!("flatnet: failed to write standard output: {e}");
            ExitCode::FAILURE
        }
    }
}
