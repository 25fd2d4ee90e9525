//! The same container at the same address, whatever happened in between: gateways point at addresses.
//!
//! Invariant: in each case another container would get the address, were it not for the name.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::cases::{Case, expect_no_leases, expect_page};
use crate::world::{WINDOWS, World};

pub(crate) const CASES: [(&str, Case); 3] = [
    ("a_container_that_is_made_anew_has_its_address", a_container_that_is_made_anew_has_its_address),
    ("containers_have_their_addresses_after_a_reboot", containers_have_their_addresses_after_a_reboot),
    ("a_container_made_anew_after_a_reboot_has_its_address", a_container_made_anew_after_a_reboot_has_its_address),
];

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 3);
const THIRD: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 4);

/// Starts a container, which must get that address.
fn start(world: &World, name: &str, address: Ipv4Addr) -> Result<()> {
    let it = world.podman.start_web(name)?;
    ensure!(it.address == address, "give {name} the address {address}: it has {}", it.address);
    expect_page(&world.page_at(WINDOWS, address)?, name, WINDOWS.back)
}

fn a_container_that_is_made_anew_has_its_address(world: &mut World) -> Result<()> {
    start(world, "db", FIRST)?;
    start(world, "web", SECOND)?;
    for name in ["web", "db"] {
        world.podman.remove(name)?;
    }
    start(world, "other", THIRD)?;
    start(world, "web", SECOND)?;
    start(world, "db", FIRST)?;
    for name in ["other", "web", "db"] {
        world.podman.remove(name)?;
    }
    Ok(())
}

fn containers_have_their_addresses_after_a_reboot(world: &mut World) -> Result<()> {
    start(world, "db", FIRST)?;
    start(world, "web", SECOND)?;
    world.reboot()?;
    expect_no_leases(&world.podman)?;
    // In the other order than before.
    for (name, address) in [("web", SECOND), ("db", FIRST)] {
        let it = world.podman.start(name)?;
        ensure!(it.address == address, "give {name} the address {address} again: it has {}", it.address);
        expect_page(&world.page_at(WINDOWS, address)?, name, WINDOWS.back)?;
    }
    for name in ["web", "db"] {
        world.podman.remove(name)?;
    }
    Ok(())
}

fn a_container_made_anew_after_a_reboot_has_its_address(world: &mut World) -> Result<()> {
    start(world, "db", FIRST)?;
    start(world, "web", SECOND)?;
    world.reboot()?;
    for name in ["web", "db"] {
        world.podman.remove(name)?;
    }
    start(world, "web", SECOND)?;
    world.podman.remove("web")
}
