//! Asks the kernel whether it can do something by doing it.
//!
//! The trial happens in a network namespace of its own, on a thread of its own: it ends with the thread, and nothing of it is
//! ever on the host's network.

use std::future::Future;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::call::{block_on, within_deadline};
use crate::config::Network;
use crate::error::Result;
use crate::netlink::{Link, Netlink, NewBridge};

/// What came of a trial.
pub(crate) enum Tried {
    Done(Result<()>),
    /// Such a namespace may not be made here.
    NotAllowed(Errno),
    /// By a bug.
    Panicked,
}

/// Waits for what `trial` does in a namespace of its own, where it has nothing but a loopback link.
pub(crate) fn alone<F: Future<Output = Result<()>>>(trial: impl FnOnce() -> F + Send) -> Tried {
    let tried = thread::scope(|scope| {
        let alone = || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => Tried::Done(block_on(within_deadline(trial()))),
            Err(errno) => Tried::NotAllowed(errno),
        };
        scope.spawn(alone).join()
    });
    tried.unwrap_or(Tried::Panicked)
}

/// Makes a bridge that is the first of its namespace's.
pub(crate) async fn make_bridge(netlink: &Netlink, vlan_filtering: bool) -> Result<Link> {
    let new = NewBridge { name: "trial-br", mac: None, vlan_filtering };
    netlink.add_bridge(&new).await?;
    netlink.made_link(new.name).await
}

/// Errors: 100 and what the kernel lacks for the network's VLANs. Where nothing can be tried, ADD will tell.
pub(super) fn refuse_lacking_vlans<P>(network: &Network<P>) -> Result<()> {
    if !network.options.port.needs_vlan_filtering() {
        return Ok(());
    }
    let vlan = network.gateway_vlan().map(|(_, vlan)| vlan);
    let trial = || async move {
        let netlink = Netlink::open()?;
        let bridge = make_bridge(&netlink, true).await?;
        let Some(vlan) = vlan else { return Ok(()) };
        netlink.add_vlan("trial-vlan", &bridge, vlan).await
    };
    match alone(trial) {
        Tried::Done(done) => done,
        Tried::NotAllowed(_) | Tried::Panicked => Ok(()),
    }
}
