//! The promises, one case each.
//!
//! Invariant: a case removes its containers by the command that a user would take.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use harness::podman::{Backend, IMAGE, NETWORK, Podman};
use nix::mount::{MsFlags, mount};
use testcontainers::bollard::query_parameters::InspectContainerOptions;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::world::{Gateway, SECOND_NETWORK, WINDOWS, WINDOWS_WITH_NGINX, World};

pub(crate) type Case = fn(&mut World) -> Result<()>;

pub(crate) const CASES: [(&str, Case); 17] = [
    ("podman_knows_the_shipped_network", podman_knows_the_shipped_network),
    ("run_gives_a_flat_address_and_its_gateway", run_gives_a_flat_address_and_its_gateway),
    ("the_gateway_reaches_the_container_untranslated", the_gateway_reaches_the_container_untranslated),
    ("a_lan_client_gets_the_page_through_the_gateway", a_lan_client_gets_the_page_through_the_gateway),
    ("a_lan_client_gets_the_page_through_nginx", a_lan_client_gets_the_page_through_nginx),
    ("three_containers_started_at_once_reach_each_other", three_containers_started_at_once_reach_each_other),
    ("stop_frees_the_address_and_start_takes_it_again", stop_frees_the_address_and_start_takes_it_again),
    ("kill_frees_the_address", kill_frees_the_address),
    ("removal_by_force_frees_the_address", removal_by_force_frees_the_address),
    (
        "gc_frees_the_address_of_a_container_that_nobody_cleaned_up",
        gc_frees_the_address_of_a_container_that_nobody_cleaned_up,
    ),
    ("an_asked_address_and_mac_are_given", an_asked_address_and_mac_are_given),
    ("a_container_is_connected_to_one_more_network", a_container_is_connected_to_one_more_network),
    ("name_servers_are_the_hosts", name_servers_are_the_hosts),
    ("a_published_port_leads_to_the_container_untranslated", a_published_port_leads_to_the_container_untranslated),
    ("published_ports_come_and_go_with_their_containers", published_ports_come_and_go_with_their_containers),
    ("install_is_all_that_podman_needs", install_is_all_that_podman_needs),
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
    expect_no_leases(&world.podman)?;
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
    expect_no_leases(&world.podman)?;
    world.podman.remove("web")
}

fn removal_by_force_frees_the_address(world: &mut World) -> Result<()> {
    world.podman.start_web("web")?;
    expect_leases(&world.podman, &[FIRST])?;
    world.podman.remove("web")?;
    expect_no_leases(&world.podman)
}

fn gc_frees_the_address_of_a_container_that_nobody_cleaned_up(world: &mut World) -> Result<()> {
    let podman = &world.podman;
    let dead = podman.start_web("dead")?;
    let web = podman.start_web("web")?;
    podman.crash("dead")?;
    expect_leases(podman, &[dead.address, web.address])?;
    expect_said(&world.flatnet(&["gc", "--dry-run"])?, &format!("would remove {} of dead ", dead.address))?;
    expect_said(&world.flatnet(&["gc"])?, &format!("removed {} of dead ", dead.address))?;
    expect_leases(podman, &[web.address])?;
    expect_page(&world.page_at(WINDOWS, web.address)?, "web", WINDOWS.back)?;
    expect_said(&world.flatnet(&["gc", "--yes"])?, "nothing to collect")?;
    // Podman 5 fails when it finds out that the monitor is gone, and knows the next time.
    podman.remove("dead").or_else(|_| podman.remove("dead"))?;
    podman.remove("web")
}

fn expect_said((status, said): &(i32, String), expected: &str) -> Result<()> {
    let is_as_expected = *status == 0 && said.starts_with(expected) && said.lines().count() == 1;
    ensure!(
        is_as_expected,
        "exit with 0 and say one line, {expected:?}: flatnet exited with {status} and said {said:?}"
    );
    Ok(())
}

fn an_asked_address_and_mac_are_given(world: &mut World) -> Result<()> {
    let asked = Ipv4Addr::new(10, 87, 1, 77);
    let options = ["--ip", "10.87.1.77", "--mac-address", "02:00:00:00:00:77"];
    let web = world.podman.start_web_with("web", &options)?;
    ensure!((web.address, web.mac.as_str()) == (asked, "02:00:00:00:00:77"), "attach web as asked: it is {web:?}");
    expect_page(&world.page_at(WINDOWS, asked)?, "web", WINDOWS.back)?;
    let Err(refusal) = world.podman.start_web_with("late", &options[..2]) else {
        bail!("refuse an address that is taken");
    };
    let said = format!("{refusal:#}");
    ensure!(
        said.contains("is already in use by link fn-") && said.contains("name=web"),
        "name the holder: podman says {said}"
    );
    world.podman.remove("late")?;
    expect_leases(&world.podman, &[asked])?;
    world.podman.remove("web")
}

fn a_container_is_connected_to_one_more_network(world: &mut World) -> Result<()> {
    let (podman, asked) = (&world.podman, Ipv4Addr::new(10, 87, 2, 9));
    world.add_network(SECOND_NETWORK)?;
    podman.start_web("web")?;
    podman.output(["network", "connect", "--ip", "10.87.2.9", "second", "web"])?;
    let second = podman.attachment_to("second", "web")?;
    ensure!((second.address, second.prefix) == (asked, 24), "attach web as asked: it is {second:?}");
    expect_leases(podman, &[FIRST, asked])?;
    podman.output(["network", "disconnect", "second", "web"])?;
    expect_leases(podman, &[FIRST])?;
    podman.output(["network", "connect", "second", "web"])?;
    // What it had last.
    expect_leases(podman, &[FIRST, asked])?;
    podman.remove("web")
}

