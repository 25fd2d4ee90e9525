//! `harness shell`: where it opens, and that its world ends with it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use assert_cmd::Command;

use super::{Case, plugin_dir, text};

fn shell(case: &Case, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::cargo_bin("harness").unwrap();
    command.env("SHELL", "/bin/sh").env("FLATNET_PLUGIN_DIR", plugin_dir()).current_dir(case.folder.path());
    command.arg("shell").args(arguments).write_stdin(input).output().unwrap()
}

#[test]
fn a_shell_opens_where_the_scenario_stands() {
    let case = Case::with_steps("{ add = \"web\" },\n{ del = \"web\" },");
    let output = shell(&case, &["case.toml", "--until", "1"], "cat /proc/net/dev; exit 7\n");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("ok    1  add web") && !told.contains("del web"), "{told}");
    assert!(told.contains("flatnet-br0:"), "{told}");
}

#[test]
fn a_shell_opens_before_anything_is_taken_away() {
    let case = Case::with_steps("{ add = \"web\" },\n{ kill = \"web\" },\n{ version = true },");
    let output = shell(&case, &["case.toml"], "flatnet ls\n");
    let told = text(&output.stdout);
    assert!(output.status.success() && told.contains("10.87.1.2"), "{told}");
    assert!(told.contains("--    2  kill web") && !told.contains("version"), "{told}");
}

#[test]
fn without_a_scenario_a_shell_opens_in_a_living_world() {
    let output = shell(&Case::new(""), &[], "flatnet status; exit 7\n");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(7), "{told}{}", text(&output.stderr));
    assert!(told.contains("Three things to try") && told.contains("reached  10.87.1.2  web"), "{told}");
}

#[test]
fn a_kept_world_can_be_entered_until_enter_is_pressed() {
    let case = Case::with_steps("{ add = \"web\", expect = { address = \"10.87.1.99/24\" } }");
    let mut harness = std::process::Command::new(env!("CARGO_BIN_EXE_harness"));
    harness.args(["run", "--keep", "case.toml"]).current_dir(case.folder.path());
    harness.env("FLATNET_PLUGIN_DIR", plugin_dir()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = harness.spawn().unwrap();
    // The reader stays: a harness that cannot speak to its caller ends.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.starts_with("kept")).unwrap();
    let world = told.rsplit(' ').next().unwrap();
    let mut shell = Command::cargo_bin("harness").unwrap();
    shell.env("SHELL", "/bin/sh").args(["shell", world]).write_stdin("cat /proc/net/dev\n");
    let seen = text(&shell.output().unwrap().stdout);
    assert!(seen.contains("This is wsl") && seen.contains("flatnet-br0:"), "{seen}");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(!PathBuf::from(format!("/proc/{world}")).exists(), "the world {world} outlives its keeper");
}
