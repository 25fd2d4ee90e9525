//! `port_mappings` (`PortMapping` of netavark), lowered to single ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::family::IpFamily;
use crate::firewall::ports::{HostPort, Port, Protocol};

const KEY: &str = "port_mappings";
/// Every port of both protocols. A list that asks for more asks for some of them twice, or means harm.
const MOST: usize = 2 * 65_535;

#[derive(Deserialize)]
struct Mapping {
    container_port: u16,
    #[serde(default)]
    host_ip: String,
    host_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    range: u16,
}

/// The ports of a container that has addresses of these families. Errors: 2 and 7.
pub(crate) fn parse(mappings: Option<&Value>, families: &[IpFamily]) -> Result<Vec<Port>> {
    let Some(mappings) = mappings.filter(|mappings| !mappings.is_null()) else { return Ok(Vec::new()) };
    let mappings: Vec<Mapping> = serde_json::from_value(mappings.clone())
        .map_err(|e| problem(format!("is not a list of port mappings: {e}")))?;
    let mut ports = BTreeMap::new();
    let mut asked = 0;
    for mapping in &mappings {
        mapping.lower(families, &mut ports, &mut asked)?;
    }
    Ok(ports.into_iter().map(|(host, container)| Port { host, container }).collect())
}

impl Mapping {
    /// `asked` counts before anything is made of it.
    fn lower(&self, families: &[IpFamily], ports: &mut BTreeMap<HostPort, u16>, asked: &mut usize) -> Result<()> {
        let addresses = self.addresses(families)?;
        // None at all means one (netavark's types, "range").
        let count = self.range.max(1);
        let fits = |first: u16| first != 0 && first.checked_add(count - 1).is_some();
        if !fits(self.host_port) || !fits(self.container_port) {
            let Self { host_port, container_port, .. } = self;
            return Err(problem(format!(
                "maps {count} ports from {host_port} on to {container_port}, but ports are 1 - 65535"
            )));
        }
        let protocols = self.protocols()?;
        *asked = asked.saturating_add(protocols.len().saturating_mul(usize::from(count)));
        if *asked > MOST {
            return Err(problem(format!("asks for more than {MOST} ports")));
        }
        for (protocol, n) in protocols.into_iter().flat_map(|protocol| (0..count).map(move |n| (protocol, n))) {
            for address in &addresses {
                let host = HostPort { address: *address, protocol, number: self.host_port + n };
                let container = self.container_port + n;
                if let Some(other) = ports.insert(host, container).filter(|other| *other != container) {
                    let two = format!("maps {host} to two ports of the container, {other} and {container}");
                    return Err(problem(two));
                }
            }
        }
        Ok(())
    }

    /// Of the host, the unspecified one for all of its family. Who says none means those of each family that the container has.
    fn addresses(&self, families: &[IpFamily]) -> Result<Vec<IpAddr>> {
        let refused = |remedy: &str| Error::Unsupported {
            key: format!("{KEY}.host_ip"),
            value: self.host_ip.clone(),
            remedy: remedy.into(),
        };
        if self.host_ip.is_empty() {
            let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            return Ok(all.into_iter().filter(|address| families.contains(&IpFamily::of(*address))).collect());
        }
        let address: IpAddr =
            self.host_ip.parse().map_err(|_| refused("publish on an IP address, or on all addresses"))?;
        if !families.contains(&IpFamily::of(address)) {
            return Err(refused(
                "the network has no address of that family: publish on one of the other, or on all addresses",
            ));
        }
        if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            return Err(refused("publish on 127.0.0.1, or on all addresses: Linux does not translate ::1"));
        }
        Ok(vec![address])
    }

    fn protocols(&self) -> Result<Vec<Protocol>> {
        self.protocol
            .split(',')
            .map(|text| match text.trim() {
                "" | "tcp" => Ok(Protocol::Tcp),
                "udp" => Ok(Protocol::Udp),
                other => Err(Error::Unsupported {
                    key: format!("{KEY}.protocol"),
                    value: other.to_owned(),
                    remedy: "publish tcp or udp; every other protocol reaches the container at its own address".into(),
                }),
            })
            .collect()
    }
}

