//! Requests that nobody should make: each thing that flatnet reads, by each value that has ever been trouble to a program.
//!
//! Invariant: each differs from a request that succeeds in the one thing that it is named after, so that what is refused is that.

mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde_json::{Value, json};

use crate::plugin::environment;
use crate::scenario::Network;
use crate::seeds::{self, Seed};
use values::{ADDRESSES, BODIES, JSON, Repeat, SEGMENTS, texts};

/// The container that all of them are about.
pub const CONTAINER: &str = "victim";

/// Its network namespace.
pub const NETNS: &str = "/run/netns/victim";

/// Where the values that try to leave their folder lead: nothing may ever be there.
pub const BAIT: &str = "hostile-bait";

/// One of them.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is wrong with it.
    pub name: String,
    /// Netavark's verb and its argument; for a runtime of CNI, nothing.
    pub arguments: Vec<OsString>,
    /// The whole environment but for `PATH`.
    pub env: BTreeMap<OsString, OsString>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// The codes with which it may be refused.
    pub codes: &'static [u32],
    /// Whether it may succeed as well: some values are odd and yet nobody's harm.
    pub may_succeed: bool,
    /// Whether the bridge that stays may then be another one than the network's.
    pub lasts: bool,
}

/// All of them, for that network.
pub fn requests(network: &Network) -> Vec<Request> {
    let mut all = Vec::new();
    of_environment(network, &mut all);
    of_configuration(network, &mut all);
    of_bodies(network, &mut all);
    of_netavark(network, &mut all);
    all
}

/// The same, for fuzzing to begin with.
pub(crate) fn seeds(network: &Network) -> Vec<Seed> {
    let of = |request: &Request| {
        if request.arguments.is_empty() {
            seeds::of_cni(&request.env, &request.stdin)
        } else {
            std::str::from_utf8(&request.stdin).map(seeds::of_netavark).unwrap_or_default()
        }
    };
    requests(network).iter().flat_map(of).collect()
}

/// An ADD and its DEL with nothing odd about them.
pub fn harmless(network: &Network) -> [Request; 2] {
    ["ADD", "DEL"].map(|command| Request {
        name: format!("{command} as it should be"),
        arguments: Vec::new(),
        env: base(command),
        stdin: network.to_json().into_bytes(),
        codes: &[],
        may_succeed: true,
        lasts: false,
    })
}

/// The request that an attempt's namesake would be: what takes back what it has made.
pub fn undoing(request: &Request, network: &Network) -> Request {
    let mut request = Request { name: format!("DEL after {}", request.name), ..request.clone() };
    if request.arguments.is_empty() {
        request.env.insert("CNI_COMMAND".into(), "DEL".into());
        request.env.remove(OsStr::new("CNI_ARGS"));
        let is_json = serde_json::from_slice::<Value>(&request.stdin).is_ok_and(|it| it.is_object());
        if !is_json {
            request.stdin = network.to_json().into_bytes();
        }
    } else {
        request.arguments[0] = "teardown".into();
    }
    request
}

