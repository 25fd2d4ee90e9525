//! The rules of netavark's driver contract for what a driver says and how it ends.
//!
//! Invariant: every key that the contract does not have, and every one that it has and is missing, is a broken rule.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::process::Finished;

/// What a driver answered, if it kept the rules.
#[derive(Debug)]
pub(super) enum Answer {
    /// The versions.
    Info(Value),
    /// The network's whole configuration.
    Created(Value),
    /// How the container is attached.
    SetUp(Status),
    /// Nothing.
    TornDown,
    /// It could not.
    Error(String),
}

/// `StatusBlock`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    dns_search_domains: Vec<String>,
    dns_server_ips: Vec<String>,
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    mac_address: String,
    subnets: Vec<Subnet>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subnet {
    pub(super) ipnet: String,
    pub(super) gateway: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorObject {
    error: String,
}

impl Status {
    /// MAC, and addresses with their gateways, of the interface `name`, if it is the only one, has any, and no DNS is promised.
    pub(super) fn single(&self, name: &str) -> Result<(&str, &[Subnet]), String> {
        if !self.dns_search_domains.is_empty() || !self.dns_server_ips.is_empty() {
            return Err("the answer promises a DNS server, and there is none".to_owned());
        }
        let only = self.interfaces.iter().next().filter(|_| self.interfaces.len() == 1);
        match only {
            Some((found, Interface { subnets, .. })) if found == name && subnets.is_empty() => {
                Err("the answer has no address".to_owned())
            }
            Some((found, Interface { mac_address, subnets })) if found == name => Ok((mac_address, subnets)),
            _ => Err(format!("the answer is about {:?}, not {name}", self.interfaces.keys())),
        }
    }
}

/// Reads what the driver said when called with `verb`.
pub(super) fn read(verb: &str, finished: &Finished) -> Result<Answer, String> {
    let Some(status) = finished.status else { return Err("the driver did not end in time and was killed".to_owned()) };
    if finished.stderr.contains("panicked at") {
        return Err("the driver panicked".to_owned());
    }
    let said = finished.stdout.trim();
    match (status.code(), verb) {
        (Some(0), "info") => {
            let info: BTreeMap<String, String> = parse(said, "versions")?;
            if !["version", "api_version"].iter().all(|key| info.contains_key(*key)) {
                return Err("info has version and api_version".to_owned());
            }
            Ok(Answer::Info(parse(said, "versions")?))
        }
        (Some(0), "create") => Ok(Answer::Created(parse(said, "a network")?)),
        (Some(0), "setup") => Ok(Answer::SetUp(parse(said, "a status block")?)),
        (Some(0), _) if said.is_empty() => Ok(Answer::TornDown),
        (Some(0), _) => Err(format!("{verb} succeeds with an empty stdout, and this one was not")),
        (Some(1), _) => parse(said, "an error object").map(|ErrorObject { error }| Answer::Error(error)),
        _ => Err(format!("a driver exits 0 or 1: {status}")),
    }
}

/// Podman takes a network only if its name, id and driver are what it asked for.
pub(super) fn keeps_its_name(asked: &str, answered: &Value) -> Result<(), String> {
    let asked: Value = parse(asked, "a network")?;
    let changed = ["name", "id", "driver"].into_iter().find(|key| asked[key] != answered[key]);
    changed.map_or(Ok(()), |key| Err(format!("create changed {key} from {} to {}", asked[key], answered[key])))
}

fn parse<'a, T: Deserialize<'a>>(said: &'a str, what: &str) -> Result<T, String> {
    serde_json::from_str(said).map_err(|err| format!("stdout is not {what} alone: {err}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use rstest::rstest;

    use super::read;
    use crate::process::Finished;

    const STATUS: &str = r#"{"dns_search_domains": [], "dns_server_ips": [], "interfaces": {"eth0": {"mac_address": "02:00:00:00:00:01", "subnets": [{"ipnet": "10.87.1.2/24", "gateway": "10.87.1.1"}]}}}"#;

    fn finished(code: i32, stdout: &str) -> Finished {
        let status = Some(ExitStatus::from_raw(code << 8));
        Finished { status, stdout: stdout.to_owned(), stderr: String::new(), wall: Duration::ZERO }
    }

    #[rstest]
    #[case("info", 0, r#"{"version": "1", "api_version": "1.0.0"}"#)]
    #[case("setup", 0, STATUS)]
    #[case("teardown", 0, "")]
    #[case("setup", 1, r#"{"error": "no"}"#)]
    fn good_manners(#[case] verb: &str, #[case] code: i32, #[case] stdout: &str) {
        read(verb, &finished(code, stdout)).unwrap();
    }

    #[rstest]
    #[case("info", 0, r#"{"version": "1"}"#, "api_version")]
    #[case("setup", 0, "{}", "missing field")]
    #[case("setup", 0, r#"{"error": "no"}"#, "unknown field")]
    #[case("teardown", 0, "{}", "empty stdout")]
    #[case("setup", 1, r#"{"error": "no", "code": 1}"#, "unknown field")]
    #[case("setup", 1, "", "not an error object")]
    #[case("setup", 2, r#"{"error": "no"}"#, "exits 0 or 1")]
    fn bad_manners(#[case] verb: &str, #[case] code: i32, #[case] stdout: &str, #[case] says: &str) {
        let complaint = read(verb, &finished(code, stdout)).unwrap_err();
        assert!(complaint.contains(says), "{complaint}");
    }
}
