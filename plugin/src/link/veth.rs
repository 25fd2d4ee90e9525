//! The pair that ties a container to the bridge: made in one message, gone in one.

use nix::errno::Errno;

use crate::error::{Doing, Error, Result};
use crate::ipam::lease;
use crate::netlink::{Link, Netlink, NewVeth};
use crate::netns::Netns;

/// Both ends, down.
pub(crate) struct Pair {
    /// In the host's namespace: index, name, MAC, MTU and where its other end is.
    pub(crate) host: Link,
    /// In the container's namespace: index, name and MTU.
    pub(crate) container: Link,
}

/// Whether that is a host end to which nothing has been done yet. Its bridge may have been deleted since; its other end is in another namespace.
fn is_new(link: &Link) -> bool {
    let is_placed = link.bridge.is_some() || link.peer_namespace.is_some();
    lease::is_host_end(link) && is_placed && link.names.is_empty() && link.alias.is_none()
}

/// Makes a pair; none where one of its names is taken. Where it is the socket that failed the kernel may have made it: see [`delete_new`].
pub(crate) async fn create(host: &Netlink, new: &NewVeth<'_>) -> Result<Option<Pair>> {
    let name = new.host;
    let host = match host.add_veth(new).await {
        Ok(Some(made)) => made,
        Ok(None) => host.made_link(name).await?,
        Err(error) if error.is(Errno::EEXIST) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The host end tells all that is not known of the container's.
    let index = host.peer.ok_or(Errno::ENODEV).doing(|| format!("find the other end of {name}"))?;
    let container = Link { index, name: new.container.to_owned(), mtu: host.mtu, ..Link::default() };
    Ok(Some(Pair { host, container }))
}

/// Deletes the pair whose host end has this name, if there is one, and nothing has been done to it since it was made: no other ADD's is.
pub(crate) async fn delete_new(host: &Netlink, name: &str) -> Result<()> {
    match host.link(name).await?.filter(is_new) {
        Some(link) => host.delete_link(&link).await,
        None => Ok(()),
    }
}

/// Errors: 103 where the container has an interface of that name.
pub(crate) async fn refuse_existing(container: &Netlink, netns: &Netns, interface: &str) -> Result<()> {
    match container.link(interface).await? {
        None => Ok(()),
        Some(_) => {
            Err(Error::InterfaceExists { interface: interface.to_owned(), netns: netns.path().display().to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::on_its_bridge(Some(7), Some(1), None, true)]
    #[case::its_bridge_was_deleted(None, Some(1), None, true)]
    #[case::another_s(None, None, None, false)]
    #[case::another_add_s(Some(7), Some(1), Some("network=flatnet ADD is at work"), false)]
    fn what_undoing_deletes(
        #[case] bridge: Option<u32>,
        #[case] peer_namespace: Option<i32>,
        #[case] alias: Option<&str>,
        #[case] expected: bool,
    ) {
        let alias = alias.map(str::to_owned);
        let link = Link { kind: Some("veth".into()), bridge, peer_namespace, alias, ..Link::default() };
        assert_eq!(is_new(&link), expected);
    }
}
