//! What CHECK expects: the part of `prevResult` that is flatnet's to judge.
//!
//! Other plugins of the list may have added to it before and after, so nothing is required of it but this attachment's own interface and addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::attachment::Target;
use crate::config::routes::{LINK_SCOPE, LOCAL_TABLE};
use crate::config::{Configured, Network};
use crate::error::{Error, PREV_RESULT, Result};
use crate::ipam::pool::{Pool, Pools, Range, subnet_of};
use crate::netlink::{self, RouteAttributes};
use crate::reply::{Ip, Route, Success};
use crate::spec::SpecVersion;

/// `prevResult`, and which of its interfaces is this attachment's.
#[derive(Debug)]
pub(crate) struct PrevResult {
    result: Success,
    own: usize,
}

/// What there must be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Those that flatnet has leased and given to its interface; at least one.
    pub(super) addresses: Vec<IpNetwork>,
    /// Of the container, but for those that lead through networks of other plugins.
    pub(super) routes: Vec<Route>,
}

impl PrevResult {
    /// Errors: 7 where there is no `prevResult`, or none that ADD for this attachment can have given.
    pub(crate) fn read(config: &Map<String, Value>, version: SpecVersion, target: &Target) -> Result<Self> {
        let Some(result) = Success::before(config, version)? else {
            return Err(problem("is missing: CHECK needs the result of ADD".into()));
        };
        let found = result.interfaces.iter().enumerate();
        let mut found = found.filter(|(_, it)| it.name == target.interface && !it.sandbox.is_empty());
        let netns = target.netns.as_os_str();
        // Its path may be another one to the same place.
        let first = found.next();
        let exact = first.into_iter().chain(found).find(|(_, it)| netns == it.sandbox.as_str());
        match exact.or(first) {
            Some((own, _)) => Ok(Self { result, own }),
            None => Err(problem(format!("has no interface {} with a sandbox", target.interface))),
        }
    }

    /// The network that was configured, where another plugin gives the addresses with those that ADD was given. Errors: 7.
    pub(crate) fn complete(&self, configured: Configured, held: &[IpAddr]) -> Result<Network> {
        match configured {
            Configured::Whole(network) => Ok(network),
            Configured::Delegated(draft, _) => {
                let network = draft.with(self.pools(held)?);
                Ok(Network { routes: self.routes_on_the_link(), ..network })
            }
        }
    }

    /// The routes that another plugin gave stay on the link, or have a next hop.
    fn routes_on_the_link(&self) -> Vec<netlink::Route> {
        let stays =
            |route: &&Route| route.gw.is_none() && route.scope.is_some_and(|scope| scope >= u32::from(LINK_SCOPE));
        let destination = |route: &Route| netlink::Route {
            destination: subnet_of(route.dst),
            gateway: None,
            link: None,
            attributes: RouteAttributes::default(),
        };
        self.result.routes.iter().filter(stays).map(destination).collect()
    }

    /// A plugin after flatnet may have given the interface more addresses: flatnet's are those of which leases are `held`, and the
    /// first in any case. Errors: 7.
    fn pools(&self, held: &[IpAddr]) -> Result<Pools> {
        let own = self.result.ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == self.own));
        let own = own.enumerate().filter(|(n, ip)| *n == 0 || held.contains(&ip.address.ip()));
        let range_of = |ip: &Ip| Range::new(subnet_of(ip.address), Some(ip.gateway?), None, None).ok();
        let pools: Vec<Pool> = own.filter_map(|(_, ip)| range_of(ip)).map(Pool::from).collect();
        if pools.is_empty() { Err(problem("has no address with its gateway".into())) } else { Ok(Pools::new(pools)) }
    }

    /// `held` are the leases that there are. Errors: 7 where it has nothing of `network`.
    pub(crate) fn expected(&self, target: &Target, network: &Network, held: &[IpAddr]) -> Result<Expected> {
        let Success { ips, routes, .. } = &self.result;
        // The index is optional.
        let may_be_own = |ip: &&Ip| {
            let mut ranges = network.pools.ranges().filter(|range| range.contains(ip.address.ip()));
            ip.interface.is_none_or(|index| index == self.own)
                && ranges.any(|range| ip.gateway.is_none_or(|by| by == range.gateway()))
        };
        let reported = ips.iter().filter(may_be_own).map(|ip| ip.address).collect();
        let addresses = of_pools(&network.pools, reported, held);
        if addresses.is_empty() && !network.is_layer_2() {
            return Err(problem(format!("has no address of {} for {}", network.name, target.interface)));
        }
        let is_own = |route: &&Route| match route.gw {
            Some(by) => addresses.iter().any(|address| address.contains(by)),
            // Whoever made it: it is flatnet's where the configuration has it.
            None => network.routes.iter().any(|own| leads_to(route, own.destination)),
        };
        let routes = routes.iter().filter(is_own).cloned().collect();
        Ok(Expected { addresses, routes })
    }
}

