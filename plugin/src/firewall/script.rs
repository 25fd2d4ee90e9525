//! What is said to `nft`: each script is one transaction, so that the kernel takes all of it or nothing.

use std::fmt::Write;

use ipnetwork::Ipv4Network;

use super::table::Entry;
use super::{Door, HostPort, Port};

/// Takes away the table with everything in it.
const DELETE_TABLE: &str = "delete table ip flatnet\n";

/// Takes away the chains, maps and sets of ports, each after what leads there.
const DELETE_PORTS: &str = "\
delete chain ip flatnet guard
delete chain ip flatnet from_elsewhere
delete chain ip flatnet from_here
delete chain ip flatnet lead
delete chain ip flatnet towards_containers
delete map ip flatnet published
delete map ip flatnet published_at
delete set ip flatnet bridges
delete set ip flatnet masqueraded
";

/// The table, made if need be; said each time, so that a change by somebody else is mended too. A specific address goes before all.
const TABLE: &str = include_str!("table.nft");

/// Publishes `ports` in place of what is `stale`. `create` fails where an entry is there already, whoever was faster.
pub(super) fn publish(door: &Door<'_>, ports: &[Port], stale: &[&Entry]) -> String {
    let mut script = TABLE.to_owned();
    script.push_str(&remove(stale));
    let (bridge, comment) = (door.bridge, door.attachment.name());
    let (address, subnet) = (door.address.ip(), network_of(door.address));
    line(&mut script, format_args!("add element ip flatnet bridges {{ \"{bridge}\" }}"));
    for source in ["127.0.0.0/8", &subnet] {
        line(&mut script, format_args!("add element ip flatnet masqueraded {{ \"{bridge}\" . {source} }}"));
    }
    for Port { host, container } in ports {
        let (map, key) = place(*host);
        let entry = format!("{key} comment \"{comment}\" : {address} . {container}");
        line(&mut script, format_args!("create element ip flatnet {map} {{ {entry} }}"));
    }
    script
}

/// Takes away everything that was said for ports, and the table unless it is shared. Of what stays in a shared one somebody may have
/// deleted a part, which is made first: what is not there cannot be deleted.
pub(super) fn delete_all(is_shared: bool) -> String {
    if is_shared { format!("{TABLE}{DELETE_PORTS}") } else { DELETE_TABLE.to_owned() }
}

/// Removes entries.
pub(super) fn remove(entries: &[&Entry]) -> String {
    let mut script = String::new();
    for entry in entries {
        let (map, key) = place(entry.host);
        line(&mut script, format_args!("delete element ip flatnet {map} {{ {key} }}"));
    }
    script
}

/// The map that holds the port, and its key there.
fn place(port: HostPort) -> (&'static str, String) {
    let (protocol, number) = (port.protocol.as_str(), port.number);
    match port.address {
        None => ("published", format!("{protocol} . {number}")),
        Some(address) => ("published_at", format!("{address} . {protocol} . {number}")),
    }
}

fn network_of(address: Ipv4Network) -> String {
    format!("{}/{}", address.network(), address.prefix())
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // A text that grows in memory takes whatever is written.
    writeln!(script, "{text}").expect("a String to write to");
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::firewall::Protocol;
    use crate::ipam::lease::Attachment;
    use crate::request::{Args, Target};

    #[test]
    fn a_transaction_says_it_all() {
        let target =
            Target { container: "web".into(), interface: "eth0".into(), netns: "".into(), args: Args::default() };
        let attachment = Attachment { network: "flatnet", target: &target };
        let address = "10.87.1.2/24".parse().expect("an address");
        let begun = Cell::new(false);
        let door = Door { attachment: &attachment, address, bridge: "flatnet-br0", begun: &begun };
        let host = HostPort { address: None, protocol: Protocol::Tcp, number: 8080 };
        let stale = Entry {
            host: HostPort { address: Some(Ipv4Addr::LOCALHOST), protocol: Protocol::Udp, number: 53 },
            holder: "flatnet-att-old@eth0".into(),
        };
        let script = publish(&door, &[Port { host, container: 80 }], &[&stale]);
        insta::assert_snapshot!(script.strip_prefix(TABLE).expect("the table first"), @r#"
        delete element ip flatnet published_at { 127.0.0.1 . udp . 53 }
        add element ip flatnet bridges { "flatnet-br0" }
        add element ip flatnet masqueraded { "flatnet-br0" . 127.0.0.0/8 }
        add element ip flatnet masqueraded { "flatnet-br0" . 10.87.1.0/24 }
        create element ip flatnet published { tcp . 8080 comment "flatnet-att-web@eth0" : 10.87.1.2 . 80 }
        "#);
    }
}
