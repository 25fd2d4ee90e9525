//! What the binary says to a person, and to a runtime that asks nonsense. Nothing here needs a network.

use assert_cmd::Command;
use rstest::rstest;

fn flatnet() -> Command {
    let mut command = Command::cargo_bin("flatnet").expect("the binary of this package");
    command.env_clear();
    command
}

#[rstest]
#[case::no_arguments(&[])]
#[case::long(&["--help"])]
#[case::word(&["help"])]
fn help_says_what_it_is(#[case] arguments: &[&str]) {
    let output = flatnet().args(arguments).assert().success().stderr("").get_output().stdout.clone();
    insta::assert_snapshot!("help", String::from_utf8(output).expect("text"));
}

#[test]
fn version_is_one_line() {
    flatnet().arg("--version").assert().success().stdout(concat!("flatnet ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[rstest]
#[case::unknown(&["--nonsense"])]
#[case::too_many_of_a_command(&["ls", "--json", "--nonsense"])]
fn unknown_arguments_are_an_error(#[case] arguments: &[&str]) {
    let output = flatnet().args(arguments).assert().code(2).stdout("").get_output().stderr.clone();
    let text = String::from_utf8(output).expect("text");
    assert!(text.contains("try '--help'"), "{text}");
}

#[test]
fn a_runtime_gets_one_error_object() {
    let output = flatnet().env("CNI_COMMAND", "NONSENSE").write_stdin("{}").assert().code(1);
    insta::assert_snapshot!(String::from_utf8(output.get_output().stdout.clone()).expect("text"));
}

#[test]
fn a_full_standard_output_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("flatnet"));
    let child = command.env_clear().env("CNI_COMMAND", "VERSION").stdin(std::process::Stdio::null()).stdout(full);
    let output = child.stderr(std::process::Stdio::piped()).output().expect("flatnet runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{output:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("flatnet"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let child = command.arg("explain").stdout(writer).stderr(std::process::Stdio::piped());
    let output = child.output().expect("flatnet runs");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}

#[rstest]
#[case::flatnet(&["man"], "flatnet \\- A CNI plugin")]
#[case::a_command(&["man", "ls"], "flatnet\\-ls \\- Every leased address")]
#[case::bash(&["completions", "bash"], "complete -F _flatnet")]
fn the_binary_carries_its_manual(#[case] arguments: &[&str], #[case] said: &str) {
    let output = flatnet().args(arguments).assert().success().stderr("").get_output().stdout.clone();
    let text = String::from_utf8(output).expect("text");
    assert!(text.contains(said), "{text}");
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    const UNIT: &str = include_str!("../dist/systemd/flatnet.service");
    const INSTALLED: &str = "/opt/cni/bin/flatnet";
    assert!(UNIT.contains(&format!("\nExecStart={INSTALLED} gateway\n")), "{UNIT}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flatnet.service");
    // systemd looks whether the program is there, which flatnet need not be on a machine that tests it.
    let built = assert_cmd::cargo::cargo_bin("flatnet").display().to_string();
    std::fs::write(&file, UNIT.replace(INSTALLED, &built)).expect("a unit");
    let verify = std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output();
    match verify {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: systemd-analyze is not installed");
        }
        output => {
            let output = output.expect("systemd-analyze runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("flatnet.service:"), "{said}");
        }
    }
}

/// `systemd-analyze security` rates what a unit may do from 0 to 10; it needs no running systemd.
#[test]
fn the_units_sandbox_is_rated_below_2() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/systemd/flatnet.service");
    let mut security = std::process::Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=19", "--no-pager", unit]);
    match security.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: systemd-analyze is not installed");
        }
        output => {
            let output = output.expect("systemd-analyze runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains("exposure level"), "{text}");
        }
    }
}

#[test]
fn there_is_no_page_of_a_command_that_is_not_there() {
    flatnet().args(["man", "nonsense"]).assert().code(1).stdout("");
}

#[rstest]
#[case::code(&["explain", "105"])]
#[case::message(&["explain", "cannot", "use", "bridge", "lan0:", "link", "lan0", "is", "of", "kind", "veth"])]
fn an_error_is_explained_in_text(#[case] arguments: &[&str]) {
    let output = flatnet().args(arguments).assert().success().stderr("").get_output().stdout.clone();
    let text = String::from_utf8(output).expect("text");
    assert!(text.starts_with("105: the bridge cannot be used\n\n") && text.contains("sudo flatnet gc"), "{text}");
    // Where there is no colour, quotes show what is to be typed.
    assert!(text.contains('`') && !text.contains("```") && !text.contains(['#', '\u{1b}']), "{text}");
}

#[test]
fn an_unknown_code_is_an_error_that_lists_the_codes() {
    let output = flatnet().args(["explain", "12"]).assert().code(1).stdout("").get_output().stderr.clone();
    let text = String::from_utf8(output).expect("text").replace('\n', " ");
    assert!(text.contains("unknown code 12") && text.contains("105, 106, 107"), "{text}");
}

#[test]
fn netavark_gets_one_object() {
    let info = concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#"","api_version":"1.0.0"}"#, "\n");
    flatnet().arg("info").assert().success().stdout(info).stderr("");
    let asked = r#"{"name":"n","id":"1","driver":"flatnet","internal":true}"#;
    let output = flatnet().arg("create").write_stdin(asked).assert().code(1).get_output().stdout.clone();
    insta::assert_snapshot!(String::from_utf8(output).expect("text"), @r#"{"error":"unsupported value for internal: true (leave out --internal: on a flat network containers are reached from outside)"}"#);
}
