//! What is said to `nft`: each script is one transaction, so that the kernel takes all of it or nothing.

use std::fmt::Write;

use ipnetwork::IpNetwork;

use super::table::Entry;
use super::{Door, HostPort, Port};
use crate::firewall::family::IpFamily;

/// The map of what is published at all addresses of the host, and that of what is at one.
pub(super) const PUBLISHED: &str = "published";
const PUBLISHED_AT: &str = "published_at";

/// The chains of ports, each after what leads there.
pub(super) const CHAINS: [&str; 5] = ["guard", "from_elsewhere", "from_here", "lead", "towards_containers"];

/// The table, made if need be; said each time, so that a change by somebody else is mended too. A specific address goes before all.
const fn table(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => include_str!("ipv4.nft"),
        IpFamily::V6 => include_str!("ipv6.nft"),
    }
}

/// Publishes `ports` at the container's address of one family, in place of what is `stale`. `create` fails where an entry is there already,
/// whoever was faster.
pub(super) fn publish(door: &Door<'_>, address: IpNetwork, ports: &[Port], stale: &[&Entry]) -> String {
    let family = IpFamily::of(address.ip());
    let mut script = table(family).to_owned();
    script.push_str(&remove(stale));
    let (bridge, comment, of) = (door.bridge, door.attachment.name(), family.tables().as_str());
    let subnet = format!("{}/{}", address.network(), address.prefix());
    let loopback = (family == IpFamily::V4).then_some("127.0.0.0/8");
    line(&mut script, format_args!("add element {of} flatnet bridges {{ \"{bridge}\" }}"));
    for source in loopback.into_iter().chain([subnet.as_str()]) {
        line(&mut script, format_args!("add element {of} flatnet masqueraded {{ \"{bridge}\" . {source} }}"));
    }
    for Port { host, container } in ports {
        let (map, key) = place(*host);
        let entry = format!("{key} comment \"{comment}\" : {} . {container}", address.ip());
        line(&mut script, format_args!("create element {of} flatnet {map} {{ {entry} }}"));
    }
    script
}

/// Takes away everything that was said for ports, and the table unless it is shared. Of what stays in a shared one somebody may have
/// deleted a part, which is made first: what is not there cannot be deleted.
pub(super) fn delete_all(family: IpFamily, is_shared: bool) -> String {
    let of = family.tables().as_str();
    if !is_shared {
        return format!("delete table {of} flatnet\n");
    }
    let mut script = table(family).to_owned();
    // Loopback addresses of IPv6 need no guard.
    for chain in CHAINS.into_iter().filter(|chain| family == IpFamily::V4 || *chain != "guard") {
        line(&mut script, format_args!("delete chain {of} flatnet {chain}"));
    }
    for (kind, name) in [("map", PUBLISHED), ("map", PUBLISHED_AT), ("set", "bridges"), ("set", "masqueraded")] {
        line(&mut script, format_args!("delete {kind} {of} flatnet {name}"));
    }
    script
}

/// Removes entries.
pub(super) fn remove(entries: &[&Entry]) -> String {
    let mut script = String::new();
    for entry in entries {
        let (map, key) = place(entry.host);
        let of = entry.host.family().tables().as_str();
        line(&mut script, format_args!("delete element {of} flatnet {map} {{ {key} }}"));
    }
    script
}

/// The map that holds the port, and its key there.
fn place(port: HostPort) -> (&'static str, String) {
    let (protocol, number) = (port.protocol.as_str(), port.number);
    match port.address {
        address if address.is_unspecified() => (PUBLISHED, format!("{protocol} . {number}")),
        address => (PUBLISHED_AT, format!("{address} . {protocol} . {number}")),
    }
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // A text that grows in memory takes whatever is written.
    writeln!(script, "{text}").expect("a String to write to");
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::firewall::ports::Protocol;
    use crate::ipam::lease::Attachment;
    use crate::request::{Args, Target};

    /// What is said behind the table.
    fn said(address: &str, host: IpAddr, stale: &Entry) -> String {
        let target =
            Target { container: "web".into(), interface: "eth0".into(), netns: "".into(), args: Args::default() };
        let attachment = Attachment { network: "flatnet", target: &target };
        let address = address.parse().expect("an address");
        let begun = Cell::new(false);
        let door = Door { attachment: &attachment, addresses: &[address], bridge: "flatnet-br0", begun: &begun };
        let host = HostPort { address: host, protocol: Protocol::Tcp, number: 8080 };
        let script = publish(&door, address, &[Port { host, container: 80 }], &[stale]);
        script.strip_prefix(table(IpFamily::of(address.ip()))).expect("the table first").to_owned()
    }

    fn stale(address: IpAddr) -> Entry {
        let host = HostPort { address, protocol: Protocol::Udp, number: 53 };
        Entry { host, holder: "flatnet-att-old@eth0".into() }
    }

    #[test]
    fn a_transaction_says_it_all() {
        let script = said("10.87.1.2/24", Ipv4Addr::UNSPECIFIED.into(), &stale(Ipv4Addr::LOCALHOST.into()));
        insta::assert_snapshot!(script, @r#"
        delete element ip flatnet published_at { 127.0.0.1 . udp . 53 }
        add element ip flatnet bridges { "flatnet-br0" }
        add element ip flatnet masqueraded { "flatnet-br0" . 127.0.0.0/8 }
        add element ip flatnet masqueraded { "flatnet-br0" . 10.87.1.0/24 }
        create element ip flatnet published { tcp . 8080 comment "flatnet-att-web@eth0" : 10.87.1.2 . 80 }
        "#);
    }

    #[test]
    fn and_for_ipv6() {
        let one = "fd30::2".parse().expect("an address");
        let script = said("fd87:1::2/64", one, &stale(Ipv6Addr::UNSPECIFIED.into()));
        insta::assert_snapshot!(script, @r#"
        delete element ip6 flatnet published { udp . 53 }
        add element ip6 flatnet bridges { "flatnet-br0" }
        add element ip6 flatnet masqueraded { "flatnet-br0" . fd87:1::/64 }
        create element ip6 flatnet published_at { fd30::2 . tcp . 8080 comment "flatnet-att-web@eth0" : fd87:1::2 . 80 }
        "#);
    }

    #[test]
    fn what_goes_is_all_that_was_made() {
        for family in IpFamily::BOTH {
            let script = delete_all(family, true);
            let made = table(family).lines().filter_map(|line| line.strip_prefix("add ")).filter_map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                ["chain", "map", "set"].contains(&words[0]).then(|| format!("delete {}\n", words[..4].join(" ")))
            });
            let made: Vec<_> = made.collect();
            assert!(made.len() >= 8 && made.iter().all(|line| script.contains(line)), "{script}");
            assert_eq!(script.matches("\ndelete ").count(), made.len());
        }
    }
}
