//! Where flatnet's files are on a host, and the numbers that its parts agree on.
//!
//! One place for each: install writes them, doctor looks at them, uninstall takes them back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The flat range: nothing between two of its addresses is ever translated.
pub(crate) const FLAT_RANGE: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::new(10, 87, 0, 0), 16) {
    Some(network) => network,
    None => unreachable!(),
};
/// The same of IPv6.
pub(crate) const FLAT_RANGE_IPV6: Ipv6Network =
    match Ipv6Network::new_checked(Ipv6Addr::new(0xfd87, 0, 0, 0, 0, 0, 0, 0), 16) {
        Some(network) => network,
        None => unreachable!(),
    };
/// The flat ranges, IPv4's first.
pub(crate) const FLAT_RANGES: [IpNetwork; 2] = [IpNetwork::V4(FLAT_RANGE), IpNetwork::V6(FLAT_RANGE_IPV6)];
/// Addresses that no network has (RFC 5737, RFC 3849): the route to one is the default route, whichever table that is in.
pub(crate) const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// The link group of flat networks' gateways' links: what leaves by one of them is not translated.
pub(crate) const LINK_GROUP: u32 = 1087;
/// The binary, where CNI runtimes look for plugins.
pub(crate) const BINARY: &str = "/opt/cni/bin/flatnet";
/// The same binary, where netavark (Podman 5) looks for drivers: the first of its default folders.
pub(crate) const NETAVARK_DRIVER: &str = "/usr/local/libexec/netavark/flatnet";
/// A link to the binary, where people's shells look; not where a package has put one already.
pub(crate) const COMMAND: &str = "/usr/local/bin/flatnet";
/// The command as a package has it.
pub(crate) const PACKAGED_COMMAND: &str = "/usr/bin/flatnet";
/// The folder of CNI network configurations; flatnet's is `<network name>.conflist` in it.
pub(crate) const CNI_NETWORKS: &str = "/etc/cni/net.d";
/// Where libcni, and so Podman 4, remembers each container's result: its own folder, and gone with the last container but for itself.
pub(crate) const CNI_RESULTS: &str = "/var/lib/cni/results";
/// Which container had which address last, a log for each network: a hint, which may go at any time.
pub(crate) const MEMORY: &str = "/var/lib/cni/flatnet";
/// The folder of netavark's network configurations, `<network name>.json` each; Podman writes them.
pub(crate) const NETAVARK_NETWORKS: &str = "/etc/containers/networks";
/// Makes Podman 4 use CNI.
pub(crate) const PODMAN_DROP_IN: &str = "/etc/containers/containers.conf.d/50-flatnet.conf";
/// Starts `flatnet gateway` at boot.
pub(crate) const UNIT: &str = "/etc/systemd/system/flatnet.service";
/// How systemd is told to start it: by this link, which `systemctl enable` makes.
pub(crate) const UNIT_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/flatnet.service";
/// There where firewalld is installed.
pub(crate) const FIREWALLD: &str = "/etc/firewalld/firewalld.conf";
/// The bridge's zone in firewalld, and the policy that lets others in there; they may not have the same name.
pub(crate) const FIREWALLD_ZONE: &str = "/etc/firewalld/zones/flatnet.xml";
pub(crate) const FIREWALLD_POLICY: &str = "/etc/firewalld/policies/flatnet-in.xml";
/// There while systemd-networkd runs, and its file that keeps it off flatnet's links: the first that matches a link counts.
pub(crate) const NETWORKD: &str = "/run/systemd/netif";
pub(crate) const NETWORKD_FILE: &str = "/etc/systemd/network/00-flatnet.network";
/// There while `NetworkManager` runs, and its file that keeps it off flatnet's links.
pub(crate) const NETWORK_MANAGER: &str = "/run/NetworkManager";
pub(crate) const NETWORK_MANAGER_FILE: &str = "/etc/NetworkManager/conf.d/flatnet.conf";
/// What `flatnet install` changed, for `flatnet uninstall`.
pub(crate) const RECORD: &str = "/var/lib/flatnet/installed.json";
/// What `flatnet install` replaced, until it is put back.
pub(crate) const REPLACED: &str = "/var/lib/flatnet/replaced";
/// The network's name, unless another is asked for.
pub(crate) const NETWORK: &str = "flatnet";
/// The TCP port on the bridge's address where `flatnet gateway` tells gateways who has which name.
pub(crate) const NAME_SERVICE_PORT: u16 = 8053;

/// The IPv6 subnet of the host that has this one of IPv4 by the address plan: `fd87:N::/64` for 10.87.N.0/24, the digits alike.
pub(crate) fn ipv6_beside(subnet: Ipv4Network) -> Option<Ipv6Network> {
    if !subnet.is_subnet_of(FLAT_RANGE) || subnet.prefix() != 24 {
        return None;
    }
    let host = subnet.network().octets()[2].to_string();
    let host = u16::from_str_radix(&host, 16).ok()?;
    Ipv6Network::new(Ipv6Addr::new(0xfd87, host, 0, 0, 0, 0, 0, 0), 64).ok()
}
