//! What a scenario needs of the kernel that not every kernel has, and nobody can install.
//!
//! Invariant: whether it is there is tried out, in a network namespace of its own.

use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use serde::Deserialize;

/// A part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// Bridges that keep VLANs apart, and links that stand on one VLAN.
    Vlan,
}

impl Kernel {
    /// What is not there, in words. What cannot be tried out counts as there: the scenario then says what is wrong.
    pub fn lacks(self) -> Option<String> {
        let (commands, what) = match self {
            Self::Vlan => (
                "ip link add name probe type bridge vlan_filtering 1 && ip link add link probe name probe.2 type vlan id 2",
                "it does not keep VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING, CONFIG_VLAN_8021Q)",
            ),
        };
        let try_out = || {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            Command::new("sh").args(["-c", commands]).stderr(Stdio::null()).status().ok()
        };
        let tried = thread::scope(|scope| scope.spawn(try_out).join().ok().flatten());
        tried.filter(|status| !status.success()).map(|_| format!("it is not for this kernel: {what}"))
    }
}
