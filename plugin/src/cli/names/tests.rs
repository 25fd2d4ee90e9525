//! Host names against one host full of containers.

use rstest::rstest;

use super::*;

fn link(index: u32, address: &str, record: &str) -> Link {
    let names = vec!["flatnet-att-0123@eth0".to_owned(), format!("flatnet-ip-{address}")];
    Link { index, names, alias: Some(record.to_owned()), ..Link::default() }
}

/// Of a container of its own.
fn named(index: u32, address: &str, name: &str) -> Link {
    link(index, address, &format!("network=flatnet container=c{index} interface=eth0 name={name}"))
}

/// Of the container that has link `of`, too.
fn also(of: u32, index: u32, address: &str, name: &str) -> Link {
    link(index, address, &format!("network=two container=c{of} interface=eth1 name={name}"))
}

fn names() -> Names {
    Names::of(&[
        named(70, "10.87.1.2", "web"),
        named(71, "10.87.1.3", "my"),
        named(11, "10.87.1.4", "my.app"),
        named(72, "10.87.2.5", "db"),
        also(72, 73, "10.87.1.5", "db"),
        named(74, "10.87.1.6", "Shop_1"),
        named(12, "10.87.1.7", "api-8080"),
        named(75, "10.87.1.8", "api"),
        named(13, "10.87.1.9", "10-87-1-2"),
        named(14, "10.87.1.10", "10-87-1-999"),
        also(70, 76, "fd87:1::2", "web"),
        also(70, 77, "fd87:1::2:1", "web"),
        named(78, "fd87:1::3", "only"),
        named(15, "10.87.1.13", "my.ipv6"),
        named(16, "10.87.1.14", "dead--beef"),
        link(79, "10.87.1.11", "network=flatnet container=feedf00d interface=eth0"),
        Link { alias: Some("container=ghost name=ghost".into()), ..Link::default() },
        link(80, "10.87.1.12", "somebody else's words"),
        // Those that would take over others, older or with lower addresses.
        named(1, "10.87.1.21", "web.flat"),
        named(2, "10.87.1.22", "web.example.com"),
        named(3, "10.87.1.23", "web-8080"),
        named(4, "10.87.1.20", "Web"),
        named(90, "10.87.0.9", "web"),
        named(5, "fd87:1::9", "shop_1"),
        named(6, "10.87.1.24", "10.87.1.2"),
        named(7, "10.87.1.25", "FD87-1--2"),
        named(8, "10.87.1.26", "health"),
        named(91, "10.87.1.27", "health.flatnet.invalid"),
        named(92, "10.87.1.28", "feedf00d"),
        named(93, "10.87.1.29", "feed"),
        named(94, "10.87.1.30", "web."),
        named(95, "10.87.1.31", "xn--bcher-kva"),
        named(96, "10.87.1.32", "b\u{fc}cher"),
        named(97, "10.87.1.33", "BOTH"),
        named(98, "10.87.1.34", "Both"),
        named(60, "10.87.1.35", "long.name"),
        named(61, "10.87.1.36", "long.name.here"),
        named(62, "10.87.1.37", "shop-web-1"),
    ])
}

#[rstest]
#[case::plain("web.flat", "10.87.1.2:80")]
#[case::long_zone("web.192.168.50.1.sslip.io", "10.87.1.2:80")]
#[case::no_zone("web", "10.87.1.2:80")]
#[case::upper_case("DB.Flat", "10.87.1.5:80")]
#[case::exact_lower_case("shop_1.flat", "[fd87:1::9]:80")]
#[case::exact_upper_case("Shop_1.flat", "10.87.1.6:80")]
#[case::exact_of_an_older("Web.flat", "10.87.1.20:80")]
#[case::neither_is_exact("both.flat", "10.87.1.33:80")]
#[case::stored_in_upper_case("BOTH-81.FLAT", "10.87.1.33:81")]
#[case::zone_of_another("web.example.com", "10.87.1.2:80")]
#[case::zone_of_another_with_zone("web.example.com.flat", "10.87.1.2:80")]
#[case::id_of_another("feedf00d.flat", "10.87.1.11:80")]
#[case::start_of_an_id("feed.flat", "10.87.1.29:80")]
#[case::idn("xn--bcher-kva.flat", "10.87.1.31:80")]
#[case::several_dots("long.name.here.flat", "10.87.1.35:80")]
#[case::dash_and_number("shop-web-1.flat", "10.87.1.37:80")]
#[case::port_of_dash_and_number("shop-web-1-81.flat", "10.87.1.37:81")]
#[case::health("health.flat", "10.87.1.26:80")]
#[case::root("web.flat.", "10.87.1.2:80")]
#[case::gateways_port("web.flat:8000", "10.87.1.2:80")]
#[case::first_label("my.app.flat", "10.87.1.3:80")]
#[case::shorter("my.other.flat", "10.87.1.3:80")]
#[case::port("web-8080.flat", "10.87.1.2:8080")]
#[case::highest_port("web-65535.flat", "10.87.1.2:65535")]
#[case::first_label_before_a_port("my.app-81.flat", "10.87.1.3:80")]
#[case::port_like_name("api-8080.flat", "10.87.1.8:8080")]
#[case::port_of_a_port_like_name("api-8080-81.flat", "10.87.1.7:81")]
#[case::other_port("api-81.flat", "10.87.1.8:81")]
#[case::several_networks("db.flat", "10.87.1.5:80")]
#[case::no_address_at_all("10-87-1-999.flat", "10.87.1.10:80")]
#[case::no_address_of_anybody("dead--beef.flat", "10.87.1.14:80")]
#[case::by_ipv6("web.ipv6.flat", "[fd87:1::2]:80")]
#[case::by_ipv6_with_port("web-8080.ipv6.flat", "[fd87:1::2]:8080")]
#[case::by_ipv6_without_zone("web.ipv6", "[fd87:1::2]:80")]
#[case::nothing_but_ipv6("only.flat", "[fd87:1::3]:80")]
#[case::deeper_in_the_zone("web.flat.ipv6", "10.87.1.2:80")]
fn known(#[case] host: &str, #[case] address: &str) {
    assert_eq!(names().resolve(host).map(|found| found.upstream.to_string()), Ok(address.to_owned()));
}

