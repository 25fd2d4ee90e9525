//! Many calls at once, as a runtime makes them: never two for one container, and no GC, which the reference does not know.

use anyhow::Result;

use super::Loss;
use super::ground::Ground;
use crate::storm::{Fault, Kind, Plan, Shape, Storm, Tally};
use crate::torture::Form;

/// How many storms there are, and how big each is.
fn size(form: Form) -> (u64, Shape) {
    let mix = [Kind::Add, Kind::Del, Kind::Check].into();
    match form {
        Form::Short => (1, Shape { containers: 32, rounds: 3, mix, overlap: false }),
        Form::Long => (8, Shape { containers: 64, rounds: 8, mix, overlap: false }),
    }
}

/// Lets all storms blow over, and counts what was wrong after each round.
pub(super) fn run(ground: &mut Ground, form: Form, seed: u32) -> Result<Vec<Loss>> {
    let (storms, shape) = size(form);
    let mut tallies = Vec::new();
    for number in 0..storms {
        let plan = Plan::new(&shape, u64::from(seed) + number);
        let network = ground.contender.network.clone();
        let node = ground.node()?.clone();
        let mut storm = Storm::new(&ground.contender.plugins, network, &node, &format!("storm{number}"))?;
        tallies.push(storm.run(&mut ground.lab, &plan)?);
    }
    let found = |harm: &[Fault]| -> usize {
        tallies.iter().flat_map(|tally| &tally.findings).filter(|(_, finding)| harm.contains(&finding.fault)).count()
    };
    let calls = tallies.iter().map(Tally::total).sum();
    let adds = tallies.iter().filter_map(|tally| tally.calls.get(&Kind::Add)).sum();
    let all = tallies.iter().map(|tally| tally.findings.len()).sum::<usize>();
    let (twice, left) = (found(&[Fault::Duplicate]), found(&[Fault::Leak]));
    Ok(vec![
        Loss::new("a storm of calls: addresses given twice", twice, adds),
        Loss::new("a storm of calls: addresses or links left", left, adds),
        Loss::new("a storm of calls: calls that went wrong", all - twice - left, calls),
    ])
}
