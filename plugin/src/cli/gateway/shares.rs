//! How much of the name service is whose: connections and requests, by kind of visitor and by where they come from.
//!
//! Invariant: whoever takes more than a share waits or is cut off, and nobody else of another kind notices; the sum of all shares is
//! less than the descriptors that a process has by default (1024).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::visitor::Visitor;

/// Containers have little to ask, and much time to do it.
const CONTAINERS: Limits = Limits { connections: 128, of_one: 16, pace: Some((PACE_OF_ALL, PACE_OF_ONE)) };
/// The node and its `gateways`, which ask for all of their clients.
const TRUSTED: Limits = Limits { connections: 384, of_one: 384, pace: None };
/// The same of others, as one of them may be the gateway.
const OTHERS: Limits = Limits { connections: 384, of_one: 384, pace: None };
/// For all containers together, and for one.
const PACE_OF_ALL: Pace = Pace { interval: Duration::from_millis(1), ahead: Duration::from_millis(500) };
const PACE_OF_ONE: Pace = Pace { interval: Duration::from_millis(10), ahead: Duration::from_secs(1) };
/// One that would have to wait longer is not let in.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How many origins are remembered before those that matter no more are forgotten.
const ORIGINS_MAX: usize = 512;

struct Limits {
    connections: usize,
    of_one: usize,
    /// Of all, and of one.
    pace: Option<(Pace, Pace)>,
}

/// One request each `interval`, and as many at once as `ahead` has intervals.
#[derive(Clone, Copy)]
struct Pace {
    interval: Duration,
    ahead: Duration,
}

/// The shares that are in use.
#[derive(Default)]
pub(super) struct Shares {
    groups: RefCell<BTreeMap<&'static str, Group>>,
}

/// The visitors that have a share together.
#[derive(Default)]
struct Group {
    origins: BTreeMap<IpAddr, Origin>,
    paid_until: Option<Instant>,
    last: u64,
}

#[derive(Default)]
struct Origin {
    /// The oldest first.
    connections: BTreeMap<u64, AbortHandle>,
    paid_until: Option<Instant>,
}

/// A connection's place in its share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    visitor: Visitor,
    origin: IpAddr,
    number: u64,
}

impl Place {
    pub(super) fn visitor(self) -> Visitor {
        self.visitor
    }
}

impl Shares {
    /// A place for a new connection; the oldest of the same share goes for it, where that is full. Nothing where its origin has
    /// asked for too much already.
    pub(super) fn admit(&self, visitor: Visitor, origin: IpAddr) -> Option<Place> {
        let (name, limits) = limits(visitor);
        let mut groups = self.groups.borrow_mut();
        let group = groups.entry(name).or_default();
        let now = Instant::now();
        if let Some((_, pace)) = limits.pace
            && group.origins.entry(origin).or_default().pay(pace, now) > WAIT_MAX
        {
            return None;
        }
        if group.origins.len() > ORIGINS_MAX {
            group.origins.retain(|_, origin| origin.matters(now));
        }
        let own = group.origins.get(&origin).map_or(0, |origin| origin.connections.len());
        if own >= limits.of_one {
            group.cut_oldest_of(origin);
        } else if group.connections() >= limits.connections {
            group.cut_oldest_of_heaviest();
        }
        group.last += 1;
        Some(Place { visitor, origin, number: group.last })
    }

    /// The connection at `place` is served by that task.
    pub(super) fn served_by(&self, place: Place, task: AbortHandle) {
        let mut groups = self.groups.borrow_mut();
        let group = groups.entry(limits(place.visitor).0).or_default();
        group.origins.entry(place.origin).or_default().connections.insert(place.number, task);
    }

    /// The connection has ended.
    pub(super) fn leave(&self, place: Place) {
        let mut groups = self.groups.borrow_mut();
        let Some(group) = groups.get_mut(limits(place.visitor).0) else { return };
        let Some(origin) = group.origins.get_mut(&place.origin) else { return };
        origin.connections.remove(&place.number);
        if !origin.matters(Instant::now()) {
            group.origins.remove(&place.origin);
        }
    }

