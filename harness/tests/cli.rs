//! The `harness` binary itself, on scenarios that must not pass.
//!
//! Invariant: each of these would pass unseen if the harness were broken, so each says in which words it must fail.

#[path = "cli/lying.rs"]
mod lying;
#[path = "cli/shells.rs"]
mod shells;
#[path = "cli/skipping.rs"]
mod skipping;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use assert_cmd::Command;
use harness::deadline;
use harness::plugin::Plugins;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with one scenario in it.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("case.toml"), text).unwrap();
        Self { folder }
    }

    /// A scenario with these steps, one a line, the first in line 4.
    fn with_steps(steps: &str) -> Self {
        Self::new(&format!("summary = \"a case\"\n[run]\nsteps = [\n{steps}\n]\n"))
    }

    fn harness(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("harness").unwrap();
        command.env_remove("CI").env("FLATNET_PLUGIN_DIR", plugin_dir()).current_dir(self.folder.path());
        command.args(arguments).output().unwrap()
    }

    /// Runs the case, which must fail; gives what was told.
    fn run(&self) -> String {
        self.fail(&["run", "case.toml"])
    }

    /// The same with a shell script in the plugin's place, in which REAL is the plugin itself.
    fn run_with(&self, script: &str) -> String {
        // The checkout may be anywhere: a blank or a quote in its path is not the shell's business.
        let real = plugin_dir().join("flatnet").to_str().unwrap().replace('\'', "'\\''");
        let script = script.replace("REAL", &format!("'{real}'"));
        let fake = self.folder.path().join("flatnet");
        fs::write(&fake, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).unwrap();
        self.fail(&["run", "case.toml", "--plugin-dir", "."])
    }

    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.harness(arguments);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        text(&output.stdout)
    }
}

fn plugin_dir() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| Plugins::locate(None).unwrap().folder().to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[rstest]
#[case::an_unknown_key(
    "{ add = \"web\", ifnam = \"eth0\" }",
    "case.toml:4:16: `ifnam` does not belong to `add`; did you mean `ifname`?"
)]
#[case::two_verbs(
    "{ add = \"web\", del = \"web\" }",
    "case.toml:4:16: a step has one verb, and this one has two: `add` and `del`"
)]
#[case::an_option_of_another_verb("{ add = \"web\", port = 80 }", "case.toml:4:16: `port` does not belong to `add`")]
#[case::an_expectation_of_another_verb(
    "{ del = \"web\", expect = { address = \"x\" } }",
    "case.toml:4:16: address, gateway, mac and mtu are expected of `ADD`"
)]
#[case::no_verb("{ on = \"wsl\" }", "case.toml:4:3: a step needs a verb")]
#[case::no_steps("", "case.toml:3:9: a scenario without steps shows nothing")]
#[case::a_host_that_is_not_there(
    "{ get = \"http://10.87.1.2/\", via = \"linux\" }",
    "case.toml:4:30: there is no host named linux"
)]
#[case::an_error_that_answers(
    "{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { error = \"refused\", status = 200 } }",
    "case.toml:4:44: what gives an `error` has no `status`"
)]
#[case::a_misspelt_container(
    "{ add = \"web\" },\n{ serve = \"wbe\" }",
    "case.toml:5:3: there is no host or container named wbe; did you mean `web`?"
)]
#[case::a_misspelt_place("{ add = \"web\" },\n{ links = \"wbe\", expect = [] }", "case.toml:5:3: there is no host")]
#[case::a_misspelt_target("{ add = \"web\" },\n{ routes = \"wbe\", expect = {} }", "case.toml:5:3: there is no host")]
#[case::a_misspelt_in("{ add = \"web\" },\n{ run = \"true\", in = \"wbe\" }", "case.toml:5:17: there is no host")]
#[case::a_misspelt_sysctl(
    "{ add = \"web\" },\n{ sysctl = \"a.b\", in = \"wbe\", value = 1 }",
    "case.toml:5:19: there is no host"
)]
#[case::a_misspelt_from(
    "{ add = \"web\" },\n{ get = \"http://10.87.1.2/\", from = \"wbe\" }",
    "case.toml:5:30: there is no host"
)]
#[case::a_misspelt_kill("{ add = \"web\" },\n{ kill = \"wbe\" }", "case.toml:5:3: there is no host")]
#[case::a_misspelt_stop("{ add = \"web\", together = 2 },\n{ stop = \"web-3\" }", "case.toml:5:3: there is no host")]
#[case::another_address_of_no_node(
    "{ renumber = \"windows\", from = \"172.30.0.1/24\", to = \"172.30.0.9/24\" }",
    "case.toml:4:3: windows is not a node"
)]
#[case::an_address_on_another_wire(
    "{ renumber = \"wsl\", from = \"172.30.0.2/24\", to = \"172.30.1.2/24\" }",
    "case.toml:4:45: 172.30.1.2/24 is not another address on the wire of 172.30.0.2/24"
)]
#[case::a_route_of_nobody(
    "{ route = \"linux\", to = \"10.87.1.0/24\", via = \"172.30.0.2\" }",
    "there is no host named linux"
)]
#[case::a_route_of_a_node("{ route = \"wsl\", to = \"10.87.1.0/24\", via = \"172.30.0.1\" }", "wsl is a node")]
#[case::a_reboot_of_no_node("{ reboot = \"windows\" }", "case.toml:4:3: windows is not a node")]
fn mistakes_are_told_with_their_place(#[case] step: &str, #[case] expected: &str) {
    let told = Case::with_steps(step).run();
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_failing_step_is_shown_whole_and_the_others_in_a_line() {
    let case = Case::with_steps("{ version = true },\n{ add = \"web\", args = \"A=b\", expect = { code = 7 } },");
    let fake = "case $CNI_COMMAND in VERSION) echo '{}';; *) echo why >&2; echo '{\"code\": 11, \"msg\": \"busy\"}'; exit 1;; esac";
    let told = case.run_with(fake);
    let filters = [
        (r"\d+\.\d ms", "[TIME]"),
        (r"(plugin under test: |CNI_PATH=).*", "$1[FOLDERS]"),
        (r"(?m)^( *)/.* ended with", "$1[FOLDER]/flatnet ended with"),
    ];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(told) });
}

