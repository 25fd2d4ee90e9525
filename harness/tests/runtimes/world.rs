//! The world of a case: the usual hosts, and a runtime on the node.
//!
//! Invariant: leases are looked at afresh, and a page counts only if the container saw the very host that asked.

use std::collections::BTreeSet;
use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::client::{self, NoAnswer, Question};
use harness::http::server::{SAW_PEER, SERVED_BY};
use harness::inventory;
use harness::lab::{Namespace, View};
use harness::pattern::Pattern;
use harness::plugin::Plugins;
use harness::podman::settle;
use harness::process::{self, Finished};
use harness::scenario::Setting;
use harness::world;

/// How long a container may take from its start to its first answer, and how long one command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the harness keeps what does not count as left over.
pub(crate) const OWN: &str = "/run/harness";

pub(crate) const NODE: &str = "wsl";
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
const GATEWAY: &str = "windows";
/// What a container sees of the gateway, if nothing translates on the way.
pub(crate) const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// What is asked of a runtime.
pub(crate) type Case = fn(&mut World) -> Result<()>;

pub(crate) struct World {
    world: world::World,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let plugins = Plugins::locate(None)?;
        Ok(Self { world: world::World::build(Arc::new(Setting::usual()?), plugins)? })
    }

    /// Where the node's network is.
    pub(crate) fn node(&self) -> Result<&Namespace> {
        Ok(&self.world.lab.host(NODE)?.namespace)
    }

    pub(crate) fn plugins(&self) -> &Plugins {
        &self.world.plugins
    }

    /// What a runtime keeps when its last container has gone; `*` is wild.
    pub(crate) fn expect_left(&mut self, lines: &[&str]) {
        let patterns: Vec<_> = lines.iter().map(|line| Pattern::new(*line)).collect();
        self.world.expect_left(&patterns);
    }

    /// Makes an empty container and gives its network; the harness's own server answers in it.
    pub(crate) fn container(&mut self, name: &str) -> Result<PathBuf> {
        let path = self.world.place(name)?.path().to_owned();
        self.world.serve(name, 80, None)?;
        Ok(path)
    }

    /// Ends a container as a crash does.
    pub(crate) fn crash(&mut self, name: &str) -> Result<()> {
        self.world.crash(name)
    }

    /// What a container has at an interface.
    pub(crate) fn addresses_of(&self, name: &str, ifname: &str) -> Result<BTreeSet<String>> {
        let view = View::of(self.world.lab.namespace(name)?)?;
        Ok(view.link(ifname).map(|link| link.addresses.clone()).unwrap_or_default())
    }

    /// Runs a command of `place`, which must succeed.
    pub(crate) fn run(&mut self, place: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Finished> {
        let program = program.as_ref();
        let mut command = self.world.place(place)?.command(program)?;
        command.args(arguments);
        let done = process::run(command, &[], PATIENCE)?;
        ensure!(
            done.status.is_some_and(|status| status.success()),
            "run {} {arguments:?}: {}\n{}{}",
            program.display(),
            done.status_text(),
            done.stdout,
            done.stderr
        );
        Ok(done)
    }

    /// Exactly these are leased, if not now then soon.
    pub(crate) fn expect_leases(&self, expected: &[Ipv4Addr]) -> Result<()> {
        let wanted: BTreeSet<IpAddr> = expected.iter().copied().map(IpAddr::from).collect();
        let leases = settle(|| inventory::leases(self.node()?), |leases| *leases == wanted)?;
        ensure!(leases == wanted, "lease {expected:?} and nothing else: leased are {leases:?}");
        Ok(())
    }

    /// The gateway gets an answer of the harness's server in `name`, which has seen the gateway's own address.
    pub(crate) fn expect_answer(&self, name: &str, address: SocketAddr) -> Result<()> {
        let answer = client::get_served(self.gateway()?, &question(address))?;
        let got = (answer.header(SERVED_BY), answer.header(SAW_PEER));
        let wanted = GATEWAY_ADDRESS.to_string();
        ensure!(got == (Some(name), Some(&wanted)), "get an answer of {name}, asked by {wanted}: it is {got:?}");
        Ok(())
    }

    /// The gateway gets the page of an image's container, which has seen the gateway's own address.
    pub(crate) fn expect_page(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let page = client::get_served(self.gateway()?, &question((address, 80).into()))?.body;
        ensure!(page == format!("{name} saw {GATEWAY_ADDRESS}"), "get the page of {name}: it says {page:?}");
        Ok(())
    }

    /// Nobody answers the gateway at a port of the node.
    pub(crate) fn expect_closed(&self, port: u16) -> Result<()> {
        let answer = client::get(self.gateway()?, &question((NODE_ADDRESS, port).into()))?;
        ensure!(matches!(answer, Err(NoAnswer::Refused)), "be refused at port {port}: it was {answer:?}");
        Ok(())
    }

    /// A published port of the node.
    pub(crate) fn published(port: u16) -> SocketAddr {
        SocketAddr::from((NODE_ADDRESS, port))
    }

    /// Names what is left; containers first stay, as the end of one hides what its DEL has failed to clear away.
    pub(crate) fn end(mut self) -> Result<Vec<String>> {
        let left = self.world.leftovers()?;
        if !left.is_empty() {
            return Ok(left);
        }
        self.world.lab.crash_all()?;
        self.world.leftovers()
    }

    fn gateway(&self) -> Result<&Namespace> {
        Ok(&self.world.lab.host(GATEWAY)?.namespace)
    }
}

fn question(address: SocketAddr) -> Question {
    Question { address, host: address.ip().to_string(), path: "/".to_owned(), patience: PATIENCE }
}

/// Whether `PATH` finds a program.
pub(crate) fn is_installed(program: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// Writes a file, and the folder for it.
pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("find the file's folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
