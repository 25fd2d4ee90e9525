//! What this host can tell of itself: the names of its containers, and whether they can be reached.
//!
//! Never out of date: what is remembered holds only as long as the kernel has announced no change, which is looked up before
//! each answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use serde::Serialize;
use tokio::sync::Mutex;

use super::reached::{Outcome, Reached};
use super::visitor::Visitor;
use crate::call::within_deadline;
use crate::cli::names::{Entry, Names};
use crate::config::Network;
use crate::error::Result;
use crate::ipam::lease;
use crate::link::{bridge, forwarding};
use crate::netlink::{Announced, Changes, Link, Netlink};

/// This host.
pub(super) struct Node {
    changes: Changes,
    known: Mutex<Known>,
    /// The last one, and when it was begun.
    health: Mutex<Option<(Instant, Rc<Health>)>>,
    networks: RefCell<Rc<Vec<Kept>>>,
    reached: Reached,
}

/// What is remembered: both go when something is announced that cannot be followed.
#[derive(Default)]
struct Known {
    /// Those that have leases, by their indices; nothing where they have to be listed.
    links: Option<BTreeMap<u32, Link>>,
    /// Theirs.
    names: Option<Rc<Names>>,
}

/// A network whose bridge this process looks after.
pub(super) struct Kept {
    pub(super) network: Network,
    /// Why its bridge could not be brought into order.
    pub(super) problem: Option<String>,
}

/// Whether containers can be reached, for scripts and for whoever is looking for a fault.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    version: &'static str,
    healthy: bool,
    /// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`, as far as a network needs them.
    forwarding: bool,
    networks: Vec<NetworkHealth>,
}

#[derive(Debug, Serialize)]
struct NetworkHealth {
    name: String,
    bridge: String,
    /// The bridge's addresses, IPv4 first.
    gateways: Vec<IpAddr>,
    /// The first of them: scripts of before there could be several read it.
    gateway: Option<IpAddr>,
    /// How many containers have an address in it.
    containers: usize,
    #[serde(flatten)]
    reached: Outcome,
}

impl Node {
    /// The host whose network namespace the calling thread is in. It keeps no networks yet.
    pub(super) fn new() -> Result<Self> {
        let changes = Changes::of_links()?;
        Ok(Self {
            changes,
            known: Mutex::default(),
            health: Mutex::default(),
            networks: RefCell::default(),
            reached: Reached::default(),
        })
    }

    /// The networks that are kept from now on.
    pub(super) fn keep(&self, networks: Vec<Kept>) {
        self.networks.replace(Rc::new(networks));
    }

    /// Who is at `peer` and came to this host's address `own`; without that, who a proxy says is at `peer`.
    pub(super) fn visitor(&self, peer: SocketAddr, own: Option<SocketAddr>) -> Visitor {
        Visitor::of(peer, own, self.networks.borrow().iter().map(|kept| &kept.network))
    }

    /// The names as they are now.
    pub(super) async fn names(&self) -> Result<Rc<Names>> {
        // Whoever waits here looks at the announcements after the one before has listed the links: a change meanwhile counts.
        let mut known = self.known.lock().await;
        known.hear(&self.changes);
        if known.links.is_none() {
            let links = within_deadline(async {
                let host = Netlink::open()?;
                host.links().await
            });
            known.links = Some(links.await?.into_iter().filter(has_lease).map(|link| (link.index, link)).collect());
        }
        Ok(known.names())
    }

    /// What the kernel says now of all that a packet to a container needs. Those who ask while others wait for it share the next look.
    pub(super) async fn health(&self) -> Result<Rc<Health>> {
        let asked = Instant::now();
        let mut last = self.health.lock().await;
        if let Some((began, health)) = &*last
            && *began >= asked
        {
            return Ok(Rc::clone(health));
        }
        let began = Instant::now();
        let health = Rc::new(self.look().await?);
        *last = Some((began, Rc::clone(&health)));
        Ok(health)
    }

    async fn look(&self) -> Result<Health> {
        let names = self.names().await?;
        let kept = Rc::clone(&self.networks.borrow());
        let mut networks = Vec::new();
        for Kept { network, problem } in kept.iter() {
            let reached = match problem {
                Some(problem) => Outcome::of_problem(problem.clone()),
                None => match within_deadline(bridge_problem(network)).await {
                    Ok(None) => self.reached.of(network).await,
                    Ok(Some(problem)) => Outcome::of_problem(problem),
                    Err(error) => Outcome::of_problem(error.to_string()),
                },
            };
            let own = |entry: &&Entry| entry.network.as_ref() == Some(&network.name);
            // One with an address of each family is there twice.
            let containers: BTreeSet<_> = names
                .entries()
                .iter()
                .filter(own)
                .map(|entry| entry.container.as_ref().unwrap_or(&entry.name))
                .collect();
            let gateways: Vec<_> = network.gateway_networks().iter().map(IpNetwork::ip).collect();
            networks.push(NetworkHealth {
                name: network.name.clone(),
                bridge: network.bridge.clone(),
                gateway: gateways.first().copied(),
                gateways,
                containers: containers.len(),
                reached,
            });
        }
        let mut forwarding = true;
        for Kept { network, .. } in kept.iter() {
            forwarding &= forwarding::problem(network)?.is_none();
        }
        let healthy = forwarding && networks.iter().all(|network| network.reached.problem.is_none());
        Ok(Health { version: env!("CARGO_PKG_VERSION"), healthy, forwarding, networks })
    }
}

impl Known {
    /// Follows what has been announced. A link that changes in other ways, as often as it likes, costs no list.
    fn hear(&mut self, changes: &Changes) {
        while let Some(announced) = changes.take_link() {
            let Some(links) = &mut self.links else { continue };
            let is_news = match announced {
                Announced::Unknown => {
                    self.links = None;
                    true
                }
                Announced::Gone(index) => links.remove(&index).is_some(),
                Announced::Link(link) if has_lease(&link) => {
                    let said = |link: &Link| (link.alias.clone(), link.names.clone());
                    let new = said(&link);
                    links.insert(link.index, *link).is_none_or(|old| said(&old) != new)
                }
                Announced::Link(link) => links.remove(&link.index).is_some(),
            };
            if is_news {
                self.names = None;
            }
        }
    }

    fn names(&mut self) -> Rc<Names> {
        let links = self.links.iter().flatten().map(|(_, link)| link);
        Rc::clone(self.names.get_or_insert_with(|| Rc::new(Names::of(links))))
    }
}

fn has_lease(link: &Link) -> bool {
    lease::leases(link).next().is_some()
}

impl Health {
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }
}

async fn bridge_problem(network: &Network) -> Result<Option<String>> {
    let host = Netlink::open()?;
    match bridge::find(&host, &network.bridge).await? {
        Some(found) => bridge::problem(&host, network, &found).await,
        None => Ok(Some(format!("there is no bridge {}", network.bridge))),
    }
}