    /// Ends when it is the connection's turn to ask once more.
    pub(super) async fn turn(&self, place: Place) {
        let (name, limits) = limits(place.visitor);
        let Some((of_all, of_one)) = limits.pace else { return };
        let now = Instant::now();
        let wait = {
            let mut groups = self.groups.borrow_mut();
            let group = groups.entry(name).or_default();
            let own = group.origins.entry(place.origin).or_default().pay(of_one, now);
            own.max(of_all.pay(&mut group.paid_until, now))
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

impl Group {
    fn connections(&self) -> usize {
        self.origins.values().map(|origin| origin.connections.len()).sum()
    }

    fn cut_oldest_of_heaviest(&mut self) {
        let heaviest = self.origins.iter().max_by_key(|(_, origin)| origin.connections.len());
        if let Some(address) = heaviest.map(|(address, _)| *address) {
            self.cut_oldest_of(address);
        }
    }

    fn cut_oldest_of(&mut self, address: IpAddr) {
        let oldest = self.origins.get_mut(&address).and_then(|origin| origin.connections.pop_first());
        if let Some((_, task)) = oldest {
            task.abort();
        }
    }
}

impl Origin {
    fn pay(&mut self, pace: Pace, now: Instant) -> Duration {
        pace.pay(&mut self.paid_until, now)
    }

    /// Whether anything would be different if it were forgotten.
    fn matters(&self, now: Instant) -> bool {
        !self.connections.is_empty() || self.paid_until.is_some_and(|until| until > now)
    }
}

impl Pace {
    /// Counts one request, and says how long it has to wait.
    fn pay(self, paid_until: &mut Option<Instant>, now: Instant) -> Duration {
        let from = paid_until.map_or(now, |until| until.max(now));
        let wait = from.saturating_duration_since(now).saturating_sub(self.ahead);
        // One that is not let in pays no more than that.
        *paid_until = Some((from + self.interval).min(now + self.ahead + WAIT_MAX * 2));
        wait
    }
}

fn limits(visitor: Visitor) -> (&'static str, Limits) {
    match visitor {
        Visitor::Node | Visitor::Gateway => ("trusted", TRUSTED),
        Visitor::Container => ("containers", CONTAINERS),
        Visitor::Other => ("others", OTHERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 87, 1, n])
    }

    /// Runs `test` where nothing takes time but sleeping.
    fn paused(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test());
    }

    fn open(shares: &Shares, visitor: Visitor, origin: IpAddr) -> Option<(Place, AbortHandle)> {
        let place = shares.admit(visitor, origin)?;
        let task = tokio::task::spawn_local(std::future::pending::<()>()).abort_handle();
        shares.served_by(place, task.clone());
        Some((place, task))
    }

    #[test]
    fn one_has_only_its_share_of_connections_and_others_keep_theirs() {
        paused(async || {
            let shares = Shares::default();
            let (_, gateway) = open(&shares, Visitor::Other, address(250)).expect("a place");
            let (_, other) = open(&shares, Visitor::Container, address(3)).expect("a place");
            let own: Vec<_> = (0..40).filter_map(|_| open(&shares, Visitor::Container, address(2))).collect();
            tokio::task::yield_now().await;
            let open = own.iter().filter(|(_, task)| !task.is_finished()).count();
            assert_eq!((open, gateway.is_finished(), other.is_finished()), (CONTAINERS.of_one, false, false));
            assert!(own.last().is_some_and(|(_, task)| !task.is_finished()));
        });
    }

    #[test]
    fn of_all_containers_the_one_with_most_connections_makes_room() {
        paused(async || {
            let shares = Shares::default();
            let (_, small) = open(&shares, Visitor::Container, address(1)).expect("a place");
            for n in 2..20 {
                for _ in 0..CONTAINERS.of_one {
                    open(&shares, Visitor::Container, address(n));
                }
            }
            tokio::task::yield_now().await;
            assert_eq!(shares.groups.borrow()["containers"].connections(), CONTAINERS.connections);
            assert!(!small.is_finished());
        });
    }

    #[test]
    fn requests_beyond_the_pace_wait_and_those_of_gateways_do_not() {
        paused(async || {
            let shares = Shares::default();
            let (place, _) = open(&shares, Visitor::Container, address(2)).expect("a place");
            let start = Instant::now();
            for _ in 0..300 {
                shares.turn(place).await;
            }
            assert!((1900..2100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
            let (other, _) = open(&shares, Visitor::Container, address(3)).expect("a place");
            let (gateway, _) = open(&shares, Visitor::Gateway, address(250)).expect("a place");
            let start = Instant::now();
            shares.turn(other).await;
            for _ in 0..10_000 {
                shares.turn(gateway).await;
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn one_that_connects_without_end_is_not_let_in_until_it_rests() {
        paused(async || {
            let shares = Shares::default();
            let places: Vec<_> = (0..1000).map(|_| shares.admit(Visitor::Container, address(2))).collect();
            assert!(places[0].is_some() && places[999].is_none());
            assert!(shares.admit(Visitor::Container, address(3)).is_some());
            sleep(Duration::from_secs(3)).await;
            assert!(shares.admit(Visitor::Container, address(2)).is_some());
        });
    }

    #[test]
    fn those_that_matter_no_more_are_forgotten() {
        paused(async || {
            let shares = Shares::default();
            let (place, _) = open(&shares, Visitor::Other, address(2)).expect("a place");
            shares.leave(place);
            assert!(shares.groups.borrow()["others"].origins.is_empty());
        });
    }
}
