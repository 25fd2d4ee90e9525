//! Links: bridges, veth pairs, and the names they carry.

mod read;

use nix::errno::Errno;
use rtnetlink::packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkMessage, Prop,
};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

pub(crate) use self::read::Announced;
use self::read::Listed;
pub(super) use self::read::{announced, is_announced_gone};
use super::attribute::Message;
use super::vlan::VLAN_FILTERING;
use super::{DUMPS_MAX, Netlink};
use crate::error::{Doing, Result};
use crate::mac::Mac;
use crate::netns::Netns;

/// `IFLA_ALT_IFNAME` of `linux/if_link.h` (Linux 5.5).
const IFLA_ALT_IFNAME: u16 = 53;

/// `IFLA_BRPORT_GROUP_FWD_MASK` for all groups but that of pause frames, which the kernel drops.
const ALL_GROUPS: u16 = 0xfffd;
/// The loopback link is the first of every network namespace (`LOOPBACK_IFINDEX`, net/flow.h of Linux).
const LOOPBACK_INDEX: u32 = 1;

/// A link, as the kernel shows it.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is something that the kernel says of it")]
pub(crate) struct Link {
    /// Unique in its namespace, and for its lifetime.
    pub(crate) index: u32,
    /// 15 bytes at most.
    pub(crate) name: String,
    /// Alternative names: unique in the namespace among all names of all links, 127 bytes at most.
    pub(crate) names: Vec<String>,
    /// The number of its group: 0 unless somebody set another.
    pub(crate) group: u32,
    /// Free text, 255 bytes at most.
    pub(crate) alias: Option<String>,
    /// The hardware address, if it has one of Ethernet's size.
    pub(crate) mac: Option<Mac>,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Whether it is set up (`IFF_UP`), which says nothing about a carrier.
    pub(crate) up: bool,
    /// Whether anything is at its other end (`IFF_LOWER_UP`): a bridge has none where no port of it has any.
    pub(crate) carrier: bool,
    /// Index of its other end, in the namespace where that is; of what it stands on, if it is no veth.
    pub(crate) peer: Option<u32>,
    /// The namespace of its other end, by the number that this namespace has for it; none where that is this one.
    pub(crate) peer_namespace: Option<i32>,
    /// Index of the bridge that it is a port of.
    pub(crate) bridge: Option<u32>,
    /// Whether its bridge passes frames to and from it.
    pub(crate) forwarding: bool,
    /// How its bridge treats what comes from it.
    pub(crate) port: PortSettings,
    /// Whether everything on its segment is taken in, whoever it is for, because somebody said so (`IFF_PROMISC`).
    pub(crate) promiscuous: bool,
    /// Whether it is a bridge that runs the spanning tree protocol.
    pub(crate) stp: bool,
    /// Whether it is a bridge that keeps VLANs apart.
    pub(crate) vlan_filtering: bool,
    /// The VLAN that a bridge puts new ports in; none where it is no bridge, or puts them in none.
    pub(crate) default_vlan: Option<u16>,
    /// The VLAN whose frames it has, if it stands on one.
    pub(crate) vlan: Option<u16>,
    /// `bridge`, `veth`, ...; physical devices have none.
    pub(crate) kind: Option<String>,
}

/// How a bridge treats what comes from a port, where it is not as by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSettings {
    /// Every frame goes through the bridge's packet filter. By default those to link-local groups (IEEE 802.1D, table 7-10) do not: the
    /// kernel takes them in at the port itself, and learns who sent them (Linux 4.15).
    pub(crate) filtered: bool,
    /// Frames may leave by the port that they came by.
    pub(crate) hairpin: bool,
    /// Nothing passes between it and others that are isolated (Linux 4.18).
    pub(crate) isolated: bool,
}

/// A bridge to be made in one message.
pub(crate) struct NewBridge<'a> {
    pub(crate) name: &'a str,
    /// Without one its MAC follows its ports'.
    pub(crate) mac: Option<Mac>,
    /// Whether it keeps VLANs apart.
    pub(crate) vlan_filtering: bool,
}

