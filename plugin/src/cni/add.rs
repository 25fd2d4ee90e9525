//! ADD: attaches a container to a network, whole or not at all.

mod again;
mod source;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use serde_json::{Map, Value};

pub(crate) use self::source::Source;
use super::undo::{Entry, Ledger};
use super::{Call, del};
use crate::attachment::{Attachment, Target};
use crate::call::within_deadline;
use crate::cni::request::Input;
use crate::cni::request::requested::Requested;
use crate::config::{Configured, Network};
use crate::error::{Doing, Error, PREV_RESULT, Result, unless_there};
use crate::firewall::ports::{self, Port};
use crate::firewall::spoofing::{self, AllowedSource, Guarded};
use crate::firewall::{forward, masquerade};
use crate::ipam::lease;
use crate::ipam::memory::Memory;
use crate::ipam::pool::Allocation;
use crate::link::bridge::Bridge;
use crate::link::veth::Pair;
use crate::link::{bridge, forwarding, ipv6, port, veth};
use crate::mac::Mac;
use crate::netlink::{Link, Netlink, NewVeth};
use crate::netns::Netns;
use crate::processes;
use crate::reply::{self, Reply, Success};
use crate::rootless;
use crate::spec::{Command, SpecVersion};

/// Answers a CNI runtime's ADD. Whatever can be refused is refused before anything is made.
pub(super) async fn add(call: &Call<'_>, input: &Input) -> Result<Reply> {
    rootless::refuse()?;
    let mut target = call.environment.target(Command::Add)?;
    let configured = Configured::parse(&input.config)?;
    let before = before(&input.config, input.version)?;
    let requested = Requested::read(&target.args, &input.config)?;
    target.args.mac = requested.mac;
    let attached = match configured {
        Configured::Whole(mut network) => {
            target.args.ips = requested.of_pools(&network.pools)?;
            Success::refuse_old_version(input.version, !network.is_layer_2())?;
            within_deadline(network.read_resolv_conf()).await?;
            attach(target, Source::Pools(network), None).await?
        }
        Configured::Delegated(draft, plugin) => {
            let delegate = call.find(&plugin)?;
            let source = Source::Delegate { draft, delegate: &delegate, requested: &requested, version: input.version };
            attach(target, source, None).await?
        }
    };
    Ok(Reply::Added(attached.after(before).json(input.version)))
}

/// What the plugins before flatnet in its list have done, to which its own is added. Errors: 7.
pub(crate) fn before(config: &Map<String, Value>, version: SpecVersion) -> Result<Success> {
    let before = Success::before(config, version)?.unwrap_or_default();
    match before.refuse_dangling() {
        Ok(()) => Ok(before),
        Err(problem) => Err(Error::Config { key: PREV_RESULT.into(), problem }),
    }
}

/// Attaches the container to the network that `source` gives addresses of. `ports` are published, where the runtime leaves that to flatnet;
/// with none (CNI has `portmap` for it) the packet filter is not even looked at.
pub(crate) async fn attach(target: Target, source: Source<'_>, ports: Option<&[Port]>) -> Result<Success> {
    let sockets = Sockets::open(&target)?;
    let mut ledger = Ledger::default();
    // On the heap: it is large.
    let attached = Box::pin(attach_by(&mut ledger, &sockets, target, source, ports)).await;
    ledger.settle(attached, &sockets.host).await
}

