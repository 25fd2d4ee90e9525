//! `leases`, `links`, `routes` and `sysctl`: what the kernel says, with nobody in between.
//!
//! Invariant: every look is a fresh one; a look waits for what it expects, as links go a moment after their namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::{Failure, Misfit, Verb, misfit};
use crate::deadline;
use crate::lab::{self, Link, View};
use crate::pattern::Pattern;
use crate::scenario::Setting;
use crate::world::World;

/// How long the kernel may take to come to the expected state, unless the step says otherwise.
const PATIENCE_MS: u64 = 5000;

const LEASE: &str = "flatnet-ip-";

/// Looks until `judge` is content, and otherwise gives its last complaint.
fn look(
    world: &mut World,
    place: &str,
    timeout_ms: Option<u64>,
    judge: impl Fn(&View) -> Result<String, Failure>,
) -> Result<String, Failure> {
    let namespace = world.place(place)?;
    let patience = Duration::from_millis(timeout_ms.unwrap_or(PATIENCE_MS));
    let mut complaint = None;
    let seen =
        deadline::until(patience, || match View::of(namespace).map_err(Failure::from).and_then(|view| judge(&view)) {
            Ok(seen) => Some(seen),
            Err(failure) => {
                complaint = Some(failure);
                None
            }
        });
    seen.ok_or_else(|| complaint.unwrap_or_default())
}

/// `{ leases = "wsl", expect = { "10.87.1.2" = "web/eth0" } }`: exactly these.
#[derive(Debug)]
pub(super) struct Leases {
    host: String,
    options: LeasesOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeasesOptions {
    timeout_ms: Option<u64>,
    expect: BTreeMap<String, Pattern>,
}

impl Leases {
    pub(super) fn new(host: String, options: LeasesOptions) -> Self {
        Self { host, options }
    }
}

impl Verb for Leases {
    fn describe(&self) -> String {
        format!("leases {}", self.host)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("leases", setting.node(Some(&self.host)))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let expect = &self.options.expect;
        look(world, &self.host, self.options.timeout_ms, |view| {
            let found = leases(view);
            let same = found.len() == expect.len()
                && found.iter().all(|(ip, holder)| expect.get(ip).is_some_and(|it| it.matches(holder)));
            if same {
                return Ok(if found.is_empty() { "none".to_owned() } else { format!("{} held", found.len()) });
            }
            Err(Failure::mismatch(list(expect), list(&found)))
        })
    }
}

fn list<V: std::fmt::Display>(leases: &BTreeMap<String, V>) -> String {
    if leases.is_empty() {
        return "no lease".to_owned();
    }
    leases.iter().map(|(ip, holder)| format!("{ip} = {holder}")).collect::<Vec<_>>().join(", ")
}

/// Every lease among the links' names, and who holds it as the link's alias tells.
pub(crate) fn leases(view: &View) -> BTreeMap<String, String> {
    let named = view.links.iter().flat_map(|link| link.names.iter().map(move |name| (link, name)));
    let leases = named.filter_map(|(link, name)| Some((name.strip_prefix(LEASE)?.to_owned(), holder(link))));
    leases.collect()
}

/// `container=ID interface=IF` of an alias, as `ID/IF`; a link without an attachment's name is nobody's.
fn holder(link: &Link) -> String {
    let alias = link.alias.as_deref().unwrap_or_default();
    let word = |key: &str| alias.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).unwrap_or("?");
    let attached = link.names.iter().any(|name| name.starts_with("flatnet-att-"));
    let holder = format!("{}/{}", word("container"), word("interface"));
    if attached { holder } else { format!("{holder} (not attached)") }
}

