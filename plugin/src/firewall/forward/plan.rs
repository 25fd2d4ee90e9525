//! Which accepts a network needs in the chains of other firewalls, and where: decided from their rules alone.
//!
//! Pure. An accept in a table of flatnet's own would not do: a packet passes only if every chain at the hook lets it. Where users'
//! rules have a chain of their own, accepts go to its end, so that what the user wrote there comes first; else to the beginning
//! of the chain that drops. Nothing is asked for where nothing drops.

mod wanted;

use ipnetwork::IpNetwork;

pub(super) use self::wanted::{Outside, Wanted};
use crate::filter::rules::{About, Chain, Condition, Rule, Ruleset, Verdict};

/// Chains that firewalls leave to the user and reload without a change, or fill from the user's own files: Docker's
/// (docs.docker.com, "Docker with iptables") and ufw's (ufw-framework(8)).
const USER_CHAINS: [&str; 3] = ["DOCKER-USER", "ufw-user-forward", "ufw6-user-forward"];
/// How every comment begins. The network's name follows, for people: whose rule it is, its bridge says.
const COMMENT_PREFIX: &str = "flatnet: network ";
/// Rules lead to users' chains at most this deep.
const DEPTH_MAX: usize = 4;

/// One rule of flatnet's in another firewall's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accept {
    pub(super) way: Way,
    /// The bridge, or the VLAN on it that is the gateway's link.
    pub(super) bridge: String,
    pub(super) far: Far,
    pub(super) subnet: IpNetwork,
    pub(super) comment: String,
}

/// Whom it lets containers speak with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Far {
    /// Everybody, as earlier versions had it: other programs' containers, too. Never written.
    Anybody,
    /// Those behind that link.
    Link(String),
    /// Those with whom they do already.
    Answers,
    /// Those who ask for a published port.
    Published,
}

/// From where a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To containers: by the bridge, out of the host.
    In,
    /// From containers.
    Out,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Remove { chain: Place, accept: Accept, handle: Option<u64> },
    Insert { chain: Place, accept: Accept, position: Position },
}

/// A chain, by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) table: String,
    pub(super) name: String,
}

/// Where in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    First,
    /// Before the rule of that number, counted from 0 once everything is removed that is to be, and of that handle.
    Before(usize, Option<u64>),
    Last,
}

/// What a look came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) edits: Vec<Edit>,
    /// The chains that drop what flatnet's containers need, in words.
    pub(super) obstacles: Vec<String>,
}

impl Accept {
    /// The rule's meaning, if it is one of flatnet's.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        if !rule.comment.starts_with(COMMENT_PREFIX) || rule.verdict != Verdict::Accept {
            return None;
        }
        let (mut input, mut output, mut network, mut states) = (None, None, None, None);
        for Condition { not, about } in &rule.conditions {
            let is_second = match about {
                _ if *not => return None,
                About::Output(names) => output.replace(names).is_some(),
                About::Input(names) => input.replace(names).is_some(),
                About::Destination(networks) => network.replace((Way::In, networks)).is_some(),
                About::Source(networks) => network.replace((Way::Out, networks)).is_some(),
                About::State(found) => states.replace(found).is_some(),
                About::Known(true) => false,
                _ => return None,
            };
            if is_second {
                return None;
            }
        }
        let (way, networks) = network?;
        let (near, far) = match way {
            Way::In => (output?, input),
            Way::Out => (input?, output),
        };
        let far = match (far.map(Vec::as_slice), states) {
            (None, None) => Far::Anybody,
            (Some([link]), None) => Far::Link(link.clone()),
            (None, Some(states)) => Far::of_states(states)?,
            _ => return None,
        };
        let ([bridge], [subnet]) = (near.as_slice(), networks.as_slice()) else { return None };
        let (bridge, comment) = (bridge.clone(), rule.comment.clone());
        Some(Self { way, bridge, far, subnet: *subnet, comment })
    }

    /// Whether it lets the same packets pass: networks on one bridge share its accepts, whichever came first.
    fn opens_as(&self, other: &Self) -> bool {
        let whom = |accept: &Self| (accept.way, accept.subnet, accept.far.clone());
        self.bridge == other.bridge && whom(self) == whom(other)
    }

    fn rule(&self) -> Rule {
        let (names, networks) = (vec![self.bridge.clone()], vec![self.subnet]);
        let (near, network) = match self.way {
            Way::In => (About::Output(names), About::Destination(networks)),
            Way::Out => (About::Input(names), About::Source(networks)),
        };
        let far = match (&self.far, self.way) {
            (Far::Link(link), Way::In) => Some(About::Input(vec![link.clone()])),
            (Far::Link(link), Way::Out) => Some(About::Output(vec![link.clone()])),
            (far, _) => far.states().map(|states| About::State(states.map(str::to_owned).collect())),
        };
        let abouts = [near, network].into_iter().chain(far);
        let conditions = abouts.map(|about| Condition { not: false, about }).collect();
        Rule { conditions, verdict: Verdict::Accept, comment: self.comment.clone(), handle: None }
    }
}

