//! Podman end to end: each promise to its users is a case, run in a world of its own.
//!
//! Invariant: no case passes while anything of its containers is left.

mod again;
mod cases;
mod dual;
mod networks;
#[path = "../suite/mod.rs"]
mod suite;
mod world;

use std::process::ExitCode;

use harness::podman::{self, SOCKET};
use harness::sandbox::Users;

use crate::suite::Case;
use crate::world::World;

fn main() -> ExitCode {
    // Asked once, for all.
    let missing = podman::reason_to_skip();
    let all = cases::CASES.iter().chain(&networks::CASES).chain(&again::CASES).chain(&dual::CASES);
    let cases = all.map(|&(name, case)| {
        let play = move || {
            let mut world = World::build()?;
            case(&mut world)?;
            world.end()
        };
        Case { name: name.to_owned(), users: Users::Machine, lacks: missing.clone(), play: Box::new(play) }
    });
    suite::run(&cases.collect::<Vec<_>>(), &[("DOCKER_HOST", SOCKET)])
}
