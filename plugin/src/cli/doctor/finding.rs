//! What doctor can say: the checks by name, and what one of them found.
//!
//! A check's id is for scripts and the manual, and never changes; each run tells about every check, but about those of IPv6 only
//! where a network has it.

use serde::Serialize;

/// A condition that reachability needs.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Check {
    pub(in crate::cli) id: &'static str,
    /// What is looked at, in a few words.
    title: &'static str,
    /// What it should be.
    pub(in crate::cli) needed: &'static str,
}

const fn check(id: &'static str, title: &'static str, needed: &'static str) -> Check {
    Check { id, title, needed }
}

pub(super) const ROOT: Check = check("root", "privileges", "root, to look at everything");
pub(super) const KERNEL: Check = check("kernel", "kernel", "Linux 5.5 or newer");
pub(super) const KERNEL_LINKS: Check =
    check("kernel-links", "bridges and pairs", "a kernel that makes bridges, veth pairs and alternative names");
pub(super) const PODMAN: Check = check("podman", "Podman", "Podman 4 or newer, which runs");
pub(super) const PODMAN_BACKEND: Check =
    check("podman-backend", "Podman's backend", "cni with Podman 4, netavark with Podman 5");
pub(super) const CNI_CACHE: Check =
    check("cni-cache", "CNI's cache", "with Podman 4 a /var/lib/cni that can be written to");
pub(super) const BINARY: Check = check("binary", "the plugin", "this version, where the runtime looks for it");
pub(super) const PLUGIN_FOLDERS: Check =
    check("plugin-folders", "plugin folders", "Podman looks in the folder that flatnet is in");
pub(super) const CONFIGURATION: Check = check("configuration", "the network", "a valid network of type flatnet");
pub(super) const CHAINED_PLUGINS: Check =
    check("chained-plugins", "chained plugins", "what the network's list chains is installed");
pub(super) const NETWORK_CLASH: Check = check(
    "network-clash",
    "other networks",
    "no other network has its name or subnet, or puts addresses on its bridge that keep it out",
);
pub(super) const IP_FORWARD: Check = check("ip-forward", "forwarding", "net.ipv4.ip_forward = 1");
pub(super) const IPV6: Check = check("ipv6", "IPv6", "a kernel with IPv6 that is on, where a network has IPv6");
pub(super) const IPV6_FORWARD: Check =
    check("ipv6-forward", "forwarding of IPv6", "net.ipv6.conf.all.forwarding = 1, where a network has IPv6");
pub(super) const ROUTERS: Check = check(
    "router-advertisements",
    "routers",
    "links that live on router advertisements hear them while this host forwards: accept_ra = 2",
);
pub(super) const FIREWALL: Check = check(
    "firewall",
    "firewall",
    "what is forwarded to the containers passes, their answers, and questions to the name service",
);
pub(super) const SPOOFING: Check =
    check("spoofing", "spoofing", "containers speak for themselves only, where `macspoofchk` is set");
pub(super) const MASQUERADE: Check = check(
    "masquerade",
    "masquerade",
    "what containers send beyond the flat range gets this host's address, unless ipMasq is off",
);
pub(super) const BRIDGE_NETFILTER: Check =
    check("bridge-netfilter", "bridge netfilter", "what containers send each other passes");
pub(super) const REVERSE_PATH: Check =
    check("reverse-path", "reverse path filter", "not strict, where a container is on several networks");
pub(super) const BRIDGE: Check = check("bridge", "bridge", "a bridge that is up, with each gateway's address");
pub(super) const SUBNET: Check =
    check("subnet", "subnet", "each subnet is the bridge's, and no other link's or route's");
pub(super) const ATTACHMENTS: Check = check(
    "attachments",
    "containers",
    "each leased address answers a packet, by the way that a gateway's packets take",
);
pub(super) const LEASES: Check = check("leases", "leases", "each container that has an address has a process");
pub(super) const PORTS: Check = check(
    "ports",
    "published ports",
    "each published port leads to its container, and opens no loopback address of this host to it",
);
pub(super) const NAMES: Check = check("names", "names", "no container has a name that leads to another one");
pub(super) const POOL: Check = check("pool", "addresses", "a free address of each range");
pub(super) const SERVICE: Check = check("service", "flatnet.service", "enabled and active");
pub(super) const NAME_SERVICE: Check =
    check("name-service", "name service", "`flatnet gateway` answers on each address of the bridge");
pub(super) const WSL: Check = check("wsl", "WSL", "networking mode NAT, and systemd");
pub(super) const WINDOWS_ROUTE: Check =
    check("windows-route", "route on Windows", "Windows has a route to the subnet via this host's address");
pub(super) const GATEWAY: Check = check("gateway", "gateway", "the gateway reaches this host's name service");

/// Every check, in the order of telling.
pub(super) const ALL: &[Check] = &[
    ROOT,
    KERNEL,
    KERNEL_LINKS,
    PODMAN,
    PODMAN_BACKEND,
    CNI_CACHE,
    BINARY,
    PLUGIN_FOLDERS,
    CONFIGURATION,
    CHAINED_PLUGINS,
    NETWORK_CLASH,
    IP_FORWARD,
    IPV6,
    IPV6_FORWARD,
    ROUTERS,
    FIREWALL,
    MASQUERADE,
    SPOOFING,
    BRIDGE_NETFILTER,
    REVERSE_PATH,
    BRIDGE,
    SUBNET,
    ATTACHMENTS,
    LEASES,
    PORTS,
    NAMES,
    POOL,
    SERVICE,
    NAME_SERVICE,
    WSL,
    WINDOWS_ROUTE,
    GATEWAY,
];

