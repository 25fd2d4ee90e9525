//! Going on with an ADD whose bridge somebody deletes meanwhile.
//!
//! What is made stays: the host's end of the pair is made a port of the next bridge. An ADD that began anew each time would hardly ever end
//! where somebody deletes one bridge after the other.

use std::time::Duration;

use nix::errno::Errno;

use super::Site;
use crate::call::within_deadline;
use crate::deadline::waiting_for;
use crate::error::{Doing, Error, Result};
use crate::firewall::masquerade;
use crate::link::{bridge, port};
use crate::netlink::Link;

/// The kernel opens a bridge port from a work queue, some microseconds after its carrier: the first look finds it open, as a rule.
const PORT_INTERVAL: Duration = Duration::from_millis(1);

impl Site<'_> {
    /// `work`, again whenever the bridge was deleted under it. The call's deadline ends that.
    pub(super) async fn until_bridge_stays<T>(&self, work: impl AsyncFn() -> Result<T>) -> Result<T> {
        loop {
            match work().await {
                Err(error) if self.lost_its_bridge(&error).await => {}
                done => return done,
            }
        }
    }

    /// Whether that failed because somebody deleted the bridge meanwhile: then nothing is against another try, with a new one.
    pub(super) async fn lost_its_bridge(&self, error: &Error) -> bool {
        match (error, self.bridge.get()) {
            // What is left of it may be in the way, or there is no time.
            (Error::AndThen { .. } | Error::Deadline { .. } | Error::Internal { .. }, _) => false,
            (_, Some(index)) => {
                matches!(within_deadline(self.host.link_by_index(index)).await, Ok(None))
            }
            // It was gone right after it was made.
            (Error::Kernel { errno, .. }, None) => *errno == Errno::ENODEV,
            (_, None) => false,
        }
    }

    /// Frames pass only once the port forwards; ADD is not done before. One whose other end stays down never does.
    pub(super) async fn port_opens(&self, link: &Link) -> Result<()> {
        if self.network.options.container_down {
            return Ok(());
        }
        loop {
            let found = self.host.link_by_index(link.index).await?;
            match found {
                Some(link) if link.forwarding => return Ok(()),
                // Somebody has deleted the bridge under it, and no port opens without one.
                Some(link) if link.bridge.is_none() => self.put_back(&link).await?,
                Some(_) => {
                    let what = format!("{} to forward on bridge {}", link.name, self.network.bridge);
                    waiting_for(what, tokio::time::sleep(PORT_INTERVAL)).await;
                }
                None => return Err(Errno::ENODEV).doing(|| format!("wait for {} to forward", link.name)),
            }
        }
    }

    /// Makes the host's end, which is up, a port of a new bridge, whose rules may have been swept with the one before.
    pub(super) async fn put_back(&self, port: &Link) -> Result<()> {
        let Self { network, host, .. } = self;
        let put_back = async || {
            let bridge = bridge::ensure(host, network, &self.bridge).await?;
            masquerade::ensure(host, network, bridge.gateway(), &[]).await?;
            let doing = || format!("put {} back on {}", port.name, bridge.link.name);
            // Its record says how it is to be.
            let link = host.link_by_index(port.index).await?.ok_or(Errno::ENODEV).doing(doing)?;
            port::put_back(host, &link, &bridge.link, &network.options.port).await
        };
        // On the heap, as it is seldom needed, and large.
        Box::pin(self.until_bridge_stays(put_back)).await
    }
}
