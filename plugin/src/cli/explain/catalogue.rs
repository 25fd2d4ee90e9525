//! The manual's page on errors: its sections, and which of them an error belongs to.
//!
//! A code decides. Without one, the section whose example messages are most like the error; rare words count more than common ones, and
//! words with digits, such as addresses, not at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One section a code, with example messages in blocks of "text".
const PAGE: &str = include_str!("../../../manual/errors.md");
/// As many words must be alike, and this part of all the words: of the error's or of the example's, whichever are fewer.
const ALIKE_MIN: usize = 3;
const PART_MIN: f64 = 0.6;
/// A second section that is this near to the best one could be meant as well.
const AS_NEAR: f64 = 0.95;

/// What the page has on one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) code: u32,
    /// The heading, which starts with the code.
    pub(super) title: &'static str,
    /// Markdown, with the heading.
    pub(super) text: &'static str,
}

/// Which section an error belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The error has this code; the page may not.
    Code(u32),
    One(&'a Section),
    Several(&'a Section, &'a Section),
    Nothing,
}

impl Section {
    fn read(text: &'static str) -> Option<Self> {
        let title = text.strip_prefix("## ")?.lines().next()?;
        let code = title.split(':').next()?.parse().ok()?;
        Some(Self { code, title, text: text.trim_end() })
    }

    /// The example messages.
    pub(super) fn examples(&self) -> impl Iterator<Item = &'static str> {
        let blocks = self.text.split("\n```").skip(1).step_by(2);
        blocks.filter_map(|block| block.strip_prefix("text\n")).flat_map(str::lines)
    }
}

/// All sections, by code.
pub(super) fn sections() -> Vec<Section> {
    let starts = PAGE.match_indices("\n## ").map(|(at, _)| at + 1);
    let ends = starts.clone().skip(1).chain([PAGE.len()]);
    starts.zip(ends).filter_map(|(start, end)| Section::read(&PAGE[start..end])).collect()
}

/// `error` is a code, a message, or a text with one of them in it.
pub(super) fn find<'a>(sections: &'a [Section], error: &str) -> Found<'a> {
    let json = error.find('{').zip(error.rfind('}')).and_then(|(start, end)| error.get(start..=end));
    let object: Value = json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let code = object["code"].as_u64().and_then(|code| u32::try_from(code).ok());
    if let Some(code) = code.or_else(|| error.trim().parse().ok()).or_else(|| code_in(error)) {
        return Found::Code(code);
    }
    let text = object["error"].as_str().or(object["msg"].as_str()).unwrap_or(error);
    // libcni puts `plugin type="flatnet" failed (add): ` before it.
    let message = text.split_once("failed (").and_then(|(_, rest)| rest.split_once("): "));
    nearest(sections, message.map_or(text, |(_, message)| message))
}

/// The number after the word "code", unless it is the exit code of a program, or HTTP's.
fn code_in(text: &str) -> Option<u32> {
    let text = text.to_ascii_lowercase();
    text.match_indices("code").find_map(|(at, word)| {
        let rest = text[at + word.len()..].trim_start_matches([' ', ':', '=', '"']);
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        let before = text[..at].trim_end_matches([' ', '-', '_']);
        let is_anothers = ["exit", "exited with", "status", "http"].iter().any(|word| before.ends_with(word));
        if is_anothers { None } else { digits.parse().ok() }
    })
}

#[expect(clippy::cast_precision_loss, reason = "a handful of sections is exact as a floating-point number")]
fn nearest<'a>(sections: &'a [Section], message: &str) -> Found<'a> {
    let mut sections_with: BTreeMap<String, usize> = BTreeMap::new();
    for section in sections {
        let words: BTreeSet<_> = section.examples().flat_map(words).collect();
        for word in words {
            *sections_with.entry(word).or_default() += 1;
        }
    }
    let rarity = |word: &String| {
        let with = sections_with.get(word).copied().unwrap_or(1);
        (1.0 + sections.len() as f64 / with as f64).ln()
    };
    let weight = |words: &BTreeSet<String>| words.iter().map(rarity).sum::<f64>();
    let message = words(message);
    let likeness = |example: &str| {
        let example = words(example);
        let alike: BTreeSet<_> = example.intersection(&message).cloned().collect();
        let (all, part) = (weight(&example), weight(&alike));
        let fewer = all.min(weight(&message));
        (alike.len() >= ALIKE_MIN && part >= PART_MIN * fewer).then(|| part / all.sqrt())
    };
    let nearest = |section: &'a Section| Some((section.examples().filter_map(likeness).reduce(f64::max)?, section));
    let mut found: Vec<_> = sections.iter().filter_map(nearest).collect();
    found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    match found.as_slice() {
        [] => Found::Nothing,
        &[(best, one), (second, other), ..] if second >= AS_NEAR * best => Found::Several(one, other),
        &[(_, one), ..] => Found::One(one),
    }
}

