//! Bridges and containers alone, for `flatnet status`: the same look and the same words as doctor's lines.

use super::bridge::{self, Standing};
use super::finding::{BRIDGE, Finding, State};
use super::networks;
use crate::call;
use crate::config::Network;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::reach::Report;

/// A network that a file describes, its bridge, and what packets have shown of its containers.
pub(in crate::cli) struct Seen {
    pub(in crate::cli) network: Network,
    pub(in crate::cli) bridge: Bridge,
    pub(in crate::cli) report: Report,
}

/// What doctor's line says of it.
pub(in crate::cli) struct Bridge {
    pub(in crate::cli) is_bad: bool,
    pub(in crate::cli) found: String,
    pub(in crate::cli) remedy: Option<String>,
}

/// All networks, or the one of the name `only`, in the order of their names.
pub(in crate::cli) fn look(only: Option<&str>) -> Vec<Seen> {
    networks::described(only).into_iter().map(of_network).collect()
}

fn of_network(network: Network) -> Seen {
    let standing: Result<Standing> = call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        bridge::check(&host, &network, None).await
    }));
    let (line, report) = match standing {
        Ok(standing) => (standing.findings.into_iter().find(|line| line.id == BRIDGE.id), standing.report),
        Err(error) => {
            let untried = Some(format!("looking at this host failed: {error}"));
            (Some(BRIDGE.failed(&error)), Report { untried, ..Report::default() })
        }
    };
    let Finding { state, found, remedy, .. } = line.unwrap_or_else(|| BRIDGE.skipped("it was not looked at"));
    Seen { bridge: Bridge { is_bad: state == State::Bad, found, remedy }, network, report }
}
