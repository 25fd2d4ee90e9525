//! Wires between hosts: one switch per shared subnet in the world's own namespace, one virtual cable per host and switch.
//!
//! Invariant: a host sees only its own ends, named `eth0`, `eth1`, .. in the order of its wires. Nobody waits for duplicate address
//! detection: a world is ready when it is built.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ipnetwork::IpNetwork;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoBridge, InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace::{Namespace, at_home};
use super::set_sysctl;
use crate::deadline;

/// How long the kernel may take to have an address answer for itself.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// One cable: from the switch of its subnet to a host's `ethN`.
#[derive(Debug)]
pub(super) struct Cable<'a> {
    pub(super) switch: usize,
    pub(super) host: &'a Namespace,
    pub(super) eth: usize,
    pub(super) mtu: Option<u32>,
}

/// Makes `switches` switches and the cables into them.
pub(super) fn lay(switches: usize, cables: &[Cable<'_>]) -> Result<()> {
    // The switches are layer 2 only: an address of their own would answer in the hosts' place.
    let no_ipv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    if fs::exists(no_ipv6).unwrap_or(false) {
        fs::write(no_ipv6, "1").context("keep IPv6 off the switches")?;
    }
    let hosts: Vec<File> =
        cables.iter().map(|cable| File::open(cable.host.path())).collect::<Result<_, _>>().context("open a host")?;
    at_home(async |handle| {
        for switch in 0..switches {
            handle.link().add(switch_message(switch)).execute().await.context("make a switch")?;
        }
        for (number, (cable, host)) in cables.iter().zip(&hosts).enumerate() {
            let master = if_nametoindex(switch_name(cable.switch).as_str()).context("find a switch")?;
            let message = cable_message(number, cable, master, host.as_raw_fd());
            handle
                .link()
                .add(message)
                .execute()
                .await
                .with_context(|| format!("lay the cable to {}'s eth{}", cable.host.name(), cable.eth))?;
        }
        Ok(())
    })
}

/// Sets the switch's end of a cable up or down; the host's end then has a carrier or none.
pub(super) fn plug(number: usize, up: bool) -> Result<()> {
    let message = LinkMessageBuilder::<LinkUnspec>::new().name(cable_name(number));
    let message = if up { message.up() } else { message.down() };
    at_home(async |handle| handle.link().change(message.build()).execute().await.context("plug a cable in or out"))
}

fn cable_name(number: usize) -> String {
    format!("cable{number}")
}

fn switch_name(switch: usize) -> String {
    format!("switch{switch}")
}

fn switch_message(switch: usize) -> LinkMessage {
    LinkMessageBuilder::<LinkBridge>::new(&switch_name(switch))
        .set_info_data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]))
        .up()
        .build()
}

/// The host's end cannot be up already: it is made before the two ends know each other.
fn cable_message(number: usize, cable: &Cable<'_>, master: u32, host: i32) -> LinkMessage {
    let mut far = LinkMessageBuilder::<LinkUnspec>::new().name(format!("eth{}", cable.eth)).setns_by_fd(host);
    let mut near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth).name(cable_name(number));
    if let Some(mtu) = cable.mtu {
        (far, near) = (far.mtu(mtu), near.mtu(mtu));
    }
    near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).controller(master).up().build()
}

/// Puts a host's addresses on its cables and its routes in place, and brings `lo` up. A host without addresses is left as
/// the kernel makes it: `lo` down, and not even a routing table.
pub(super) fn configure(host: &Namespace, wires: &[Vec<IpNetwork>], routes: &[(IpNetwork, IpAddr)]) -> Result<()> {
    if wires.is_empty() {
        return Ok(());
    }
    for (eth, _) in wires.iter().enumerate().filter(|(_, addresses)| addresses.iter().any(IpNetwork::is_ipv6)) {
        // The link-local address is the kernel's own work.
        set_sysctl(host, &format!("net.ipv6.conf.eth{eth}.accept_dad"), "0")?;
    }
    host.netlink(async |handle| {
        bring_up(&handle, "lo").await?;
        for (eth, addresses) in wires.iter().enumerate() {
            let name = format!("eth{eth}");
            bring_up(&handle, &name).await?;
            let index = if_nametoindex(name.as_str()).context("find a cable's end")?;
            for address in addresses {
                add_address(&handle, index, *address).await?;
            }
        }
        for (to, via) in routes {
            handle
                .route()
                .add(route(*to, *via)?)
                .execute()
                .await
                .with_context(|| format!("add a route to {to} via {via}"))?;
        }
        Ok(())
    })
}

/// Gives a link, in the namespace of this thread, an address that can be used at once.
pub(super) async fn add_address(handle: &Handle, link: u32, address: IpNetwork) -> Result<()> {
    let mut add = handle.address().add(link, address.ip(), address.prefix());
    if address.is_ipv6() {
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    add.execute().await.with_context(|| format!("set the address {address}"))?;
    match address.ip() {
        IpAddr::V6(ip) => wait_until_heard(link, ip),
        IpAddr::V4(_) => Ok(()),
    }
}

/// The kernel joins the group in which an address of IPv6 is asked for (RFC 4291, 2.7.1) some time after it has taken the address: a
/// question in between is lost, and asked again a second later.
fn wait_until_heard(link: u32, address: Ipv6Addr) -> Result<()> {
    let [.., high, low] = address.segments();
    let group = format!("ff0200000000000000000001ff{:02x}{low:04x}", high & 0xff);
    let is_it = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some(&link.to_string()) && words.nth(1) == Some(&group)
    };
    let joined = deadline::until(JOIN_PATIENCE, || match fs::read_to_string("/proc/thread-self/net/igmp6") {
        Ok(groups) => groups.lines().any(is_it).then_some(Ok(())),
        Err(err) => Some(Err(err).context("list multicast groups")),
    });
    joined.unwrap_or_else(|| Err(anyhow!("see {address} join its group")))
}

/// A route to a range over a next hop.
pub(super) fn route(to: IpNetwork, via: IpAddr) -> Result<RouteMessage> {
    let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.network(), to.prefix());
    Ok(message.and_then(|message| message.gateway(via)).context("word a route")?.build())
}

async fn bring_up(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkMessageBuilder::<LinkUnspec>::new().name(name.to_owned()).up().build();
    handle.link().change(message).execute().await.with_context(|| format!("bring {name} up"))
}
