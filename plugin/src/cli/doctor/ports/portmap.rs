//! What the plugin `portmap` publishes for flatnet's containers: the runtime's cache (libcni) says which ports, and each rule of portmap's
//! names its container in a comment, whether iptables wrote it, its older version, or nftables.
//!
//! Looks only where a container's cache has ports: without them nothing is read but the cache.

use std::fs;

use serde::Deserialize;

use crate::cli::doctor::finding::{Finding, PORTS};
use crate::cli::probe::{self, Ran};
use crate::error::{Error, Result};
use crate::family::IpFamily;
use crate::filter::iptables;
use crate::ipam::lease;
use crate::netlink::Link;
use crate::nft::{Expression, Family, Nftables, Problem, Verdict};
use crate::{attachment, layout, reach};

/// Where packets come in, and the chain there that leads to containers' chains.
const START: &str = "PREROUTING";
const ENTRY: &str = "CNI-HOSTPORT-DNAT";
/// The table of portmap's own, where it writes nftables (from version 1.6 on).
const OWN_TABLE: &str = "cni_hostport";

/// A container with ports.
#[derive(Debug)]
pub(super) struct Publishing<'a> {
    link: &'a Link,
    container: String,
    ports: Vec<Mapping>,
}

/// What libcni keeps of an attachment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    container_id: String,
    if_name: String,
    #[serde(default)]
    capability_args: Capabilities,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    #[serde(default)]
    port_mappings: Vec<Mapping>,
}

/// As runtimes pass it to portmap, some keys with a capital letter.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// A rule of a table for translation.
#[derive(Debug, PartialEq, Eq)]
struct Ruled {
    chain: String,
    comment: String,
    jump: Option<String>,
}

/// The containers on these links that have ports by portmap.
pub(super) fn publishing(links: &[Link]) -> Vec<Publishing<'_>> {
    let files = fs::read_dir(layout::CNI_RESULTS).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| of_cache(&text, links)).collect()
}

fn of_cache<'a>(text: &str, links: &'a [Link]) -> Option<Publishing<'a>> {
    let cached: Cached = serde_json::from_str(text).ok()?;
    let ports: Vec<_> = cached.capability_args.port_mappings.into_iter().filter(|port| port.host_port > 0).collect();
    if ports.is_empty() {
        return None;
    }
    let name = attachment::name(&cached.container_id, &cached.if_name);
    let link = links.iter().find(|link| lease::attachment_of(link) == Some(&name))?;
    Some(Publishing { link, container: cached.container_id, ports })
}

/// The line where something is wrong with one of them, or could not be looked at.
pub(super) async fn judge(all: &[Publishing<'_>]) -> Result<Option<Finding>> {
    for family in IpFamily::BOTH {
        let of_family: Vec<_> = all.iter().filter(|it| it.has(family)).collect();
        if of_family.is_empty() {
            continue;
        }
        let rules = match read(family).await? {
            Ok(rules) => rules,
            Err(why) => return Ok(Some(PORTS.skipped(why))),
        };
        let dead: Vec<_> = of_family.iter().filter_map(|it| Some((it, missing(&rules, &it.container)?))).collect();
        if let Some((first, what)) = dead.first() {
            let who = reach::who(first.link);
            let more = match dead.len() - 1 {
                0 => String::new(),
                more => format!("; so it is with {more} more"),
            };
            return Ok(Some(PORTS.bad(
                format!("{} of {who} lead nowhere: {what}{more}", first.words()),
                format!("restart the container, for which portmap writes its rules anew: `podman restart {who}`, or for all `podman network reload --all`"),
            )));
        }
    }
    Ok(None)
}

impl Publishing<'_> {
    /// Whether it has ports in that family.
    fn has(&self, family: IpFamily) -> bool {
        let is_of = |port: &Mapping| match port.host_ip.parse() {
            Ok(address) => IpFamily::of(address) == family,
            // None, and so all.
            Err(_) => true,
        };
        lease::leases(self.link).any(|address| IpFamily::of(address) == family) && self.ports.iter().any(is_of)
    }

    fn words(&self) -> String {
        const SHOWN: usize = 3;
        let word = |port: &Mapping| {
            let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
            format!("{}/{}", port.host_port, protocol.to_lowercase())
        };
        let shown: Vec<_> = self.ports.iter().take(SHOWN).map(word).collect();
        let more = if self.ports.len() > SHOWN { ", .." } else { "" };
        format!("ports {}{more}", shown.join(", "))
    }
}

