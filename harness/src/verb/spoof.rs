//! `spoof`: frames that say something else than the truth about who sends them, and whether they arrive.
//!
//! Invariant: a true frame of the same container goes behind each: only when that has arrived is the other known to be dropped.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::frame::{self, BROADCAST, Claim, Envelope, Mac};
use crate::lab::{Ears, Tap, View};
use crate::scenario::Setting;
use crate::world::World;

/// How long the true frame may take to arrive, unless the step says otherwise.
const PATIENCE_MS: u64 = 5000;

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
    ip: Option<Ipv4Addr>,
    vlan: Option<u16>,
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
    Ipv6,
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
    address: Ipv4Addr,
}

impl Spoof {
    pub(super) fn new(container: String, options: SpoofOptions) -> Self {
        Self { container, options }
    }

    /// The frame that may be a lie; `mark` is in it.
    fn lie(&self, from: &End, to: &End, port: u16, mark: &[u8]) -> Result<Vec<u8>> {
        let options = &self.options;
        let given = |text: &Option<String>| text.as_deref().map(frame::mac).transpose().map_err(|text| anyhow!(text));
        let source = given(&options.mac)?.unwrap_or(from.mac);
        let to_all = if options.frame == Kind::Arp { BROADCAST } else { to.mac };
        let destination = given(&options.destination)?.unwrap_or(to_all);
        let envelope = Envelope { source, destination, vlan: options.vlan };
        let address = options.ip.unwrap_or(from.address);
        Ok(match options.frame {
            Kind::Udp => frame::udp(envelope, address, to.address, port, mark),
            Kind::Arp => {
                // Who has no address yet asks whether another has it; who has one tells.
                let target = if address.is_unspecified() { to.address } else { address };
                frame::arp(envelope, Claim { mac: given(&options.sender)?.unwrap_or(source), address, target }, mark)
            }
            Kind::Ipv6 => frame::ipv6(envelope, link_local(source), link_local(to.mac), mark),
        })
    }
}

/// The address that a link has by itself (RFC 4291, appendix A).
fn link_local(mac: Mac) -> std::net::Ipv6Addr {
    let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    address[8..11].copy_from_slice(&mac[..3]);
    address[13..].copy_from_slice(&mac[3..]);
    address[8] ^= 2;
    address.into()
}

/// What no other frame has in it.
fn mark(what: &str) -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("<flatnet's harness: {what} {number} of {}>", std::process::id()).into_bytes()
}

fn end(world: &mut World, place: &str, link: &str) -> Result<End> {
    let view = View::of(world.place(place)?)?;
    let found = view.link(link).with_context(|| format!("find {link} of {place}"))?;
    let address =
        frame::first_ipv4(&found.addresses).with_context(|| format!("find an address of {place}'s {link}"))?;
    Ok(End { link: link.to_owned(), mac: frame::mac(&found.mac).map_err(|text| anyhow!(text))?, address })
}

impl Verb for Spoof {
    fn describe(&self) -> String {
        let SpoofOptions { to, mac, sender, ip, vlan, .. } = &self.options;
        let mut text = format!("spoof {} to {to}", self.container);
        let words = [
            ("from", mac.clone()),
            ("sender", sender.clone()),
            ("as", ip.map(|ip| ip.to_string())),
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
        let stray = options.sender.is_some() && options.frame != Kind::Arp;
        misfit("sender", if stray { Err("only ARP tells its sender".to_owned()) } else { Ok(()) })
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
        let (lie, truth) = (mark("a lie"), mark("the truth"));
        let (arrived, seen) = victim.enter(|| {
            let mut ears = Ears::open(&to.link)?;
            let port = ears.port()?;
            let plain = Envelope { source: from.mac, destination: to.mac, vlan: None };
            let frames = [self.lie(&from, &to, port, &lie)?, frame::udp(plain, from.address, to.address, port, &truth)];
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
