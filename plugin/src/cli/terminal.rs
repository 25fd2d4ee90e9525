//! What a person's terminal gets beside the words: colour, lines that fit, and a sign of life while something takes long.
//!
//! Invariant: a pipe gets the same words without any of it. Commands write styles wherever they help; [`stdout`] takes them out.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use nix::libc;

pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const HEADING: Style = Style::new().bold();
/// What matters least.
pub(crate) const QUIET: Style = Style::new().dimmed();

/// The width where there is no terminal, or one that does not say its own.
const DEFAULT_WIDTH: usize = 80;
/// A hanging indent leaves at least this much room for text, however narrow the terminal is.
const ROOM_MIN: usize = 20;
/// A description that begins further to the right is no column of its own.
const COLUMN_MAX: usize = 40;

/// When to write in colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// From here on for all that this process writes.
    pub(crate) fn apply(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }

    /// As `arguments` have it, which may be wrong in other ways: an error has a colour, too.
    pub(crate) fn said(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Self {
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        let after = |at: usize| words.get(at + 1).map(AsRef::as_ref);
        let of_word = |(at, word): (usize, &str)| match word {
            "--color" => after(at).map(str::to_owned),
            _ => word.strip_prefix("--color=").map(str::to_owned),
        };
        let said = words.iter().map(AsRef::as_ref).enumerate().find_map(of_word);
        said.and_then(|word| Self::from_str(&word, false).ok()).unwrap_or_default()
    }
}

/// Standard output, which keeps styles where colour is wanted and takes them out where it is not.
pub(crate) fn stdout() -> AutoStream<io::Stdout> {
    AutoStream::auto(io::stdout())
}

/// The same for standard error.
pub(crate) fn stderr() -> AutoStream<io::Stderr> {
    AutoStream::auto(io::stderr())
}

/// A line for people on standard error, wrapped where it is a terminal.
pub(crate) fn note(text: &str) {
    let mut err = stderr();
    let text = if err.is_terminal() { wrap(text, 0) } else { text.to_owned() };
    // Nobody is left to tell if this fails.
    drop(writeln!(err, "{text}"));
}

pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// How many columns there are: `COLUMNS` where it is set, else what the terminal says.
pub(crate) fn width() -> usize {
    columns_set().or_else(window_width).unwrap_or(DEFAULT_WIDTH)
}

fn columns_set() -> Option<usize> {
    env::var("COLUMNS").ok()?.trim().parse().ok().filter(|width| *width > 0)
}

/// The width for what has a line for each thing: nothing where standard output is no terminal, so that programs find each in one line.
pub(crate) fn line_width() -> Option<usize> {
    columns_set().or_else(|| io::stdout().is_terminal().then(width))
}

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

fn window_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one `winsize` to the place that outlives the call.
    let answer = unsafe { window_size(libc::STDOUT_FILENO, &raw mut size) };
    answer.ok().map(|_| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// `text` in lines that fit the terminal, all but the first indented by so many columns; the first begins in that column already.
/// A command between backticks stays on one line where one line can hold it.
pub(crate) fn wrap(text: &str, indent: usize) -> String {
    wrap_to(text, indent, Some(width()))
}

/// The same for so many columns, or without an end.
pub(super) fn wrap_to(text: &str, indent: usize, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(ROOM_MIN));
    let lines: Vec<_> = text.lines().flat_map(|line| fold_from(line, 0, 0, room)).collect();
    lines.join(&format!("\n{:indent$}", ""))
}