fn problem(problem: String) -> Error {
    Error::Config { key: KEY.into(), problem }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_and_protocols_are_single_ports() {
        let mappings = json!([{ "container_port": 80, "host_ip": "127.0.0.1", "host_port": 8080, "protocol": "tcp,udp", "range": 2 }]);
        let ports = parse(Some(&mappings), &IpFamily::BOTH).expect("ports");
        let text: Vec<_> = ports.iter().map(|port| format!("{}->{}", port.host, port.container)).collect();
        assert_eq!(
            text,
            ["127.0.0.1:8080/tcp->80", "127.0.0.1:8081/tcp->81", "127.0.0.1:8080/udp->80", "127.0.0.1:8081/udp->81"]
        );
    }

    #[rstest]
    #[case::sctp(json!({"container_port": 1, "host_ip": "", "host_port": 1, "protocol": "sctp", "range": 1}), 2, "sctp")]
    #[case::loopback_of_ipv6(json!({"container_port": 1, "host_ip": "::1", "host_port": 1, "protocol": "tcp", "range": 1}), 2, "::1")]
    #[case::name(json!({"container_port": 1, "host_ip": "localhost", "host_port": 1, "protocol": "tcp", "range": 1}), 2, "localhost")]
    #[case::past_the_end(json!({"container_port": 1, "host_ip": "", "host_port": 65535, "protocol": "tcp", "range": 2}), 7, "65535")]
    #[case::zero(json!({"container_port": 1, "host_ip": "", "host_port": 0, "protocol": "tcp", "range": 1}), 7, "from 0")]
    #[case::not_a_port(json!({"container_port": 70000, "host_ip": "", "host_port": 1}), 7, "70000")]
    fn refused(#[case] mapping: Value, #[case] code: u32, #[case] words: &str) {
        let error = parse(Some(&json!([mapping])), &IpFamily::BOTH).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::two_targets("tcp", 1, 7, "maps 80/tcp to two ports of the container, 80 and 81")]
    #[case::too_many("tcp,udp", 65_535 - 81, 7, "more than 131070")]
    fn refused_of_two(#[case] protocol: &str, #[case] range: u16, #[case] code: u32, #[case] words: &str) {
        let mapping = |container: u16| json!({"container_port": container, "host_ip": "", "host_port": 80, "protocol": protocol, "range": range});
        let error = parse(Some(&json!([mapping(80), mapping(81)])), &IpFamily::BOTH).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::all_of_both("", &IpFamily::BOTH, "8080/tcp [::]:8080/tcp")]
    #[case::all_of_ipv4("", &[IpFamily::V4], "8080/tcp")]
    #[case::all_of_ipv6("", &[IpFamily::V6], "[::]:8080/tcp")]
    #[case::those_of_ipv4("0.0.0.0", &IpFamily::BOTH, "8080/tcp")]
    #[case::those_of_ipv6("::", &IpFamily::BOTH, "[::]:8080/tcp")]
    #[case::one("fd30::2", &IpFamily::BOTH, "[fd30::2]:8080/tcp")]
    fn where_ports_are(#[case] host_ip: &str, #[case] families: &[IpFamily], #[case] expected: &str) {
        let mapping =
            json!([{"container_port": 80, "host_ip": host_ip, "host_port": 8080, "protocol": "tcp", "range": 1}]);
        let ports = parse(Some(&mapping), families).expect("ports");
        let texts: Vec<_> = ports.iter().map(|port| port.host.to_string()).collect();
        assert_eq!(texts.join(" "), expected);
    }

    #[rstest]
    #[case::ipv4("172.30.0.2", IpFamily::V6)]
    #[case::ipv6("::", IpFamily::V4)]
    fn a_family_that_the_container_does_not_have(#[case] host_ip: &str, #[case] family: IpFamily) {
        let mapping =
            json!([{"container_port": 80, "host_ip": host_ip, "host_port": 8080, "protocol": "tcp", "range": 1}]);
        let error = parse(Some(&mapping), &[family]).unwrap_err();
        assert_eq!(error.code(), 2, "{error}");
        assert!(error.remedy().contains("no address of that family"), "{}", error.remedy());
    }

    #[test]
    fn the_same_port_twice_is_one() {
        let mapping =
            json!({"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,tcp", "range": 1});
        assert_eq!(parse(Some(&json!([mapping, mapping])), &[IpFamily::V4]).expect("ports").len(), 1);
    }

    #[rstest]
    #[case::left_out(None)]
    #[case::null(Some(Value::Null))]
    #[case::empty(Some(json!([])))]
    fn none(#[case] mappings: Option<Value>) {
        assert_eq!(parse(mappings.as_ref(), &IpFamily::BOTH).expect("ports"), []);
    }
}
