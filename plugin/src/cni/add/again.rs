//! Going on with an ADD whose bridge somebody deletes meanwhile.
//!
//! What is made stays: the host's end of the pair is made a port of the next bridge. An ADD that began anew each time would hardly ever end
//! where somebody deletes one bridge after the other.

use std::time::Duration;

use nix::errno::Errno;

use super::{Add, Ledger};
use crate::call::within_deadline;
use crate::deadline::waiting_for;
use crate::error::{Doing, Error, Result};
use crate::firewall::masquerade;
use crate::link::{bridge, port};
use crate::netlink::Link;

/// The kernel opens a bridge port from a work queue, some microseconds after its carrier: the first look finds it open, as a rule.
const PORT_INTERVAL: Duration = Duration::from_millis(1);

impl Add<'_> {
    /// Whether that failed because somebody deleted the bridge meanwhile: then nothing is against another try, with a new one.
    pub(super) async fn lost_its_bridge(&self, error: &Error, ledger: &Ledger<'_>) -> bool {
        let host = &self.sockets.host;
        match (error, ledger.bridge) {
            // What is left of it may be in the way, or there is no time.
            (Error::AndThen { .. } | Error::Deadline { .. } | Error::Internal { .. }, _) => false,
            (_, Some(index)) => {
                matches!(within_deadline(host.link_by_index(index)).await, Ok(None))
            }
            // It was gone right after it was made.
            (Error::Kernel { errno, .. }, None) => *errno == Errno::ENODEV,
            (_, None) => false,
        }
    }

    /// Ends when the bridge passes frames to and from the port: only then is ADD done. One whose other end stays down never does.
    pub(super) async fn wait_for_forwarding(&self, port: &Link, ledger: &mut Ledger<'_>) -> Result<()> {
        if self.network.options.container_down {
            return Ok(());
        }
        loop {
            match self.sockets.host.link_by_index(port.index).await? {
                Some(port) if port.forwarding => return Ok(()),
                // Somebody has deleted the bridge under it, and no port opens without one.
                Some(port) if port.bridge.is_none() => self.put_back(&port, ledger).await?,
                Some(_) => {
                    let what = format!("{} to forward on bridge {}", port.name, self.network.bridge);
                    waiting_for(what, tokio::time::sleep(PORT_INTERVAL)).await;
                }
                None => return Err(Errno::ENODEV).doing(|| format!("wait for {} to forward", port.name)),
            }
        }
    }

    /// Makes the host's end, which is up, a port of a new bridge, again whenever that is deleted as well: the call's deadline ends it.
    pub(super) async fn put_back(&self, port: &Link, ledger: &mut Ledger<'_>) -> Result<()> {
        loop {
            // On the heap, as it is seldom needed, and large.
            match Box::pin(self.put_on_new_bridge(port, ledger)).await {
                Err(error) if self.lost_its_bridge(&error, ledger).await => {}
                done => return done,
            }
        }
    }

    /// The new bridge's rules may have been swept with the one before.
    async fn put_on_new_bridge(&self, port: &Link, ledger: &mut Ledger<'_>) -> Result<()> {
        let (network, host) = (self.network, &self.sockets.host);
        let bridge = bridge::ensure(host, network, &mut ledger.bridge).await?;
        masquerade::ensure(host, network, bridge.gateway(), &[]).await?;
        let doing = || format!("put {} back on {}", port.name, bridge.link.name);
        // Its record says how it is to be.
        let link = host.link_by_index(port.index).await?.ok_or(Errno::ENODEV).doing(doing)?;
        port::put_back(host, &link, &bridge.link, &network.options.port).await
    }
}
