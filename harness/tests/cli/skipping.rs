//! Scenarios that cannot run here: skipped with the reason, unless nothing may be.
//!
//! Invariant: what can be installed is a failure in CI, and what cannot is one wherever `--no-skips` is said.

use std::process::Output;

use assert_cmd::Command;
use rstest::rstest;

use super::{Case, plugin_dir, text};

const MISSING: &str = "{ run = \"no-such-program\", in = \"wsl\" }";

fn in_ci(case: &Case, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("harness").unwrap();
    command.env("CI", "true").env("FLATNET_PLUGIN_DIR", plugin_dir()).current_dir(case.folder.path());
    command.args(arguments).output().unwrap()
}

#[test]
fn a_scenario_that_needs_a_missing_program_is_skipped_with_the_reason_and_fails_in_ci() {
    let case = Case::with_steps(MISSING);
    let output = case.harness(&["run", "case.toml"]);
    let told = text(&output.stdout);
    assert!(output.status.success() && told.contains("skip     no-such-program is not installed"), "{told}");
    assert!(!in_ci(&case, &["run", "case.toml"]).status.success());
}

#[test]
fn nothing_is_skipped_where_that_is_said() {
    let case = Case::with_steps(MISSING);
    let output = case.harness(&["run", "--no-skips", "case.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "harness: failed to run all that was asked for: 1 skipped\n");
    let passed =
        Case::with_steps("{ add = \"web\" },\n{ del = \"web\" },").harness(&["run", "--no-skips", "case.toml"]);
    assert!(passed.status.success(), "{}", text(&passed.stdout));
}

#[rstest]
#[case::named("{ run = \"true\", in = \"wsl\", needs = [\"no-such-program\"] }", "skip     no-such-program is not")]
#[case::not_a_program("{ run = \"(exit 0)\", in = \"wsl\" }", "1 passed")]
#[case::a_variable("{ run = \"a=1; exit 0\", in = \"wsl\" }", "1 passed")]
fn what_a_command_needs_is_named_or_plain_to_see(#[case] step: &str, #[case] expected: &str) {
    let told = text(&Case::with_steps(step).harness(&["run", "case.toml"]).stdout);
    assert!(told.contains(expected), "{told}");
}
