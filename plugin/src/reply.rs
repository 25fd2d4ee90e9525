//! What goes back to the runtime: results and errors of the specification, and the one place that writes standard output.

#[cfg(test)]
mod published;
mod success;

use std::io::{self, Write};

use serde_json::{Value, json};

pub(crate) use self::success::{Dns, Interface, Ip, Route, Success};
use crate::error::{Error, Result};
use crate::spec::{self, SpecVersion};

/// Where an error's text is cut: more nobody reads, and a runtime may print all of it.
const TEXT_MAX_BYTES: usize = 4000;

/// What a command that succeeded has to say.
pub(crate) enum Reply {
    /// DEL, CHECK, GC and STATUS: nothing at all.
    Nothing,
    /// ADD: its result, in the shape of the configuration's version.
    Added(Value),
    /// VERSION, with the question's own `cniVersion`.
    Versions(String),
}

impl Reply {
    fn json(&self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Added(result) => Some(result.clone()),
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
        "msg": one_line(&error.to_string()),
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

    /// With all that a result can have.
    fn success() -> Success {
        let host = Interface {
            name: "fn-01234567".into(),
            mac: "02:00:00:00:00:01".into(),
            socket_path: Some("/run/socket".into()),
            pci_id: Some("0000:00:1f.6".into()),
            ..Interface::default()
        };
        let eth0 = Interface {
            name: "eth0".into(),
            mac: "0a:57:0a:57:01:02".into(),
            mtu: Some(1500),
            sandbox: "/run/netns/web".into(),
            ..Interface::default()
        };
        let ip = |address: &str, gateway: &str| Ip {
            interface: Some(1),
            address: address.parse().expect("an address"),
            gateway: gateway.parse().ok(),
        };
        let route = |dst: &str| Route::to(dst.parse().expect("a destination"));
        Success {
            interfaces: vec![host, eth0],
            ips: vec![ip("10.87.1.2/24", "10.87.1.1"), ip("10.87.2.2/24", ""), ip("fd00::2/64", "fd00::1")],
            routes: vec![
                route("0.0.0.0/0"),
                Route { gw: "10.87.1.1".parse().ok(), mtu: Some(1400), advmss: Some(1360), ..route("10.9.0.0/16") },
                Route { priority: Some(100), table: Some(1000), scope: Some(0), ..route("::/0") },
            ],
            dns: Dns { nameservers: vec!["10.0.0.53".into()], domain: "lan".into(), ..Dns::default() },
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
        let json = success().json(version);
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
        insta::assert_snapshot!(error, @r#"{"cniVersion":"1.0.0","code":1,"msg":"unsupported CNI version \"9.9.9\"","details":"set cniVersion to one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"}"#);
    }
}
