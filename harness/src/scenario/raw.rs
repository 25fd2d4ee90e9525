//! The text of a scenario, lowered into what it means.
//!
//! Invariant: nothing beyond this file sees TOML but the verbs, each of which reads its own options.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, ValueDeserializer};

use super::mistake::{Mistake, position, suggestion};
use super::{Chain, HostSpec, Kernel, Network, Proxy, Role, Scenario, Setting, Step};
use crate::conformance::{self, Need, Rule, Strength, Subject};
use crate::lacking::{Piece, Stock};
use crate::verb::{self, Words};

/// The option that holds the steps within a step.
const MEANWHILE: &str = "meanwhile";

/// The option of every step of a rule: what a plugin has to have for it.
const IF: &str = "if";

/// The option of every step of a rule: how strong what it expects is, if that is less than the rule.
const STRENGTH: &str = "strength";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    summary: String,
    #[serde(default)]
    installed: bool,
    #[serde(default)]
    slow: bool,
    rule: Option<Rule>,
    kernel: Option<Kernel>,
    #[serde(default)]
    kernels: Vec<Stock>,
    hosts: Option<BTreeMap<String, RawHost>>,
    network: Option<toml::Table>,
    #[serde(default)]
    networks: BTreeMap<String, toml::Table>,
    #[serde(rename = "run")]
    _run: RawRun,
}

/// The steps are read one by one, by their verbs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    #[serde(rename = "steps")]
    _steps: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    role: Role,
    address: OneOrMore,
    mtu: Option<u32>,
    proxy: Option<Spanned<Proxy>>,
    #[serde(default)]
    lacks: Vec<Piece>,
    kernel: Option<Stock>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an address like \"172.30.0.1/24\", or a list of them")]
enum OneOrMore {
    One(IpNetwork),
    More(Vec<IpNetwork>),
}

/// One thing that a step needs, or several.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a version (1.1.0, =0.3.1), addresses, routes, hostlinks, delegation, independence, or a list of them"
)]
enum Needs {
    One(Need),
    Several(Vec<Need>),
}

/// Reads the text of `file`, for `subject` if it is to be held against another plugin than flatnet.
pub(super) fn parse(file: &Path, text: &str, subject: Option<&Subject>) -> Result<Scenario, Mistake> {
    let root = DeTable::parse(text).map_err(|err| Mistake::from_toml(&err, "a scenario"))?;
    let raw = RawScenario::deserialize(Deserializer::from(root.clone()))
        .map_err(|err| Mistake::from_toml(&err, "a scenario"))?;
    let mut chains = BTreeMap::new();
    let network = match (raw.network, subject) {
        (Some(table), _) => configuration(table, None, &mut chains)?,
        (None, Some(subject)) => subject.network.clone(),
        (None, None) => Network::shipped().map_err(|err| Mistake::new(0..0, format!("{err:#}")))?,
    };
    let network = match &raw.rule {
        Some(rule) => conformance::in_time_for(rule, network, subject),
        None => network,
    };
    let networks = raw.networks.into_iter().map(|(name, table)| {
        let network = configuration(table, Some(&name), &mut chains)?;
        Ok((name, network))
    });
    let networks = networks.collect::<Result<BTreeMap<_, _>, _>>()?;
    let ipv6 = std::iter::once(&network).chain(networks.values()).any(Network::has_ipv6);
    let hosts = if raw.rule.is_some() && raw.hosts.is_none() { bare_host(ipv6) } else { hosts(raw.hosts, ipv6)? };
    let (rule, subject) = (raw.rule, subject.cloned());
    let setting = Setting { hosts, network, networks, chains, installed: raw.installed, rule, subject };
    let steps = root.get_ref().get("run").and_then(|run| run.get_ref().get("steps"));
    let steps = match steps.map(|steps| (steps.span(), steps.get_ref())) {
        Some((_, DeValue::Array(steps))) if !steps.is_empty() => steps,
        Some((span, DeValue::Array(_))) => return Err(Mistake::new(span, "a scenario without steps shows nothing")),
        Some((span, _)) => return Err(Mistake::new(span, "`steps` is a list")),
        None => return Err(Mistake::new(0..0, "a scenario needs `steps` under [run]")),
    };
    let values = steps;
    let steps = values.iter().map(|value| step(value, text, &setting)).collect::<Result<Vec<_>, _>>()?;
    places_exist(values, &steps, &setting)?;
    let (file, setting) = (file.to_owned(), Arc::new(setting));
    Ok(Scenario {
        file,
        summary: raw.summary,
        slow: raw.slow,
        kernel: raw.kernel,
        kernels: raw.kernels,
        setting,
        steps,
    })
}

