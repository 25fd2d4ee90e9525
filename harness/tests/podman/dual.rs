//! Containers with an address of each family.
//!
//! Invariant: both addresses count, and by both of them the container answers a host that it sees untranslated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail, ensure};
use harness::podman::{Attachment, IMAGE};

use crate::cases::{Case, expect_leases, expect_no_leases, expect_page};
use crate::networks::{fetch_in_pod, start_web_in_pod};
use crate::world::{DUAL_NETWORK, Gateway, SECOND_NETWORK, WINDOWS, WINDOWS_WITH_NGINX, World};

pub(crate) const CASES: [(&str, Case); 8] = [
    ("a_container_has_an_address_of_each_family", a_container_has_an_address_of_each_family),
    ("asked_addresses_of_both_families_and_a_mac_are_given", asked_addresses_of_both_families_and_a_mac_are_given),
    (
        "a_lan_client_gets_the_page_over_ipv6_through_the_gateway",
        a_lan_client_gets_the_page_over_ipv6_through_the_gateway,
    ),
    ("a_lan_client_gets_the_page_over_ipv6_through_nginx", a_lan_client_gets_the_page_over_ipv6_through_nginx),
    ("a_reload_keeps_addresses_of_both_families", a_reload_keeps_addresses_of_both_families),
    ("connect_gives_asked_addresses_of_both_families", connect_gives_asked_addresses_of_both_families),
    ("a_pod_has_an_address_of_each_family_for_all", a_pod_has_an_address_of_each_family_for_all),
    (
        "a_container_starts_on_a_network_of_both_families_and_on_another",
        a_container_starts_on_a_network_of_both_families_and_on_another,
    ),
];

const FIRST: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 87, 6, 2), in_dual(2));
const ASKED: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 87, 6, 77), in_dual(0x77));
/// On the other network.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 87, 2, 2);
const MAC: &str = "02:00:00:00:00:77";

/// `podman run` with both of `ASKED`, and the MAC.
const ASKING: [&str; 6] = ["--ip", "10.87.6.77", "--ip6", "fd87:6::77", "--mac-address", MAC];

const fn in_dual(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd87, 6, 0, 0, 0, 0, 0, last)
}

/// Starts a container on the network alone.
fn start(world: &World, name: &str, options: &[&str]) -> Result<Attachment> {
    let (network, ..) = DUAL_NETWORK;
    run(world, name, network, options)?;
    world.podman.attachment_to(network, name)
}

fn run(world: &World, name: &str, network: &str, options: &[&str]) -> Result<String> {
    let env = format!("NAME={name}");
    let run = ["run", "--detach", "--name", name, "--env", &env, "--network", network];
    world.podman.output(run.iter().chain(options).chain(&[IMAGE]))
}

fn expect_attached(it: &Attachment, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
    ensure!((it.address, it.address6) == (v4, Some(v6)), "attach it as {v4} and {v6}: it is {it:?}");
    Ok(())
}

/// Both addresses are leased, and by both the gateway gets the page.
fn expect_reached(world: &World, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
    expect_leases::<IpAddr>(&world.podman, &[v4.into(), v6.into()])?;
    expect_page(&world.page_at(WINDOWS, v4)?, "web", WINDOWS.back)?;
    expect_page(&world.page_at(WINDOWS, v6)?, "web", WINDOWS.back6)
}

fn a_container_has_an_address_of_each_family(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    let web = start(world, "web", &[])?;
    expect_attached(&web, FIRST)?;
    expect_reached(world, FIRST)?;
    world.podman.stop("web")?;
    expect_no_leases(&world.podman)?;
    world.podman.output(["start", "web"])?;
    expect_reached(world, FIRST)?;
    world.podman.remove("web")
}

fn asked_addresses_of_both_families_and_a_mac_are_given(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    let web = start(world, "web", &ASKING)?;
    expect_attached(&web, ASKED)?;
    ensure!(web.mac == MAC, "give the MAC {MAC}: it is {}", web.mac);
    expect_reached(world, ASKED)?;
    // Either alone, and the other family's address is any.
    let Err(refusal) = start(world, "late", &["--ip6", "fd87:6::77"]) else { bail!("refuse an address that is taken") };
    let said = format!("{refusal:#}");
    ensure!(said.contains("fd87:6::77") && said.contains("name=web"), "name the holder: podman says {said}");
    world.podman.remove("late")?;
    let other = start(world, "other", &["--ip6", "fd87:6::88"])?;
    expect_attached(&other, (FIRST.0, in_dual(0x88)))?;
    world.podman.remove("other")?;
    expect_reached(world, ASKED)?;
    world.podman.remove("web")
}

