//! Other network namespaces, by the numbers that this one has for them.

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::Netlink;
use crate::error::{Doing, Result};

impl Netlink {
    /// This namespace's number for that of a process; nothing where it has none (no link leads there), or the process has ended.
    pub(crate) async fn namespace_of(&self, process: u32) -> Result<Option<i32>> {
        let found = self.number_of(process).await;
        found.doing(|| format!("find the network namespace of process {process}"))
    }

    async fn number_of(&self, process: u32) -> Result<Option<i32>, Errno> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Pid(process));
        let found = match self.get(RouteNetlinkMessage::GetNsId(message)).await {
            Ok(RouteNetlinkMessage::NewNsId(found)) => found,
            Ok(_) => return Err(Errno::EPROTO),
            Err(Errno::ESRCH) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let id = |attribute| if let NsidAttribute::Id(id) = attribute { Some(id) } else { None };
        Ok(found.attributes.into_iter().find_map(id).filter(|id| *id >= 0))
    }
}
