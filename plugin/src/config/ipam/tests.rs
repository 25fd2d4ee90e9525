use rstest::rstest;
use serde_json::json;

use super::*;

fn parse_with(ipam: &Value, more: &Value) -> Result<Addresses> {
    let section = Section::new("ipam", ipam.as_object().expect("an object"));
    parse(section, more.as_object().expect("an object"))
}

/// The pools, as messages show them.
fn shown(addresses: &Addresses) -> Vec<String> {
    addresses.pools.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case::single(json!({"subnet": "10.87.1.0/24"}), &["10.87.1.2 - 10.87.1.254"])]
#[case::single_with_null(json!({"subnet": "10.87.1.0/24", "ranges": null, "exclude": null, "routes": null}), &["10.87.1.2 - 10.87.1.254"])]
#[case::ranges(json!({"ranges": [[{"subnet": "10.87.1.0/24"}], [{"subnet": "fd00::/120"}]]}), &["10.87.1.2 - 10.87.1.254", "fd00::2 - fd00::ff"])]
#[case::ranges_of_a_set(
    json!({"ranges": [[{"subnet": "10.87.1.0/24", "rangeEnd": "10.87.1.9"}, {"subnet": "10.87.2.0/24", "rangeStart": "10.87.2.9"}]]}),
    &["10.87.1.2 - 10.87.1.9, 10.87.2.9 - 10.87.2.254"]
)]
#[case::single_first(
    json!({"ranges": [[{"subnet": "fd00::/120"}]], "subnet": "10.87.1.0/24", "rangeStart": "10.87.1.9"}),
    &["10.87.1.9 - 10.87.1.254", "fd00::2 - fd00::ff"]
)]
fn sets(#[case] ipam: Value, #[case] expected: &[&str]) {
    assert_eq!(shown(&parse_with(&ipam, &json!({})).expect("addresses")), expected);
}

#[test]
fn a_runtime_s_ranges_come_first() {
    let more = json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.87.3.0/24", "rangeEnd": "10.87.3.9"}]]}});
    let ipam = json!({"subnet": "10.87.1.0/24", "ranges": [[{"subnet": "10.87.2.0/24"}]]});
    let addresses = parse_with(&ipam, &more).expect("addresses");
    assert_eq!(shown(&addresses), ["10.87.3.2 - 10.87.3.9", "10.87.1.2 - 10.87.1.254", "10.87.2.2 - 10.87.2.254"]);
    assert_eq!(shown(&parse_with(&json!({}), &more).expect("addresses")), ["10.87.3.2 - 10.87.3.9"]);
}

#[test]
fn what_is_excluded_of_all_or_of_a_range_is_not_given() {
    let ipam = json!({
        "exclude": ["10.87.1.2", "fd00::/126"],
        "ranges": [[{"subnet": "10.87.1.0/28", "exclude": ["10.87.1.4-10.87.1.14"]}], [{"subnet": "fd00::/120"}]],
    });
    let addresses = parse_with(&ipam, &json!({})).expect("addresses");
    let none = std::collections::BTreeSet::new();
    let firsts = addresses.pools.iter().map(|pool| pool.free(&none).next().expect("one").address.to_string());
    assert_eq!(firsts.collect::<Vec<_>>(), ["10.87.1.3/28", "fd00::4/120"]);
}

