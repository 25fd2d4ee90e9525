//! Leases: names on the host end of a veth pair, so that the kernel itself keeps them.
//!
//! A link's alternative names are unique in its network namespace and go when the link goes. An address is leased while a
//! link is called `flatnet-ip-<address>`, and never longer; there is no other record, so there is nothing to recover.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::error::{Doing, Error, Result};
use crate::hash::{hex8, hex16};
use crate::ipam::pool::{Own, Pool, Pools};
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};
use crate::request::Target;

const ADDRESS_PREFIX: &str = "flatnet-ip-";
const ATTACHMENT_PREFIX: &str = "flatnet-att-";
const LINK_PREFIX: &str = "fn-";
/// ALTIFNAMSIZ (linux/if.h) without its closing NUL.
const ALTERNATIVE_NAME_MAX_BYTES: usize = 127;
/// What each part of a record may take of the 255 bytes that a link's alias has (IFALIASZ of linux/if.h).
const RECORD_PART_MAX_BYTES: usize = 64;
/// IFALIASZ of linux/if.h without its closing NUL.
const RECORD_MAX_BYTES: usize = 255;
/// How many host names an attachment tries before it gives up; each is as likely to be free as 1 - links / 2^32.
const HOST_NAMES: u32 = 8;

/// One interface of one container in one network.
#[derive(Debug)]
pub(crate) struct Attachment<'a> {
    pub(crate) network: &'a str,
    pub(crate) target: &'a Target,
}

impl Attachment<'_> {
    /// The alternative name that says "this attachment exists".
    pub(crate) fn name(&self) -> String {
        attachment_name(&self.target.container, &self.target.interface)
    }

    /// The host end's names in the order of trying: `fn-` and eight hex digits. Nothing is ever looked up by them but what
    /// a crash left without the attachment's own name.
    pub(crate) fn host_names(&self) -> impl Iterator<Item = String> + '_ {
        (0..HOST_NAMES).map(|n| {
            let salt = if n == 0 { String::new() } else { n.to_string() };
            format!("{LINK_PREFIX}{}", hex8(&[&self.target.container, &self.target.interface, &salt]))
        })
    }

    /// The link's alias: who this is, for people and for messages. Long parts are cut. `guarded` is the MAC that the container is held to.
    pub(crate) fn record(&self, guarded: Option<Mac>) -> String {
        let mut record = format!(
            "network={} container={} interface={}",
            part(self.network),
            part(&self.target.container),
            self.target.interface
        );
        if let Some(mac) = guarded {
            record.push_str(" mac=");
            record.push_str(&mac.to_string());
        }
        if let Some(name) = &self.target.args.name {
            record.push_str(" name=");
            let room = RECORD_MAX_BYTES - record.len();
            record.push_str(&cut(name, room.min(RECORD_PART_MAX_BYTES)));
        }
        record
    }
}

/// The alternative name that says "this attachment exists".
pub(crate) fn attachment_name(container: &str, interface: &str) -> String {
    // A container id cannot hold the separator: no two attachments have one name.
    let name = format!("{ATTACHMENT_PREFIX}{container}@{interface}");
    match name.len() {
        0..=ALTERNATIVE_NAME_MAX_BYTES => name,
        _ => format!("{ATTACHMENT_PREFIX}{}", hex16(&[container, interface])),
    }
}

/// Whether that is the name of an attachment of `container`; unknown, and so false, where the name is a hash.
pub(crate) fn is_of_container(name: &str, container: &str) -> bool {
    parts_of(name).is_some_and(|(id, _)| id == container)
}

/// The container's id and its interface in an attachment's name; nothing where the name is a hash.
pub(crate) fn parts_of(attachment: &str) -> Option<(&str, &str)> {
    attachment.strip_prefix(ATTACHMENT_PREFIX)?.split_once('@')
}

/// The name of the attachment that the link is the host end of.
pub(crate) fn attachment_of(link: &Link) -> Option<&str> {
    link.names.iter().map(String::as_str).find(|name| name.starts_with(ATTACHMENT_PREFIX))
}

/// The network in a link's record; an ADD that was cut short has left none.
pub(crate) fn is_of_network(link: &Link, network: &str) -> bool {
    let prefix = format!("network={} ", part(network));
    link.alias.as_ref().is_none_or(|alias| alias.starts_with(&prefix))
}

/// The host ends of all attachments to a network, each with the attachment's name.
pub(crate) async fn of_network(host: &Netlink, network: &str) -> Result<Vec<(String, Link)>> {
    let links = host.links().await.doing(|| "list the host's links".into())?;
    let named = links.into_iter().filter(is_host_end).filter_map(|link| {
        let name = attachment_of(&link)?.to_owned();
        Some((name, link))
    });
    Ok(named.filter(|(_, link)| is_of_network(link, network)).collect())
}

fn part(text: &str) -> String {
    cut(text, RECORD_PART_MAX_BYTES)
}

/// Cuts what would not fit; white space would look like the next part.
fn cut(text: &str, max_bytes: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    if text.len() <= max_bytes {
        return text;
    }
    let hash = hex16(&[&text]);
    let end = text.floor_char_boundary(max_bytes - hash.len() - 1);
    format!("{}~{hash}", &text[..end])
}

