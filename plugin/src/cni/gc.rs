//! GC: deletes the attachments of a network that the runtime no longer knows (specification 1.1.0, section "GC").
//!
//! A lease cannot outlive its link, so all that GC finds is whole attachments whose DEL never came. An ADD that was cut short
//! before it had its attachment's name ends with its container's namespace, and holds no address.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::del;
use crate::call::within_deadline;
use crate::error::{Error, Result, both};
use crate::ipam::lease;
use crate::netlink::Netlink;
use crate::reply::Reply;
use crate::{attachment, firewall};

/// The key of the list, as the specification and, before it, libcni call it.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The attachments that stay, by their names.
#[derive(Debug)]
pub(crate) struct Valid(BTreeSet<String>);

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

impl Valid {
    /// Errors: 7 where there is no list: an empty one means that nothing stays, a missing one that nobody was asked.
    pub(crate) fn parse(config: &Map<String, Value>) -> Result<Self> {
        let found = KEYS.into_iter().find_map(|key| Some((key, config.get(key).filter(|list| !list.is_null())?)));
        let Some((key, list)) = found else {
            let problem = "is missing: GC needs the list of the attachments that stay".into();
            return Err(Error::Config { key: KEYS[0].into(), problem });
        };
        let entries: Vec<Entry> = serde_json::from_value(list.clone()).map_err(|e| Error::Config {
            key: key.into(),
            problem: format!("is not a list of attachments, each with containerID and ifname: {e}"),
        })?;
        Ok(Self(entries.iter().map(|entry| attachment::name(&entry.container, &entry.ifname)).collect()))
    }
}

/// Deletes every attachment of `network` that is not valid, and the rules of any network whose bridge is gone; goes on past errors, and
/// tells them all.
pub(super) async fn gc(network: &str, valid: &Valid) -> Result<Reply> {
    let host = Netlink::open()?;
    within_deadline(async {
        let mut outcome: Result<()> = Ok(());
        for (name, link) in lease::of_network(&host, network).await? {
            if !valid.0.contains(&name) {
                outcome = both(outcome, del::delete(&host, &link).await);
            }
        }
        both(outcome, firewall::sweep(&host).await)
    })
    .await?;
    Ok(Reply::Nothing)
}
