//! ADD: ties a container to the network.

mod again;

use std::cell::Cell;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::del;
use crate::attachment::{Attachment, Target};
use crate::call::{or_undo, within_deadline, within_part};
use crate::cni::request::Input;
use crate::cni::request::asked::Asked;
use crate::config::Network;
use crate::error::{Error, PREV_RESULT, Result, both, unless_there};
use crate::firewall::ports::{self, Port};
use crate::firewall::spoofing::{self, Guarded, Speaker};
use crate::firewall::{forward, masquerade};
use crate::ipam::lease;
use crate::ipam::pool::Own;
use crate::link::bridge::Bridge;
use crate::link::veth::{Made, Pair};
use crate::link::{bridge, forwarding, ipv6, port, veth};
use crate::mac::Mac;
use crate::netlink::{Link, Netlink};
use crate::netns::Netns;
use crate::processes;
use crate::reply::{self, Reply, Success};
use crate::spec::SpecVersion;

/// What an ADD builds with.
struct Site<'a> {
    network: &'a Network,
    target: &'a Target,
    netns: Netns,
    host: Netlink,
    container: Netlink,
    /// Whether ports may have been published.
    published: Cell<bool>,
    /// Whether rules against spoofing may have been written.
    guarded: Cell<bool>,
    /// Index of the bridge that it works on, once there is one.
    bridge: Cell<Option<u32>>,
}

/// What the plugins before flatnet in its list have done, to which its own is added. Errors: 7.
pub(crate) fn before(config: &Map<String, Value>, version: SpecVersion) -> Result<Success> {
    let before = Success::before(config, version)?.unwrap_or_default();
    match before.refuse_dangling() {
        Ok(()) => Ok(before),
        Err(problem) => Err(Error::Config { key: PREV_RESULT.into(), problem }),
    }
}

/// Answers a CNI runtime's ADD.
pub(super) async fn add(
    input: &Input,
    (mut target, asked): (Target, &Asked),
    mut network: Network,
    before: Success,
) -> Result<Reply> {
    (target.args.ips, target.args.mac) = (asked.of_pools(&network.pools)?, asked.mac);
    Success::refuse_old_version(input.version, !network.is_layer_2())?;
    within_deadline(network.read_resolv_conf()).await?;
    let tell = |own: Success| own.after(before).json(input.version);
    Box::pin(attach_and_remember(&target, &network, None, tell)).await.map(Reply::Added)
}

/// [`attach`] on a network whose addresses are flatnet's to give: the next container of this name gets the same ones, if it can.
pub(crate) async fn attach_and_remember<T>(
    target: &Target,
    network: &Network,
    ports: Option<&[Port]>,
    tell: impl FnOnce(Success) -> Result<T>,
) -> Result<T> {
    let tell_and_remember = |success: Success| {
        let addresses: Vec<_> = success.ips.iter().map(|ip| ip.address.ip()).collect();
        let told = tell(success)?;
        if !addresses.is_empty() {
            Attachment { network: &network.name, target }.memory().remember(&addresses);
        }
        Ok(told)
    };
    attach(target, network, ports, tell_and_remember).await
}

/// Makes the bridge if need be and then the attachment, whole or not at all. `ports` are published, where the runtime leaves
/// that to flatnet; with none (CNI has `portmap` for it) the packet filter is not even looked at. `tell` makes the answer: one that
/// cannot be given undoes all of it.
pub(super) async fn attach<T>(
    target: &Target,
    network: &Network,
    ports: Option<&[Port]>,
    tell: impl FnOnce(Success) -> Result<T>,
) -> Result<T> {
    let netns = Netns::open(&target.netns)?;
    let host = Netlink::open()?;
    let container = Netlink::open_in(&netns)?;
    let (published, guarded, bridge) = (Cell::new(false), Cell::new(false), Cell::new(None));
    let site = Site { network, target, netns, host, container, published, guarded, bridge };
    let mut tell = Some(tell);
    loop {
        let made = Made::default();
        // On the heap: it is tens of kilobytes, and each future around it would be as large once more.
        let work = Box::pin(async {
            let success = site.attach(&made).await?;
            site.publish(ports).await?;
            let tell = tell.take().ok_or_else(|| Error::Internal { message: "an answer was made twice".into() })?;
            tell(success)
        });
        match or_undo(work, || site.undo(&made)).await {
            // As often as it takes: the call's deadline ends it.
            Err(error) if tell.is_some() && site.lost_its_bridge(&error).await => {}
            outcome => return outcome,
        }
    }
}

