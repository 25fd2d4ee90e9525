//! `spoof`: frames that say something else than the truth about who sends them, and whether they arrive.
//!
//! Invariant: a true frame of the same container goes behind each: only when that has arrived is the other known to be dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::frame::ipv6::{self, Extension, Message};
use crate::frame::{self, BROADCAST, Claim, Envelope, Mac};
use crate::lab::{Ears, Tap, View};
use crate::scenario::Setting;
use crate::world::World;

/// How long the true frame may take to arrive, unless the step says otherwise.
const PATIENCE_MS: u64 = 5000;

/// The group that is reported: of a service that nobody here has.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x87);
/// The container's link, unless the step says otherwise.
const LINK: &str = "eth0";

/// `{ spoof = "web", to = "db", ip = "10.87.1.1", expect = "dropped" }`
#[derive(Debug)]
pub(super) struct Spoof {
    container: String,
    options: SpoofOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpoofOptions {
    to: String,
    ifname: Option<String>,
    network: Option<String>,
    #[serde(default)]
    frame: Kind,
    mac: Option<String>,
    sender: Option<String>,
    ip: Option<IpAddr>,
    target: Option<Ipv6Addr>,
    behind: Option<Extension>,
    vlan: Option<u16>,
    ports: Option<[u16; 2]>,
    destination: Option<String>,
    timeout_ms: Option<u64>,
    expect: Expected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Udp,
    Arp,
    /// IPv6 that carries nothing, a datagram or an echo request.
    Ipv6,
    Udp6,
    Echo6,
    /// Neighbour and router discovery: solicitations and advertisements of each; and a redirect.
    Ns,
    Na,
    Rs,
    Ra,
    Redirect,
    /// What a host tells of its groups.
    Mld,
}

impl Kind {
    fn is_ipv6(self) -> bool {
        !matches!(self, Self::Udp | Self::Arp)
    }

    /// Whether it tells a hardware address beside the frame's.
    fn has_sender(self) -> bool {
        matches!(self, Self::Arp | Self::Ns | Self::Na | Self::Rs | Self::Ra | Self::Redirect)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Seen,
    Dropped,
}

impl Expected {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Dropped => "dropped",
        }
    }
}

/// One end: a link, and what it truly is.
struct End {
    link: String,
    mac: Mac,
    addresses: Vec<IpAddr>,
}

impl End {
    fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// The one that its link has by itself, where it has no other.
    fn ipv6(&self) -> Ipv6Addr {
        let given = self.addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        given.unwrap_or_else(|| link_local(self.mac))
    }
}

impl Spoof {
    pub(super) fn new(container: String, options: SpoofOptions) -> Self {
        Self { container, options }
    }

    /// Of a datagram; what the other end listens at is `port`.
    fn ports(&self, port: u16) -> [u16; 2] {
        self.options.ports.unwrap_or([frame::SOURCE_PORT, port])
    }

    /// The frame that may be a lie, and what is in it and in no other, all of it.
    fn lie(&self, from: &End, to: &End, port: u16) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        let options = &self.options;
        let given = |text: &Option<String>| text.as_deref().map(frame::mac).transpose().map_err(|text| anyhow!(text));
        let source = given(&options.mac)?.unwrap_or(from.mac);
        let to_all = if options.frame == Kind::Arp { BROADCAST } else { to.mac };
        let destination = given(&options.destination)?.unwrap_or(to_all);
        let envelope = Envelope { source, destination, vlan: options.vlan };
        let sender = given(&options.sender)?.unwrap_or(source);
        if options.frame.is_ipv6() {
            return Ok(self.lie_of_ipv6(from, to, (envelope, sender), port));
        }
        let mark = mark("a lie");
        let (own, theirs) = (need_ipv4(from)?, need_ipv4(to)?);
        let address = match options.ip {
            Some(IpAddr::V4(address)) => address,
            _ => own,
        };
        let frame = match options.frame {
            Kind::Arp => {
                // Who has no address yet asks whether another has it; who has one tells.
                let target = if address.is_unspecified() { theirs } else { address };
                frame::arp(envelope, Claim { mac: sender, address, target }, &mark)
            }
            _ => frame::udp(envelope, address, theirs, self.ports(port), &mark),
        };
        Ok((frame, vec![mark]))
    }

    /// Messages of neighbour discovery have no room for a mark: the header tells them from others, by its flow's number.
    fn lie_of_ipv6(
        &self,
        from: &End,
        to: &End,
        (envelope, sender): (Envelope, Mac),
        port: u16,
    ) -> (Vec<u8>, Vec<Vec<u8>>) {
        let options = &self.options;
        let source = match options.ip {
            Some(IpAddr::V6(address)) => address,
            // A link that was given none speaks for whatever MAC it says.
            _ if from.addresses.iter().any(IpAddr::is_ipv6) => from.ipv6(),
            _ => link_local(envelope.source),
        };
        let header = ipv6::Header { source, destination: to.ipv6(), flow: number(), behind: options.behind };
        let data = mark("a lie");
        // Who has no address yet has nothing to be answered at.
        let asker = Some(sender).filter(|_| !source.is_unspecified());
        let message = match options.frame {
            Kind::Udp6 => Message::Udp(self.ports(port), &data),
            Kind::Echo6 => Message::Echo(&data),
            Kind::Ns => Message::Solicitation(options.target.unwrap_or(to.ipv6()), asker),
            Kind::Na => Message::Advertisement(options.target.unwrap_or(source), Some(sender)),
            Kind::Rs => Message::RouterSolicitation(asker),
            Kind::Ra => Message::RouterAdvertisement(sender, ipv6::ROUTER_LIFETIME_S),
            Kind::Redirect => Message::Redirect(options.target.unwrap_or(source), sender),
            Kind::Mld => Message::Report(options.target.unwrap_or(GROUP)),
            _ => Message::Nothing(&data),
        };
        (ipv6::packet(envelope, &header, message), ipv6::signs(&header, message))
    }
}

