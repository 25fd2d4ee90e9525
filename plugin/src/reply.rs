//! What goes back to the runtime: results and errors of the specification, and the one place that writes standard output.

use std::io::{self, Write};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::spec::{self, SpecVersion};

/// Where an error's text is cut: more nobody reads, and a runtime may print all of it.
const TEXT_MAX_BYTES: usize = 4000;

/// A result as CNI 1.1.0 has it, the richest shape; [`Success::json`] renders it for every version, and what an older one
/// lacks is left out. Keys of 1.1.0 that flatnet never sets are not modelled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Success {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Value,
}

/// An interface that ADD made or used.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: String,
    /// In bytes; since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// `CNI_NETNS` for the container's; the host's have none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
}

/// An address of an interface.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Ip {
    /// Index into `interfaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
    pub(crate) address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
}

/// A route inside the container.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Route {
    pub(crate) dst: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
}

impl Success {
    /// The shape that `version` publishes (section "Success" of each specification).
    pub(crate) fn json(&self, version: SpecVersion) -> Value {
        let mut json = match version {
            SpecVersion::V0_1_0 | SpecVersion::V0_2_0 => self.by_family(),
            _ => json!({ "interfaces": self.interfaces, "ips": self.ips, "routes": self.routes }),
        };
        json["cniVersion"] = json!(version.as_str());
        json["dns"] = self.dns.clone();
        if version < SpecVersion::V1_1_0 {
            for interface in items(&mut json, "interfaces") {
                interface.as_object_mut().map(|interface| interface.remove("mtu"));
            }
        }
        if version < SpecVersion::V1_0_0 {
            for (json, ip) in items(&mut json, "ips").zip(&self.ips) {
                json["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
            }
        }
        json
    }

    /// Before 0.3.0: the first address of each family, with the routes of that family, and no interfaces.
    fn by_family(&self) -> Value {
        let mut json = json!({});
        for (key, is_family) in [("ip4", IpNetwork::is_ipv4 as fn(&IpNetwork) -> bool), ("ip6", IpNetwork::is_ipv6)] {
            if let Some(ip) = self.ips.iter().find(|ip| is_family(&ip.address)) {
                let routes: Vec<_> = self.routes.iter().filter(|route| is_family(&route.dst)).collect();
                json[key] = json!({ "ip": ip.address, "gateway": ip.gateway, "routes": routes });
            }
        }
        json
    }
}

/// The items of the list `key`, none if there is no such list.
fn items<'a>(json: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    json.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// What a command that succeeded has to say.
pub(crate) enum Reply {
    /// DEL, CHECK, GC and STATUS: nothing at all.
    Nothing,
    /// ADD, with the version of the configuration.
    Added(Success, SpecVersion),
    /// VERSION, with the question's own `cniVersion`.
    Versions(String),
}

impl Reply {
    fn json(&self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Added(success, version) => Some(success.json(*version)),
            Self::Versions(version) => Some(json!({
                "cniVersion": version,
                "supportedVersions": spec::SUPPORTED.map(SpecVersion::as_str),
            })),
        }
    }
}

/// The error object (section "Error"); `version` is the configuration's, where it could be read.
pub(crate) fn error(version: SpecVersion, error: &Error) -> Value {
    json!({
        "cniVersion": version.as_str(),
        "code": error.code(),
        "msg": one_line(&format!("failed to {error}")),
        "details": one_line(&error.remedy()),
    })
}

/// An error's text as it can be shown: it quotes what was asked for, and that may be a megabyte, or orders to a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if line.len() > TEXT_MAX_BYTES {
            line.push_str(" ..");
            break;
        }
        match letter {
            // The second are line ends too, and what changes the direction of the text that follows.
            _ if letter.is_control() => line.extend(letter.escape_default()),
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => line.extend(letter.escape_default()),
            _ => line.push(letter),
        }
    }
    line
}

/// Writes one object, or nothing, to standard output.
pub(crate) fn write(outcome: &Result<Reply, Value>) -> io::Result<()> {
    let json = match outcome {
        Ok(reply) => reply.json(),
        Err(error) => Some(error.clone()),
    };
    match json {
        Some(json) => writeln!(io::stdout(), "{json}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn success() -> Success {
        let host = Interface {
            name: "fn-01234567".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: None,
            sandbox: String::new(),
        };
        let eth0 = Interface {
            name: "eth0".into(),
            mac: "0a:57:0a:57:01:02".into(),
            mtu: Some(1500),
            sandbox: "/run/netns/web".into(),
        };
        let ip = |address: &str, gateway: &str| Ip {
            interface: Some(1),
            address: address.parse().expect("an address"),
            gateway: Some(gateway.parse().expect("a gateway")),
        };
        Success {
            interfaces: vec![host, eth0],
            ips: vec![ip("10.87.1.2/24", "10.87.1.1"), ip("fd00::2/64", "fd00::1")],
            routes: vec![Route { dst: "0.0.0.0/0".parse().expect("a destination"), gw: None }],
            dns: json!({}),
        }
    }

    #[rstest]
    #[case(SpecVersion::V0_1_0)]
    #[case(SpecVersion::V0_2_0)]
    #[case(SpecVersion::V0_3_0)]
    #[case(SpecVersion::V0_3_1)]
    #[case(SpecVersion::V0_4_0)]
    #[case(SpecVersion::V1_0_0)]
    #[case(SpecVersion::V1_1_0)]
    fn a_result_has_the_shape_of_its_version(#[case] version: SpecVersion) {
        let json = Reply::Added(success(), version).json().expect("a result");
        insta::assert_snapshot!(version.as_str(), serde_json::to_string_pretty(&json).expect("text"));
    }

    #[test]
    fn versions_echo_the_question() {
        let json = Reply::Versions("0.4.0".into()).json().expect("a reply");
        insta::assert_snapshot!(json, @r#"{"cniVersion":"0.4.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#);
    }

    #[rstest]
    #[case::as_it_is("failed to use bridge é: \"x\"", "failed to use bridge é: \"x\"")]
    #[case::lines("a\nb\r\tc", "a\\nb\\r\\tc")]
    #[case::orders_to_a_terminal("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}")]
    #[case::direction("a\u{202e}b", "a\\u{202e}b")]
    fn an_error_is_one_line(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(one_line(text), shown);
    }

    #[test]
    fn an_error_has_an_end() {
        let shown = one_line(&"é".repeat(1 << 20));
        assert!(shown.len() < TEXT_MAX_BYTES + 10 && shown.ends_with("é .."), "{}", shown.len());
    }

    #[test]
    fn an_error_is_one_object() {
        let error = error(SpecVersion::V1_0_0, &Error::Version { asked: "9.9.9".into() });
        insta::assert_snapshot!(error, @r#"{"cniVersion":"1.0.0","code":1,"msg":"failed to speak CNI version \"9.9.9\"","details":"set cniVersion to one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"}"#);
    }
}
