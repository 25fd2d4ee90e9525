//! CHECK: compares what is there with what ADD said it made.
//!
//! The expectations come from `prevResult`. What plugins after flatnet may have changed or added (a MAC, more routes, more
//! addresses) is not flatnet's to judge.

mod expected;

use nix::errno::Errno;

pub(crate) use self::expected::PrevResult;
use self::expected::{Expected, is_as_reported};
use crate::attachment::{Attachment, Target};
use crate::call::within_deadline;
use crate::config::{Configured, Network};
use crate::error::{Error, Result};
use crate::firewall::{forward, masquerade, spoofing};
use crate::ipam::lease;
use crate::link::{bridge, forwarding, port};
use crate::netlink::{Link, Netlink};
use crate::netns::Netns;
use crate::reply::Reply;

/// Errors: 106 naming the first thing that is not as ADD left it.
pub(super) async fn check(target: &Target, configured: Configured, prev: &PrevResult) -> Result<Reply> {
    within_deadline(async {
        let host = Netlink::open()?;
        let attachment = Attachment { network: configured.name(), target };
        let link = lease::find(&host, &attachment).await?;
        let held: Vec<_> = link.iter().flat_map(lease::leases).collect();
        let network = prev.complete(configured, &held)?;
        let expected = prev.expected(target, &network, &held)?;
        match problem(&host, (target, &network), link, &expected).await? {
            Some(what) => Err(Error::Changed { what }),
            None => Ok(Reply::Nothing),
        }
    })
    .await
}

/// The first thing that is wrong. What is the attachment's alone goes before what its network's containers share: that may be of
/// another network on the bridge, and a lost interface is lost whatever the packet filter has.
async fn problem(
    host: &Netlink,
    (target, network): (&Target, &Network),
    link: Option<Link>,
    expected: &Expected,
) -> Result<Option<String>> {
    let Some(bridge) = bridge::find(host, &network.bridge).await? else {
        return Ok(Some(format!("bridge {} is gone", network.bridge)));
    };
    let Some(link) = link else {
        let name = Attachment { network: &network.name, target }.name();
        return Ok(Some(format!("no host link is called {name}")));
    };
    if let Some(problem) = check_host_link(host, network, (&link, &bridge), expected).await? {
        return Ok(Some(problem));
    }
    if let Some(problem) = check_container(target, network, expected).await? {
        return Ok(Some(problem));
    }
    check_network(host, network, (&link, &bridge)).await
}

/// What is wrong with the attachment's end on the host.
async fn check_host_link(
    host: &Netlink,
    network: &Network,
    (link, bridge): (&Link, &Link),
    expected: &Expected,
) -> Result<Option<String>> {
    if link.bridge != Some(bridge.index) {
        return Ok(Some(format!("host link {} is not a port of {}", link.name, bridge.name)));
    }
    if !link.up {
        return Ok(Some(format!("host link {} is down", link.name)));
    }
    let held: Vec<_> = lease::leases(link).collect();
    if let Some(address) = expected.addresses.iter().find(|address| !held.contains(&address.ip())) {
        return Ok(Some(format!("host link {} holds no lease of {}", link.name, address.ip())));
    }
    if network.macspoofchk && lease::guarded_mac(link).is_none() {
        return Ok(Some(format!("host link {} was made without macspoofchk", link.name)));
    }
    port::problem(host, link, bridge, &network.options.port).await
}

/// What is wrong inside the container.
async fn check_container(target: &Target, network: &Network, expected: &Expected) -> Result<Option<String>> {
    let netns = Netns::open(&target.netns)?;
    let container = Netlink::open_in(&netns)?;
    let name = &target.interface;
    let Some(link) = container.link(name).await? else {
        return Ok(Some(format!("interface {name} is gone from the container")));
    };
    // Who asked for one that is down may have set it up himself.
    if !link.up && !network.options.container_down {
        return Ok(Some(format!("interface {name} is down")));
    }
    let addresses = match container.addresses(&link).await {
        // A DEL at the same moment.
        Err(error) if error.is(Errno::ENODEV) => {
            return Ok(Some(format!("interface {name} is gone from the container")));
        }
        addresses => addresses?,
    };
    if let Some(missing) = expected.addresses.iter().find(|address| !addresses.contains(address)) {
        return Ok(Some(format!("interface {name} lacks the address {missing}")));
    }
    for is_ipv4 in [true, false] {
        let mut reported = expected.routes.iter().filter(|route| route.dst.is_ipv4() == is_ipv4).peekable();
        // A network of one family pays nothing for the other.
        if reported.peek().is_none() {
            continue;
        }
        let there = container.routes_of_all_tables(is_ipv4).await?;
        if let Some(missing) = reported.find(|reported| !there.iter().any(|found| is_as_reported(reported, found))) {
            return Ok(Some(format!("the container lacks the route to {missing}")));
        }
    }
    Ok(None)
}

/// What is wrong with the ways to and from the container: the bridge, forwarding, the packet filter.
async fn check_network(host: &Netlink, network: &Network, (link, bridge): (&Link, &Link)) -> Result<Option<String>> {
    if let Some(problem) = bridge::problem(host, network, bridge).await? {
        return Ok(Some(problem));
    }
    if let Some(setting) = forwarding::problem(network)? {
        return Ok(Some(format!("{setting} is 0")));
    }
    if let Some(problem) = masquerade::problem(network).await? {
        return Ok(Some(problem));
    }
    if let Some(problem) = forward::problem(host, network).await? {
        return Ok(Some(problem));
    }
    if network.macspoofchk { spoofing::problem(std::slice::from_ref(link)).await } else { Ok(None) }
}
