//! The engine, tried on the shell: it has to hold for any program.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use rstest::rstest;

use super::{Calls, Outcome, Plan, Point, When, trace};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str, plan: &Plan) -> Outcome {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    trace(command, b"", PATIENCE, plan).unwrap()
}

fn calls(words: &[&str]) -> Calls {
    Calls::Named(words.iter().map(|word| (*word).to_owned()).collect())
}

fn at(process: usize, nth: usize) -> Point {
    Point { process, nth }
}

/// `: >> file`: a shell needs no other program to make a file.
fn touch(file: &Path) -> String {
    format!(": >> {0}; echo after", file.display())
}

#[test]
fn looking_changes_nothing() {
    let outcome = shell("cat /proc/self/stat > /dev/null; echo out; echo err >&2; exit 3", &Plan::count());
    assert_eq!((outcome.finished.stdout.as_str(), outcome.finished.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.finished.status.unwrap().code(), Some(3));
    assert_eq!((outcome.struck, outcome.processes), (None, 2));
    let opened = |call: &&super::SystemCall| call.process == 1 && call.about == "/proc/self/stat";
    let opened = outcome.calls.iter().find(opened).expect("the open of cat");
    assert!(opened.name.starts_with("open") && opened.result.is_some_and(|result| result > 0), "{opened:?}");
}

#[rstest]
#[case(When::Before, false)]
#[case(When::After, true)]
fn a_kill_is_before_or_after(#[case] when: When, #[case] made: bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made");
    let plan = Plan { calls: calls(&[&format!("open* {}", file.display())]), ..Plan::kill(at(0, 1), when) };
    let outcome = shell(&touch(&file), &plan);
    assert_eq!(outcome.finished.status.unwrap().signal(), Some(9));
    assert_eq!((file.exists(), outcome.finished.stdout.as_str()), (made, ""));
    assert!(outcome.struck.unwrap().changes);
}

#[test]
fn a_kill_is_of_one_process() {
    let plan = Plan { calls: calls(&["execve"]), ..Plan::kill(at(1, 1), When::Before) };
    let outcome = shell("cat < /dev/null; echo $?", &plan);
    assert_eq!(outcome.finished.stdout, "137\n");
}

#[test]
fn a_failed_call_is_not_made_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made");
    let wanted = calls(&[&format!("open* {}", file.display())]);
    let outcome = shell(&touch(&file), &Plan::fail(wanted, at(0, 1), Errno::ENOSPC));
    assert!(!file.exists());
    assert!(outcome.finished.stderr.contains("No space left"), "{}", outcome.finished.stderr);
    assert_eq!(outcome.struck.unwrap().result, Some(-i64::from(Errno::ENOSPC as i32)));
}

#[rstest]
#[case(false, 1)]
#[case(true, 2)]
fn what_lasts_befalls_all_that_follow(#[case] lasting: bool, #[case] errors: usize) {
    let plan = Plan { lasting, ..Plan::fail(calls(&["open* /dev/null"]), at(0, 2), Errno::EMFILE) };
    let outcome = shell("for n in 1 2 3; do { true < /dev/null; } 2>&1; done", &plan);
    assert_eq!(outcome.finished.stdout.lines().count(), errors, "{}", outcome.finished.stdout);
}

#[test]
fn what_never_ends_is_killed_with_all_that_it_started() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 60 & sleep 60"]);
    let outcome = trace(command, b"", Duration::from_millis(300), &Plan::count()).unwrap();
    assert_eq!((outcome.finished.status, outcome.processes), (None, 3));
}

#[test]
fn a_point_that_is_not_reached_is_told() {
    let outcome = shell("exit 0", &Plan::kill(at(0, 100_000), When::Before));
    assert!(outcome.struck.is_none() && outcome.finished.status.unwrap().success());
}
