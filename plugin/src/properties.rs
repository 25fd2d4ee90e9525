//! What is true of any input whatever: the fuzz targets of `plugin/fuzz` search for one that breaks it, the tests replay all that they kept.
//!
//! Only what validates is called here: nothing is done, so nothing has to be undone. A promise that does not hold is a panic.

#![expect(clippy::missing_panics_doc, reason = "to panic where a promise does not hold is what all of this is for")]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::command;
use crate::config::{Configured, Network};
use crate::error::Error;
use crate::ipam::lease::{self, Attachment};
use crate::ipam::pool::{Pools, Range};
use crate::netavark;
use crate::reply;
use crate::request::{Args, Environment, Input, Target, interface_name_problem, is_identifier};
use crate::spec;

/// The longest text that an error may have: it ends up in a log, or on somebody's screen.
const TEXT_MAX_BYTES: usize = 8 << 10;
/// IFALIASZ of linux/if.h without its closing NUL.
const ALIAS_MAX_BYTES: usize = 255;

/// A CNI runtime's request: variables as in `/proc/<pid>/environ`, each ended by a NUL, then an empty one, then standard input.
pub fn request(data: &[u8]) {
    let (variables, stdin) = split_at_empty(data);
    let environment = Environment::of(|key| value_of(&variables, key));
    let Ok(text) = std::str::from_utf8(stdin) else { return };
    match environment.command() {
        Err(error) => refused(&error, &[4]),
        Ok(command) => match Input::read(command, text) {
            Err(error) => refused(&error, &[6, 7]),
            Ok(config) => command::properties::request(command, &environment, config),
        },
    }
}

/// A network configuration as a CNI runtime sends it.
pub fn config(data: &[u8]) {
    let Some(config) = object(data) else { return };
    match Configured::parse(&config) {
        Err(error) => refused(&error, &[2, 7]),
        Ok(configured) => {
            can_be_built(&configured);
            let again = |config: Map<String, Value>| {
                let text = Value::Object(config).to_string();
                Configured::parse(&Input::object(&text).expect("JSON that was written as such"))
                    .expect("the same again")
            };
            assert_eq!(again(config.clone()), configured, "the same text gives another network");
            assert_eq!(again(config.clone().into_iter().rev().collect()), configured, "the order of the keys matters");
            let mut more = config;
            more.insert("no such key".into(), Value::Null);
            let error = Configured::parse(&more).expect_err("a key that nobody knows is passed over");
            assert!(error.to_string().contains("no such key"), "{error}");
            refused(&error, &[2]);
        }
    }
}

/// The text of `CNI_ARGS`.
pub fn args(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Args::parse(text) {
        Err(problem) => refused(&Error::Environment { problems: vec![("CNI_ARGS", problem)] }, &[4]),
        Ok(args) => {
            let part =
                |key: &str, value: Option<String>| value.map(|value| format!("{key}={value};")).unwrap_or_default();
            let ips: Vec<_> = args.ips.iter().map(ToString::to_string).collect();
            let ip = part("IP", Some(ips.join(",")).filter(|ips| !ips.is_empty()));
            let text =
                ip + &part("MAC", args.mac.map(|mac| mac.to_string())) + &part("K8S_POD_NAME", args.name.clone());
            assert_eq!(Args::parse(&text).as_ref(), Ok(&args), "{text}");
            is_recorded(
                "flatnet",
                &Target { container: "web".into(), interface: "eth0".into(), netns: "".into(), args },
            );
        }
    }
}

/// What netavark sends to `create`, `setup` and `teardown`.
pub fn netavark(data: &[u8]) {
    if let Some(request) = object(data) {
        netavark::properties::requests(&request);
    }
}

/// The ports that are to be published, as netavark writes them.
pub fn ports(data: &[u8]) {
    if let Ok(mappings) = serde_json::from_slice(data) {
        netavark::properties::ports(&mappings);
    }
}

/// An error has one of `codes`, says what is wrong and what to do, and can be shown to a person as it is.
pub(crate) fn refused(error: &Error, codes: &[u32]) {
    assert!(codes.contains(&error.code()), "code {} is none of {codes:?}: {error}", error.code());
    let object = reply::error(spec::NEWEST, error);
    let again: Value = serde_json::from_str(&object.to_string()).expect("JSON");
    assert_eq!(again, object);
    assert_eq!(object.as_object().expect("an object").len(), 4, "{object}");
    for key in ["msg", "details"] {
        let text = object[key].as_str().expect("a text");
        assert!(!text.is_empty() && text.len() <= TEXT_MAX_BYTES, "{key} has {} bytes", text.len());
        assert!(!text.contains(char::is_control), "{key} is not one line: {text:?}");
    }
}

/// What a configuration may say can be built, or be left to a plugin that is found in no other folder than it should be.
pub(crate) fn can_be_built(configured: &Configured) {
    match configured {
        Configured::Whole(network) => is_sound(network),
        Configured::Delegated(draft, plugin) => {
            assert!(is_identifier(&draft.name), "name {:?}", draft.name);
            is_interface(&draft.bridge);
            // It leads to a file of the folder that it is looked for in, as "..host-local" does.
            let file = Path::new("/folder").join(plugin);
            assert_eq!(file.file_name(), Some(OsStr::new(plugin)));
            assert!(file.parent() == Some(Path::new("/folder")) && !plugin.contains('\0'), "{plugin:?}");
        }
    }
}

