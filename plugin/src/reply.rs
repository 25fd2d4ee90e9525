//! What goes back to the runtime: results and errors of the specification, and the one place that writes standard output.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::spec::{self, SpecVersion};

/// A result (specification 1.0.0, section "Success"). Keys that 1.0.0 does not have are left out of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Success {
    /// The version of the configuration.
    pub(crate) cni_version: String,
    #[serde(default)]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(default)]
    pub(crate) ips: Vec<Ip>,
    #[serde(default)]
    pub(crate) routes: Vec<Route>,
    #[serde(default)]
    pub(crate) dns: Value,
}

/// An interface that ADD made or used.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) mac: String,
    /// `CNI_NETNS` for the container's; the host's have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
}

/// An address of an interface.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ip {
    /// Index into `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
    pub(crate) address: Ipv4Network,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// A route inside the container.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: Ipv4Network,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<Ipv4Addr>,
}

/// What a command that succeeded has to say.
pub(crate) enum Reply {
    /// DEL, CHECK, GC and STATUS: nothing at all.
    Nothing,
    /// ADD.
    Added(Success),
    /// VERSION, with the question's own `cniVersion`.
    Versions(String),
}

impl Reply {
    fn json(&self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Added(success) => Some(serde_json::to_value(success).unwrap_or_default()),
            Self::Versions(version) => Some(json!({
                "cniVersion": version,
                "supportedVersions": spec::SUPPORTED.iter().map(|version| version.as_str()).collect::<Vec<_>>(),
            })),
        }
    }
}

/// The error object (section "Error"); `version` is the configuration's, where it could be read.
pub(crate) fn error(version: SpecVersion, error: &Error) -> Value {
    json!({
        "cniVersion": version.as_str(),
        "code": error.code(),
        "msg": format!("failed to {error}"),
        "details": error.remedy(),
    })
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
    use super::*;

    #[test]
    fn a_result_has_the_shape_of_1_0_0() {
        let success = Success {
            cni_version: "1.0.0".into(),
            interfaces: vec![
                Interface { name: "fn-01234567".into(), mac: "02:00:00:00:00:01".into(), sandbox: String::new() },
                Interface { name: "eth0".into(), mac: "0a:57:0a:57:01:02".into(), sandbox: "/run/netns/web".into() },
            ],
            ips: vec![Ip {
                interface: Some(1),
                address: "10.87.1.2/24".parse().expect("an address"),
                gateway: Some(Ipv4Addr::new(10, 87, 1, 1)),
            }],
            routes: vec![Route { dst: "0.0.0.0/0".parse().expect("a destination"), gw: None }],
            dns: json!({}),
        };
        let json = Reply::Added(success).json().expect("a result");
        insta::assert_snapshot!(serde_json::to_string_pretty(&json).expect("text"));
    }

    #[test]
    fn versions_echo_the_question() {
        let json = Reply::Versions("0.4.0".into()).json().expect("a reply");
        insta::assert_snapshot!(json, @r#"{"cniVersion":"0.4.0","supportedVersions":["1.0.0"]}"#);
    }

    #[test]
    fn an_error_is_one_object() {
        let error = error(SpecVersion::V1_0_0, &Error::Version { asked: "9.9.9".into() });
        insta::assert_snapshot!(error, @r#"{"cniVersion":"1.0.0","code":1,"msg":"failed to speak CNI version \"9.9.9\"","details":"set cniVersion to one of 1.0.0"}"#);
    }
}