/// Those of the addresses `reported` in the pools' subnets that ADD gave: all that are `held`, and of each pool one, also where its
/// lease is lost. More that nobody has leased are of a plugin after flatnet.
fn of_pools(pools: &Pools, mut reported: Vec<IpNetwork>, held: &[IpAddr]) -> Vec<IpNetwork> {
    let (mut own, mut lacking): (Vec<_>, Vec<_>) = (Vec::new(), pools.iter().collect());
    let is_held = |address: IpAddr| held.contains(&address);
    // A pool may have been narrowed since, and two may be of one subnet: what is certain goes first.
    for (leased, still_given) in [(true, true), (true, false), (false, true), (false, false)] {
        lacking.retain(|pool| {
            let is_of = |address: IpAddr| {
                if still_given { pool.own(address).is_some() } else { pool.contains(address) }
            };
            let found = reported.iter().position(|address| is_held(address.ip()) == leased && is_of(address.ip()));
            own.extend(found.map(|n| reported.remove(n)));
            found.is_none()
        });
    }
    own.extend(reported.into_iter().filter(|address| is_held(address.ip())));
    own
}

/// Whether the route that the kernel has is the one that ADD reported. What is not said may be anything, and so may the table: a
/// plugin after flatnet may have moved it to another, and before 1.1.0 a result does not tell it. But for the scope, zero says nothing.
pub(super) fn is_as_reported(reported: &Route, found: &netlink::Route) -> bool {
    let there = Route::from(found);
    let fits = |reported: Option<u32>, there: Option<u32>| reported.is_none_or(|value| value == 0 || there == reported);
    // To IPv6 all routes are of one scope.
    let fits_scope = reported.dst.is_ipv6() || reported.scope.is_none() || reported.scope == there.scope;
    let is_hop = reported.gw.is_none() || reported.gw == there.gw;
    let is_table = if matches!(reported.table, None | Some(0)) {
        there.table != Some(LOCAL_TABLE)
    } else {
        reported.table == there.table
    };
    leads_to(reported, there.dst)
        && is_hop
        && is_table
        && fits_scope
        && fits(reported.mtu, there.mtu)
        && fits(reported.advmss, there.advmss)
        && fits(reported.priority, there.priority)
}

/// The destination of a result may have host bits.
fn leads_to(reported: &Route, destination: IpNetwork) -> bool {
    destination.prefix() == reported.dst.prefix() && destination.ip() == reported.dst.network()
}

