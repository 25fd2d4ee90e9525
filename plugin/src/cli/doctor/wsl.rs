//! What is peculiar to WSL: how Windows and this Linux are wired together, and the route on the Windows side.
//!
//! Windows speaks many languages: of what its programs print, only numbers are read.

use std::cmp::Reverse;
use std::fs;
use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::finding::{Finding, State, WINDOWS_ROUTE, WSL};
use crate::cli::probe::{self, Host, Ran};
use crate::config::Network;
use crate::family::IpFamily;

/// Where WSL shows the drive C:, unless /etc/wsl.conf says otherwise; the second is found by way of the path.
const ROUTE_PROGRAMS: [&str; 2] = ["/mnt/c/Windows/System32/ROUTE.EXE", "ROUTE.EXE"];
const SETTINGS: &str = "/etc/wsl.conf";
const NOT_WSL: &str = "not WSL";

/// How Windows and this Linux are wired together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Networking {
    /// A network between the two, on which each has an address.
    Nat,
    /// Both have the same addresses.
    Mirrored,
    /// A proxy carries connections over; no packets.
    VirtioProxy,
    Bridged,
    Nothing,
}

impl Networking {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "nat" => Self::Nat,
            "mirrored" => Self::Mirrored,
            "virtioproxy" => Self::VirtioProxy,
            "bridged" => Self::Bridged,
            "none" => Self::Nothing,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mirrored => "mirrored",
            Self::VirtioProxy => "virtioproxy",
            Self::Bridged => "bridged",
            Self::Nothing => "none",
        }
    }
}

/// Nothing where this is not WSL. An older WSL has no `wslinfo`, and knows NAT only.
pub(super) fn networking(host: &Host) -> Option<Networking> {
    host.is_wsl().then(|| match probe::run("wslinfo", &["--networking-mode"]) {
        Ran::Well(word) => Networking::parse(&word).unwrap_or(Networking::Nat),
        Ran::Missing | Ran::Badly(_) => Networking::Nat,
    })
}

pub(super) fn check(networking: Option<Networking>) -> Finding {
    let Some(networking) = networking else { return WSL.skipped(NOT_WSL) };
    judge(networking, probe::has_systemd(), &fs::read_to_string(SETTINGS).unwrap_or_default())
}

fn judge(networking: Networking, systemd: bool, settings: &str) -> Finding {
    const TO_NAT: &str =
        "set `networkingMode=nat` under [wsl2] in %UserProfile%\\.wslconfig on Windows, then `wsl --shutdown`";
    let mode = networking.as_str();
    match networking {
        Networking::Nat | Networking::Bridged if systemd => WSL.ok(format!("networking mode {mode}, systemd")),
        Networking::Nat | Networking::Bridged => {
            let asked = setting(settings, "boot", "systemd").is_some_and(|value| value.eq_ignore_ascii_case("true"));
            let remedy = if asked {
                "systemd is asked for, but does not run yet: `wsl --shutdown` on Windows, then start again"
            } else {
                "add `[boot]` and `systemd=true` to /etc/wsl.conf, then `wsl --shutdown` on Windows: without systemd, nothing starts `flatnet gateway` at boot"
            };
            WSL.warning(format!("networking mode {mode}, no systemd"), remedy)
        }
        Networking::Mirrored => WSL.warning(
            "networking mode mirrored: Windows and Linux have the same addresses, so no route of Windows leads here",
            format!("run the gateway inside this Linux, on the mirrored address; or {TO_NAT}"),
        ),
        Networking::VirtioProxy | Networking::Nothing => {
            WSL.bad(format!("networking mode {mode}: Windows sends no packets here"), TO_NAT)
        }
    }
}

/// A value of /etc/wsl.conf, which is an INI file.
fn setting<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut here = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name.trim().eq_ignore_ascii_case(section);
        } else if let Some((found, value)) = line.split_once('=').filter(|_| here)
            && found.trim().eq_ignore_ascii_case(key)
        {
            return Some(value.split('#').next().unwrap_or_default().trim());
        }
    }
    None
}