fn base(command: &str) -> BTreeMap<OsString, OsString> {
    let args = "IgnoreUnknown=1;K8S_POD_NAME=victim";
    let env = environment(command, CONTAINER, Some(NETNS.as_ref()), "eth0", Some(args), "/opt/cni/bin");
    env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Every variable and every part of `CNI_ARGS`, of the verbs that read them.
fn of_environment(network: &Network, all: &mut Vec<Request>) {
    let variables: [(&str, &str, &[u32]); 9] = [
        ("CNI_COMMAND", "", &[4]),
        ("CNI_CONTAINERID", "", &[4]),
        ("CNI_NETNS", "", &[4, 8]),
        ("CNI_IFNAME", "", &[4, 103]),
        ("CNI_ARGS", "", &[4]),
        ("CNI_ARGS", "IP=", &[4]),
        ("CNI_ARGS", "IgnoreUnknown=1;MAC=", &[4]),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=", &[4]),
        ("CNI_PATH", "", &[]),
    ];
    for command in ["ADD", "DEL"] {
        for (variable, before, codes) in variables {
            // To DEL neither the rest of the arguments nor the path means anything, and an ADD has tried the command.
            if command == "DEL" && (variable == "CNI_ARGS" && !before.is_empty() || variable == "CNI_COMMAND") {
                continue;
            }
            for (name, text) in texts() {
                let mut env = base(command);
                env.insert(variable.into(), OsString::from_vec([before.as_bytes(), &text].concat()));
                all.push(Request {
                    name: format!("{command} with {variable} = {before}{name}"),
                    arguments: Vec::new(),
                    env,
                    stdin: network.to_json().into_bytes(),
                    codes,
                    may_succeed: may_stand(command, variable, &text),
                    lasts: false,
                });
            }
        }
    }
}

/// Whether a call with such a value may be done: ADD takes nobody's name that the specification or the kernel has not.
fn may_stand(command: &str, variable: &str, text: &[u8]) -> bool {
    let of_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    match (command, variable) {
        (_, "CNI_COMMAND") | ("ADD", "CNI_NETNS") => false,
        ("ADD", "CNI_CONTAINERID") => text.first().is_some_and(u8::is_ascii_alphanumeric) && text.iter().all(of_id),
        ("ADD", "CNI_IFNAME") => {
            (1..16).contains(&text.len()) && !text.iter().any(|byte| b"/:".contains(byte) || byte.is_ascii_whitespace())
        }
        _ => true,
    }
}

/// The keys of the configuration, and the codes with which each may be refused.
const KEYS: [(&str, &[u32]); 48] = [
    ("cniVersion", &[1, 7]),
    ("name", &[7]),
    ("type", &[]),
    ("bridge", &[7, 105]),
    ("mtu", &[7]),
    ("ipMasq", &[2, 7]),
    ("ipMasqBackend", &[2, 7]),
    ("isGateway", &[7]),
    ("isDefaultGateway", &[7]),
    ("forceAddress", &[7]),
    ("hairpinMode", &[7]),
    ("promiscMode", &[7]),
    ("portIsolation", &[7]),
    ("vlan", &[7, 100]),
    ("vlanTrunk", &[2, 7, 100]),
    ("preserveDefaultVlan", &[7]),
    ("macspoofchk", &[7]),
    ("disableContainerInterface", &[7]),
    ("enabledad", &[7]),
    ("gateways", &[7]),
    ("ipam", &[2, 7]),
    ("ipam.type", &[2, 7, 110]),
    ("ipam.subnet", &[7, 100, 105]),
    ("ipam.gateway", &[7, 105]),
    ("ipam.rangeStart", &[7]),
    ("ipam.rangeEnd", &[7]),
    ("ipam.ranges", &[7]),
    ("ipam.exclude", &[7]),
    ("ipam.routes", &[7]),
    ("ipam.resolvConf", &[7]),
    ("ipam.dataDir", &[2, 7]),
    ("dns", &[2, 7]),
    ("dns.nameservers", &[7]),
    ("dns.domain", &[7]),
    ("prevResult", &[7]),
    ("prevResult.interfaces", &[7]),
    ("prevResult.ips", &[7]),
    ("prevResult.dns", &[7]),
    ("runtimeConfig", &[7]),
    ("runtimeConfig.ips", &[7]),
    ("runtimeConfig.mac", &[7]),
    ("runtimeConfig.ipRanges", &[7]),
    ("args", &[7]),
    ("args.cni", &[7]),
    ("args.cni.ips", &[7]),
    ("args.cni.mac", &[7]),
    ("cni.dev/attachments", &[]),
    ("no-such-key", &[2]),
];

/// Every key of the configuration.
fn of_configuration(network: &Network, all: &mut Vec<Request>) {
    for (key, codes) in KEYS {
        let addresses = ADDRESSES.iter().map(|text| (format!("{text:?}"), format!("{text:?}")));
        let addresses = addresses.filter(|_| key.starts_with("ipam.") || key == "dns.nameservers");
        let names =
            quoted_texts().filter(|_| matches!(key, "cniVersion" | "name" | "bridge" | "ipam.type" | "dns.domain"));
        let json = JSON.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        for (name, text) in json.chain(SEGMENTS.iter().map(Repeat::spelt)).chain(addresses).chain(names) {
            let stdin = with_raw(network, key, &text);
            all.push(Request {
                name: format!("ADD with {key} = {name}"),
                arguments: Vec::new(),
                env: base("ADD"),
                stdin: stdin.into_bytes(),
                // What is no JSON to begin with is told as that.
                codes: if serde_json::from_str::<Value>(&text).is_err() { &[6] } else { codes },
                may_succeed: key != "no-such-key",
                lasts: true,
            });
        }
    }
}

/// Whole inputs, to every verb.
fn of_bodies(network: &Network, all: &mut Vec<Request>) {
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        for body in BODIES {
            let stdin = (body.made)(&network.to_json());
            let is_object = serde_json::from_slice::<Value>(&stdin).is_ok_and(|it| it.is_object());
            all.push(Request {
                name: format!("{command} with {} on standard input", body.name),
                arguments: Vec::new(),
                env: base(command),
                stdin,
                codes: &[1, 2, 5, 6, 7],
                // DEL goes by what is attached, and VERSION by nothing.
                may_succeed: is_object || matches!(command, "DEL" | "VERSION"),
                lasts: false,
            });
        }
    }
}

