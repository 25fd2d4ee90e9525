//! The rules of iptables' table `filter`, as `iptables -S` or `ip6tables -S` gives them.
//!
//! Pure. An option that is not known here becomes a condition that cannot be judged, never one that is left out.

use ipnetwork::IpNetwork;

use super::rules::{About, Chain, Condition, Hook, Policy, Rule, Tool, Verdict};
use crate::family::IpFamily;

/// The chains of a listing.
pub(crate) fn parse(tool: Tool, family: IpFamily, text: &str) -> Vec<Chain> {
    let mut chains = Vec::new();
    let chain = |name: &str, policy| chain(tool, family, name, policy);
    for line in text.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["-P", name, policy] => {
                chains.push(chain(name, Some(if policy == "DROP" { Policy::Drop } else { Policy::Accept })));
            }
            ["-N", name, ..] => chains.push(chain(name, None)),
            ["-A", name, ref rest @ ..] => {
                if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
                    chain.rules.push(rule(rest));
                }
            }
            _ => {}
        }
    }
    chains
}

/// The table of a family where iptables keeps its filter.
pub(crate) fn table(family: IpFamily) -> String {
    format!("{} filter", family.tables().as_str())
}

/// The tables of the older iptables that the kernel has in this network namespace, a line each.
pub(crate) const fn legacy_tables(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "/proc/thread-self/net/ip_tables_names",
        IpFamily::V6 => "/proc/thread-self/net/ip6_tables_names",
    }
}

fn chain(tool: Tool, family: IpFamily, name: &str, policy: Option<Policy>) -> Chain {
    let hook = match name {
        "FORWARD" => Some(Hook::Forward),
        "INPUT" => Some(Hook::Input),
        _ => None,
    };
    Chain { tool, table: table(family), name: name.into(), start: hook.zip(policy), rules: Vec::new() }
}

/// White space parts words, but not inside double quotes (comments, log prefixes).
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (quoted, started) = (!quoted, true),
            '\\' if quoted => word.extend(letters.next()),
            letter if letter.is_whitespace() && !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            letter => {
                word.push(letter);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

fn rule(words: &[&str]) -> Rule {
    let mut rule = Rule::default();
    let mut not = false;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().copied().unwrap_or_default();
        let about = match *word {
            "!" => {
                not = true;
                continue;
            }
            // What follows the target belongs to it.
            "-j" => {
                rule.verdict = target(value(), Verdict::Jump);
                break;
            }
            "-g" => {
                rule.verdict = target(value(), Verdict::Goto);
                break;
            }
            // The module itself says nothing, its options do.
            "-m" => {
                value();
                continue;
            }
            "--comment" => {
                value().clone_into(&mut rule.comment);
                continue;
            }
            "-i" => About::Input(vec![link_name(value())]),
            "-o" => About::Output(vec![link_name(value())]),
            "-s" => networks(value(), About::Source),
            "-d" => networks(value(), About::Destination),
            "-p" => About::Known(matches!(value(), "tcp" | "6" | "all" | "0")),
            "--dport" | "--dports" => ports(value()),
            "--dst-type" => match value() {
                "LOCAL" => About::ToHost,
                "MULTICAST" | "BROADCAST" => About::Known(false),
                _ => About::Unknown,
            },
            "--ctstate" | "--state" => {
                About::State(value().to_ascii_lowercase().split(',').map(str::to_owned).collect())
            }
            // Nothing here is translated.
            "--ctstatus" => {
                About::Known(value().split(',').any(|it| matches!(it, "CONFIRMED" | "ASSURED" | "SEEN_REPLY")))
            }
            // An option with its value, or a value of one that is not known.
            _ => About::Unknown,
        };
        rule.conditions.push(Condition { not, about });
        not = false;
    }
    rule
}

fn target(name: &str, otherwise: fn(String) -> Verdict) -> Verdict {
    match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" | "TARPIT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        // A target that is no chain is not found, and so lets the rule go on.
        name => otherwise(name.to_owned()),
    }
}

/// iptables writes `+` for any rest.
fn link_name(name: &str) -> String {
    name.strip_suffix('+').map_or_else(|| name.to_owned(), |start| format!("{start}*"))
}

/// `22`, `80,443` or `8000:8999`.
fn ports(text: &str) -> About {
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').map(range).collect::<Option<Vec<_>>>().map_or(About::Unknown, About::Port)
}

fn networks(text: &str, make: fn(Vec<IpNetwork>) -> About) -> About {
    text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>().map_or(About::Unknown, make)
}