/// What is not there of the way to the container, to follow a colon.
fn missing(rules: &[Ruled], container: &str) -> Option<String> {
    let is_its = |rule: &&Ruled| rule.comment.contains(container);
    let mut its = rules.iter().filter(is_its);
    let Some(entry) = its.find(|rule| rule.chain == ENTRY) else {
        // Those of nftables lead by themselves.
        let by_itself = rules.iter().any(|rule| rule.comment == container);
        return (!by_itself).then(|| "the rules that the plugin portmap wrote for it are gone".into());
    };
    let goes_to = |chain: &str, to: &str| rules.iter().any(|it| it.chain == chain && it.jump.as_deref() == Some(to));
    if !goes_to(START, ENTRY) {
        return Some(format!("nothing leads from chain {START} to portmap's {ENTRY}"));
    }
    let chain = entry.jump.as_deref().unwrap_or_default();
    (!rules.iter().any(|rule| rule.chain == chain)).then(|| format!("portmap's chain {chain} is empty"))
}

/// The rules of whichever kind portmap may have written, or why they cannot be read.
async fn read(family: IpFamily) -> Result<std::result::Result<Vec<Ruled>, String>> {
    let mut rules = Vec::new();
    if let Ok(mut nftables) = Nftables::open() {
        rules.extend(of_table(&mut nftables, family.tables(), "nat").await?);
        rules.extend(of_table(&mut nftables, Family::Inet, OWN_TABLE).await?);
    }
    let older = fs::read_to_string(iptables::legacy_tables(family)).unwrap_or_default();
    if older.lines().any(|table| table == "nat") {
        let program = match family {
            IpFamily::V4 => "iptables-legacy",
            IpFamily::V6 => "ip6tables-legacy",
        };
        match probe::run(program, &["--wait", "5", "--table", "nat", "--list-rules"]) {
            Ran::Well(text) => rules.extend(text.lines().filter_map(of_line)),
            Ran::Missing => {
                return Ok(Err(format!("the kernel has rules that only {program} shows, which is not installed")));
            }
            Ran::Badly(why) => return Ok(Err(format!("{program} {why}"))),
        }
    }
    Ok(Ok(rules))
}

async fn of_table(nftables: &mut Nftables, family: Family, table: &str) -> Result<Vec<Ruled>> {
    let found = match nftables.rules(family, table).await {
        Err(Problem::Lacking { .. }) => return Ok(Vec::new()),
        Err(problem) if problem.errno() == Some(nix::errno::Errno::ENOENT) => return Ok(Vec::new()),
        found => found.map_err(|problem| Error::Firewall {
            doing: format!("read table {} {table}", family.as_str()),
            problem: problem.to_string(),
            remedy: "see `dmesg`".into(),
        })?,
    };
    Ok(found
        .into_iter()
        .map(|(chain, placed)| {
            let mut ruled = Ruled { chain, comment: placed.rule.comment.clone().unwrap_or_default(), jump: None };
            for expression in placed.rule.expressions {
                match expression {
                    Expression::Match { comment: Some(comment), .. } => ruled.comment = comment,
                    Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => ruled.jump = Some(to),
                    _ => {}
                }
            }
            ruled
        })
        .collect())
}

/// A line of `iptables --list-rules`; the comment is all of it, as it only has to name the container.
fn of_line(line: &str) -> Option<Ruled> {
    let rest = line.strip_prefix("-A ")?;
    let (chain, words) = rest.split_once(' ')?;
    let jump = words.rsplit_once("-j ").map(|(_, to)| to.split_whitespace().next().unwrap_or_default().to_owned());
    Some(Ruled { chain: chain.into(), comment: words.into(), jump })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LISTED: &str = r#"-P PREROUTING ACCEPT
-N CNI-DN-1
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.87.1.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"flatnet\" id: \"web\"" -m multiport --dports 8080 -j CNI-DN-1"#;

    #[rstest]
    #[case::whole("", "web", None)]
    #[case::another("", "db", Some("are gone"))]
    #[case::flushed("CNI-HOSTPORT-DNAT -p", "web", Some("are gone"))]
    #[case::nothing_leads_there("-A PREROUTING", "web", Some("nothing leads from chain PREROUTING"))]
    #[case::empty("-A CNI-DN-1", "web", Some("chain CNI-DN-1 is empty"))]
    fn what_is_missing_is_named(#[case] without: &str, #[case] container: &str, #[case] expected: Option<&str>) {
        let kept = LISTED.lines().filter(|line| without.is_empty() || !line.contains(without));
        let rules: Vec<_> = kept.filter_map(of_line).collect();
        let found = missing(&rules, container);
        match expected {
            None => assert_eq!(found, None),
            Some(words) => assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{found:?}"),
        }
    }

    #[test]
    fn nftables_rules_lead_by_themselves() {
        let rule = Ruled { chain: "hostports".into(), comment: "web".into(), jump: None };
        assert_eq!(missing(&[rule], "web"), None);
    }
}