#[rstest]
#[case::address("10-87-1-2.flat", Unknown::Address)]
#[case::address_with_port("10-87-1-2-80.flat", Unknown::Address)]
#[case::ipv6_address("fd87-1--2.flat", Unknown::Address)]
#[case::whole_ipv6_address("2001-db8-0-0-0-0-0-1.flat", Unknown::Address)]
#[case::ipv6_address_with_port("fd87-1--2-p80.flat", Unknown::Address)]
#[case::no_ipv6("Shop_1.ipv6.flat", Unknown::NoIpv6("Shop_1".into()))]
#[case::ipv6_of_another("my.ipv6.flat", Unknown::NoIpv6("my".into()))]
#[case::ipv6_address_in_capitals("FD87-1--2.flat", Unknown::Address)]
#[case::named_like_a_literal("10.87.1.2.flat", Unknown::NoContainer("10".into()))]
#[case::reserved("health.flatnet.invalid", Unknown::NotAName)]
#[case::no_zone_behind_dots("long.name", Unknown::NoContainer("long".into()))]
#[case::other("nginx.flat", Unknown::NoContainer("nginx".into()))]
#[case::in_the_zone("x.web.flat", Unknown::NoContainer("x".into()))]
#[case::port_zero("web-0.flat", Unknown::NoContainer("web-0".into()))]
#[case::port_padded("web-080.flat", Unknown::NoContainer("web-080".into()))]
#[case::port_large("web-65536.flat", Unknown::NoContainer("web-65536".into()))]
#[case::port_alone("-80.flat", Unknown::NoContainer("-80".into()))]
#[case::literal("10.87.1.2", Unknown::NoContainer("10".into()))]
#[case::no_lease("ghost.flat", Unknown::NoContainer("ghost".into()))]
#[case::first_label_empty(".web.flat", Unknown::NotAName)]
#[case::empty("", Unknown::NotAName)]
#[case::dot(".", Unknown::NotAName)]
#[case::ipv6("[::1]", Unknown::NotAName)]
#[case::foreign("w\u{e9}b.flat", Unknown::NotAName)]
#[case::header("web\r\nx: y", Unknown::NotAName)]
#[case::long(&"a".repeat(254), Unknown::NotAName)]
fn unknown(#[case] host: &str, #[case] why: Unknown) {
    assert_eq!(names().resolve(host).map(|found| found.upstream), Err(why));
}

#[test]
fn a_long_host_of_many_labels_is_no_work() {
    let host = "a.".repeat(126) + "a";
    assert_eq!(Names::default().resolve(&host).err(), Some(Unknown::NoContainer("a".into())));
}

#[test]
fn containers_that_are_not_reached_by_their_names_are_known() {
    let names = names();
    let doubles: Vec<_> = names.doubles().iter().map(|double| double.name.clone()).collect();
    let expected = [
        "web.flat",
        "web.example.com",
        "web-8080",
        "Web",
        "FD87-1--2",
        "my.app",
        "api-8080",
        "10-87-1-2",
        "my.ipv6",
        "long.name.here",
        "Shop_1",
        "web",
        "health.flatnet.invalid",
        "feedf00d",
        "Both",
    ];
    assert_eq!(doubles, expected);
    let words = |name: &str| names.doubles().iter().find(|double| double.name == name).expect("a double").to_string();
    assert_eq!(
        words("web-8080"),
        "container web-8080 (c3) is not reached by its name: web-8080.flat is 10.87.1.2:8080 of web (c70)"
    );
    assert!(words("10-87-1-2").ends_with("10-87-1-2.flat is an address"));
}
