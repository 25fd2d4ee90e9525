//! Which default route a container on several of netavark's networks takes: that of the interface whose name comes first.
//!
//! Networks are set up in any order, a process each, so what a network takes must not depend on who came first: equal metrics would
//! leave it to the kernel, which of several routes takes now one and now another.

use crate::config::metric::{DEFAULT, DefaultMetric};
use crate::error::Result;
use crate::netlink::{Link, Netlink, Route};

/// How far from [`DEFAULT`] a metric may be that nobody chose.
const SPREAD: u32 = 32;

/// A default route of another interface.
#[derive(Debug)]
struct Other {
    interface: String,
    metric: u32,
}

impl DefaultMetric {
    /// Gives the default routes among `routes`, which are about to be added to `link`, a metric by the place of its name among the
    /// interfaces that have default routes already.
    pub(crate) async fn rank(self, container: &Netlink, link: &Link, routes: &mut [Route]) -> Result<()> {
        let is_ranked = |route: &Route| {
            let attributes = &route.attributes;
            route.is_default() && attributes.is_in_main_table() && attributes.priority == Some(self.base)
        };
        if !routes.iter().any(is_ranked) {
            return Ok(());
        }
        let found = container.routes().await?;
        for route in routes.iter_mut().filter(|route| is_ranked(route)) {
            let is_ipv4 = route.destination.is_ipv4();
            let mut others = Vec::new();
            for other in found.iter().filter(|other| other.is_default() && other.destination.is_ipv4() == is_ipv4) {
                let (Some(index), Some(metric)) =
                    (other.link.filter(|index| *index != link.index), other.attributes.priority)
                else {
                    continue;
                };
                let interface = container.link_by_index(index).await?;
                others.extend(interface.map(|link| Other { interface: link.name, metric }));
            }
            route.attributes.priority = Some(self.among(&link.name, &others));
        }
        Ok(())
    }

    /// The metric for `interface` beside `others`: above those whose names come before it, below those whose names come after it.
    fn among(self, interface: &str, others: &[Other]) -> u32 {
        if self.is_said {
            return self.beside_the_same(interface, others);
        }
        let others = || others.iter().filter(|other| other.metric.abs_diff(DEFAULT) <= SPREAD);
        let first = self.base + place(interface);
        let before = others().filter(|other| *other.interface < *interface).map(|other| other.metric).max();
        let after = others().filter(|other| *other.interface > *interface).map(|other| other.metric).min();
        let wanted = match (before, after) {
            (Some(before), _) if first <= before => before.saturating_add(1),
            (_, Some(after)) if first >= after => after.saturating_sub(1),
            _ => first,
        };
        let fits = before.is_none_or(|before| wanted > before) && after.is_none_or(|after| wanted < after);
        // Between two there may be no room: that of the lowest name stays the lowest.
        let highest = others().map(|other| other.metric).max().unwrap_or(first);
        if fits { wanted } else { highest.saturating_add(1) }
    }

    /// The metric that is said, or the nearest that no other has: down past names that come after, and up from the first that comes before.
    fn beside_the_same(self, interface: &str, others: &[Other]) -> u32 {
        let at = |metric: u32| others.iter().find(|other| other.metric == metric);
        let mut metric = self.base;
        while let Some(other) = at(metric) {
            if *other.interface < *interface {
                while at(metric).is_some() {
                    metric = metric.saturating_add(1);
                }
                return metric;
            }
            if metric == 0 {
                break;
            }
            metric -= 1;
        }
        metric
    }
}

/// The number in the names that Podman gives, by which each network has its own metric whoever comes first.
fn place(interface: &str) -> u32 {
    let number = interface.strip_prefix("eth").and_then(|number| number.parse().ok());
    number.filter(|number| *number <= SPREAD).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BY_DEFAULT: DefaultMetric = DefaultMetric { base: DEFAULT, is_said: false };
    const SAID: DefaultMetric = DefaultMetric { base: 300, is_said: true };

    /// Which interface's route is taken after these came in this order.
    fn winner(interfaces: &[&str], metric: DefaultMetric) -> String {
        let mut others = Vec::new();
        for interface in interfaces {
            let metric = metric.among(interface, &others);
            others.push(Other { interface: (*interface).to_owned(), metric });
        }
        let least = others.iter().map(|other| other.metric).min().expect("an interface");
        let winners: Vec<_> = others.iter().filter(|other| other.metric == least).collect();
        assert_eq!(winners.len(), 1, "{others:?}");
        winners[0].interface.clone()
    }

    #[rstest]
    #[case::podmans(&["eth0", "eth1", "eth2"])]
    #[case::more_than_ten(&["eth0", "eth1", "eth10"])]
    #[case::others(&["lan", "office", "wan"])]
    #[case::both(&["eth0", "eth1", "zz0"])]
    #[case::a_name_before_podmans(&["aa0", "eth0", "eth1"])]
    fn the_lowest_name_wins_in_whatever_order_they_come(#[case] names: &[&str]) {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let interfaces = order.map(|n| names[n]);
            for metric in [BY_DEFAULT, SAID] {
                assert_eq!(winner(&interfaces, metric), names[0], "{interfaces:?} {metric:?}");
            }
        }
    }

    #[rstest]
    #[case::alone("eth0", &[], 100)]
    #[case::the_second("eth1", &[], 101)]
    #[case::of_another_name("lan", &[], 100)]
    #[case::beside_one_that_was_chosen("eth1", &[("eth0", 300)], 101)]
    #[case::beside_netavarks_own("eth1", &[("eth0", 100)], 101)]
    #[case::before_netavarks_own("eth0", &[("eth1", 100)], 99)]
    fn metrics(#[case] interface: &str, #[case] others: &[(&str, u32)], #[case] expected: u32) {
        let others = others.iter().map(|(interface, metric)| Other { interface: (*interface).into(), metric: *metric });
        assert_eq!(BY_DEFAULT.among(interface, &others.collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_metric_that_is_said_gives_way_to_the_same_only() {
        let others = [Other { interface: "eth0".into(), metric: 100 }, Other { interface: "eth2".into(), metric: 301 }];
        assert_eq!(SAID.among("eth1", &others), 300);
        assert_eq!(SAID.among("eth1", &[Other { interface: "eth0".into(), metric: 300 }]), 301);
    }
}
