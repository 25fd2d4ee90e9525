//! What is true of any request of netavark's whatever: see [`super::netavark`](fn@super::netavark).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::sound::{can_have, is_recorded, is_sound, refused};
use crate::family::IpFamily;
use crate::firewall::ports::Port;
use crate::netavark::request::{Setup, Teardown};
use crate::netavark::{network, ports};

/// A path that no request can choose.
const NETNS: &str = "/run/netns/web";

/// The same text as it comes to `create`, to `setup` and to `teardown`.
pub(super) fn requests(request: &Map<String, Value>) {
    match network::parse("", request) {
        Err(error) => refused(&error, &[2, 7]),
        Ok((network, _)) => is_sound(&network),
    }
    let teardown = Teardown::parse(request, NETNS);
    if let Err(error) = &teardown {
        refused(error, &[7]);
    }
    match Setup::parse(request, NETNS) {
        Err(error) => refused(&error, &[2, 7]),
        Ok(setup) => {
            let Setup { target, network, ports } = &setup;
            is_sound(network);
            is_recorded(&network.name, target);
            target.args.ips.iter().for_each(|asked| can_have(&network.pools, *asked));
            can_be_published(ports);
            // Whatever setup takes, teardown takes back.
            let teardown = teardown.expect("a request for teardown");
            assert_eq!((&teardown.network, teardown.gateway_link.as_str()), (&network.name, network.gateway_link()));
            assert_eq!(teardown.target.container, target.container);
            assert_eq!(teardown.target.interface, target.interface);
            assert_eq!(teardown.published, !ports.is_empty());
        }
    }
}

/// The list of ports alone.
pub(super) fn ports(mappings: &Value) {
    match ports::parse(Some(mappings), &IpFamily::BOTH) {
        Err(error) => refused(&error, &[2, 7]),
        Ok(ports) => can_be_published(&ports),
    }
}

/// Every port is one, and no port of the host leads to two places.
fn can_be_published(ports: &[Port]) {
    assert!(ports.iter().all(|port| port.host.number != 0 && port.container != 0));
    let hosts: BTreeSet<_> = ports.iter().map(|port| port.host).collect();
    assert_eq!(hosts.len(), ports.len(), "a port of the host is published twice");
}
