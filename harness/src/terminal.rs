//! Colour where a terminal shows it.
//!
//! Invariant: what is written elsewhere, and all JSON, has the same words without it.

use std::fmt::Display;
use std::io;

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};

/// What has failed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What has passed.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What the reader should see first.
pub const HEADING: Style = Style::new().bold();
/// What matters least.
pub const QUIET: Style = Style::new().dimmed();

/// When to write in colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// From here on for all that this process writes.
    pub fn apply(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// Standard output, which takes styles out where no colour is wanted.
pub fn stdout() -> AutoStream<io::Stdout> {
    AutoStream::auto(io::stdout())
}

/// `text` in a style.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
