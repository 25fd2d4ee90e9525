//! What each version of the specification publishes as the result of ADD, written down by itself: whatever flatnet has to say fits it.
//!
//! The shapes are of SPEC.md at the tags `spec-v0.1.0` to `spec-v1.1.0` (github.com/containernetworking/cni): up to 0.4.0 its section
//! "Result", from 1.0.0 on section 5, "Success". A key that stands in no shape, or is missing where it is not marked optional, is a failure.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Dns, Interface, Ip, Route, Success};
use crate::spec::{SUPPORTED, SpecVersion};

/// 0.1.0 and 0.2.0: one address of each family, and no interfaces.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Shape010 {
    cni_version: String,
    ip4: Option<Family010>,
    ip6: Option<Family010>,
    dns: Option<DnsShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family010 {
    ip: String,
    gateway: Option<String>,
    routes: Option<Vec<Route010>>,
}

/// The route of every version before 1.1.0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route010 {
    dst: String,
    gw: Option<String>,
}

/// 0.3.0, 0.3.1 and 0.4.0: lists, and each address says its family.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Shape030 {
    cni_version: String,
    interfaces: Vec<Interface030>,
    ips: Vec<Ip030>,
    routes: Option<Vec<Route010>>,
    dns: Option<DnsShape>,
}

/// The interface of every version before 1.1.0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Interface030 {
    name: String,
    mac: Option<String>,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ip030 {
    version: String,
    address: String,
    gateway: Option<String>,
    /// A plugin before may have left it out, which is that one's affair: libcni's own type lets it.
    interface: Option<u64>,
}

/// 1.0.0: the family is no longer said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Shape100 {
    cni_version: String,
    interfaces: Vec<Interface030>,
    ips: Vec<Ip100>,
    routes: Option<Vec<Route010>>,
    dns: Option<DnsShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ip100 {
    address: String,
    gateway: Option<String>,
    interface: Option<u64>,
}

