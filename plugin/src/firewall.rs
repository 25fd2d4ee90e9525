//! What flatnet has to say in the packet filter: its own tables, and accepts in those of others.
//!
//! In the tables `ip flatnet` and `ip6 flatnet` are masquerade, and published ports for runtimes that leave them to the network's driver
//! (netavark). Neither touches what is the other's, and whoever takes away the last of it takes the table along. In the table
//! `bridge flatnet` is who may say what on a bridge.

pub(crate) mod forward;
pub(crate) mod localnet;
pub(crate) mod masquerade;
pub(crate) mod ports;
pub(crate) mod spoofing;

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::time::Duration;

use crate::deadline::waiting_for;
use crate::error::{Doing, Result, both, errno_of};
use crate::netlink::Netlink;

/// The name of flatnet's tables.
const TABLE: &str = "flatnet";
/// How long to wait before the lock is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);
/// What is locked: the network namespace, whose table it is. Not the program's file, of
/// which a host may have several: netavark's driver, and the command of a package.
const LOCKED: &str = "/proc/self/ns/net";

/// Takes away the rules of networks whose bridge has gone, flatnet's own and those in other firewalls' chains, and those of containers that
/// ended with their links: what they may say, and the ports that they published. The guard of loopback addresses is made what it should be.
pub(crate) async fn sweep(host: &Netlink) -> Result<()> {
    let swept = both(masquerade::sweep(host).await, forward::sweep(host).await);
    let swept = both(swept, spoofing::forget_gone(host).await);
    // On the heap: it is large, and most hosts have none.
    let swept = both(swept, Box::pin(ports::repair(host)).await);
    both(swept, localnet::ensure(host).await)
}

/// Held until it is dropped.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Said, as a child process may have the file too. Where it fails, closing does it.
        drop(self.0.unlock());
    }
}

/// One process at a time reads and then changes flatnet's tables; the lock leaves nothing behind.
async fn lock() -> Result<Lock> {
    let failed = || "lock the network namespace's nftables tables".to_owned();
    let file = File::open(LOCKED).map_err(|e| errno_of(&e)).doing(failed)?;
    waiting_for("the lock of the nftables tables, which another process holds", async {
        loop {
            // Not nix's `Flock`, which panics where unlocking fails.
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(e)) => return Err(errno_of(&e)).doing(failed),
            }
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_program_it_is_one_at_a_time_changes_the_table() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ours = runtime.block_on(lock()).expect("the lock");
        let other = File::open("/proc/thread-self/ns/net").expect("the same namespace");
        let tried = other.try_lock();
        assert!(matches!(tried, Err(TryLockError::WouldBlock)), "{tried:?}");
        drop(ours);
        other.try_lock().expect("the lock, once nobody has it");
    }
}
