//! Scenarios that cannot run here: skipped with the reason, unless nothing may be.
//!
//! Invariant: what can be installed is a failure in CI, and what cannot is one wherever `--no-skips` is said.

use std::process::Output;

use assert_cmd::Command;
use harness::plugin::reference_folder;
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
#[case::chained("plugins = [{ type = \"flatnet\" }, { type = \"static\" }]")]
#[case::for_addresses("type = \"flatnet\"\nipam = { type = \"static\" }")]
fn a_plugin_that_is_too_old_for_a_network_is_named_and_skipped_in_ci_too(#[case] plugins: &str) {
    if reference_folder(&["static"]).is_none() {
        assert!(std::env::var_os("CI").is_none(), "the reference plugins are not installed");
        return;
    }
    let network = format!("[network]\ncniVersion = \"9.9.9\"\nname = \"flatnet\"\n{plugins}");
    let case = Case::new(&format!("summary = \"a case\"\n{network}\n[run]\nsteps = [{{ add = \"web\" }}]\n"));
    let output = in_ci(&case, &["run", "case.toml"]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("skip     the plugin static that is installed does not speak CNI 9.9.9"), "{told}");
    assert!(!in_ci(&case, &["run", "--no-skips", "case.toml"]).status.success());
}

#[rstest]
#[case::named("{ run = \"true\", in = \"wsl\", needs = [\"no-such-program\"] }", "skip     no-such-program is not")]
#[case::not_a_program("{ run = \"(exit 0)\", in = \"wsl\" }", "1 passed")]
#[case::a_variable("{ run = \"a=1; exit 0\", in = \"wsl\" }", "1 passed")]
fn what_a_command_needs_is_named_or_plain_to_see(#[case] step: &str, #[case] expected: &str) {
    let told = text(&Case::with_steps(step).harness(&["run", "case.toml"]).stdout);
    assert!(told.contains(expected), "{told}");
}
