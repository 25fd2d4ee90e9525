//! A packet filter, whichever program wrote it, and what it does with a packet: for doctor, and for what ADD mends.
//!
//! Everything here is about the packets of one family: what a rule for both says is lowered to what it means for that one.
//!
//! Pure. A condition that cannot be judged counts as "maybe", and a verdict that hangs on one is never called certain.

use std::fmt;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;

/// Rules lead to other chains at most this deep (the kernel's own limit for nftables).
const DEPTH_MAX: usize = 16;

/// All chains of a network namespace that packets of a family may meet on their way through it or into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) chains: Vec<Chain>,
}

/// The program that shows and changes a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Nft,
    Iptables,
    IptablesLegacy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) tool: Tool,
    /// Family and name, `inet filter`; names of chains are unique in it.
    pub(crate) table: String,
    pub(crate) name: String,
    /// For a chain where packets begin: which ones, and whether what reaches its end is dropped.
    pub(crate) start: Option<(Hook, Policy)>,
    pub(crate) rules: Vec<Rule>,
}

/// Which packets begin in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Those that go through this host.
    Forward,
    /// Those that are for this host itself.
    Input,
}

/// What becomes of those that reach the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Accept,
    Drop,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// All have to hold.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) verdict: Verdict,
    /// Empty where there is none, or nobody needs it.
    pub(crate) comment: String,
    /// The kernel's number for it, where it has one.
    pub(crate) handle: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Counters, marks, logs: the next rule follows.
    #[default]
    Next,
    Accept,
    /// Or reject.
    Drop,
    Jump(String),
    /// Like a jump that does not come back.
    Goto(String),
    Return,
}

/// One condition; `not` turns it round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) not: bool,
    pub(crate) about: About,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Names of links; `*` at the end stands for any rest.
    Input(Vec<String>),
    Output(Vec<String>),
    Source(Vec<IpNetwork>),
    Destination(Vec<IpNetwork>),
    /// Ports that TCP goes to.
    Port(Vec<RangeInclusive<u16>>),
    /// For this host itself.
    ToHost,
    /// States of connection tracking, in lower case.
    State(Vec<String>),
    /// Known for every packet in question.
    Known(bool),
    /// Cannot be judged from here.
    Unknown,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) hook: Hook,
    /// Nothing where it may be any.
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) source: Option<IpNetwork>,
    pub(crate) destination: Option<IpNetwork>,
    /// The port of TCP that it goes to.
    pub(crate) port: Option<u16>,
    /// Of connection tracking: `new` or `established`, or `dnat` for what a published port has led here.
    pub(crate) state: &'static str,
}

/// What becomes of it in one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// Dropped, unless a rule that cannot be judged accepts it.
    Unsure,
    Dropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    Maybe,
}

/// What a walk through a chain came to: a verdict, if one is certain, and whether an accept was possible before it.
#[derive(Clone, Copy, Default)]
struct Walk {
    accepted: Option<bool>,
    maybe_accepted: bool,
}

impl Chain {
    /// The program that shows and changes it.
    pub(crate) fn program(&self) -> &'static str {
        match (self.tool, self.table.starts_with("ip6 ")) {
            (Tool::Nft, _) => "nft",
            (Tool::Iptables, false) => "iptables",
            (Tool::Iptables, true) => "ip6tables",
            (Tool::IptablesLegacy, false) => "iptables-legacy",
            (Tool::IptablesLegacy, true) => "ip6tables-legacy",
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.start.is_some_and(|(_, policy)| policy == Policy::Drop) { "policy drop" } else { "a rule" };
        let (table, name) = (&self.table, &self.name);
        match self.tool {
            Tool::Nft => write!(f, "nftables chain {table} {name} ({by})"),
            Tool::Iptables | Tool::IptablesLegacy => write!(f, "{} chain {name} ({by})", self.program()),
        }
    }
}

impl Ruleset {
    /// The first chain, of those where such packets begin, that drops the packet; else the first that may. A packet has to pass
    /// all of them.
    pub(crate) fn obstacle(&self, packet: &Packet) -> Option<(&Chain, Fate)> {
        let judged = self.chains.iter().filter_map(|chain| Some((chain, self.fate(chain, packet)?)));
        let mut obstacles: Vec<_> = judged.filter(|(_, fate)| *fate != Fate::Passes).collect();
        obstacles.sort_by_key(|(_, fate)| *fate != Fate::Dropped);
        obstacles.into_iter().next()
    }

    /// Whether any packet may be dropped at all.
    pub(crate) fn can_drop(&self) -> bool {
        let is_start = |chain: &Chain| chain.start.is_some_and(|(_, policy)| policy == Policy::Drop);
        let has_drop = |chain: &Chain| chain.rules.iter().any(|rule| rule.verdict == Verdict::Drop);
        self.chains.iter().any(|chain| is_start(chain) || has_drop(chain))
    }