/// A part of a link's record, such as `container`; long ones are cut as they were written.
pub(crate) fn record_part<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// The MAC that the link's container is held to, where it may speak for itself only.
pub(crate) fn guarded_mac(link: &Link) -> Option<Mac> {
    record_part(link.alias.as_deref()?, "mac")?.parse().ok()
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
    match host.add_alternative_name(link.index, &name).await {
        Err(Errno::EEXIST) => {
            refuse_existing(host, attachment).await?;
            Err(exists(attachment, "that was deleted just now".to_owned()))
        }
        done => done.doing(|| format!("name link {} {name}", link.name)),
    }
}

/// Errors: 104 where a link is the attachment's already.
pub(crate) async fn refuse_existing(host: &Netlink, attachment: &Attachment<'_>) -> Result<()> {
    let name = attachment.name();
    match host.link_by_alternative_name(&name).await.doing(|| format!("look up {name}"))? {
        Some(link) => Err(exists(attachment, link.name)),
        None => Ok(()),
    }
}

fn exists(attachment: &Attachment<'_>, link: String) -> Error {
    let Target { container, interface, .. } = attachment.target;
    Error::AttachmentExists { container: container.clone(), interface: interface.clone(), link }
}

/// Leases an address of each pool to `link`: the one asked for, or the lowest free one. Errors: 101, 102.
pub(crate) async fn claim_addresses(
    host: &Netlink,
    link: &Link,
    pools: &Pools,
    asked: &[IpAddr],
    bridge: (&str, u32),
) -> Result<Vec<Own>> {
    let mut claimed = Vec::new();
    let mut taken = None;
    for pool in pools.iter() {
        if let Some(own) = asked.iter().find_map(|asked| pool.own(*asked)) {
            claim_asked(host, link, own.address.ip()).await?;
            claimed.push(own);
            continue;
        }
        let taken = match &taken {
            Some(taken) => taken,
            None => taken.insert(taken_on(host, bridge).await?),
        };
        match claim_free(host, link, pool, taken).await? {
            Some(own) => claimed.push(own),
            None => return Err(Error::PoolFull { pool: pool.to_string(), bridge: bridge.0.to_owned() }),
        }
    }
    Ok(claimed)
}

/// What a bridge's ports hold. What the list misses, a claim itself finds out: only the claim decides.
async fn taken_on(host: &Netlink, (name, index): (&str, u32)) -> Result<BTreeSet<IpAddr>> {
    let ports = host.ports(index).await.doing(|| format!("list the ports of {name}"))?;
    Ok(ports.iter().flat_map(leases).collect())
}

async fn claim_asked(host: &Netlink, link: &Link, address: IpAddr) -> Result<()> {
    if claim(host, link, address).await? {
        return Ok(());
    }
    Err(Error::AddressTaken { address, holder: holder(host, address).await? })
}