/// A veth pair to be made in one message. The container's MAC is not in it: it follows the address, and an address can only be
/// claimed by a link that exists; both are set before the container's end is up.
pub(crate) struct NewVeth<'a> {
    /// The host end's name.
    pub(crate) host: &'a str,
    /// The container end's name, inside `netns` from its first moment.
    pub(crate) container: &'a str,
    pub(crate) netns: &'a Netns,
    /// Index of the bridge that the host end is a port of.
    pub(crate) bridge: u32,
    /// Of both ends, in bytes.
    pub(crate) mtu: u32,
}

impl PortSettings {
    /// What has to be said of a new port: nothing of what it is by default.
    fn to_say(self) -> Vec<InfoBridgePort> {
        let mut said = Vec::new();
        said.extend(self.filtered.then_some(InfoBridgePort::GroupFwdMask(ALL_GROUPS)));
        said.extend(self.hairpin.then_some(InfoBridgePort::HairpinMode(true)));
        said.extend(self.isolated.then_some(InfoBridgePort::Isolated(true)));
        said
    }
}

impl Netlink {
    /// The link with this name; `ENODEV` becomes nothing.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let found = self.find(LinkMessageBuilder::<LinkUnspec>::new().name(name).build()).await;
        found.doing(|| self.here(format!("look up {name}")))
    }

    /// The link with this name that the caller has just made. Errors: `ENODEV` where somebody has deleted it since.
    pub(crate) async fn made_link(&self, name: &str) -> Result<Link> {
        let found = self.find(LinkMessageBuilder::<LinkUnspec>::new().name(name).build()).await;
        found.and_then(|link| link.ok_or(Errno::ENODEV)).doing(|| self.here(format!("find {name} just created")))
    }

    /// The link with this alternative name.
    pub(crate) async fn link_by_alternative_name(&self, name: &str) -> Result<Option<Link>> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        let attribute = LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, bytes));
        let found = self.find(LinkMessageBuilder::<LinkUnspec>::new().append_extra_attribute(attribute).build()).await;
        found.doing(|| self.here(format!("look up {name}")))
    }

    /// The link with this index.
    pub(crate) async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let found = self.find(LinkMessageBuilder::<LinkUnspec>::new().index(index).build()).await;
        found.doing(|| self.here(format!("look up link {index}")))
    }

    /// The other end of a veth pair, asked for from here (Linux 4.15). Needs `CAP_NET_ADMIN` over the namespace where it is.
    pub(crate) async fn peer(&self, link: &Link) -> Result<Option<Link>> {
        let Some(index) = link.peer else { return Ok(None) };
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(index);
        let message = match link.peer_namespace {
            Some(id) => message.append_extra_attribute(LinkAttribute::IfNetnsId(id)),
            None => message,
        };
        self.find(message.build()).await.doing(|| self.here(format!("find the other end of {}", link.name)))
    }

    /// The ports of a bridge. While others come and go, one may be missing or stand twice.
    pub(crate) async fn ports(&self, bridge: &Link) -> Result<Vec<Link>> {
        let message =
            LinkMessageBuilder::<LinkUnspec>::new().controller(bridge.index).append_extra_attribute(without_stats());
        let mut ports = Vec::new();
        let is_its = |link: &Link| link.bridge == Some(bridge.index);
        let found = |message: Message<'_>| ports.extend(Link::read(&message).filter(is_its));
        let asked = self.ask(RouteNetlinkMessage::GetLink(message.build()), NLM_F_DUMP, found).await;
        asked.doing(|| self.here(format!("list the ports of {}", bridge.name)))?;
        Ok(ports)
    }

    /// All links of the namespace, each once. While others come and go, one that has gone since may be among them.
    pub(crate) async fn links(&self) -> Result<Vec<Link>> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().append_extra_attribute(without_stats());
        let message = RouteNetlinkMessage::GetLink(message.build());
        let mut listed = Listed::default();
        for _ in 0..DUMPS_MAX {
            let mut links = Vec::new();
            let found = |message: Message<'_>| links.extend(Link::read(&message));
            let asked = self.ask(message.clone(), NLM_F_DUMP, found).await;
            let interrupted = asked.doing(|| self.here("list the links".into()))?;
            listed.add(links, interrupted);
            if !interrupted {
                break;
            }
        }
        Ok(listed.into_links())
    }

    /// Makes a bridge, down. Errors: `EEXIST`.
    pub(crate) async fn add_bridge(&self, new: &NewBridge<'_>) -> Result<()> {
        let mut message = LinkMessageBuilder::<LinkBridge>::new(new.name);
        if let Some(mac) = new.mac {
            message = message.address(mac.0.to_vec());
        }
        if new.vlan_filtering {
            message = message.append_info_data(InfoBridge::VlanFiltering(true));
        }
        let name = new.name;
        self.add(message.build()).await.doing(|| {
            self.here(if new.vlan_filtering {
                format!("create bridge {name} with {VLAN_FILTERING}")
            } else {
                format!("create bridge {name}")
            })
        })
    }

    /// Makes a veth pair, both ends down. Gives the host end where the kernel shows it, as it was before it became a port of its bridge. Errors:
    /// `EEXIST` for either name.
    pub(crate) async fn add_veth(&self, new: &NewVeth<'_>) -> Result<Option<Link>> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(new.container)
            .mtu(new.mtu)
            .setns_by_fd(new.netns.raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(new.host)
            .mtu(new.mtu)
            .controller(new.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let (message, mut made) = (RouteNetlinkMessage::NewLink(pair.build()), None);
        // Linux before 6.2 shows nothing (`NLM_F_ECHO`).
        let flags = NLM_F_ACK | NLM_F_ECHO | NLM_F_CREATE | NLM_F_EXCL;
        let done = self.ask(message, flags, |message| made = Link::read(&message)).await;
        done.doing(|| self.here(format!("create the veth pair {} - {}", new.host, new.container)))?;
        Ok(made)
    }

    /// Gives the link a further name. Errors: `EEXIST` where any link of the namespace has it.
    pub(crate) async fn add_alternative_name(&self, link: &Link, name: &str) -> Result<()> {
        let names = LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]);
        let message = of(link).append_extra_attribute(names).build();
        let done = self.change(RouteNetlinkMessage::NewLinkProp(message), NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND);
        done.await.doing(|| self.here(format!("name link {} {name}", link.name)))
    }

    /// Takes a further name from the link. One that it does not have is no error.
    pub(crate) async fn delete_alternative_name(&self, link: &Link, name: &str) -> Result<()> {
        let names = LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]);
        let message = of(link).append_extra_attribute(names).build();
        match self.change(RouteNetlinkMessage::DelLinkProp(message), 0).await {
            // Nor is a link that has gone meanwhile, with all its names.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done.doing(|| self.here(format!("take the name {name} from {}", link.name))),
        }
    }

    /// Keeps the kernel from giving the link an IPv6 address by itself; say it before the link is set up. Each address
    /// costs multicast that a bridge floods to all its ports. A kernel without IPv6 has nothing to keep it from. With an alias if one is given.
    pub(crate) async fn no_ipv6_by_itself(&self, link: &Link, alias: Option<&str>) -> Result<()> {
        let message = || with_alias(of(link), alias);
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let done = match self.set(message().append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))).await {
            // It has refused all of the message.
            Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) if alias.is_some() => self.set(message()).await,
            Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => Ok(()),
            done => done,
        };
        done.doing(|| {
            self.here(match alias {
                Some(_) => format!("say on {} whose it is, and keep it from IPv6", link.name),
                None => format!("keep {} from IPv6", link.name),
            })
        })
    }

    /// Sets the link up.
    pub(crate) async fn set_up(&self, link: &Link) -> Result<()> {
        self.set(of(link).up()).await.doing(|| self.here(format!("set {} up", link.name)))
    }

    /// Sets the loopback link up.
    pub(crate) async fn set_up_loopback(&self) -> Result<()> {
        self.set_up(&Link { index: LOOPBACK_INDEX, name: "lo".into(), ..Link::default() }).await
    }

    /// Sets the link up, so that everything on its segment is taken in.
    pub(crate) async fn set_up_promiscuous(&self, link: &Link) -> Result<()> {
        self.set(of(link).up().promiscuous(true)).await.doing(|| self.here(format!("set {} up", link.name)))
    }

    /// Sets a new port of a bridge up as it is to be, with an alias if one is given.
    pub(crate) async fn set_up_port(&self, link: &Link, port: PortSettings, alias: Option<&str>) -> Result<()> {
        let message = with_alias(of(link).up(), alias);
        let done = if port == PortSettings::default() {
            self.set(message).await
        } else {
            let port = InfoPortData::BridgePort(port.to_say());
            let message = message.set_port_kind(InfoPortKind::Bridge).set_port_data(port);
            // Settings of a port are taken with this type of message only.
            self.change(RouteNetlinkMessage::NewLink(message.build()), 0).await
        };
        done.doing(|| self.here(format!("set {} up", link.name)))
    }

    /// Sets the link down.
    pub(crate) async fn set_down(&self, link: &Link) -> Result<()> {
        self.set(of(link).down()).await.doing(|| self.here(format!("set {} down", link.name)))
    }

    /// Sets the link up with a MAC.
    pub(crate) async fn set_up_with_mac(&self, link: &Link, mac: Mac) -> Result<()> {
        let done = self.set(of(link).address(mac.0.to_vec()).up()).await;
        done.doing(|| self.here(format!("set {} up with MAC {mac}", link.name)))
    }

    /// Sets the link's MAC. A bridge's, once set, no longer follows its ports'.
    pub(crate) async fn set_mac(&self, link: &Link, mac: Mac) -> Result<()> {
        let done = self.set(of(link).address(mac.0.to_vec())).await;
        done.doing(|| self.here(format!("give {} the MAC {mac}", link.name)))
    }

    /// Sets the link's MTU, in bytes.
    pub(crate) async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<()> {
        self.set(of(link).mtu(mtu)).await.doing(|| self.here(format!("set the MTU of {} to {mtu}", link.name)))
    }

    /// Puts the link into a group.
    pub(crate) async fn set_group(&self, link: &Link, group: u32) -> Result<()> {
        let done = self.set(of(link).append_extra_attribute(LinkAttribute::Group(group))).await;
        done.doing(|| self.here(format!("put {} into link group {group}", link.name)))
    }

    /// Makes the link a port of a bridge.
    pub(crate) async fn set_bridge(&self, link: &Link, bridge: &Link) -> Result<()> {
        let done = self.set(of(link).controller(bridge.index)).await;
        done.doing(|| self.here(format!("put {} on {}", link.name, bridge.name)))
    }

    /// Deletes the link, and so its peer, its addresses, its routes and its names. One that is gone is no error.
    pub(crate) async fn delete_link(&self, link: &Link) -> Result<()> {
        match self.change(RouteNetlinkMessage::DelLink(of(link).build()), 0).await {
            Err(Errno::ENODEV) => Ok(()),
            done => done.doing(|| self.here(format!("delete link {}", link.name))),
        }
    }

    async fn find(&self, mut message: LinkMessage) -> Result<Option<Link>, Errno> {
        message.attributes.push(without_stats());
        let mut link = None;
        match self.ask(RouteNetlinkMessage::GetLink(message), 0, |message| link = Link::read(&message)).await {
            Ok(_) => link.map(Some).ok_or(Errno::EPROTO),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(super) async fn add(&self, message: LinkMessage) -> Result<(), Errno> {
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    async fn set(&self, message: LinkMessageBuilder<LinkUnspec>) -> Result<(), Errno> {
        self.change(RouteNetlinkMessage::SetLink(message.build()), 0).await
    }
}

/// The beginning of a message about the link.
fn of(link: &Link) -> LinkMessageBuilder<LinkUnspec> {
    LinkMessageBuilder::<LinkUnspec>::new().index(link.index)
}

fn with_alias(message: LinkMessageBuilder<LinkUnspec>, alias: Option<&str>) -> LinkMessageBuilder<LinkUnspec> {
    match alias {
        Some(alias) => message.alias(alias),
        None => message,
    }
}

/// Counters are most of a link's message, and nobody here reads them.
fn without_stats() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}
