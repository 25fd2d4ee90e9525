//! `flatnet man` and `flatnet completions`: the manual page and the shells' completions, made from the arguments themselves.
//!
//! Neither is a file that could fall behind: what the binary accepts is what they say.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, roman};

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
    /// The shell that is to read them
    shell: Shell,
}

pub(super) fn man(asked: &Man, out: &mut impl Write) -> Result<()> {
    let flatnet = documented();
    let subject = match &asked.command {
        None => flatnet,
        Some(name) => flatnet
            .find_subcommand(name)
            .cloned()
            .with_context(|| format!("there is no command {name:?}: `flatnet --help` lists them"))?,
    };
    page(&subject).and_then(|page| out.write_all(page.as_bytes())).context("failed to write the manual page")
}

pub(super) fn completions(asked: &Completions, out: &mut impl Write) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut tool(), "flatnet", &mut script);
    out.write_all(&script).context("failed to write the completions")
}

/// The page's parts are clap's; its frame is ours, as `Page::render` knows no SEE ALSO and misplaces an empty date.
fn page(subject: &Command) -> io::Result<String> {
    let page = Page::new(subject.clone()).section("8");
    let mut text = Vec::new();
    title(subject).to_writer(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if subject.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    notes(subject).to_writer(&mut text)?;
    see_also(subject).to_writer(&mut text)?;
    Ok(tidy(&String::from_utf8_lossy(&text)))
}

/// The date is for whoever installs the page: the binary has none, so that it can be built again bit for bit.
fn title(subject: &Command) -> Roff {
    let name = subject.get_display_name().unwrap_or("flatnet").to_uppercase();
    let source = concat!("flatnet ", env!("CARGO_PKG_VERSION"));
    let mut roff = Roff::new();
    roff.control("TH", [name.as_str(), "8", "\"\"", source, "System Administration"]);
    roff
}

/// Every part brings the same preamble along, and clap leaves what formatters of manual pages complain about: spaces at the ends
/// of lines, empty lines in flowing text, and breaks after breaks.
fn tidy(text: &str) -> String {
    let preamble: Vec<&str> = text.lines().take_while(|line| !line.starts_with(".TH")).collect();
    let mut lines = preamble.clone();
    let (mut flowing, mut paragraph_ended) = (true, false);
    for line in text.lines().map(str::trim_end).filter(|line| !preamble.contains(line)) {
        flowing = if flowing { line != ".nf" } else { line == ".fi" };
        if flowing && line.is_empty() {
            paragraph_ended = true;
            continue;
        }
        let last_is_text = lines.last().is_some_and(|last| !last.starts_with('.'));
        if paragraph_ended && last_is_text && !line.starts_with('.') {
            lines.push(".sp");
        }
        paragraph_ended = false;
        if line != ".br" || last_is_text {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// What `--help` ends with, line by line as it is there.
fn notes(subject: &Command) -> Roff {
    let mut roff = Roff::new();
    if let Some(after) = subject.get_after_long_help().or(subject.get_after_help()) {
        roff.control("SH", ["NOTES"]).control("nf", []);
        for line in after.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff
}

fn see_also(subject: &Command) -> Roff {
    let pages: &[(&str, &str)] = if subject.has_subcommands() {
        &[("podman-run", "(1),"), ("podman-network", "(1),"), ("ip-link", "(8),"), ("nginx", "(8)")]
    } else {
        &[("flatnet", "(8)")]
    };
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    for (page, section) in pages {
        roff.control("BR", [*page, *section]);
    }
    roff
}

/// The tool as its pages show it; clap's own `help` needs none.
fn documented() -> Command {
    let mut flatnet = tool().disable_help_subcommand(true);
    flatnet.build();
    flatnet
}

fn tool() -> Command {
    super::Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_leads_back() {
        let flatnet = documented();
        let main = page(&flatnet).expect("a page");
        for command in flatnet.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(main.contains(&format!("flatnet\\-{name}(8)")), "{name} is not in the page of flatnet");
            let page = page(command).expect("a page");
            assert!(page.contains(&format!("\n.TH FLATNET-{} 8 \"\"", name.to_uppercase())), "{page}");
            assert!(page.ends_with(".SH \"SEE ALSO\"\n.BR flatnet (8)\n"), "{page}");
        }
    }

    #[test]
    fn formatters_of_manual_pages_have_nothing_to_complain_about() {
        let colour = clap::arg!(<COLOUR> "first\n\nsecond").value_parser(["red", "green"]);
        let mut command = Command::new("flatnet-try").arg(colour).after_help("third\n\n  fourth  ");
        command.build();
        let page = page(&command).expect("a page");
        assert_eq!(page.matches(".ie ").count(), 1, "{page}");
        assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
        assert!(page.contains("\nfirst\n.sp\nsecond\n.br\n\\fIPossible values:"), "{page}");
        assert!(page.contains("\n.nf\nthird\n\n  fourth\n.fi\n"), "{page}");
        assert_eq!(page.matches("\n\n").count(), 1, "only in the notes, which do not flow: {page}");
    }
}