fn name_servers_are_the_hosts(world: &mut World) -> Result<()> {
    const SERVER: &str = "nameserver 192.0.2.53";
    // Podman looks there first if it is a file of systemd-resolved's; this is the world's own.
    let own = "/run/resolv.conf";
    fs::write(own, format!("{SERVER}\n")).context("write resolv.conf")?;
    let none = None::<&str>;
    mount(Some(own), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).context("put it in place")?;
    world.podman.start_web("web")?;
    let file = world.podman.output(["exec", "web", "busybox", "cat", "/etc/resolv.conf"])?;
    ensure!(file.lines().any(|line| line == SERVER), "hand the host's name server on: resolv.conf is {file:?}");
    world.podman.remove("web")
}

fn a_published_port_leads_to_the_container_untranslated(world: &mut World) -> Result<()> {
    world.podman.enable_ports()?;
    let web = world.podman.start_web_with("web", &["--publish", "8080:80"])?;
    expect_page(&world.page_of_port(WINDOWS, 8080)?, "web", WINDOWS.back)?;
    // The one caller that has to be translated: its own address could not come back.
    expect_page(&world.page_of_port_on_node(8080)?, "web", GATEWAY)?;
    expect_page(&world.page_at(WINDOWS, web.address)?, "web", WINDOWS.back)?;
    world.podman.remove("web")?;
    world.refusal_of_port(WINDOWS, 8080).map(drop)
}

fn published_ports_come_and_go_with_their_containers(world: &mut World) -> Result<()> {
    world.podman.enable_ports()?;
    world.podman.start_web_with("one", &["--publish", "8081:80"])?;
    world.podman.start_web_with("two", &["--publish", "8082:80"])?;
    world.podman.kill("one")?;
    expect_leases(&world.podman, &[Ipv4Addr::new(10, 87, 1, 3)])?;
    world.podman.remove("one")?;
    expect_page(&world.page_of_port(WINDOWS, 8082)?, "two", WINDOWS.back)?;
    world.refusal_of_port(WINDOWS, 8081)?;
    world.podman.stop("two")?;
    world.podman.start("two")?;
    expect_page(&world.page_of_port(WINDOWS, 8082)?, "two", WINDOWS.back)?;
    world.podman.remove("two")
}

fn install_is_all_that_podman_needs(world: &mut World) -> Result<()> {
    world.podman.forget_flatnet()?;
    let flatnet = |world: &World, arguments: &[&str], status, said: &str| {
        let (got, text) = world.flatnet(arguments)?;
        ensure!(got == status && text.contains(said), "run flatnet {arguments:?}: it exits with {got} and says {text}");
        anyhow::Ok(())
    };
    if world.podman.backend() == Backend::Cni {
        world.podman.output(["create", "--name", "old", "--network", "none", IMAGE])?;
        flatnet(world, &["install"], 3, "switch Podman from netavark to CNI with 1 containers")?;
        world.podman.remove("old")?;
    }
    flatnet(world, &["install"], 0, "flatnet is installed")?;
    flatnet(world, &["install"], 0, "nothing to do")?;
    let web = world.podman.start_web_with("web", &["--publish", "8080:80"])?;
    ensure!((web.address, web.gateway) == (FIRST, GATEWAY), "attach web as expected: it is {web:?}");
    expect_page(&world.page_at(WINDOWS, web.address)?, "web", WINDOWS.back)?;
    expect_page(&world.page_of_port(WINDOWS, 8080)?, "web", WINDOWS.back)?;
    flatnet(world, &["uninstall"], 3, "name=web")?;
    world.podman.remove("web")?;
    flatnet(world, &["uninstall"], 0, "everything is as it was before")?;
    for folder in ["/opt/cni", "/usr/local/libexec/netavark", "/etc/containers/containers.conf.d", "/var/lib/flatnet"] {
        let left = fs::read_dir(folder).map(Iterator::count).unwrap_or_default();
        ensure!(left == 0, "leave nothing in {folder}: {left} are left");
    }
    Ok(())
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
        expect_no_leases(&world.podman)?;
        container.start().await.context("start the container again")?;
        expect_leases(&world.podman, &[address_of(&container).await?])?;
        container.rm().await.context("remove the container")
    })?;
    expect_no_leases(&world.podman)?;
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

pub(crate) fn expect_leases<A: Into<IpAddr> + Copy>(podman: &Podman, expected: &[A]) -> Result<()> {
    let wanted: BTreeSet<IpAddr> = expected.iter().map(|address| (*address).into()).collect();
    let leases = podman.leases(&wanted)?;
    ensure!(leases == wanted, "lease {wanted:?} and nothing else: leased are {leases:?}");
    Ok(())
}

pub(crate) fn expect_no_leases(podman: &Podman) -> Result<()> {
    expect_leases::<IpAddr>(podman, &[])
}

pub(crate) fn expect_page(page: &str, name: &str, peer: impl Into<IpAddr>) -> Result<()> {
    let peer = peer.into();
    if page != format!("{name} saw {peer}") {
        bail!("get the page of {name}, asked by {peer}: it says {page:?}");
    }
    Ok(())
}
