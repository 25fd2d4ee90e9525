//! Published ports: maps and chains of flatnet's tables, for runtimes that leave ports to the network's driver.
//!
//! What is published is said by the links: a host link's alternative names claim its ports, and are gone with it. The tables follow
//! from the links alone, so that whatever took rules away, the next setup or teardown with ports, or `flatnet gateway`, puts
//! them back; a port whose link is gone is stale, and goes at the same moment. The chains go with the last port; without ports there
//! are none, and no link of [`loopback`].

mod claims;
mod loopback;
mod rules;
mod state;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

pub(crate) use self::claims::of as claimed;
pub(super) use self::loopback::LOOPBACK;
use self::state::State;
use self::table::Found;
use super::lock;
use crate::attachment::Attachment;
use crate::error::{Doing, Error, Result};
use crate::family::IpFamily;
use crate::netlink::{Netlink, forget_udp};
use crate::nft::{Nftables, Problem};

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// One address of the host, or the unspecified one for all of its family.
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// A port of the host, and the container's port that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) host: HostPort,
    pub(crate) container: u16,
}

impl HostPort {
    /// Two sockets could not be bound to both.
    fn collides(self, other: Self) -> bool {
        let any = self.address.is_unspecified() || other.address.is_unspecified();
        let same_address = self.family() == other.family() && (any || self.address == other.address);
        same_address && self.protocol == other.protocol && self.number == other.number
    }

    fn family(self) -> IpFamily {
        IpFamily::of(self.address)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, protocol) = (self.number, self.protocol.as_str());
        match self.address {
            IpAddr::V4(address) if address.is_unspecified() => write!(f, "{number}/{protocol}"),
            address => write!(f, "{}/{protocol}", SocketAddr::new(address, number)),
        }
    }
}

