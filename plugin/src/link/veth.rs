//! The pair that ties a container to the bridge: made in one message, gone in one.

use std::cell::RefCell;

use nix::errno::Errno;

use crate::attachment::Attachment;
use crate::error::{Doing, Error, Result, unless_there};
use crate::ipam::lease;
use crate::netlink::{Link, Netlink, NewVeth};
use crate::netns::Netns;

/// Both ends, down.
pub(crate) struct Pair {
    /// In the host's namespace, a port of the bridge.
    pub(crate) host: Link,
    /// In the container's namespace: index, name and MTU.
    pub(crate) container: Link,
}

/// How far a running ADD has come with its pair: what undoing goes by, whatever cut the ADD short.
#[derive(Default)]
pub(crate) struct Made(RefCell<Progress>);

#[derive(Clone, Default)]
enum Progress {
    #[default]
    Nothing,
    /// The kernel was asked for a host end of this name; its answer is not there yet.
    Asked(String),
    /// It said yes, and this is the host end.
    Done(Box<Link>),
}

impl Made {
    /// Deletes the pair, if there is one; never one that another ADD made.
    pub(crate) async fn undo(&self, host: &Netlink) -> Result<()> {
        let progress = self.0.borrow().clone();
        let link = match progress {
            Progress::Nothing => return Ok(()),
            Progress::Done(link) => link,
            Progress::Asked(name) => {
                let link = host.link(&name).await?;
                match link.filter(is_new) {
                    Some(link) => Box::new(link),
                    None => return Ok(()),
                }
            }
        };
        host.delete_link(&link).await
    }
}

/// Whether that is a host end to which nothing has been done yet. Its bridge may have been deleted since; its other end is in another namespace.
fn is_new(link: &Link) -> bool {
    let is_placed = link.bridge.is_some() || link.peer_namespace.is_some();
    lease::is_host_end(link) && is_placed && link.names.is_empty() && link.alias.is_none()
}

/// Makes the attachment's pair on `bridge`. Errors: 103 where the container has an interface of that name.
pub(crate) async fn create(
    (host, container): (&Netlink, &Netlink),
    netns: &Netns,
    attachment: &Attachment<'_>,
    bridge: &Link,
    made: &Made,
) -> Result<Pair> {
    let interface = &attachment.target.interface;
    for name in attachment.host_names() {
        let new = NewVeth { host: &name, container: interface, netns, bridge: bridge.index, mtu: bridge.mtu };
        made.0.replace(Progress::Asked(name.clone()));
        // Where it is the socket that failed, the kernel may have made it: undoing looks.
        if unless_there(host.add_veth(&new).await)? {
            let pair = read(host, &name, interface).await?;
            made.0.replace(Progress::Done(Box::new(pair.host.clone())));
            return Ok(pair);
        }
        // Not ours. Either name may be the one that is taken: the container's is an error, the host's is not.
        made.0.replace(Progress::Nothing);
        refuse_existing(container, netns, interface).await?;
    }
    Err(Errno::EEXIST).doing(|| format!("find a free name for the host end of {interface}"))
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

/// The host end tells all that is not known of the container's.
async fn read(host: &Netlink, name: &str, interface: &str) -> Result<Pair> {
    let host = host.made_link(name).await?;
    let index = host.peer.ok_or(Errno::ENODEV).doing(|| format!("find the other end of {name}"))?;
    let container = Link { index, name: interface.to_owned(), mtu: host.mtu, ..Link::default() };
    Ok(Pair { host, container })
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
