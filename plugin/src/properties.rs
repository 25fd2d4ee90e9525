//! What is true of any input whatever: the fuzz targets of `plugin/fuzz` search for one that breaks it, the tests replay all that they kept.
//!
//! Only what validates is called here: nothing is done, so nothing has to be undone. A promise that does not hold is a panic.

#![expect(clippy::missing_panics_doc, reason = "to panic where a promise does not hold is what all of this is for")]

mod cni;
mod netavark;
mod sound;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde_json::{Map, Value};

use self::sound::{can_be_built, is_recorded, refused};
use crate::attachment::{Args, Target};
use crate::cni::request::{Environment, Input};
use crate::config::Configured;
use crate::error::Error;

/// A CNI runtime's request: variables as in `/proc/<pid>/environ`, each ended by a NUL, then an empty one, then standard input.
pub fn request(data: &[u8]) {
    let (variables, stdin) = split_at_empty(data);
    let environment = Environment::of(|key| value_of(&variables, key));
    let Ok(text) = std::str::from_utf8(stdin) else { return };
    match environment.command() {
        Err(error) => refused(&error, &[4]),
        Ok(command) => match Input::read(command, text) {
            Err(error) => refused(&error, &[6, 7]),
            Ok(config) => cni::request(command, &environment, config),
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
        netavark::requests(&request);
    }
}

/// The ports that are to be published, as netavark writes them.
pub fn ports(data: &[u8]) {
    if let Ok(mappings) = serde_json::from_slice(data) {
        netavark::ports(&mappings);
    }
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
