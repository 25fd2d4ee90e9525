//! What a scenario needs of the kernel that not every kernel has, and nobody can install.
//!
//! Invariant: whether it is there is tried out, in a network namespace of its own, and only the kernel's own word says that it is not.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::{Error, LinkBridge, LinkVlan};
use serde::Deserialize;

use crate::lab::Namespace;

/// The namespace in which it is tried out, and a link there.
const PROBE: &str = "probe";

/// A part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// Bridges that keep VLANs apart, and links that stand on one VLAN.
    Vlan,
}

impl Kernel {
    /// What is not there, in words. Must only be called in a world.
    pub fn lacks(self) -> Result<Option<String>> {
        let (there, what) = match self {
            Self::Vlan => (
                keeps_vlans_apart().context("try out whether the kernel keeps VLANs apart")?,
                "it does not keep VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING, CONFIG_VLAN_8021Q)",
            ),
        };
        Ok((!there).then(|| format!("it is not for this kernel: {what}")))
    }
}

fn keeps_vlans_apart() -> Result<bool> {
    let namespace = Namespace::create(PROBE)?;
    let tried = namespace.netlink(async |handle| {
        let bridge = LinkBridge::new(PROBE).vlan_filtering(true).build();
        if !is_taken(handle.link().add(bridge).execute().await).context("make a bridge that keeps VLANs apart")? {
            return Ok(false);
        }
        let index = if_nametoindex(PROBE).context("find that bridge")?;
        let vlan = LinkVlan::new("probe.2", index, 2).build();
        is_taken(handle.link().add(vlan).execute().await).context("make a link that stands on a VLAN")
    });
    namespace.remove()?;
    tried
}

/// That there is no such thing is an answer; any other failure is none.
fn is_taken(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::NetlinkError(err)) if err.raw_code() == -(Errno::EOPNOTSUPP as i32) => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::is_taken;
    use nix::errno::Errno;
    use rstest::rstest;
    use rtnetlink::Error;
    use rtnetlink::packet_core::ErrorMessage;

    fn refusal(errno: Errno) -> Error {
        let mut message = ErrorMessage::default();
        message.code = std::num::NonZero::new(-(errno as i32));
        Error::NetlinkError(message)
    }

    #[rstest]
    #[case(Ok(()), Some(true))]
    #[case(Err(refusal(Errno::EOPNOTSUPP)), Some(false))]
    #[case(Err(refusal(Errno::EPERM)), None)]
    #[case(Err(Error::RequestFailed), None)]
    fn only_the_kernels_own_word_is_a_no(#[case] outcome: Result<(), Error>, #[case] taken: Option<bool>) {
        assert_eq!(is_taken(outcome).ok(), taken);
    }
}