#[test]
fn what_is_left_behind_fails_by_name() {
    let told = Case::with_steps("{ run = \"touch /run/stray-file\", in = \"wsl\" }").run();
    assert!(told.contains("the world is not as it was before"), "{told}");
    assert!(told.contains("wsl: + file /run/stray-file"), "{told}");
}

/// These need a program that a machine may lack.
#[rstest]
#[case::a_link("ip", "ip link add stray type bridge", "wsl: + link stray (bridge) down")]
#[case::a_name("ip", "ip link property add dev eth0 altname stray", "wsl: + name stray of eth0")]
#[case::a_neighbour(
    "ip",
    "ip neigh add 172.30.0.77 dev eth0 lladdr 02:00:00:00:00:01",
    "+ permanent neighbour 172.30.0.77"
)]
#[case::a_route_that_is_gone("ip", "ip route del default", "wsl: - route default via 172.30.0.1 dev eth0")]
#[case::a_route_of_another_protocol(
    "ip",
    "ip route replace default via 172.30.0.1 dev eth0 proto 99",
    "wsl: + route default via 172.30.0.1 dev eth0 table 254 proto other(99) type unicast"
)]
#[case::a_metric(
    "ip",
    "ip route add 10.9.0.0/24 via 172.30.0.1 metric 7",
    "wsl: + route 10.9.0.0/24 via 172.30.0.1 dev eth0 table 254 proto boot type unicast metric 7"
)]
#[case::a_routing_rule("ip", "ip rule add from 10.9.0.1 table 77", "wsl: + rule inet")]
#[case::a_rule("nft", "nft add table ip t; nft add chain ip t c; nft add rule ip t c drop", "+ nftables rule ip t c #")]
fn what_has_changed_fails_by_name(#[case] program: &str, #[case] command: &str, #[case] expected: &str) {
    let case = Case::with_steps(&format!("{{ run = \"{command}\", in = \"wsl\" }}"));
    let told = text(&case.harness(&["run", "case.toml"]).stdout);
    let lacks = format!("{program} is not installed");
    if told.contains(&lacks) && std::env::var_os("CI").is_none() {
        // Past the test runner's capture: a check that is not made is told.
        writeln!(std::io::stderr(), "skipped: {expected:?} is not looked for, as {lacks}").unwrap();
        return;
    }
    assert!(told.contains(expected), "{told}");
}

