//! `port_mappings` (`PortMapping` of netavark), lowered to single ports.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::firewall::{HostPort, Port, Protocol};

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

/// Errors: 2 and 7.
pub(super) fn parse(mappings: Option<&Value>) -> Result<Vec<Port>> {
    let Some(mappings) = mappings.filter(|mappings| !mappings.is_null()) else { return Ok(Vec::new()) };
    let mappings: Vec<Mapping> = serde_json::from_value(mappings.clone())
        .map_err(|e| problem(format!("is not a list of port mappings: {e}")))?;
    let mut ports = BTreeMap::new();
    let mut asked = 0;
    for mapping in &mappings {
        mapping.lower(&mut ports, &mut asked)?;
    }
    Ok(ports.into_iter().map(|(host, container)| Port { host, container }).collect())
}

impl Mapping {
    /// `asked` counts before anything is made of it.
    fn lower(&self, ports: &mut BTreeMap<HostPort, u16>, asked: &mut usize) -> Result<()> {
        let address = self.address()?;
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
            let host = HostPort { address, protocol, number: self.host_port + n };
            let container = self.container_port + n;
            if let Some(other) = ports.insert(host, container).filter(|other| *other != container) {
                return Err(problem(format!("leads {host} to two ports of the container, {other} and {container}")));
            }
        }
        Ok(())
    }

    fn address(&self) -> Result<Option<Ipv4Addr>> {
        match self.host_ip.as_str() {
            "" | "0.0.0.0" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Error::Unsupported {
                key: format!("{KEY}.host_ip"),
                value: text.to_owned(),
                remedy: "publish on an IPv4 address, or on all: flatnet's addresses are IPv4".into(),
            }),
        }
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
        let ports = parse(Some(&mappings)).expect("ports");
        let text: Vec<_> = ports.iter().map(|port| format!("{}->{}", port.host, port.container)).collect();
        assert_eq!(
            text,
            ["127.0.0.1:8080/tcp->80", "127.0.0.1:8081/tcp->81", "127.0.0.1:8080/udp->80", "127.0.0.1:8081/udp->81"]
        );
    }

    #[rstest]
    #[case::sctp(json!({"container_port": 1, "host_ip": "", "host_port": 1, "protocol": "sctp", "range": 1}), 2, "sctp")]
    #[case::ipv6(json!({"container_port": 1, "host_ip": "::1", "host_port": 1, "protocol": "tcp", "range": 1}), 2, "::1")]
    #[case::past_the_end(json!({"container_port": 1, "host_ip": "", "host_port": 65535, "protocol": "tcp", "range": 2}), 7, "65535")]
    #[case::zero(json!({"container_port": 1, "host_ip": "", "host_port": 0, "protocol": "tcp", "range": 1}), 7, "from 0")]
    #[case::not_a_port(json!({"container_port": 70000, "host_ip": "", "host_port": 1}), 7, "70000")]
    fn refused(#[case] mapping: Value, #[case] code: u32, #[case] words: &str) {
        let error = parse(Some(&json!([mapping]))).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::two_targets("tcp", 1, 7, "leads 80/tcp to two ports of the container, 80 and 81")]
    #[case::too_many("tcp,udp", 65_535 - 81, 7, "more than 131070")]
    fn refused_of_two(#[case] protocol: &str, #[case] range: u16, #[case] code: u32, #[case] words: &str) {
        let mapping = |container: u16| json!({"container_port": container, "host_ip": "", "host_port": 80, "protocol": protocol, "range": range});
        let error = parse(Some(&json!([mapping(80), mapping(81)]))).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn the_same_port_twice_is_one() {
        let mapping =
            json!({"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp,tcp", "range": 1});
        assert_eq!(parse(Some(&json!([mapping, mapping]))).expect("ports").len(), 1);
    }

    #[rstest]
    #[case::left_out(None)]
    #[case::null(Some(Value::Null))]
    #[case::empty(Some(json!([])))]
    fn none(#[case] mappings: Option<Value>) {
        assert_eq!(parse(mappings.as_ref()).expect("ports"), []);
    }
}