async fn claim_free(host: &Netlink, link: &Link, pool: &Pool, taken: &BTreeSet<IpAddr>) -> Result<Option<Own>> {
    for own in pool.free(taken) {
        if claim(host, link, own.address.ip()).await? {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

/// False where another link holds it.
async fn claim(host: &Netlink, link: &Link, address: IpAddr) -> Result<bool> {
    let name = address_name(address);
    match host.add_alternative_name(link.index, &name).await {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno).doing(|| format!("name link {} {name}", link.name)),
    }
}

/// Who holds `address`, in words.
async fn holder(host: &Netlink, address: IpAddr) -> Result<String> {
    let name = address_name(address);
    let link = host.link_by_alternative_name(&name).await.doing(|| format!("look up {name}"))?;
    Ok(match link {
        Some(Link { name, alias: Some(alias), .. }) => format!("link {name} ({alias})"),
        Some(Link { name, .. }) => format!("link {name}"),
        None => "a link that was deleted just now".to_owned(),
    })
}

/// The host end of an attachment, also of one whose ADD was cut short before it had its name.
pub(crate) async fn find(host: &Netlink, attachment: &Attachment<'_>) -> Result<Option<Link>> {
    let name = attachment.name();
    if let Some(link) = host.link_by_alternative_name(&name).await.doing(|| format!("look up {name}"))? {
        return Ok((is_host_end(&link) && is_of_network(&link, attachment.network)).then_some(link));
    }
    for name in attachment.host_names() {
        let link = host.link(&name).await.doing(|| format!("look up {name}"))?;
        if let Some(link) = link.filter(is_unfinished) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// The host end of a finished attachment, as far as its names and record tell: without a record an ADD is at work, or was cut short.
pub(crate) fn is_whole(link: &Link) -> bool {
    is_host_end(link) && attachment_of(link).is_some() && link.alias.is_some()
}

/// Whether it can be one of flatnet's at all: what else somebody gave such names is not flatnet's to delete.
fn is_host_end(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// A host end as `add_veth` makes it, before anything else has happened to it.
pub(crate) fn is_unfinished(link: &Link) -> bool {
    is_host_end(link) && link.bridge.is_some() && link.names.is_empty() && link.alias.is_none()
}

/// An unfinished one that flatnet named: it is an ADD's that is at work, or was cut short. (Docker's links on its bridge look alike.)
pub(crate) fn is_half_made(link: &Link) -> bool {
    let digits = link.name.strip_prefix(LINK_PREFIX);
    is_unfinished(link) && digits.is_some_and(|it| it.len() == 8 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::request::Args;

    fn target(container: &str, name: Option<&str>) -> Target {
        let args = Args { name: name.map(str::to_owned), ..Args::default() };
        Target { container: container.into(), interface: "eth0".into(), netns: "".into(), args }
    }

    #[rstest]
    #[case::short("web", "flatnet-att-web@eth0")]
    #[case::longest(&"a".repeat(110), &format!("flatnet-att-{}@eth0", "a".repeat(110)))]
    fn attachment_names(#[case] container: &str, #[case] expected: &str) {
        assert_eq!(Attachment { network: "flatnet", target: &target(container, None) }.name(), expected);
    }

    #[test]
    fn a_long_attachment_name_is_hashed_and_still_its_own() {
        let (one, other) = (target(&"a".repeat(111), None), target(&"a".repeat(112), None));
        let name = |target| Attachment { network: "flatnet", target }.name();
        assert_eq!(name(&one).len(), ATTACHMENT_PREFIX.len() + 16);
        assert_ne!(name(&one), name(&other));
    }

    #[rstest]
    #[case::own("fn-0123abcd", Some(7), None, true)]
    #[case::another_s("veth0123abc", Some(7), None, false)]
    #[case::not_a_port("fn-0123abcd", None, None, false)]
    #[case::finished("fn-0123abcd", Some(7), Some("network=flatnet"), false)]
    fn half_made_links(
        #[case] name: &str,
        #[case] bridge: Option<u32>,
        #[case] alias: Option<&str>,
        #[case] half: bool,
    ) {
        let alias = alias.map(str::to_owned);
        let link = Link { name: name.into(), kind: Some("veth".into()), bridge, alias, ..Link::default() };
        assert_eq!(is_half_made(&link), half);
    }

    #[test]
    fn host_names_fit_and_differ() {
        let target = target("web", None);
        let names: BTreeSet<_> = Attachment { network: "flatnet", target: &target }.host_names().collect();
        assert_eq!(names.len(), HOST_NAMES as usize);
        assert!(names.iter().all(|name| name.len() == 11 && name.starts_with("fn-")), "{names:?}");
    }

    #[rstest]
    #[case::plain("flatnet", "web", None, "network=flatnet container=web interface=eth0")]
    #[case::named("flatnet", "0123", Some("web"), "network=flatnet container=0123 interface=eth0 name=web")]
    #[case::spaces("flatnet", "0123", Some("a b"), "network=flatnet container=0123 interface=eth0 name=a_b")]
    fn records(#[case] network: &str, #[case] container: &str, #[case] name: Option<&str>, #[case] expected: &str) {
        assert_eq!(Attachment { network, target: &target(container, name) }.record(None), expected);
    }

    #[test]
    fn the_longest_record_fits_an_alias() {
        let long = "\u{e9}".repeat(300);
        let mut target = target(&long, Some(&long));
        target.interface = "a23456789012345".into();
        for guarded in [None, Some(Mac([0x0a, 0x57, 0x0a, 0x57, 1, 2]))] {
            let record = Attachment { network: &long, target: &target }.record(guarded);
            assert!(record.len() <= RECORD_MAX_BYTES, "{record}");
            assert!(record_part(&record, "name").is_some_and(|name| name.len() > 50), "{record}");
        }
    }

    #[test]
    fn the_record_tells_the_mac_that_a_container_is_held_to() {
        let mac = Mac([0x0a, 0x57, 0x0a, 0x57, 1, 2]);
        // Nobody can smuggle another in by the name.
        let target = target("0123", Some("web mac=0a:00:00:00:00:01"));
        let link = |guarded| {
            let alias = Some(Attachment { network: "flatnet", target: &target }.record(guarded));
            guarded_mac(&Link { alias, ..Link::default() })
        };
        assert_eq!((link(Some(mac)), link(None)), (Some(mac), None));
    }

    #[rstest]
    #[case::first("network", Some("flatnet"))]
    #[case::last("name", Some("web=1"))]
    #[case::not_there("nam", None)]
    fn record_parts(#[case] key: &str, #[case] expected: Option<&str>) {
        assert_eq!(record_part("network=flatnet container=0123 interface=eth0 name=web=1", key), expected);
    }

    #[rstest]
    #[case::lease("flatnet-ip-10.87.1.2", Some("10.87.1.2"))]
    #[case::v6("flatnet-ip-fd00::2", Some("fd00::2"))]
    #[case::attachment("flatnet-att-web@eth0", None)]
    #[case::foreign("enp1s0", None)]
    #[case::nonsense("flatnet-ip-10.87.1", None)]
    fn addresses_in_names(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(address_in(name), expected.map(|text| text.parse().expect("an address")));
    }
}
