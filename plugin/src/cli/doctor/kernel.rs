//! Whether the kernel can do what flatnet asks of it, tried for real, and never on the host's network.

use std::path::Path;

use nix::errno::Errno;

use super::finding::{Finding, KERNEL, KERNEL_LINKS, ROOT};
use crate::cli::probe::Host;
use crate::cni::trial::{self, Tried};
use crate::error::{Doing, Error, Result};
use crate::netlink::{Netlink, NewVeth};
use crate::netns::Netns;

/// Alternative names came with Linux 5.5.
const OLDEST: (u32, u32) = (5, 5);
/// As long as an alternative name can be; the kernel then has all that a lease needs.
const LONG_NAME: &str = "flatnet-att-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef@eth0";

pub(super) fn check(host: &Host) -> Vec<Finding> {
    vec![root(host), version(&host.release), links(host)]
}

fn root(host: &Host) -> Finding {
    if host.root {
        return ROOT.ok("root");
    }
    ROOT.warning("an ordinary user: some lines are skipped", "run it as root: `sudo flatnet doctor`")
}

fn version(release: &str) -> Finding {
    match parse_release(release) {
        Some(version) if version < OLDEST => {
            KERNEL.bad(
                release,
                "install a newer kernel (on Windows: `wsl --update`, and `wsl --set-version <distribution> 2` for one that is still WSL 1)",
            )
        }
        Some(_) => KERNEL.ok(release),
        None => KERNEL.skipped(format!("the release {release:?} does not say which version it is")),
    }
}

/// `6.1` of `6.1.0-18-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn links(host: &Host) -> Finding {
    if !host.root {
        return KERNEL_LINKS.skipped("not root: not tried");
    }
    match trial::alone(make_all) {
        Tried::Done(Ok(())) => KERNEL_LINKS.ok("bridge, veth and alternative names work (tested in a scratch namespace)"),
        Tried::Done(Err(error @ Error::Kernel { errno: Errno::EOPNOTSUPP, .. })) => KERNEL_LINKS.bad(
            error.to_string(),
            "the kernel lacks the bridge or veth module, or is older than 5.5: load or install it (`modprobe bridge veth`; on WSL: `wsl --update` on Windows)",
        ),
        Tried::Done(Err(error)) => KERNEL_LINKS.failed(&error),
        Tried::NotAllowed(errno) => KERNEL_LINKS.skipped(format!("no network namespace may be made here: {}", errno.desc())),
        Tried::Panicked => KERNEL_LINKS.skipped("the trial ended by a bug in flatnet"),
    }
}

/// Does what an ADD does, in the namespace of the calling thread, which must be its own.
async fn make_all() -> Result<()> {
    let netlink = Netlink::open()?;
    let bridge = trial::make_bridge(&netlink, false).await?;
    let netns = Netns::open(Path::new("/proc/thread-self/ns/net"))?;
    let pair = NewVeth { host: "trial-host", container: "trial", netns: &netns, bridge: bridge.index, mtu: 1500 };
    netlink.add_veth(&pair).await?;
    let link = netlink.made_link(pair.host).await?;
    netlink.add_alternative_name(&link, LONG_NAME).await?;
    match netlink.link_by_alternative_name(LONG_NAME).await? {
        Some(found) if found.index == link.index => Ok(()),
        _ => Err(Errno::EOPNOTSUPP).doing(|| "find a link by its alternative name".into()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::State;
    use super::*;

    #[rstest]
    #[case::debian("6.1.0-18-amd64", State::Ok)]
    #[case::wsl("5.15.153.1-microsoft-standard-WSL2", State::Ok)]
    #[case::first("5.5.0", State::Ok)]
    #[case::old("5.4.0-150-generic", State::Bad)]
    #[case::older("4.19.128-microsoft-standard", State::Bad)]
    #[case::nonsense("unknown", State::Skipped)]
    fn versions(#[case] release: &str, #[case] expected: State) {
        assert_eq!(version(release).state, expected);
    }
}
