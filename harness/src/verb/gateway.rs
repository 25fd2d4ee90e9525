//! `gateway`: the name service on a node.
//!
//! Invariant: the step is over when it listens; it runs until the world ends, or a `stop` of the node.

use super::process::NoOptions;
use super::{Failure, Misfit, Verb, misfit};
use crate::scenario::Setting;
use crate::world::World;

/// `{ gateway = "wsl" }`: starts `flatnet gateway`, with all networks of the scenario configured.
#[derive(Debug)]
pub(super) struct Gateway(String);

impl Gateway {
    pub(super) fn new(node: String, _: NoOptions) -> Self {
        Self(node)
    }
}

impl Verb for Gateway {
    fn describe(&self) -> String {
        format!("gateway {}", self.0)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("gateway", setting.node(Some(&self.0)))
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("gateway", &self.0))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.start_gateway(&self.0)?;
        Ok(String::new())
    }
}
