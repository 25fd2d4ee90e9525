//! A question to whoever sits at the terminal.
//!
//! Without a terminal nobody is asked, and the answer is no.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result};

/// Whether the reader agrees to all of it.
pub(super) fn agree(questions: &[String], out: &mut impl Write) -> Result<bool> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(false);
    }
    let what = if questions.len() == 1 { "that" } else { "all of that" };
    write!(out, "Go on with {what}? [y/N] ").and_then(|()| out.flush()).context("failed to ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("failed to read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