/// `{ links = "wsl", expect = [{ name = "fn-*", up = true }] }`: each is there, once; `only` says of which names there are no others (or `count` of them).
#[derive(Debug)]
pub(super) struct Links {
    place: String,
    options: LinksOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinksOptions {
    only: Option<Pattern>,
    count: Option<usize>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    expect: Vec<ExpectedLink>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedLink {
    name: Pattern,
    up: Option<bool>,
    kind: Option<Pattern>,
    master: Option<Pattern>,
    mtu: Option<u32>,
    mac: Option<Pattern>,
    alias: Option<Pattern>,
    names: Option<Vec<Pattern>>,
    addresses: Option<Vec<Pattern>>,
    link_locals: Option<Vec<Pattern>>,
}

impl ExpectedLink {
    fn matches(&self, link: &Link) -> bool {
        let text = |wanted: &Option<Pattern>, got: &str| wanted.as_ref().is_none_or(|wanted| wanted.matches(got));
        let exactly = |wanted: &Option<Vec<Pattern>>, got: &BTreeSet<String>| {
            let each = |wanted: &Pattern| got.iter().any(|got| wanted.matches(got));
            wanted.as_ref().is_none_or(|wanted| wanted.len() == got.len() && wanted.iter().all(each))
        };
        self.name.matches(&link.name)
            && self.up.is_none_or(|up| up == link.up)
            && self.mtu.is_none_or(|mtu| mtu == link.mtu)
            && text(&self.kind, &link.kind)
            && text(&self.master, link.master.as_deref().unwrap_or_default())
            && text(&self.mac, &link.mac)
            && text(&self.alias, link.alias.as_deref().unwrap_or_default())
            && exactly(&self.names, &link.names)
            && exactly(&self.addresses, &link.addresses)
            && exactly(&self.link_locals, &link.link_locals)
    }
}

impl Links {
    pub(super) fn new(place: String, options: LinksOptions) -> Self {
        Self { place, options }
    }

    fn judge(&self, view: &View) -> Result<String, Failure> {
        for (number, expected) in self.options.expect.iter().enumerate() {
            let matching = view.links.iter().filter(|link| expected.matches(link)).count();
            if matching != 1 {
                let what = format!("one link like number {} of the list ({})", number + 1, expected.name);
                return Err(Failure::mismatch(what, format!("{matching}")).with("links", describe_links(view)));
            }
        }
        let wanted = self.options.count.unwrap_or(self.options.expect.len());
        if let Some(only) = &self.options.only {
            let count = view.links.iter().filter(|link| only.matches(&link.name)).count();
            if count != wanted {
                let what = format!("{wanted} links like {only}");
                return Err(Failure::mismatch(what, count).with("links", describe_links(view)));
            }
        }
        Ok(format!("{wanted} as expected"))
    }
}

fn describe_links(view: &View) -> String {
    let lines = view.links.iter().map(|link| {
        let Link { name, kind, up, mtu, mac, master, names, addresses, link_locals, alias, .. } = link;
        format!("{name} {kind} up={up} mtu={mtu} mac={mac} master={master:?} addresses={addresses:?} link_locals={link_locals:?} names={names:?} alias={alias:?}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Verb for Links {
    fn describe(&self) -> String {
        format!("links {}", self.place)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        let lone = self.options.count.is_some() && self.options.only.is_none();
        misfit("count", if lone { Err("`count` counts the links that `only` names".to_owned()) } else { Ok(()) })
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("links", &self.place))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        look(world, &self.place, self.options.timeout_ms, |view| self.judge(view))
    }
}

/// `{ routes = "web", expect = { default = "10.87.1.1" } }`: each is there; a route without a next hop is named by its link.
#[derive(Debug)]
pub(super) struct Routes {
    place: String,
    options: RoutesOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutesOptions {
    timeout_ms: Option<u64>,
    expect: BTreeMap<String, Pattern>,
}

impl Routes {
    pub(super) fn new(place: String, options: RoutesOptions) -> Self {
        Self { place, options }
    }
}

impl Verb for Routes {
    fn describe(&self) -> String {
        format!("routes {}", self.place)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        Ok(())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("routes", &self.place))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let expect = &self.options.expect;
        look(world, &self.place, self.options.timeout_ms, |view| {
            let via =
                |route: &lab::Route| route.gateway.map_or_else(|| route.device.clone(), |gateway| gateway.to_string());
            let found: Vec<_> = view.routes.iter().map(|route| (route.destination.as_str(), via(route))).collect();
            let there = |to: &str, via: &Pattern| found.iter().any(|(known, it)| *known == to && via.matches(it));
            if expect.iter().all(|(to, via)| there(to, via)) {
                return Ok(format!("{} as expected", expect.len()));
            }
            let found: Vec<_> = found.iter().map(|(to, via)| format!("{to} = {via}")).collect();
            Err(Failure::mismatch(list(expect), found.join(", ")))
        })
    }
}

/// `{ sysctl = "net.ipv4.ip_forward", in = "wsl", expect = "1" }`, or `value` to set it.
#[derive(Debug)]
pub(super) struct Sysctl {
    name: String,
    options: SysctlOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SysctlOptions {
    r#in: String,
    value: Option<Pattern>,
    expect: Option<Pattern>,
}

impl Sysctl {
    pub(super) fn new(name: String, options: SysctlOptions) -> Self {
        Self { name, options }
    }
}

impl Verb for Sysctl {
    fn describe(&self) -> String {
        format!("sysctl {} in {}", self.name, self.options.r#in)
    }

    fn check(&self, _: &Setting) -> Result<(), Misfit> {
        let idle = self.options.value.is_none() && self.options.expect.is_none();
        misfit("sysctl", if idle { Err("say `value` to set it, `expect` to look at it".to_owned()) } else { Ok(()) })
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("in", &self.options.r#in))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let namespace = world.place(&self.options.r#in)?;
        if let Some(value) = &self.options.value {
            lab::set_sysctl(namespace, &self.name, &value.to_string())?;
        }
        let got = lab::sysctl(namespace, &self.name)?;
        match &self.options.expect {
            Some(expected) if !expected.matches(&got) => Err(Failure::mismatch(expected, got)),
            _ => Ok(got),
        }
    }
}
