//! What `flatnet gc` says: a line for each attachment that does not simply stay, or one JSON object.

use serde::Serialize;

use super::attachment::Attachment;
use crate::cli::terminal::{BAD, GOOD, WARNING, paint};

/// What became of one attachment, and why.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) action: Action,
    pub(super) attachment: Attachment,
    /// A clause of its own.
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    Removed,
    WouldRemove,
    /// It could not be removed; the error has its own words.
    Failed,
    /// It stays, as nobody who was asked knows it.
    Unknown,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::WouldRemove => "would remove",
            Self::Failed => "failed to remove",
            Self::Unknown => "unknown",
        }
    }

    fn painted(self) -> String {
        let style = match self {
            Self::Removed => GOOD,
            Self::WouldRemove | Self::Unknown => WARNING,
            Self::Failed => BAD,
        };
        paint(style, self.as_str())
    }
}

/// What became of one, and why.
#[derive(Debug, Serialize)]
pub(super) struct Left {
    pub(super) action: Action,
    pub(super) bridge: String,
    /// A clause of its own.
    pub(super) reason: String,
}

pub(super) fn text(outcomes: &[Outcome], bridges: &[Left]) -> String {
    if outcomes.is_empty() && bridges.is_empty() {
        return "nothing to collect\n".into();
    }
    let of_bridge = |left: &Left| format!("{} bridge {}: {}\n", left.action.painted(), left.bridge, left.reason);
    let mut text: String = outcomes.iter().map(line).chain(bridges.iter().map(of_bridge)).collect();
    let mut actions = outcomes.iter().map(|outcome| outcome.action).chain(bridges.iter().map(|left| left.action));
    if actions.any(|action| action == Action::Unknown) {
        text.push_str("`flatnet gc --yes` removes what is unknown; first make sure that no other runtime needs it\n");
    }
    text
}

/// `removed 10.87.1.2 of web (0123456789ab, eth0, network flatnet): its container is exited`.
fn line(outcome: &Outcome) -> String {
    let Attachment { container, name, network, interface, addresses, link } = &outcome.attachment;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let what = if addresses.is_empty() { format!("link {}", link.name) } else { addresses.join(", ") };
    let id: Option<String> = container.as_ref().map(|id| id.chars().take(12).collect());
    let owner = name.clone().or_else(|| id.clone()).map(|owner| format!(" of {owner}")).unwrap_or_default();
    let network = network.as_ref().map(|network| format!("network {network}"));
    let known: Vec<_> = [name.as_ref().and(id), interface.clone(), network].into_iter().flatten().collect();
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    format!("{} {what}{owner}{known}: {}\n", outcome.action.painted(), outcome.reason)
}

#[derive(Serialize)]
struct Entry<'a> {
    action: Action,
    addresses: &'a [std::net::IpAddr],
    network: Option<&'a str>,
    name: Option<&'a str>,
    container: Option<&'a str>,
    interface: Option<&'a str>,
    link: &'a str,
    reason: &'a str,
}

/// What simply stays is not in it.
pub(super) fn json(outcomes: &[Outcome], bridges: &[Left], dry_run: bool) -> String {
    let entries: Vec<_> = outcomes.iter().map(entry).collect();
    format!("{:#}\n", serde_json::json!({ "dry_run": dry_run, "attachments": entries, "bridges": bridges }))
}

fn entry(outcome: &Outcome) -> Entry<'_> {
    let attachment = &outcome.attachment;
    Entry {
        action: outcome.action,
        addresses: &attachment.addresses,
        network: attachment.network.as_deref(),
        name: attachment.name.as_deref(),
        container: attachment.container.as_deref(),
        interface: attachment.interface.as_deref(),
        link: &attachment.link.name,
        reason: &outcome.reason,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use anstream::adapter::strip_str;

    use super::*;
    use crate::netlink::Link;

    fn plain(outcomes: &[Outcome], bridges: &[Left]) -> String {
        strip_str(&text(outcomes, bridges)).to_string()
    }

    fn outcomes() -> Vec<Outcome> {
        let whole = Attachment {
            container: Some("0123456789abcdef".into()),
            name: Some("web".into()),
            network: Some("flatnet".into()),
            interface: Some("eth0".into()),
            addresses: vec![IpAddr::from([10, 87, 1, 2])],
            link: Link { name: "fn-00000001".into(), ..Link::default() },
        };
        let cut = Attachment { name: None, network: None, addresses: Vec::new(), ..whole.clone() };
        let half = Attachment { link: whole.link.clone(), ..Attachment::default() };
        let of = |action, attachment, reason: &str| Outcome { action, attachment, reason: reason.into() };
        vec![
            of(Action::Removed, whole, "its container is exited"),
            of(Action::Unknown, cut, "Podman does not know its container"),
            of(Action::WouldRemove, half, "its ADD was cut short"),
        ]
    }

    #[test]
    fn a_line_tells_what_whose_and_why() {
        insta::assert_snapshot!(plain(&outcomes(), &[]), @r"
        removed 10.87.1.2 of web (0123456789ab, eth0, network flatnet): its container is exited
        unknown link fn-00000001 of 0123456789ab (eth0): Podman does not know its container
        would remove link fn-00000001: its ADD was cut short
        `flatnet gc --yes` removes what is unknown; first make sure that no other runtime needs it
        ");
    }

    fn left() -> Left {
        Left { action: Action::Removed, bridge: "flatnet-br1".into(), reason: "no network names it".into() }
    }

    #[test]
    fn a_bridge_is_a_line_of_its_own() {
        assert_eq!(plain(&[], &[left()]), "removed bridge flatnet-br1: no network names it\n");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(text(&[], &[]), "nothing to collect\n");
        assert_eq!(json(&[], &[], true), "{\n  \"dry_run\": true,\n  \"attachments\": [],\n  \"bridges\": []\n}\n");
    }

    #[test]
    fn json_has_all_of_it() {
        insta::assert_snapshot!(json(&outcomes()[..1], &[left()], false), @r#"
        {
          "dry_run": false,
          "attachments": [
            {
              "action": "removed",
              "addresses": [
                "10.87.1.2"
              ],
              "network": "flatnet",
              "name": "web",
              "container": "0123456789abcdef",
              "interface": "eth0",
              "link": "fn-00000001",
              "reason": "its container is exited"
            }
          ],
          "bridges": [
            {
              "action": "removed",
              "bridge": "flatnet-br1",
              "reason": "no network names it"
            }
          ]
        }
        "#);
    }
}
