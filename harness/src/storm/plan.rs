//! Which calls a storm makes: rounds of calls that all start at the same moment.
//!
//! Invariant: a plan follows from its shape and its seed alone, not from what the calls answer; only their interleaving is the
//! machine's.

use std::collections::BTreeSet;
use std::fmt;

use fastrand::Rng;
use serde::Deserialize;

/// One in so many attached containers is missing from a GC's list.
const FORGOTTEN: usize = 6;
/// One in so many containers has a second call in the same round, where calls may overlap.
const TWINS: usize = 6;

/// What a storm is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Attach a container.
    Add,
    /// Detach one.
    Del,
    /// Compare one with the result of its ADD.
    Check,
    /// Detach all but the listed.
    Gc,
}

/// How big a storm is, and of what.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many containers there are.
    pub containers: usize,
    /// How many rounds are made.
    pub rounds: usize,
    /// What is called.
    pub mix: BTreeSet<Kind>,
    /// Whether one container may have two calls at once, and GC may come while containers are added that it does not list: no runtime
    /// should do that, and a plugin should bear it.
    pub overlap: bool,
}

/// One call; containers are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// ADD of a container.
    Add(usize),
    /// DEL of a container.
    Del(usize),
    /// CHECK of a container.
    Check(usize),
    /// GC; these stay.
    Gc(BTreeSet<usize>),
}

/// The calls of a storm, round by round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it follows from, beside its shape.
    pub seed: u64,
    /// The calls of a round start together.
    pub rounds: Vec<Vec<Action>>,
}

impl Plan {
    /// The plan of that shape and seed. In the first round all containers are added, if there is ADD in the mix.
    pub fn new(shape: &Shape, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut there = BTreeSet::new();
        let mut rounds = Vec::new();
        for number in 0..shape.rounds {
            let mut round = match number {
                0 if shape.mix.contains(&Kind::Add) => (1..=shape.containers).map(Action::Add).collect(),
                _ => shape.round(&mut rng, &there),
            };
            believe(&round, &mut there);
            rng.shuffle(&mut round);
            rounds.push(round);
        }
        Self { seed, rounds }
    }
}

impl Shape {
    /// One round, where `there` are likely to be attached.
    fn round(&self, rng: &mut Rng, there: &BTreeSet<usize>) -> Vec<Action> {
        let mut round = Vec::new();
        for container in 1..=self.containers {
            round.extend(self.call(rng, container, there.contains(&container)));
            if self.overlap && rng.usize(..TWINS) == 0 {
                round.extend(self.call(rng, container, there.contains(&container)));
            }
        }
        if self.mix.contains(&Kind::Gc) && rng.bool() {
            round.push(self.gc(rng, &round, there));
        }
        round
    }

    /// What befalls a container in a round; often nothing. What makes no sense is called too, but seldom.
    fn call(&self, rng: &mut Rng, container: usize, there: bool) -> Option<Action> {
        let weights = if there { [1, 3, 3, 3] } else { [5, 1, 1, 1] };
        let calls = [Some(Kind::Add), Some(Kind::Del), Some(Kind::Check), None];
        let possible = |call: &Option<Kind>| call.is_none_or(|kind| self.mix.contains(&kind));
        let weighted = calls.iter().zip(weights).filter(|(call, _)| possible(call));
        let urn: Vec<Option<Kind>> = weighted.flat_map(|(call, weight)| [*call].repeat(weight)).collect();
        match rng.choice(urn).flatten()? {
            Kind::Add => Some(Action::Add(container)),
            Kind::Del => Some(Action::Del(container)),
            Kind::Check => Some(Action::Check(container)),
            Kind::Gc => None,
        }
    }

