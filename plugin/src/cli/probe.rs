//! How the commands look at the machine: files, and programs with an end to the patience.
//!
//! Nothing here changes anything, and nothing waits longer than it says; of a program that has answered, no thread is left.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::child::place;
use crate::deadline;

/// More than any answer has; what is behind it is not read.
const OUTPUT_MAX_BYTES: u64 = 16 << 20;

/// What is known of the machine before anything is looked at.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) root: bool,
    /// As `uname -r` has it.
    pub(super) release: String,
}

impl Host {
    pub(super) fn look() -> Self {
        Self { root: nix::unistd::geteuid().is_root(), release: read_line("/proc/sys/kernel/osrelease") }
    }

    /// Microsoft's kernels say so in their names.
    pub(super) fn is_wsl(&self) -> bool {
        self.release.to_ascii_lowercase().contains("microsoft")
    }
}

/// Whether systemd runs this machine (`sd_booted`(3)).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The file without white space around it; empty where it cannot be read.
pub(super) fn read_line(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The folder's files with this extension, by name; none where there is no folder.
pub(super) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = |path: &PathBuf| path.extension().is_some_and(|it| it == extension) && path.is_file();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(wanted).collect();
    found.sort();
    found
}

/// What came of running a program.
#[derive(Debug)]
pub(super) enum Ran {
    /// It exited with 0 and said this.
    Well(String),
    /// There is no such program.
    Missing,
    /// In words, to follow the program's name: "said ...", "did not answer within 5s".
    Badly(String),
}

/// Runs a program without input, in the C locale, until it ends or the patience does.
///
/// As root, one of which root alone can change the file and its folder: a `PATH` that came along from another user must not choose
/// what runs as root.
pub(super) fn run(program: &str, arguments: &[&str]) -> Ran {
    run_within(deadline::PROGRAM, program, arguments)
}

/// The same, with another patience.
pub(super) fn run_within(patience: Duration, program: &str, arguments: &[&str]) -> Ran {
    if program.contains('/') || !nix::unistd::geteuid().is_root() {
        return run_file(Path::new(program), arguments, patience);
    }
    place::find_on_path(program).map_or(Ran::Missing, |file| run_file(&file, arguments, patience))
}

fn run_file(file: &Path, arguments: &[&str], patience: Duration) -> Ran {
    let mut command = Command::new(file);
    command.args(arguments).env("LC_ALL", "C").env_remove("CNI_COMMAND");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ran::Missing,
        Err(e) => return Ran::Badly(format!("cannot be run: {e}")),
    };
    let outcome = hear(&mut child, Instant::now() + patience);
    // Of a child that has ended the kill fails, as it should.
    drop(child.kill());
    let status = child.wait();
    let Some((stdout, stderr)) = outcome else {
        return Ran::Badly(format!("did not answer within {patience:?}"));
    };
    match status {
        Ok(status) if status.success() => Ran::Well(stdout),
        Ok(_) if !stderr.trim().is_empty() => Ran::Badly(format!("said {:?}", last_line(&stderr))),
        Ok(status) => Ran::Badly(format!("ended with {status}")),
        Err(e) => Ran::Badly(format!("cannot be waited for: {e}")),
    }
}

/// Both outputs to their ends; nothing where they do not end in time.
fn hear(child: &mut Child, until: Instant) -> Option<(String, String)> {
    let (stdout, stderr) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let left = || until.saturating_duration_since(Instant::now());
    let (stdout, stderr) = (stdout.text(left())?, stderr.text(left())?);
    // The outputs end a moment before the process does: killed in between, it would seem to have failed.
    while child.try_wait().is_ok_and(|status| status.is_none()) && !left().is_zero() {
        thread::sleep(Duration::from_millis(1));
    }
    Some((stdout, stderr))
}

/// Whoever reads an output to its end.
struct Listener {
    heard: mpsc::Receiver<String>,
    thread: thread::JoinHandle<()>,
}

impl Listener {
    /// What was heard, once the output has ended; the thread has ended too by then.
    fn text(self, patience: Duration) -> Option<String> {
        let text = self.heard.recv_timeout(patience).ok()?;
        self.thread.join().ok().map(|()| text)
    }
}

/// A thread of its own reads, so that neither output can fill up while the other is waited for.
fn listen(stream: Option<impl Read + Send + 'static>) -> Listener {
    let (teller, heard) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            drop(stream.take(OUTPUT_MAX_BYTES).read_to_end(&mut bytes));
        }
        drop(teller.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
    Listener { heard, thread }
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_to_its_end() {
        assert!(matches!(run("sh", &["-c", "echo hello"]), Ran::Well(text) if text == "hello\n"));
        assert!(matches!(run("sh", &["-c", "echo why >&2; exit 3"]), Ran::Badly(text) if text == "said \"why\""));
        assert!(matches!(run("sh", &["-c", "exit 3"]), Ran::Badly(text) if text.contains('3')));
        assert!(matches!(run("/nonexistent/program", &[]), Ran::Missing));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let start = Instant::now();
        let ran = run_file(Path::new("sleep"), &["60"], Duration::from_millis(10));
        assert!(matches!(ran, Ran::Badly(text) if text == "did not answer within 10ms"));
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
