//! `flatnet gateway`: keeps the networks' bridges and their rules in place, and tells gateways who has which name.
//!
//! It remembers nothing that the kernel or the configuration files do not say: it may be started, stopped and killed at any time.

mod answers;
mod barred;
mod door;
pub(super) mod networks;
mod node;
mod reached;
mod service;
mod shares;
mod visitor;
mod watch;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use futures_util::future::{Either, select};
use ipnetwork::IpNetwork;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use self::door::Door;
use self::networks::Configured;
use self::node::{Kept, Node};
use self::watch::Watch;
use crate::call::within_deadline;
use crate::config::{Draft, Network};
use crate::error::{self, both};
use crate::family::IpFamily;
use crate::firewall::{forward, localnet, masquerade, ports, spoofing};
use crate::layout::{CNI_NETWORKS, NAME_SERVICE_PORT, NETAVARK_NETWORKS};
use crate::link::bridge::{self, Bridge};
use crate::link::forwarding;
use crate::netlink::{Link, Netlink};

/// One ADD makes about ten changes within a few milliseconds: they are looked at together.
const CHANGES_SETTLE: Duration = Duration::from_millis(20);
/// The most to wait for that, where changes do not end: another service, or a firewall, may want other rules than this one, and each
/// would wake the other for ever.
const CHANGES_SETTLE_MAX: Duration = Duration::from_secs(1);
/// What nobody announces, such as a port that has become free, is found after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Keep the bridges in place and tell gateways, over HTTP, which container has which name
#[derive(Args)]
#[command(after_help = AFTER)]
pub(super) struct Arguments {
    /// Listen here too, and not only on the addresses of each bridge
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
}

const AFTER: &str = "\
It runs in the foreground until SIGTERM or SIGINT, for systemd or for the boot command of
/etc/wsl.conf. On port 8053 of each bridge's addresses it serves:
  /names    all names, as JSON: for this host and the networks' `gateways`
  /health   whether containers can be reached, as JSON; 503 if not. What is wrong: for the same
  /resolve  where the container is that the header X-Flatnet-Host names: for gateways";

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the event loop")?;
    LocalSet::new().block_on(&runtime, async {
        let mut end = pin!(service::asked_to_end()?);
        let mut watch = Watch::open()?;
        let mut gateway = Gateway::new()?;
        gateway.put_in_order(&mut watch).await;
        gateway.listen(&arguments.listen).await?;
        service::say(out, &gateway.describe());
        service::tell_systemd_ready();
        let mut settle = CHANGES_SETTLE;
        loop {
            let quiet = Instant::now();
            let change = match select(end.as_mut(), pin!(timeout(LOOK_AGAIN, watch.change()))).await {
                Either::Left((ended, _)) => return ended,
                Either::Right((change, _)) => change,
            };
            match change {
                Ok(Err(error)) => return Err(error.into()),
                Ok(Ok(())) => {
                    let calm = quiet.elapsed() > CHANGES_SETTLE;
                    settle = if calm { CHANGES_SETTLE } else { CHANGES_SETTLE_MAX.min(settle * 2) };
                    sleep(settle).await;
                }
                Err(_elapsed) => {}
            }
            gateway.put_in_order(&mut watch).await;
            if gateway.listen_at_bridges().await {
                service::say(out, &gateway.describe());
            }
        }
    })
}

/// The running service.
struct Gateway {
    node: Rc<Node>,
    door: Rc<Door>,
    /// Those whose bridge is in order, by name, and where to listen for them: once for each of its addresses.
    networks: Vec<(String, SocketAddr)>,
    /// Those without a bridge yet, and who gives their addresses.
    waiting: Vec<(String, String)>,
    listening: BTreeSet<SocketAddr>,
    /// What is wrong and has been said; each problem is said once.
    told: BTreeSet<String>,
    /// What has been found wrong in this round.
    found: BTreeSet<String>,
    /// The families whose forwarding a network has needed, and has been given.
    forwarded: BTreeSet<IpFamily>,
}

