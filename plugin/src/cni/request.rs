//! What a CNI runtime asks: the environment and standard input, checked and typed.
//!
//! Nothing here has a side effect beyond reading standard input, so every refusal leaves the machine as it was.

mod input;
pub(crate) mod json;
pub(crate) mod requested;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) use self::input::{Input, read_stdin, version_to_answer};
use crate::attachment::{Args, Target};
use crate::error::{Error, Result};
use crate::names::{container_problem, interface_name_problem};
use crate::spec::Command;

/// The variables of the specification that are set and not empty; the reference takes an empty one for one that is not set.
#[derive(Debug)]
pub(crate) struct Environment(HashMap<&'static str, OsString>);

impl Environment {
    /// Takes them from the process's environment.
    pub(crate) fn read() -> Self {
        Self::of(|key| std::env::var_os(key))
    }

    /// Takes them from whoever knows each by its name.
    pub(crate) fn of(value: impl Fn(&str) -> Option<OsString>) -> Self {
        const KNOWN: [&str; 6] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];
        let value = |key: &str| value(key).filter(|value| !value.is_empty());
        Self(KNOWN.into_iter().filter_map(|key| Some((key, value(key)?))).collect())
    }

    /// Errors: 4 where it is not a CNI command.
    pub(crate) fn command(&self) -> Result<Command> {
        let text = self.0.get("CNI_COMMAND").map(|text| text.to_string_lossy()).unwrap_or_default();
        Command::parse(&text).ok_or_else(|| {
            let problem = format!("is {text:?}, not one of ADD, DEL, CHECK, GC, STATUS, VERSION");
            Error::Environment { problems: vec![("CNI_COMMAND", problem)] }
        })
    }

    /// The attachment that `command` is about. Errors: 4 naming everything that is missing or malformed.
    pub(crate) fn target(&self, command: Command) -> Result<Target> {
        let mut problems = Vec::new();
        let container = self.required("CNI_CONTAINERID", container_problem, &mut problems);
        let interface = self.required("CNI_IFNAME", interface_name_problem, &mut problems);
        let mut netns = String::new();
        if matches!(command, Command::Add | Command::Check) {
            netns = self.required("CNI_NETNS", |_| None, &mut problems);
        }
        let mut args = Args::default();
        if command == Command::Add {
            let parsed = self.text("CNI_ARGS").and_then(|text| Args::parse(text.unwrap_or_default()));
            args = parsed.unwrap_or_else(|problem| {
                problems.push(("CNI_ARGS", problem));
                Args::default()
            });
        }
        if problems.is_empty() {
            Ok(Target { container, interface, netns: netns.into(), args })
        } else {
            Err(Error::Environment { problems })
        }
    }

    /// GC must be told where the plugins are, as it passes the command on to those it delegates to. Errors: 4.
    pub(crate) fn require_path(&self) -> Result<()> {
        let mut problems = Vec::new();
        self.required("CNI_PATH", |_| None, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(Error::Environment { problems }) }
    }

    /// The folders in which plugins are, in order. Errors: 4 where none is named.
    pub(crate) fn plugin_folders(&self) -> Result<Vec<PathBuf>> {
        self.require_path()?;
        let path = self.0.get("CNI_PATH").map(OsString::as_os_str).unwrap_or_default();
        Ok(std::env::split_paths(path).filter(|folder| !folder.as_os_str().is_empty()).collect())
    }

    /// The variable's text; the error follows its name.
    fn text(&self, key: &str) -> Result<Option<&str>, String> {
        self.0.get(key).map(|value| value.to_str().ok_or("is not UTF-8".to_owned())).transpose()
    }

    fn required(
        &self,
        key: &'static str,
        problem_of: fn(&str) -> Option<String>,
        problems: &mut Vec<(&'static str, String)>,
    ) -> String {
        let checked = self.text(key).and_then(|value| {
            let value = value.ok_or("is not set")?;
            problem_of(value).map_or(Ok(value.to_owned()), Err)
        });
        checked.unwrap_or_else(|problem| {
            problems.push((key, problem));
            String::new()
        })
    }
}

impl Args {
    /// Reads `K=V;K=V`. The error says what is wrong, to follow the variable's name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let (mut ignore_unknown, mut host_name) = (false, None);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("has {pair:?}, which is not KEY=VALUE"))?;
            match key {
                // An empty request is none.
                "IP" | "MAC" | "K8S_POD_NAME" | "NERDCTL_CNI_DHCP_HOSTNAME" if value.is_empty() => {}
                "IgnoreUnknown" => ignore_unknown = parse_boolean(key, value)?,
                "IP" => args.ips = parse_ips(value)?,
                "MAC" => {
                    args.mac = Some(value.parse().map_err(|problem| format!("has MAC={value}, which {problem}"))?);
                }
                "K8S_POD_NAME" => args.name = Some(value.to_owned()),
                "NERDCTL_CNI_DHCP_HOSTNAME" => host_name = Some(value.to_owned()),
                _ => unknown.push(key),
            }
        }
        args.name = args.name.or(host_name);
        if unknown.is_empty() || ignore_unknown {
            return Ok(args);
        }
        Err(format!("has {}, which flatnet does not know, but not IgnoreUnknown=1", unknown.join(", ")))
    }
}

