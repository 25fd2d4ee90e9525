//! The list again after each change: the kernel announces them, nothing is asked for again and again.
//!
//! Ends when nobody reads standard output any more; a signal such as Ctrl-C ends it as it ends any program.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{Either, pending, select};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Line, list};
use crate::call;
use crate::cli::terminal::{QUIET, paint};
use crate::error::Result;
use crate::netlink::Changes;

/// What one ADD announces comes within it.
const BURST: Duration = Duration::from_millis(50);
/// The cursor to the first column of the first line, and everything behind it away.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Prints what `show` makes of the list now, and again whenever that is something else.
pub(super) fn follow(show: impl Fn(&[Line]) -> String, out: &mut impl Write) -> anyhow::Result<()> {
    call::block_on(async {
        // From before the first look on: what changes meanwhile is announced.
        let changes = Changes::open()?;
        let mut page = Page { out, last: None };
        let mut gone = pin!(reader_is_gone());
        loop {
            let (lines, _) = list().await?;
            match page.turn(show(&lines)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(Ok(())),
                Err(e) => return Ok(Err(e).context("failed to write the list")),
            }
            match select(gone.as_mut(), pin!(change(&changes))).await {
                Either::Left(_) => return Ok(Ok(())),
                Either::Right((heard, _)) => heard?,
            }
        }
    })?
}

/// Ends a moment after something has changed, so that what belongs together is seen together.
async fn change(changes: &Changes) -> Result<()> {
    changes.wait().await?;
    tokio::time::sleep(BURST).await;
    changes.take();
    Ok(())
}

/// Never ends where that cannot be told, as of a file.
async fn reader_is_gone() {
    let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() else { return pending().await };
    // SAFETY: it owns its descriptor, gives no other, and stays open until it is dropped.
    let Ok(stdout) = (unsafe { AsyncFd::register_with_interest(stdout, Interest::ERROR) }) else {
        return pending().await;
    };
    loop {
        match stdout.ready(Interest::ERROR).await {
            Ok(mut ready) if !ready.ready().is_error() => ready.clear_ready(),
            _ => return,
        }
    }
}

/// Where one list follows the other.
struct Page<'a, W> {
    out: &'a mut W,
    last: Option<String>,
}

impl<W: Write> Page<'_, W> {
    /// The same as before is not printed again.
    fn turn(&mut self, text: String) -> io::Result<()> {
        if self.last.as_ref() == Some(&text) {
            return Ok(());
        }
        if is_screen() {
            // Not by `out`, which takes out what is no text where colour is not wanted.
            io::stdout().write_all(CLEAR.as_bytes())?;
            write!(self.out, "{text}\n{}\n", paint(QUIET, "printed again at each change; Ctrl-C ends it"))?;
        } else {
            let gap = if self.last.is_some() { "\n" } else { "" };
            write!(self.out, "{gap}{text}")?;
        }
        self.last = Some(text);
        self.out.flush()
    }
}

/// Whether what is there can be replaced.
fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|kind| kind != "dumb")
}
