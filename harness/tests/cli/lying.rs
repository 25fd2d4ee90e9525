//! Plugins that lie, which the harness must catch.
//!
//! Invariant: where the real plugin has a part, one lie is added to it, so that nothing else can be what is caught.

use super::Case;
use rstest::rstest;

/// A plugin that claims success and does nothing, or misbehaves in another way.
#[rstest]
#[case::del_that_does_nothing("case $CNI_COMMAND in ADD) exec REAL;; *) exit 0;; esac", "fn-")]
#[case::two_objects("REAL; [ $CNI_COMMAND = DEL ] || echo '{}'", "not a result alone")]
#[case::an_address_that_is_not_there(
    "REAL | sed s=1.2/24=1.9/24=",
    "gives 10.87.1.9/24 to eth0, and the kernel does not"
)]
#[case::a_false_mac("REAL | sed s/0a:57:0a/0a:58:0a/", "as the MAC of flatnet-br0 in the result")]
#[case::an_interface_that_is_not_there("REAL | sed s/fn-/fx-/", "and the kernel does not")]
#[case::a_route_of_another_mtu("REAL | sed 's/\"gw\":\"[^\"]*\"/&,\"mtu\":1400/'", "the kernel has it with mtu none")]
#[case::another_version("REAL | sed s/1.0.0/0.4.0/", "expected  cniVersion 1.0.0")]
#[case::silence("exit 0", "stdout is not a result alone")]
#[case::a_crash("kill -9 $$", "ended by a signal")]
fn a_lying_plugin_is_caught(#[case] script: &str, #[case] expected: &str) {
    let case = Case::with_steps("{ add = \"web\" },\n{ del = \"web\" },");
    let told = case.run_with(script);
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_lying_del_is_caught_while_another_attachment_is_open() {
    let case = Case::with_steps("{ add = \"a\" },\n{ add = \"b\" },\n{ del = \"a\" },");
    let told = case.run_with("[ $CNI_COMMAND$CNI_CONTAINERID = DELa ] || exec REAL");
    assert!(told.contains("+ name flatnet-ip-10.87.1.2"), "{told}");
    assert!(!told.contains("+ name flatnet-ip-10.87.1.3"), "{told}");
}

#[test]
fn a_child_of_the_plugin_that_lives_on_is_caught() {
    let case = Case::with_steps("{ add = \"web\" },\n{ del = \"web\" },");
    let told = case.run_with("[ $CNI_COMMAND = DEL ] && sleep 1234 </dev/null >/dev/null 2>&1 & exec REAL");
    assert!(told.contains("wsl: + process sleep 1234"), "{told}");
}

#[rstest]
#[case::one("{ add = \"web\", expect = { code = 11 } },")]
#[case::several("{ add = \"web\", together = 2, expect = { code = 11 } },")]
fn a_failed_add_may_not_leave_its_work(#[case] steps: &str) {
    let case = Case::with_steps(steps);
    let told = case.run_with("REAL >/dev/null; echo '{\"code\": 11, \"msg\": \"no\"}'; exit 1");
    assert!(told.contains("the failed ADD left something behind"), "{told}");
    assert!(told.contains("+ name flatnet-ip-10.87.1.2"), "{told}");
}
