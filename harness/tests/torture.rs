//! `harness torture`, on plugins that must not pass, and on the one that must.
//!
//! Invariant: each kind of harm is found by its name, makes the proof fail, and can be seen again by the command that is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use harness::plugin::Plugins;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

fn plugin_dir() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| Plugins::locate(None).unwrap().folder().to_owned())
}

/// Runs `harness` with scratch files below `folder`.
fn harness(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.env("TMPDIR", folder.path()).env("FLATNET_PLUGIN_DIR", plugin_dir()).args(arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {}", text(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_nothing_is_wrong_with_passes_and_is_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let output = harness(&scratch, &["torture", "--only", "reboot", "--json"]);
    let told = report(&output);
    assert!(output.status.success(), "{told}");
    assert!(told["harms"].as_object().unwrap().values().all(|count| count == 0), "{told}");
    let tally = &told["rows"][0]["tally"];
    assert_eq!((&tally["addresses"], &tally["mishaps"]), (&120.into(), &4.into()), "{told}");
    assert!(text(&output.stderr).contains("ok     reboot"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "scenarios are left that replay nothing");
}

/// REAL is the plugin itself.
#[rstest]
#[case::leak("REAL || exit $?; echo > /var/lib/cni/left-$CNI_CONTAINERID", "leak", "/var/lib/cni/left-web-1")]
#[case::panic("echo \"thread 'main' panicked at x\" >&2; exit 101", "panic", "the plugin panicked")]
#[case::wrong(
    "echo '{\"cniVersion\": \"1.0.0\", \"code\": 101, \"msg\": \"full\"}'; exit 1",
    "wrong",
    "error 101: full"
)]
fn harm_is_found_and_can_be_seen_again(#[case] script: &str, #[case] harm: &str, #[case] words: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let fake = tempfile::tempdir().unwrap();
    let real = plugin_dir().join("flatnet").to_str().unwrap().replace('\'', "'\\''");
    let file = fake.path().join("flatnet");
    fs::write(&file, format!("#!/bin/sh\n{}\n", script.replace("REAL", &format!("'{real}'")))).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let folder = fake.path().to_str().unwrap();
    let output = harness(&scratch, &["torture", "--only", "reboot", "--json", "--plugin-dir", folder]);
    let told = report(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let finding = &told["findings"][0];
    assert_eq!((&finding["harm"], &told["harms"][harm]), (&harm.into(), &1.into()), "{told}");
    assert!(finding["what"].as_str().unwrap().contains(words), "{told}");
    let replay: Vec<&str> = finding["replay"].as_str().unwrap().split(' ').skip(1).collect();
    let again = harness(&scratch, &replay);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stdout).contains(words), "{}", text(&again.stdout));
}

#[test]
fn a_folder_without_the_reference_is_told_before_anything_is_done() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().to_str().unwrap();
    let output = harness(&scratch, &["torture", "--only", "reboot", "--against", folder]);
    let told = text(&output.stderr);
    assert!(!output.status.success() && told.contains("find the plugin bridge in"), "{told}");
    assert!(!told.contains("ok "), "{told}");
}
