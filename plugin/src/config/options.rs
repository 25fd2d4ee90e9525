//! The options of the reference plugin `bridge`, with its names and meanings: what the bridge, its ports and the containers' interfaces
//! are like. Where flatnet has another default, it is said beside the key.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::section::Section;
use crate::error::Result;
use crate::names::{self, interface_name_problem};

/// The VLANs that there are (IEEE 802.1Q, section 9.6).
const VLANS: RangeInclusive<i64> = 1..=4094;

/// What a network's bridge and interfaces are like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key that is true or false")]
pub(crate) struct BridgeOptions {
    /// `isGateway`: whether the bridge has the gateways' addresses, and the host passes on what containers send. Here true by default.
    pub(crate) is_gateway: bool,
    /// `isDefaultGateway`: whether containers have their default routes by it. Here true by default.
    pub(crate) is_default_gateway: bool,
    /// `forceAddress`: whether addresses that are in the gateways' way are taken from the bridge.
    pub(crate) force_address: bool,
    /// `promiscMode`: whether the bridge takes in everything.
    pub(crate) promiscuous: bool,
    /// `disableContainerInterface`: whether the container's interface is left down.
    pub(crate) container_down: bool,
    /// Of each container's port.
    pub(crate) port: PortOptions,
    /// The VLAN's own link, which has the gateways' addresses where the bridge is a gateway of one VLAN only.
    pub(super) vlan_link: Option<String>,
}

/// What the bridge's port of a container is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortOptions {
    /// `hairpinMode`: whether frames may leave by the port that they came by.
    pub(crate) hairpin: bool,
    /// `portIsolation`: whether nothing passes between it and others like it.
    pub(crate) isolated: bool,
    /// `vlan`: where frames without a tag belong; beside `vlanTrunk` the trunk's native VLAN.
    pub(crate) vlan: Option<u16>,
    /// `vlanTrunk`: the VLANs that pass with their tags, in order, without the native one.
    pub(crate) trunk: Vec<RangeInclusive<u16>>,
    /// `preserveDefaultVlan`: whether it stays in the VLAN that the bridge puts new ports in. False by default, as in the reference since 1.8.
    pub(crate) keeps_default_vlan: bool,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            is_gateway: true,
            is_default_gateway: true,
            force_address: false,
            promiscuous: false,
            container_down: false,
            port: PortOptions::default(),
            vlan_link: None,
        }
    }
}

impl PortOptions {
    /// Whether it is of use only where the bridge keeps VLANs apart.
    pub(crate) fn needs_vlan_filtering(&self) -> bool {
        self.vlan.is_some() || !self.trunk.is_empty()
    }

    fn parse(section: &mut Section) -> Result<Self> {
        let hairpin = section.boolean("hairpinMode")?.unwrap_or(false);
        let isolated = section.boolean("portIsolation")?.unwrap_or(false);
        // Zero means "not configured", as in the reference.
        let vlan = match section.integer("vlan")?.filter(|vlan| *vlan != 0) {
            Some(vlan) => Some(fitting_vlan(vlan).map_err(|problem| section.problem("vlan", problem))?),
            None => None,
        };
        let trunk = trunk(section, vlan)?;
        let keeps_default_vlan = section.boolean("preserveDefaultVlan")?.unwrap_or(false);
        Ok(Self { hairpin, isolated, vlan, trunk, keeps_default_vlan })
    }
}

impl BridgeOptions {
    /// The options of a network on `bridge`, and whether its containers get addresses. `addressing` is whether the configuration's
    /// `ipam` says anything, if it has one. Errors: 7.
    pub(crate) fn parse(section: &mut Section, bridge: &str, addressing: Option<bool>) -> Result<(Self, bool)> {
        let asked_default = section.boolean("isDefaultGateway")?;
        let asked = section.boolean("isGateway")?;
        // The one is nothing without the other.
        let asked = if asked_default == Some(true) { asked_default } else { asked };
        let force_address = section.boolean("forceAddress")?.unwrap_or(false);
        let container_down = section.boolean("disableContainerInterface")?.unwrap_or(false);
        let has_addresses = has_addresses(section, addressing, asked, container_down)?;
        // Without addresses there is none for the gateway either: the reference takes the key there, and it has no effect.
        let is_gateway = has_addresses && asked.unwrap_or(true);
        let is_default_gateway = is_gateway && asked_default.unwrap_or(true);
        let promiscuous = section.boolean("promiscMode")?.unwrap_or(false);
        let port = PortOptions::parse(section)?;
        if port.hairpin && promiscuous {
            return Err(section.problem("promiscMode", "is true, and so is hairpinMode: use one of them"));
        }
        let vlan_link = match port.vlan.filter(|_| is_gateway) {
            Some(vlan) => Some(vlan_link(bridge, vlan).map_err(|problem| section.problem("vlan", problem))?),
            None => None,
        };
        let options =
            Self { is_gateway, is_default_gateway, force_address, promiscuous, container_down, port, vlan_link };
        Ok((options, has_addresses))
    }
}