impl Gateway {
    fn new() -> Result<Self> {
        let node = Rc::new(Node::new()?);
        let door = Rc::new(Door::new(Rc::clone(&node)));
        let (networks, waiting, listening) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (told, found) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { node, door, networks, waiting, listening, told, found, forwarded: BTreeSet::new() })
    }

    /// Packets to containers end here without it. Only once: whoever switches it off later shall find it in the health.
    async fn forward_for(&mut self, network: &Network) {
        let needed = |family: &IpFamily| network.options.is_gateway && network.has(*family);
        let needed: BTreeSet<_> = IpFamily::BOTH.into_iter().filter(needed).collect();
        if needed.is_subset(&self.forwarded) {
            return;
        }
        match within_deadline(forward_for(network)).await {
            Ok(()) => self.forwarded.extend(needed),
            Err(error) => _ = self.found.insert(words(&error)),
        }
    }

    /// Makes and mends the bridge of each network that is configured now, and its rules.
    async fn put_in_order(&mut self, watch: &mut Watch) {
        let Configured { mut networks, delegated, with_portmap, problems } =
            Configured::read(Path::new(CNI_NETWORKS), Path::new(NETAVARK_NETWORKS));
        self.found.extend(problems);
        self.networks.clear();
        self.waiting.clear();
        // What its containers may say, their links tell.
        let guards =
            networks.iter().any(|network| network.macspoofchk) || delegated.iter().any(|(draft, _)| draft.macspoofchk);
        // The bridge of another will never tell what the addresses are.
        for (draft, plugin) in delegated.into_iter().filter(|(draft, _)| draft.options.is_gateway) {
            let name = draft.name.clone();
            match within_deadline(settled(draft)).await {
                Ok(Some(network)) => networks.push(network),
                Ok(None) => self.waiting.push((name, plugin)),
                Err(error) => drop(self.found.insert(words(&error))),
            }
        }
        let masquerades = networks.iter().any(|network| network.masquerade);
        let subnets_of = |network: &Network| (network.gateway_link().to_owned(), network.pools.subnets());
        let ruled: Vec<_> = networks.iter().filter(|network| network.masquerade).map(subnets_of).collect();
        let published = within_deadline(may_be_published()).await.unwrap_or(true);
        if masquerades || guards || published || with_portmap {
            // First: nothing that is written below can then be wiped unheard.
            watch.also_rules();
        }
        let mut kept = Vec::new();
        for network in networks {
            let mended = within_deadline(mend(&network)).await;
            match &mended {
                Err(error) => _ = self.found.insert(words(error)),
                Ok(bridge) => {
                    self.forward_for(&network).await;
                    let addresses = network.gateway_networks().into_iter();
                    let addresses = addresses.map(|gateway| SocketAddr::new(gateway.ip(), NAME_SERVICE_PORT));
                    self.networks.extend(addresses.map(|address| (network.name.clone(), address)));
                    // Containers are reached without.
                    if let Some(first) = rival(&kept, &network) {
                        self.found.insert(format!(
                            "masquerade as network {} has it: network {}, on the same bridge, has another ipMasq or other gateways (give both the same)",
                            network.name, first.name
                        ));
                    } else {
                        let beside = ruled.iter().filter(|(link, _)| link == network.gateway_link());
                        let beside: Vec<_> = beside.flat_map(|(_, subnets)| subnets).copied().collect();
                        let done = within_deadline(masquerade(&network, bridge.gateway(), &beside)).await;
                        self.found.extend(done.err().as_ref().map(words));
                    }
                    let opened = within_deadline(open(&network)).await;
                    self.found.extend(opened.unwrap_or_else(Some).as_ref().map(words));
                }
            }
            kept.push(Kept { network, problem: mended.err().map(|error| error.to_string()) });
        }
        if masquerades {
            self.found.extend(within_deadline(sweep()).await.err().as_ref().map(words));
        }
        if guards {
            self.found.extend(within_deadline(guard()).await.err().as_ref().map(words));
        }
        if published {
            self.found.extend(within_deadline(publish()).await.err().as_ref().map(words));
        }
        self.node.keep(kept);
    }

    /// Listens where it should from the start. Errors: an address that was asked for cannot be had, or no bridge's can, as when
    /// another `flatnet gateway` has them. A bridge that is not in order may be one day.
    async fn listen(&mut self, asked: &[SocketAddr]) -> Result<()> {
        for address in asked {
            self.listen_on(*address).await?;
        }
        self.listen_at_bridges().await;
        if self.listening.is_empty() && !self.networks.is_empty() {
            return Err(anyhow!("no network could be served; see the errors above"));
        }
        Ok(())
    }

    /// Listens on bridges' addresses that it does not listen on yet; says whether there were any. Closes the round: problems are told.
    async fn listen_at_bridges(&mut self) -> bool {
        let before = self.listening.len();
        let addresses: BTreeSet<_> = self.networks.iter().map(|(_, address)| *address).collect();
        for address in addresses {
            if let Err(problem) = self.listen_on(address).await {
                self.found.insert(format!("{problem:#}"));
            }
        }
        let found = std::mem::take(&mut self.found);
        for problem in found.difference(&self.told) {
            service::warn(problem);
        }
        self.told = found;
        self.listening.len() > before
    }

    async fn listen_on(&mut self, address: SocketAddr) -> Result<()> {
        // Who listens on all addresses of a family has this one, and the kernel gives it to nobody else; all of IPv6 are IPv4's, too.
        let covers = |other: &SocketAddr| {
            let all = other.ip().is_unspecified() && (other.is_ipv6() || address.is_ipv4());
            all && other.port() == address.port()
        };
        if self.listening.contains(&address) || self.listening.iter().any(covers) {
            return Ok(());
        }
        let failed = || format!("failed to listen on {address} (is `flatnet gateway` running already? see `ss -ltnp`)");
        let listener = TcpListener::bind(address).await.with_context(failed)?;
        spawn_local(Rc::clone(&self.door).serve(listener));
        self.listening.insert(address);
        Ok(())
    }

    /// In one line.
    fn describe(&self) -> String {
        let addresses: Vec<_> = self.listening.iter().map(|address| format!("http://{address}/")).collect();
        let mut names: Vec<_> = self.networks.iter().map(|(name, _)| name.as_str()).collect();
        // One with both families stands twice, one after the other.
        names.dedup();
        let wait = |(name, plugin): &(String, String)| {
            format!("{name} when its first container has made its bridge ({plugin} gives the addresses)")
        };
        let waiting: Vec<_> = self.waiting.iter().map(wait).collect();
        let names = match (names.as_slice(), waiting.as_slice()) {
            ([], []) => format!("no network yet ({CNI_NETWORKS} and {NETAVARK_NETWORKS} have none with a gateway)"),
            (names, []) => format!("containers' names on {}", names.join(", ")),
            ([], waiting) => format!("no network yet: {}", waiting.join(", ")),
            (names, waiting) => format!("containers' names on {}, and {}", names.join(", "), waiting.join(", ")),
        };
        match addresses.as_slice() {
            [] => format!("flatnet gateway: {names}"),
            addresses => format!("flatnet gateway: {names}, by {}", addresses.join(" ")),
        }
    }
}