impl Site<'_> {
    /// The order matters: the pair says whose it is and gets the attachment's name before anything else happens to it, so that GC leaves it
    /// to its network and DEL finds whatever a crash leaves; the address is claimed before anything can use it, and before the rules that
    /// masquerade are looked at, which others write for whoever has one; what the container may say is settled before its port is up; and
    /// the host end is up before the container's, whose rising carrier then opens the bridge port.
    async fn attach(&self, made: &Made) -> Result<Success> {
        let Self { network, target, host, .. } = self;
        let attachment = Attachment { network: &network.name, target };
        let (site, pair) = self.until_bridge_stays(async || self.make_pair(&attachment, made).await).await?;
        let bridge = &site.link;
        host.no_ipv6_by_itself(&pair.host, Some(&attachment.first_record())).await?;
        self.claim_attachment(&pair.host, &attachment).await?;
        port::enter_vlans(host, &pair.host, bridge, &network.options.port).await?;
        let (own, mac) = if network.macspoofchk {
            let (own, mac) = self.claim_addresses(&pair.host, bridge).await?;
            self.raise_guarded(&pair.host, &attachment, (&own, mac)).await?;
            (own, mac)
        } else {
            self.raise_host_end(&pair.host, &attachment).await?;
            self.claim_addresses(&pair.host, bridge).await?
        };
        match masquerade::ensure(host, network, site.gateway(), &[]).await {
            Err(error) if self.lost_its_bridge(&error).await => self.put_back(&pair.host).await?,
            done => done?,
        }
        let routes = self.set_up_container(&pair, &own, mac).await?;
        self.port_opens(&pair.host).await?;
        Ok(self.success(&site, &pair, (&own, mac), routes))
    }

    /// The bridge, with all that lets its containers through, and the pair on it.
    async fn make_pair(&self, attachment: &Attachment<'_>, made: &Made) -> Result<(Bridge, Pair)> {
        let Self { network, netns, host, container, .. } = self;
        let site = bridge::ensure(host, network, &self.bridge).await?;
        forwarding::enable(host, network).await?;
        if let Some(error) = forward::open(host, network).await? {
            // No reason to have no containers: the next try would not end otherwise.
            eprintln!("flatnet: warning: failed to {error} ({})", error.remedy());
        }
        let pair = veth::create((host, container), netns, attachment, &site.link, made).await?;
        Ok((site, pair))
    }

    /// Also without ports: what is published at this address may be a dead container's, and must not lead to this one.
    async fn publish(&self, asked: Option<&[Port]>) -> Result<()> {
        let Some(asked) = asked else { return Ok(()) };
        if asked.is_empty() && !ports::is_in_use(&self.host, self.network.gateway_link()).await {
            return Ok(());
        }
        let attachment = Attachment { network: &self.network.name, target: self.target };
        // On the heap: it is large, and CNI never comes here.
        Box::pin(ports::publish(&self.host, &attachment, asked, &self.published)).await
    }

    async fn undo(&self, made: &Made) -> Result<()> {
        let another;
        let host = if self.host.is_dead() {
            another = Netlink::open()?;
            &another
        } else {
            &self.host
        };
        // Not otherwise: what is published under this name may be of an attachment that exists.
        let withdrawn = if self.published.get() {
            let attachment = Attachment { network: &self.network.name, target: self.target };
            // It may be the packet filter that never answers.
            Box::pin(within_part(ports::withdraw(host, &attachment.name()))).await
        } else {
            Ok(())
        };
        let deleted = made.undo(host).await;
        // Rules are of links that are gone only after that.
        let released = if self.guarded.get() { spoofing::forget_gone(host).await } else { Ok(()) };
        both(withdrawn, both(deleted, released))
    }

    /// Errors: 104.
    async fn claim_attachment(&self, link: &Link, attachment: &Attachment<'_>) -> Result<()> {
        let host = &self.host;
        match lease::claim_attachment(host, link, attachment).await {
            Err(Error::AttachmentExists { .. }) if self.buries_remains(link, attachment).await? => {
                lease::claim_attachment(host, link, attachment).await
            }
            claimed => claimed,
        }
    }

    /// Whether what has the attachment's name was left by an unclean end of this very container, and is gone now: it leads to another
    /// namespace than the container has today, and no process is there.
    async fn buries_remains(&self, own: &Link, attachment: &Attachment<'_>) -> Result<bool> {
        let (host, name) = (&self.host, attachment.name());
        let found = host.link_by_alternative_name(&name).await?;
        let Some(former) = found else { return Ok(true) };
        let is_its_own = lease::is_host_end(&former) && lease::may_be_of_network(&former, attachment.network);
        match former.peer_namespace {
            Some(namespace) if is_its_own && former.peer_namespace != own.peer_namespace => {
                if processes::are_in(host, namespace).await? {
                    return Ok(false);
                }
                del::remove(host, &former).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// An address of each pool, and the MAC that goes with them: IPv4's, where there is one.
    async fn claim_addresses(&self, link: &Link, bridge: &Link) -> Result<(Vec<Own>, Mac)> {
        let Self { network, target, host, .. } = self;
        if let Some(mac) = target.args.mac {
            // First: of two at once that ask for the same, one finds the other.
            lease::claim_mac(host, link, mac, (&bridge.name, network.options.port.vlan)).await?;
            port::refuse_taken_mac(host, mac, (link, network.options.port.vlan), bridge).await?;
        }
        let memory = Attachment { network: &network.name, target }.memory();
        let wish = (target.args.ips.as_slice(), &memory);
        let own = lease::claim_addresses(host, link, &network.pools, wish, bridge).await?;
        let first = own.iter().map(|own| own.address.ip()).min_by_key(IpAddr::is_ipv6);
        let by_name = || Mac::named(&[&target.container, &target.interface]);
        let mac = target.args.mac.unwrap_or_else(|| first.map_or_else(by_name, Mac::of));
        Ok((own, mac))
    }

    async fn raise_host_end(&self, link: &Link, attachment: &Attachment<'_>) -> Result<()> {
        let (settings, record) = (port::settings(&self.network.options.port, false), self.record(attachment, None));
        self.host.set_up_port(link, settings, Some(&record)).await
    }

    /// Whoever is in the container already must not find a moment in which its port is up and nobody looks at what it says.
    async fn raise_guarded(&self, link: &Link, attachment: &Attachment<'_>, (own, mac): (&[Own], Mac)) -> Result<()> {
        self.guarded.set(true);
        let speaker = |own: &Own| Speaker { port: link.index, mac, address: own.address.ip() };
        let guarded = Guarded { link: link.name.clone(), speakers: own.iter().map(speaker).collect() };
        spoofing::guard(&self.host, guarded).await?;
        let (settings, record) = (port::settings(&self.network.options.port, true), self.record(attachment, Some(mac)));
        self.host.set_up_port(link, settings, Some(&record)).await
    }

    /// Gives the routes that it added.
    async fn set_up_container(&self, pair: &Pair, own: &[Own], mac: Mac) -> Result<Vec<reply::Route>> {
        let (container, netns, link) = (&self.container, &self.netns, &pair.container);
        container.set_up_loopback().await?;
        if !own.is_empty() {
            container.no_ipv6_by_itself(link, None).await?;
        }
        if self.network.options.container_down {
            container.set_mac(link, mac).await?;
            return Ok(Vec::new());
        }
        if self.network.options.is_gateway && own.iter().any(|own| own.address.is_ipv6()) {
            ipv6::Place { netlink: container, netns: Some(netns), link }.ignores_routers()?;
        }
        container.set_up_with_mac(link, mac).await?;
        self.give_addresses(pair, own, mac).await?;
        let mut added = Vec::new();
        let mut routes = self.network.container_routes(own)?;
        if let Some(metric) = &self.network.default_metric {
            metric.rank(container, link, &mut routes).await?;
        }
        for route in routes {
            // A container on two networks keeps the first's default route (of this metric, 0), and whatever else both have;
            // and to its own subnet there is the kernel's.
            if unless_there(container.add_route(link, &route).await)? {
                added.push(reply::Route::from(&route));
            }
        }
        Ok(added)
    }

    /// Gives the container's end its addresses; for IPv6 one of its link's own as well, as every link has by itself otherwise. They can
    /// be used, and are heard of, when this is over.
    async fn give_addresses(&self, Pair { host, container: link }: &Pair, own: &[Own], mac: Mac) -> Result<()> {
        let place = ipv6::Place { netlink: &self.container, netns: Some(&self.netns), link };
        let mut addresses: Vec<IpNetwork> = own.iter().map(|own| own.address).collect();
        let asks = self.network.dad;
        if addresses.iter().any(IpNetwork::is_ipv6) {
            addresses.insert(0, ipv6::link_local(mac));
            if asks {
                // Nobody hears the question otherwise.
                self.port_opens(host).await?;
            }
        }
        for address in &addresses {
            place.give(*address, asks).await?;
        }
        if addresses.len() == own.len() {
            return Ok(());
        }
        if asks {
            place.settles().await?;
        }
        place.hears(addresses.iter().map(IpNetwork::ip)).await
    }

    fn record(&self, attachment: &Attachment<'_>, guarded: Option<Mac>) -> String {
        attachment.record(guarded, self.network.options.port.vlan)
    }

    fn success(&self, site: &Bridge, pair: &Pair, (own, mac): (&[Own], Mac), routes: Vec<reply::Route>) -> Success {
        let host_level = |link: &Link| reply::Interface {
            name: link.name.clone(),
            mac: link.mac.map_or_else(String::new, |mac| mac.to_string()),
            mtu: Some(link.mtu),
            ..reply::Interface::default()
        };
        let container = reply::Interface {
            name: pair.container.name.clone(),
            mac: mac.to_string(),
            mtu: Some(pair.container.mtu),
            sandbox: self.netns.path().display().to_string(),
            ..reply::Interface::default()
        };
        let mut interfaces = vec![host_level(&site.link), host_level(&pair.host), container];
        interfaces.extend(site.vlan.as_ref().map(host_level));
        Success {
            interfaces,
            ips: own
                .iter()
                .map(|own| reply::Ip { interface: Some(2), address: own.address, gateway: Some(own.gateway) })
                .collect(),
            routes,
            dns: self.network.dns.clone(),
        }
    }
}
