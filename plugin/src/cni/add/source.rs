//! Where a container's addresses come from: the network's own pools, which may be none, or another plugin (`ipam.type`).

use std::net::IpAddr;

use super::{Entry, Ledger, Sockets};
use crate::attachment::{Attachment, Target};
use crate::cni::request::requested::Requested;
use crate::config::{Draft, Network};
use crate::delegate::Delegate;
use crate::error::{Error, Result};
use crate::ipam::lease;
use crate::link::veth;
use crate::spec::{Command, SpecVersion};

/// Who gives a container its addresses.
pub(crate) enum Source<'a> {
    /// flatnet, as the pools and leases say.
    Pools(Network),
    /// Another plugin, whatever was requested.
    Delegate { draft: Draft, delegate: &'a Delegate<'a>, requested: &'a Requested, version: SpecVersion },
}

impl<'a> Source<'a> {
    /// The network with all its addresses. Another plugin is asked now, before anything is made: what it gives is then claimed as if the
    /// runtime had asked for it, so that an address that is given twice is refused. What it gives to an ADD that fails it takes back last.
    /// Errors: its own; 2, 11 and 110; 103 and 104 where the container is attached already.
    pub(super) async fn network(
        self,
        target: &mut Target,
        sockets: &Sockets,
        ledger: &mut Ledger<'a>,
    ) -> Result<Network> {
        let (draft, delegate, requested, version) = match self {
            Self::Pools(network) => return Ok(network),
            Self::Delegate { draft, delegate, requested, version } => (draft, delegate, requested, version),
        };
        // The other plugin knows an attachment by container and interface, as flatnet does: were it asked once more for one that
        // exists, undoing would take that one's address.
        lease::refuse_existing(&sockets.host, &Attachment { network: &draft.name, target }).await?;
        veth::refuse_existing(&sockets.container, &sockets.netns, &target.interface).await?;
        let running = delegate.start(Command::Add)?;
        ledger.write(Entry::Delegated(delegate));
        let given = running.result(version).await?;
        if let Some((address, source)) = requested.missing_in(&given.addresses) {
            let given: Vec<_> = given.addresses.iter().map(IpAddr::to_string).collect();
            let given = given.join(", ");
            return Err(Error::Unsupported {
                key: source.to_owned(),
                value: address.to_string(),
                remedy: format!("request none: the plugin of ipam.type has given {given} instead"),
            });
        }
        target.args.ips.clone_from(&given.addresses);
        Ok(given.complete(draft))
    }
}