/// The words of a text that do not name one container or host.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let words = words.filter(|word| word.len() > 1 && !word.contains(|letter: char| letter.is_ascii_digit()));
    words.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CODES, Error, IP_IN_CNI_ARGS};
    use crate::spec::{Command, SpecVersion};

    #[test]
    fn each_code_has_a_section_and_each_section_a_code() {
        let codes: Vec<_> = sections().iter().map(|section| section.code).collect();
        assert_eq!(codes, CODES);
        for section in sections() {
            assert!(section.examples().next().is_some(), "{} has no example", section.title);
            assert!(section.text.contains("\nWhat to do:\n"), "{} has no remedy", section.title);
        }
    }

    /// One of each kind, with the values of the page's examples.
    fn errors() -> Vec<Error> {
        let holder = || "link fn-01234567 (container=web interface=eth0 network=flatnet)".to_owned();
        let (command, none) = (Command::Add, String::new);
        vec![
            Error::Version { asked: "9.9.9".into() },
            Error::CommandVersion { command: Command::Check, version: SpecVersion::V0_3_1, since: SpecVersion::V0_4_0 },
            Error::Unsupported { key: "ipam.dataDir".into(), value: "\"/run/ipam\"".into(), remedy: none() },
            Error::UnknownKey {
                key: "brigde".into(),
                value: "\"flatnet-br0\"".into(),
                hint: "did you mean bridge?".into(),
            },
            Error::Requested { source: IP_IN_CNI_ARGS, problem: "address 10.87.1.1 is the gateway's".into() },
            Error::Environment {
                problems: vec![("CNI_ARGS", "has FOO, which flatnet does not know, but not IgnoreUnknown=1".into())],
            },
            Error::Stdin { problem: "it did not end within 10 s".into() },
            Error::Json { problem: "it is empty".into() },
            Error::Config { key: "mtu".into(), problem: "is 42, but must be 68 - 65535 bytes".into() },
            Error::OwnNamespace { path: "/proc/self/ns/net".into() },
            Error::Deadline { deadline: std::time::Duration::from_secs(10), wait: None },
            Error::DelegateSilent { plugin: "dhcp".into(), command, patience: std::time::Duration::from_secs(8) },
            Error::NotReady {
                what: "containers are cut off: net.ipv4.ip_forward is 0".into(),
                suffering: true,
                remedy: none(),
            },
            Error::Kernel { doing: "write /proc/sys/net/ipv4/ip_forward".into(), errno: nix::errno::Errno::EROFS },
            Error::PoolFull { pool: "10.87.1.2 - 10.87.1.254".into(), bridge: none() },
            Error::AddressTaken { address: [10, 87, 1, 5].into(), holder: holder() },
            Error::MacTaken { mac: "0a:57:0a:57:01:05".parse().expect("a MAC"), holder: holder() },
            Error::InterfaceExists { interface: "eth0".into(), netns: "/run/netns/web".into() },
            Error::AttachmentExists { container: "web".into(), interface: "eth0".into(), link: "fn-01234567".into() },
            Error::BridgeConflict {
                bridge: "flatnet-br0".into(),
                found: "it runs STP, which blocks a new port for 30 s".into(),
                remedy: none(),
            },
            Error::Changed { what: "bridge flatnet-br0 is gone".into() },
            Error::Internal { message: "panicked without a message".into() },
            Error::PortTaken { port: "8080/tcp".into(), holder: holder() },
            Error::Firewall {
                doing: "masquerade traffic that leaves network flatnet".into(),
                problem: "the kernel lacks masquerade (CONFIG_NFT_MASQ)".into(),
                remedy: none(),
            },
            Error::Delegate {
                plugin: "host-local".into(),
                command,
                problem: "its answer has no address".into(),
                remedy: none(),
            },
            Error::Rootless { variable: "_CONTAINERS_ROOTLESS_UID" },
        ]
    }

    #[test]
    fn examples_are_real_messages_and_lead_to_their_sections() {
        let sections = sections();
        for error in errors() {
            let (code, message) = (error.code(), error.to_string());
            let section = sections.iter().find(|section| section.code == code).expect("a section");
            assert!(section.examples().any(|example| example == message), "{code} lacks {message}");
            assert_eq!(find(&sections, &message), Found::One(section), "{message}");
        }
    }
}
