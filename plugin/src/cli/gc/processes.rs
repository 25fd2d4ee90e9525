//! Which attachments something still lives by, as the kernel's list of processes has it.

use std::collections::BTreeSet;
use std::fs;

use super::attachment::Attachment;
use crate::error::Result;
use crate::netlink::Netlink;
use crate::processes;

/// One look at all processes.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// The numbers of the network namespaces that some process is in.
    pub(super) inhabited: BTreeSet<i32>,
    /// The containers whose whole id is an argument of some process: their monitors, and Podman's clean-up, which may start them again.
    pub(super) tended: BTreeSet<String>,
}

impl Processes {
    /// `attachments` is what is asked about.
    pub(super) async fn look(host: &Netlink, attachments: &[Attachment]) -> Result<Self> {
        let asked: BTreeSet<_> = attachments.iter().filter_map(|it| it.container.as_deref()).collect();
        let mut seen = Self::default();
        for process in processes::all()? {
            seen.inhabited.extend(host.namespace_of(process).await?);
            // One that has ended meanwhile tends nothing.
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let arguments = line.split(|byte| *byte == 0).filter_map(|argument| std::str::from_utf8(argument).ok());
            seen.tended.extend(arguments.filter(|argument| asked.contains(argument)).map(str::to_owned));
        }
        Ok(seen)
    }

    /// Whether a process is in the namespace of the container's end; one that is not in a namespace of its own is not flatnet's to judge.
    pub(super) fn inhabit(&self, attachment: &Attachment) -> bool {
        attachment.link.peer_namespace.is_none_or(|namespace| self.inhabited.contains(&namespace))
    }

    pub(super) fn tend(&self, attachment: &Attachment) -> bool {
        attachment.container.as_ref().is_some_and(|id| self.tended.contains(id))
    }
}
