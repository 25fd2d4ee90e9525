//! Leases: names on the host end of a veth pair, so that the kernel itself keeps them.
//!
//! A link's alternative names are unique in its network namespace and go when the link goes. An address is leased while a
//! link is called `flatnet-ip-<address>`, and never longer; there is no other record, so there is nothing to recover.

use std::collections::BTreeSet;
use std::net::IpAddr;

use log::debug;

use crate::attachment::{ATTACHMENT_PREFIX, Attachment, FIRST_RECORD, LINK_PREFIX, Target, network_part, record_part};
use crate::error::{Error, Result, unless_there};
use crate::ipam::memory::Memory;
use crate::ipam::pool::{Allocation, Pool, Pools};
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};

const ADDRESS_PREFIX: &str = "flatnet-ip-";
/// The bridge, the VLAN (0 for none) and the MAC follow: containers of two bridges or VLANs never meet.
const MAC_PREFIX: &str = "flatnet-mac-";
/// How many addresses are claimed one after the other before the bridge's ports are listed: a claim takes about as long as the list takes for
/// each port.
const CLAIMS_WITHOUT_LIST: usize = 32;

impl Attachment<'_> {
    /// What the network remembers of the name that the container is known by.
    pub(crate) fn memory(&self) -> Memory {
        memory_of(&self.record(None, None))
    }
}

/// The link's addresses were in use until now, which its network remembers.
pub(crate) fn mark_freed(link: &Link) {
    if let Some(record) = record(link) {
        memory_of(record).mark_freed(&leases(link).collect::<Vec<_>>());
    }
}

/// By the record, so that DEL, which has nothing else, finds what ADD has written.
fn memory_of(record: &str) -> Memory {
    let name = record_part(record, "name").or(record_part(record, "container"));
    Memory::of(record_part(record, "network").unwrap_or_default(), name.unwrap_or_default())
}

/// The name of the attachment that the link is the host end of.
pub(crate) fn attachment_of(link: &Link) -> Option<&str> {
    link.names.iter().map(String::as_str).find(|name| name.starts_with(ATTACHMENT_PREFIX))
}

/// The link's record, which an ADD writes when it has an attachment's name; before that it is at work, or was cut short.
pub(crate) fn record(link: &Link) -> Option<&str> {
    link.alias.as_deref().filter(|alias| record_part(alias, "container").is_some())
}

/// Whether the link says that it is of the network, which it does before it has an attachment's name.
pub(crate) fn is_of_network(link: &Link, network: &str) -> bool {
    let prefix = format!("{} ", network_part(network));
    link.alias.as_ref().is_some_and(|alias| alias.starts_with(&prefix))
}

/// Whether a link that has the right attachment's name may be of the network: somebody may have taken its alias away.
pub(crate) fn may_be_of_network(link: &Link, network: &str) -> bool {
    link.alias.is_none() || is_of_network(link, network)
}

/// The host ends of all attachments to a network, each with the attachment's name.
pub(crate) async fn of_network(host: &Netlink, network: &str) -> Result<Vec<(String, Link)>> {
    let links = host.links().await?;
    let named = links.into_iter().filter(is_host_end).filter_map(|link| {
        let name = attachment_of(&link)?.to_owned();
        Some((name, link))
    });
    Ok(named.filter(|(_, link)| is_of_network(link, network)).collect())
}

/// The MAC that the link's container is held to, where it may speak for itself only.
pub(crate) fn guarded_mac(link: &Link) -> Option<Mac> {
    record_part(link.alias.as_deref()?, "mac")?.parse().ok()
}

/// The VLAN that the link's container belongs to, if that is not the bridge's own.
pub(crate) fn vlan(link: &Link) -> Option<u16> {
    record_part(link.alias.as_deref()?, "vlan")?.parse().ok()
}

fn address_name(address: IpAddr) -> String {
    format!("{ADDRESS_PREFIX}{address}")
}

/// The address that an alternative name leases.
fn address_in(name: &str) -> Option<IpAddr> {
    name.strip_prefix(ADDRESS_PREFIX)?.parse().ok()
}

/// The addresses that the link's names lease.
pub(crate) fn leases(link: &Link) -> impl Iterator<Item = IpAddr> + '_ {
    link.names.iter().filter_map(|name| address_in(name))
}

/// Marks `link` as the attachment's. Errors: 104 where another link is.
pub(crate) async fn claim_attachment(host: &Netlink, link: &Link, attachment: &Attachment<'_>) -> Result<()> {
    let name = attachment.name();
    if unless_there(host.add_alternative_name(link, &name).await)? {
        return Ok(());
    }
    refuse_existing(host, attachment).await?;
    Err(exists(attachment, "that was deleted just now".to_owned()))
}

/// Errors: 104 where a link is the attachment's already.
pub(crate) async fn refuse_existing(host: &Netlink, attachment: &Attachment<'_>) -> Result<()> {
    let name = attachment.name();
    match host.link_by_alternative_name(&name).await? {
        Some(link) => Err(exists(attachment, link.name)),
        None => Ok(()),
    }
}

fn exists(attachment: &Attachment<'_>, link: String) -> Error {
    let Target { container, interface, .. } = attachment.target;
    Error::AttachmentExists { container: container.clone(), interface: interface.clone(), link }
}