/// One plugin, or a list of several, the others of which go to `chains`.
fn configuration(
    table: toml::Table,
    name: Option<&str>,
    chains: &mut BTreeMap<Option<String>, Chain>,
) -> Result<Network, Mistake> {
    let serde_json::Value::Object(config) = serde_json::to_value(table).unwrap_or_default() else {
        return Err(Mistake::new(0..0, "a network is a table that JSON can hold"));
    };
    if !config.contains_key("plugins") {
        return Ok(Network::new(config));
    }
    let (own, chain) = Chain::read(config).map_err(|text| Mistake::new(0..0, text))?;
    chains.insert(name.map(str::to_owned), chain);
    Ok(own)
}

/// The hosts as they are written; without any, those of the picture: a LAN client, a Windows gateway, a WSL node.
fn hosts(raw: Option<BTreeMap<String, RawHost>>, ipv6: bool) -> Result<BTreeMap<String, HostSpec>, Mistake> {
    let Some(raw) = raw else {
        return Ok(usual_hosts(ipv6));
    };
    raw.into_iter()
        .map(|(name, host)| {
            let fits = |proxy: Proxy| host.role == Role::Gateway || (host.role, proxy) == (Role::Node, Proxy::Nginx);
            if let Some(proxy) = host.proxy.as_ref().filter(|proxy| !fits(*proxy.get_ref())) {
                let text = format!("`proxy` belongs to gateways (`nginx` to nodes, too), and {name} is none");
                return Err(Mistake::new(proxy.span(), text));
            }
            let addresses = match host.address {
                OneOrMore::One(address) => vec![address],
                OneOrMore::More(addresses) => addresses,
            };
            let proxy = host.proxy.map(Spanned::into_inner).unwrap_or_default();
            let mut lacks: BTreeSet<Piece> = host.lacks.into_iter().collect();
            lacks.extend(host.kernel.map(Stock::lacks).unwrap_or_default());
            Ok((name, HostSpec { role: host.role, wires: wires(&addresses), mtu: host.mtu, proxy, lacks }))
        })
        .collect()
}

/// Each address has a wire of its own, but for an IPv6 address that follows an IPv4 one: that is on the same.
fn wires(addresses: &[IpNetwork]) -> Vec<Vec<IpNetwork>> {
    addresses.chunk_by(|one, next| one.is_ipv4() && next.is_ipv6()).map(<[_]>::to_vec).collect()
}

/// The hosts of the picture, of both families where a network has IPv6.
pub(super) fn usual_hosts(ipv6: bool) -> BTreeMap<String, HostSpec> {
    let wire = |v4: &str, v6: &str| -> Vec<IpNetwork> {
        let texts = [Some(v4), Some(v6).filter(|_| ipv6)];
        texts.into_iter().flatten().map(|text| text.parse().expect("an address")).collect()
    };
    let host = |role, wires| HostSpec { role, wires, mtu: None, proxy: Proxy::Builtin, lacks: BTreeSet::new() };
    let (lan, windows) = (wire("192.168.50.9/24", "fd50::9/64"), wire("192.168.50.1/24", "fd50::1/64"));
    let (inner, wsl) = (wire("172.30.0.1/24", "fd30::1/64"), wire("172.30.0.2/24", "fd30::2/64"));
    [
        ("lan", host(Role::Client, vec![lan])),
        ("windows", host(Role::Gateway, vec![windows, inner])),
        ("wsl", host(Role::Node, vec![wsl])),
    ]
    .map(|(name, host)| (name.to_owned(), host))
    .into()
}