impl Far {
    const ALL_BY_STATE: [(Self, &[&str]); 2] =
        [(Self::Answers, &["established", "related"]), (Self::Published, &["dnat"])];

    fn of_states(states: &[String]) -> Option<Self> {
        let mut states: Vec<_> = states.iter().map(String::as_str).collect();
        states.sort_unstable();
        Self::ALL_BY_STATE.into_iter().find(|(_, known)| *known == states).map(|(far, _)| far)
    }

    /// Of connection tracking, any of which it takes.
    fn states(&self) -> Option<impl Iterator<Item = &'static str>> {
        let found = Self::ALL_BY_STATE.into_iter().find(|(far, _)| far == self);
        found.map(|(_, states)| states.iter().copied())
    }
}

/// The bridges, and VLANs on them, that flatnet's rules are about, each once.
pub(super) fn bridges(ruleset: &Ruleset) -> Vec<String> {
    let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
    let mut bridges: Vec<_> = rules.filter_map(Accept::of).map(|accept| accept.bridge).collect();
    bridges.sort_unstable();
    bridges.dedup();
    bridges
}

/// Takes away the rules for bridges of which `is_gone` is true.
pub(super) fn sweep(ruleset: &Ruleset, is_gone: impl Fn(&str) -> bool) -> Vec<Edit> {
    ruleset.chains.iter().flat_map(|chain| removals(chain, |accept| is_gone(&accept.bridge))).collect()
}

/// What opens the way for a network: of each table, all of its rules are right, or all are made anew.
pub(super) fn open(ruleset: &Ruleset, wanted: &Wanted<'_>) -> Plan {
    let needed = wanted.packets();
    let passes = |ruleset: &Ruleset, chain: &Chain| needed.iter().all(|it| it.passes(ruleset, chain));
    let bare = without_own(ruleset, wanted);
    let mut plan = Plan::default();
    let mut tables: Vec<&str> = ruleset.chains.iter().map(|chain| chain.table.as_str()).collect();
    tables.sort_unstable();
    tables.dedup();
    for table in tables {
        let dropping: Vec<_> =
            bare.chains.iter().filter(|chain| chain.table == table && !passes(&bare, chain)).collect();
        if dropping.is_empty() {
            continue;
        }
        let mut places: Vec<(&Chain, Position)> = Vec::new();
        for chain in &dropping {
            let place = place(&bare, chain, wanted, passes);
            if !places.iter().any(|(known, _)| known.name == place.0.name) {
                places.push(place);
            }
        }
        let own: Vec<_> = ruleset.chains.iter().filter(|chain| chain.table == table).collect();
        if is_in_place(&own, &places, wanted) && own.iter().all(|chain| passes(ruleset, chain)) {
            continue;
        }
        // What another network on the host has opened already is no obstacle, though each has accepts of its own.
        plan.obstacles.extend(own.iter().filter(|chain| !passes(ruleset, chain)).map(ToString::to_string));
        plan.edits.extend(own.iter().flat_map(|chain| removals(chain, |accept| wanted.has(accept))));
        for (chain, position) in places {
            let insert = |accept| Edit::Insert { chain: Place::of(chain), accept, position };
            plan.edits.extend(wanted.accepts().into_iter().map(insert));
        }
    }
    plan
}

