//! What was asked wrongly: it is told like any failure, and has an exit status of its own.
//!
//! Invariant: only what another command line would mend is such an error.

use std::fmt;

/// The exit status for wrong arguments, as the parser of arguments has it.
pub const STATUS: u8 = 2;

/// An error in what was asked, and not in what came of it.
#[derive(Debug)]
pub struct Wrongly(anyhow::Error);

/// Says so of an error.
pub fn wrongly(err: anyhow::Error) -> anyhow::Error {
    Wrongly(err).into()
}

impl fmt::Display for Wrongly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Wrongly {}