impl Protocol {
    /// As nftables and runtimes call it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its number (RFC 790).
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Publishes `ports` for an attachment that is whole, all or none: `before` is called before the first of them is; from then on [`unpublish`]
/// takes back what there is. Errors: 108 where another container has one of them; 109.
pub(crate) async fn publish(
    host: &Netlink,
    attachment: &Attachment<'_>,
    ports: &[Port],
    before: impl FnOnce(),
) -> Result<()> {
    let _lock = lock().await?;
    let mut state = State::read(host).await?;
    state.adopt(host).await?;
    let own = attachment.name();
    let doing = || format!("find the host link of {own}");
    let at = state.links.iter().position(|link| link.names.contains(&own)).ok_or(Errno::ENODEV).doing(doing)?;
    let free = state.free(at, ports, &attachment.target.container)?;
    let names = claims::names(&free);
    if names.len() > claims::NAMES_MAX {
        return Err(Error::Unsupported {
            key: "published ports".into(),
            value: "too many separate ports".into(),
            remedy: "publish ranges instead of single ports".into(),
        });
    }
    before();
    for name in names {
        let link = &state.links[at];
        host.add_alternative_name(link, &name).await?;
        state.links[at].names.push(name);
    }
    state.bring(host, Some(&free)).await
}

/// Takes away the ports of the attachment of that name, and what is stale. Nothing to take away is no error.
pub(crate) async fn unpublish(host: &Netlink, attachment: &str) -> Result<()> {
    let _lock = lock().await?;
    let mut state = State::read(host).await?;
    state.adopt(host).await?;
    for link in state.links.iter_mut().filter(|link| link.names.iter().any(|name| name == attachment)) {
        let claims: Vec<_> = claims::names_of(link).cloned().collect();
        for name in &claims {
            host.delete_alternative_name(link, name).await?;
        }
        link.names.retain(|name| !claims.contains(name));
    }
    state.bring(host, None).await
}

/// Makes the rules what the links say, whoever took them away. A host without published ports is not changed. Errors: 109.
pub(crate) async fn repair(host: &Netlink) -> Result<()> {
    if !may_be_published(host).await? {
        return Ok(());
    }
    let _lock = lock().await?;
    let mut state = State::read(host).await?;
    state.adopt(host).await?;
    state.bring(host, None).await
}

/// Whether links claim ports, or there may be something left of ports that were published.
pub(crate) async fn may_be_published(host: &Netlink) -> Result<bool> {
    let links = host.links().await?;
    // Containers that flatnet 0.1 has published ports of are known to the rules alone.
    let is_former = || links.iter().any(|link| link.kind.as_deref() == Some("bridge") && is_open(&link.name));
    let is_published = links.iter().any(|link| claimed(link).next().is_some());
    Ok(is_published || loopback::is_left(&links) || is_former())
}

/// What is wrong with the rules for the ports that the host's links claim ([`claimed`]). Errors: 109.
pub(crate) async fn problem(host: &Netlink) -> Result<Option<String>> {
    let state = State::read(host).await?;
    if state.links.iter().all(|link| claimed(link).next().is_none()) {
        return Ok(None);
    }
    let failed = |problem: Problem| failed("read the published ports", &problem);
    let mut nftables = Nftables::open().map_err(failed)?;
    for family in IpFamily::BOTH {
        let wanted = state.wanted(family);
        if !wanted.ports.is_empty()
            && let Some(problem) = Found::read(&mut nftables, family).await.map_err(failed)?.problem(&wanted)
        {
            return Ok(Some(problem));
        }
    }
    Ok(loopback::problem(&state.links))
}

/// Whether ports may be published by flatnet. A look at a link, where nftables might have to be loaded.
pub(crate) async fn is_in_use(host: &Netlink, bridge: &str) -> bool {
    loopback::is_there(host).await || is_open(bridge)
}

/// Whether the bridge takes packets to loopback addresses: flatnet 0.1 may have published ports there, or the plugin portmap has.
pub(super) fn is_open(bridge: &str) -> bool {
    let file = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// Whether each of the family's ports is published in the other family too, as where no address was named.
fn is_spare(ports: &[Port], family: IpFamily) -> bool {
    let twin = |port: &Port| {
        let same = |other: &&Port| {
            let (a, b) = (port.host, other.host);
            (a.protocol, a.number, port.container) == (b.protocol, b.number, other.container)
        };
        let mut others =
            ports.iter().filter(|other| other.host.family() != family && other.host.address.is_unspecified());
        port.host.address.is_unspecified() && others.any(|other| same(&other))
    };
    ports.iter().filter(|port| port.host.family() == family).all(twin)
}

/// Whoever goes on sending to a UDP port would otherwise go on being led where it led before.
async fn forget_flows(host: &Netlink, ports: &BTreeSet<HostPort>) -> Result<()> {
    let ports: BTreeSet<_> =
        ports.iter().filter(|port| port.protocol == Protocol::Udp).map(|port| port.number).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let addresses = host.all_addresses().await?;
    let own = |address| {
        let is_mirrored = |address| matches!(address, IpAddr::V4(address) if loopback::MIRROR.contains(address));
        is_mirrored(address) || addresses.iter().any(|(_, own)| own.ip() == address)
    };
    forget_udp(|address, port| ports.contains(&port) && own(address)).await
}

fn failed(doing: &str, problem: &Problem) -> Error {
    Error::Firewall {
        doing: doing.to_owned(),
        problem: problem.to_string(),
        remedy: "published ports need root, and a kernel with nf_tables, nft_nat and nft_masq: see `dmesg`; the container's own address needs no ports".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rstest::rstest;

    use super::*;

    const ALL: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ALL_OF_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 2));
    const ONE_OF_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 2));

    fn port(address: IpAddr, protocol: Protocol, number: u16) -> HostPort {
        HostPort { address, protocol, number }
    }

    #[rstest]
    #[case::same(ALL, port(ALL, Protocol::Tcp, 80), true)]
    #[case::one_address_of_all(ALL, port(ONE, Protocol::Tcp, 80), true)]
    #[case::two_addresses(ANOTHER, port(ONE, Protocol::Tcp, 80), false)]
    #[case::other_protocol(ALL, port(ALL, Protocol::Udp, 80), false)]
    #[case::other_number(ALL, port(ALL, Protocol::Tcp, 81), false)]
    #[case::other_family(ALL, port(ALL_OF_IPV6, Protocol::Tcp, 80), false)]
    #[case::one_address_of_ipv6(ALL_OF_IPV6, port(ONE_OF_IPV6, Protocol::Tcp, 80), true)]
    fn collisions(#[case] address: IpAddr, #[case] other: HostPort, #[case] collides: bool) {
        assert_eq!(port(address, Protocol::Tcp, 80).collides(other), collides);
        assert_eq!(other.collides(port(address, Protocol::Tcp, 80)), collides);
    }

    #[rstest]
    #[case::all(ALL, "80/tcp")]
    #[case::one(ONE, "127.0.0.1:80/tcp")]
    #[case::all_of_ipv6(ALL_OF_IPV6, "[::]:80/tcp")]
    #[case::one_of_ipv6(ONE_OF_IPV6, "[fd30::2]:80/tcp")]
    fn in_words(#[case] address: IpAddr, #[case] words: &str) {
        assert_eq!(port(address, Protocol::Tcp, 80).to_string(), words);
    }
}
