//! Runtimes beside Podman, end to end: libcni by itself, containerd, buildah. Each case runs in a world of its own.
//!
//! Invariant: no case passes while anything of its containers is left.

mod buildah;
mod containerd;
mod libcni;
#[path = "../suite/mod.rs"]
mod suite;
mod world;

use std::process::ExitCode;

use harness::sandbox::Users;

use crate::libcni::Client;
use crate::suite::Case;
use crate::world::World;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for client in [Client::Distribution, Client::Newest] {
        let newest: &[(&str, libcni::Case)] = if client == Client::Newest { &libcni::NEWEST_CASES } else { &[] };
        for (name, case) in libcni::CASES.iter().chain(newest) {
            let name = format!("libcni::{}::{name}", client.name());
            cases.push(in_world(name, Users::Own, client.lacks(), move |world| case(client, world)));
        }
    }
    let engines = [
        ("containerd", containerd::lacks(), &containerd::CASES[..]),
        ("buildah", buildah::lacks(), &buildah::CASES[..]),
    ];
    for (engine, lacks, its) in engines {
        let its =
            its.iter().map(|(name, case)| in_world(format!("{engine}::{name}"), Users::Machine, lacks.clone(), case));
        cases.extend(its);
    }
    suite::run(&cases, &[])
}

fn in_world(
    name: String,
    users: Users,
    lacks: Option<String>,
    play: impl Fn(&mut World) -> anyhow::Result<()> + 'static,
) -> Case {
    let play = move || {
        let mut world = World::build()?;
        play(&mut world)?;
        world.end()
    };
    Case { name, users, lacks, play: Box::new(play) }
}