/// Whether containers get addresses: on a network of layer 2, which says so, they get none. `asked` is whether the bridge is to be a gateway.
fn has_addresses(
    section: &Section,
    addressing: Option<bool>,
    asked: Option<bool>,
    container_down: bool,
) -> Result<bool> {
    let refused = |key: &str, problem: &str| Err(section.problem(key, problem));
    match addressing {
        Some(true) if container_down => refused(
            "disableContainerInterface",
            "is true, but an interface that stays down has no address: leave ipam out",
        ),
        Some(has_addresses) => Ok(has_addresses),
        None if container_down || asked == Some(false) => Ok(false),
        None => refused("ipam", "is missing: set its subnet, or set it to {} for a network without addresses"),
    }
}

/// What the gateway's link is called; the error follows "vlan".
fn vlan_link(bridge: &str, vlan: u16) -> Result<String, String> {
    let name = names::vlan_link(bridge, vlan);
    match interface_name_problem(&name) {
        None => Ok(name),
        Some(problem) => {
            Err(format!("is {vlan}, but the name of its link, {name}, {problem}: give the bridge a shorter name"))
        }
    }
}

/// A VLAN that there is; the error follows the key.
fn fitting_vlan(vlan: i64) -> Result<u16, String> {
    let fitting = u16::try_from(vlan).ok().filter(|_| VLANS.contains(&vlan));
    fitting.ok_or_else(|| format!("is {vlan}, but must be {} - {}", VLANS.start(), VLANS.end()))
}

/// All that is in the list, in order, each once. The native VLAN goes without a tag, whether the list has it or not.
fn trunk(section: &mut Section, native: Option<u16>) -> Result<Vec<RangeInclusive<u16>>> {
    let mut vlans = BTreeSet::new();
    for mut item in section.sections("vlanTrunk")? {
        let mut read = |key| match item.integer(key)? {
            Some(vlan) => fitting_vlan(vlan).map(Some).map_err(|problem| item.problem(key, problem)),
            None => Ok(None),
        };
        let (id, min, max) = (read("id")?, read("minID")?, read("maxID")?);
        match (min, max) {
            (Some(min), Some(max)) if min > max => {
                return Err(item.problem("minID", format!("is {min}, which is more than maxID {max}")));
            }
            (Some(min), Some(max)) => vlans.extend(min..=max),
            (None, Some(_)) => return Err(item.problem("minID", "is missing: a range needs both of its ends")),
            (Some(_), None) => return Err(item.problem("maxID", "is missing: a range needs both of its ends")),
            // An item that names no VLAN is taken by the reference as well.
            (None, None) => {}
        }
        vlans.extend(id);
        item.end()?;
    }
    if let Some(native) = native {
        vlans.remove(&native);
    }
    Ok(ranges(&vlans))
}

