//! The bridges of networks that were removed: flatnet made them, no network names them, and no container is on them.
//!
//! The next ADD of a network that needs such a bridge makes it anew.

use super::report::{Action, Left};
use crate::cli::install::bridge;
use crate::netavark::planned::All;

/// How to go about it.
pub(super) struct Manner {
    pub(super) dry_run: bool,
    pub(super) yes: bool,
}

/// Deletes them; goes on past those that cannot be deleted.
pub(super) fn collect(manner: &Manner, outcomes: &mut Vec<Left>) -> anyhow::Result<()> {
    let planned = All::read();
    let mut deleted = Ok(());
    for name in bridge::left()?.into_iter().filter(|name| !planned.names_bridge(name)) {
        let unread = planned.unread.first().map(|file| format!("{} cannot be read, and may name it", file.display()));
        let action = match &unread {
            Some(_) if !manner.yes => Action::Unknown,
            _ if manner.dry_run => Action::WouldRemove,
            _ => match bridge::delete(&name) {
                Ok(()) => Action::Removed,
                Err(error) => {
                    deleted = deleted.and(Err(error));
                    Action::Failed
                }
            },
        };
        let reason = unread.unwrap_or_else(|| "no network names it, and no container is on it".into());
        outcomes.push(Left { action, bridge: name, reason });
    }
    deleted
}
