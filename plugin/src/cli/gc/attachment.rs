//! What is attached to this host: every link of flatnet's, and whose it is, as far as its names and its record tell.

use std::net::IpAddr;

use crate::attachment;
use crate::error::Result;
use crate::ipam::lease;
use crate::netlink::{Link, Netlink};

/// One host end. What an ADD that was cut short has not told is absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Attachment {
    /// The container's whole id, unless it is longer than any of Podman's.
    pub(super) container: Option<String>,
    /// The container's name.
    pub(super) name: Option<String>,
    pub(super) network: Option<String>,
    /// The container's end.
    pub(super) interface: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) link: Link,
}

/// All of them, or those of a network: then without those that tell no network.
pub(super) async fn list(host: &Netlink, network: Option<&str>) -> Result<Vec<Attachment>> {
    let links = host.links().await?;
    let is_wanted = |link: &Link| match network {
        Some(network) => lease::is_of_network(link, network),
        None => true,
    };
    let mut found: Vec<_> = links.into_iter().filter(is_wanted).filter_map(Attachment::of).collect();
    found.sort_by(|one, other| (&one.addresses, &one.link.name).cmp(&(&other.addresses, &other.link.name)));
    Ok(found)
}

impl Attachment {
    fn of(link: Link) -> Option<Self> {
        let named = lease::attachment_of(&link);
        if named.is_none() && !lease::is_half_made(&link) {
            return None;
        }
        let told = |key| attachment::record_part(link.alias.as_deref().unwrap_or_default(), key);
        // The name has the id whole, and from the first moment.
        let (container, interface) = match named.and_then(attachment::parts_of) {
            Some((container, interface)) => (Some(container), Some(interface)),
            None => (told("container"), told("interface")),
        };
        let mut addresses: Vec<_> = lease::leases(&link).collect();
        addresses.sort_unstable();
        Some(Self {
            container: container.map(str::to_owned),
            name: told("name").map(str::to_owned),
            network: told("network").map(str::to_owned),
            interface: interface.map(str::to_owned),
            addresses,
            link,
        })
    }

    /// Whether an ADD has not even told whose it is.
    pub(super) fn is_half_made(&self) -> bool {
        self.link.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(alias: Option<&str>, names: &[&str]) -> Link {
        Link {
            name: "fn-00000001".into(),
            kind: Some("veth".into()),
            bridge: Some(7),
            alias: alias.map(str::to_owned),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..Link::default()
        }
    }

    #[test]
    fn a_link_tells_whose_it_is() {
        let record = "network=flatnet container=0123 interface=eth0 name=web";
        let whole = Attachment::of(link(Some(record), &["flatnet-att-0123@eth0", "flatnet-ip-10.87.1.2"]));
        let whole = whole.expect("an attachment");
        assert_eq!((whole.container.as_deref(), whole.name.as_deref()), (Some("0123"), Some("web")));
        assert_eq!((whole.network.as_deref(), whole.interface.as_deref()), (Some("flatnet"), Some("eth0")));
        assert_eq!(whole.addresses, [IpAddr::from([10, 87, 1, 2])]);
        assert!(!whole.is_half_made());
    }

    #[test]
    fn a_link_that_was_cut_short_tells_what_it_can() {
        let cut = Attachment::of(link(None, &["flatnet-att-0123@eth0"])).expect("an attachment");
        assert_eq!((cut.container.as_deref(), cut.network), (Some("0123"), None));
        let hashed = Attachment::of(link(Some("network=n container=long~1 interface=eth0"), &["flatnet-att-0123"]));
        assert_eq!(hashed.expect("an attachment").container.as_deref(), Some("long~1"));
        assert!(Attachment::of(link(None, &[])).expect("an attachment").is_half_made());
    }

    #[test]
    fn another_s_link_is_no_attachment() {
        assert!(Attachment::of(link(None, &["enp1s0"])).is_none());
        assert!(Attachment::of(Link { name: "veth0123abc".into(), ..link(None, &[]) }).is_none());
    }
}
