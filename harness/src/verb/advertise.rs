//! `advertise`: a router advertisement, as the routers of a provider's or an office's network send them.
//!
//! Invariant: one frame, which says what the step says: there is no router behind it.

use std::net::Ipv6Addr;

use anyhow::{Context, anyhow};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::frame::ipv6::{self, Header, Message};
use crate::frame::{self, Envelope};
use crate::lab::{Tap, View};
use crate::scenario::Setting;
use crate::world::World;

/// `{ advertise = "windows", link = "eth1" }`: the host says on that wire that it is a router.
#[derive(Debug)]
pub(super) struct Advertise {
    host: String,
    options: AdvertiseOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdvertiseOptions {
    link: Option<String>,
    lifetime_s: Option<u16>,
}

impl Advertise {
    pub(super) fn new(host: String, options: AdvertiseOptions) -> Self {
        Self { host, options }
    }

    fn link(&self) -> &str {
        self.options.link.as_deref().unwrap_or("eth0")
    }
}

impl Verb for Advertise {
    fn describe(&self) -> String {
        format!("advertise {} on {}", self.host, self.link())
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let host = setting.hosts.get(&self.host).ok_or_else(|| format!("there is no host named {}", self.host));
        misfit("advertise", host.as_ref().map_err(Clone::clone))?;
        let eth = self.link().strip_prefix("eth").and_then(|number| number.parse::<usize>().ok());
        let wire = host.ok().zip(eth).and_then(|(host, eth)| host.wires.get(eth));
        let fits = match wire {
            None => Err(format!("{} has no wire at {}", self.host, self.link())),
            Some(addresses) if !addresses.iter().any(IpNetwork::is_ipv6) => {
                Err(format!("{} has no IPv6 address on {}", self.host, self.link()))
            }
            Some(_) => Ok(()),
        };
        misfit("link", fits)
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let host = &world.lab.host(&self.host)?.namespace;
        let view = View::of(host)?;
        let link = view.link(self.link()).ok_or_else(|| anyhow!("find {} of {}", self.link(), self.host))?;
        let own = link.link_locals.first().and_then(|own| own.split('/').next()?.parse::<Ipv6Addr>().ok());
        let own = own.with_context(|| format!("find the link-local address of {}'s {}", self.host, link.name))?;
        let mac = frame::mac(&link.mac).map_err(|text| anyhow!(text))?;
        let (everybody, group) = ipv6::ALL_NODES;
        let envelope = Envelope { source: mac, destination: group, vlan: None };
        let header = Header { source: own, destination: everybody, flow: 0, behind: None };
        let lifetime_s = self.options.lifetime_s.unwrap_or(ipv6::ROUTER_LIFETIME_S);
        let advertisement = ipv6::packet(envelope, &header, Message::RouterAdvertisement(mac, lifetime_s));
        host.enter(|| Tap::open(&link.name)?.send_in_order(&[&advertisement]))?;
        Ok(String::new())
    }
}
