//! Several networks, and what Podman does to a container's networks while it runs.
//!
//! Invariant: a case removes its containers by the command that a user would take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use harness::podman::{Attachment, IMAGE, NETWORK, Podman};

use crate::cases::{Case, expect_leases, expect_no_leases, expect_page};
use crate::world::{SECOND_NETWORK, WINDOWS, World};

pub(crate) const CASES: [(&str, Case); 5] = [
    ("a_container_starts_on_two_networks", a_container_starts_on_two_networks),
    ("a_container_leaves_its_network_and_comes_back", a_container_leaves_its_network_and_comes_back),
    ("a_reload_keeps_address_and_mac", a_reload_keeps_address_and_mac),
    ("a_reload_keeps_what_was_asked_for", a_reload_keeps_what_was_asked_for),
    ("a_pod_has_one_address_for_all", a_pod_has_one_address_for_all),
];

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 87, 2, 2);

fn a_container_starts_on_two_networks(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    world.add_network(SECOND_NETWORK)?;
    let web = podman.start_web_with("web", &["--network", "second"])?;
    let second = podman.attachment_to("second", "web")?;
    ensure!((web.address, second.address) == (FIRST, SECOND), "attach web to both: it is {web:?} and {second:?}");
    ensure!(web.mac != second.mac, "give each interface a MAC of its own: both are {}", web.mac);
    expect_leases(podman, &[FIRST, SECOND])?;
    for address in [FIRST, SECOND] {
        expect_page(&world.page_at(WINDOWS, address)?, "web", WINDOWS.back)?;
    }
    let podman = &world.podman;
    podman.stop("web")?;
    expect_no_leases(podman)?;
    podman.start("web")?;
    expect_leases(podman, &[FIRST, SECOND])?;
    podman.remove("web")
}

fn a_container_leaves_its_network_and_comes_back(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    podman.start_web("web")?;
    podman.start_web("db")?;
    podman.output(["network", "disconnect", NETWORK, "web"])?;
    expect_leases(podman, &[Ipv4Addr::new(10, 87, 1, 3)])?;
    podman.output(["network", "connect", NETWORK, "web"])?;
    let web = podman.attachment("web")?;
    ensure!(web.address == FIRST, "give web its address again: it is {web:?}");
    expect_page(&world.page_at(WINDOWS, web.address)?, "web", WINDOWS.back)?;
    let podman = &world.podman;
    podman.remove("db")?;
    podman.remove("web")
}

fn a_reload_keeps_address_and_mac(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    podman.start_web("first")?;
    let before = podman.start_web("web")?;
    podman.remove("first")?;
    expect_kept_by_reload(world, &before)
}

fn a_reload_keeps_what_was_asked_for(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    let before = podman.start_web_with("web", &["--ip", "10.87.1.77", "--mac-address", "02:00:00:00:00:77"])?;
    expect_kept_by_reload(world, &before)
}

/// Reloads the network of `web`, which is to be all as `before`, and removes it.
fn expect_kept_by_reload(world: &mut World, before: &Attachment) -> Result<()> {
    let podman = &world.podman;
    podman.output(["network", "reload", "web"])?;
    let after = podman.attachment("web")?;
    ensure!(after == *before, "keep web as it was: it was {before:?} and is {after:?}");
    expect_leases(podman, &[before.address])?;
    expect_page(&world.page_at(WINDOWS, after.address)?, "web", WINDOWS.back)?;
    world.podman.remove("web")
}

fn a_pod_has_one_address_for_all(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    start_web_in_pod(podman, &["--network", NETWORK])?;
    expect_leases(podman, &[FIRST])?;
    expect_page(&fetch_in_pod(podman, Ipv4Addr::LOCALHOST)?, "web", Ipv4Addr::LOCALHOST)?;
    expect_page(&world.page_at(WINDOWS, FIRST)?, "web", WINDOWS.back)?;
    let podman = &world.podman;
    podman.output(["pod", "stop", "shop"])?;
    expect_no_leases(podman)?;
    podman.output(["pod", "start", "shop"])?;
    expect_leases(podman, &[FIRST])?;
    podman.output(["pod", "rm", "--force", "shop"]).map(drop)
}

/// Makes a pod named `shop`, and starts `web` in it.
pub(crate) fn start_web_in_pod(podman: &Podman, options: &[&str]) -> Result<()> {
    // Podman would build an image for it that needs a program of the machine's.
    let infra = ["--infra-image", IMAGE, "--infra-command", "busybox sleep 3600"];
    let pod = ["pod", "create", "--name", "shop", "--infra-name", "shop-infra"];
    podman.output(pod.iter().chain(&infra).chain(options))?;
    podman.output(["run", "--detach", "--name", "web", "--pod", "shop", "--env", "NAME=web", IMAGE]).map(drop)
}

/// What another container of that pod gets from port 80 of `address`.
pub(crate) fn fetch_in_pod(podman: &Podman, address: impl Into<IpAddr>) -> Result<String> {
    let url = format!("http://{}/", SocketAddr::from((address, 80)));
    podman.output(["run", "--rm", "--pod", "shop", IMAGE, "wget", "-q", "-O", "-", &url])
}
