use std::collections::BTreeSet;

use rstest::rstest;

use super::*;

fn target(container: &str, name: Option<&str>) -> Target {
    let args = Args { name: name.map(str::to_owned), ..Args::default() };
    Target { container: container.into(), interface: "eth0".into(), netns: "".into(), args }
}

#[rstest]
#[case::short("web", "flatnet-att-web@eth0")]
#[case::longest(&"a".repeat(110), &format!("flatnet-att-{}@eth0", "a".repeat(110)))]
fn attachment_names(#[case] container: &str, #[case] expected: &str) {
    assert_eq!(Attachment { network: "flatnet", target: &target(container, None) }.name(), expected);
}

#[test]
fn a_long_attachment_name_is_hashed_and_still_its_own() {
    let (one, other) = (target(&"a".repeat(111), None), target(&"a".repeat(112), None));
    let name = |target| Attachment { network: "flatnet", target }.name();
    assert_eq!(name(&one).len(), ATTACHMENT_PREFIX.len() + 16);
    assert_ne!(name(&one), name(&other));
}

#[test]
fn host_names_fit_and_differ() {
    let target = target("web", None);
    let names: BTreeSet<_> = Attachment { network: "flatnet", target: &target }.host_names().collect();
    assert_eq!(names.len(), HOST_NAMES as usize);
    assert!(names.iter().all(|name| name.len() == 11 && name.starts_with("fn-")), "{names:?}");
}

#[rstest]
#[case::plain("flatnet", "web", None, "network=flatnet container=web interface=eth0")]
#[case::named("flatnet", "0123", Some("web"), "network=flatnet container=0123 interface=eth0 name=web")]
#[case::spaces("flatnet", "0123", Some("a b"), "network=flatnet container=0123 interface=eth0 name=a_b")]
fn records(#[case] network: &str, #[case] container: &str, #[case] name: Option<&str>, #[case] expected: &str) {
    assert_eq!(Attachment { network, target: &target(container, name) }.record(None, None), expected);
}

#[test]
fn the_longest_record_fits_an_alias() {
    let long = "\u{e9}".repeat(300);
    let mut target = target(&long, Some(&long));
    target.interface = "a23456789012345".into();
    for guarded in [None, Some(Mac([0x0a, 0x57, 0x0a, 0x57, 1, 2]))] {
        let record = Attachment { network: &long, target: &target }.record(guarded, guarded.map(|_| 4094));
        assert!(record.len() <= RECORD_MAX_BYTES, "{record}");
        assert!(record_part(&record, "name").is_some_and(|name| name.len() > 40), "{record}");
    }
}

#[rstest]
#[case::first("network", Some("flatnet"))]
#[case::last("name", Some("web=1"))]
#[case::not_there("nam", None)]
fn record_parts(#[case] key: &str, #[case] expected: Option<&str>) {
    assert_eq!(record_part("network=flatnet container=0123 interface=eth0 name=web=1", key), expected);
}