/// What netavark sends: the keys of a request, and the ports in it.
fn of_netavark(network: &Network, all: &mut Vec<Request>) {
    const KEYS: [&str; 15] = [
        "container_id",
        "container_name",
        "network.name",
        "network.network_interface",
        "network.subnets",
        "network.ipv6_enabled",
        "network.routes",
        "network.options",
        "network_options.interface_name",
        "network_options.static_ips",
        "network_options.static_mac",
        "network_options.options",
        "port_mappings",
        "network",
        "network_options",
    ];
    let request = json!({
        "container_id": CONTAINER, "container_name": CONTAINER, "port_mappings": null,
        "network": {
            "name": network.name(), "network_interface": network.bridge(), "driver": "flatnet",
            "subnets": network.subnets_of_podman(),
        },
        "network_options": { "interface_name": "eth0", "static_ips": null, "static_mac": null },
    });
    let Value::Object(request) = request else { return };
    let request = Network::new(request);
    for key in KEYS {
        for (name, text) in
            JSON.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).chain(quoted_texts())
        {
            all.push(Request {
                name: format!("setup with {key} = {name}"),
                arguments: ["setup", NETNS].map(OsString::from).to_vec(),
                env: BTreeMap::new(),
                stdin: with_raw(&request, key, &text).into_bytes(),
                codes: &[],
                may_succeed: true,
                lasts: key.starts_with("network"),
            });
        }
    }
}

/// The texts as JSON has them, as far as it can.
fn quoted_texts() -> impl Iterator<Item = (String, String)> {
    texts().into_iter().filter_map(|(name, text)| {
        let text = String::from_utf8(text).ok()?;
        Some((name.to_owned(), Value::String(text).to_string()))
    })
}

/// The configuration with a text at `key` that need not be JSON.
fn with_raw(network: &Network, key: &str, text: &str) -> String {
    const PLACE: &str = "in place of this";
    let mut network = network.clone();
    network.set(key, Value::String(PLACE.to_owned()));
    network.to_json().replace(&format!("{PLACE:?}"), text)
}

impl Request {
    /// What it asks for: a command of CNI's, or a verb of netavark's.
    pub fn command(&self) -> Cow<'_, str> {
        let command = self.arguments.first().or_else(|| self.env.get(OsStr::new("CNI_COMMAND")));
        command.map(|command| command.to_string_lossy()).unwrap_or_default()
    }

    /// Its environment and standard input, for a person to read.
    pub fn shown(&self) -> String {
        const SHOWN_BYTES: usize = 400;
        let cut = |bytes: &[u8]| {
            let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
            let more = if shown.len() < bytes.len() { format!(" .. ({} bytes)", bytes.len()) } else { String::new() };
            format!("{}{more}", shown.escape_ascii())
        };
        let variable = |(name, value): (&OsString, &OsString)| format!("{}={}", name.display(), cut(value.as_bytes()));
        let mut lines: Vec<_> = self.env.iter().map(variable).collect();
        lines.push(cut(&self.stdin));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::requests;
    use crate::scenario::Network;

    #[test]
    fn each_has_a_name_of_its_own() {
        let all = requests(&Network::shipped().unwrap());
        let names: BTreeSet<_> = all.iter().map(|request| &request.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() > 500, "{}", all.len());
    }
}