/// How it is with a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// Works, or could not be looked at where that matters.
    Warning,
    /// Containers cannot be reached, or not added, or not all of them.
    Bad,
    /// Does not apply here, or hangs on another line.
    Skipped,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Skipped => "skipped",
        }
    }
}

/// What one look at one condition came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) state: State,
    /// The network that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<String>,
    pub(super) found: String,
    pub(super) needed: &'static str,
    /// What to do; lines are commands or sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Check {
    pub(super) fn ok(self, found: impl Into<String>) -> Finding {
        self.finding(State::Ok, found, None)
    }

    pub(super) fn skipped(self, why: impl Into<String>) -> Finding {
        self.finding(State::Skipped, why, None)
    }

    pub(super) fn warning(self, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(State::Warning, found, Some(remedy.into()))
    }

    pub(super) fn bad(self, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(State::Bad, found, Some(remedy.into()))
    }

    /// The look itself failed, by a fault of this host's.
    pub(super) fn failed(self, error: &crate::error::Error) -> Finding {
        self.bad(error.to_string(), error.remedy())
    }

    fn finding(self, state: State, found: impl Into<String>, remedy: Option<String>) -> Finding {
        Finding {
            id: self.id,
            title: self.title,
            state,
            network: None,
            found: found.into(),
            needed: self.needed,
            remedy,
        }
    }
}

impl Finding {
    /// The one command that repairs it, where one does and needs nothing else: what the remedy begins with.
    pub(super) fn command(&self) -> Option<&str> {
        /// What may follow: other ways, or what the reader should know.
        const NO_MORE_TO_DO: [&str; 5] = [";", ", or ", ", which ", " again", ", and have it started at boot"];
        let remedy = self.remedy.as_deref()?;
        let words = remedy.strip_prefix("run `").or_else(|| remedy.strip_prefix("start `"))?;
        let (command, rest) = words.split_once('`')?;
        (rest.is_empty() || NO_MORE_TO_DO.iter().any(|it| rest.starts_with(it))).then_some(command)
    }

    /// The same on a host without systemd: a remedy never names a program that is not there.
    pub(super) fn without_systemd(mut self) -> Self {
        const INSTEAD: [(&str, &str); 6] = [
            (
                "run `systemctl enable --now flatnet.service`; without systemd, start `flatnet gateway` at boot",
                "start `flatnet gateway`, and have it started at boot",
            ),
            ("run `systemctl restart flatnet.service`", "start `flatnet gateway` again"),
            ("run `systemctl restart flatnet`", "start `flatnet gateway` again"),
            ("`systemctl restart flatnet`", "a new start of `flatnet gateway`"),
            ("start a container or a new start of", "start a container, or start again"),
            ("see `journalctl -u flatnet.service`", "see what `flatnet gateway` writes"),
        ];
        if let Some(remedy) = &mut self.remedy {
            for (with, without) in INSTEAD {
                *remedy = remedy.replace(with, without);
            }
        }
        self
    }

    /// The same, about one network.
    pub(super) fn of(self, network: &str) -> Self {
        Self { network: Some(network.to_owned()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_remedy_names_systemd_where_it_does_not_run() {
        // All remedies that do are texts of these files.
        let sources = [
            include_str!("bridge.rs"),
            include_str!("forwarding.rs"),
            include_str!("ipv6.rs"),
            include_str!("masquerade.rs"),
            include_str!("server.rs"),
            include_str!("spoofing.rs"),
        ];
        for line in sources
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| line.contains("ctl ") && !line.contains("sysctl -w net.bridge"))
        {
            let remedy = BRIDGE.bad("", line).without_systemd().remedy.expect("a remedy");
            assert!(!remedy.contains("systemctl") && !remedy.contains("journalctl"), "{remedy}");
        }
    }

    #[test]
    fn a_command_that_repairs_alone_is_known() {
        for (remedy, command) in [
            ("run `flatnet install`", Some("flatnet install")),
            ("run `ip link set br up`; the next container's start does so too", Some("ip link set br up")),
            ("run `systemctl restart flatnet`, or start a container: either does", Some("systemctl restart flatnet")),
            ("run `systemctl unmask flatnet.service`, then `flatnet install`", None),
            ("run `sysctl -w a=2`, and the same for the link", None),
            ("run `flatnet-route.ps1 -Install` on Windows as administrator", None),
            ("remove containers", None),
        ] {
            assert_eq!(BRIDGE.bad("", remedy).command(), command, "{remedy}");
        }
        let without = SERVICE.bad("", "run `systemctl restart flatnet.service`").without_systemd();
        assert_eq!(without.command(), Some("flatnet gateway"));
        assert_eq!(BRIDGE.ok("").command(), None);
    }

    const MANUAL: &str = include_str!("../../../manual/troubleshooting.md");

    /// The ids that the manual has a line for: "| `id` | ..".
    fn in_manual() -> Vec<&'static str> {
        let first = |line: &'static str| Some(line.strip_prefix("| `")?.split_once("` |")?.0);
        MANUAL.lines().filter_map(first).filter(|id| !id.contains(' ')).collect()
    }

    #[test]
    fn every_check_has_an_id_of_its_own() {
        let ids: BTreeSet<_> = ALL.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), ALL.len());
    }

    #[test]
    fn the_manual_has_every_check_in_the_order_of_telling() {
        let ids: Vec<_> = ALL.iter().map(|check| check.id).collect();
        assert_eq!(in_manual(), ids);
    }
}
