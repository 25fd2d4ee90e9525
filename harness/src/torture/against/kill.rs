//! The plugin, or a process that it has started, is killed at a system call; then the runtime detaches the container, or nobody
//! does, and the container ends.
//!
//! Invariant: only deaths count: calls that came to their own good end in spite of the fault are left out.

use anyhow::Result;

use super::Loss;
use super::ground::{Ground, Taken};
use crate::fault::{self, Plan, Point, When};
use crate::plugin::Answer;
use crate::torture::Form;

/// A container that lives through all of it.
const BYSTANDER: &str = "bystander";

/// What comes after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The runtime lives, and calls DEL: Podman does after an ADD that failed.
    Del,
    /// The runtime is dead as well, or does not try again.
    Nothing,
}

/// What deaths have cost: each count but that of the addresses is of deaths.
#[derive(Debug, Default)]
struct Toll {
    deaths: usize,
    addresses: usize,
    links: usize,
    rules: usize,
    next: usize,
}

/// How many deaths of each kind there are; they are spread over all system calls.
fn size(form: Form) -> usize {
    match form {
        Form::Short => 8,
        Form::Long => 200,
    }
}

/// ADD and DEL, each killed and then followed by DEL or by nothing.
pub(super) fn run(ground: &mut Ground, form: Form, seed: u32) -> Result<Vec<Loss>> {
    ground.must_add(BYSTANDER)?;
    // What comes once is there before anything is counted.
    ground.must_add("first")?;
    ground.del("first")?;
    let kinds = [("ADD", Then::Del), ("ADD", Then::Nothing), ("DEL", Then::Del), ("DEL", Then::Nothing)];
    let mut losses = Vec::new();
    let (mut with_del, mut without) = (Toll::default(), Toll::default());
    for (number, (command, then)) in kinds.into_iter().enumerate() {
        let toll = sweep(ground, command, then, (number, size(form), seed))?;
        let after = match (command, then) {
            ("ADD", Then::Del) => "killed in ADD, the runtime's DEL follows",
            ("ADD", Then::Nothing) => "killed in ADD, no DEL follows",
            (_, Then::Del) => "killed in DEL, DEL is repeated",
            (_, Then::Nothing) => "killed in DEL, DEL is not repeated",
        };
        losses.push(Loss::new(format!("{after}: addresses that stay taken"), toll.addresses, toll.deaths));
        if then == Then::Del { &mut with_del } else { &mut without }.include(&toll);
    }
    losses.push(Loss::new("after these with a DEL: firewall rules left", with_del.rules, with_del.deaths));
    losses.push(Loss::new("after these without: firewall rules left", without.rules, without.deaths));
    let mut all = with_del;
    all.include(&without);
    losses.push(Loss::new("after all of these: links left", all.links, all.deaths));
    losses.push(Loss::new(
        "the next ADD after each: refused, or given an address that is in use",
        all.next,
        all.deaths,
    ));
    Ok(losses)
}

fn sweep(ground: &mut Ground, command: &str, then: Then, (sweep, deaths, seed): (usize, usize, u32)) -> Result<Toll> {
    let points = points(ground, command, &format!("count-{sweep}"))?;
    let mut toll = Toll::default();
    for (number, point) in spread(&points, deaths, seed).enumerate() {
        let when = if number % 2 == 0 { When::After } else { When::Before };
        let id = format!("dies-{sweep}-{number}");
        let before = ground.taken()?;
        if !dies(ground, command, &id, &Plan::kill(point, when))? {
            ground.del(&id)?;
            ground.end(&id)?;
            continue;
        }
        if then == Then::Del {
            ground.del(&id)?;
        }
        ground.end(&id)?;
        let left = ground.taken_since(&before)?;
        toll.count(&left);
        toll.next(ground, &format!("next-{sweep}-{number}"))?;
        ground.sweep(&left)?;
    }
    Ok(toll)
}

/// Where a call can be killed: at each of its system calls, its children's included.
fn points(ground: &mut Ground, command: &str, id: &str) -> Result<Vec<Point>> {
    ground.lab.container(id)?;
    if command != "ADD" {
        ground.must_add(id)?;
    }
    let outcome = fault::run(&ground.call(command, id)?, ground.node()?, &Plan::count())?;
    let points = outcome.calls.iter().map(|call| Point { process: call.process, nth: call.number }).collect();
    ground.del(id)?;
    ground.end(id)?;
    Ok(points)
}

/// So many of them, as far apart as may be; the seed moves them all.
fn spread(points: &[Point], count: usize, seed: u32) -> impl Iterator<Item = Point> {
    let (all, count) = (points.len(), count.min(points.len()));
    let shift = usize::try_from(seed).unwrap_or_default() % (all / count.max(1)).max(1);
    (0..count).filter_map(move |number| points.get(number * all / count + shift)).copied()
}

/// Whether the call was killed, or failed because a process of it was.
fn dies(ground: &mut Ground, command: &str, id: &str, plan: &Plan) -> Result<bool> {
    ground.lab.container(id)?;
    if command != "ADD" && ground.add(id)?.is_err() {
        return Ok(false);
    }
    let call = ground.call(command, id)?;
    let outcome = fault::run(&call, ground.node()?, plan)?;
    let done = matches!(call.read(&outcome.finished), Ok(Answer::Done(_)));
    Ok(outcome.struck.is_some() && !done)
}

impl Toll {
    fn count(&mut self, left: &Taken) {
        self.deaths += 1;
        self.addresses += left.addresses.len();
        self.links += usize::from(!left.links.is_empty());
        self.rules += usize::from(!left.rules.is_empty());
    }

    fn include(&mut self, other: &Self) {
        self.deaths += other.deaths;
        self.addresses += other.addresses;
        self.links += other.links;
        self.rules += other.rules;
        self.next += other.next;
    }

    /// Life goes on: the next container gets an address that nobody has.
    fn next(&mut self, ground: &mut Ground, id: &str) -> Result<()> {
        let in_use = ground.in_use()?;
        let address = ground.add(id)?;
        self.next += usize::from(address.map_or(true, |address| in_use.contains(&address)));
        ground.del(id)?;
        ground.end(id)
    }
}

#[cfg(test)]
mod tests {
    use super::spread;
    use crate::fault::Point;

    #[test]
    fn deaths_are_spread_over_all_system_calls() {
        let points: Vec<Point> = (1..=100).map(|nth| Point { process: 0, nth }).collect();
        let chosen = |count, seed| spread(&points, count, seed).map(|point| point.nth).collect::<Vec<_>>();
        assert_eq!(chosen(4, 0), [1, 26, 51, 76]);
        assert_eq!(chosen(4, 26), [2, 27, 52, 77]);
        assert_eq!(chosen(500, 9).len(), 100);
        assert!(spread(&[], 4, 1).next().is_none());
    }
}
