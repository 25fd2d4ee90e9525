//! Published ports as alternative names of the container's host link: what is published is known to the kernel, whatever becomes of
//! the rules, and is over when the link goes.
//!
//! A name lists ports of one protocol at one address, such as `flatnet-port-tcp@0.0.0.0:8080=80,9000-9002=80`. It is the claim as well:
//! ports are claimed under the lock of flatnet's tables, after a look at all claims.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::{HostPort, Port, Protocol};
use crate::attachment::ALTERNATIVE_NAME_MAX_BYTES;
use crate::netlink::Link;

const PREFIX: &str = "flatnet-port-";
/// How many names a link may get: the kernel lists all of a link's in one message, which every program on the host reads.
pub(super) const NAMES_MAX: usize = 64;

/// The ports that the link claims.
pub(crate) fn of(link: &Link) -> impl Iterator<Item = Port> + '_ {
    link.names.iter().filter_map(|name| parse(name)).flatten()
}

/// The names of the link that claim ports.
pub(super) fn names_of(link: &Link) -> impl Iterator<Item = &String> {
    link.names.iter().filter(|name| name.starts_with(PREFIX))
}

/// The names that claim these ports, as few as they fit in.
pub(super) fn names(ports: &[Port]) -> Vec<String> {
    let mut groups: BTreeMap<_, BTreeMap<u16, u16>> = BTreeMap::new();
    for Port { host, container } in ports {
        groups.entry((host.protocol, host.address)).or_default().insert(host.number, *container);
    }
    let mut names = Vec::new();
    for ((protocol, address), numbers) in groups {
        let mut beginning = format!("{PREFIX}{}@{}", protocol.as_str(), SocketAddr::new(address, 0));
        beginning.pop();
        let mut name = String::new();
        for run in runs(&numbers) {
            if name.is_empty() {
                name = format!("{beginning}{run}");
            } else if name.len() + 1 + run.len() <= ALTERNATIVE_NAME_MAX_BYTES {
                name.push(',');
                name.push_str(&run);
            } else {
                names.push(std::mem::replace(&mut name, format!("{beginning}{run}")));
            }
        }
        names.push(name);
    }
    names
}

/// Ports that follow each other and lead to ports that do so, as one text: `8080=80`, `9000-9002=80`.
fn runs(numbers: &BTreeMap<u16, u16>) -> Vec<String> {
    let mut runs: Vec<(u16, u16, u16)> = Vec::new();
    for (host, container) in numbers {
        match runs.last_mut() {
            Some((first, last, to))
                if last.checked_add(1) == Some(*host) && to.checked_add(*host - *first) == Some(*container) =>
            {
                *last = *host;
            }
            _ => runs.push((*host, *host, *container)),
        }
    }
    let write = |(first, last, to): (u16, u16, u16)| {
        let mut text = first.to_string();
        if last != first {
            // A text that grows in memory takes whatever is written.
            write!(text, "-{last}").expect("a String to write to");
        }
        format!("{text}={to}")
    };
    runs.into_iter().map(write).collect()
}

/// The ports that a name claims; nothing where it is no such name.
fn parse(name: &str) -> Option<Vec<Port>> {
    let (protocol, rest) = name.strip_prefix(PREFIX)?.split_once('@')?;
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|it| it.as_str() == protocol)?;
    let (address, runs) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => rest.split_once(':')?,
    };
    let address: IpAddr = address.parse().ok()?;
    let mut ports = Vec::new();
    for run in runs.split(',') {
        let (hosts, container) = run.split_once('=')?;
        let (first, last) = hosts.split_once('-').unwrap_or((hosts, hosts));
        let (first, last, container): (u16, u16, u16) =
            (first.parse().ok()?, last.parse().ok()?, container.parse().ok()?);
        for number in first..=last {
            let host = HostPort { address, protocol, number };
            ports.push(Port { host, container: container.checked_add(number - first)? });
        }
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn port(address: &str, protocol: Protocol, number: u16, container: u16) -> Port {
        let address = address.parse().expect("an address");
        Port { host: HostPort { address, protocol, number }, container }
    }

    fn link(names: Vec<String>) -> Link {
        Link { names, ..Link::default() }
    }

    #[test]
    fn names_are_short_and_readable() {
        let mut ports = vec![
            port("0.0.0.0", Protocol::Tcp, 8080, 80),
            port("::", Protocol::Tcp, 8080, 80),
            port("127.0.0.1", Protocol::Udp, 53, 5353),
        ];
        ports.extend((0..1000).map(|n| port("0.0.0.0", Protocol::Tcp, 9000 + n, 1000 + n)));
        ports.push(port("0.0.0.0", Protocol::Tcp, 10_000, 7));
        let expected = [
            "flatnet-port-tcp@0.0.0.0:8080=80,9000-9999=1000,10000=7",
            "flatnet-port-tcp@[::]:8080=80",
            "flatnet-port-udp@127.0.0.1:53=5353",
        ];
        assert_eq!(names(&ports), expected);
        assert_eq!(of(&link(names(&ports))).count(), ports.len());
    }

    #[test]
    fn what_does_not_fit_is_another_name() {
        let ports: Vec<_> =
            (0..100).map(|n| port("fd87:1::ffff:ffff:ffff:ffff", Protocol::Tcp, 2 * n + 1, 80)).collect();
        let names = names(&ports);
        assert!(names.len() > 5 && names.iter().all(|name| name.len() <= ALTERNATIVE_NAME_MAX_BYTES), "{names:?}");
        assert_eq!(of(&link(names)).collect::<Vec<_>>(), ports);
    }

    #[test]
    fn other_names_claim_nothing() {
        for name in [
            "flatnet-ip-10.87.1.2",
            "flatnet-port-",
            "flatnet-port-sctp@0.0.0.0:1=1",
            "flatnet-port-tcp@0.0.0.0:1=",
            "flatnet-port-tcp@0.0.0.0:1-3=65534",
            "flatnet-port-tcp@here:1=1",
            "flatnet-port-tcp@0.0.0.0:70000=1",
        ] {
            assert_eq!(of(&link(vec![name.into()])).count(), 0, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_claimed_is_read(numbers in prop::collection::btree_map(
            (prop::sample::select(vec!["0.0.0.0", "127.0.0.1", "::", "fd30::2"]), any::<bool>(), 1_u16..400), 1_u16.., 1..200)) {
            let of_protocol = |udp| if udp { Protocol::Udp } else { Protocol::Tcp };
            let ports: Vec<_> = numbers.iter()
                .map(|((address, udp, number), container)| port(address, of_protocol(*udp), *number, *container)).collect();
            let names = names(&ports);
            prop_assert!(names.iter().all(|name| name.len() <= ALTERNATIVE_NAME_MAX_BYTES));
            let expected: BTreeMap<_, _> = ports.iter().map(|port| (port.host, port.container)).collect();
            let read: BTreeMap<_, _> = of(&link(names)).map(|port| (port.host, port.container)).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
