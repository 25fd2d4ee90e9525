//! STATUS: whether an ADD could succeed now (specification 1.1.0, section "STATUS"). It changes nothing.

use std::collections::BTreeSet;

use super::trial;
use crate::call::within_deadline;
use crate::config::{Draft, Network};
use crate::error::{Error, Result};
use crate::firewall::{forward, masquerade, spoofing};
use crate::ipam::lease;
use crate::link::{bridge, forwarding, ipv6};
use crate::netlink::{Link, Netlink};
use crate::reply::Reply;

/// The part that is flatnet's where another plugin gives the addresses: before the first of them all that can be seen to be wrong is the
/// bridge's name, or a kernel without what keeps from spoofing, or VLANs apart. Errors: 50 and 51.
pub(super) async fn status_of_delegated(draft: Draft) -> Result<Reply> {
    within_deadline(async {
        let host = Netlink::open()?;
        trial::refuse_lacking_vlans(&draft).map_err(|cause| not_ready(false, &cause))?;
        if draft.macspoofchk {
            spoofing::refuse_lacking().await.map_err(|cause| not_ready(false, &cause))?;
        }
        let found = bridge::find(&host, &draft.bridge).await.map_err(|cause| not_ready(false, &cause))?;
        let Some(bridge) = found else { return refuse_orphans(&host, &draft.name, &draft.bridge).await };
        let ports = host.ports(&bridge).await?;
        match bridge::told(&host, &draft, &bridge).await? {
            Some(pools) => {
                let network = draft.with(pools);
                masquerade::try_out(&network).await.map_err(|cause| not_ready(false, &cause))?;
                if ports.is_empty() { Ok(()) } else { refuse_suffering(&host, &network, &bridge).await }
            }
            None if ports.is_empty() || !draft.options.is_gateway => Ok(()),
            None => Err(cut_off(&format!("bridge {} has no address", bridge.name))),
        }
    })
    .await?;
    Ok(Reply::Nothing)
}

/// Errors: 50 where an ADD cannot succeed, 51 where the containers that exist suffer too.
pub(super) async fn status(mut network: Network) -> Result<Reply> {
    within_deadline(async {
        network.read_resolv_conf().await.map_err(|cause| not_ready(false, &cause))?;
        let network = &network;
        let host = Netlink::open()?;
        trial::refuse_lacking_vlans(network).map_err(|cause| not_ready(false, &cause))?;
        ipv6::refuse_lacking(network).map_err(|cause| not_ready(false, &cause))?;
        masquerade::try_out(network).await.map_err(|cause| not_ready(false, &cause))?;
        if network.macspoofchk {
            spoofing::refuse_lacking().await.map_err(|cause| not_ready(false, &cause))?;
        }
        let found = bridge::find(&host, &network.bridge).await.map_err(|cause| not_ready(false, &cause))?;
        let Some(bridge) = found else {
            refuse_orphans(&host, &network.name, &network.bridge).await?;
            // The first ADD makes it, unless something is in the way.
            return bridge::refuse_overlap(&host, network).await.map_err(|cause| not_ready(false, &cause));
        };
        bridge::has_gateways(&host, network, &bridge).await.map_err(|cause| not_ready(false, &cause))?;
        let ports = host.ports(&bridge).await?;
        if !ports.is_empty() {
            refuse_suffering(&host, network, &bridge).await?;
        }
        let taken: BTreeSet<_> = ports.iter().flat_map(lease::leases).collect();
        if let Some(full) = network.pools.iter().find(|pool| pool.free(&taken).next().is_none()) {
            return Err(not_ready(false, &Error::PoolFull { pool: full.to_string(), bridge: bridge.name }));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::Nothing)
}

/// Error 50 or 51: what an ADD would fail with.
/// Errors: 51 where containers suffer, else 50.
pub(super) fn not_ready(suffering: bool, cause: &Error) -> Error {
    Error::NotReady { what: format!("ADD would fail: {cause}"), suffering, remedy: cause.remedy() }
}

/// What a plugin's own STATUS says is handed on as it is; where there is none to ask, or it does not answer, no ADD can succeed either.
pub(super) fn without_delegate(error: Error) -> Error {
    match error {
        Error::Delegate { .. } | Error::DelegateSilent { .. } => not_ready(false, &error),
        error => error,
    }
}

/// Errors: 51 where containers have no bridge. The next ADD would mend it.
async fn refuse_orphans(host: &Netlink, network: &str, bridge: &str) -> Result<()> {
    let orphans = lease::of_network(host, network).await?.into_iter().filter(|(_, link)| link.bridge.is_none());
    match orphans.count() {
        0 => Ok(()),
        _ => Err(cut_off(&format!("bridge {bridge} is gone"))),
    }
}

/// Errors: 51 where containers are cut off from the gateway. The next ADD would mend it.
async fn refuse_suffering(host: &Netlink, network: &Network, bridge: &Link) -> Result<()> {
    let problem = match bridge::problem(host, network, bridge).await? {
        None => forwarding::problem(network)?.map(|setting| format!("{setting} is 0")),
        problem => problem,
    };
    let problem = match problem {
        None => forward::problem(host, network).await?,
        problem => problem,
    };
    problem.map_or(Ok(()), |what| Err(cut_off(&what)))
}

fn cut_off(what: &str) -> Error {
    Error::NotReady {
        what: format!("containers are cut off: {what}"),
        suffering: true,
        remedy: "start a container on this network, which repairs it, or repair it by hand".into(),
    }
}
