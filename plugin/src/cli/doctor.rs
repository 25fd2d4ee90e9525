//! `flatnet doctor`: every condition that reachability needs, each with what was found, what is needed and how to fix it.
//!
//! It changes nothing, looks at everything on each run, and ends in time whatever hangs. Exit code 1 where a line is red.

mod bridge;
mod cache;
mod containers;
mod finding;
mod firewall;
mod forwarding;
mod http;
mod ipv6;
mod kernel;
mod masquerade;
mod names;
mod networks;
mod plugin;
mod podman;
mod ports;
pub(super) mod reached;
mod report;
mod server;
mod spoofing;
mod wsl;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;

use self::finding::{Finding, State};
use self::firewall::Firewall;
use self::ipv6::Routers;
use self::networks::Networks;
use self::podman::Podman;
use self::report::Extent;
use self::server::Gateway;
use self::wsl::Networking;
use super::podman::Backend;
use super::probe::{self, Host};
use super::table::Table;
use super::terminal::{self, Progress};
use crate::call;
use crate::config::Network;
use crate::error::Result;
use crate::netlink::{Link, Netlink};

/// Say what keeps containers from being reached, and how to fix it
///
/// Looks at everything that reachability needs: kernel, Podman, files, forwarding, firewall, bridge, containers, name service,
/// WSL, gateway. It tries each container with a packet, and changes nothing. What is bad comes first; what is well is a number, unless
/// --all is given. With a container's name, id or address it tries that one only. Exit code 0: nothing is bad; 1: something is; 2: the arguments are wrong, or there is no such container.
#[derive(Args)]
#[command(after_long_help = checks())]
pub(super) struct Arguments {
    /// Try this container only, by its name, id or address
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
    /// Show every line in the order of the checks, what is well included
    #[arg(short, long)]
    all: bool,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// Ask this gateway whether it reaches this host, such as 172.30.0.1, `gateway.lan:8080` or `[fd30::1]:8080`; on WSL the default is Windows
    #[arg(long, value_name = "URL|ADDRESS")]
    gateway: Option<Gateway>,
    /// Look at this network only
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// For the help and the manual page: every check and what it needs.
fn checks() -> String {
    let mut table = Table::list();
    for check in finding::ALL {
        table.row([format!("  {}", check.id), check.needed.to_owned()]);
    }
    format!("What is looked at, and how it should be:\n{}", table.text(None).trim_end())
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let findings = match &arguments.container {
        None => examine(arguments),
        Some(asked) => one(arguments, asked)?,
    };
    if let (true, Some(asked)) = (findings.is_empty(), &arguments.container) {
        eprintln!("flatnet: no container has the name, id or address {asked} (`flatnet ls` lists them)");
        return Ok(ExitCode::from(2));
    }
    // Of one container, each line is what was asked for.
    let is_whole = arguments.all || arguments.container.is_some();
    let extent = if is_whole { Extent::All } else { Extent::WhatMatters };
    let text =
        if arguments.json { report::json(&findings) } else { report::text(&findings, extent, terminal::line_width()) };
    out.write_all(text.as_bytes()).context("failed to write the findings")?;
    let bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One container, on any network that files describe.
fn one(arguments: &Arguments, asked: &str) -> Result<Vec<Finding>> {
    let networks = networks::described(arguments.network.as_deref());
    containers::one(asked, &networks, arguments.gateway.as_ref().and_then(Gateway::address))
}

/// What [`examine`] looks at, as people wait for it.
const PARTS: usize = 6;

/// Everything, in the order of [`finding::ALL`]. What waits for programs or servers waits beside the rest.
fn examine(arguments: &Arguments) -> Vec<Finding> {
    let only = arguments.network.as_deref();
    let host = &Host::look();
    let progress = &Progress::start(PARTS);
    let (podman, firewall, kernel, networking) = thread::scope(|scope| {
        let podman = scope.spawn(|| progress.part("Podman", || Podman::look(host)));
        let firewall = scope.spawn(|| progress.part("the firewall", || Firewall::look(host)));
        let kernel = scope.spawn(|| progress.part("the kernel", || kernel::check(host)));
        let networking = progress.part("WSL", || wsl::networking(host));
        (done(podman), done(firewall), done(kernel), networking)
    });
    let (backend, networks) = choose(&podman, only);
    let folders = podman.settings.plugin_folders(backend);
    let kernel_says = Snapshot::take(arguments.gateway.as_ref().and_then(Gateway::address));
    let wanted = || {
        arguments.gateway.clone().or_else(|| kernel_says.windows(networking).map(|it| Gateway::from(IpAddr::from(it))))
    };
    let mut findings = kernel;
    let (kernel_says, firewall, networks) = (&kernel_says, &firewall, &networks);
    let is_asked = arguments.gateway.is_some();
    let (files, state, gateway) = thread::scope(|scope| {
        let gateway = scope.spawn(|| progress.part("the gateway", || server::gateway(wanted().as_ref(), is_asked)));
        let asked = arguments.gateway.as_ref().and_then(Gateway::address);
        let look = move || kernel_says.check(host, firewall, networks, (networking, asked));
        let state = scope.spawn(move || progress.part("the containers", look));
        let mut files = podman.check(backend);
        files.push(cache::check(backend));
        files.push(containers::leases(host));
        files.extend(plugin::check(backend, &folders, &networks.ours));
        files.extend(networks.check(only));
        files.push(wsl::check(networking));
        (files, done(state), done(gateway))
    });
    findings.extend(files);
    findings.extend(state);
    findings.push(gateway);
    let place = |finding: &Finding| finding::ALL.iter().position(|check| check.id == finding.id);
    findings.sort_by_key(place);
    if !probe::has_systemd() {
        findings = findings.into_iter().map(Finding::without_systemd).collect();
    }
    findings
}

/// A panic is a bug: it goes on to whoever started doctor.
fn done<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Podman 5 has netavark only; with Podman 4 a network of netavark's counts where Podman is set to it.
fn choose(podman: &Podman, only: Option<&str>) -> (Backend, Networks) {
    let folder = podman.settings.network_folder();
    let cni = || (Backend::Cni, Networks::read(Backend::Cni, folder.clone(), only));
    let netavark = || (Backend::Netavark, Networks::read(Backend::Netavark, folder.clone(), only));
    match (podman.major, podman.backend.as_deref()) {
        (Some(5..), _) => netavark(),
        (None, _) | (_, Some("netavark")) if cni().1.is_empty() && !netavark().1.is_empty() => netavark(),
        _ => cni(),
    }
}

/// The host's links, addresses and routes at one moment, as far as the kernel would tell.
struct Snapshot(Result<Known>);

struct Known {
    links: Vec<Link>,
    /// The default route's next hop.
    next_hop: Option<Ipv4Addr>,
    /// The link towards the gateway, and its addresses.
    uplink: Option<String>,
    own: Vec<Ipv4Addr>,
    routers: Routers,
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

impl Snapshot {
    /// The gateway is behind the default route, unless it is said where it is.
    fn take(gateway: Option<IpAddr>) -> Self {
        Self(call::block_on(call::within_deadline(async {
            let host = Netlink::open()?;
            let links = host.links().await?;
            let routes = host.routes().await?;
            // IPv4's is the first, where there are both.
            let default = routes.iter().find(|route| route.is_default());
            let way = match gateway {
                // One that nothing leads to is the gateway's own line.
                Some(gateway) => host.way_to(gateway).await.ok(),
                None => None,
            };
            let index = way.as_ref().or(default).and_then(|route| route.link);
            let addresses = host.all_addresses().await?;
            let of_uplink = || addresses.iter().filter(|(of, _)| Some(*of) == index).map(|(_, address)| address.ip());
            let has_way = routes.iter().any(|route| route.is_default() && route.destination.is_ipv6());
            let learnt = host.links_with_routers().await?;
            let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
            let uplink = index.and_then(name);
            Ok(Known {
                next_hop: default.and_then(|route| ipv4(route.gateway?)),
                own: of_uplink().filter_map(ipv4).collect(),
                routers: Routers {
                    heard_on: learnt.into_iter().filter_map(name).collect(),
                    lost_on: uplink.clone().filter(|_| !has_way && of_uplink().any(|address| address.is_ipv6())),
                },
                uplink,
                links,
            })
        })))
    }

    /// On WSL, Windows is the next hop, and the gateway unless another one is said.
    fn windows(&self, networking: Option<Networking>) -> Option<Ipv4Addr> {
        let known = self.0.as_ref().ok()?;
        known.next_hop.filter(|_| networking == Some(Networking::Nat))
    }

    fn check(
        &self,
        host: &Host,
        firewall: &Firewall,
        networks: &Networks,
        (networking, gateway): (Option<Networking>, Option<IpAddr>),
    ) -> Vec<Finding> {
        let known = match &self.0 {
            Ok(known) => known,
            Err(error) => return KERNEL_LINES.iter().map(|check| check.failed(error)).collect(),
        };
        let valid: Vec<_> = networks.ours.iter().filter_map(|it| it.network.as_ref()).collect();
        let untold: Vec<_> = networks.ours.iter().filter_map(|it| it.untold.clone()).collect();
        if valid.is_empty() {
            let is_open = |check: &&finding::Check| check.id != finding::BRIDGE.id || untold.is_empty();
            let skipped = KERNEL_LINES.iter().filter(is_open).map(|check| check.skipped(networks.why_unknown()));
            return skipped.chain(untold.clone()).collect();
        }
        let is_way = |link: &Link, network: &Network| {
            link.name == network.gateway_link() && matches!(link.kind.as_deref(), Some("bridge" | "vlan"))
        };
        let is_there = |network: &&&Network| known.links.iter().any(|link| is_way(link, network));
        let ways_of = |has: fn(&Network) -> bool| -> Vec<_> {
            let there = valid.iter().filter(is_there).filter(|network| has(network));
            there.map(|network| network.gateway_link().to_owned()).collect()
        };
        let mut ways = ways_of(Network::has_ipv4);
        let mut findings = Vec::new();
        findings.push(if valid.iter().any(|network| network.has_ipv4()) {
            forwarding::ipv4(!ways.is_empty())
        } else {
            finding::IP_FORWARD.skipped("no network has IPv4")
        });
        if valid.iter().any(|network| network.has_ipv6()) {
            findings.extend(ipv6::check(&ways_of(Network::has_ipv6), &known.routers));
        }
        ways.extend(known.uplink.clone());
        findings.push(forwarding::reverse_path(&ways, forwarding::is_shared(&known.links)));
        findings.push(ports::check(host, &known.links));
        findings.push(names::check(&known.links));
        findings.extend(untold);
        for configured in &networks.ours {
            let Some(network) = &configured.network else { continue };
            let lines = of_network(host, known, firewall, network, (networking, gateway)).into_iter();
            findings.extend(lines.map(|line| match &configured.delegate {
                Some(plugin) if line.id == finding::POOL.id => {
                    finding::POOL.skipped(format!("{plugin} gives the addresses")).of(&network.name)
                }
                _ => line,
            }));
        }
        findings
    }
}

/// The lines that hang on the kernel and a network.
const KERNEL_LINES: [finding::Check; 14] = [
    finding::IP_FORWARD,
    finding::FIREWALL,
    finding::MASQUERADE,
    finding::SPOOFING,
    finding::BRIDGE_NETFILTER,
    finding::REVERSE_PATH,
    finding::BRIDGE,
    finding::SUBNET,
    finding::ATTACHMENTS,
    finding::PORTS,
    finding::NAMES,
    finding::POOL,
    finding::NAME_SERVICE,
    finding::WINDOWS_ROUTE,
];

fn of_network(
    host: &Host,
    known: &Known,
    firewall: &Firewall,
    network: &Network,
    (networking, gateway): (Option<Networking>, Option<IpAddr>),
) -> Vec<Finding> {
    let standing = call::block_on(call::within_deadline(async {
        let netlink = Netlink::open()?;
        bridge::check(&netlink, network, gateway).await
    }));
    let mut findings = firewall.check(host, known.uplink.as_deref(), network);
    let has_bridge = standing.as_ref().is_ok_and(|standing| standing.exists);
    findings.push(masquerade::check(host, network, has_bridge));
    findings.push(spoofing::check(host, network));
    findings.push(wsl::route(networking, network, &known.own));
    let name_service = match &standing {
        Ok(bridge::Standing { sound: true, exists: true, .. }) => server::name_service(&network.gateway_networks()),
        Ok(bridge::Standing { exists: false, .. }) => finding::NAME_SERVICE.skipped("there is no bridge"),
        _ => finding::NAME_SERVICE.skipped("depends on `bridge` above"),
    };
    findings.push(name_service);
    match standing {
        Ok(standing) => findings.extend(standing.findings),
        Err(error) => findings.push(finding::BRIDGE.failed(&error)),
    }
    findings.into_iter().map(|finding| finding.of(&network.name)).collect()
}