/// 1.1.0: more of interfaces and routes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Shape110 {
    cni_version: String,
    interfaces: Vec<Interface110>,
    ips: Vec<Ip100>,
    routes: Option<Vec<Route110>>,
    dns: Option<DnsShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Interface110 {
    name: String,
    mac: Option<String>,
    mtu: Option<u32>,
    sandbox: Option<String>,
    socket_path: Option<String>,
    #[serde(rename = "pciID")]
    pci_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct Route110 {
    dst: String,
    gw: Option<String>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    priority: Option<u32>,
    table: Option<u32>,
    scope: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it is there, and of that type, is all that is asked")]
struct DnsShape {
    nameservers: Option<Vec<String>>,
    domain: Option<String>,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

/// A value of one shape, whatever the version is.
trait Shape: DeserializeOwned {
    fn addresses(&self) -> Vec<(&str, Option<&str>)>;
    /// What goes beyond types.
    fn holds(&self) {}
}

impl Shape for Shape010 {
    fn addresses(&self) -> Vec<(&str, Option<&str>)> {
        [&self.ip4, &self.ip6].into_iter().flatten().map(|it| (it.ip.as_str(), it.gateway.as_deref())).collect()
    }

    fn holds(&self) {
        for (family, is_ipv4) in [(&self.ip4, true), (&self.ip6, false)] {
            let Some(Family010 { ip, routes, .. }) = family else { continue };
            assert_eq!(cidr(ip).is_ipv4(), is_ipv4, "{ip}");
            for Route010 { dst, gw } in routes.iter().flatten() {
                assert_eq!(cidr(dst).is_ipv4(), is_ipv4, "{dst}");
                assert!(gw.as_deref().is_none_or(is_address), "{gw:?}");
            }
        }
        assert!(self.ip4.is_some() || self.ip6.is_some(), "an address there must be");
    }
}

impl Shape for Shape030 {
    fn addresses(&self) -> Vec<(&str, Option<&str>)> {
        self.ips.iter().map(|ip| (ip.address.as_str(), ip.gateway.as_deref())).collect()
    }

    fn holds(&self) {
        for Ip030 { version, address, interface, .. } in &self.ips {
            assert_eq!(version, if cidr(address).is_ipv4() { "4" } else { "6" });
            assert!(interface.is_none_or(|index| index < self.interfaces.len() as u64), "{address}");
        }
    }
}

impl Shape for Shape100 {
    fn addresses(&self) -> Vec<(&str, Option<&str>)> {
        self.ips.iter().map(|ip| (ip.address.as_str(), ip.gateway.as_deref())).collect()
    }
}

impl Shape for Shape110 {
    fn addresses(&self) -> Vec<(&str, Option<&str>)> {
        self.ips.iter().map(|ip| (ip.address.as_str(), ip.gateway.as_deref())).collect()
    }

    fn holds(&self) {
        assert!(self.ips.iter().filter_map(|ip| ip.interface).all(|index| index < self.interfaces.len() as u64));
    }
}

/// Address and prefix length, as section "Well-known Structures" has them.
fn cidr(text: &str) -> IpAddr {
    let (ip, prefix) = text.split_once('/').expect("CIDR notation");
    let ip: IpAddr = ip.parse().expect("an address");
    assert!(prefix.parse::<u8>().expect("a prefix length") <= if ip.is_ipv4() { 32 } else { 128 }, "{text}");
    ip
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// The addresses that a result of `version` tells, if it is of that version's shape.
fn published(version: SpecVersion, json: &Value) -> Vec<(String, Option<String>)> {
    assert_eq!(json["cniVersion"], version.as_str());
    match version {
        SpecVersion::V0_1_0 | SpecVersion::V0_2_0 => fits::<Shape010>(json),
        SpecVersion::V0_3_0 | SpecVersion::V0_3_1 | SpecVersion::V0_4_0 => fits::<Shape030>(json),
        SpecVersion::V1_0_0 => fits::<Shape100>(json),
        SpecVersion::V1_1_0 => fits::<Shape110>(json),
    }
}

fn fits<T: Shape>(json: &Value) -> Vec<(String, Option<String>)> {
    let shape = T::deserialize(json).unwrap_or_else(|e| panic!("{e}: {json}"));
    shape.holds();
    let told = shape.addresses().into_iter().map(|(ip, gateway)| (ip.to_owned(), gateway.map(str::to_owned)));
    let told: Vec<_> = told.collect();
    for (ip, gateway) in &told {
        cidr(ip);
        assert!(gateway.as_deref().is_none_or(is_address), "{gateway:?}");
    }
    told
}

fn network() -> impl Strategy<Value = ipnetwork::IpNetwork> {
    any::<(IpAddr, u8)>().prop_map(|(ip, prefix)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        ipnetwork::IpNetwork::new(ip, prefix % (longest + 1)).expect("a prefix length that fits")
    })
}

fn interface() -> impl Strategy<Value = Interface> {
    let texts = (any::<String>(), any::<String>(), any::<String>());
    (texts, any::<Option<u32>>(), any::<Option<String>>(), any::<Option<String>>()).prop_map(
        |((name, mac, sandbox), mtu, socket_path, pci_id)| Interface { name, mac, mtu, sandbox, socket_path, pci_id },
    )
}

fn route() -> impl Strategy<Value = Route> {
    (network(), any::<Option<IpAddr>>(), any::<[Option<u32>; 5]>()).prop_map(
        |(dst, gw, [mtu, advmss, priority, table, scope])| Route { dst, gw, mtu, advmss, priority, table, scope },
    )
}

fn dns() -> impl Strategy<Value = Dns> {
    let list = || vec(any::<String>(), 0..3);
    (list(), any::<String>(), list(), list()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    })
}

fn success() -> impl Strategy<Value = Success> {
    vec(interface(), 0..4).prop_flat_map(|interfaces| {
        let count = interfaces.len();
        let index = option::of(0..count.max(1)).prop_map(move |index| index.filter(|index| *index < count));
        let ip = (index, network(), any::<Option<IpAddr>>());
        let ip = ip.prop_map(|(interface, address, gateway)| Ip { interface, address, gateway });
        (Just(interfaces), vec(ip, 0..4), vec(route(), 0..4), dns())
            .prop_map(|(interfaces, ips, routes, dns)| Success { interfaces, ips, routes, dns })
    })
}

proptest! {
    #[test]
    fn a_result_of_any_kind_fits_what_its_version_publishes(success in success()) {
        let all: Vec<_> = success.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway.map(|it| it.to_string()))).collect();
        for version in SUPPORTED {
            if let Err(error) = Success::refuse_old_version(version, !all.is_empty()) {
                prop_assert!(all.is_empty() && version < SpecVersion::V0_3_0);
                prop_assert_eq!(error.code(), 2);
                continue;
            }
            let json = success.json(version);
            let told = published(version, &json);
            if version < SpecVersion::V0_3_0 {
                let first = |is_ipv4| all.iter().find(|(ip, _)| cidr(ip).is_ipv4() == is_ipv4);
                prop_assert_eq!(told.iter().collect::<Vec<_>>(), [first(true), first(false)].into_iter().flatten().collect::<Vec<_>>());
            } else {
                prop_assert_eq!(&told, &all);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back(success in success()) {
        for version in SUPPORTED {
            let json = success.json(version);
            let again = Success::read(&json, SpecVersion::V1_1_0).expect("a result");
            if version == SpecVersion::V1_1_0 {
                prop_assert_eq!(&again, &success);
            }
            prop_assert_eq!(again.json(version), json);
        }
    }

    #[test]
    fn what_plugins_before_have_done_stays_as_it_was(before in success(), own in success()) {
        let both = own.clone().after(before.clone());
        let (interfaces, ips, routes) = (before.interfaces.len(), before.ips.len(), before.routes.len());
        prop_assert_eq!(&both.interfaces[..interfaces], &before.interfaces);
        prop_assert_eq!(&both.interfaces[interfaces..], &own.interfaces);
        prop_assert_eq!(&both.ips[..ips], &before.ips);
        prop_assert_eq!((&both.routes[..routes], &both.routes[routes..]), (&before.routes[..], &own.routes[..]));
        prop_assert_eq!(both.ips.len(), ips + own.ips.len());
        for (moved, own_ip) in both.ips[ips..].iter().zip(&own.ips) {
            prop_assert_eq!((moved.address, moved.gateway), (own_ip.address, own_ip.gateway));
            let at = |success: &Success, ip: &Ip| ip.interface.map(|index| success.interfaces[index].clone());
            prop_assert_eq!(at(&both, moved), at(&own, own_ip));
        }
        prop_assert_eq!(&both.dns.nameservers[..before.dns.nameservers.len()], &before.dns.nameservers);
        prop_assert!(own.dns.search.iter().all(|domain| both.dns.search.contains(domain)));
        published(SpecVersion::V1_1_0, &both.json(SpecVersion::V1_1_0));
    }
}