/// Text whose lines are as they should be where they fit: those that do not go on under their own beginning, or under their
/// second column.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut fitted = String::new();
    for line in text.split_inclusive('\n') {
        let (words, end) = line.strip_suffix('\n').map_or((line, ""), |words| (words, "\n"));
        if columns(words) <= width {
            fitted.push_str(line);
            continue;
        }
        let plain = strip_str(words).to_string();
        let own = plain.len() - plain.trim_start().len();
        let second = plain[own..].find("  ").map(|gap| {
            let gap = own + gap;
            gap + plain[gap..].len() - plain[gap..].trim_start().len()
        });
        let indent = second.filter(|second| *second <= COLUMN_MAX).unwrap_or(own);
        let (first, more) = words.split_at(words.len() - words.trim_start().len());
        // What is left of the indent is in the first line itself.
        let room = width.saturating_sub(indent).max(ROOM_MIN);
        let folded = fold_from(more, own, indent, room);
        fitted.push_str(first);
        fitted.push_str(&folded.join(&format!("\n{:indent$}", "")));
        fitted.push_str(end);
    }
    fitted
}

/// How many columns `text` takes: styles take none.
pub(super) fn columns(text: &str) -> usize {
    strip_str(text).map(|part| part.chars().count()).sum()
}

/// `line`, of which the first part begins in column `start` and the others in column `indent`, behind which there is `room`.
fn fold_from(line: &str, start: usize, indent: usize, room: usize) -> Vec<String> {
    let end = indent.saturating_add(room);
    let (mut lines, mut current, mut at) = (Vec::new(), String::new(), start);
    let mut is_first = true;
    for word in words(line, room) {
        let length = columns(word);
        if !is_first && at + 1 + length > end {
            lines.push(std::mem::take(&mut current).trim_end().to_owned());
            at = indent;
        } else if !is_first {
            current.push(' ');
            at += 1;
        }
        current.push_str(word);
        at += length;
        is_first = false;
    }
    lines.push(current.trim_end().to_owned());
    lines
}

/// The words of a line. What is between backticks is one, if a line can hold it.
fn words(line: &str, room: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let mut end = rest.find(' ').unwrap_or(rest.len());
        // From a backtick that opens to the blank behind the one that closes.
        while rest[..end].matches('`').count() % 2 == 1 && end < rest.len() {
            let next = rest[end + 1..].find(' ').map_or(rest.len(), |next| end + 1 + next);
            end = next;
        }
        let is_open = rest[..end].matches('`').count() % 2 == 1;
        if is_open || columns(&rest[..end]) > room {
            end = rest.find(' ').unwrap_or(rest.len());
        }
        words.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(more) if end < rest.len() => rest = more,
            _ => return words,
        }
    }
}

/// A line on standard error that says how far a command is, once it has taken long; on a terminal only, and gone at the end.
pub(super) struct Progress {
    shown: Option<Shown>,
}

struct Shown {
    parts: Arc<Mutex<Parts>>,
    /// Closed at the end.
    end: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Parts {
    total: usize,
    done: usize,
    at_work: Vec<&'static str>,
}

/// What takes no longer needs no sign of life.
const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(500);
/// To the beginning of the line, and the line away.
const ERASE_LINE: &str = "\r\x1b[K";

impl Progress {
    /// Of so many parts.
    pub(super) fn start(total: usize) -> Self {
        if !io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let parts = Arc::new(Mutex::new(Parts { total, ..Parts::default() }));
        let (end, ended) = mpsc::channel();
        let seen = Arc::clone(&parts);
        let thread = thread::spawn(move || show(&seen, &ended));
        Self { shown: Some(Shown { parts, end, thread }) }
    }

    /// Does `work`, which people know by that name.
    pub(super) fn part<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let Some(shown) = &self.shown else { return work() };
        lock(&shown.parts).at_work.push(name);
        let outcome = work();
        let mut parts = lock(&shown.parts);
        parts.at_work.retain(|it| *it != name);
        parts.done += 1;
        outcome
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Shown { end, thread, .. }) = self.shown.take() {
            drop(end);
            // It has written what it could.
            drop(thread.join());
        }
    }
}