    /// Nothing for a chain where such packets do not begin.
    pub(crate) fn fate(&self, chain: &Chain, packet: &Packet) -> Option<Fate> {
        let (_, policy) = chain.start.filter(|(hook, _)| *hook == packet.hook)?;
        let walk = self.walk(chain, packet, 0);
        Some(match walk.accepted.unwrap_or(policy == Policy::Accept) {
            true => Fate::Passes,
            false if walk.maybe_accepted => Fate::Unsure,
            false => Fate::Dropped,
        })
    }

    fn walk(&self, chain: &Chain, packet: &Packet, depth: usize) -> Walk {
        let mut walk = Walk::default();
        for rule in &chain.rules {
            let fit = rule.fit(packet);
            if fit == Fit::No {
                continue;
            }
            let (verdict, ends) = match &rule.verdict {
                Verdict::Next => continue,
                Verdict::Accept => (Walk { accepted: Some(true), ..Walk::default() }, true),
                Verdict::Drop => (Walk { accepted: Some(false), ..Walk::default() }, true),
                // What comes back may be accepted further on, or by the policy.
                Verdict::Return => {
                    let goes_on = depth > 0 || chain.start.is_some_and(|(_, policy)| policy == Policy::Accept);
                    (Walk { maybe_accepted: fit == Fit::Maybe && goes_on, ..Walk::default() }, true)
                }
                Verdict::Jump(to) => (self.follow(chain, to, packet, depth), false),
                Verdict::Goto(to) => (self.follow(chain, to, packet, depth), true),
            };
            walk.maybe_accepted |= verdict.maybe_accepted || (fit == Fit::Maybe && verdict.accepted == Some(true));
            if fit == Fit::Yes && (ends || verdict.accepted.is_some()) {
                return Walk { accepted: verdict.accepted, ..walk };
            }
        }
        walk
    }

    fn follow(&self, from: &Chain, to: &str, packet: &Packet, depth: usize) -> Walk {
        let same = |chain: &&Chain| chain.tool == from.tool && chain.table == from.table && chain.name == to;
        match self.chains.iter().find(same) {
            Some(chain) if depth < DEPTH_MAX => self.walk(chain, packet, depth + 1),
            _ => Walk::default(),
        }
    }
}

impl Rule {
    fn fit(&self, packet: &Packet) -> Fit {
        let fits = self.conditions.iter().map(|condition| condition.fit(packet));
        fits.fold(Fit::Yes, |whole, fit| match (whole, fit) {
            (Fit::No, _) | (_, Fit::No) => Fit::No,
            (Fit::Maybe, _) | (_, Fit::Maybe) => Fit::Maybe,
            _ => Fit::Yes,
        })
    }
}

impl Condition {
    fn fit(&self, packet: &Packet) -> Fit {
        let fit = match &self.about {
            About::Input(names) => name_fit(names, packet.input.as_deref()),
            About::Output(names) => name_fit(names, packet.output.as_deref()),
            About::Source(networks) => network_fit(networks, packet.source),
            About::Destination(networks) => network_fit(networks, packet.destination),
            About::Port(ports) => {
                packet.port.map_or(Fit::Maybe, |port| known(ports.iter().any(|it| it.contains(&port))))
            }
            About::ToHost => known(packet.hook == Hook::Input),
            About::State(states) => known(states.iter().any(|state| state == packet.state)),
            About::Known(holds) => known(*holds),
            About::Unknown => Fit::Maybe,
        };
        match fit {
            Fit::Yes if self.not => Fit::No,
            Fit::No if self.not => Fit::Yes,
            fit => fit,
        }
    }
}

fn known(holds: bool) -> Fit {
    if holds { Fit::Yes } else { Fit::No }
}

fn name_fit(names: &[String], name: Option<&str>) -> Fit {
    let fits = |pattern: &String, name: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    };
    match name {
        _ if names.iter().any(|pattern| pattern == "*") => Fit::Yes,
        Some(name) => known(names.iter().any(|pattern| fits(pattern, name))),
        None => Fit::Maybe,
    }
}

fn network_fit(networks: &[IpNetwork], of: Option<IpNetwork>) -> Fit {
    let everything = |network: &IpNetwork| network.prefix() == 0 && network.ip().is_unspecified();
    match of {
        _ if networks.iter().any(everything) => Fit::Yes,
        None => Fit::Maybe,
        Some(of) if networks.iter().any(|network| is_within(of, *network)) => Fit::Yes,
        Some(of) if networks.iter().any(|network| is_within(*network, of)) => Fit::Maybe,
        Some(_) => Fit::No,
    }
}

