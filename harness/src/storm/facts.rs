//! What is true after a round: who is attached and who holds which address, by the kernel and by the plugin's own books.
//!
//! Invariant: read afresh each time, and never from what the plugin answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use crate::lab::{Namespace, View};

const LEASE: &str = "flatnet-ip-";
const ATTACHMENT: &str = "flatnet-att-";

/// Where a plugin writes down which addresses are leased.
#[derive(Clone, Debug)]
pub enum Books {
    /// In the names of links, as flatnet does.
    Names,
    /// In a folder with a file for each address, as host-local does.
    Files(PathBuf),
}

/// One reading of a node and the containers of a storm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every lease in the network's ranges, and the id of the container that holds it; an address may stand twice.
    pub leases: BTreeSet<(IpAddr, String)>,
    /// The addresses that containers have: those that have none are not attached.
    pub attached: BTreeMap<usize, BTreeSet<IpAddr>>,
    /// The ports of the bridge.
    pub ports: BTreeSet<String>,
    /// How many ports are nobody's, and were there before the storm.
    pub foreign: usize,
}

impl Books {
    /// Reads everything.
    pub fn read(
        &self,
        node: &Namespace,
        containers: &BTreeMap<usize, Namespace>,
        (bridge, ranges): (&str, &[IpNetwork]),
    ) -> Result<Facts> {
        let view = View::of(node)?;
        let mut leases = match self {
            Self::Names => names(&view),
            Self::Files(folder) => files(folder)?,
        };
        leases.retain(|(address, _)| ranges.is_empty() || ranges.iter().any(|range| range.contains(*address)));
        let ports = view.links.iter().filter(|link| link.master.as_deref() == Some(bridge));
        let ports = ports.map(|link| link.name.clone()).collect();
        let mut attached = BTreeMap::new();
        for (number, container) in containers {
            let addresses = addresses(container)?;
            if !addresses.is_empty() {
                attached.insert(*number, addresses);
            }
        }
        Ok(Facts { leases, attached, ports, foreign: 0 })
    }
}

impl Facts {
    /// How many have a lease.
    pub fn holders(&self) -> usize {
        self.leases.iter().map(|(_, holder)| holder).collect::<BTreeSet<_>>().len()
    }

    /// The addresses that the books give to a container.
    pub fn leased_to(&self, id: &str) -> BTreeSet<IpAddr> {
        self.leases.iter().filter(|(_, holder)| holder == id).map(|(address, _)| *address).collect()
    }
}

/// The holder is whom the attachment's name says; a lease on a link without one is nobody's.
fn names(view: &View) -> BTreeSet<(IpAddr, String)> {
    let mut leases = BTreeSet::new();
    for link in &view.links {
        let attachment = link.names.iter().find_map(|name| name.strip_prefix(ATTACHMENT)?.split_once('@'));
        let holder = attachment.map_or("nobody", |(id, _)| id);
        let addresses = link.names.iter().filter_map(|name| name.strip_prefix(LEASE)?.parse().ok());
        leases.extend(addresses.map(|address| (address, holder.to_owned())));
    }
    leases
}

/// A file is called as its address; its first line is the container's id.
fn files(folder: &Path) -> Result<BTreeSet<(IpAddr, String)>> {
    let mut leases = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(leases),
        Err(err) => return Err(err).with_context(|| format!("list {}", folder.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let Some(address) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        leases.insert((address, text.lines().next().unwrap_or_default().trim().to_owned()));
    }
    Ok(leases)
}

/// The addresses in a namespace but for loopback's and those that links have by themselves.
fn addresses(namespace: &Namespace) -> Result<BTreeSet<IpAddr>> {
    namespace.netlink(async |handle| {
        let found: Vec<AddressMessage> =
            handle.address().get().execute().try_collect().await.context("list addresses")?;
        let all = found.iter().flat_map(|message| &message.attributes);
        let given = all.filter_map(|attribute| match attribute {
            AddressAttribute::Address(address) if !address.is_loopback() => Some(*address),
            _ => None,
        });
        Ok(given.filter(|it| !matches!(it, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect())
    })
}
