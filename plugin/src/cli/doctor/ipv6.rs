//! What a network with IPv6 needs of the host beside its bridge: a kernel with IPv6, forwarding, and routers that the host still hears.
//!
//! Where no network has IPv6 there is no line about any of it.

use std::path::Path;

use super::finding::{Finding, IPV6, IPV6_FORWARD, ROUTERS};
use super::forwarding;
use crate::cli::probe;
use crate::sysctl;

/// There where the kernel has IPv6 (ip-sysctl.rst).
const SETTINGS: &str = "/proc/sys/net/ipv6";
/// `accept_ra`: routers are heard, unless the host forwards.
const UNLESS_FORWARDING: &str = "1";

/// How the host comes by its own IPv6.
#[derive(Debug, Default)]
pub(super) struct Routers {
    /// Links with routes that routers have told of.
    pub(super) heard_on: Vec<String>,
    /// The link towards the world, where it has an IPv6 address and no default route of IPv6 is there.
    pub(super) lost_on: Option<String>,
}

/// `bridges` are the ones that are there and have IPv6.
pub(super) fn check(bridges: &[String], routers: &Routers) -> Vec<Finding> {
    if !Path::new(SETTINGS).exists() {
        let remedy = "start the kernel without `ipv6.disable=1`, or with its module (`modprobe ipv6`); or take IPv6 out of the network";
        let why = "depends on `ipv6` above";
        let hanging = [IPV6_FORWARD.skipped(why), ROUTERS.skipped(why)];
        return std::iter::once(IPV6.bad("the kernel has no IPv6", remedy)).chain(hanging).collect();
    }
    let is_off = |bridge: &&String| probe::read_line(&format!("{SETTINGS}/conf/{bridge}/disable_ipv6")) == "1";
    let switched = match bridges.iter().find(is_off) {
        Some(bridge) => IPV6.bad(
            format!("switched off on {bridge}"),
            format!("run `sysctl -w {}=0`, then start a container or `systemctl restart flatnet`: either gives the addresses back; `grep -r disable_ipv6 /etc/sysctl.conf /etc/sysctl.d` finds who switches it off", sysctl::ipv6_of(bridge, "disable_ipv6")),
        ),
        None => IPV6.ok("on"),
    };
    let deaf = |link: &&String| probe::read_line(&format!("{SETTINGS}/conf/{link}/accept_ra")) == UNLESS_FORWARDING;
    let forwards = sysctl::IPV6.is_on().unwrap_or(false);
    let losing = routers.heard_on.iter().find(deaf);
    let lost = routers.lost_on.as_ref().filter(|link| deaf(link));
    vec![switched, forwarding::ipv6(!bridges.is_empty()), judge_routers(forwards, losing, lost, &routers.heard_on)]
}

fn judge_routers(forwards: bool, losing: Option<&String>, lost: Option<&String>, heard_on: &[String]) -> Finding {
    let remedy = |link: &str| {
        let setting = sysctl::ipv6_of(link, "accept_ra");
        format!("run `sysctl -w {setting}=2`, and keep it so by a file in /etc/sysctl.d")
    };
    match (losing, lost) {
        (Some(link), _) if forwards => ROUTERS.warning(
            format!("{link} has routes from router advertisements, and hears no more of them while this host forwards"),
            remedy(link),
        ),
        (None, Some(link)) if forwards => ROUTERS.warning(
            format!("no IPv6 route leads to the world, and {link} hears no routers while this host forwards"),
            format!("where routers tell this host of its routes, {}", remedy(link)),
        ),
        _ if heard_on.is_empty() => ROUTERS.ok("this host's own IPv6 does not come from them"),
        _ => ROUTERS.ok(format!("heard on {}", heard_on.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::State;
    use super::*;

    #[rstest]
    #[case::static_addresses(true, None, None, &[], State::Ok)]
    #[case::heard(true, None, None, &["eth0"], State::Ok)]
    #[case::not_forwarding_yet(false, Some("eth0"), None, &["eth0"], State::Ok)]
    #[case::soon_lost(true, Some("eth0"), None, &["eth0"], State::Warning)]
    #[case::lost(true, None, Some("eth0"), &[], State::Warning)]
    fn routers(
        #[case] forwards: bool,
        #[case] losing: Option<&str>,
        #[case] lost: Option<&str>,
        #[case] heard_on: &[&str],
        #[case] state: State,
    ) {
        let (losing, lost) = (losing.map(str::to_owned), lost.map(str::to_owned));
        let heard_on: Vec<_> = heard_on.iter().map(|&link| link.to_owned()).collect();
        let finding = judge_routers(forwards, losing.as_ref(), lost.as_ref(), &heard_on);
        assert_eq!(finding.state, state, "{finding:?}");
        assert_eq!(finding.remedy.is_some_and(|it| it.contains("net.ipv6.conf.eth0.accept_ra=2")), state != State::Ok);
    }
}
