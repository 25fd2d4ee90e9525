//! `serve`, `get` and `websocket`: real HTTP, in and out of containers.
//!
//! Invariant: one attempt a step, unless the step says `eventually`: a request that needs luck is a finding.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use hyper::Uri;
use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::deadline;
use crate::http::client::{self, Answer, NoAnswer, Question};
use crate::http::{forwarder, name, nginx, server};
use crate::lab::{HostSpec, Namespace, Proxy, Role};
use crate::pattern::Pattern;
use crate::scenario::Setting;
use crate::world::World;

const PATIENCE_MS: u64 = 10_000;

/// `{ serve = "web", port = 80, body = ".." }`: starts the harness's server in the container.
#[derive(Debug)]
pub(super) struct Serve {
    container: String,
    options: ServeOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServeOptions {
    port: Option<u16>,
    body: Option<String>,
}

impl Serve {
    pub(super) fn new(container: String, options: ServeOptions) -> Self {
        Self { container, options }
    }

    fn port(&self) -> u16 {
        self.options.port.unwrap_or(80)
    }
}

impl Verb for Serve {
    fn describe(&self) -> String {
        format!("serve {} port {}", self.container, self.port())
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("serve", &self.container))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        world.serve(&self.container, self.port(), self.options.body.as_deref())?;
        Ok(String::new())
    }
}

