//! This host's packet filters, read with whatever programs are there, and only where reading loads nothing into the kernel.

use std::fs;

use super::nft;
use crate::cli::probe::{self, Ran};
use crate::family::IpFamily;
use crate::filter::iptables;
use crate::filter::rules::{Chain, Ruleset, Tool};
use crate::firewall::forward;

/// All that could be read of the rules for one family.
pub(super) struct Filter {
    pub(super) family: IpFamily,
    pub(super) ruleset: Ruleset,
    /// What was read, in words.
    pub(super) sources: Vec<&'static str>,
    /// What is there, or may be, and could not be read.
    pub(super) unread: Vec<String>,
    /// Bridged packets pass through the rules as well.
    pub(super) bridged: bool,
}

/// The names of iptables' programs for a family: any, today's, and the older.
struct Programs {
    any: &'static str,
    nft: &'static str,
    legacy: &'static str,
}

const fn programs(family: IpFamily) -> Programs {
    match family {
        IpFamily::V4 => Programs { any: "iptables", nft: "iptables-nft", legacy: "iptables-legacy" },
        IpFamily::V6 => Programs { any: "ip6tables", nft: "ip6tables-nft", legacy: "ip6tables-legacy" },
    }
}

/// The rules for each family; none of them where only root could read them.
pub(super) fn all(root: bool) -> [Filter; 2] {
    let mut filters = IpFamily::BOTH.map(Filter::unread);
    if root {
        let listing = probe::run("nft", &["-j", "list", "ruleset"]);
        for filter in &mut filters {
            filter.read_nftables(&listing);
            filter.read_legacy();
        }
    }
    filters
}

impl Filter {
    fn unread(family: IpFamily) -> Self {
        Self {
            family,
            ruleset: Ruleset::default(),
            sources: Vec::new(),
            unread: Vec::new(),
            bridged: forward::is_bridged(family),
        }
    }

    /// nft shows everything, but not what iptables' own conditions say: of iptables' table, iptables' words are better.
    fn read_nftables(&mut self, listing: &Ran) {
        let listed = match listing {
            Ran::Well(text) => {
                let ruleset = nft::parse(self.family, text);
                if ruleset.is_none() {
                    self.unread.push("what nft lists is not the JSON that is known".into());
                }
                ruleset
            }
            Ran::Missing => None,
            // A kernel without nftables has no such rules.
            Ran::Badly(why) if why.contains("not supported") => Some(Ruleset::default()),
            Ran::Badly(why) => {
                self.unread.push(format!("nft {why}"));
                None
            }
        };
        let table = iptables::table(self.family);
        let is_filter = |chain: &Chain| chain.table == table;
        if let Some(ruleset) = listed {
            self.sources.push("nft");
            self.ruleset = ruleset;
            if !self.ruleset.chains.iter().any(is_filter) {
                return;
            }
        }
        let Programs { any, nft, .. } = programs(self.family);
        let program = if is_iptables(nft, "nf_tables") { nft } else { any };
        if !is_iptables(program, "nf_tables") {
            if self.sources.is_empty() && self.unread.is_empty() {
                self.unread.push(format!("neither nft nor {any} is installed"));
            }
            return;
        }
        match probe::run(program, &["-S"]) {
            Ran::Well(text) => {
                self.sources.push(any);
                self.ruleset.chains.retain(|chain| !is_filter(chain));
                self.ruleset.chains.extend(iptables::parse(Tool::Iptables, self.family, &text));
            }
            // A table that nft has shown already is known, if less well.
            Ran::Badly(why) if self.sources.is_empty() => self.unread.push(format!("{program} {why}")),
            Ran::Missing | Ran::Badly(_) => {}
        }
    }

    /// Listing would load the table: only one that is loaded is read.
    fn read_legacy(&mut self) {
        let tables = fs::read_to_string(iptables::legacy_tables(self.family)).unwrap_or_default();
        if !tables.lines().any(|table| table == "filter") {
            return;
        }
        let Programs { any, legacy, .. } = programs(self.family);
        let program = if is_iptables(legacy, "legacy") { legacy } else { any };
        if !is_iptables(program, "legacy") {
            self.unread.push(format!("the kernel has rules of the older iptables, and no {legacy} is installed"));
            return;
        }
        match probe::run(program, &["-S"]) {
            Ran::Well(text) => {
                self.sources.push(legacy);
                self.ruleset.chains.extend(iptables::parse(Tool::IptablesLegacy, self.family, &text));
            }
            Ran::Missing => {}
            Ran::Badly(why) => self.unread.push(format!("{program} {why}")),
        }
    }
}

/// Which of the two that program is: it tells in its version.
fn is_iptables(program: &str, kind: &str) -> bool {
    matches!(probe::run(program, &["--version"]), Ran::Well(text) if text.contains(kind))
}
