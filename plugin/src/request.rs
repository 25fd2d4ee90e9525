//! What a CNI runtime asks: the environment and standard input, checked and typed.
//!
//! Nothing here has a side effect beyond reading standard input, so every refusal leaves the machine as it was.

pub(crate) mod asked;
mod input;
pub(crate) mod json;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

pub(crate) use self::input::{Input, read_stdin, version_to_answer};
use crate::error::{Error, Result};
use crate::mac::Mac;
use crate::spec::SpecVersion;

/// An interface name has 15 bytes at most: IFNAMSIZ counts the closing NUL.
const INTERFACE_NAME_MAX_BYTES: usize = 15;

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "ADD" => Some(Self::Add),
            "DEL" => Some(Self::Del),
            "CHECK" => Some(Self::Check),
            "GC" => Some(Self::Gc),
            "STATUS" => Some(Self::Status),
            "VERSION" => Some(Self::Version),
            _ => None,
        }
    }

    /// The version that brought the command.
    fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_1_0,
            Self::Check => SpecVersion::V0_4_0,
            Self::Gc | Self::Status => SpecVersion::V1_1_0,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        })
    }
}

/// `CNI_ARGS`, the keys that flatnet knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    /// `IP`: the addresses that were asked for, each once.
    pub(crate) ips: Vec<IpAddr>,
    /// `MAC`: the hardware address that was asked for.
    pub(crate) mac: Option<Mac>,
    /// `K8S_POD_NAME`, where Podman puts the container's name, or else `NERDCTL_CNI_DHCP_HOSTNAME`, where nerdctl puts its host name.
    pub(crate) name: Option<String>,
}

/// One attachment, as the environment names it. A command that does not need a field leaves it empty.
#[derive(Debug)]
pub(crate) struct Target {
    /// `CNI_CONTAINERID`, never empty.
    pub(crate) container: String,
    /// `CNI_IFNAME`, a valid interface name.
    pub(crate) interface: String,
    /// `CNI_NETNS`; DEL may come without it, and has no use for it.
    pub(crate) netns: PathBuf,
    /// `CNI_ARGS`, which only ADD has a use for: what it refused must not keep DEL from cleaning up.
    pub(crate) args: Args,
}

/// The variables of the specification that are set and not empty; the reference takes an empty one for one that is not set.
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
        Err(format!("has {}, which flatnet does not know, without IgnoreUnknown=1", unknown.join(", ")))
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
        let ip = asked::parse_ip(one.trim()).ok_or_else(|| format!("has IP={text}, which is not an IP address"))?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

/// The pattern of container ids and network names (section "Parameters"): `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub(crate) fn container_problem(text: &str) -> Option<String> {
    let problem = || format!("is {text:?}, but must start with a letter or digit and hold only letters, digits, _ . -");
    (!is_identifier(text)).then(problem)
}

/// Why the kernel would refuse `text` as an interface name, to follow a name: "is ...", "has ...".
pub(crate) fn interface_name_problem(text: &str) -> Option<String> {
    let problem = if text.is_empty() {
        // The kernel would take that for "any name will do".
        "is empty".to_owned()
    } else if text.len() > INTERFACE_NAME_MAX_BYTES {
        format!("has {} bytes, but an interface name has {INTERFACE_NAME_MAX_BYTES} at most", text.len())
    } else if matches!(text, "." | ".." | "all" | "default") {
        format!("is {text:?}, which the kernel refuses as an interface name")
    } else if text.bytes().any(is_refused_in_names) {
        format!("is {text:?}, but an interface name holds no slash, colon, percent sign or white space")
    } else {
        return None;
    };
    Some(problem)
}

/// To the kernel `%` is a format to be filled in, and 0xA0 white space, also inside a character of UTF-8.
fn is_refused_in_names(byte: u8) -> bool {
    matches!(byte, b'/' | b':' | b'%' | 0xa0) || byte.is_ascii_whitespace() || byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::letter("a", true)]
    #[case::digit("0abc", true)]
    #[case::all_kinds("a_b.c-D9", true)]
    #[case::empty("", false)]
    #[case::leading_dash("-a", false)]
    #[case::leading_dot(".a", false)]
    #[case::slash("a/b", false)]
    #[case::space("a b", false)]
    #[case::not_ascii("\u{e9}", false)]
    fn identifiers(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(is_identifier(text), valid);
    }

    #[rstest]
    #[case::usual("eth0", true)]
    #[case::longest("a23456789012345", true)]
    #[case::empty("", false)]
    #[case::too_long("a234567890123456", false)]
    #[case::dot(".", false)]
    #[case::dots("..", false)]
    #[case::slash("a/b", false)]
    #[case::colon("eth0:1", false)]
    #[case::space("eth 0", false)]
    #[case::tab("eth\t0", false)]
    #[case::format("eth%d", false)]
    #[case::all("all", false)]
    #[case::default("default", false)]
    #[case::kernel_white_space("\u{e0}", false)]
    #[case::not_ascii("\u{e9}0", true)]
    fn interface_names(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(interface_name_problem(text).is_none(), valid);
    }

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
