//! VLANs (IEEE 802.1Q): which of them pass a bridge and its ports, and links that stand on one.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rtnetlink::packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoKind, LinkAttribute, LinkExtentMask,
    LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan};

use super::{Link, Netlink};
use crate::error::{Doing, Result};

/// What a kernel needs to have been built with whose bridges keep VLANs apart.
pub(super) const VLAN_FILTERING: &str = "CONFIG_BRIDGE_VLAN_FILTERING";
/// What a kernel needs to have been built with for links that stand on a VLAN.
const VLAN_LINKS: &str = "CONFIG_VLAN_8021Q";

/// The VLANs of one port, or of a bridge itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vlans {
    /// Whose frames pass, in either direction.
    pub(crate) passed: BTreeSet<u16>,
    /// Where frames without a tag belong.
    pub(crate) native: Option<u16>,
}

impl Netlink {
    /// Makes a link that has the frames of one VLAN of `bridge`, down, with the bridge's MAC and MTU. Errors: `EEXIST`.
    pub(crate) async fn add_vlan(&self, name: &str, bridge: &Link, vlan: u16) -> Result<()> {
        let made = self.add(LinkVlan::new(name, bridge.index, vlan).build()).await;
        made.doing(|| self.here(format!("create link {name} for VLAN {vlan} with {VLAN_LINKS}")))
    }

    /// Has a bridge keep VLANs apart.
    pub(crate) async fn set_vlan_filtering(&self, bridge: &Link) -> Result<()> {
        let filtering = InfoBridge::VlanFiltering(true);
        let message = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(bridge.index);
        // Settings of a bridge are taken with this type of message only.
        let done = self.change(RouteNetlinkMessage::NewLink(message.append_info_data(filtering).build()), 0).await;
        done.doing(|| self.here(format!("have {} keep VLANs apart with {VLAN_FILTERING}", bridge.name)))
    }

    /// Lets the host itself have a VLAN's frames, tagged, at the bridge. One that it has already is no error.
    pub(crate) async fn let_in_vlan(&self, bridge: &Link, vlan: u16) -> Result<()> {
        let own = [AfSpecBridge::Flags(BridgeFlag::LowerDev), member(vlan, BridgeVlanInfoFlags::empty())];
        let done = self.change(RouteNetlinkMessage::SetLink(of_bridge(bridge.index, own.to_vec())), 0).await;
        done.doing(|| self.here(format!("let VLAN {vlan} in at {}", bridge.name)))
    }

    /// Lets VLANs pass at a bridge's port: the native one without a tag, the others with theirs.
    pub(crate) async fn let_pass(
        &self,
        port: &Link,
        native: Option<u16>,
        tagged: &[RangeInclusive<u16>],
    ) -> Result<()> {
        let mut members = Vec::new();
        members.extend(native.map(|vlan| member(vlan, BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged)));
        for range in tagged {
            if range.start() == range.end() {
                members.push(member(*range.start(), BridgeVlanInfoFlags::empty()));
            } else {
                members.push(member(*range.start(), BridgeVlanInfoFlags::RangeBegin));
                members.push(member(*range.end(), BridgeVlanInfoFlags::RangeEnd));
            }
        }
        let done = self.change(RouteNetlinkMessage::SetLink(of_bridge(port.index, members)), 0).await;
        done.doing(|| self.here(format!("put {} in its VLANs", port.name)))
    }

    /// Keeps a VLAN from a bridge's port. One that it does not have is no error.
    pub(crate) async fn keep_out(&self, port: &Link, vlan: u16) -> Result<()> {
        let members = vec![member(vlan, BridgeVlanInfoFlags::empty())];
        let done = self.change(RouteNetlinkMessage::DelLink(of_bridge(port.index, members)), 0).await;
        done.doing(|| self.here(format!("keep VLAN {vlan} from {}", port.name)))
    }

    /// The VLANs of a port, or of a bridge itself.
    pub(crate) async fn vlans(&self, link: &Link) -> Result<Vlans> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        // The kernel lists those of all ports and bridges, or none.
        let messages = self.dump_whole(RouteNetlinkMessage::GetLink(message)).await;
        let messages = messages.doing(|| self.here(format!("list the VLANs of {}", link.name)))?;
        Ok(messages.into_iter().find_map(|message| read(message, link.index)).unwrap_or_default())
    }
}

/// What a bridge's own messages about a link say.
fn of_bridge(link: u32, said: Vec<AfSpecBridge>) -> LinkMessage {
    let message = LinkMessageBuilder::<LinkUnspec>::new().index(link).interface_family(AddressFamily::Bridge);
    message.append_extra_attribute(LinkAttribute::AfSpecBridge(said)).build()
}

fn member(vid: u16, flags: BridgeVlanInfoFlags) -> AfSpecBridge {
    AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid })
}

fn read(message: RouteNetlinkMessage, link: u32) -> Option<Vlans> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    if message.header.index != link {
        return None;
    }
    let said = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(said) => Some(said),
        _ => None,
    });
    let mut vlans = Vlans::default();
    let mut begin = None;
    for info in said? {
        let AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid }) = info else { continue };
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begin = Some(vid);
            continue;
        }
        vlans.passed.extend(begin.take().unwrap_or(vid)..=vid);
        if flags.contains(BridgeVlanInfoFlags::Pvid) {
            vlans.native = Some(vid);
        }
    }
    Some(vlans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_what_is_in_them() {
        let said = vec![
            member(1, BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged),
            member(200, BridgeVlanInfoFlags::RangeBegin),
            member(202, BridgeVlanInfoFlags::RangeEnd),
            member(300, BridgeVlanInfoFlags::empty()),
        ];
        let message = || RouteNetlinkMessage::NewLink(of_bridge(7, said.clone()));
        let expected = Vlans { passed: [1, 200, 201, 202, 300].into(), native: Some(1) };
        assert_eq!(read(message(), 7), Some(expected));
        assert_eq!(read(message(), 8), None, "another link's");
    }
}