/// Of two networks that share an address, the smaller is within the larger.
fn is_within(small: IpNetwork, large: IpNetwork) -> bool {
    small.prefix() >= large.prefix() && large.contains(small.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(about: About) -> Condition {
        Condition { not: false, about }
    }

    fn rule(conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule { conditions: conditions.to_vec(), verdict, ..Rule::default() }
    }

    fn chain(name: &str, policy_drop: Option<bool>, rules: Vec<Rule>) -> Chain {
        let start = policy_drop.map(|drop| (Hook::Forward, if drop { Policy::Drop } else { Policy::Accept }));
        Chain { tool: Tool::Nft, table: "inet filter".into(), name: name.into(), start, rules }
    }

    fn fate(chains: Vec<Chain>) -> Fate {
        let packet = Packet {
            hook: Hook::Forward,
            port: None,
            input: Some("eth0".into()),
            output: Some("flatnet-br0".into()),
            source: None,
            destination: Some("10.87.1.0/24".parse().expect("a subnet")),
            state: "new",
        };
        Ruleset { chains }.obstacle(&packet).map_or(Fate::Passes, |(_, fate)| fate)
    }

    fn to_bridge() -> Condition {
        when(About::Output(vec!["flatnet-*".into()]))
    }

    #[test]
    fn a_policy_holds_where_no_rule_does() {
        assert_eq!(fate(vec![chain("forward", Some(true), vec![])]), Fate::Dropped);
        assert_eq!(fate(vec![chain("forward", Some(false), vec![])]), Fate::Passes);
        assert_eq!(fate(vec![chain("forward", Some(true), vec![rule(&[to_bridge()], Verdict::Accept)])]), Fate::Passes);
        let other = vec![rule(&[when(About::Output(vec!["docker0".into()]))], Verdict::Accept)];
        assert_eq!(fate(vec![chain("forward", Some(true), other)]), Fate::Dropped);
    }

    #[test]
    fn every_chain_has_to_let_it_pass() {
        let accepting = || chain("one", Some(false), vec![rule(&[], Verdict::Accept)]);
        assert_eq!(fate(vec![accepting(), chain("two", Some(true), vec![])]), Fate::Dropped);
    }

    #[test]
    fn a_jump_comes_back_and_a_goto_does_not() {
        let user = || chain("user", None, vec![rule(&[], Verdict::Return), rule(&[], Verdict::Accept)]);
        let jump = vec![rule(&[], Verdict::Jump("user".into())), rule(&[], Verdict::Accept)];
        assert_eq!(fate(vec![chain("forward", Some(true), jump), user()]), Fate::Passes);
        let goto = vec![rule(&[], Verdict::Goto("user".into())), rule(&[], Verdict::Accept)];
        assert_eq!(fate(vec![chain("forward", Some(true), goto), user()]), Fate::Dropped);
    }

    #[test]
    fn what_cannot_be_judged_is_not_certain() {
        let maybe = |verdict| vec![rule(&[when(About::Unknown)], verdict)];
        assert_eq!(fate(vec![chain("forward", Some(true), maybe(Verdict::Accept))]), Fate::Unsure);
        assert_eq!(fate(vec![chain("forward", Some(false), maybe(Verdict::Drop))]), Fate::Passes);
        let user = chain("user", None, vec![rule(&[], Verdict::Accept)]);
        assert_eq!(fate(vec![chain("forward", Some(true), maybe(Verdict::Jump("user".into()))), user]), Fate::Unsure);
    }

    #[test]
    fn a_return_that_cannot_be_judged_leaves_the_drop_after_it_uncertain() {
        let rules = || vec![rule(&[when(About::Unknown)], Verdict::Return), rule(&[], Verdict::Drop)];
        let jump = vec![rule(&[], Verdict::Jump("user".into()))];
        assert_eq!(fate(vec![chain("forward", Some(true), jump), chain("user", None, rules())]), Fate::Unsure);
        assert_eq!(fate(vec![chain("forward", Some(false), rules())]), Fate::Unsure);
        assert_eq!(fate(vec![chain("forward", Some(true), rules())]), Fate::Dropped);
    }

    #[test]
    fn a_circle_ends() {
        let circle = vec![rule(&[], Verdict::Jump("forward".into()))];
        assert_eq!(fate(vec![chain("forward", Some(true), circle)]), Fate::Dropped);
    }

    #[test]
    fn a_part_of_the_subnet_is_not_all_of_it() {
        let to = |network: &str, not| {
            let about = About::Destination(vec![network.parse().expect("a network")]);
            vec![rule(&[Condition { not, about }], Verdict::Accept)]
        };
        assert_eq!(fate(vec![chain("forward", Some(true), to("10.0.0.0/8", false))]), Fate::Passes);
        assert_eq!(fate(vec![chain("forward", Some(true), to("10.87.1.128/25", false))]), Fate::Unsure);
        assert_eq!(fate(vec![chain("forward", Some(true), to("172.16.0.0/12", true))]), Fate::Passes);
        assert_eq!(fate(vec![chain("forward", Some(true), to("10.87.1.0/25", true))]), Fate::Unsure);
    }
}
