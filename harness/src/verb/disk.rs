//! `readonly`, `fill` and `writable`: what befalls the file systems of a world.
//!
//! Invariant: only folders that are the world's own are ever touched.

use super::process::NoOptions;
use super::{Failure, Misfit, Verb, misfit};
use crate::sandbox::{self, Condition, STATE_FOLDERS};
use crate::scenario::Setting;
use crate::world::World;

/// Where the kernel's settings are: they can be read-only, as in many containers, but not full.
const SETTINGS: &str = "/proc/sys";

/// `{ readonly = "/run" }`, `{ fill = "/run" }`, and `{ writable = "/run" }`, which undoes both.
#[derive(Debug)]
pub(super) struct Disk {
    folder: String,
    condition: Condition,
}

impl Disk {
    pub(super) fn readonly(folder: String, _: NoOptions) -> Self {
        Self { folder, condition: Condition::ReadOnly }
    }

    pub(super) fn fill(folder: String, _: NoOptions) -> Self {
        Self { folder, condition: Condition::Full }
    }

    pub(super) fn writable(folder: String, _: NoOptions) -> Self {
        Self { folder, condition: Condition::Writable }
    }

    fn verb(&self) -> &'static str {
        match self.condition {
            Condition::ReadOnly => "readonly",
            Condition::Full => "fill",
            Condition::Writable => "writable",
        }
    }
}

impl Verb for Disk {
    fn describe(&self) -> String {
        format!("{} {}", self.verb(), self.folder)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        let folder = self.folder.as_str();
        let fits = match self.condition {
            Condition::Full if folder == SETTINGS => Err(format!("{SETTINGS} has no end")),
            _ if folder == SETTINGS || STATE_FOLDERS.contains(&folder) => Ok(()),
            _ => Err(format!("{folder} is not one of {SETTINGS} {}", STATE_FOLDERS.join(" "))),
        };
        misfit(self.verb(), fits)
    }

    fn run(&self, _: &mut World) -> Result<String, Failure> {
        sandbox::set_condition(&self.folder, self.condition)?;
        Ok(String::new())
    }
}
