//! The promises, one case each.
//!
//! Invariant: a case removes its containers by the command that a user would take.

use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use harness::podman::{IMAGE, NETWORK, Podman};
use testcontainers::bollard::query_parameters::InspectContainerOptions;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::world::{Gateway, WINDOWS, WINDOWS_WITH_NGINX, World};

type Case = fn(&mut World) -> Result<()>;

pub(crate) const CASES: [(&str, Case); 10] = [
    ("podman_knows_the_shipped_network", podman_knows_the_shipped_network),
    ("run_gives_a_flat_address_and_its_gateway", run_gives_a_flat_address_and_its_gateway),
    ("the_gateway_reaches_the_container_untranslated", the_gateway_reaches_the_container_untranslated),
    ("a_lan_client_gets_the_page_through_the_gateway", a_lan_client_gets_the_page_through_the_gateway),
    ("a_lan_client_gets_the_page_through_nginx", a_lan_client_gets_the_page_through_nginx),
    ("three_containers_started_at_once_reach_each_other", three_containers_started_at_once_reach_each_other),
    ("stop_frees_the_address_and_start_takes_it_again", stop_frees_the_address_and_start_takes_it_again),
    ("kill_frees_the_address", kill_frees_the_address),
    ("removal_by_force_frees_the_address", removal_by_force_frees_the_address),
    ("testcontainers_runs_on_the_network", testcontainers_runs_on_the_network),
];

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);

fn podman_knows_the_shipped_network(world: &mut World) -> Result<()> {
    expect_network(&world.podman)
}

fn run_gives_a_flat_address_and_its_gateway(world: &mut World) -> Result<()> {
    let web = world.podman.start_web("web")?;
    ensure!((web.address, web.prefix, web.gateway) == (FIRST, 24, GATEWAY), "attach web as expected: it is {web:?}");
    expect_leases(&world.podman, &[FIRST])?;
    world.podman.remove("web")
}

fn the_gateway_reaches_the_container_untranslated(world: &mut World) -> Result<()> {
    let web = world.podman.start_web("web")?;
    expect_page(&world.page_at(WINDOWS, web.address)?, "web", WINDOWS.back)?;
    world.podman.remove("web")
}

fn a_lan_client_gets_the_page_through_the_gateway(world: &mut World) -> Result<()> {
    expect_page_through(world, WINDOWS)
}

fn a_lan_client_gets_the_page_through_nginx(world: &mut World) -> Result<()> {
    expect_page_through(world, WINDOWS_WITH_NGINX)
}

fn expect_page_through(world: &mut World, gateway: Gateway) -> Result<()> {
    let web = world.podman.start_web("web")?;
    expect_page(&world.page_through(gateway, web.address)?, "web", gateway.back)?;
    world.podman.remove("web")
}

fn three_containers_started_at_once_reach_each_other(world: &mut World) -> Result<()> {
    const NAMES: [&str; 3] = ["one", "two", "three"];
    let podman = &world.podman;
    let attachments = thread::scope(|scope| {
        let starts = NAMES.map(|name| scope.spawn(move || podman.start_web(name)));
        starts.map(|start| start.join().map_err(|_| anyhow!("go on after a panic"))?)
    });
    let containers = NAMES.into_iter().zip(attachments);
    let containers = containers.map(|(name, attached)| Ok((name, attached?.address))).collect::<Result<Vec<_>>>()?;
    expect_leases(podman, &containers.iter().map(|(_, address)| *address).collect::<Vec<_>>())?;
    for (name, address) in &containers {
        // Each listens by then.
        world.page_at(WINDOWS, *address).with_context(|| format!("hear from {name}"))?;
    }
    for (from, own) in &containers {
        for (to, address) in &containers {
            expect_page(&podman.fetch(from, *address)?, to, *own)?;
        }
    }
    NAMES.iter().try_for_each(|name| podman.remove(name))
}

fn stop_frees_the_address_and_start_takes_it_again(world: &mut World) -> Result<()> {
    let before = world.podman.start_web("web")?;
    world.podman.stop("web")?;
    expect_leases(&world.podman, &[])?;
    let after = world.podman.start("web")?;
    ensure!(after == before, "attach web as before: it was {before:?} and is {after:?}");
    expect_page(&world.page_at(WINDOWS, after.address)?, "web", WINDOWS.back)?;
    world.podman.stop("web")?;
    world.podman.remove("web")
}

fn kill_frees_the_address(world: &mut World) -> Result<()> {
    world.podman.start_web("web")?;
    expect_leases(&world.podman, &[FIRST])?;
    world.podman.kill("web")?;
    expect_leases(&world.podman, &[])?;
    world.podman.remove("web")
}

fn removal_by_force_frees_the_address(world: &mut World) -> Result<()> {
    world.podman.start_web("web")?;
    expect_leases(&world.podman, &[FIRST])?;
    world.podman.remove("web")?;
    expect_leases(&world.podman, &[])
}

fn testcontainers_runs_on_the_network(world: &mut World) -> Result<()> {
    // The library would make a network of its own under this name, without a word.
    expect_network(&world.podman)?;
    let _api = world.podman.serve()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (image, tag) = IMAGE.rsplit_once(':').context("find the image's tag")?;
        let request = GenericImage::new(image, tag).with_network(NETWORK).with_env_var("NAME", "web");
        let container = request.start().await.context("start a container by the library")?;
        let address = address_of(&container).await?;
        expect_leases(&world.podman, &[address])?;
        expect_page(&world.page_through(WINDOWS, address)?, "web", WINDOWS.back)?;
        container.stop().await.context("stop the container")?;
        expect_leases(&world.podman, &[])?;
        container.start().await.context("start the container again")?;
        expect_leases(&world.podman, &[address_of(&container).await?])?;
        container.rm().await.context("remove the container")
    })?;
    expect_leases(&world.podman, &[])?;
    expect_network(&world.podman)
}

/// The library's own question for it assumes that Podman calls the network by its name in one more place than it does.
async fn address_of(container: &ContainerAsync<GenericImage>) -> Result<Ipv4Addr> {
    let client = docker_client_instance().await?;
    let shown = client.inspect_container(container.id(), None::<InspectContainerOptions>).await?;
    let networks = shown.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address = networks.get(NETWORK).and_then(|network| network.ip_address.clone());
    address
        .with_context(|| format!("find the address of the container among {networks:?}"))?
        .parse()
        .map_err(Into::into)
}

fn expect_network(podman: &Podman) -> Result<()> {
    let driver = podman.driver(NETWORK)?;
    ensure!(driver == "flatnet", "find the shipped network under its name: its driver is {driver}");
    Ok(())
}

fn expect_leases(podman: &Podman, expected: &[Ipv4Addr]) -> Result<()> {
    let leases = podman.leases(expected)?;
    ensure!(leases == expected.iter().copied().collect(), "lease {expected:?} and nothing else: leased are {leases:?}");
    Ok(())
}

fn expect_page(page: &str, name: &str, peer: Ipv4Addr) -> Result<()> {
    if page != format!("{name} saw {peer}") {
        bail!("get the page of {name}, asked by {peer}: it says {page:?}");
    }
    Ok(())
}