fn a_lan_client_gets_the_page_over_ipv6_through_the_gateway(world: &mut World) -> Result<()> {
    expect_page_through(world, WINDOWS)
}

fn a_lan_client_gets_the_page_over_ipv6_through_nginx(world: &mut World) -> Result<()> {
    expect_page_through(world, WINDOWS_WITH_NGINX)
}

fn expect_page_through(world: &mut World, gateway: Gateway) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    start(world, "web", &[])?;
    expect_page(&world.page_through(gateway, FIRST.1)?, "web", gateway.back6)?;
    expect_page(&world.page_through(gateway, FIRST.0)?, "web", gateway.back)?;
    world.podman.remove("web")
}

fn a_reload_keeps_addresses_of_both_families(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    let (network, ..) = DUAL_NETWORK;
    for (options, addresses) in [(&[][..], FIRST), (&ASKING, ASKED)] {
        let before = start(world, "web", options)?;
        world.podman.output(["network", "reload", "web"])?;
        let after = world.podman.attachment_to(network, "web")?;
        ensure!(after == before, "keep web as it was: it was {before:?} and is {after:?}");
        expect_attached(&after, addresses)?;
        expect_reached(world, addresses)?;
        world.podman.remove("web")?;
    }
    Ok(())
}

fn connect_gives_asked_addresses_of_both_families(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    world.add_network(SECOND_NETWORK)?;
    let (network, ..) = DUAL_NETWORK;
    let (second, ..) = SECOND_NETWORK;
    run(world, "web", second, &[])?;
    world.podman.output(["network", "connect", "--ip", "10.87.6.77", "--ip6", "fd87:6::77", network, "web"])?;
    expect_attached(&world.podman.attachment_to(network, "web")?, ASKED)?;
    expect_leases::<IpAddr>(&world.podman, &[ASKED.0.into(), ASKED.1.into(), OTHER.into()])?;
    expect_page(&world.page_at(WINDOWS, ASKED.1)?, "web", WINDOWS.back6)?;
    world.podman.output(["network", "disconnect", network, "web"])?;
    expect_leases(&world.podman, &[OTHER])?;
    world.podman.remove("web")
}

fn a_pod_has_an_address_of_each_family_for_all(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    let (network, ..) = DUAL_NETWORK;
    for (options, addresses) in [(&[][..], FIRST), (&ASKING, ASKED)] {
        let podman = &world.podman;
        start_web_in_pod(podman, &[&["--network", network], options].concat())?;
        expect_attached(&podman.attachment_to(network, "shop-infra")?, addresses)?;
        expect_reached(world, addresses)?;
        expect_page(&fetch_in_pod(podman, Ipv4Addr::LOCALHOST)?, "web", Ipv4Addr::LOCALHOST)?;
        expect_page(&fetch_in_pod(podman, Ipv6Addr::LOCALHOST)?, "web", Ipv6Addr::LOCALHOST)?;
        podman.output(["pod", "stop", "shop"])?;
        expect_no_leases(podman)?;
        podman.output(["pod", "start", "shop"])?;
        expect_reached(world, addresses)?;
        podman.output(["pod", "rm", "--force", "shop"])?;
    }
    Ok(())
}

fn a_container_starts_on_a_network_of_both_families_and_on_another(world: &mut World) -> Result<()> {
    world.add_network(DUAL_NETWORK)?;
    world.add_network(SECOND_NETWORK)?;
    let ((network, ..), (second, ..)) = (DUAL_NETWORK, SECOND_NETWORK);
    let asking = format!("{network}:ip={},ip6={},mac={MAC}", ASKED.0, ASKED.1);
    for (wanted, addresses) in [(network, FIRST), (asking.as_str(), ASKED)] {
        let podman = &world.podman;
        run(world, "web", wanted, &["--network", second])?;
        expect_attached(&podman.attachment_to(network, "web")?, addresses)?;
        let other = podman.attachment_to(second, "web")?;
        ensure!((other.address, other.address6) == (OTHER, None), "attach web as {OTHER} alone: it is {other:?}");
        let leases: [IpAddr; 3] = [addresses.0.into(), addresses.1.into(), OTHER.into()];
        podman.stop("web")?;
        expect_no_leases(podman)?;
        podman.output(["start", "web"])?;
        expect_leases(podman, &leases)?;
        for address in leases {
            let back = if address.is_ipv4() { WINDOWS.back.into() } else { IpAddr::from(WINDOWS.back6) };
            expect_page(&world.page_at(WINDOWS, address)?, "web", back)?;
        }
        podman.remove("web")?;
    }
    Ok(())
}
