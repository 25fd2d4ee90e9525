//! `flatnet man` and `flatnet completions`: the manual page and the shells' completions, made from the arguments themselves.
//!
//! Neither is a file that could fall behind: what the binary accepts is what they say.

use std::io::Write;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;

/// Print the manual page, or that of one command: `flatnet man | man -l -`
#[derive(Args)]
pub(super) struct Man {
    /// The command, such as `ls`; without it, the page of flatnet itself
    command: Option<String>,
}

/// Print the completions of a shell
///
/// For bash, as root: flatnet completions bash > /usr/share/bash-completion/completions/flatnet
#[derive(Args)]
pub(super) struct Completions {
    shell: Shell,
}

pub(super) fn man(asked: &Man, out: &mut impl Write) -> Result<()> {
    let mut flatnet = tool();
    flatnet.build();
    let subject = match &asked.command {
        None => flatnet,
        Some(name) => flatnet
            .find_subcommand(name)
            .cloned()
            .with_context(|| format!("find the command {name:?}: `flatnet --help` lists them"))?,
    };
    Page::new(subject).section("8").render(out).context("write the manual page")
}

pub(super) fn completions(asked: &Completions, out: &mut impl Write) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut tool(), "flatnet", &mut script);
    out.write_all(&script).context("write the completions")
}

fn tool() -> Command {
    super::Arguments::command()
}