impl Place {
    fn of(chain: &Chain) -> Self {
        Self { table: chain.table.clone(), name: chain.name.clone() }
    }
}

/// All accepts in each of `places`, once, and nowhere else.
fn is_in_place(chains: &[&Chain], places: &[(&Chain, Position)], wanted: &Wanted<'_>) -> bool {
    let needed = wanted.accepts();
    chains.iter().all(|chain| {
        let own = chain.rules.iter().filter_map(Accept::of).filter(|accept| wanted.has(accept));
        let own: Vec<_> = own.collect();
        let is_place = places.iter().any(|(place, _)| place.name == chain.name);
        let expected = if is_place { needed.len() } else { 0 };
        own.len() == expected && (expected == 0 || needed.iter().all(|accept| own.iter().any(|it| it.opens_as(accept))))
    })
}

/// Where `start`'s firewall says that users' rules belong, if that is of use; else its beginning.
fn place<'a>(
    bare: &'a Ruleset,
    start: &'a Chain,
    wanted: &Wanted<'_>,
    passes: impl Fn(&Ruleset, &Chain) -> bool,
) -> (&'a Chain, Position) {
    let helps = |(chain, position): &(&Chain, Position)| {
        let mut trial = bare.clone();
        let found = trial.chains.iter_mut().find(|it| is_same(it, chain));
        let Some(found) = found else { return false };
        let at = match *position {
            Position::First => 0,
            Position::Before(at, _) => at,
            Position::Last => found.rules.len(),
        };
        found.rules.splice(at..at, wanted.accepts().iter().map(Accept::rule));
        passes(&trial, start)
    };
    let of_users = user_chains(bare, start, 0).into_iter().map(|chain| (chain, at_the_end(chain)));
    of_users.into_iter().find(helps).unwrap_or((start, Position::First))
}

/// Users' chains that every packet in `from` is led to.
fn user_chains<'a>(ruleset: &'a Ruleset, from: &Chain, depth: usize) -> Vec<&'a Chain> {
    let mut found = Vec::new();
    for rule in from.rules.iter().filter(|rule| rule.conditions.is_empty()) {
        let Verdict::Jump(to) = &rule.verdict else { continue };
        let chain = ruleset.chains.iter().find(|it| it.tool == from.tool && it.table == from.table && it.name == *to);
        match chain {
            Some(chain) if USER_CHAINS.contains(&chain.name.as_str()) => found.push(chain),
            Some(chain) if depth < DEPTH_MAX => found.extend(user_chains(ruleset, chain, depth + 1)),
            _ => {}
        }
    }
    found
}

/// Before the RETURN that closes a chain, where there is one.
fn at_the_end(chain: &Chain) -> Position {
    match chain.rules.split_last() {
        Some((last, before)) if last.conditions.is_empty() && last.verdict == Verdict::Return => {
            Position::Before(before.len(), last.handle)
        }
        _ => Position::Last,
    }
}

fn is_same(one: &Chain, other: &Chain) -> bool {
    one.tool == other.tool && one.table == other.table && one.name == other.name
}

fn removals(chain: &Chain, chosen: impl Fn(&Accept) -> bool) -> Vec<Edit> {
    let own = chain.rules.iter().filter_map(|rule| Some((Accept::of(rule)?, rule.handle)));
    let chosen = own.filter(|(accept, _)| chosen(accept));
    chosen.map(|(accept, handle)| Edit::Remove { chain: Place::of(chain), accept, handle }).collect()
}

/// The rules as they would be without flatnet's for that network.
fn without_own(ruleset: &Ruleset, wanted: &Wanted<'_>) -> Ruleset {
    let mut bare = ruleset.clone();
    for chain in &mut bare.chains {
        chain.rules.retain(|rule| Accept::of(rule).is_none_or(|accept| !wanted.has(&accept)));
    }
    bare
}

#[cfg(test)]
mod tests;
