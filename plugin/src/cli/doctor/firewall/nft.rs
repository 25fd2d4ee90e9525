//! The rules of nftables, as `nft -j list ruleset` gives them (libnftables-json(5)).
//!
//! Pure. An expression that is not known here becomes a condition that cannot be judged, never one that is left out.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::family::IpFamily;
use crate::filter::rules::{About, Chain, Condition, Hook, Policy, Rule, Ruleset, Tool, Verdict};

/// Expressions that change or count something and let the rule go on.
const EFFECTS: [&str; 10] =
    ["counter", "log", "mangle", "notrack", "flow", "ct helper", "ct timeout", "ct expectation", "set", "map"];

/// The chains that packets of that family meet.
pub(super) fn parse(family: IpFamily, text: &str) -> Option<Ruleset> {
    let list: Value = serde_json::from_str(text).ok()?;
    let mut ruleset = Ruleset::default();
    for item in list.get("nftables")?.as_array()? {
        if let Some(chain) = item.get("chain") {
            ruleset.chains.extend(read_chain(family, chain));
        } else if let Some(rule) = item.get("rule") {
            add_rule(&mut ruleset, family, rule);
        }
    }
    Some(ruleset)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Nothing for tables that see no packets of that family.
fn table(family: IpFamily, value: &Value) -> Option<String> {
    let of = text(value, "family");
    (of == "inet" || of == family.tables().as_str()).then(|| format!("{of} {}", text(value, "table")))
}

fn read_chain(family: IpFamily, value: &Value) -> Option<Chain> {
    let hook = match (text(value, "type"), text(value, "hook")) {
        ("filter", "forward") => Some(Hook::Forward),
        ("filter", "input") => Some(Hook::Input),
        _ => None,
    };
    let policy = if text(value, "policy") == "drop" { Policy::Drop } else { Policy::Accept };
    Some(Chain {
        tool: Tool::Nft,
        table: table(family, value)?,
        name: text(value, "name").to_owned(),
        start: hook.map(|hook| (hook, policy)),
        rules: Vec::new(),
    })
}

fn add_rule(ruleset: &mut Ruleset, family: IpFamily, value: &Value) {
    let Some(table) = table(family, value) else { return };
    let name = text(value, "chain");
    let mut chains = ruleset.chains.iter_mut();
    let Some(chain) = chains.find(|chain| chain.table == table && chain.name == name) else { return };
    let expressions = value.get("expr").and_then(Value::as_array).into_iter().flatten();
    let mut rule = Rule::default();
    for (kind, content) in expressions.filter_map(Value::as_object).flat_map(Map::iter) {
        match kind.as_str() {
            "match" => rule.conditions.push(condition(family, content)),
            // A rule for each of its elements; what follows a map with a verdict is for those that are not in it.
            "vmap" => chain.rules.extend(spread(family, &rule.conditions, content)),
            kind => match verdict(kind, content) {
                Some(verdict) => rule.verdict = verdict,
                None if EFFECTS.contains(&kind) => {}
                None => rule.conditions.push(Condition { not: false, about: About::Unknown }),
            },
        }
    }
    chain.rules.push(rule);
}

fn verdict(kind: &str, content: &Value) -> Option<Verdict> {
    let target = || text(content, "target").to_owned();
    match kind {
        "accept" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "continue" => Some(Verdict::Next),
        "return" => Some(Verdict::Return),
        "jump" => Some(Verdict::Jump(target())),
        "goto" => Some(Verdict::Goto(target())),
        "xt" if text(content, "name") == "REJECT" => Some(Verdict::Drop),
        _ => None,
    }
}

/// The rules of a verdict map. One that is kept elsewhere (`@name`) may accept anything.
fn spread(family: IpFamily, before: &[Condition], vmap: &Value) -> Vec<Rule> {
    let key = vmap.get("key").unwrap_or(&Value::Null);
    if vmap.get("data").is_some_and(Value::is_string) {
        let unknown = Condition { not: false, about: About::Unknown };
        let conditions = before.iter().cloned().chain([unknown]).collect();
        return vec![Rule { conditions, verdict: Verdict::Accept, ..Rule::default() }];
    }
    let elements = vmap.pointer("/data/set").and_then(Value::as_array).into_iter().flatten();
    let rule = |element: &Value| {
        let (value, outcome) = (element.get(0)?, element.get(1)?.as_object()?);
        let (kind, content) = outcome.iter().next()?;
        let mut conditions = before.to_vec();
        conditions.push(Condition { not: false, about: about(family, key, value) });
        Some(Rule { conditions, verdict: verdict(kind, content)?, ..Rule::default() })
    };
    elements.filter_map(rule).collect()
}

fn condition(family: IpFamily, content: &Value) -> Condition {
    let (left, right) = (content.get("left").unwrap_or(&Value::Null), content.get("right").unwrap_or(&Value::Null));
    match text(content, "op") {
        "==" | "in" => Condition { not: false, about: about(family, left, right) },
        "!=" => Condition { not: true, about: about(family, left, right) },
        _ => Condition { not: false, about: About::Unknown },
    }
}

/// The words by which nft tells the family: of `meta nfproto`, of `meta protocol` and of its header, and there the field of the protocol.
const fn words_of(family: IpFamily) -> (&'static str, &'static str, &'static str) {
    match family {
        IpFamily::V4 => ("ipv4", "ip", "protocol"),
        IpFamily::V6 => ("ipv6", "ip6", "nexthdr"),
    }
}

fn about(family: IpFamily, left: &Value, right: &Value) -> About {
    let (family_name, header, protocol) = words_of(family);
    let values = flat(right);
    // A set that is kept elsewhere.
    if values.iter().any(|value| value.as_str().is_some_and(|text| text.starts_with('@'))) {
        return About::Unknown;
    }
    let words = || -> Option<Vec<String>> { values.iter().map(|value| value.as_str().map(str::to_owned)).collect() };
    let part = |kind: &str, key: &str| left.pointer(&format!("/{kind}/{key}")).and_then(Value::as_str);
    let named = |make: fn(Vec<String>) -> About| words().map_or(About::Unknown, make);
    match part("meta", "key") {
        Some("iifname" | "iif") => return named(About::Input),
        Some("oifname" | "oif") => return named(About::Output),
        Some("nfproto") => return is_one_of(words(), &[family_name]),
        Some("l4proto") => return is_one_of(words(), &["tcp"]),
        Some("protocol") => return is_one_of(words(), &[header]),
        _ => {}
    }
    match part("ct", "key") {
        Some("state") => return named(About::State),
        // Nothing here is translated.
        Some("status") => return is_one_of(words(), &["confirmed", "assured", "seen-reply"]),
        _ => {}
    }
    let networks = || values.iter().map(|value| network(value)).collect::<Option<Vec<_>>>();
    match (part("payload", "protocol"), part("payload", "field")) {
        (Some(of), Some("saddr")) if of == header => networks().map_or(About::Unknown, About::Source),
        (Some(of), Some("daddr")) if of == header => networks().map_or(About::Unknown, About::Destination),
        (Some(of), Some(field)) if of == header && field == protocol => is_one_of(words(), &["tcp"]),
        (Some("tcp" | "th"), Some("dport")) => {
            values.iter().map(|value| ports(value)).collect::<Option<Vec<_>>>().map_or(About::Unknown, About::Port)
        }
        // Of the other family.
        (Some(of @ ("ip" | "ip6")), _) if of != header => About::Known(false),
        (Some("icmp" | "icmpv6" | "udp" | "sctp" | "dccp" | "arp"), _) => About::Known(false),
        _ => About::Unknown,
    }
}

/// Numbers stand for names that this nft does not know: they cannot be judged.
fn is_one_of(words: Option<Vec<String>>, wanted: &[&str]) -> About {
    words.map_or(About::Unknown, |words| About::Known(words.iter().any(|word| wanted.contains(&word.as_str()))))
}

/// A set's elements, or the one value.
fn flat(value: &Value) -> Vec<&Value> {
    // Flags of one value, as of a connection's state, come as a list, or with the sign that joins them.
    let inner = value.get("set").or_else(|| value.get("|")).unwrap_or(value);
    match inner.as_array() {
        Some(items) => items.iter().map(|item| item.pointer("/elem/val").unwrap_or(item)).collect(),
        None => vec![inner],
    }
}

/// One port, or a range of them.
fn ports(value: &Value) -> Option<RangeInclusive<u16>> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => Some(number(first)?..=number(last)?),
        _ => number(value).map(|port| port..=port),
    }
}

fn network(value: &Value) -> Option<IpNetwork> {
    if let Some(address) = value.as_str() {
        return Some(IpNetwork::from(address.parse::<IpAddr>().ok()?));
    }
    let prefix = value.get("prefix")?;
    let length = prefix.get("len")?.as_u64().and_then(|length| u8::try_from(length).ok())?;
    IpNetwork::new(text(prefix, "addr").parse().ok()?, length).ok()
}