/// A panic of a part is reported elsewhere.
fn lock(parts: &Mutex<Parts>) -> std::sync::MutexGuard<'_, Parts> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(parts: &Mutex<Parts>, ended: &mpsc::Receiver<()>) {
    let begin = Instant::now();
    let mut wait = PATIENCE;
    let mut err = io::stderr();
    while ended.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
        let line = lock(parts).line(begin.elapsed(), width());
        drop(write!(err, "{ERASE_LINE}{line}").and_then(|()| err.flush()));
        wait = TICK;
    }
    if wait == TICK {
        drop(write!(err, "{ERASE_LINE}").and_then(|()| err.flush()));
    }
}

impl Parts {
    /// No wider than the terminal: one that is could not be erased.
    fn line(&self, since: Duration, width: usize) -> String {
        let Self { total, done, at_work } = self;
        let waiting = if at_work.is_empty() { String::new() } else { format!(", waiting for {}", at_work.join(", ")) };
        let line = format!("{done} of {total} done after {} s{waiting}", since.as_secs());
        line.chars().take(width.saturating_sub(1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_behind_its_indent() {
        let text = "nobody answers ARP for it on flatnet-br0, whatever it is";
        assert_eq!(wrap_to(text, 4, Some(30)), "nobody answers ARP for it\n    on flatnet-br0, whatever\n    it is");
        assert_eq!(wrap_to("short", 4, Some(30)), "short");
        assert_eq!(wrap_to("one\ntwo", 2, Some(30)), "one\n  two");
        // However narrow it is, a line holds a word.
        assert_eq!(wrap_to("flatnet-br0 is down", 10, Some(12)), "flatnet-br0 is down");
        assert_eq!(wrap_to("/a/path/that/is/longer/than/a/line/can/be x", 0, Some(20)).lines().count(), 2);
    }

    #[test]
    fn a_command_stays_on_one_line_where_it_fits() {
        let text = "run `ip link set fn-1 up`, or more";
        assert_eq!(wrap_to(text, 0, Some(24)), "run\n`ip link set fn-1 up`,\nor more");
        assert_eq!(wrap_to(text, 0, Some(20)), "run `ip link set\nfn-1 up`, or more");
        assert_eq!(wrap_to("an odd ` stands alone here", 0, Some(20)), "an odd ` stands\nalone here");
    }

    #[test]
    fn styles_take_no_room() {
        let painted = paint(BAD, "four");
        assert_eq!(columns(&painted), 4);
        assert_eq!(
            wrap_to(&format!("{painted} and some more text"), 0, Some(20)),
            format!("{painted} and some more\ntext")
        );
    }

    #[test]
    fn what_does_not_fit_goes_on_under_its_column() {
        let help = "Commands:\n  doctor   Say what keeps containers from being reached\n  ls       List\n";
        let fitted = "Commands:\n  doctor   Say what keeps\n           containers from being\n           reached\n  ls       List\n";
        assert_eq!(fit(help, 34), fitted);
        assert_eq!(fit("    an indented line that is too long", 26), "    an indented line that\n    is too long");
    }

    #[test]
    fn colour_is_found_among_arguments_that_are_wrong() {
        assert_eq!(Color::said(&["flatnet", "--color=never", "nonsense"]), Color::Never);
        assert_eq!(Color::said(&["flatnet", "ls", "--color", "always", "--nonsense"]), Color::Always);
        assert_eq!(Color::said(&["flatnet", "--color=blue"]), Color::Auto);
        assert_eq!(Color::said(&["flatnet", "--color"]), Color::Auto);
    }

    #[test]
    fn progress_says_what_is_waited_for_in_one_line() {
        let parts = Parts { total: 7, done: 5, at_work: vec!["Podman", "the gateway"] };
        let since = Duration::from_millis(3400);
        assert_eq!(parts.line(since, 80), "5 of 7 done after 3 s, waiting for Podman, the gateway");
        assert_eq!(parts.line(since, 20), "5 of 7 done after 3");
    }

    #[test]
    fn where_nobody_sits_there_is_no_progress() {
        // Tests have no terminal; on one, a part's outcome is the same.
        assert_eq!(Progress::start(1).part("it", || 7), 7);
    }
}
