//! `flatnet status`: this host, its bridges and their containers as a tree, and of each container whether packets reach it.
//!
//! It knows nothing of its own: who has which address is what `flatnet ls` lists, and whether it is reached what `flatnet doctor` has tried.

mod tree;

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::doctor::reached::{self, Seen};
use super::ls::{self, Line};
use super::probe;
use super::terminal::{self, Progress};
use crate::reach::{Report, Shown};

/// Show the bridges and their containers as a tree, each container tried with packets
///
/// Each container has a mark: `reached` (it answers, by the way that a gateway's packets take), `blocked` (something is in the way; it is
/// named), `no answer` (nothing that this host knows of is in the way), or `not tried` (with the reason). Exit code 0: nothing is
/// bad; 1: a bridge is, a container is `blocked` or on no known network, or nobody answers ARP or neighbour discovery for an address;
/// 2: the arguments are wrong.
#[derive(Args)]
pub(super) struct Arguments {
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// Look at this network only
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let only = arguments.network.as_deref();
    let progress = Progress::start(1);
    let seen = progress.part("the containers", || reached::look(only));
    drop(progress);
    // Listed afterwards: who came meanwhile is there, and was not tried.
    let (lines, _) = ls::read()?;
    if let (Some(name), true) = (only, seen.is_empty()) {
        terminal::note(&format!(
            "flatnet: no valid network of type flatnet is called {name} (`flatnet doctor` says which there are)"
        ));
        return Ok(ExitCode::from(2));
    }
    let status = Status::of(probe::read_line("/proc/sys/kernel/hostname"), only, seen, lines);
    let text = if arguments.json {
        format!("{:#}\n", serde_json::json!(status))
    } else {
        tree::text(&status, terminal::line_width(), tree::Pen::of_locale())
    };
    out.write_all(text.as_bytes()).context("failed to write the tree")?;
    Ok(if status.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// This host.
#[derive(Debug, Serialize)]
struct Status {
    host: String,
    /// Nothing is bad.
    ok: bool,
    bridges: Vec<Bridge>,
    /// Containers of networks that no file describes.
    others: Vec<Container>,
}

/// A bridge, which several networks may share.
#[derive(Debug, Serialize)]
struct Bridge {
    name: String,
    ok: bool,
    /// For each of its networks, in doctor's words.
    found: Vec<String>,
    /// What repairs it, where it is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remedies: Vec<String>,
    networks: Vec<Network>,
    containers: Vec<Container>,
}

#[derive(Debug, Serialize)]
struct Network {
    name: String,
    subnets: Vec<IpNetwork>,
    gateways: Vec<IpAddr>,
}

/// One leased address.
#[derive(Debug, Serialize)]
struct Container {
    #[serde(flatten)]
    line: Line,
    reach: Reach,
    /// What is in the way, or why it was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reach {
    Reached,
    Blocked,
    NoAnswer,
    NotTried,
}

impl Reach {
    const ALL: [Self; 4] = [Self::Reached, Self::Blocked, Self::NoAnswer, Self::NotTried];

    fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Blocked => "blocked",
            Self::NoAnswer => "no answer",
            Self::NotTried => "not tried",
        }
    }
}

impl Status {
    /// With `only`, containers of which no file says anything do not matter: they are of other networks.
    fn of(host: String, only: Option<&str>, seen: Vec<Seen>, mut lines: Vec<Line>) -> Self {
        let mut status = Self { host, ok: true, bridges: Vec::new(), others: Vec::new() };
        for Seen { network, bridge, report } in seen {
            status.ok &= !bridge.is_bad && report.faults.is_empty();
            let subnets = network.pools.subnets();
            let is_its = |line: &Line| match &line.network {
                Some(name) => *name == network.name,
                None => subnets.iter().any(|subnet| subnet.contains(line.address)),
            };
            let (own, rest) = lines.into_iter().partition(is_its);
            lines = rest;
            let own: Vec<Line> = own;
            let place = status.place(&network.bridge);
            place.ok &= !bridge.is_bad;
            place.found.extend(Some(bridge.found).filter(|found| !place.found.contains(found)));
            place.remedies.extend(bridge.remedy.filter(|remedy| !place.remedies.contains(remedy)));
            place.containers.extend(own.into_iter().map(|line| container(line, &report)));
            let gateways = network.gateway_networks().iter().map(IpNetwork::ip).collect();
            place.networks.push(Network { name: network.name, subnets, gateways });
        }
        let unknown = |line| Container {
            line,
            reach: Reach::NotTried,
            found: Some("no valid file describes its network".into()),
            remedy: Some("run `flatnet doctor`".into()),
        };
        status.others = lines.into_iter().filter(|_| only.is_none()).map(unknown).collect();
        status.ok &= status.others.is_empty();
        status
    }

    /// The bridge of that name.
    fn place(&mut self, name: &str) -> &mut Bridge {
        let place = self.bridges.iter().position(|bridge| bridge.name == name).unwrap_or_else(|| {
            let (found, remedies, networks, containers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            self.bridges.push(Bridge { name: name.to_owned(), ok: true, found, remedies, networks, containers });
            self.bridges.len() - 1
        });
        &mut self.bridges[place]
    }

    /// How many addresses are so.
    fn count(&self, reach: Reach) -> usize {
        let all = self.bridges.iter().flat_map(|bridge| &bridge.containers).chain(&self.others);
        all.filter(|container| container.reach == reach).count()
    }
}

fn container(line: Line, report: &Report) -> Container {
    let remark = report.remark(line.address);
    let reach = match report.shown.get(&line.address) {
        Some(Shown::Reached) => Reach::Reached,
        Some(Shown::Blocked) => Reach::Blocked,
        Some(Shown::Silent) => Reach::NoAnswer,
        None => {
            let why = match (&report.untried, report.sampled) {
                (Some(why), _) => why.clone(),
                (None, Some(_)) => "more addresses than one look may try: the next minute tries others".into(),
                (None, None) => "it came while the others were tried".into(),
            };
            return Container { line, reach: Reach::NotTried, found: Some(why), remedy: None };
        }
    };
    let (found, remedy) = remark.map(|fault| (fault.found.clone(), fault.remedy.clone())).unzip();
    Container { line, reach, found, remedy }
}

#[cfg(test)]
mod tests;
