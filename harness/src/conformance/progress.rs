//! How far it has come, for who watches.
//!
//! Invariant: one line of standard error, and none where that is no terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many rules of how many have been tried.
pub(super) struct Progress {
    watched: bool,
    done: AtomicUsize,
    of: usize,
}

/// As long as the longest line, for what was there before.
const WIDTH: usize = 60;

impl Progress {
    pub(super) fn new(of: usize) -> Self {
        Self { watched: io::stderr().is_terminal(), done: AtomicUsize::new(0), of }
    }

    /// A plugin is called for the first time; one that hangs takes a while.
    pub(super) fn looks_at(&self, plugin: &str) {
        self.put(&format!("a first look at {plugin}"));
    }

    /// Something has come of one more rule.
    pub(super) fn has_come_of_one(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.put(&format!("{done} of {} rules tried", self.of));
    }

    fn put(&self, text: &str) {
        if self.watched {
            // A line that does not appear is no reason to stop.
            drop(write!(io::stderr(), "\r{text:WIDTH$}"));
        }
    }
}

/// What follows begins in a place of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.watched {
            drop(writeln!(io::stderr()));
        }
    }
}