/// From where, by which way, and under which name something is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetOptions {
    via: Option<String>,
    from: Option<String>,
    host: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    eventually: bool,
    #[serde(default)]
    expect: GetExpect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GetExpect {
    status: Option<Pattern>,
    body: Option<Pattern>,
    name: Option<Pattern>,
    peer: Option<Pattern>,
    header: BTreeMap<String, Pattern>,
    error: Option<ExpectedError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedError {
    Unreachable,
    Refused,
    Timeout,
    Broken,
}

impl From<NoAnswer> for ExpectedError {
    fn from(found: NoAnswer) -> Self {
        match found {
            NoAnswer::Unreachable => Self::Unreachable,
            NoAnswer::Refused => Self::Refused,
            NoAnswer::Timeout => Self::Timeout,
            NoAnswer::Broken => Self::Broken,
        }
    }
}

/// Whether a request can go to `url` that way.
pub(super) fn check_way(
    verb: &'static str,
    url: &str,
    setting: &Setting,
    via: Option<&str>,
    from: Option<&str>,
) -> Result<(), Misfit> {
    misfit(verb, Address::read(url).and_then(|address| address.fits(via)))?;
    misfit("via", gateway(setting, via))?;
    misfit("from", sender(setting, via, from))
}

/// `{ get = "http://10.87.1.2/", via = "windows", expect = { status = 200 } }`
#[derive(Debug)]
pub(super) struct Get {
    url: String,
    options: GetOptions,
}

impl Get {
    pub(super) fn new(url: String, options: GetOptions) -> Self {
        Self { url, options }
    }
}

impl Verb for Get {
    fn describe(&self) -> String {
        describe("get", &self.url, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        check_way("get", &self.url, setting, self.options.via.as_deref(), self.options.from.as_deref())?;
        misfit("expect", self.options.expect.fits())
    }

    fn lacks(&self, setting: &Setting) -> Option<String> {
        lacks_nginx(setting, self.options.via.as_deref())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("from", self.options.from.as_deref()?))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let GetOptions { via, from, host, timeout_ms, eventually, expect } = &self.options;
        let way = Way::find(world, &self.url, via.as_deref(), from.as_deref(), host.as_deref(), *timeout_ms)?;
        let ask = || match client::get(way.from, &way.question) {
            Ok(answer) => expect.judge(answer),
            Err(err) => Err(err.into()),
        };
        if !eventually {
            return ask();
        }
        let mut complaint = None;
        let answer = deadline::until(way.question.patience, || ask().map_err(|failure| complaint = Some(failure)).ok());
        answer.ok_or_else(|| complaint.unwrap_or_default())
    }
}

impl GetExpect {
    fn fits(&self) -> Result<(), String> {
        let Self { status, body, name, peer, header, error } = self;
        let of_answer = [("status", status), ("body", body), ("name", name), ("peer", peer)];
        let said = of_answer.into_iter().find_map(|(what, wanted)| wanted.as_ref().map(|_| what));
        match said.or_else(|| (!header.is_empty()).then_some("header")) {
            Some(what) if error.is_some() => Err(format!("what gives an `error` has no `{what}`")),
            _ => Ok(()),
        }
    }

    fn judge(&self, answer: Result<Answer, NoAnswer>) -> Result<String, Failure> {
        match (answer, self.error) {
            (Ok(answer), None) => self.judge_answer(&answer),
            (Ok(answer), Some(error)) => {
                Err(Failure::mismatch(format!("{error:?}").to_lowercase(), format!("status {}", answer.status)))
            }
            (Err(found), Some(error)) if ExpectedError::from(found) == error => Ok(found.to_string()),
            (Err(found), Some(error)) => Err(Failure::mismatch(format!("{error:?}").to_lowercase(), found)),
            (Err(found), None) => Err(Failure::mismatch("an answer", format!("none: {found}"))),
        }
    }

    fn judge_answer(&self, answer: &Answer) -> Result<String, Failure> {
        let header = |name: &str| answer.header(name).unwrap_or_default();
        let said = [
            ("status", &self.status, answer.status.to_string()),
            ("name", &self.name, header(server::SERVED_BY).to_owned()),
            ("peer", &self.peer, header(server::SAW_PEER).to_owned()),
            ("body", &self.body, answer.body.trim_end().to_owned()),
        ];
        let said =
            said.into_iter().filter_map(|(what, expected, got)| Some((what.to_owned(), expected.as_ref()?, got)));
        let headers = self.header.iter().map(|(name, expected)| (name.clone(), expected, header(name).to_owned()));
        for (what, expected, got) in said.chain(headers) {
            if !expected.matches(&got) {
                let failure = Failure::mismatch(format!("{what} {expected}"), format!("{what} {got}"));
                return Err(failure.with("answer", whole(answer)));
            }
        }
        let from = answer.header(server::SERVED_BY).map(|name| format!(" from {name}")).unwrap_or_default();
        let saw = answer.header(server::SAW_PEER).map(|peer| format!(", saw {peer}")).unwrap_or_default();
        Ok(format!("{}{from}{saw}", answer.status))
    }
}

fn whole(answer: &Answer) -> String {
    let headers: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{}\n{}\n\n{}", answer.status, headers.join("\n"), answer.body.trim_end())
}

/// `{ websocket = "ws://10.87.1.2/", via = "windows" }`: a frame must come back as it was sent.
#[derive(Debug)]
pub(super) struct Websocket {
    url: String,
    options: WebsocketOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebsocketOptions {
    via: Option<String>,
    from: Option<String>,
    timeout_ms: Option<u64>,
}

impl Websocket {
    pub(super) fn new(url: String, options: WebsocketOptions) -> Self {
        Self { url, options }
    }
}

impl Verb for Websocket {
    fn describe(&self) -> String {
        describe("websocket", &self.url, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        check_way("websocket", &self.url, setting, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn lacks(&self, setting: &Setting) -> Option<String> {
        lacks_nginx(setting, self.options.via.as_deref())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("from", self.options.from.as_deref()?))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        const FRAME: &str = "こんにちは";
        let WebsocketOptions { via, from, timeout_ms } = &self.options;
        let way = Way::find(world, &self.url, via.as_deref(), from.as_deref(), None, *timeout_ms)?;
        match client::websocket(way.from, &way.question, FRAME)? {
            Ok(echo) if echo == FRAME => Ok("echoed".to_owned()),
            Ok(other) => Err(Failure::mismatch(FRAME, other)),
            Err(found) => Err(Failure::mismatch("an echo", format!("none: {found}"))),
        }
    }
}

pub(super) fn describe(verb: &str, url: &str, via: Option<&str>, from: Option<&str>) -> String {
    let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
    let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
    format!("{verb} {url}{via}{from}")
}

fn gateway<'a>(setting: &'a Setting, via: Option<&'a str>) -> Result<Option<&'a str>, String> {
    match via.map(|name| (name, setting.hosts.get(name))) {
        None => Ok(None),
        Some((name, Some(host))) if host.proxies() => Ok(Some(name)),
        Some((name, Some(_))) => Err(format!("{name} is not a gateway")),
        Some((name, None)) => Err(format!("there is no host named {name}")),
    }
}

/// Who asks: as said, or the gateway itself, or the first client.
fn sender<'a>(setting: &'a Setting, via: Option<&'a str>, from: Option<&'a str>) -> Result<&'a str, String> {
    let usual = || via.or_else(|| setting.in_role(Role::Client).next());
    from.or_else(usual).ok_or_else(|| "there is no client in [hosts]: say `from`".to_owned())
}

pub(super) fn lacks_nginx(setting: &Setting, via: Option<&str>) -> Option<String> {
    let wanted = setting.hosts.get(via?)?.proxy == Proxy::Nginx;
    (wanted && nginx::find().is_none()).then(|| "nginx is not installed".to_owned())
}

/// What a URL asks for: of an address, or, through a gateway, of a name.
struct Address {
    site: Result<IpAddr, String>,
    port: u16,
    path: String,
}

impl Address {
    fn read(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{url} is not a URL like http://10.87.1.2:80/: {what}");
        let uri: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let site = match ipv6 {
            Some(address) => Ok(address.parse::<Ipv6Addr>().map_err(|_| wrong("its address cannot be read"))?.into()),
            None => host.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| host.to_owned()),
        };
        Ok(Self { site, port: uri.port_u16().unwrap_or(80), path })
    }

    fn fits(&self, via: Option<&str>) -> Result<(), String> {
        match &self.site {
            Err(name) if via.is_none() => Err(format!("only a gateway knows who {name} is: say `via`")),
            Err(name) if self.port != 80 => Err(format!("a port is part of the name: {name} has none")),
            _ => Ok(()),
        }
    }

    /// Whom to connect to, if not a gateway, and the `Host` to ask for.
    fn direct(&self) -> Result<(SocketAddr, String), Failure> {
        let ip = self.site.clone().map_err(|name| Failure::wrong(format!("only a gateway knows who {name} is")))?;
        let address = SocketAddr::from((ip, self.port));
        let host = address.to_string();
        Ok((address, if self.port == 80 { host.trim_end_matches(":80").to_owned() } else { host }))
    }

    /// The `Host` that means it to a gateway.
    fn name(&self) -> String {
        let of = |ip: &IpAddr| name::of(SocketAddr::new(*ip, self.port));
        self.site.as_ref().map_or_else(Clone::clone, of)
    }
}

/// Where a question is asked from, and how it is worded for its way.
pub(super) struct Way<'a> {
    pub(super) from: &'a Namespace,
    pub(super) question: Question,
}