fn problem(problem: String) -> Error {
    Error::Config { key: PREV_RESULT.into(), problem }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::attachment::Args;
    use crate::netlink::RouteAttributes;

    fn reported(result: &Value, interface: &str) -> Result<PrevResult> {
        let Value::Object(config) = json!({"prevResult": result}) else { unreachable!("an object literal") };
        let target = target(interface);
        PrevResult::read(&config, SpecVersion::V1_1_0, &target)
    }

    fn target(interface: &str) -> Target {
        Target {
            container: "web".into(),
            interface: interface.into(),
            netns: "/run/netns/web".into(),
            args: Args::default(),
        }
    }

    fn network(ipam: &Value) -> Network {
        let config = json!({"name": "flatnet", "ipam": ipam});
        Network::parse(config.as_object().expect("an object")).expect("a network")
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[rstest]
    #[case::as_it_is(json!({}), true)]
    #[case::all_of_it(json!({"gw": "10.87.1.1", "mtu": 1400, "advmss": 1360, "priority": 100, "table": 1000, "scope": 0}), true)]
    #[case::nothing_said(json!({"mtu": 0, "advmss": 0, "priority": 0, "table": 0}), true)]
    #[case::host_bits(json!({"dst": "10.9.1.7/16"}), true)]
    #[case::destination(json!({"dst": "10.8.0.0/16"}), false)]
    #[case::length(json!({"dst": "10.9.0.0/17"}), false)]
    #[case::hop(json!({"gw": "10.87.1.2"}), false)]
    #[case::mtu(json!({"mtu": 1401}), false)]
    #[case::advmss(json!({"advmss": 1}), false)]
    #[case::priority(json!({"priority": 1}), false)]
    #[case::table(json!({"table": 254}), false)]
    #[case::scope(json!({"scope": 253}), false)]
    fn a_route_is_as_reported(#[case] change: Value, #[case] expected: bool) {
        let mut route = json!({"dst": "10.9.0.0/16"});
        route.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let route = serde_json::from_value(route).expect("a route");
        let attributes = RouteAttributes {
            mtu: Some(1400),
            advmss: Some(1360),
            priority: Some(100),
            table: Some(1000),
            scope: Some(0),
            ..RouteAttributes::default()
        };
        let destination = "10.9.0.0/16".parse().expect("a network");
        let found = netlink::Route { destination, gateway: "10.87.1.1".parse().ok(), link: Some(2), attributes };
        assert_eq!(is_as_reported(&route, &found), expected);
        let local = RouteAttributes { table: Some(LOCAL_TABLE), ..attributes };
        assert!(
            !is_as_reported(&route, &netlink::Route { attributes: local, ..found }),
            "the kernel's own is nobody's"
        );
    }

    #[rstest]
    #[case::own(json!([{"interface": 1, "address": "10.87.1.2/24", "gateway": "10.87.1.1"}]), &["10.87.1.2/24"])]
    #[case::without_index(json!([{"address": "192.168.7.2/24"}, {"address": "10.87.1.2/24"}]), &["10.87.1.2/24"])]
    #[case::another_interface(json!([{"interface": 0, "address": "10.87.1.3/24"}, {"interface": 1, "address": "10.87.1.2/24"}]), &["10.87.1.2/24"])]
    #[case::another_gateway(json!([{"interface": 1, "address": "10.87.1.2/24", "gateway": "10.87.1.99"}, {"interface": 1, "address": "10.87.1.3/24"}]), &["10.87.1.3/24"])]
    #[case::more_of_a_later_plugin(json!([{"interface": 1, "address": "10.87.1.2/24"}, {"interface": 1, "address": "fd00::2/64"}]), &["10.87.1.2/24"])]
    #[case::more_of_its_subnet(json!([{"interface": 1, "address": "10.87.1.200/24"}, {"interface": 1, "address": "10.87.1.2/24"}, {"interface": 1, "address": "10.87.1.201/32"}]), &["10.87.1.2/24"])]
    #[case::none(json!([{"interface": 0, "address": "10.87.1.2/24"}]), &[])]
    fn own_addresses(#[case] ips: Value, #[case] expected: &[&str]) {
        let interfaces =
            json!([{"name": "net0", "sandbox": "/run/netns/web"}, {"name": "eth0", "sandbox": "/run/netns/web"}]);
        let reported = reported(&json!({"interfaces": interfaces, "ips": ips}), "eth0").expect("a result");
        let network = network(&json!({"subnet": "10.87.1.0/24"}));
        match reported.expected(&target("eth0"), &network, &addresses(&["10.87.1.2"])) {
            Ok(found) => assert_eq!(found.addresses.iter().map(IpNetwork::to_string).collect::<Vec<_>>(), expected),
            Err(error) => assert!(expected.is_empty() && error.code() == 7, "{error}"),
        }
    }

    #[rstest]
    #[case::by_the_path(json!([{"name": "eth0", "sandbox": "/run/netns/vm"}, {"name": "eth0", "sandbox": "/run/netns/web"}]), Some(1))]
    #[case::by_another_path(json!([{"name": "eth0"}, {"name": "eth0", "sandbox": "/var/run/netns/web"}]), Some(1))]
    #[case::on_the_host(json!([{"name": "eth0"}]), None)]
    fn own_interface(#[case] interfaces: Value, #[case] expected: Option<usize>) {
        match reported(&json!({"interfaces": interfaces}), "eth0") {
            Ok(found) => assert_eq!(Some(found.own), expected),
            Err(error) => assert!(expected.is_none() && error.to_string().contains("eth0"), "{error}"),
        }
    }

    #[test]
    fn what_a_later_plugin_has_added_is_no_subnet_of_a_delegated_network() {
        let ips = json!([{"interface": 0, "address": "10.87.1.2/24", "gateway": "10.87.1.1"}, {"interface": 0, "address": "fd00:87::2/64", "gateway": "fd00:87::1"},
            {"interface": 0, "address": "192.168.7.2/24", "gateway": "192.168.7.1"}]);
        let reported =
            reported(&json!({"interfaces": [{"name": "eth0", "sandbox": "x"}], "ips": ips}), "eth0").expect("a result");
        let subnets = |held: &[&str]| {
            reported
                .pools(&addresses(held))
                .expect("pools")
                .subnets()
                .iter()
                .map(IpNetwork::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(subnets(&["10.87.1.2", "fd00:87::2"]), ["10.87.1.0/24", "fd00:87::/64"]);
        assert_eq!(subnets(&[]), ["10.87.1.0/24"], "a lease that is lost is missed");
    }

    #[rstest]
    #[case::of_one_set(&["10.87.1.0/24"], &["10.87.1.2", "10.87.1.3"], &["10.87.1.2"], &["10.87.1.2"])]
    #[case::lost(&["10.87.1.0/24"], &["10.87.1.2", "10.87.1.3"], &[], &["10.87.1.2"])]
    #[case::of_the_other_family_lost(&["10.87.1.0/24", "fd00::/64"], &["10.87.1.2", "fd00::2", "10.87.1.3", "fd00::3"], &["10.87.1.2"], &["10.87.1.2", "fd00::2"])]
    #[case::of_both_families_lost(&["10.87.1.0/24", "fd00::/64"], &["10.87.1.2", "fd00::2", "fd00::3"], &[], &["10.87.1.2", "fd00::2"])]
    #[case::one_of_two_of_a_subnet_lost(&["10.87.1.0/24", "10.87.1.0/24"], &["10.87.1.2", "10.87.1.3"], &["10.87.1.3"], &["10.87.1.3", "10.87.1.2"])]
    #[case::of_a_set_that_was_joined_since(&["10.87.1.0/24"], &["10.87.1.2", "10.87.1.3"], &["10.87.1.3", "10.87.1.2"], &["10.87.1.2", "10.87.1.3"])]
    #[case::from_before_the_other_family(&["10.87.1.0/24", "fd00::/64"], &["10.87.1.2", "10.87.1.3"], &["10.87.1.2"], &["10.87.1.2"])]
    #[case::gives_it_no_more(&["10.87.1.0/24 10.87.1.50"], &["10.87.1.60", "10.87.1.2"], &["10.87.1.2"], &["10.87.1.2"])]
    #[case::what_another_set_gives(&["10.87.1.0/24 10.87.1.50", "10.87.1.0/24"], &["10.87.1.60", "10.87.1.2"], &["10.87.1.2"], &["10.87.1.2", "10.87.1.60"])]
    fn own_addresses_of_sets(
        #[case] sets: &[&str],
        #[case] reported: &[&str],
        #[case] held: &[&str],
        #[case] expected: &[&str],
    ) {
        let range = |set: &str| {
            let (subnet, start) = set.split_once(' ').unwrap_or((set, ""));
            Range::new(subnet.parse().expect("a subnet"), None, start.parse().ok(), None).expect("a range")
        };
        let pools = Pools::new(sets.iter().map(|set| range(set).into()).collect());
        let reported = addresses(reported).into_iter().map(IpNetwork::from).collect();
        let found: Vec<_> = of_pools(&pools, reported, &addresses(held)).iter().map(IpNetwork::ip).collect();
        assert_eq!(found, addresses(expected));
    }

    #[test]
    fn of_another_plugin_s_routes_those_on_the_link_are_judged() {
        let result = json!({"interfaces": [{"name": "eth0", "sandbox": "x"}], "ips": [{"interface": 0, "address": "10.87.1.2/24", "gateway": "10.87.1.1"}],
            "routes": [{"dst": "10.9.0.0/16"}, {"dst": "10.8.0.1/16", "scope": 253}, {"dst": "10.7.0.0/16", "scope": 0}]});
        let config = json!({"name": "flatnet", "ipam": {"type": "other"}});
        let configured = Configured::parse(config.as_object().expect("an object")).expect("a network");
        let (reported, held) = (reported(&result, "eth0").expect("a result"), addresses(&["10.87.1.2"]));
        let network = reported.complete(configured, &held).expect("its pools");
        let found = reported.expected(&target("eth0"), &network, &held).expect("what is its own");
        assert_eq!(found.routes.iter().map(Route::to_string).collect::<Vec<_>>(), ["10.8.0.1/16, scope 253"]);
    }

    #[test]
    fn routes_through_networks_of_others_are_theirs() {
        let result = json!({"interfaces": [{"name": "eth0", "sandbox": "x"}], "ips": [{"interface": 0, "address": "10.87.1.2/24"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.87.1.1", "priority": 7}, {"dst": "10.9.0.0/16", "gw": "192.168.7.1"}, {"dst": "10.8.0.0/16"}, {"dst": "10.7.0.1/16"}]});
        let network = network(&json!({"subnet": "10.87.1.0/24", "routes": [{"dst": "10.7.0.0/16", "scope": 253}]}));
        let reported = reported(&result, "eth0").expect("a result");
        let found = reported.expected(&target("eth0"), &network, &addresses(&["10.87.1.2"])).expect("what is its own");
        let words: Vec<_> = found.routes.iter().map(Route::to_string).collect();
        assert_eq!(words, ["0.0.0.0/0 via 10.87.1.1, priority 7", "10.7.0.1/16"]);
    }
}
