//! What Podman says of its containers, those of pods' infrastructure among them.
//!
//! Each state is of one moment in which nobody was at work on that container: Podman takes the container's lock to tell it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cli::probe::{self, Ran};
use crate::deadline;

const QUESTION: [&str; 5] = ["ps", "--all", "--no-trunc", "--format", "json"];

/// The states of all containers, in Podman's words, by the whole id.
pub(super) type Containers = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "State")]
    state: String,
}

/// Nothing where there is no Podman. A Podman that does not answer is an error: its containers may be running.
pub(super) fn ask() -> Result<Option<Containers>> {
    match probe::run_within(deadline::PODMAN, "podman", &QUESTION) {
        Ran::Well(text) => read(&text).map(Some),
        Ran::Missing => Ok(None),
        Ran::Badly(why) => bail!(
            "failed to ask Podman for its containers: `podman {}` {why}. Nothing was deleted; fix what it reports, and try again",
            QUESTION.join(" ")
        ),
    }
}

fn read(text: &str) -> Result<Containers> {
    // Some versions say null where there are none.
    let listed: Option<Vec<Container>> = serde_json::from_str(text)
        .with_context(|| format!("failed to read Podman's list of containers (`podman {}`)", QUESTION.join(" ")))?;
    Ok(listed.unwrap_or_default().into_iter().map(|it| (it.id, it.state)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_list_is_read() {
        let containers = read(r#"[{"Id": "0123", "State": "exited", "Pid": 0}, {"Id": "4567", "State": "running"}]"#);
        let containers = containers.expect("a list");
        assert_eq!(containers["0123"], "exited");
        assert_eq!(containers.len(), 2);
        assert!(read("null").expect("a list").is_empty());
        assert!(read("[]\n").expect("a list").is_empty());
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        let error = read("CONTAINER ID").expect_err("no JSON");
        assert!(error.to_string().contains("podman ps --all"), "{error}");
    }
}
