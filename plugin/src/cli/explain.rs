//! `flatnet explain`: what an error's code means and what to do, from the catalogue that the source is made into.
//!
//! The catalogue is compiled in, so it is always that of this binary.

use std::io::Write;

use anyhow::{Context, Result};
use clap::Args;

/// Made from the source, and held complete, by tests/errors.
const CATALOGUE: &str = include_str!("../../manual/errors.md");

/// Say what an error's code means, and what to do about it
///
/// Without a code, everything: each code with every message that comes with it.
#[derive(Args)]
pub(super) struct Arguments {
    /// The `code` of an error, such as 105
    code: Option<u32>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let text = match arguments.code {
        None => CATALOGUE,
        Some(code) => section(code).with_context(|| format!("find code {code}: `flatnet explain` lists all"))?,
    };
    // The page is Markdown, which a terminal is not.
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("**", "");
    writeln!(out, "{}", text.trim()).context("write the explanation")
}

/// The part under the code's heading, heading included.
fn section(code: u32) -> Option<&'static str> {
    let start = CATALOGUE.find(&format!("\n## {code}\n"))? + 1;
    let rest = &CATALOGUE[start..];
    let end = rest[3..].find("\n## ").map_or(rest.len(), |at| at + 3);
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_explained_alone() {
        let text = section(105).expect("a code that there is");
        assert!(text.starts_with("## 105\n") && text.contains("stp_state 0"), "{text}");
        assert!(!text.contains("## 106"), "{text}");
    }

    #[test]
    fn a_code_that_does_not_exist_has_no_section() {
        assert_eq!(section(10), None);
    }
}