pub(super) fn bare_host(ipv6: bool) -> BTreeMap<String, HostSpec> {
    let mut hosts = usual_hosts(ipv6);
    hosts.remove("wsl").map(|host| ("host".to_owned(), host)).into_iter().collect()
}

fn step(value: &Spanned<DeValue<'_>>, text: &str, setting: &Setting) -> Result<Step, Mistake> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Mistake::new(value.span(), "a step is a table like { add = \"web\" }"));
    };
    let found = || table.iter().filter(|(key, _)| verb::find(key.get_ref()).is_some());
    // Beside another verb, these are options.
    let alone = found().count() == 1;
    let mut verbs = found().filter(|(key, _)| alone || !["container", "kill"].contains(&key.get_ref().as_ref()));
    let (key, subject) = verbs.next().ok_or_else(|| no_verb(table, value.span()))?;
    let name = key.get_ref().as_ref();
    if let Some((other, _)) = verbs.next() {
        let text = format!("a step has one verb, and this one has two: `{name}` and `{}`", other.get_ref());
        return Err(Mistake::new(other.span(), text));
    }
    let mut options = table.clone();
    options.remove(name);
    let needs = match of_rule(IF, options.remove(IF), setting)? {
        None => Vec::new(),
        Some(Needs::One(need)) => vec![need],
        Some(Needs::Several(needs)) => needs,
    };
    let strength: Strength = of_rule(STRENGTH, options.remove(STRENGTH), setting)?.unwrap_or_default();
    let words = Words::new(subject.clone(), Spanned::new(value.span(), options));
    let read = verb::find(name).ok_or_else(|| no_verb(table, value.span()))?;
    let verb = read(words).map_err(|err| Mistake::from_toml(&err, &format!("`{name}`")))?;
    verb.check(setting)
        .map_err(|misfit| Mistake::new(option_span(table, misfit.option).unwrap_or_else(|| key.span()), misfit.text))?;
    let inner = verb.within().iter().try_for_each(|inner| inner.check(setting));
    let span = || option_span(table, MEANWHILE).unwrap_or_else(|| key.span());
    inner.map_err(|misfit| Mistake::new(span(), misfit.text))?;
    let (line, _) = position(text, value.span().start);
    Ok(Step { line, source: text.get(value.span()).unwrap_or_default().to_owned(), needs, strength, verb })
}

/// An option that the steps of rules alone have.
fn of_rule<T: for<'a> Deserialize<'a>>(
    option: &str,
    value: Option<Spanned<DeValue<'_>>>,
    setting: &Setting,
) -> Result<Option<T>, Mistake> {
    let Some(value) = value else { return Ok(None) };
    if setting.rule.is_none() {
        return Err(Mistake::new(value.span(), format!("`{option}` belongs to the steps of a [rule]")));
    }
    // Of values that may have several forms the reader does not tell the place.
    let span = value.span();
    let read = T::deserialize(ValueDeserializer::from(value));
    read.map(Some).map_err(|err| Mistake::new(span, err.message()))
}

fn option_span(table: &DeTable<'_>, option: &str) -> Option<Range<usize>> {
    table.keys().find(|key| *key.get_ref() == option).map(Spanned::span)
}

