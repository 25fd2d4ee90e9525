//! What a network needs of other firewalls: which packets have to pass, and the accepts that let them.

use ipnetwork::IpNetwork;

use super::{Accept, COMMENT_PREFIX, Far, Way};
use crate::filter::rules::{Chain, Fate, Hook, Packet, Ruleset};

/// iptables takes 255 bytes of comment, the program nft 128.
const NAME_MAX_BYTES: usize = 64;

/// The network that is to be reached, by packets of one family.
#[derive(Clone, Debug)]
pub(in super::super) struct Wanted<'a> {
    pub(in super::super) network: &'a str,
    /// The link by which the host reaches containers; none where it passes nothing on to them.
    pub(in super::super) gateway_link: Option<&'a str>,
    pub(in super::super) outside: Outside,
    /// The bridge, where bridged packets pass through the chains as well (`br_netfilter`): it is where these come from and go to, whatever
    /// VLAN they are in.
    pub(in super::super) bridge: Option<&'a str>,
    /// At least one.
    pub(in super::super) subnets: Vec<IpNetwork>,
}

/// The links by which others reach the gateway's link, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Outside {
    pub(in super::super) uplinks: Vec<String>,
    /// Of the host's other flat networks.
    pub(in super::super) flat: Vec<String>,
}

/// A packet that has to pass.
pub(super) struct Needed {
    packet: Packet,
    /// Whether it has to pass whatever its addresses are.
    all: bool,
}

impl Needed {
    pub(super) fn passes(&self, ruleset: &Ruleset, chain: &Chain) -> bool {
        match ruleset.fate(chain, &self.packet) {
            None | Some(Fate::Passes) => true,
            Some(Fate::Unsure) => !self.all,
            Some(Fate::Dropped) => false,
        }
    }
}

impl Wanted<'_> {
    /// In both directions, for connections that either side opens.
    pub(super) fn accepts(&self) -> Vec<Accept> {
        let name = self.network.char_indices().take_while(|(at, _)| *at < NAME_MAX_BYTES).map(|(_, letter)| letter);
        let comment = COMMENT_PREFIX.chars().chain(name).collect::<String>();
        // By an accept for what is routed there pass bridged packets, too.
        let between = self.bridge.filter(|bridge| self.gateway_link != Some(*bridge));
        let among = |link: &str| (link.to_owned(), Way::Out, Far::Link(link.to_owned()));
        let mut kinds: Vec<_> = [self.gateway_link, between].into_iter().flatten().map(among).collect();
        if let Some(link) = self.gateway_link {
            let outside = self.outside.links().map(|far| Far::Link(far.to_owned()));
            let both_ways = outside.chain([Far::Answers]).flat_map(|far| [(Way::In, far.clone()), (Way::Out, far)]);
            kinds.extend(both_ways.chain([(Way::In, Far::Published)]).map(|(way, far)| (link.to_owned(), way, far)));
        }
        let of_subnet = |subnet: &IpNetwork| {
            let (subnet, comment) = (*subnet, comment.clone());
            let accept = move |(bridge, way, far)| Accept { way, bridge, far, subnet, comment: comment.clone() };
            kinds.clone().into_iter().map(accept)
        };
        self.subnets.iter().flat_map(of_subnet).collect()
    }

    /// Whether it is one of the network's, or was. Others on the bridge, of the same subnet or of another, have theirs.
    pub(super) fn has(&self, accept: &Accept) -> bool {
        let is_routed = self.gateway_link == Some(accept.bridge.as_str());
        let is_bridged = self.bridge == Some(accept.bridge.as_str()) && accept.far == Far::Link(accept.bridge.clone());
        self.subnets.contains(&accept.subnet) && (is_routed || is_bridged)
    }

    /// What has to pass: to containers, their answers, what they ask others, what comes by a published port, and what they send each other
    /// where that is filtered.
    pub(super) fn packets(&self) -> Vec<Needed> {
        self.subnets.iter().flat_map(|subnet| self.packets_of(*subnet)).collect()
    }

    fn packets_of(&self, subnet: IpNetwork) -> Vec<Needed> {
        let subnet = Some(subnet);
        let needed = |(input, source), (output, destination), state, all| {
            let name = |link: Option<&str>| link.map(str::to_owned);
            let (input, output) = (name(input), name(output));
            Needed {
                packet: Packet { hook: Hook::Forward, input, output, source, destination, port: None, state },
                all,
            }
        };
        let mut packets = Vec::new();
        if let here @ Some(_) = self.gateway_link {
            let here = (here, subnet);
            for link in self.outside.links() {
                // The other flat network's own accepts are enough: they are for its subnets, which are not known here.
                let all = !self.outside.flat.iter().any(|flat| flat == link);
                let there = (Some(link), None);
                packets.extend([
                    needed(there, here, "new", all),
                    needed(here, there, "established", all),
                    needed(here, there, "new", all),
                ]);
            }
            // From wherever that is: the host's own loopback, too, whose packets come by a link that is nobody's outside.
            packets.push(needed((None, None), here, "dnat", true));
        }
        if let here @ Some(_) = self.bridge {
            packets.push(needed((here, subnet), (here, subnet), "new", true));
        }
        packets
    }
}

impl Outside {
    fn links(&self) -> impl Iterator<Item = &str> {
        self.uplinks.iter().chain(&self.flat).map(String::as_str)
    }
}
