//! Why an address did not answer, and what to do: a pure judgement of what the kernel shows.
//!
//! The nearest cause comes first: where there is no bridge, nothing else is to blame.

use super::way::Blocked;
use super::{Fault, Shown, Subject, Tried, who};
use crate::config::Network;
use crate::netlink::Link;

/// The links that lead to a network's containers.
pub(super) struct Surroundings<'a> {
    name: &'a str,
    bridge: Option<&'a Link>,
    /// The link with the gateways' addresses.
    pub(super) way: Option<&'a Link>,
}

/// Why an address did not answer.
pub(super) struct Explanation {
    pub(super) fault: Fault,
    /// It may be as somebody wants it, otherwise.
    pub(super) certain: bool,
    pub(super) shown: Shown,
}

impl<'a> Surroundings<'a> {
    pub(super) fn of(network: &'a Network, links: &'a [Link]) -> Self {
        let find = |name: &str| links.iter().find(|link| link.name == name);
        let bridge = find(&network.bridge).filter(|link| link.kind.as_deref() == Some("bridge"));
        Self { name: &network.bridge, bridge, way: bridge.and_then(|_| find(network.gateway_link())) }
    }

    /// `blocked` is what is wrong with this host's own way there.
    pub(super) fn explain(&self, subject: &Subject<'_>, tried: &Tried, blocked: Option<Blocked>) -> Explanation {
        let (link, name) = (subject.link, self.name);
        let found_out = |fault| Explanation { fault, certain: true, shown: Shown::Blocked };
        let certain = |found: String, remedy: String| found_out(fault(subject, found, remedy));
        let Some(bridge) = self.bridge else {
            return certain(format!("there is no bridge {name}"), restore(name));
        };
        if link.bridge != Some(bridge.index) {
            return certain(
                format!("{} is not a port of {name}", link.name),
                format!("run `ip link set {} master {name}`, or recreate the container", link.name),
            );
        }
        if !link.up {
            return certain(format!("{} is down", link.name), format!("run `ip link set {} up`", link.name));
        }
        if !bridge.up {
            return certain(format!("{name} is down"), format!("run `ip link set {name} up`"));
        }
        if !link.forwarding {
            return certain(
                format!("{} is blocked: the container's end is down", link.name),
                "if its container is gone, run `flatnet gc`; else recreate the container".into(),
            );
        }
        if let Some(Blocked { found, remedy }) = blocked {
            return certain(found, remedy);
        }
        if let Some(other) = tried.shared.get(&subject.address) {
            return found_out(shared(subject, other, "what is for it goes there"));
        }
        if tried.macs.contains_key(&subject.address) {
            let found = "it is on the bridge, but answers neither an echo request nor TCP".to_owned();
            let remedy = "if clients reach it, a packet filter in the container keeps this host out; else look for one that drops, there or here (`nft list ruleset`)";
            return Explanation { fault: fault(subject, found, remedy.into()), certain: false, shown: Shown::Silent };
        }
        let asked = if subject.address.is_ipv4() { "ARP" } else { "neighbour discovery" };
        let found = format!("nobody answers {asked} for it on {name}");
        let remedy = "recreate the container: it has lost the address, or its end of the pair";
        Explanation { fault: fault(subject, found, remedy.into()), certain: true, shown: Shown::Silent }
    }
}

/// What brings a bridge back, and its containers to it.
fn restore(name: &str) -> String {
    format!("start a container, or `flatnet gateway`: either makes {name} again and puts the containers back")
}

pub(super) fn fault(subject: &Subject<'_>, found: String, remedy: String) -> Fault {
    Fault { address: subject.address, who: who(subject.link), found, remedy }
}

/// Two containers with one MAC.
pub(super) fn shared(subject: &Subject<'_>, other: &str, effect: &str) -> Fault {
    let found = format!("container {other} has the same MAC: {effect}");
    let remedy = format!("recreate {} or {other} with another MAC, or without asking for one", who(subject.link));
    fault(subject, found, remedy)
}