/// A network that exists can be built.
pub(crate) fn is_sound(network: &Network) {
    assert!(is_identifier(&network.name), "name {:?}", network.name);
    is_interface(&network.bridge);
    assert!(network.mtu.is_none_or(|mtu| (68..=65_535).contains(&mtu)), "mtu {:?}", network.mtu);
    can_give(&network.pools);
}

/// An attachment that is asked for can be named and written down, and reads back as what it is.
pub(crate) fn is_recorded(network: &str, target: &Target) {
    assert!(is_identifier(&target.container), "container {:?}", target.container);
    is_interface(&target.interface);
    assert!(target.args.mac.is_none_or(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]), "MAC {:?}", target.args.mac);
    let attachment = Attachment { network, target };
    let name = attachment.name();
    assert!(name.len() < 128, "{name}");
    let parts = lease::parts_of(&name);
    assert!(parts.is_none_or(|parts| parts == (target.container.as_str(), target.interface.as_str())), "{name}");
    let record = attachment.record(None, None);
    assert!(record.len() <= ALIAS_MAX_BYTES && !record.contains(char::is_control), "{record:?}");
    // No name of a container can pass itself off as another part.
    assert_eq!(record.matches(' ').count(), 2 + usize::from(target.args.name.is_some()), "{record}");
    assert!(attachment.host_names().all(|name| interface_name_problem(&name).is_none()));
}

fn is_interface(name: &str) {
    assert!((1..=15).contains(&name.len()) && interface_name_problem(name).is_none(), "interface {name:?}");
    assert!(!name.contains('/') && name != "." && name != "..", "interface {name:?}");
}

/// Every address that they give is a container's to have, and each has one.
pub(crate) fn can_give(pools: &Pools) {
    for pool in pools.iter() {
        let free: Vec<_> = pool.free(&BTreeSet::new()).take(3).map(|own| own.address.ip()).collect();
        assert!(!free.is_empty(), "{pools:?} have nothing to give");
        assert!(free.iter().all(|address| pools.refusal(*address).is_none()), "{pools:?} give what they refuse");
        assert_eq!(free.iter().collect::<BTreeSet<_>>().len(), free.len(), "{pools:?} give twice");
        for address in free {
            can_have(pools, address);
        }
    }
    let edges = pools.ranges().flat_map(|range| {
        let ((first, last), subnet) = (range.bounds(), range.subnet());
        [first, last, range.gateway(), subnet.network(), subnet.broadcast()]
    });
    for address in edges.filter(|address| pools.refusal(*address).is_none()) {
        can_have(pools, address);
    }
}

/// `address` is one that an ADD may have.
pub(crate) fn can_have(pools: &Pools, address: IpAddr) {
    let is_reserved = match address {
        IpAddr::V4(address) => address.octets().starts_with(&[10, 87, 0]),
        IpAddr::V6(address) => address.segments().starts_with(&[0xfd87, 0, 0, 0]),
    };
    assert!(!is_reserved, "{pools:?} give {address}");
    let may_give = |range: &Range| {
        let ((first, last), subnet) = (range.bounds(), range.subnet());
        let is_broadcast = address.is_ipv4() && address == subnet.broadcast();
        let is_edge = address == subnet.network() || is_broadcast || address == range.gateway();
        subnet.contains(address) && (first..=last).contains(&address) && !is_edge
    };
    assert!(pools.ranges().any(may_give), "{pools:?} give {address}");
}

fn object(data: &[u8]) -> Option<Map<String, Value>> {
    match Input::object(std::str::from_utf8(data).ok()?) {
        Ok(object) => Some(object),
        Err(error) => {
            refused(&error, &[6, 7]);
            None
        }
    }
}

fn split_at_empty(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut variables = Vec::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let variable = &rest[..end];
        rest = &rest[end + 1..];
        if variable.is_empty() {
            break;
        }
        variables.push(variable);
    }
    (variables, rest)
}

fn value_of(variables: &[&[u8]], key: &str) -> Option<OsString> {
    let value = variables.iter().find_map(|it| it.strip_prefix(key.as_bytes())?.strip_prefix(b"="))?;
    Some(OsStr::from_bytes(value).to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    /// What the fuzz targets have kept, seeds from the scenarios included.
    #[rstest]
    #[case("request", crate::properties::request)]
    #[case("config", crate::properties::config)]
    #[case("args", crate::properties::args)]
    #[case("netavark", crate::properties::netavark)]
    #[case("ports", crate::properties::ports)]
    fn hold_of_the_corpus(#[case] target: &str, #[case] property: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut replayed = 0;
        for file in std::fs::read_dir(&folder).expect("the corpus") {
            let file = file.expect("a file").path();
            eprintln!("{}", file.display());
            property(&std::fs::read(&file).expect("a file"));
            replayed += 1;
        }
        assert!(replayed > 0, "{} is empty", folder.display());
    }
}
