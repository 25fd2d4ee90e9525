//! A plugin that is held against the rules, and what is known of it beforehand.
//!
//! Invariant: what it is and has comes from its own answers and from the kernel, never from its name.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Rule;
use super::rule::{Need, Trait, Version};
use crate::pattern::Pattern;
use crate::scenario::Network;

/// One plugin with one network, as a child process gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The configuration that it is called with.
    pub network: Network,
    /// What it has.
    pub traits: Traits,
}

/// What a plugin showed of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// The versions that it says it speaks.
    pub versions: Vec<String>,
    /// The plugin that it asks for addresses, if it does.
    pub ipam: Option<Ipam>,
    /// How many containers its network holds at once, if those are fewer than [`super::ROOM`] and that showed only when they came and went.
    pub room: Option<usize>,
    /// What else it is or has.
    pub is: Vec<Trait>,
    /// The first address that it gave.
    pub address: Option<IpNetwork>,
    /// What stays on the host after a container has come and gone, and does not grow with the next one: lines of an inventory, as patterns.
    pub furniture: Vec<String>,
}

/// A plugin that gives addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// Its type.
    pub kind: String,
    /// The versions that it says it speaks.
    pub versions: Vec<String>,
}

impl Traits {
    /// The versions that it can be held against the rules in: its own, less those that the plugin which it asks for addresses does not speak.
    fn usable(&self) -> impl Iterator<Item = Version> {
        let theirs = self.ipam.as_ref().map(|ipam| ipam.versions.as_slice()).unwrap_or_default();
        let own = self.versions.iter().filter(|own| theirs.is_empty() || theirs.contains(own));
        own.filter_map(|text| Version::parse(text))
    }
}

impl Subject {
    /// Whether a line of an inventory is what the plugin keeps for its network, whoever comes and goes.
    pub fn keeps(&self, line: &str) -> bool {
        self.traits.furniture.iter().any(|kept| Pattern::new(kept).matches(line))
    }
}

/// The network in a version that `rule` needs, if it is of an older one and the plugin, and whom it asks for addresses, speak such a version.
pub fn in_time_for(rule: &Rule, mut network: Network, subject: Option<&Subject>) -> Network {
    let Some(wanted) = rule.needs.iter().filter_map(Need::version).max() else { return network };
    if Version::parse(network.version()).is_some_and(|version| version >= wanted) {
        return network;
    }
    let usable = subject.into_iter().flat_map(|subject| subject.traits.usable());
    let fitting = usable.filter(|version| *version >= wanted).min();
    network.set("cniVersion", fitting.unwrap_or(wanted).to_string().into());
    network
}

#[cfg(test)]
mod tests {
    use super::{Ipam, Subject, Traits, in_time_for};
    use crate::conformance::Rule;
    use crate::scenario::Network;
    use rstest::rstest;

    #[rstest]
    #[case("1.0.0", &["0.4.0", "1.0.0"], "0.4.0", "1.0.0")]
    #[case("0.3.1", &["0.3.1", "0.4.0", "1.0.0"], "0.4.0", "0.4.0")]
    #[case("0.3.1", &["0.3.1", "1.0.0"], "0.4.0", "1.0.0")]
    #[case("0.3.1", &[], "0.4.0", "0.4.0")]
    fn a_network_is_of_a_version_in_which_the_rule_holds(
        #[case] version: &str,
        #[case] spoken: &[&str],
        #[case] needs: &str,
        #[case] expected: &str,
    ) {
        let network: Network = serde_json::from_value(serde_json::json!({ "cniVersion": version })).unwrap();
        let rule: Rule = toml::from_str(&format!("source = \"x\"\nneeds = [\"{needs}\", \"addresses\"]")).unwrap();
        let versions = spoken.iter().map(|text| (*text).to_owned()).collect();
        let subject = Subject { network: network.clone(), traits: Traits { versions, ..Traits::default() } };
        assert_eq!(in_time_for(&rule, network, Some(&subject)).version(), expected);
    }

    #[test]
    fn a_network_is_of_a_version_that_the_plugin_which_gives_addresses_speaks() {
        let network: Network = serde_json::from_value(serde_json::json!({ "cniVersion": "0.3.1" })).unwrap();
        let rule: Rule = toml::from_str("source = \"x\"\nneeds = [\"0.4.0\"]").unwrap();
        let texts = |versions: &[&str]| versions.iter().map(|text| (*text).to_owned()).collect();
        let ipam = Some(Ipam { kind: "other".to_owned(), versions: texts(&["0.3.1", "1.0.0"]) });
        let traits = Traits { versions: texts(&["0.4.0", "1.0.0", "1.1.0"]), ipam, ..Traits::default() };
        let subject = Subject { network: network.clone(), traits };
        assert_eq!(in_time_for(&rule, network, Some(&subject)).version(), "1.0.0");
    }
}