#[rstest]
#[case::nothing(json!({}), 7, "ipam.subnet is missing")]
#[case::no_sets(json!({"ranges": []}), 7, "ipam.subnet is missing")]
#[case::empty_set(json!({"ranges": [[]]}), 7, "ipam.ranges[0] has no range")]
#[case::not_lists(json!({"ranges": [{"subnet": "10.87.1.0/24"}]}), 7, "not a list of lists of objects")]
#[case::no_subnet(json!({"ranges": [[{"rangeStart": "10.87.1.9"}]]}), 7, "ipam.ranges[0][0].subnet is missing")]
#[case::start_alone(json!({"rangeStart": "10.87.1.9", "ranges": [[{"subnet": "10.87.1.0/24"}]]}), 7, "ipam.rangeStart is set, but ipam.subnet is not")]
#[case::unknown_inside(json!({"ranges": [[{"subnet": "10.87.1.0/24", "gatway": "10.87.1.1"}]]}), 2, "did you mean ipam.ranges[0][0].gateway?")]
#[case::host_bits(json!({"ranges": [[{"subnet": "10.87.1.9/24"}]]}), 7, "ipam.ranges[0][0].subnet is 10.87.1.9/24, which has host bits set")]
#[case::gateway_outside(json!({"subnet": "10.87.1.0/24", "ranges": [[{"subnet": "fd00::/64", "gateway": "fd01::1"}]]}), 7, "ipam.ranges[0][0].gateway is fd01::1")]
#[case::mixed(json!({"ranges": [[{"subnet": "10.87.1.0/24"}, {"subnet": "fd00::/64"}]]}), 7, "use two lists")]
#[case::overlap_of_sets(json!({"subnet": "10.87.1.0/24", "ranges": [[{"subnet": "10.87.1.0/24"}]]}), 7, "ipam.ranges[0][0] overlaps ipam: it gives out")]
#[case::overlap_in_a_set(json!({"ranges": [[{"subnet": "fd00::/64"}, {"subnet": "fd00::/64", "rangeStart": "fd00::9"}]]}), 7, "ipam.ranges[0][1] overlaps ipam.ranges[0][0]")]
#[case::overlap_of_subnets(json!({"ranges": [[{"subnet": "10.88.0.0/16", "rangeStart": "10.88.9.0"}], [{"subnet": "10.88.1.0/24"}]]}), 7, "10.88.1.0/24, which overlaps 10.88.0.0/16")]
#[case::everything_excluded(json!({"subnet": "10.87.1.0/30", "exclude": ["10.87.1.2"]}), 7, "ipam.exclude covers all of 10.87.1.2, and leaves no address")]
#[case::everything_excluded_in_a_range(json!({"ranges": [[{"subnet": "10.87.1.0/30", "exclude": ["10.87.1.2"]}]]}), 7, "ipam.ranges[0][0].exclude covers all of 10.87.1.2")]
#[case::only_another_s_gateway(json!({"subnet": "10.87.1.0/24", "rangeStart": "10.87.1.9", "ranges": [[{"subnet": "10.87.1.0/24", "gateway": "10.87.1.2", "rangeEnd": "10.87.1.2"}]]}), 7, "ipam.ranges[0][0] leaves")]
#[case::exclude_text(json!({"subnet": "10.87.1.0/24", "exclude": ["all"]}), 7, "ipam.exclude has \"all\"")]
#[case::exclude_type(json!({"subnet": "10.87.1.0/24", "exclude": "10.87.1.9"}), 7, "ipam.exclude is \"10.87.1.9\", not a list of strings")]
#[case::exclude_elsewhere(json!({"subnet": "10.87.1.0/24", "exclude": ["10.87.1.9", "10.87.2.9"]}), 7, "ipam.exclude has 10.87.2.9, which is outside 10.87.1.0/24: ")]
#[case::exclude_of_no_family(json!({"subnet": "10.87.1.0/24", "exclude": ["fd00::/126"]}), 7, "ipam.exclude has fd00:: - fd00::3, which is outside 10.87.1.0/24: ")]
#[case::exclude_of_another_range(json!({"ranges": [[{"subnet": "10.87.1.0/24", "exclude": ["10.87.2.9"]}], [{"subnet": "10.87.2.0/24"}]]}), 7, "ipam.ranges[0][0].exclude has 10.87.2.9, which is outside")]
#[case::resolv_conf(json!({"subnet": "10.87.1.0/24", "resolvConf": "resolv.conf"}), 7, "not an absolute path")]
#[case::data_dir(json!({"subnet": "10.87.1.0/24", "dataDir": "/run/ipam"}), 2, "ipam.dataDir: \"/run/ipam\"")]
fn refused(#[case] ipam: Value, #[case] code: u32, #[case] words: &str) {
    let error = parse_with(&ipam, &json!({})).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn what_is_not_given_anyway_may_be_excluded_too() {
    let ipam = json!({"subnet": "10.87.1.0/24", "rangeStart": "10.87.1.100", "exclude": ["10.87.1.2-10.87.1.9"]});
    assert_eq!(shown(&parse_with(&ipam, &json!({})).expect("addresses")), ["10.87.1.100 - 10.87.1.254"]);
}

#[rstest]
#[case::ranges(json!({"runtimeConfig": {"ipRanges": [{"subnet": "10.87.3.0/24"}]}}), "runtimeConfig.ipRanges is")]
#[case::subnet(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.87.3.9/24"}]]}}), "runtimeConfig.ipRanges[0][0].subnet is")]
#[case::overlap(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.87.1.0/24"}]]}}), "ipam overlaps runtimeConfig.ipRanges[0][0]")]
fn refused_of_a_runtime(#[case] more: Value, #[case] words: &str) {
    let error = parse_with(&json!({"subnet": "10.87.1.0/24"}), &more).unwrap_err();
    assert_eq!(error.code(), 7, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn what_a_route_has_not_is_refused_by_name() {
    let error = routes(&json!([{"dst": "10.9.0.0/16", "via": "10.87.1.9"}])).unwrap_err();
    assert_eq!(error.code(), 2, "{error}");
    assert!(error.to_string().contains("unknown key ipam.routes[0].via"), "{error}");
}

#[rstest]
#[case::of_the_link(json!({"subnet": "fd00::/64"}), json!([{"dst": "::/0", "gw": "fe80::1"}]))]
#[case::of_another_set(json!({"ranges": [[{"subnet": "10.87.1.0/24"}], [{"subnet": "10.87.2.0/24"}]]}), json!([{"dst": "10.9.0.0/16", "gw": "10.87.2.9"}]))]
#[case::any_router(json!({"subnet": "fd00::/64"}), json!([{"dst": "fd01::/64", "gw": "fd00::"}]))]
#[case::where_a_route_of_its_table_leads(json!({"subnet": "10.87.1.0/24"}), json!([{"dst": "10.8.0.0/16", "scope": 253, "table": 7}, {"dst": "10.9.0.0/16", "gw": "10.8.0.1", "table": 7}]))]
#[case::where_one_of_the_main_table_leads(json!({"subnet": "10.87.1.0/24"}), json!([{"dst": "10.8.0.0/16", "scope": 253}, {"dst": "10.9.0.0/16", "gw": "10.8.0.1", "table": 7}]))]
#[case::where_a_route_leads(json!({"subnet": "10.87.1.0/24"}), json!([{"dst": "169.254.1.1/32", "scope": 253}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]))]
fn next_hops_that_are_reached(#[case] mut ipam: Value, #[case] routes: Value) {
    ipam["routes"] = routes.clone();
    let found = parse_with(&ipam, &json!({})).expect("addresses").routes;
    assert_eq!(found.len(), routes.as_array().map_or(0, Vec::len));
}

#[rstest]
#[case::the_same_twice(json!([{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.1", "table": 254, "scope": 0}]), 1)]
#[case::sizes_that_are_kept_the_same(json!([{"dst": "10.9.0.0/16", "mtu": 65520}, {"dst": "10.9.0.0/16", "mtu": 65535}]), 1)]
#[case::by_priority(json!([{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.9", "priority": 7}]), 2)]
#[case::by_table(json!([{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.9", "table": 7}]), 2)]
#[case::own_subnet(json!([{"dst": "10.87.1.0/24"}, {"dst": "10.87.1.0/24", "gw": "10.87.1.9", "priority": 7}, {"dst": "10.87.1.0/24", "mtu": 1400, "table": 7}]), 3)]
fn routes_beside_each_other(#[case] given: Value, #[case] count: usize) {
    assert_eq!(routes(&given).expect("routes").len(), count);
}

#[test]
fn a_subnet_that_not_every_container_is_of_may_have_a_route() {
    let ipam = json!({
        "ranges": [[{"subnet": "10.87.1.0/24"}, {"subnet": "10.87.2.0/24"}]],
        "routes": [{"dst": "10.87.2.0/24", "mtu": 1400}, {"dst": "10.87.1.0/24", "gw": "10.87.2.1"}],
    });
    assert_eq!(parse_with(&ipam, &json!({})).expect("addresses").routes.len(), 2);
}

fn routes(routes: &Value) -> Result<Vec<Route>> {
    parse_with(&json!({"subnet": "10.87.1.0/24", "routes": routes}), &json!({})).map(|addresses| addresses.routes)
}

#[test]
fn routes_say_what_the_kernel_is_told() {
    let found = routes(&json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "192.168.0.0/16", "gw": "10.87.1.9", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0},
        {"dst": "169.254.1.1/32", "scope": 253, "mtu": 0, "priority": null},
    ]));
    let route = |destination: &str, gateway: Option<&str>, attributes| Route {
        destination: destination.parse().expect("a network"),
        gateway: gateway.map(|text| text.parse().expect("an address")),
        link: None,
        attributes,
    };
    let attributes = RouteAttributes {
        mtu: Some(1400),
        advmss: Some(1360),
        priority: Some(7),
        table: Some(100),
        ..RouteAttributes::default()
    };
    assert_eq!(
        found.expect("routes"),
        [
            route("0.0.0.0/0", None, RouteAttributes::default()),
            route("192.168.0.0/16", Some("10.87.1.9"), attributes),
            route("169.254.1.1/32", None, RouteAttributes { scope: Some(253), ..RouteAttributes::default() }),
        ]
    );
}

