//! What the kernel says of links, read.

use std::collections::BTreeMap;

use rtnetlink::packet_core::{DecodeError, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVlan, LinkAttribute,
    LinkFlags, LinkInfo, Prop,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Link, PortSettings};
use crate::mac::Mac;
use crate::netlink::changes::Announced;

/// The links of one or more lists, by index: a list that was interrupted may lack one that is there, but all of several do not.
#[derive(Default)]
pub(super) struct Listed(BTreeMap<u32, Link>);

impl Listed {
    /// A later list.
    pub(super) fn add(&mut self, links: impl Iterator<Item = Link>, interrupted: bool) {
        if !interrupted {
            self.0.clear();
        }
        self.0.extend(links.map(|link| (link.index, link)));
    }

    /// Each once.
    pub(super) fn into_links(self) -> Vec<Link> {
        self.0.into_values().collect()
    }
}

/// What an announcement says of a link; nothing where it is about something else.
pub(in crate::netlink) fn announced(bytes: &[u8]) -> Result<Option<Announced>, DecodeError> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)?;
    let NetlinkPayload::InnerMessage(message) = message.payload else { return Ok(None) };
    Ok(match message {
        // What a bridge announces of its ports has their index, and little of them; one that leaves its bridge is not gone.
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
            if link.header.interface_family == AddressFamily::Bridge =>
        {
            None
        }
        RouteNetlinkMessage::DelLink(link) => Some(Announced::Gone(link.header.index)),
        message => read(message).map(|link| Announced::Link(Box::new(link))),
    })
}

pub(super) fn read(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let has = |flag| message.header.flags.contains(flag);
    let (up, promiscuous) = (has(LinkFlags::Up), has(LinkFlags::Promisc));
    let carrier = has(LinkFlags::LowerUp);
    let mut link = Link { index: message.header.index, up, promiscuous, carrier, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::PropList(names) => link.names = names.into_iter().filter_map(alternative_name).collect(),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(id),
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            LinkAttribute::LinkInfo(infos) => read_infos(infos, &mut link),
            _ => {}
        }
    }
    Some(link)
}

fn read_infos(infos: Vec<LinkInfo>, link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
            LinkInfo::Data(InfoData::Bridge(settings)) => read_bridge(&settings, link),
            LinkInfo::Data(InfoData::Vlan(settings)) => {
                let id = |setting: &InfoVlan| if let InfoVlan::Id(id) = setting { Some(*id) } else { None };
                link.vlan = settings.iter().find_map(id);
            }
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                link.forwarding = port.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                link.port = PortSettings::read(&port);
            }
            _ => {}
        }
    }
}

fn read_bridge(settings: &[InfoBridge], link: &mut Link) {
    for setting in settings {
        match setting {
            InfoBridge::StpState(state) => link.stp = *state != BridgeStpState::Disabled,
            InfoBridge::VlanFiltering(on) => link.vlan_filtering = *on,
            InfoBridge::VlanDefaultPvid(vlan) => link.default_vlan = Some(*vlan).filter(|vlan| *vlan != 0),
            _ => {}
        }
    }
}

fn alternative_name(property: Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(links: &[(u32, &str)]) -> impl Iterator<Item = Link> {
        links.iter().map(|(index, name)| Link { index: *index, name: (*name).to_owned(), ..Link::default() })
    }

    #[test]
    fn links_of_interrupted_lists_are_put_together() {
        let mut listed = Listed::default();
        let names = |listed: &Listed| listed.0.values().map(|link| link.name.clone()).collect::<Vec<_>>();
        listed.add(list(&[(1, "lo"), (3, "c"), (3, "c")]), true);
        listed.add(list(&[(2, "b"), (3, "renamed")]), true);
        assert_eq!(names(&listed), ["lo", "b", "renamed"]);
        listed.add(list(&[(2, "b")]), false);
        assert_eq!(names(&listed), ["b"], "a whole list is the truth");
    }
}