/// A network whose addresses another plugin gives, once its bridge tells which.
async fn settled(draft: Draft) -> error::Result<Option<Network>> {
    let host = Netlink::open()?;
    bridge::from_bridge(&host, draft).await
}

/// The bridge, its address, and what has lost it.
async fn mend(network: &Network) -> error::Result<Bridge> {
    let host = Netlink::open()?;
    let bridge = bridge::ensure(&host, network, &mut None).await?;
    bridge::reattach_orphans(&host, network, &bridge.link).await?;
    Ok(bridge)
}

/// Forwarding of the network's families.
async fn forward_for(network: &Network) -> error::Result<()> {
    let host = Netlink::open()?;
    forwarding::enable(&host, network).await
}

/// The network whose rules the bridge has, where this one would have others: they would take turns at rewriting them.
fn rival<'a>(kept: &'a [Kept], network: &Network) -> Option<&'a Network> {
    if !masquerade::has_say(network) {
        return None;
    }
    let in_order = kept.iter().filter(|kept| kept.problem.is_none()).map(|kept| &kept.network);
    let mut ruling = in_order.filter(|other| masquerade::has_say(other));
    let first = ruling.find(|other| other.gateway_link() == network.gateway_link())?;
    let differ = (first.masquerade, &first.gateways) != (network.masquerade, &network.gateways);
    differ.then_some(first)
}

/// The rules that masquerade, as the network's configuration is now, and for the subnets `beside` those of others.
async fn masquerade(network: &Network, link: &Link, beside: &[IpNetwork]) -> error::Result<()> {
    let host = Netlink::open()?;
    masquerade::ensure(&host, network, link, beside).await
}

/// The rules for what containers may say of themselves.
async fn guard() -> error::Result<()> {
    let host = Netlink::open()?;
    spoofing::repair(&host).await
}

/// Whether containers have published ports.
async fn may_be_published() -> error::Result<bool> {
    let host = Netlink::open()?;
    ports::may_be_published(&host).await
}

/// The rules of published ports, as the containers' links say, and what keeps bridges closed that another plugin has opened for its own.
async fn publish() -> error::Result<()> {
    let host = Netlink::open()?;
    both(ports::repair(&host).await, localnet::ensure(&host).await)
}

/// The rules of networks whose bridge is gone; those in other firewalls' chains went when the way was opened.
async fn sweep() -> error::Result<()> {
    let host = Netlink::open()?;
    masquerade::sweep(&host).await
}

/// The way there through other firewalls, which a reload of theirs has closed. Gives what keeps it shut.
async fn open(network: &Network) -> error::Result<Option<error::Error>> {
    let host = Netlink::open()?;
    forward::open(&host, network).await
}

/// An error with what to do about it, in a line.
fn words(error: &error::Error) -> String {
    match error {
        // What was slow then is over when somebody reads of it.
        error::Error::Deadline { .. } => format!("{error} (at {}; {})", service::clock(), error.remedy()),
        error => format!("{error} ({})", error.remedy()),
    }
}