#[rstest]
#[case::by_the_step("", "{ add = \"web\", set = { bridge = \"other-br0\", \"ipam.subnet\" = \"10.9.1.0/24\" } }")]
#[case::by_default(
    "[network]\ncniVersion = \"1.0.0\"\nname = \"n\"\ntype = \"flatnet\"\nipam = { subnet = \"10.9.1.0/24\" }",
    "{ add = \"web\" }"
)]
fn the_bridge_that_was_asked_for_may_stay(#[case] network: &str, #[case] step: &str) {
    let case = Case::new(&format!("summary = \"a case\"\n{network}\n[run]\nsteps = [{step}]\n"));
    let output = case.harness(&["run", "case.toml"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
}

#[test]
fn the_plugin_under_test_is_in_the_given_folder_or_nowhere() {
    let case = Case::with_steps("{ add = \"web\" }");
    let told = case.fail(&["run", "case.toml", "--plugin-dir", "."]);
    assert!(told.contains("find flatnet in the plugin folder"), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut harness = std::process::Command::new(env!("CARGO_BIN_EXE_harness"));
    let mut child = harness.arg("list").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_list_can_be_read_by_programs() {
    let case = Case::with_steps("{ add = \"web\" },\n{ del = \"web\" },");
    let output = case.harness(&["list", "--json", "case.toml"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list[0]["summary"], "a case");
    assert_eq!(list[0]["steps"], 2);
}

#[test]
fn the_demo_ends_with_a_page_and_an_empty_inventory() {
    let case = Case::new("");
    let output = case.harness(&["demo"]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    assert!(told.contains("200 hello from web") && told.contains("saw 172.30.0.1"), "{told}");
    assert!(told.contains("left on wsl: nothing"), "{told}");
    assert!(told.contains("harness -- shell") && !told.contains("CNI_COMMAND"), "{told}");
    let details = text(&case.harness(&["demo", "--verbose"]).stdout);
    assert!(details.contains("CNI_COMMAND=DEL") && details.contains("flatnet-ip-10.87.1.2"), "{details}");
}

#[test]
fn the_machine_itself_is_not_touched() {
    let look = || {
        let links = fs::read_to_string("/proc/net/dev").unwrap();
        let names: Vec<String> =
            links.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        (names, mounts, PathBuf::from("/run/netns").exists())
    };
    let before = look();
    let case = Case::with_steps("{ add = \"web\" },\n{ kill = \"web\" },");
    assert!(case.harness(&["run", "case.toml"]).status.success());
    assert_eq!(look(), before);
}

#[test]
fn a_container_has_nothing_left_once_it_is_detached() {
    let case = Case::with_steps("{ container = \"web\" },\n{ run = \"ip link add stray type bridge\", in = \"web\" }");
    let told = text(&case.harness(&["run", "case.toml"]).stdout);
    let lacks = told.contains("ip is not installed") && std::env::var_os("CI").is_none();
    assert!(told.contains("web: + link stray") || lacks, "{told}");
}

#[test]
fn a_world_ends_with_its_caller_however_that_ends() {
    let case = Case::with_steps("{ run = \"exec sleep 1234\", in = \"wsl\", timeout_ms = 60000 }");
    let mut harness = std::process::Command::new(env!("CARGO_BIN_EXE_harness"));
    harness.args(["run", "case.toml"]).current_dir(case.folder.path()).env("FLATNET_PLUGIN_DIR", plugin_dir());
    let mut child = harness.stdout(Stdio::null()).spawn().unwrap();
    let patience = Duration::from_secs(10);
    let sleeping = || sleeps_in(case.folder.path());
    assert!(deadline::until(patience, || sleeping().then_some(())).is_some(), "the step never ran");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(deadline::until(patience, || (!sleeping()).then_some(())).is_some(), "the world outlives its caller");
}

/// Whether a process of the step above runs in `folder`.
fn sleeps_in(folder: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.into_iter().any(|process| {
        let here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
        here && fs::read(process.join("cmdline")).is_ok_and(|line| line == b"sleep\x001234\0")
    })
}

/// Behind `{ add = "web" }, { serve = "web" }`.
#[rstest]
#[case("{ add = \"b\", expect = { address = \"10.87.1.9/24\" } }", "expected  address 10.87.1.9/24")]
#[case("{ add = \"b\", expect = { gateway = \"10.87.1.9\" } }", "expected  gateway 10.87.1.9")]
#[case("{ add = \"b\", expect = { mac = \"02:*\" } }", "expected  mac 02:*")]
#[case("{ add = \"b\", expect = { mtu = 1 } }", "expected  mtu 1")]
#[case("{ add = \"b\", expect = { result = { dns = { domain = \"x\" } } } }", "the result differs: dns.domain")]
#[case("{ add = \"b\", expect = { code = 7 } }", "expected  error 7")]
#[case("{ add = \"b\", together = 2, expect = { addresses = 3 } }", "expected  3 different addresses")]
#[case("{ add = \"web\", expect = { msg = \"no such words\" } }", "expected  msg with \"no such words\"")]
#[case("{ add = \"web\" }", "expected  success")]
#[case("{ check = \"web\", prev = false }", "expected  success")]
#[case("{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { status = 404 } }", "expected  status 404")]
#[case("{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { name = \"db\" } }", "expected  name db")]
#[case("{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { peer = \"1.1.1.1\" } }", "expected  peer 1.1.1.1")]
#[case("{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { body = \"x\" } }", "expected  body x")]
#[case(
    "{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { header = { x-none = \"x\" } } }",
    "expected  x-none x"
)]
#[case("{ get = \"http://10.87.1.2/\", from = \"wsl\", expect = { error = \"refused\" } }", "expected  refused")]
#[case("{ get = \"http://10.87.1.2/\", from = \"lan\", expect = { error = \"timeout\" } }", "got       unreachable")]
#[case("{ get = \"http://10.87.1.2:81/\", from = \"wsl\" }", "got       none: refused")]
#[case("{ websocket = \"ws://10.87.1.2:81/\", from = \"wsl\" }", "expected  an echo")]
#[case("{ leases = \"wsl\", timeout_ms = 50, expect = {} }", "expected  no lease")]
#[case(
    "{ leases = \"wsl\", timeout_ms = 50, expect = { \"10.87.1.2\" = \"b/eth0\" } }",
    "expected  10.87.1.2 = b/eth0"
)]
#[case(
    "{ links = \"web\", timeout_ms = 50, expect = [{ name = \"eth0\", mtu = 1 }] }",
    "expected  one link like number 1"
)]
#[case(
    "{ links = \"web\", timeout_ms = 50, expect = [{ name = \"eth0\", addresses = [] }] }",
    "expected  one link like"
)]
#[case("{ links = \"wsl\", timeout_ms = 50, expect = [{ name = \"fn-*\", names = [] }] }", "expected  one link like")]
#[case("{ links = \"web\", timeout_ms = 50, only = \"eth*\", expect = [] }", "expected  0 links like eth*")]
#[case("{ links = \"web\", timeout_ms = 50, only = \"eth*\", count = 2 }", "expected  2 links like eth*")]
#[case("{ routes = \"web\", timeout_ms = 50, expect = { default = \"10.87.1.9\" } }", "expected  default = 10.87.1.9")]
#[case("{ sysctl = \"net.ipv4.ip_forward\", in = \"wsl\", expect = 0 }", "expected  0")]
#[case(
    "{ renumber = \"wsl\", from = \"172.30.0.3/24\", to = \"172.30.0.4/24\" }",
    "find the address 172.30.0.3/24 on wsl"
)]
#[case(
    "{ route = \"windows\", to = \"10.87.1.0/24\", via = \"10.99.0.1\" }",
    "set the route to 10.87.1.0/24 via 10.99.0.1"
)]
#[case("{ run = \"exit 3\", in = \"wsl\" }", "expected  exit status: 0")]
#[case("{ run = \"echo a\", in = \"wsl\", expect = { stdout = \"b\" } }", "expected  b")]
#[case("{ run = \"sleep 9\", in = \"wsl\", timeout_ms = 50 }", "killed: it was late")]
fn what_is_not_as_expected_fails(#[case] step: &str, #[case] expected: &str) {
    let told = Case::with_steps(&format!("{{ add = \"web\" }},\n{{ serve = \"web\" }},\n{step},")).run();
    assert!(told.contains("FAIL  3") && told.contains(expected), "{told}");
}

