//! Whether containers are reached, for `/health`: the same trial as doctor's, remembered for a moment.
//!
//! However often it is asked for, a network is tried once in a while only, and by one at a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::command::within_deadline;
use crate::config::Network;
use crate::error::{Doing, Result};
use crate::netlink::Netlink;
use crate::reach;

/// How long an answer counts. What it costs to find grows with the containers: so does this, so that it is a small part of a processor.
const AGE: Duration = Duration::from_secs(2);
const AGE_FACTOR: u32 = 5;

/// What is known, by the network's name.
#[derive(Default)]
pub(super) struct Reached(Mutex<BTreeMap<String, Known>>);

struct Known {
    problem: Option<String>,
    until: Instant,
}

impl Reached {
    /// Which containers are not reached.
    pub(super) async fn problem(&self, network: &Network) -> Option<String> {
        let mut known = self.0.lock().await;
        if let Some(known) = known.get(&network.name).filter(|it| Instant::now() < it.until) {
            return known.problem.clone();
        }
        let start = Instant::now();
        let problem = within_deadline(look(network)).await.unwrap_or_else(|error| Some(error.to_string()));
        // A look that finds something mostly waits.
        let age = if problem.is_none() { start.elapsed() * AGE_FACTOR } else { AGE };
        let until = Instant::now() + age.clamp(AGE, AGE * AGE_FACTOR);
        known.insert(network.name.clone(), Known { problem: problem.clone(), until });
        problem
    }
}

async fn look(network: &Network) -> Result<Option<String>> {
    let host = Netlink::open().doing(|| "open a netlink socket".into())?;
    let links = host.links().await.doing(|| "list the host's links".into())?;
    Ok(reach::look(&host, network, &links, None, |_| true).await?.problem())
}
