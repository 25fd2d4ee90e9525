//! Rounds that can be, and rounds that cannot.

use super::{Done, Fault, Rules, Said, Trial, cut_off};
use crate::plugin::Broken;
use crate::storm::{Action, Facts};
use crate::tally::Harm;
use rstest::rstest;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 87, 1, last).into()
}

/// Containers and the last byte of what each has; the books and the bridge say the same.
fn facts(attached: &[(usize, u8)]) -> Facts {
    Facts {
        leases: attached.iter().map(|(number, last)| (ip(*last), format!("c-{number}"))).collect(),
        attached: attached.iter().map(|(number, last)| (*number, [ip(*last)].into())).collect(),
        ports: attached.iter().map(|(number, _)| format!("fn-{number}")).collect(),
        foreign: 0,
    }
}

fn add(container: usize, last: u8) -> Done {
    Done { action: Action::Add(container), said: Said::Done([ip(last)].into()) }
}

fn done(action: Action) -> Done {
    Done { action, said: Said::Done(BTreeSet::new()) }
}

fn refused(action: Action, code: u32) -> Done {
    Done { action, said: Said::Refused { code, msg: String::new() } }
}

fn gc(kept: &[usize]) -> Action {
    Action::Gc(kept.iter().copied().collect())
}

fn faults(before: &Facts, calls: &[Done], after: &Facts) -> BTreeSet<Fault> {
    let rules = Rules { own_codes: true, pool: 3, prefix: "c".to_owned(), ..Rules::default() };
    let trial = Trial { rules: &rules, calls, before };
    trial.answers().union(&trial.state(after)).map(|finding| finding.fault).collect()
}

#[rstest]
#[case::added(&[], &[add(1, 2), add(2, 3)], &[(1, 2), (2, 3)])]
#[case::detached(&[(1, 2)], &[done(Action::Del(1))], &[])]
#[case::collected(&[(1, 2), (2, 3)], &[done(gc(&[2]))], &[(2, 3)])]
#[case::one_of_two_adds(&[], &[add(1, 2), refused(Action::Add(1), 103)], &[(1, 2)])]
#[case::added_then_detached(&[], &[add(1, 2), done(Action::Del(1))], &[])]
#[case::detached_then_added(&[], &[add(1, 2), done(Action::Del(1))], &[(1, 2)])]
#[case::renewed(&[(1, 2)], &[add(1, 3), done(Action::Del(1))], &[(1, 3)])]
#[case::cut_off_in_the_middle(&[], &[refused(Action::Add(1), 100), done(gc(&[]))], &[])]
#[case::full(&[(1, 2), (2, 3), (3, 4)], &[refused(Action::Add(4), 101)], &[(1, 2), (2, 3), (3, 4)])]
#[case::nothing_to_check(&[], &[refused(Action::Check(1), 106)], &[])]
fn what_may_be(#[case] before: &[(usize, u8)], #[case] calls: &[Done], #[case] after: &[(usize, u8)]) {
    assert_eq!(faults(&facts(before), calls, &facts(after)), BTreeSet::new());
}

#[rstest]
#[case::twice(&[], &[add(1, 2), add(2, 2)], &[(1, 2), (2, 2)], Fault::Duplicate)]
#[case::vanished(&[(1, 2)], &[], &[], Fault::Lost)]
#[case::moved(&[(1, 2)], &[], &[(1, 3)], Fault::Lost)]
#[case::never_came(&[], &[add(1, 2)], &[], Fault::Lost)]
#[case::another_address(&[], &[add(1, 2)], &[(1, 3)], Fault::Lost)]
#[case::outlived_its_del(&[(1, 2)], &[done(Action::Del(1))], &[(1, 2)], Fault::Leak)]
#[case::outlived_gc(&[(1, 2)], &[done(gc(&[]))], &[(1, 2)], Fault::Leak)]
#[case::left_by_a_refusal(&[], &[refused(Action::Add(1), 100), done(Action::Del(1))], &[(1, 2)], Fault::Leak)]
#[case::two_adds_done(&[], &[add(1, 2), add(1, 2)], &[(1, 2)], Fault::Refused)]
#[case::no_reason(&[], &[refused(Action::Add(1), 100)], &[], Fault::Refused)]
#[case::wrong_reason(&[], &[refused(Action::Add(1), 103), done(Action::Del(1))], &[], Fault::Refused)]
#[case::not_full(&[(1, 2)], &[refused(Action::Add(2), 101)], &[(1, 2)], Fault::Refused)]
#[case::del_refused(&[], &[refused(Action::Del(1), 100)], &[], Fault::Refused)]
#[case::checked_nothing(&[], &[done(Action::Check(1))], &[], Fault::Refused)]
fn what_may_not_be(
    #[case] before: &[(usize, u8)],
    #[case] calls: &[Done],
    #[case] after: &[(usize, u8)],
    #[case] fault: Fault,
) {
    assert_eq!(faults(&facts(before), calls, &facts(after)), [fault].into());
}

#[test]
fn books_and_bridge_must_agree_with_the_containers() {
    let good = facts(&[(1, 2)]);
    let mut leased = good.clone();
    leased.leases.insert((ip(9), "c-2".to_owned()));
    assert_eq!(faults(&good, &[], &leased), [Fault::Leak].into());
    let mut unleased = good.clone();
    unleased.leases.clear();
    assert_eq!(faults(&good, &[], &unleased), [Fault::Lost].into());
    let mut stray = good.clone();
    stray.ports.insert("fn-stray".to_owned());
    assert_eq!(faults(&good, &[], &stray), [Fault::Leak].into());
    let mut off = good.clone();
    off.ports.clear();
    assert_eq!(faults(&good, &[], &off), [Fault::Lost].into());
}

#[test]
fn leases_of_others_stay() {
    let mut good = facts(&[(1, 2)]);
    good.leases.insert((ip(9), "bystander".to_owned()));
    good.ports.insert("fn-bystander".to_owned());
    assert_eq!(faults(&good, &[], &good), BTreeSet::new());
    assert_eq!(faults(&good, &[], &facts(&[(1, 2)])), [Fault::Lost].into());
    assert_eq!(faults(&facts(&[(1, 2)]), &[], &good), [Fault::Leak].into());
}

#[test]
fn another_plugin_may_have_its_own_code_but_not_without_a_reason() {
    let rules = Rules { pool: 3, prefix: "c".to_owned(), ..Rules::default() };
    let (twice, once) = (facts(&[(1, 2)]), facts(&[]));
    let answers = |before, calls: &[Done]| Trial { rules: &rules, calls, before }.answers().len();
    assert_eq!(answers(&twice, &[refused(Action::Add(1), 999)]), 0);
    assert_eq!(answers(&once, &[refused(Action::Add(1), 999)]), 1);
}

#[test]
fn the_end_of_a_node_excuses_no_panic() {
    let broken =
        |harm, text: &str| Done { action: Action::Add(1), said: Said::Broken(Broken { harm, text: text.to_owned() }) };
    let killed = broken(Harm::Panic, "the plugin was ended by a signal: signal: 9 (SIGKILL)");
    assert_eq!(cut_off(&[killed, refused(Action::Add(2), 100)]).len(), 0);
    assert_eq!(cut_off(&[broken(Harm::Panic, "the plugin panicked")]).len(), 1);
    assert_eq!(cut_off(&[broken(Harm::Hang, "the plugin did not end in time and was killed")]).len(), 1);
}