    /// A GC that has forgotten some of those that are there; where calls may overlap, it may know nothing of those that are being
    /// added (libcni lists what it has the result of).
    fn gc(&self, rng: &mut Rng, round: &[Action], there: &BTreeSet<usize>) -> Action {
        let busy: BTreeSet<usize> = round.iter().filter_map(Action::container).collect();
        let knows_all = !self.overlap || rng.bool();
        let listed = |container: usize, rng: &mut Rng| {
            let forgotten = rng.usize(..FORGOTTEN) == 0 && (self.overlap || !busy.contains(&container));
            let known = there.contains(&container) || (knows_all && busy.contains(&container));
            known && !forgotten
        };
        Action::Gc((1..=self.containers).filter(|container| listed(*container, rng)).collect())
    }
}

impl Action {
    /// What is called.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Add(_) => Kind::Add,
            Self::Del(_) => Kind::Del,
            Self::Check(_) => Kind::Check,
            Self::Gc(_) => Kind::Gc,
        }
    }

    /// Whom it is about, if it is about one container.
    pub fn container(&self) -> Option<usize> {
        match self {
            Self::Add(container) | Self::Del(container) | Self::Check(container) => Some(*container),
            Self::Gc(_) => None,
        }
    }

    /// Whether it may detach the container.
    pub fn ends(&self, container: usize) -> bool {
        match self {
            Self::Del(ended) => *ended == container,
            Self::Gc(kept) => !kept.contains(&container),
            Self::Add(_) | Self::Check(_) => false,
        }
    }
}

impl Kind {
    /// `CNI_COMMAND`
    pub fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.kind().command();
        match self {
            Self::Gc(kept) => {
                write!(f, "{command} but for {}", kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            Self::Add(container) | Self::Del(container) | Self::Check(container) => write!(f, "{command} {container}"),
        }
    }
}

/// What is likely to be there after a round, if every call does what it is for.
fn believe(round: &[Action], there: &mut BTreeSet<usize>) {
    there.extend(round.iter().filter(|action| action.kind() == Kind::Add).filter_map(Action::container));
    there.retain(|container| !round.iter().any(|action| action.ends(*container)));
}

#[cfg(test)]
mod tests {
    use super::{Action, Kind, Plan, Shape};
    use std::collections::BTreeSet;

    fn shape(overlap: bool) -> Shape {
        let mix = [Kind::Add, Kind::Del, Kind::Check, Kind::Gc].into();
        Shape { containers: 20, rounds: 30, mix, overlap }
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::new(&shape(true), 7), Plan::new(&shape(true), 7));
        assert_ne!(Plan::new(&shape(true), 7), Plan::new(&shape(true), 8));
    }

    #[test]
    fn all_are_added_first_and_everything_in_the_mix_comes() {
        let Plan { rounds, .. } = Plan::new(&shape(false), 1);
        let first: BTreeSet<Action> = rounds[0].iter().cloned().collect();
        assert_eq!(first, (1..=20).map(Action::Add).collect());
        let seen: BTreeSet<Kind> = rounds.iter().flatten().map(Action::kind).collect();
        assert_eq!(seen, shape(false).mix);
    }

    #[test]
    fn only_what_is_in_the_mix_comes() {
        let shape = Shape { mix: [Kind::Del].into(), ..shape(true) };
        assert!(Plan::new(&shape, 1).rounds.iter().flatten().all(|action| action.kind() == Kind::Del));
    }

    /// A runtime makes one call at a time for a container, and no GC for one that it is just adding.
    #[test]
    fn without_overlap_nobody_has_two_calls_at_once() {
        for round in Plan::new(&shape(false), 3).rounds {
            let called: Vec<usize> = round.iter().filter_map(Action::container).collect();
            assert_eq!(called.iter().collect::<BTreeSet<_>>().len(), called.len(), "{round:?}");
            let gc = |action: &&Action| action.kind() == Kind::Gc;
            assert!(!called.iter().any(|it| round.iter().filter(gc).any(|gc| gc.ends(*it))), "{round:?}");
        }
    }

    #[test]
    fn with_overlap_somebody_has() {
        let twins = Plan::new(&shape(true), 3).rounds.into_iter().any(|round| {
            (1..=20).any(|container| round.iter().filter(|action| action.container() == Some(container)).count() > 1)
        });
        assert!(twins);
    }
}