/// Leases an address of each pool to `link`: what is asked for of it, else the best that is free, as the pool and the container's name have it.
/// Errors: 101, 102.
pub(crate) async fn claim_addresses(
    host: &Netlink,
    link: &Link,
    pools: &Pools,
    (asked, memory): (&[IpAddr], &Memory),
    bridge: &Link,
) -> Result<Vec<Allocation>> {
    let mut claimed = Vec::new();
    for pool in pools.iter() {
        // Only netavark asks for several of one pool.
        let wanted: Vec<_> = asked.iter().filter_map(|asked| pool.own(*asked)).collect();
        if wanted.is_empty() {
            claimed.push(claim_best(host, link, pool, memory, bridge).await?);
        }
        for own in wanted {
            claim_asked(host, link, own.address.ip()).await?;
            claimed.push(own);
        }
    }
    Ok(claimed)
}

/// Claims one candidate after the other. The bridge's ports are listed only where many are taken: a list takes the longer the more
/// containers there are. Errors: 101.
async fn claim_best(host: &Netlink, link: &Link, pool: &Pool, memory: &Memory, bridge: &Link) -> Result<Allocation> {
    let full = || Error::PoolFull { pool: pool.to_string(), bridge: bridge.name.clone() };
    let nothing = BTreeSet::new();
    let mut candidates = pool.candidates(&nothing, memory.last(), || memory.used());
    let first = candidates.by_ref().take(CLAIMS_WITHOUT_LIST);
    if let Some(own) = claim_first(host, link, first).await? {
        return Ok(own);
    }
    if candidates.next().is_none() {
        return Err(full());
    }
    let taken = taken_on(host, bridge).await?;
    let free = pool.candidates(&taken, memory.last(), || memory.used());
    claim_first(host, link, free).await?.ok_or_else(full)
}

/// The first of these that no other link holds.
async fn claim_first(
    host: &Netlink,
    link: &Link,
    candidates: impl Iterator<Item = Allocation>,
) -> Result<Option<Allocation>> {
    for own in candidates {
        if claim(host, link, own.address.ip()).await? {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

/// What a bridge's ports hold. What the list misses, a claim itself finds out: only the claim decides.
async fn taken_on(host: &Netlink, bridge: &Link) -> Result<BTreeSet<IpAddr>> {
    let ports = host.ports(bridge).await?;
    Ok(ports.iter().flat_map(leases).collect())
}

async fn claim_asked(host: &Netlink, link: &Link, address: IpAddr) -> Result<()> {
    if claim(host, link, address).await? {
        return Ok(());
    }
    Err(Error::AddressTaken { address, holder: holder(host, address).await? })
}

/// False where another link holds it.
async fn claim(host: &Netlink, link: &Link, address: IpAddr) -> Result<bool> {
    let is_free = unless_there(host.add_alternative_name(link, &address_name(address)).await)?;
    debug!("{address} for {}: {}", link.name, if is_free { "claimed" } else { "another link has it" });
    Ok(is_free)
}

/// Claims the MAC that the container asked for, on its bridge and VLAN. Errors: 102.
pub(crate) async fn claim_mac(
    host: &Netlink,
    link: &Link,
    mac: Mac,
    (bridge, vlan): (&str, Option<u16>),
) -> Result<()> {
    let name = format!("{MAC_PREFIX}{bridge}-{}-{mac}", vlan.unwrap_or_default());
    if unless_there(host.add_alternative_name(link, &name).await)? {
        return Ok(());
    }
    Err(Error::MacTaken { mac, holder: holder_of(host, &name).await? })
}

/// Who holds `address`, in words.
async fn holder(host: &Netlink, address: IpAddr) -> Result<String> {
    holder_of(host, &address_name(address)).await
}

async fn holder_of(host: &Netlink, name: &str) -> Result<String> {
    let link = host.link_by_alternative_name(name).await?;
    Ok(link.as_ref().map_or_else(|| "a link that was deleted just now".to_owned(), describe))
}

/// A link that holds what somebody asks for.
pub(crate) fn describe(link: &Link) -> String {
    let Link { name, alias, .. } = link;
    match alias.as_deref().or(attachment_of(link)) {
        Some(whose) => format!("link {name} ({whose})"),
        None => format!("link {name}"),
    }
}

/// The host end of an attachment, also of one whose ADD was cut short before it had its name.
pub(crate) async fn find(host: &Netlink, attachment: &Attachment<'_>) -> Result<Option<Link>> {
    let name = attachment.name();
    if let Some(link) = host.link_by_alternative_name(&name).await? {
        return Ok((is_host_end(&link) && may_be_of_network(&link, attachment.network)).then_some(link));
    }
    for name in attachment.host_names() {
        let link = host.link(&name).await?;
        let is_its = |link: &Link| is_unfinished(link) && may_be_of_network(link, attachment.network);
        if let Some(link) = link.filter(is_its) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// The host end of a finished attachment, as far as its names and record tell: without a record an ADD is at work, or was cut short.
pub(crate) fn is_whole(link: &Link) -> bool {
    is_host_end(link) && attachment_of(link).is_some() && record(link).is_some()
}

/// Whether it can be one of flatnet's at all: what else somebody gave such names is not flatnet's to delete.
pub(crate) fn is_host_end(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// A host end as `add_veth` makes it, before it has any of the names. Where its bridge has been deleted since, only its first record tells it
/// from anybody else's.
pub(crate) fn is_unfinished(link: &Link) -> bool {
    let is_begun = link.alias.as_ref().is_some_and(|alias| alias.ends_with(FIRST_RECORD));
    is_host_end(link) && (link.bridge.is_some() || is_begun) && link.names.is_empty() && record(link).is_none()
}

/// An unfinished one that flatnet named: it is an ADD's that is at work, or was cut short. (Docker's links on its bridge look alike.)
pub(crate) fn is_half_made(link: &Link) -> bool {
    let digits = link.name.strip_prefix(LINK_PREFIX);
    is_unfinished(link) && digits.is_some_and(|it| it.len() == 8 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
