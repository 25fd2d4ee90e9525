//! Whether containers are reached, for `/health`: the same trial as doctor's, remembered for a moment.
//!
//! However often it is asked for, a network is tried once in a while only, and by one at a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;

use crate::call::within_deadline;
use crate::config::Network;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::reach;

/// How long an answer counts. What it costs to find grows with the containers: so does this, so that it is a small part of a processor.
const AGE: Duration = Duration::from_secs(2);
const AGE_FACTOR: u32 = 5;

/// What is known, by the network's name.
#[derive(Default)]
pub(super) struct Reached(Mutex<BTreeMap<String, Known>>);

struct Known {
    outcome: Outcome,
    until: Instant,
}

/// What trying the containers of a network came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    /// Which containers are not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// How many addresses were tried this time, where there are too many to try all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled: Option<usize>,
    /// Why no packet was sent, or not to all.
    #[serde(skip_serializing_if = "Option::is_none")]
    untried: Option<String>,
}

impl Outcome {
    /// Nothing was tried: this is known already.
    pub(super) fn of_problem(problem: String) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }
}

impl Reached {
    /// Which containers are not reached.
    pub(super) async fn of(&self, network: &Network) -> Outcome {
        let mut known = self.0.lock().await;
        if let Some(known) = known.get(&network.name).filter(|it| Instant::now() < it.until) {
            return known.outcome.clone();
        }
        let start = Instant::now();
        let outcome =
            within_deadline(look(network)).await.unwrap_or_else(|error| Outcome::of_problem(error.to_string()));
        // A look that finds something mostly waits.
        let age = if outcome.problem.is_none() { start.elapsed() * AGE_FACTOR } else { AGE };
        let until = Instant::now() + age.clamp(AGE, AGE * AGE_FACTOR);
        known.insert(network.name.clone(), Known { outcome: outcome.clone(), until });
        outcome
    }
}

async fn look(network: &Network) -> Result<Outcome> {
    let host = Netlink::open()?;
    let links = host.links().await?;
    let report = reach::look(&host, network, &links, None, |_| true).await?;
    Ok(Outcome { problem: report.problem(), sampled: report.sampled, untried: report.untried })
}
