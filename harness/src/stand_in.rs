//! A stand-in for an IPAM plugin: gives what it is told to, refuses what it is told to, and notes what it is asked.
//!
//! Invariant: it keeps the rules of CNI in whatever version it is asked in, so whatever goes wrong is its caller's.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::conformance::Version;

/// Where they are; nothing counts as left over there.
pub const FOLDER: &str = "/run/harness/stand-ins";

/// Before that version a result had one address of each family.
const LISTS: &str = "0.3.0";
/// From that version on an address does not say its family.
const NO_FAMILY: &str = "1.0.0";

/// What it does.
#[derive(Clone, Debug, Default)]
pub struct StandIn {
    /// The type that it is asked by.
    pub name: String,
    /// The version that it answers in.
    pub version: String,
    /// What its ADD gives.
    pub addresses: Vec<IpNetwork>,
    /// The routes of its ADD; of those, it gives the ones of the families that it gives addresses of.
    pub routes: Vec<Value>,
    /// The commands that it refuses, and with which code.
    pub refuses: BTreeMap<String, u32>,
}

/// What it was asked since it was made, or since that was last read.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The commands, in order.
    pub commands: Vec<String>,
    /// The variables of CNI in the last one, each as `NAME=value`.
    pub environment: Vec<String>,
    /// What came in with the last one.
    pub stdin: String,
}

/// NAME stands for its name. VERSION is no question: some callers ask it before anything else.
const SCRIPT: &str = r#"#!/bin/sh
if [ "$CNI_COMMAND" = VERSION ]; then
    echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}'
    exit
fi
cd 'FOLDER/NAME.notes' || exit 1
echo "$CNI_COMMAND" >>commands
env | grep ^CNI_ | sort >environment
cat >stdin
echo 'NAME warns' >&2
if [ -e "refuses-$CNI_COMMAND" ]; then
    cat "refuses-$CNI_COMMAND"
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || cat answer
"#;

impl StandIn {
    /// Puts it where it is found by, in the place of one of that name.
    pub fn write(&self) -> Result<()> {
        if !is_plain(&self.name) {
            bail!("name a stand-in {}: that is no name of a file", self.name);
        }
        let (script, notes) = (PathBuf::from(FOLDER).join(&self.name), notes(&self.name));
        drop(fs::remove_dir_all(&notes));
        fs::create_dir_all(&notes).context("make the folder of a stand-in")?;
        let put = |name: &str, text: &Value| fs::write(notes.join(name), format!("{text}\n"));
        put("answer", &self.answer()?).context("write what a stand-in answers")?;
        for (command, code) in &self.refuses {
            let msg = format!("{} refuses {command} today", self.name);
            let refusal = json!({ "cniVersion": self.version, "code": code, "msg": msg });
            put(&format!("refuses-{command}"), &refusal).context("write what a stand-in refuses")?;
        }
        let text = SCRIPT.replace("FOLDER", FOLDER).replace("NAME", &self.name);
        fs::write(&script, text).context("write a stand-in")?;
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).context("make a stand-in executable")
    }

    /// The result of its ADD, in the shape of its version.
    fn answer(&self) -> Result<Value> {
        let version = Version::parse(&self.version).with_context(|| format!("read the version {}", self.version))?;
        let before = |than: &str| Version::parse(than).is_some_and(|than| version < than);
        let mut answer = Map::new();
        answer.insert("cniVersion".to_owned(), json!(self.version));
        if before(LISTS) {
            for address in &self.addresses {
                let key = format!("ip{}", family(address));
                let routes: Vec<_> = self.routes.iter().filter(|route| goes_with(route, address)).collect();
                answer.insert(key, json!({ "ip": address, "gateway": gateway(address), "routes": routes }));
            }
            return Ok(Value::Object(answer));
        }
        let ip = |address: &IpNetwork| {
            let mut ip = json!({ "address": address, "gateway": gateway(address) });
            if before(NO_FAMILY) {
                ip["version"] = family(address).into();
            }
            ip
        };
        answer.insert("ips".to_owned(), self.addresses.iter().map(ip).collect());
        let routes = self.routes.iter().filter(|route| self.addresses.iter().any(|address| goes_with(route, address)));
        answer.insert("routes".to_owned(), routes.cloned().collect());
        Ok(Value::Object(answer))
    }
}

impl Asked {
    /// What the stand-in of that name has noted; it begins anew.
    pub fn take(name: &str) -> Result<Self> {
        let notes = notes(name);
        if !notes.is_dir() {
            bail!("find a stand-in named {name}");
        }
        let read = |note: &str| fs::read_to_string(notes.join(note)).unwrap_or_default();
        let lines = |note: &str| read(note).lines().map(str::to_owned).collect();
        let asked = Self { commands: lines("commands"), environment: lines("environment"), stdin: read("stdin") };
        for note in ["commands", "environment", "stdin"] {
            drop(fs::remove_file(notes.join(note)));
        }
        Ok(asked)
    }
}

fn notes(name: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(format!("{name}.notes"))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
}

fn family(address: &IpNetwork) -> &'static str {
    if address.is_ipv4() { "4" } else { "6" }
}

/// Whether both are of one family.
fn goes_with(route: &Value, address: &IpNetwork) -> bool {
    route.get("dst").and_then(Value::as_str).is_some_and(|to| to.contains(':')) == address.is_ipv6()
}

/// The first address of the subnet.
fn gateway(address: &IpNetwork) -> Option<IpAddr> {
    let subnet = IpNetwork::new(address.network(), address.prefix()).ok()?;
    subnet.iter().nth(1)
}

#[cfg(test)]
mod tests {
    use super::StandIn;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("0.2.0", json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.9/24", "gateway": "10.1.0.1", "routes": []}}))]
    #[case("0.4.0", json!({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.9/24", "gateway": "10.1.0.1"}], "routes": []}))]
    #[case("1.0.0", json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.9/24", "gateway": "10.1.0.1"}], "routes": []}))]
    fn an_answer_has_the_shape_of_its_version(#[case] version: &str, #[case] expected: Value) {
        let addresses = vec!["10.1.0.9/24".parse().unwrap()];
        let it = StandIn { version: version.to_owned(), addresses, ..StandIn::default() };
        assert_eq!(it.answer().unwrap(), expected);
    }
    #[rstest]
    #[case("1.0.0", &["10.1.0.9/24"], json!([{"dst": "10.99.0.0/16"}]))]
    #[case("1.0.0", &["fd01::9/64"], json!([{"dst": "fd99::/64"}]))]
    #[case("1.0.0", &["fd01::9/64", "10.1.0.9/24"], json!([{"dst": "10.99.0.0/16"}, {"dst": "fd99::/64"}]))]
    #[case("1.0.0", &[], json!([]))]
    fn routes_go_with_addresses(#[case] version: &str, #[case] addresses: &[&str], #[case] expected: Value) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let routes = vec![json!({"dst": "10.99.0.0/16"}), json!({"dst": "fd99::/64"})];
        let it = StandIn { version: version.to_owned(), addresses, routes, ..StandIn::default() };
        assert_eq!(it.answer().unwrap()["routes"], expected);
    }
}
