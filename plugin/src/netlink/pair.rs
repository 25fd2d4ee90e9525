//! Two links of one namespace that are each other's other end, and the IPv4 settings of a link, which need no /proc/sys.

use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Link, Netlink};
use crate::error::{Doing, Result};
use crate::mac::Mac;

/// `IFLA_INET_CONF` of `linux/if_link.h`, which holds attributes.
const IFLA_INET_CONF: u16 = 1 | 1 << 15;

/// An IPv4 setting of a link (`IPV4_DEVCONF_*` of `linux/ip.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ipv4Setting {
    Forwarding = 1,
    RouteLocalnet = 26,
}

impl Netlink {
    /// Makes a pair, both ends down. They have one MAC and resolve no addresses: what is sent by the one is taken in by the other,
    /// whatever its address. Errors: `EEXIST` for either name.
    pub(crate) async fn add_inner_pair(&self, (first, second): (&str, &str), mac: Mac) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(second).address(mac.0.to_vec()).arp(false).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(first)
            .address(mac.0.to_vec())
            .arp(false)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        let made = self.add(pair.build()).await;
        made.doing(|| self.here(format!("create the veth pair {first} - {second}")))
    }

    /// Changes IPv4 settings of a link.
    pub(crate) async fn set_ipv4(&self, link: &Link, settings: &[(Ipv4Setting, bool)]) -> Result<()> {
        let mut said = Vec::new();
        for (setting, on) in settings {
            said.extend(8_u16.to_ne_bytes());
            said.extend((*setting as u16).to_ne_bytes());
            said.extend(u32::from(*on).to_ne_bytes());
        }
        let said = AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, said))]);
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(link.index);
        let message = message.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![said]));
        let done = self.change(RouteNetlinkMessage::SetLink(message.build()), 0).await;
        done.doing(|| self.here(format!("change the IPv4 settings of {}", link.name)))
    }
}
