//! What the kernel says of links, read.

use std::collections::BTreeMap;

use super::{ALL_GROUPS, Link, PortSettings};
use crate::mac::Mac;
use crate::netlink::attribute::{Message, each, find, native, string};

/// Messages of `linux/rtnetlink.h`.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
/// `struct ifinfomsg`, which the attributes follow: family, a byte of padding, type, index, flags, and which of these have changed.
const HEADER_BYTES: usize = 16;
/// `AF_BRIDGE`: what a bridge says of its ports.
const OF_BRIDGE: u8 = 7;
/// Flags of `linux/if.h`.
const IFF_UP: u32 = 1;
const IFF_PROMISC: u32 = 1 << 8;
const IFF_LOWER_UP: u32 = 1 << 16;
/// Attributes of `linux/if_link.h`: of a link,
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LINK: u16 = 5;
const CONTROLLER: u16 = 10;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const GROUP: u16 = 27;
const NETNS_ID: u16 = 37;
const PROPERTIES: u16 = 52;
const ALTERNATIVE_NAME: u16 = 53;
/// of its kind,
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
/// of a bridge, of a VLAN's link, and of a bridge's port.
const BRIDGE_STP: u16 = 5;
const BRIDGE_VLAN_FILTERING: u16 = 7;
const BRIDGE_DEFAULT_VLAN: u16 = 39;
const VLAN_ID: u16 = 1;
const PORT_STATE: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_GROUPS: u16 = 31;
const PORT_ISOLATED: u16 = 33;
/// `BR_STATE_FORWARDING` of `linux/if_bridge.h`.
const FORWARDING: u8 = 3;

/// The links of one or more lists, by index: a list that was interrupted may lack one that is there, but all of several do not.
#[derive(Default)]
pub(super) struct Listed(BTreeMap<u32, Link>);

impl Listed {
    /// A later list.
    pub(super) fn add(&mut self, links: impl IntoIterator<Item = Link>, interrupted: bool) {
        if !interrupted {
            self.0.clear();
        }
        self.0.extend(links.into_iter().map(|link| (link.index, link)));
    }

    /// Each once.
    pub(super) fn into_links(self) -> Vec<Link> {
        self.0.into_values().collect()
    }
}

/// What was announced of links.
#[derive(Debug)]
pub(crate) enum Announced {
    /// There is such a link, new or changed.
    Link(Box<Link>),
    /// The link of that index is gone.
    Gone(u32),
    /// Something that cannot be told: all links have to be listed.
    Unknown,
}

/// What an announcement says of links: the first thing that is there to say.
pub(in crate::netlink) fn announced(datagram: &[u8]) -> Option<Announced> {
    Message::all(datagram).find_map(|message| {
        let header = Header::read(&message)?;
        match message.kind {
            // What a bridge announces of its ports has their index, and little of them; one that leaves its bridge is not gone.
            _ if header.family == OF_BRIDGE => None,
            DELETE_LINK => Some(Announced::Gone(header.index)),
            _ => Link::read(&message).map(|link| Announced::Link(Box::new(link))),
        }
    })
}

/// Whether it is announced that the link is gone.
pub(in crate::netlink) fn is_announced_gone(datagram: &[u8], index: u32) -> bool {
    // A bridge says in nearly the same words that a port has left it.
    let is_it = |header: Header| header.index == index && header.family != OF_BRIDGE;
    Message::all(datagram).any(|message| message.kind == DELETE_LINK && Header::read(&message).is_some_and(is_it))
}

/// What every message about a link begins with.
struct Header {
    family: u8,
    index: u32,
    flags: u32,
}

impl Header {
    /// Nothing where the message is about something else.
    fn read(message: &Message<'_>) -> Option<Self> {
        let number = |at: usize| Some(u32::from_ne_bytes(message.content.get(at..at + 4)?.try_into().ok()?));
        match message.kind {
            NEW_LINK | DELETE_LINK => Some(Self { family: message.family(), index: number(4)?, flags: number(8)? }),
            _ => None,
        }
    }
}

impl Link {
    /// The link that there is; nothing where the message says something else.
    pub(super) fn read(message: &Message<'_>) -> Option<Self> {
        let header = Header::read(message).filter(|_| message.kind == NEW_LINK)?;
        let has = |flag| header.flags & flag != 0;
        let (up, promiscuous, carrier) = (has(IFF_UP), has(IFF_PROMISC), has(IFF_LOWER_UP));
        let mut link = Self { index: header.index, up, promiscuous, carrier, ..Self::default() };
        for (kind, content) in each(message.content.get(HEADER_BYTES..)?) {
            match kind {
                NAME => link.name = string(content),
                PROPERTIES => link.names = names(content),
                ALIAS => link.alias = Some(string(content)),
                GROUP => link.group = native(content).unwrap_or_default(),
                ADDRESS => link.mac = content.try_into().ok().map(Mac),
                MTU => link.mtu = native(content).unwrap_or_default(),
                LINK => link.peer = native(content),
                NETNS_ID => link.peer_namespace = content.try_into().ok().map(i32::from_ne_bytes),
                CONTROLLER => link.bridge = native(content),
                INFO => link.read_info(content),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        self.kind = find(info, INFO_KIND).map(string);
        match (self.kind.as_deref(), find(info, INFO_DATA)) {
            (Some("bridge"), Some(data)) => {
                self.stp = find(data, BRIDGE_STP).and_then(native).is_some_and(|state| state != 0);
                self.vlan_filtering = find(data, BRIDGE_VLAN_FILTERING) == Some(&[1]);
                self.default_vlan = find(data, BRIDGE_DEFAULT_VLAN).and_then(vlan).filter(|vlan| *vlan != 0);
            }
            (Some("vlan"), Some(data)) => self.vlan = find(data, VLAN_ID).and_then(vlan),
            _ => {}
        }
        if find(info, INFO_PORT_KIND).map(string).as_deref() == Some("bridge")
            && let Some(port) = find(info, INFO_PORT_DATA)
        {
            self.forwarding = find(port, PORT_STATE) == Some(&[FORWARDING]);
            self.port = PortSettings {
                filtered: find(port, PORT_GROUPS) == Some(&ALL_GROUPS.to_ne_bytes()),
                hairpin: find(port, PORT_HAIRPIN) == Some(&[1]),
                isolated: find(port, PORT_ISOLATED) == Some(&[1]),
            };
        }
    }
}

fn names(properties: &[u8]) -> Vec<String> {
    each(properties).filter(|(kind, _)| *kind == ALTERNATIVE_NAME).map(|(_, name)| string(name)).collect()
}

fn vlan(content: &[u8]) -> Option<u16> {
    content.try_into().ok().map(u16::from_ne_bytes)
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