/// Reads a boolean as libcni does.
fn parse_boolean(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("has {key}={value}, which is none of 1, true, 0 and false")),
    }
}

/// Reads addresses with commas between them, each with or without a prefix length.
fn parse_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut ips = Vec::new();
    for one in text.split(',') {
        let ip = requested::parse_ip(one.trim()).ok_or_else(|| format!("has IP={text}, which is not an IP address"))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::mac::Mac;

    #[rstest]
    #[case::empty("", Ok(Args::default()))]
    #[case::podman(
        "IgnoreUnknown=1;K8S_POD_NAME=web",
        Ok(Args { name: Some("web".into()), ..Args::default() })
    )]
    #[case::nerdctl(
        "NERDCTL_CNI_DHCP_HOSTNAME=web;IgnoreUnknown=1",
        Ok(Args { name: Some("web".into()), ..Args::default() })
    )]
    #[case::both_names(
        "K8S_POD_NAME=web;NERDCTL_CNI_DHCP_HOSTNAME=host",
        Ok(Args { name: Some("web".into()), ..Args::default() })
    )]
    #[case::empty_host_name("NERDCTL_CNI_DHCP_HOSTNAME=", Ok(Args::default()))]
    #[case::address("IP=10.87.1.9", Ok(Args { ips: vec!["10.87.1.9".parse().expect("an address")], ..Args::default() }))]
    #[case::address_with_prefix("IP=10.87.1.9/24", Ok(Args { ips: vec!["10.87.1.9".parse().expect("an address")], ..Args::default() }))]
    #[case::empty_request("IP=;MAC=;K8S_POD_NAME=", Ok(Args::default()))]
    #[case::unknown_ignored("FOO=1;IgnoreUnknown=true", Ok(Args::default()))]
    #[case::unknown_ignored_in_capitals("FOO=1;IgnoreUnknown=True", Ok(Args::default()))]
    #[case::unknown("FOO=1", Err("FOO"))]
    #[case::unknown_not_ignored("FOO=1;IgnoreUnknown=0", Err("FOO"))]
    #[case::unknown_not_ignored_in_words("FOO=1;IgnoreUnknown=FALSE", Err("FOO"))]
    #[case::known("IgnoreUnknown=False;IP=10.87.1.9", Ok(Args { ips: vec!["10.87.1.9".parse().expect("an address")], ..Args::default() }))]
    #[case::no_boolean("FOO=1;IgnoreUnknown=yes", Err("IgnoreUnknown=yes"))]
    #[case::mac_in_dots("MAC=0200.0000.0012", Ok(Args { mac: Some(Mac([2, 0, 0, 0, 0, 0x12])), ..Args::default() }))]
    #[case::no_value("IP", Err("KEY=VALUE"))]
    #[case::bad_address("IP=10.87.1", Err("IP=10.87.1"))]
    #[case::bad_mac("MAC=zz", Err("MAC=zz"))]
    fn args(#[case] text: &str, #[case] expected: Result<Args, &str>) {
        match (Args::parse(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(problem), Err(words)) => assert!(problem.contains(words), "{problem}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}