/// Whether Windows sends what is for the network to one of `own`, this host's addresses towards it: by IPv4, as nobody has tried the
/// other.
pub(super) fn route(networking: Option<Networking>, network: &Network, own: &[Ipv4Addr]) -> Finding {
    match networking {
        None => return WINDOWS_ROUTE.skipped(NOT_WSL),
        Some(Networking::Nat | Networking::Bridged) => {}
        Some(other) => return WINDOWS_ROUTE.skipped(format!("no route helps in networking mode {}", other.as_str())),
    }
    let of_ipv4 = |subnet| match subnet {
        IpNetwork::V4(subnet) => Some(subnet),
        IpNetwork::V6(_) => None,
    };
    let subnets: Vec<_> = network.subnets_of(IpFamily::V4).into_iter().filter_map(of_ipv4).collect();
    if subnets.is_empty() {
        return WINDOWS_ROUTE.skipped("the network has no IPv4, and a route of Windows for IPv6 is not looked at");
    }
    for program in ROUTE_PROGRAMS {
        match probe::run(program, &["print", "-4"]) {
            Ran::Well(text) => return judge_routes(&text, &subnets, own),
            Ran::Missing => {}
            Ran::Badly(why) => return WINDOWS_ROUTE.skipped(format!("{program} {why}")),
        }
    }
    WINDOWS_ROUTE.skipped("Windows' route.exe is not reached from here (/etc/wsl.conf: [interop], [automount]); on Windows: `route print -4`")
}

/// What is wrong with the first subnet whose route is not right; else how Windows reaches all of them.
fn judge_routes(text: &str, subnets: &[Ipv4Network], own: &[Ipv4Addr]) -> Finding {
    let mut found: Vec<String> = Vec::new();
    for subnet in subnets {
        let finding = judge_route(text, *subnet, own);
        if finding.state != State::Ok {
            return finding;
        }
        // One route may be for several.
        if !found.contains(&finding.found) {
            found.push(finding.found);
        }
    }
    WINDOWS_ROUTE.ok(found.join(", "))
}

fn judge_route(text: &str, subnet: Ipv4Network, own: &[Ipv4Addr]) -> Finding {
    let address = own.first().map_or_else(|| "<this host's address>".to_owned(), Ipv4Addr::to_string);
    let mend = format!(
        "run `flatnet-route.ps1 -Install` on Windows as administrator, which keeps it right from then on, or `route add {} mask {} {address}`",
        subnet.network(),
        subnet.mask()
    );
    let covering =
        routes(text).filter(|(destination, ..)| subnet.is_subnet_of(*destination) && destination.prefix() > 0);
    match covering.min_by_key(|(destination, _, metric)| (Reverse(destination.prefix()), *metric)) {
        None => WINDOWS_ROUTE.bad(format!("Windows has no route to {subnet}"), mend),
        Some((destination, gateway, _)) if own.contains(&gateway) => {
            WINDOWS_ROUTE.ok(format!("{destination} by {gateway}"))
        }
        Some((destination, gateway, _)) => {
            let found = format!("Windows sends {destination} to {gateway}, and this host is {address}");
            WINDOWS_ROUTE.bad(found, mend)
        }
    }
}

/// Every line of destination, mask, next hop, interface and metric. (For what is on the link itself, Windows has a word in the
/// third place. Its list of persistent routes has no interfaces, and may hold what is not in force.)
fn routes(text: &str) -> impl Iterator<Item = (Ipv4Network, Ipv4Addr, u32)> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let mut address = || words.next()?.parse::<Ipv4Addr>().ok();
        let (destination, mask, gateway, _interface) = (address()?, address()?, address()?, address()?);
        let metric = words.next()?.parse().ok()?;
        Some((Ipv4Network::with_netmask(destination, mask).ok()?, gateway, metric))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ENGLISH: &str = "\
===========================================================================
Interface List
 12...00 15 5d 8f 3a 11 ......Hyper-V Virtual Ethernet Adapter
===========================================================================

IPv4 Route Table
===========================================================================
Active Routes:
Network Destination        Netmask          Gateway       Interface  Metric
          0.0.0.0          0.0.0.0     192.168.50.1    192.168.50.20     25
        10.87.1.0    255.255.255.0       172.30.0.2       172.30.0.1     16
       172.30.0.0    255.255.240.0         On-link        172.30.0.1    271
===========================================================================
Persistent Routes:
  None
";

    const GERMAN: &str = "\
IPv4-Routentabelle
===========================================================================
Aktive Routen:
     Netzwerkziel    Netzwerkmaske          Gateway    Schnittstelle Metrik
          0.0.0.0          0.0.0.0      192.168.1.1    192.168.1.30     35
        10.87.0.0      255.255.0.0     172.28.96.99      172.28.96.1     26
      172.28.96.0    255.255.240.0   Auf Verbindung      172.28.96.1   5256
===========================================================================
St\u{e4}ndige Routen:
  Keine