impl<'a> Way<'a> {
    pub(super) fn find(
        world: &'a mut World,
        url: &str,
        via: Option<&str>,
        from: Option<&str>,
        host: Option<&str>,
        timeout_ms: Option<u64>,
    ) -> Result<Self, Failure> {
        let asked = Address::read(url).map_err(Failure::wrong)?;
        let from = sender(world.setting(), via, from).map_err(Failure::wrong)?.to_owned();
        let (address, usual_host) = match via {
            None => asked.direct()?,
            Some(gateway) => {
                world.proxy(gateway)?;
                let name = asked.name();
                let near = gateway_address(world, gateway, &from, asked.site.is_ok_and(|ip| ip.is_ipv6()))?;
                (SocketAddr::from((near, forwarder::PORT)), name)
            }
        };
        let host = host.map_or(usual_host, str::to_owned);
        let patience = Duration::from_millis(timeout_ms.unwrap_or(PATIENCE_MS));
        let question = Question { address, host, path: asked.path, patience };
        Ok(Self { from: world.lab.namespace(&from)?, question })
    }
}

/// The address under which `from` reaches the gateway: one of IPv6 where that is asked for and there is one, else the first.
fn gateway_address(world: &World, gateway: &str, from: &str, ipv6: bool) -> Result<IpAddr, Failure> {
    let spec = &world.lab.host(gateway)?.spec;
    let beside = |other: &HostSpec| spec.addresses_beside(other).collect::<Vec<_>>();
    let known = if gateway == from {
        let v6 = spec.addresses().any(IpNetwork::is_ipv6).then_some(Ipv6Addr::LOCALHOST.into());
        [Some(Ipv4Addr::LOCALHOST.into()), v6].into_iter().flatten().collect()
    } else {
        let known = world.lab.host(from).map(|host| beside(&host.spec)).unwrap_or_default();
        // A container sees the gateway as its node does.
        let nodes = world.lab.hosts().filter(|(_, host)| host.spec.role == Role::Node);
        if known.is_empty() { nodes.flat_map(|(_, host)| beside(&host.spec)).collect() } else { known }
    };
    let found = known.iter().find(|ip| ip.is_ipv6() == ipv6).or_else(|| known.first()).copied();
    let found = found.ok_or_else(|| anyhow!("find an address of the gateway near {from}"));
    Ok(found.context("ask through a gateway")?)
}