fn need_ipv4(end: &End) -> Result<Ipv4Addr> {
    end.ipv4().with_context(|| format!("find an IPv4 address of {}", end.link))
}

/// The address that a link has by itself (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    address[8..11].copy_from_slice(&mac[..3]);
    address[13..].copy_from_slice(&mac[3..]);
    address[8] ^= 2;
    address.into()
}

/// Counts the frames of this process.
fn number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// What no other frame has in it.
fn mark(what: &str) -> Vec<u8> {
    format!("<flatnet's harness: {what} {} of {}>", number(), std::process::id()).into_bytes()
}

fn end(world: &mut World, place: &str, link: &str) -> Result<End> {
    let view = View::of(world.place(place)?)?;
    let found = view.link(link).with_context(|| format!("find {link} of {place}"))?;
    let addresses = frame::addresses(&found.addresses).collect();
    Ok(End { link: link.to_owned(), mac: frame::mac(&found.mac).map_err(|text| anyhow!(text))?, addresses })
}

/// A datagram of the family that both have.
fn true_frame(from: &End, to: &End, envelope: Envelope, port: u16, data: &[u8]) -> Vec<u8> {
    if let (Some(source), Some(destination)) = (from.ipv4(), to.ipv4()) {
        return frame::udp(envelope, source, destination, [frame::SOURCE_PORT, port], data);
    }
    let header = ipv6::Header { source: from.ipv6(), destination: to.ipv6(), flow: number(), behind: None };
    ipv6::packet(envelope, &header, Message::Udp([frame::SOURCE_PORT, port], data))
}

impl Verb for Spoof {
    fn describe(&self) -> String {
        let SpoofOptions { to, mac, sender, ip, vlan, target, .. } = &self.options;
        let mut text = format!("spoof {} to {to}", self.container);
        let words = [
            ("from", mac.clone()),
            ("sender", sender.clone()),
            ("as", ip.map(|ip| ip.to_string())),
            ("about", target.map(|target| target.to_string())),
            ("vlan", vlan.map(|vlan| vlan.to_string())),
        ];
        for (word, value) in words.into_iter().filter_map(|(word, value)| Some((word, value?))) {
            text = format!("{text} {word} {value}");
        }
        text
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        let options = &self.options;
        for (option, text) in
            [("mac", &options.mac), ("sender", &options.sender), ("destination", &options.destination)]
        {
            misfit(option, text.as_deref().map_or(Ok([0; 6]), frame::mac))?;
        }
        let network = setting.network(options.network.as_deref());
        misfit("network", network.map(drop).ok_or_else(|| "there is no such network".to_owned()))?;
        let only = |is: bool, said: bool, words: &str| if said && !is { Err(words.to_owned()) } else { Ok(()) };
        let frame = options.frame;
        let sender = only(frame.has_sender(), options.sender.is_some(), "only ARP and neighbour discovery tell it");
        misfit("sender", sender)?;
        let is_udp = matches!(frame, Kind::Udp | Kind::Udp6);
        misfit("ports", only(is_udp, options.ports.is_some(), "only datagrams have ports"))?;
        misfit("target", only(frame.is_ipv6(), options.target.is_some(), "only messages of IPv6 have one"))?;
        misfit("behind", only(frame.is_ipv6(), options.behind.is_some(), "only IPv6 has extension headers"))?;
        let family = options.ip.is_none_or(|ip| ip.is_ipv6() == frame.is_ipv6());
        misfit("ip", if family { Ok(()) } else { Err("is of another family than the frame".to_owned()) })
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("spoof", &self.container))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let options = &self.options;
        let link = options.ifname.as_deref().unwrap_or(LINK);
        let from = end(world, &self.container, link)?;
        // A node hears its containers on the network's bridge.
        let bridge = world.network(options.network.as_deref())?.bridge().to_owned();
        let ear = if world.setting().hosts.contains_key(&options.to) { bridge.as_str() } else { link };
        let to = end(world, &options.to, ear)?;
        let (sender, victim) = (world.lab.namespace(&self.container)?, world.lab.namespace(&options.to)?);
        let patience = Duration::from_millis(options.timeout_ms.unwrap_or(PATIENCE_MS));
        let truth = mark("the truth");
        let (arrived, seen) = victim.enter(|| {
            let mut ears = Ears::open(&to.link)?;
            let port = ears.port()?;
            let plain = Envelope { source: from.mac, destination: to.mac, vlan: None };
            let (frame, lie) = self.lie(&from, &to, port)?;
            let frames = [frame, true_frame(&from, &to, plain, port, &truth)];
            sender.enter(|| Tap::open(&from.link)?.send_in_order(&frames.each_ref().map(Vec::as_slice)))?;
            ears.listen(&lie, &truth, patience)
        })?;
        if !arrived {
            let wait = patience.as_millis();
            return Err(Failure::wrong(format!("{}'s own frame did not arrive within {wait} ms", self.container)));
        }
        let got = if seen { Expected::Seen } else { Expected::Dropped };
        if got == options.expect {
            return Ok(got.as_str().to_owned());
        }
        Err(Failure::mismatch(options.expect.as_str(), got.as_str()))
    }
}