";

    const JAPANESE: &str = "\
IPv4 ルート テーブル
===========================================================================
アクティブ ルート:
ネットワーク宛先        ネットマスク          ゲートウェイ       インターフェイス  メトリック
          0.0.0.0          0.0.0.0      192.168.0.1     192.168.0.12     25
      172.30.0.0    255.255.240.0            リンク上        172.30.0.1   5256
===========================================================================
固定ルート:
  なし
";

    #[rstest]
    #[case::there(ENGLISH, "172.30.0.2", State::Ok, "")]
    #[case::old_address(ENGLISH, "172.30.9.9", State::Bad, "route add 10.87.1.0 mask 255.255.255.0 172.30.9.9")]
    #[case::wider(GERMAN, "172.28.96.99", State::Ok, "")]
    #[case::german_old(GERMAN, "172.28.100.4", State::Bad, "flatnet-route.ps1")]
    #[case::none(JAPANESE, "172.30.0.2", State::Bad, "flatnet-route.ps1")]
    #[case::nothing("", "172.30.0.2", State::Bad, "flatnet-route.ps1")]
    fn tables_of_windows(#[case] text: &str, #[case] own: &str, #[case] state: State, #[case] words: &str) {
        let subnet = "10.87.1.0/24".parse().expect("a subnet");
        let finding = judge_route(text, subnet, &[own.parse().expect("an address")]);
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.remedy.unwrap_or_default().contains(words));
    }

    #[rstest]
    #[case::one(&["10.87.1.0/24"], State::Ok, "10.87.1.0/24 by 172.30.0.2")]
    #[case::the_second_has_none(&["10.87.1.0/24", "10.87.2.0/24"], State::Bad, "Windows has no route to 10.87.2.0/24")]
    #[case::one_for_both(&["10.87.1.0/25", "10.87.1.128/25"], State::Ok, "10.87.1.0/24 by 172.30.0.2")]
    fn every_subnet_needs_a_route(#[case] subnets: &[&str], #[case] state: State, #[case] found: &str) {
        let subnets: Vec<_> = subnets.iter().map(|subnet| subnet.parse().expect("a subnet")).collect();
        let finding = judge_routes(ENGLISH, &subnets, &["172.30.0.2".parse().expect("an address")]);
        assert_eq!((finding.state, finding.found.as_str()), (state, found));
    }

    #[test]
    fn the_narrowest_route_counts() {
        let text =
            "10.0.0.0 255.0.0.0 192.168.50.1 192.168.50.20 25\n10.87.1.0 255.255.255.0 172.30.0.2 172.30.0.1 16\n";
        let own = ["172.30.0.2".parse().expect("an address")];
        assert_eq!(judge_route(text, "10.87.1.0/24".parse().expect("a subnet"), &own).state, State::Ok);
    }

    #[rstest]
    #[case::left_from_before(&format!("{ENGLISH}        10.87.1.0    255.255.255.0      172.30.0.99  Default\n"), State::Ok)]
    #[case::worse(&format!("{ENGLISH}        10.87.1.0    255.255.255.0      172.30.0.99       172.30.0.1     17\n"), State::Ok)]
    #[case::better(&format!("{ENGLISH}        10.87.1.0    255.255.255.0      172.30.0.99       172.30.0.1     15\n"), State::Bad)]
    fn of_two_routes_the_one_in_force_counts(#[case] text: &str, #[case] state: State) {
        let own = ["172.30.0.2".parse().expect("an address")];
        assert_eq!(judge_route(text, "10.87.1.0/24".parse().expect("a subnet"), &own).state, state);
    }

    #[rstest]
    #[case::nat(Networking::Nat, true, "", State::Ok, "")]
    #[case::no_systemd(Networking::Nat, false, "", State::Warning, "systemd=true")]
    #[case::asked_for(Networking::Nat, false, "[boot]\nsystemd = true # x\n", State::Warning, "wsl --shutdown")]
    #[case::elsewhere(Networking::Nat, false, "[user]\nsystemd = true\n", State::Warning, "systemd=true")]
    #[case::mirrored(Networking::Mirrored, true, "", State::Warning, "networkingMode=nat")]
    #[case::none(Networking::Nothing, true, "", State::Bad, "networkingMode=nat")]
    fn ways_of_wsl(
        #[case] networking: Networking,
        #[case] systemd: bool,
        #[case] settings: &str,
        #[case] state: State,
        #[case] words: &str,
    ) {
        let finding = judge(networking, systemd, settings);
        assert_eq!(finding.state, state);
        assert!(finding.remedy.unwrap_or_default().contains(words));
    }
}