/// The same, but what was made when it fails stands in the ledger. Where somebody deletes the bridge meanwhile it begins anew, as often
/// as it takes: the call's deadline ends it.
async fn attach_by<'a>(
    ledger: &mut Ledger<'a>,
    sockets: &Sockets,
    mut target: Target,
    source: Source<'a>,
    ports: Option<&[Port]>,
) -> Result<Success> {
    let remembers = matches!(source, Source::Pools(_));
    let network = within_deadline(source.network(&mut target, sockets, ledger)).await?;
    let attachment = Attachment { network: &network.name, target: &target };
    let memory = attachment.memory();
    let add = Add { network: &network, target: &target, attachment, memory: &memory, sockets, ports };
    let before = ledger.len();
    loop {
        match within_deadline(add.attach(ledger)).await {
            Ok(success) => {
                if remembers && !success.ips.is_empty() {
                    let addresses: Vec<_> = success.ips.iter().map(|ip| ip.address.ip()).collect();
                    memory.remember(&addresses);
                }
                return Ok(success);
            }
            Err(error) if add.lost_its_bridge(&error, ledger).await => {
                let undone = within_deadline(ledger.undo_from(before, &sockets.host)).await;
                undone.map_err(|undo| error.and_then(undo))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The container's network namespace, and a netlink socket at either end of what ties it to the host.
struct Sockets {
    netns: Netns,
    host: Netlink,
    container: Netlink,
}

impl Sockets {
    /// Errors: 4 and 8 for the namespace.
    fn open(target: &Target) -> Result<Self> {
        let netns = Netns::open(&target.netns)?;
        Ok(Self { host: Netlink::open()?, container: Netlink::open_in(&netns)?, netns })
    }
}

/// An ADD at work.
struct Add<'a> {
    network: &'a Network,
    target: &'a Target,
    attachment: Attachment<'a>,
    memory: &'a Memory,
    sockets: &'a Sockets,
    ports: Option<&'a [Port]>,
}

/// What a container is given, and the MAC that goes with it.
struct Identity {
    allocations: Vec<Allocation>,
    mac: Mac,
}

impl Add<'_> {
    /// The order matters: the pair says whose it is and gets the attachment's name before anything else happens to it, so that GC leaves it
    /// to its network and DEL finds whatever a crash leaves; the address is claimed before anything can use it, and before the rules that
    /// masquerade are looked at, which others write for whoever has one; what the container may send is settled before its port is up; and
    /// the host end is up before the container's, whose rising carrier then opens the bridge port.
    async fn attach(&self, ledger: &mut Ledger<'_>) -> Result<Success> {
        let bridge = self.ensure_bridge(ledger).await?;
        let pair = self.make_pair(&bridge.link, ledger).await?;
        self.claim_attachment(&pair.host).await?;
        port::enter_vlans(&self.sockets.host, &pair.host, &bridge.link, &self.network.options.port).await?;
        let identity = self.claim_addresses(&pair.host, &bridge.link).await?;
        self.raise_host_end(&pair.host, &identity).await?;
        self.ensure_masquerade(&bridge, &pair.host, ledger).await?;
        let routes = self.set_up_container(&pair, &identity, ledger).await?;
        self.wait_for_forwarding(&pair.host, ledger).await?;
        self.publish(ledger).await?;
        Ok(self.result(&bridge, &pair, &identity, routes))
    }

    /// The bridge, with all that lets its containers through.
    async fn ensure_bridge(&self, ledger: &mut Ledger<'_>) -> Result<Bridge> {
        let (network, host) = (self.network, &self.sockets.host);
        let bridge = bridge::ensure(host, network, &mut ledger.bridge).await?;
        forwarding::enable(host, network).await?;
        if let Some(error) = forward::open(host, network).await? {
            // No reason to have no containers: the next try would not end otherwise.
            eprintln!("flatnet: warning: {error} ({})", error.remedy());
        }
        Ok(bridge)
    }

    /// The pair on the bridge, whose host end says which network it is of. Errors: 103 where the container has an interface of that name.
    async fn make_pair(&self, bridge: &Link, ledger: &mut Ledger<'_>) -> Result<Pair> {
        let Sockets { netns, host, container } = self.sockets;
        let interface = &self.target.interface;
        if self.network.macspoofchk {
            ledger.write(Entry::AllowedSources);
        }
        for name in self.attachment.host_names() {
            let new = NewVeth { host: &name, container: interface, netns, bridge: bridge.index, mtu: bridge.mtu };
            ledger.write(Entry::PairRequested(name.clone()));
            let Some(pair) = veth::create(host, &new).await? else {
                // Either name may be the one that is taken: the container's is an error, the host's is not.
                ledger.strike();
                veth::refuse_existing(container, netns, interface).await?;
                continue;
            };
            ledger.amend(Entry::Pair(Box::new(pair.host.clone())));
            host.no_ipv6_by_itself(&pair.host, Some(&self.attachment.first_record())).await?;
            return Ok(pair);
        }
        Err(Errno::EEXIST).doing(|| format!("find a free name for the host end of {interface}"))
    }

    /// Errors: 104.
    async fn claim_attachment(&self, link: &Link) -> Result<()> {
        let host = &self.sockets.host;
        match lease::claim_attachment(host, link, &self.attachment).await {
            Err(Error::AttachmentExists { .. }) if self.remove_remains(link).await? => {
                lease::claim_attachment(host, link, &self.attachment).await
            }
            claimed => claimed,
        }
    }

    /// Whether what has the attachment's name was left by an unclean end of this very container, and is gone now: it leads to another
    /// namespace than the container has today, and no process is there.
    async fn remove_remains(&self, own: &Link) -> Result<bool> {
        let (host, name) = (&self.sockets.host, self.attachment.name());
        let Some(former) = host.link_by_alternative_name(&name).await? else { return Ok(true) };
        let is_its_own = lease::is_host_end(&former) && lease::may_be_of_network(&former, self.attachment.network);
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
    async fn claim_addresses(&self, link: &Link, bridge: &Link) -> Result<Identity> {
        let Self { network, target, memory, .. } = *self;
        let (host, vlan) = (&self.sockets.host, network.options.port.vlan);
        if let Some(mac) = target.args.mac {
            // First: of two at once that ask for the same, one finds the other.
            lease::claim_mac(host, link, mac, (&bridge.name, vlan)).await?;
            port::refuse_taken_mac(host, mac, (link, vlan), bridge).await?;
        }
        let wish = (target.args.ips.as_slice(), memory);
        let allocations = lease::claim_addresses(host, link, &network.pools, wish, bridge).await?;
        let first = allocations.iter().map(|own| own.address.ip()).min_by_key(IpAddr::is_ipv6);
        let by_name = || Mac::named(&[&target.container, &target.interface]);
        let mac = target.args.mac.unwrap_or_else(|| first.map_or_else(by_name, Mac::of));
        Ok(Identity { allocations, mac })
    }

    /// Sets the bridge's port up, with its record. Where the network says so its rules are there first: a process that is in the container
    /// already must not find a moment in which it can send as it likes.
    async fn raise_host_end(&self, link: &Link, Identity { allocations, mac }: &Identity) -> Result<()> {
        let (host, options) = (&self.sockets.host, &self.network.options.port);
        let guarded = self.network.macspoofchk.then_some(*mac);
        if let Some(mac) = guarded {
            let source = |own: &Allocation| AllowedSource { port: link.index, mac, address: own.address.ip() };
            let allowed_sources = allocations.iter().map(source).collect();
            spoofing::guard(host, Guarded { link: link.name.clone(), allowed_sources }).await?;
        }
        let record = self.attachment.record(guarded, options.vlan);
        host.set_up_port(link, port::settings(options, guarded.is_some()), Some(&record)).await
    }

    async fn ensure_masquerade(&self, bridge: &Bridge, port: &Link, ledger: &mut Ledger<'_>) -> Result<()> {
        match masquerade::ensure(&self.sockets.host, self.network, bridge.gateway(), &[]).await {
            Err(error) if self.lost_its_bridge(&error, ledger).await => self.put_back(port, ledger).await,
            done => done,
        }
    }

    /// Gives the routes that it added.
    async fn set_up_container(
        &self,
        pair: &Pair,
        identity @ Identity { allocations, mac }: &Identity,
        ledger: &mut Ledger<'_>,
    ) -> Result<Vec<reply::Route>> {
        let (Sockets { netns, container, .. }, link) = (self.sockets, &pair.container);
        container.set_up_loopback().await?;
        if !allocations.is_empty() {
            container.no_ipv6_by_itself(link, None).await?;
        }
        if self.network.options.container_down {
            container.set_mac(link, *mac).await?;
            return Ok(Vec::new());
        }
        if self.network.options.is_gateway && allocations.iter().any(|own| own.address.is_ipv6()) {
            ipv6::Place { netlink: container, netns: Some(netns), link }.ignores_routers()?;
        }
        container.set_up_with_mac(link, *mac).await?;
        self.give_addresses(pair, identity, ledger).await?;
        self.add_routes(link, allocations).await
    }

    /// Gives the container's end its addresses; for IPv6 one of its link's own as well, as every link has by itself otherwise. They can
    /// be used, and neighbour solicitations for them arrive, when this is over.
    async fn give_addresses(
        &self,
        Pair { host, container: link }: &Pair,
        Identity { allocations, mac }: &Identity,
        ledger: &mut Ledger<'_>,
    ) -> Result<()> {
        let place = ipv6::Place { netlink: &self.sockets.container, netns: Some(&self.sockets.netns), link };
        let mut addresses: Vec<IpNetwork> = allocations.iter().map(|own| own.address).collect();
        let asks = self.network.dad;
        if addresses.iter().any(IpNetwork::is_ipv6) {
            addresses.insert(0, ipv6::link_local(*mac));
            if asks {
                // Nobody hears the question otherwise.
                self.wait_for_forwarding(host, ledger).await?;
            }
        }
        for address in &addresses {
            place.give(*address, asks).await?;
        }
        if addresses.len() == allocations.len() {
            return Ok(());
        }
        if asks {
            place.wait_for_dad().await?;
        }
        place.wait_for_mld_join(addresses.iter().map(IpNetwork::ip)).await
    }

    async fn add_routes(&self, link: &Link, allocations: &[Allocation]) -> Result<Vec<reply::Route>> {
        let container = &self.sockets.container;
        let mut routes = self.network.container_routes(allocations)?;
        if let Some(metric) = &self.network.default_metric {
            metric.rank(container, link, &mut routes).await?;
        }
        let mut added = Vec::new();
        for route in routes {
            // A container on two networks keeps the first's default route (of this metric, 0), and whatever else both have;
            // and to its own subnet there is the kernel's.
            if unless_there(container.add_route(link, &route).await)? {
                added.push(reply::Route::from(&route));
            }
        }
        Ok(added)
    }

    /// Also without ports: what is published at this address may be a dead container's, and must not lead to this one.
    async fn publish(&self, ledger: &mut Ledger<'_>) -> Result<()> {
        let (host, Some(asked)) = (&self.sockets.host, self.ports) else { return Ok(()) };
        if asked.is_empty() && !ports::is_in_use(host, self.network.gateway_link()).await {
            return Ok(());
        }
        let before = || ledger.write(Entry::Published(self.attachment.name()));
        // On the heap: it is large, and CNI never comes here.
        Box::pin(ports::publish(host, &self.attachment, asked, before)).await
    }

    fn result(&self, bridge: &Bridge, pair: &Pair, identity: &Identity, routes: Vec<reply::Route>) -> Success {
        let host_level = |link: &Link| reply::Interface {
            name: link.name.clone(),
            mac: link.mac.map_or_else(String::new, |mac| mac.to_string()),
            mtu: Some(link.mtu),
            ..reply::Interface::default()
        };
        let container = reply::Interface {
            name: pair.container.name.clone(),
            mac: identity.mac.to_string(),
            mtu: Some(pair.container.mtu),
            sandbox: self.sockets.netns.path().display().to_string(),
            ..reply::Interface::default()
        };
        let mut interfaces = vec![host_level(&bridge.link), host_level(&pair.host), container];
        interfaces.extend(bridge.vlan.as_ref().map(host_level));
        let ip = |own: &Allocation| reply::Ip { interface: Some(2), address: own.address, gateway: Some(own.gateway) };
        let ips = identity.allocations.iter().map(ip).collect();
        Success { interfaces, ips, routes, dns: self.network.dns.clone() }
    }
}
