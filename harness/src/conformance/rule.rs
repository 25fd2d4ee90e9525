//! What a scenario says of the rule that it tries: where the rule stands, how strong it is, what it asks of a plugin to begin with.
//!
//! Invariant: a rule is tried only where all that it needs is there, and only what it is about counts against a plugin.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Traits, Verdict};

/// `[rule]` of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Where it stands: the section of the specification, or the code of libcni that every runtime runs.
    pub source: String,
    /// How strong it is.
    #[serde(default)]
    pub strength: Strength,
    /// What a plugin has to have for it to apply.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// What is looked at after every step: of other rules' business nothing is.
    #[serde(default)]
    pub judges: Vec<Judged>,
}

/// The specification's own words for it (RFC 2119).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// A plugin that does not keep it is wrong.
    #[default]
    Must,
    /// A plugin may have a reason not to keep it.
    Should,
}

/// What the harness looks at by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judged {
    /// What is left at the end.
    Leftovers,
    /// What a result says of interfaces and addresses, beside what the kernel says.
    Results,
}

/// What not every plugin has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// It speaks that version of the specification, or a later one.
    Version(Version),
    /// It speaks that version of the specification.
    Exactly(Version),
    /// It is such a plugin.
    Is(Trait),
}

/// Why a rule, or a step of it, is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What that makes of the rule.
    pub verdict: Verdict,
    /// In words that fit after the verdict's.
    pub why: String,
}

impl Missing {
    fn does_not_apply(why: String) -> Self {
        Self { verdict: Verdict::DoesNotApply, why }
    }
}

/// What a plugin may be or have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trait {
    /// Its ADD gives an address.
    Addresses,
    /// Its result lists routes.
    Routes,
    /// Its ADD makes a link on the host for the container.
    HostLinks,
    /// It asks the plugin that `ipam.type` names.
    Delegation,
    /// It can do without any other plugin.
    Independence,
}

impl Trait {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Addresses, Self::Routes, Self::HostLinks, Self::Delegation, Self::Independence];

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(text.into()).ok()
    }

    /// What a plugin without it is like.
    fn lack(self) -> &'static str {
        match self {
            Self::Addresses => "its ADD gives no address",
            Self::Routes => "its result lists no route",
            Self::HostLinks => "its ADD makes no link on the host for the container",
            Self::Delegation => "it asks no plugin that ipam.type names",
            Self::Independence => "it cannot do without a plugin that CNI_PATH leads to",
        }
    }
}

/// A version of the specification, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Reads `1.1.0`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        let version = Self([numbers.next()??, numbers.next()??, numbers.next()??]);
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Need {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('=') {
            Some(text) => Version::parse(text).map(Self::Exactly),
            None => Trait::parse(text).map(Self::Is).or_else(|| Version::parse(text).map(Self::Version)),
        }
    }

    /// What is not there, if it is not.
    pub fn missing(&self, traits: &Traits) -> Option<Missing> {
        let of_plugin = self.unspoken(&traits.versions).map(|why| format!("it {why}"));
        let Self::Is(what) = self else {
            return of_plugin.map(Missing::does_not_apply).or_else(|| {
                let ipam = traits.ipam.as_ref()?;
                let why = self.unspoken(&ipam.versions)?;
                let why = format!("{}, which gives this network's addresses, {why}", ipam.kind);
                Some(Missing { verdict: Verdict::NotTried, why })
            });
        };
        (!traits.is.contains(what)).then(|| Missing::does_not_apply(what.lack().to_owned()))
    }

    /// Why a plugin that says it speaks `versions` does not speak that one; of one that does not tell, nothing is known.
    fn unspoken(&self, versions: &[String]) -> Option<String> {
        let spoken = || versions.iter().filter_map(|text| Version::parse(text));
        let latest = spoken().max()?;
        match self {
            Self::Exactly(wanted) => {
                spoken().all(|version| version != *wanted).then(|| format!("does not speak {wanted}"))
            }
            Self::Version(wanted) => {
                (latest < *wanted).then(|| format!("speaks up to {latest}, and this came with {wanted}"))
            }
            Self::Is(_) => None,
        }
    }

    /// The version, if it is one.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Version(version) => Some(*version),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = "a version (1.1.0, =0.3.1), addresses, routes, hostlinks, delegation, independence";
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not one of {known}")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Missing, Need, Version};
    use crate::conformance::{Ipam, Traits, Verdict};
    use rstest::rstest;

    #[rstest]
    #[case("1.1.0", &["0.4.0", "1.0.0"], Some("it speaks up to 1.0.0, and this came with 1.1.0"))]
    #[case("0.4.0", &["0.3.1", "1.0.0"], None)]
    #[case("1.1.0", &["1.10.0", "0.9.0"], None)]
    // Of a plugin that does not tell, nothing is known: it is tried.
    #[case("1.1.0", &[], None)]
    #[case("=1.0.0", &["0.4.0", "1.0.0"], None)]
    #[case("=0.3.1", &["0.4.0", "1.0.0"], Some("it does not speak 0.3.1"))]
    #[case("=0.3.1", &[], None)]
    #[case("addresses", &["1.0.0"], Some("its ADD gives no address"))]
    #[case("delegation", &["1.0.0"], Some("it asks no plugin that ipam.type names"))]
    fn what_is_missing_is_said(#[case] need: &str, #[case] versions: &[&str], #[case] expected: Option<&str>) {
        let traits = Traits { versions: texts(versions), ..Traits::default() };
        let missing = Need::parse(need).unwrap().missing(&traits);
        let expected = expected.map(|why| Missing { verdict: Verdict::DoesNotApply, why: why.to_owned() });
        assert_eq!(missing, expected);
    }

    fn texts(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The plugin speaks 0.4.0 to 1.1.0.
    #[rstest]
    #[case("1.1.0", &["0.4.0", "1.0.0"], Some((Verdict::NotTried, "other, which gives this network's addresses, speaks up to 1.0.0, and this came with 1.1.0")))]
    #[case("=1.1.0", &["1.0.0"], Some((Verdict::NotTried, "other, which gives this network's addresses, does not speak 1.1.0")))]
    #[case("=0.3.1", &["1.0.0"], Some((Verdict::DoesNotApply, "it does not speak 0.3.1")))]
    #[case("=1.0.0", &["1.0.0"], None)]
    #[case("1.1.0", &[], None)]
    fn what_the_plugin_that_gives_addresses_does_not_speak_is_not_tried(
        #[case] need: &str,
        #[case] versions: &[&str],
        #[case] expected: Option<(Verdict, &str)>,
    ) {
        let ipam = Some(Ipam { kind: "other".to_owned(), versions: texts(versions) });
        let traits = Traits { versions: texts(&["0.4.0", "1.0.0", "1.1.0"]), ipam, ..Traits::default() };
        let expected = expected.map(|(verdict, why)| Missing { verdict, why: why.to_owned() });
        assert_eq!(Need::parse(need).unwrap().missing(&traits), expected);
    }

    #[rstest]
    #[case("1.1")]
    #[case("1.1.0.0")]
    #[case("bridge")]
    #[case("1.x.0")]
    fn what_is_no_need_is_none(#[case] text: &str) {
        assert_eq!(Need::parse(text), None);
        assert_eq!(Version::parse(text), None);
    }
}
