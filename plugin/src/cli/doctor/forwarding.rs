//! The kernel's settings that decide whether packets pass: forwarding, and the reverse path filter.

use super::finding::{Check, Finding, IP_FORWARD, IPV6_FORWARD, REVERSE_PATH};
use crate::attachment;
use crate::cli::probe;
use crate::ipam::lease;
use crate::netlink::Link;
use crate::sysctl::{self, Forwarding};

/// Strict: a packet has to come in by the link that an answer would leave by (ip-sysctl.rst, `rp_filter`).
const STRICT: &str = "1";

/// `in_use` says whether the bridge of a network with IPv4 is there.
pub(super) fn ipv4(in_use: bool) -> Finding {
    judge(
        IP_FORWARD,
        &sysctl::IPV4,
        in_use,
        "run `sysctl -w net.ipv4.ip_forward=1`; if it comes back, something in /etc/sysctl.d or a VPN sets it: `grep -r ip_forward /etc/sysctl.conf /etc/sysctl.d`",
    )
}

/// `in_use` says whether the bridge of a network with IPv6 is there.
pub(super) fn ipv6(in_use: bool) -> Finding {
    judge(
        IPV6_FORWARD,
        &sysctl::IPV6,
        in_use,
        "run `systemctl restart flatnet`, or start a container: either sees to it that this host still hears its routers, and then to `sysctl -w net.ipv6.conf.all.forwarding=1`; if it comes back, `grep -r ipv6.*forwarding /etc/sysctl.conf /etc/sysctl.d` finds who sets it",
    )
}

fn judge(check: Check, family: &Forwarding, in_use: bool, remedy: &str) -> Finding {
    let setting = family.setting;
    match family.is_on() {
        Ok(true) => check.ok(format!("{setting} = 1")),
        Ok(false) if !in_use => check.ok("off: the first container switches it on"),
        Ok(false) => check.bad(format!("{setting} = 0"), remedy),
        Err(error) => check.failed(&error),
    }
}

/// `links` are the ones that packets come in by: bridges and the uplink.
pub(super) fn reverse_path(links: &[String], shared: bool) -> Finding {
    let value = |name: &str| probe::read_line(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    // The kernel takes the larger of the two, and 2 (loose) is larger than 1.
    let strict = |name: &str| value(name).max(value("all")) == STRICT;
    let strict: Vec<_> = links.iter().filter(|name| strict(name)).cloned().collect();
    judge_reverse_path(&strict, shared)
}

fn judge_reverse_path(strict: &[String], shared: bool) -> Finding {
    if strict.is_empty() {
        return REVERSE_PATH.ok("not strict");
    }
    let found = format!("strict on {}", strict.join(", "));
    if !shared {
        return REVERSE_PATH.ok(format!("{found}; no container is on several networks"));
    }
    REVERSE_PATH.warning(
        found,
        "over their second network, containers do not answer the gateway: run `sysctl -w net.ipv4.conf.all.rp_filter=2` (loose)",
    )
}

/// Whether some container is on several networks.
pub(super) fn is_shared(links: &[Link]) -> bool {
    let held = links.iter().filter(|link| lease::leases(link).next().is_some());
    let mut containers: Vec<_> =
        held.filter_map(|link| attachment::record_part(link.alias.as_deref()?, "container")).collect();
    containers.sort_unstable();
    containers.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::State;
    use super::*;

    #[rstest]
    #[case::loose(&[], true, State::Ok)]
    #[case::strict_and_alone(&["eth0"], false, State::Ok)]
    #[case::strict(&["eth0"], true, State::Warning)]
    fn filters(#[case] strict: &[&str], #[case] shared: bool, #[case] expected: State) {
        let strict: Vec<_> = strict.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(judge_reverse_path(&strict, shared).state, expected);
    }

    #[test]
    fn a_container_with_two_links_is_on_two_networks() {
        let link = |container: &str, last: u8| Link {
            alias: Some(format!("network=n container={container} interface=eth0")),
            names: vec![format!("flatnet-ip-10.87.1.{last}")],
            ..Link::default()
        };
        assert!(!is_shared(&[link("a", 2), link("b", 3)]));
        assert!(is_shared(&[link("a", 2), link("b", 3), link("a", 4)]));
    }
}