/// A name that no step introduces is misspelt: taken as it is, an empty container would pass for what was meant.
fn places_exist(values: &[Spanned<DeValue<'_>>], steps: &[Step], setting: &Setting) -> Result<(), Mistake> {
    let inner = steps.iter().flat_map(|step| step.verb.within());
    let containers = steps.iter().map(|step| &step.verb).chain(inner).flat_map(|verb| verb.introduces());
    let known: BTreeSet<String> = containers.chain(setting.hosts.keys().cloned()).collect();
    for (value, step) in values.iter().zip(steps) {
        let inner = step.verb.within().iter().filter_map(|verb| Some((MEANWHILE, verb.place()?.1)));
        let mut strange = step.verb.place().into_iter().chain(inner).filter(|(_, name)| !known.contains(*name));
        let Some((option, name)) = strange.next() else { continue };
        let span = value.get_ref().as_table().and_then(|table| option_span(table, option));
        let hint = suggestion(name, known.iter().map(String::as_str));
        let text = format!("there is no host or container named {name}{hint}");
        return Err(Mistake::new(span.unwrap_or_else(|| value.span()), text));
    }
    Ok(())
}

fn no_verb(table: &DeTable<'_>, step: Range<usize>) -> Mistake {
    let known = verb::names().collect::<Vec<_>>();
    let first = table.keys().min_by_key(|key| key.span().start);
    let hint = first.map(|key| suggestion(key.get_ref(), known.iter().copied())).unwrap_or_default();
    let span = first.map_or(step, Spanned::span);
    Mistake::new(span, format!("a step needs a verb, one of {}{hint}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use rstest::rstest;
    use std::path::Path;

    #[rstest]
    #[case("", "1:1: missing field `summary`")]
    #[case("summary = 1", "1:11: invalid type")]
    #[case("sumary = \"x\"", "1:1: `sumary` does not belong to a scenario; did you mean `summary`?")]
    #[case("summary = \"x\"\n[run]\nsteps = []", "3:9: a scenario without steps")]
    #[case("summary = \"x\"\n[run]\nsteps = [\n  { add = \"a\", del = \"a\" } ]", "4:16: a step has one verb")]
    #[case("summary = \"x\"\n[run]\nsteps = [{ ad = \"a\" }]", "3:12: a step needs a verb")]
    #[case("summary = \"x\"\n[run]\nsteps = [{ add = \"a\", port = 1 }]", "3:23: `port` does not belong to `add`")]
    #[case(
        "summary = \"x\"\n[run]\nsteps = [{ add = \"a\", if = \"1.1.0\" }]",
        "3:28: `if` belongs to the steps of a [rule]"
    )]
    #[case(
        "summary = \"x\"\n[run]\nsteps = [{ add = \"a\", strength = \"should\" }]",
        "3:34: `strength` belongs to the steps of a [rule]"
    )]
    #[case(
        "summary = \"x\"\n[rule]\nsource = \"y\"\n[run]\nsteps = [{ add = \"a\", if = \"bridge\" }]",
        "5:28: expected a version"
    )]
    #[case("summary = \"x\"\n[rule]\nneeds = [\"1.1.0\"]\n[run]\nsteps = []", "2:1: missing field `source`")]
    #[case("summary = \"x\"\n[run]\nsteps = [{ add = \"a\", on = \"x\" }]", "3:23: there is no host named x")]
    #[case("summary = \"x\"\n[run]\nsteps = [{ doctor = \"wsl\" }]", "3:12: `doctor` needs `installed = true`")]
    #[case("summary = \"x\"\n[run]\nsteps = [{ add = \"a\", expect = { adress = \"x\" } }]", "3:34: `adress` does not")]
    #[case(
        "summary = \"x\"\n[run]\nsteps = [{ get = \"http://web.flat/\" }]",
        "3:12: only a gateway knows who web.flat is"
    )]
    #[case(
        "summary = \"x\"\n[run]\nsteps = [{ get = \"http://web.flat:81/\", via = \"windows\" }]",
        "3:12: a port is part of"
    )]
    #[case("summary = \"x\"\n[run]\nsteps = [{ gateway = \"lan\" }]", "3:12: lan is not a node")]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"nod\", address = \"1.2.3.4/8\" }\n[run]\nsteps = [1]",
        "3:14: unknown variant"
    )]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"node\", address = \"1.2.3.4/8\" }\nb = { role = \"node\", address = \"1.2.3.5/8\" }\n[run]\nsteps = [{ reboot = \"a\" }]",
        "6:12: only the one node of a world can reboot"
    )]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"client\", address = \"1.2.3.4/8\", proxy = \"nginx\" }\n[run]\nsteps = [1]",
        "3:55: `proxy` belongs to gateways"
    )]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"node\", address = \"1.2.3.4/8\", proxy = \"builtin\" }\n[run]\nsteps = [1]",
        "3:53: `proxy` belongs to gateways"
    )]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"node\", address = \"1.2.3.4/8\", kernel = \"wsl-5\" }\n[run]\nsteps = [1]",
        "3:54: unknown variant `wsl-5`, expected one of `wsl-5.15`"
    )]
    #[case(
        "summary = \"x\"\n[hosts]\na = { role = \"node\", address = \"1.2.3.4/8\", lacks = [\"fib\"] }\n[run]\nsteps = [1]",
        "3:54: unknown variant `fib`, expected one of `nft-bridge`"
    )]
    #[case(
        "summary = \"x\"\n[network]\nplugins = [{ type = \"a\" }, 1]\n[run]\nsteps = [1]",
        "1:1: a plugin is a table"
    )]
    #[case(
        "summary = \"x\"\n[network]\nplugins = [{ type = \"a\" }, { type = \"b\" }]\n[run]\nsteps = [{ parallel = \"c\", containers = 2 }]",
        "5:12: that network has several plugins"
    )]
    #[case(
        "summary = \"x\"\n[network]\nplugins = [{ type = \"a\" }, { type = \"b\" }]\n[run]\nsteps = [{ add = \"c\", stdin = \"{}\" }]",
        "5:23: that network has several plugins"
    )]
    fn mistakes_have_a_place(#[case] text: &str, #[case] expected: &str) {
        let mistake = parse(Path::new("x.toml"), text, None).unwrap_err().at(Path::new("x.toml"), text).to_string();
        assert!(mistake.starts_with(&format!("x.toml:{expected}")), "{mistake}");
    }

    /// The usual hosts, and the shipped network, which is of CNI 1.0.0.
    #[rstest]
    #[case("parallel = \"c\"", "3:10: missing field `containers`")]
    #[case("parallel = \"c\", containers = 0", "3:28: without containers nothing happens")]
    #[case("parallel = \"c\", containers = 2, mix = [\"ADD\", \"GC\"]", "3:44: GC needs cniVersion 1.1.0")]
    #[case("parallel = \"c\", containers = 2, mix = [\"ADDD\"]", "3:51: unknown variant `ADDD`")]
    #[case("parallel = \"c\", containers = 2, excuse = [100]", "3:44: there is nothing to excuse without `meanwhile`")]
    #[case("parallel = \"c\", containers = 2, meanwhile = [{ rebot = \"wsl\" }]", "3:56: a step needs a verb")]
    #[case("parallel = \"c\", containers = 2, meanwhile = [{ reboot = \"windows\" }]", "3:44: windows is not a node")]
    #[case(
        "parallel = \"c\", containers = 2, meanwhile = [{ kill = \"c-3\" }]",
        "3:44: there is no host or container named c-3"
    )]
    #[case("cut = \"linux\"", "3:12: there is no host named linux")]
    #[case("cut = \"windows\"", "3:12: windows has 2 wires: say `link`")]
    #[case("mend = \"windows\", link = \"eth2\"", "3:30: windows has no wire at eth2")]
    #[case("readonly = \"/etc\"", "3:12: /etc is not one of /proc/sys /run")]
    #[case("fill = \"/proc/sys\"", "3:12: /proc/sys has no end")]
    fn mistakes_in_what_disturbs_have_a_place(#[case] step: &str, #[case] expected: &str) {
        let text = format!("summary = \"x\"\n[run]\nsteps = [{{ {step} }}]");
        let mistake = parse(Path::new("x.toml"), &text, None).unwrap_err().at(Path::new("x.toml"), &text).to_string();
        assert!(mistake.starts_with(&format!("x.toml:{expected}")), "{mistake}");
    }

    #[test]
    fn a_scenario_may_leave_hosts_and_network_to_be_the_usual_ones() {
        let text = "summary = \"x\"\n[run]\nsteps = [\n  { add = \"web\" },\n]";
        let scenario = parse(Path::new("x.toml"), text, None).unwrap();
        assert_eq!(scenario.setting.node(None), Ok("wsl"));
        assert_eq!(scenario.setting.network.kind(), "flatnet");
        assert_eq!((scenario.steps[0].line, scenario.steps[0].source.as_str()), (4, "{ add = \"web\" }"));
    }
}
