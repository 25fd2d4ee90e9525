//! The processes of this host, as /proc shows them: what lives in a network namespace.

use std::fs;

use crate::error::{Doing, Result, errno_of};
use crate::netlink::Netlink;

/// The numbers of all processes.
pub(crate) fn all() -> Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc").map_err(|e| errno_of(&e)).doing(|| "list processes".into())?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether any process is in the namespace of that number.
pub(crate) async fn are_in(host: &Netlink, namespace: i32) -> Result<bool> {
    for process in all()? {
        if host.namespace_of(process).await? == Some(namespace) {
            return Ok(true);
        }
    }
    Ok(false)
}
