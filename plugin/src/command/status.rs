//! STATUS: whether an ADD could succeed now (specification 1.1.0, section "STATUS"). It changes nothing.

use std::collections::BTreeSet;

use super::within_deadline;
use crate::config::Network;
use crate::error::{Doing, Error, Result};
use crate::firewall::{forward, masquerade, spoofing};
use crate::ipam::lease;
use crate::link::bridge;
use crate::netlink::{Link, Netlink};
use crate::reply::Reply;
use crate::sysctl;

/// Errors: 50 where an ADD cannot succeed, 51 where the containers that exist suffer too.
pub(super) async fn status(network: &Network) -> Result<Reply> {
    within_deadline(async {
        let host = Netlink::open().doing(|| "open a netlink socket".into())?;
        let not_ready = |suffering: bool, cause: &Error| Error::NotReady {
            what: format!("it would fail to {cause}"),
            suffering,
            remedy: cause.remedy(),
        };
        masquerade::try_out(network).await.map_err(|cause| not_ready(false, &cause))?;
        if network.macspoofchk {
            spoofing::refuse_lacking().await.map_err(|cause| not_ready(false, &cause))?;
        }
        let found = bridge::find(&host, &network.bridge).await.map_err(|cause| not_ready(false, &cause))?;
        let Some(bridge) = found else {
            // The first ADD makes it, unless something is in the way.
            return bridge::refuse_overlap(&host, network).await.map_err(|cause| not_ready(false, &cause));
        };
        bridge::has_gateway(&host, network, &bridge).await.map_err(|cause| not_ready(false, &cause))?;
        let ports = host.ports(bridge.index).await.doing(|| format!("list the ports of {}", bridge.name))?;
        if !ports.is_empty() {
            refuse_suffering(&host, network, &bridge).await?;
        }
        let taken: BTreeSet<_> = ports.iter().flat_map(lease::leases).collect();
        if network.pool.free(&taken).next().is_none() {
            let (first, last) = network.pool.range();
            return Err(not_ready(false, &Error::PoolFull { first, last, bridge: bridge.name }));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::Nothing)
}

/// Errors: 51 where containers are cut off from the gateway. The next ADD would mend it.
async fn refuse_suffering(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    let problem = match bridge::problem(host, network, bridge).await? {
        None if !sysctl::is_forwarding()? => Some("net.ipv4.ip_forward is 0".to_owned()),
        None => forward::problem(network).await?,
        problem => problem,
    };
    match problem {
        None => Ok(()),
        Some(what) => Err(Error::NotReady {
            what: format!("containers are cut off: {what}"),
            suffering: true,
            remedy: "the next ADD mends it, or mend it by hand".into(),
        }),
    }
}