fn ranges(vlans: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for vlan in vlans {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == *vlan => *last = *last.start()..=*vlan,
            _ => ranges.push(*vlan..=*vlan),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Map, Value, json};

    use super::*;

    /// The options of a configuration with `change`, and whether there are addresses.
    fn parse(change: &Value) -> Result<(BridgeOptions, bool)> {
        let mut config = Map::new();
        config.insert("ipam".into(), json!({"subnet": "10.87.1.0/24"}));
        config.extend(change.as_object().expect("an object").clone());
        let mut section = Section::new("", &config);
        let addressing = section.optional_section("ipam")?.map(|ipam| !ipam.has_only_empty("type"));
        let parsed = BridgeOptions::parse(&mut section, "br0", addressing)?;
        section.end()?;
        Ok(parsed)
    }

    #[test]
    fn without_a_word_all_is_by_default() {
        assert_eq!(parse(&json!({})).expect("options"), (BridgeOptions::default(), true));
    }

    #[rstest]
    #[case::no_gateway(json!({"isGateway": false}), (false, false), true)]
    #[case::no_default(json!({"isDefaultGateway": false}), (true, false), true)]
    #[case::default_needs_gateway(json!({"isGateway": false, "isDefaultGateway": true}), (true, true), true)]
    #[case::empty_ipam(json!({"ipam": {}}), (false, false), false)]
    #[case::empty_ipam_of_a_gateway(json!({"ipam": {}, "isGateway": true}), (false, false), false)]
    #[case::empty_ipam_of_a_default_gateway(json!({"ipam": {"type": ""}, "isDefaultGateway": true}), (false, false), false)]
    #[case::no_ipam(json!({"ipam": null, "isGateway": false}), (false, false), false)]
    #[case::nothing_in_the_container(json!({"ipam": null, "disableContainerInterface": true}), (false, false), false)]
    #[case::nothing_of_a_gateway(json!({"disableContainerInterface": true, "ipam": {}, "isGateway": true}), (false, false), false)]
    fn who_is_a_gateway(#[case] change: Value, #[case] gateway: (bool, bool), #[case] addresses: bool) {
        let (options, has_addresses) = parse(&change).expect("options");
        assert_eq!((options.is_gateway, options.is_default_gateway), gateway);
        assert_eq!(has_addresses, addresses);
    }

    #[rstest]
    #[case::none(json!([]), vec![])]
    #[case::one(json!([{"id": 7}]), vec![7..=7])]
    #[case::range(json!([{"minID": 200, "maxID": 299}, {"id": 101}]), vec![101..=101, 200..=299])]
    #[case::they_meet(json!([{"minID": 2, "maxID": 3}, {"minID": 3, "maxID": 5, "id": 6}]), vec![2..=6])]
    #[case::nothing(json!([{}]), vec![])]
    #[case::nothing_and_one(json!([{"id": null}, {"id": 9}]), vec![9..=9])]
    fn trunks(#[case] list: Value, #[case] expected: Vec<RangeInclusive<u16>>) {
        let (options, _) = parse(&json!({"vlanTrunk": list})).expect("options");
        assert_eq!(options.port.trunk, expected);
        assert_eq!(options.port.needs_vlan_filtering(), !expected.is_empty());
    }

    #[rstest]
    #[case::beside_it(json!([{"id": 7}]), vec![7..=7])]
    #[case::among_others(json!([{"minID": 1, "maxID": 3}]), vec![1..=1, 3..=3])]
    #[case::alone(json!([{"id": 2}]), vec![])]
    fn vlan_is_the_native_one_of_a_trunk(#[case] list: Value, #[case] tagged: Vec<RangeInclusive<u16>>) {
        let (options, _) = parse(&json!({"vlan": 2, "vlanTrunk": list})).expect("options");
        assert_eq!((options.port.vlan, options.port.trunk), (Some(2), tagged));
    }

    #[rstest]
    #[case::of_a_gateway(json!({"vlan": 100}), Some("br0.100"))]
    #[case::zero(json!({"vlan": 0}), None)]
    #[case::of_no_gateway(json!({"vlan": 100, "isGateway": false}), None)]
    fn the_gateway_s_link(#[case] change: Value, #[case] expected: Option<&str>) {
        assert_eq!(parse(&change).expect("options").0.vlan_link.as_deref(), expected);
    }

    #[rstest]
    #[case::both_modes(json!({"hairpinMode": true, "promiscMode": true}), "promiscMode is true, and so is hairpinMode")]
    #[case::vlan_large(json!({"vlan": 4095}), "vlan is 4095, but must be 1 - 4094")]
    #[case::vlan_negative(json!({"vlan": -1}), "vlan is -1")]
    #[case::vlan_text(json!({"vlan": "100"}), "vlan is \"100\", not a whole number")]
    #[case::trunk_object(json!({"vlanTrunk": {"id": 1}}), "vlanTrunk is {\"id\":1}, not a list of objects")]
    #[case::trunk_number(json!({"vlanTrunk": [1]}), "vlanTrunk is [1], not a list of objects")]
    #[case::trunk_half(json!({"vlanTrunk": [{"id": 1}, {"minID": 2}]}), "vlanTrunk[1].maxID is missing")]
    #[case::trunk_other_half(json!({"vlanTrunk": [{"maxID": 2}]}), "vlanTrunk[0].minID is missing")]
    #[case::trunk_backwards(json!({"vlanTrunk": [{"minID": 3, "maxID": 2}]}), "minID is 3, which is more than maxID 2")]
    #[case::trunk_large(json!({"vlanTrunk": [{"id": 4095}]}), "vlanTrunk[0].id is 4095")]
    #[case::down_with_address(json!({"disableContainerInterface": true}), "leave ipam out")]
    #[case::no_ipam(json!({"ipam": null}), "ipam is missing: set its subnet, or set it to {}")]
    #[case::gateway_without_ipam(json!({"ipam": null, "isGateway": true}), "ipam is missing")]
    fn refused(#[case] change: Value, #[case] words: &str) {
        let error = parse(&change).unwrap_err();
        assert_eq!(error.code(), 7, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn a_name_that_is_too_long_for_a_link_is_told() {
        let problem = vlan_link("flatnet-br0", 1000).unwrap_err();
        assert!(problem.contains("flatnet-br0.1000") && problem.contains("16 bytes"), "{problem}");
        assert_eq!(vlan_link("flatnet-br0", 100), Ok("flatnet-br0.100".into()));
    }
}