#[rstest]
#[case::no_such_scenario(&["run", "no-such-scenario"], "no-such-scenario is no file")]
#[case::no_such_folder(&["run", "case.toml", "--plugin-dir", "/nowhere"], "find the plugin folder /nowhere")]
#[case::no_such_option(&["run", "--no-such-option"], "unexpected argument")]
#[case::nothing_to_list(&["list", "no-such-scenario"], "no-such-scenario is no file")]
#[case::no_place_for_a_shell(&["shell", "no-such-scenario"], "no-such-scenario is no file")]
#[case::several_for_a_shell(&["shell", "conformance/"], "choose among")]
fn what_is_asked_wrongly_is_no_failure(#[case] arguments: &[&str], #[case] words: &str) {
    let output = Case::with_steps("{ run = \"exit 3\", in = \"wsl\" }").harness(arguments);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains(words), "{:?}: {told}", output.status);
}

#[test]
fn a_failure_is_not_asked_wrongly() {
    let case = Case::with_steps("{ run = \"exit 3\", in = \"wsl\" }");
    assert_eq!(case.harness(&["run", "case.toml"]).status.code(), Some(1));
    let coloured = text(&case.harness(&["run", "case.toml", "--color", "always"]).stdout);
    assert!(coloured.contains("\u{1b}[31mFAIL") || coloured.contains("\u{1b}[1m\u{1b}[31mFAIL"), "{coloured:?}");
    let reports = text(&case.harness(&["run", "case.toml", "--json", "--color", "always"]).stdout);
    assert!(!reports.contains('\u{1b}') && !reports.contains("u001b"), "{reports}");
}