#[rstest]
#[case::no_list(json!({}), "ipam.routes is {}, not a list of objects")]
#[case::no_destination(json!([{"gw": "10.87.1.9"}]), "ipam.routes[0].dst is missing")]
#[case::an_address(json!([{"dst": "10.9.0.1"}]), "ipam.routes[0].dst is \"10.9.0.1\", not a subnet")]
#[case::host_bits(json!([{"dst": "10.9.0.1/16"}]), "did you mean 10.9.0.0/16?")]
#[case::other_family(json!([{"dst": "::/0"}]), "ipam.routes[0].dst is ::/0, but the network has no IPv6 addresses")]
#[case::gateway_s_family(json!([{"dst": "10.9.0.0/16", "gw": "fd00::1"}]), "ipam.routes[0].gw is fd00::1, but 10.9.0.0/16 needs an IPv4 next hop")]
#[case::gateway_elsewhere(json!([{"dst": "10.9.0.0/16", "gw": "10.98.0.1"}]), "ipam.routes[0].gw is 10.98.0.1, which containers do not reach: use a next hop in 10.87.1.0/24")]
#[case::gateway_of_a_later_link(json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "169.254.1.1/32", "scope": 253}]), "ipam.routes[0].gw is 169.254.1.1")]
#[case::link_scope_by_a_gateway(json!([{"dst": "10.9.0.0/16", "gw": "10.87.1.9", "scope": 253}]), "has no next hop")]
#[case::mtu(json!([{"dst": "10.9.0.0/16", "mtu": -1}]), "ipam.routes[0].mtu is -1")]
#[case::table(json!([{"dst": "10.9.0.0/16", "table": 4_294_967_296_u64}]), "ipam.routes[0].table is 4294967296")]
#[case::scope(json!([{"dst": "10.9.0.0/16", "scope": 256}]), "ipam.routes[0].scope is 256")]
#[case::nowhere(json!([{"dst": "10.9.0.0/16", "scope": 255}]), "ipam.routes[0].scope is 255, which leads nowhere")]
#[case::broadcast(json!([{"dst": "10.9.0.0/16", "gw": "10.87.1.255"}]), "ipam.routes[0].gw is 10.87.1.255, the broadcast address of 10.87.1.0/24")]
#[case::broadcast_on_the_link(json!([{"dst": "10.87.1.255/32", "scope": 253}, {"dst": "10.9.0.0/16", "gw": "10.87.1.255"}]), "ipam.routes[1].gw is 10.87.1.255, the broadcast address")]
#[case::network(json!([{"dst": "10.9.0.0/16", "gw": "10.87.1.0"}]), "ipam.routes[0].gw is 10.87.1.0, the network address of 10.87.1.0/24")]
#[case::another_table_s(json!([{"dst": "10.8.0.0/16", "scope": 253, "table": 7}, {"dst": "10.9.0.0/16", "gw": "10.8.0.1"}]), "ipam.routes[1].gw is 10.8.0.1, which only a route of another table reaches: give that route table 254, or none")]
#[case::twice(json!([{"dst": "10.9.0.0/16"}, {"dst": "10.9.0.0/16", "gw": "10.87.1.9", "mtu": 1400}]), "ipam.routes[1].dst is 10.9.0.0/16 again, but 10.9.0.0/16 and 10.9.0.0/16 via 10.87.1.9, mtu 1400 cannot both exist: ")]
#[case::twice_in_a_table(json!([{"dst": "10.9.0.0/16", "table": 254}, {"dst": "10.8.0.0/16"}, {"dst": "10.9.0.0/16", "scope": 253}]), "ipam.routes[2].dst is 10.9.0.0/16 again")]
#[case::own_subnet(json!([{"dst": "10.87.1.0/24", "advmss": 1300}]), "ipam.routes[0].dst is 10.87.1.0/24, the containers' own subnet")]
#[case::own_subnet_by_a_gateway(json!([{"dst": "10.87.1.0/24", "gw": "10.87.1.1", "table": 254}]), "give it another table, or a priority, or leave it out")]
fn refused_routes(#[case] given: Value, #[case] words: &str) {
    let error = routes(&given).unwrap_err();
    assert_eq!(error.code(), 7, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}
