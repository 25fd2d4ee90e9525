//! Rules as real firewalls leave them, and what flatnet does about them.

use rstest::rstest;

use super::*;
use crate::family::IpFamily;
use crate::filter::iptables;
use crate::filter::rules::{Fate, Hook, Packet, Tool};

/// As earlier versions wrote them.
const IN: &str = "-d 10.87.1.0/24 -o flatnet-br0 -m comment --comment \"flatnet: network flatnet\" -j ACCEPT";
const OUT: &str = "-s 10.87.1.0/24 -i flatnet-br0 -m comment --comment \"flatnet: network flatnet\" -j ACCEPT";

/// What containers need whom others reach by eth0, each with way and subnet; and where no firewall asks what stays on a bridge.
const KINDS: [&str; 6] = ["Out flatnet-br0", "In eth0", "Out eth0", "In answers", "Out answers", "In published"];

/// The rules for that, as iptables shows them.
const ACCEPTS: &str = r#"-A FORWARD -s 10.87.1.0/24 -i flatnet-br0 -o flatnet-br0 -m comment --comment "flatnet: network flatnet" -j ACCEPT
-A FORWARD -d 10.87.1.0/24 -i eth0 -o flatnet-br0 -m comment --comment "flatnet: network flatnet" -j ACCEPT
-A FORWARD -s 10.87.1.0/24 -i flatnet-br0 -o eth0 -m comment --comment "flatnet: network flatnet" -j ACCEPT
-A FORWARD -d 10.87.1.0/24 -o flatnet-br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "flatnet: network flatnet" -j ACCEPT
-A FORWARD -s 10.87.1.0/24 -i flatnet-br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "flatnet: network flatnet" -j ACCEPT
-A FORWARD -d 10.87.1.0/24 -o flatnet-br0 -m conntrack --ctstate DNAT -m comment --comment "flatnet: network flatnet" -j ACCEPT
"#;

/// As dockerd 27 leaves it; 28 has no RETURN in DOCKER-USER, and one chain, DOCKER-FORWARD, for all that follows.
const DOCKER: &str = r"-P FORWARD DROP
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -m set --match-set docker-ext-bridges-v4 dst -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
";

const UFW: &str = r"-P FORWARD DROP
-N ufw-before-forward
-N ufw-user-forward
-N ufw-reject-forward
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
";

fn rules(text: &str) -> Ruleset {
    Ruleset { chains: iptables::parse(Tool::Iptables, IpFamily::V4, text) }
}

fn wanted(bridged: bool) -> Wanted<'static> {
    wanted_for(&["10.87.1.0/24"], bridged)
}

fn wanted_for(subnets: &[&str], bridged: bool) -> Wanted<'static> {
    let subnets = subnets.iter().map(|subnet| subnet.parse().expect("a subnet")).collect();
    let bridge = Some("flatnet-br0");
    let outside = Outside { uplinks: vec!["eth0".into()], flat: Vec::new() };
    Wanted { network: "flatnet", gateway_link: bridge, outside, bridge: bridge.filter(|_| bridged), subnets }
}

/// The words of each edit.
fn edits(text: &str) -> Vec<String> {
    open(&rules(text), &wanted(false)).edits.iter().map(words).collect()
}

fn words(edit: &Edit) -> String {
    match edit {
        Edit::Remove { chain, accept, .. } => format!("- {} {}", chain.name, kind(accept)),
        Edit::Insert { chain, accept, position } => {
            let at = match position {
                Position::First => "first".to_owned(),
                Position::Before(at, _) => format!("before {at}"),
                Position::Last => "last".to_owned(),
            };
            format!("+ {} {} {at}", chain.name, kind(accept))
        }
    }
}

fn kind(accept: &Accept) -> String {
    let far = match &accept.far {
        Far::Anybody => "anybody",
        Far::Link(link) => link,
        Far::Answers => "answers",
        Far::Published => "published",
    };
    format!("{:?} {far} {}", accept.way, accept.subnet)
}

/// All that is needed for a subnet, put into a chain.
fn all(chain: &str, subnet: &str, at: &str) -> Vec<String> {
    KINDS.map(|kind| format!("+ {chain} {kind} {subnet} {at}")).to_vec()
}

/// What a kernel does with the edits.
fn apply(ruleset: &mut Ruleset, edits: &[Edit]) {
    for edit in edits {
        let (Edit::Remove { chain, .. } | Edit::Insert { chain, .. }) = edit;
        let found = ruleset.chains.iter_mut().find(|it| it.table == chain.table && it.name == chain.name);
        let rules = &mut found.expect("the chain").rules;
        match edit {
            Edit::Remove { accept, .. } => {
                let at = rules.iter().position(|rule| Accept::of(rule).as_ref() == Some(accept));
                rules.remove(at.expect("the rule"));
            }
            Edit::Insert { accept, position, .. } => {
                let at = match *position {
                    Position::First => 0,
                    Position::Before(at, _) => at,
                    Position::Last => rules.len(),
                };
                rules.insert(at, accept.rule());
            }
        }
    }
}

#[rstest]
#[case::no_chain("")]
#[case::policy_accept("-P FORWARD ACCEPT\n")]
#[case::input_is_not_forward("-P INPUT DROP\n-P FORWARD ACCEPT\n")]
#[case::other_links("-P FORWARD ACCEPT\n-A FORWARD -o docker0 -j DROP\n")]
#[case::opened_by_hand("-P FORWARD DROP\n-A FORWARD -o flatnet-br0 -j ACCEPT\n-A FORWARD -i flatnet-br0 -j ACCEPT\n")]
fn where_nothing_drops_nothing_is_written(#[case] text: &str) {
    assert_eq!(open(&rules(text), &wanted(true)), Plan::default());
}

#[rstest]
#[case::policy("-P FORWARD DROP\n", "FORWARD", "first")]
#[case::a_rule_at_the_end(
    "-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -j REJECT\n",
    "FORWARD",
    "first"
)]
#[case::docker(DOCKER, "DOCKER-USER", "before 0")]
#[case::docker_28(&DOCKER.replace("-A DOCKER-USER -j RETURN\n", ""), "DOCKER-USER", "last")]
#[case::docker_behind_a_reject(&DOCKER.replace("-A FORWARD -j DOCKER-USER", "-A FORWARD -j REJECT\n-A FORWARD -j DOCKER-USER"), "FORWARD", "first")]
#[case::docker_for_some(&DOCKER.replace("-A FORWARD -j DOCKER-USER", "-A FORWARD -i eth1 -j DOCKER-USER"), "FORWARD", "first")]
#[case::users_own_rules_come_first(&DOCKER.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -p tcp --dport 22 -j DROP\n-A DOCKER-USER -j RETURN"), "DOCKER-USER", "before 1")]
#[case::users_drop_all(&DOCKER.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -j DROP"), "FORWARD", "first")]
#[case::ufw(UFW, "ufw-user-forward", "last")]
fn accepts_go_where_users_rules_belong(#[case] text: &str, #[case] chain: &str, #[case] at: &str) {
    assert_eq!(edits(text), all(chain, "10.87.1.0/24", at));
    let mut ruleset = rules(text);
    let plan = open(&ruleset, &wanted(true));
    assert!(plan.obstacles[0].starts_with("iptables chain FORWARD ("), "{:?}", plan.obstacles);
    apply(&mut ruleset, &plan.edits);
    assert_eq!(open(&ruleset, &wanted(true)), Plan::default(), "{ruleset:#?}");
}

#[test]
fn all_of_them_once_are_enough() {
    assert_eq!(edits(&format!("-P FORWARD DROP\n{ACCEPTS}")), [""; 0]);
    let others = ACCEPTS.replace("flatnet-br0", "flatnet-br1").replace("10.87.1", "10.87.2");
    assert_eq!(edits(&format!("-P FORWARD DROP\n{others}-A FORWARD -i eth0 -j LOG\n{ACCEPTS}")), [""; 0]);
    // One of them is of another network on this bridge.
    let shared = ACCEPTS.replacen("network flatnet", "network other", 1);
    assert_eq!(edits(&format!("-P FORWARD DROP\n{shared}")), [""; 0]);
}

#[rstest]
#[case::twice(&format!("{ACCEPTS}{ACCEPTS}"), 12)]
#[case::but_one(ACCEPTS.split_once('\n').map_or("", |(_, rest)| rest), 5)]
#[case::of_no_use(&format!("-A FORWARD -j DROP\n{ACCEPTS}"), 6)]
#[case::of_an_earlier_version(&format!("-A FORWARD {IN}\n-A FORWARD {OUT}\n"), 2)]
#[case::and_too_wide(&format!("{ACCEPTS}-A FORWARD {IN}\n"), 7)]
#[case::by_a_link_that_is_no_uplink_now(&format!("{ACCEPTS}{}", ACCEPTS.lines().nth(1).expect("a rule").replace("eth0", "eth1")), 7)]
fn anything_else_is_made_anew(#[case] rules: &str, #[case] removed: usize) {
    let edits = edits(&format!("-P FORWARD DROP\n{rules}\n"));
    let (gone, new) = edits.split_at(removed);
    assert!(gone.iter().all(|edit| edit.starts_with("- FORWARD ")), "{gone:?}");
    assert_eq!(new, all("FORWARD", "10.87.1.0/24", "first"));
}

#[test]
fn nobody_passes_who_comes_from_elsewhere() {
    let mut ruleset = rules("-P FORWARD DROP\n");
    let plan = open(&ruleset, &wanted(true));
    apply(&mut ruleset, &plan.edits);
    let fate = |input: &str, output: &str, state| {
        let name = |link: &str| Some(link.to_owned());
        let subnet = Some("10.87.1.0/24".parse().expect("a subnet"));
        let (source, destination) = if output == "flatnet-br0" { (None, subnet) } else { (subnet, None) };
        let (input, output) = (name(input), name(output));
        let packet = Packet { hook: Hook::Forward, input, output, source, destination, port: None, state };
        ruleset.fate(&ruleset.chains[0], &packet)
    };
    for state in ["new", "established"] {
        let elsewhere = if state == "new" { Fate::Dropped } else { Fate::Passes };
        assert_eq!(fate("docker0", "flatnet-br0", state), Some(elsewhere), "{state}");
        assert_eq!(fate("flatnet-br0", "docker0", state), Some(elsewhere), "{state}");
        assert_eq!(fate("eth0", "flatnet-br0", state), Some(Fate::Passes), "{state}");
        assert_eq!(fate("flatnet-br0", "eth0", state), Some(Fate::Passes), "{state}");
    }
    // Who says that he is one of them comes by another link.
    assert_eq!(fate("docker0", "eth0", "new"), Some(Fate::Dropped));
}

#[test]
fn what_a_published_port_has_led_here_passes_from_everywhere_even_without_an_uplink() {
    let wanted = Wanted { outside: Outside::default(), ..wanted(false) };
    let kinds = |plan: Plan| plan.edits.iter().map(words).collect::<Vec<_>>();
    let all = ["Out flatnet-br0", "In answers", "Out answers", "In published"]
        .map(|kind| format!("+ FORWARD {kind} 10.87.1.0/24 first"));
    assert_eq!(kinds(open(&rules("-P FORWARD DROP\n"), &wanted)), all);
    let published = "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n";
    assert_eq!(open(&rules(published), &wanted), Plan::default());
}

/// Its accepts are for its own subnet; whether that is all that comes by its bridge is not known here.
#[test]
fn what_another_flat_network_has_opened_is_no_obstacle() {
    let outside = |flat: &str| Outside { uplinks: vec!["eth0".into()], flat: vec![flat.into()] };
    let second = Wanted {
        network: "second",
        gateway_link: Some("second-br0"),
        outside: outside("flatnet-br0"),
        ..wanted_for(&["10.87.2.0/24"], false)
    };
    let mut ruleset = rules(&format!("-P FORWARD DROP\n{ACCEPTS}"));
    let first = Wanted { outside: outside("second-br0"), ..wanted(false) };
    assert_eq!(open(&ruleset, &first).obstacles, ["iptables chain FORWARD (policy drop)"]);
    let plan = open(&ruleset, &second);
    apply(&mut ruleset, &plan.edits);
    assert_eq!(open(&ruleset, &second), Plan::default());
    // With the next container it gets accepts of its own, which are for whoever comes by that bridge.
    let plan = open(&ruleset, &first);
    assert_eq!((plan.obstacles.as_slice(), plan.edits.len()), (&[][..], 6 + 8));
    apply(&mut ruleset, &plan.edits);
    for wanted in [&first, &second] {
        assert_eq!(open(&ruleset, wanted), Plan::default(), "{wanted:?}");
    }
    // The same of a link that is none of flatnet's would have to be open for certain.
    ruleset.chains[0].rules.retain(|rule| Accept::of(rule).is_some_and(|accept| accept.bridge == "second-br0"));
    let uplinks = Wanted { outside: Outside { uplinks: vec!["second-br0".into()], flat: Vec::new() }, ..wanted(false) };
    assert_eq!(open(&ruleset, &uplinks).obstacles, ["iptables chain FORWARD (policy drop)"]);
}

#[test]
fn accepts_for_another_subnet_are_another_networks() {
    let mut ruleset = rules("-P FORWARD DROP\n");
    let [both, one] = [&["10.87.1.0/24", "10.87.9.0/24"][..], &["10.87.1.0/24"]].map(|it| wanted_for(it, false));
    let plan = open(&ruleset, &both);
    apply(&mut ruleset, &plan.edits);
    for wanted in [&one, &both] {
        assert_eq!(open(&ruleset, wanted), Plan::default(), "{wanted:?}");
    }
    let lost = ruleset.chains[0].rules.pop().as_ref().and_then(Accept::of).expect("an accept");
    assert_eq!(kind(&lost), "Out flatnet-br0 10.87.1.0/24");
    let edits = open(&ruleset, &one).edits;
    assert!(edits.iter().map(words).all(|edit| edit.contains(" 10.87.1.0/24")), "{edits:?}");
    assert_eq!(edits.len(), 5 + 6);
}

/// Routed packets are seen at the VLAN, bridged ones at the bridge.
#[rstest]
#[case::a_vlan(Some("flatnet-br0.100"), true, &["Out flatnet-br0.100 flatnet-br0.100", "Out flatnet-br0 flatnet-br0"])]
#[case::a_vlan_that_is_not_bridged(Some("flatnet-br0.100"), false, &["Out flatnet-br0.100 flatnet-br0.100"])]
#[case::no_gateway(None, true, &["Out flatnet-br0 flatnet-br0"])]
#[case::no_gateway_that_is_not_bridged(None, false, &[])]
fn what_stays_on_the_bridge_is_seen_at_the_bridge(
    #[case] gateway_link: Option<&str>,
    #[case] bridged: bool,
    #[case] accepts: &[&str],
) {
    let mut ruleset = rules("-P FORWARD DROP\n");
    let wanted = Wanted { gateway_link, bridge: Some("flatnet-br0").filter(|_| bridged), ..wanted(false) };
    let plan = open(&ruleset, &wanted);
    apply(&mut ruleset, &plan.edits);
    let among = |it: &Accept| matches!(&it.far, Far::Link(link) if link.starts_with("flatnet-br0"));
    let found = ruleset.chains[0].rules.iter().filter_map(Accept::of).filter(among);
    let mut found: Vec<_> = found
        .map(|it| format!("{} {}", it.bridge, kind(&it)))
        .map(|it| {
            let words: Vec<_> = it.split(' ').collect();
            format!("{} {} {}", words[1], words[0], words[2])
        })
        .collect();
    // Each is put before the one that was put there last.
    found.reverse();
    assert_eq!(found, accepts);
    assert_eq!(open(&ruleset, &wanted), Plan::default(), "{ruleset:#?}");
}

#[test]
fn who_is_no_gateway_leaves_a_gateways_accepts_alone() {
    let ruleset = rules(&format!("-P FORWARD DROP\n{ACCEPTS}"));
    assert_eq!(open(&ruleset, &Wanted { gateway_link: None, ..wanted(true) }), Plan::default());
    assert_eq!(open(&ruleset, &wanted(true)), Plan::default());
}

#[test]
fn accepts_move_to_the_users_chain_when_it_comes() {
    let text = DOCKER.replace("-A FORWARD -j DOCKER-USER\n", &format!("-A FORWARD -j DOCKER-USER\n{ACCEPTS}"));
    let edits = edits(&text);
    assert!(edits[..6].iter().all(|edit| edit.starts_with("- FORWARD ")), "{edits:?}");
    assert_eq!(edits[6..], all("DOCKER-USER", "10.87.1.0/24", "before 0"));
}

#[test]
fn what_stays_on_the_bridge_counts_only_where_bridges_ask() {
    let ruleset = rules("-P FORWARD ACCEPT\n-A FORWARD -i flatnet-br0 -o flatnet-br0 -j DROP\n");
    let edits = |bridged| open(&ruleset, &wanted(bridged)).edits.len();
    assert_eq!((edits(false), edits(true)), (0, 6));
}

#[test]
fn rules_of_bridges_that_are_gone_are_swept() {
    let text = format!("-P FORWARD DROP\n-A FORWARD {IN}\n-A FORWARD -i flatnet-br0 -j ACCEPT\n-A FORWARD {OUT}\n");
    let ruleset = rules(&text);
    assert_eq!(bridges(&ruleset), ["flatnet-br0"]);
    assert_eq!(sweep(&ruleset, |_| false), []);
    let swept = sweep(&ruleset, |bridge| bridge == "flatnet-br0");
    assert_eq!(
        swept.iter().map(words).collect::<Vec<_>>(),
        ["- FORWARD In anybody 10.87.1.0/24", "- FORWARD Out anybody 10.87.1.0/24"]
    );
}

#[test]
fn a_rule_that_only_looks_like_flatnets_is_left_alone() {
    for rule in [
        IN.replace("ACCEPT", "DROP"),
        format!("! -i eth1 {IN}"),
        format!("-m conntrack --ctstate NEW {IN}"),
        format!("-i eth1 -m conntrack --ctstate DNAT {IN}"),
        IN.replace("flatnet: network", "flatnets"),
    ] {
        let ruleset = rules(&format!("-P FORWARD DROP\n-A FORWARD {rule}\n"));
        assert_eq!(sweep(&ruleset, |_| true), [], "{rule}");
    }
}

/// The part of ufw's for IPv6 that forwarding meets.
const UFW6: &str = r"-P FORWARD DROP
-N ufw6-before-forward
-N ufw6-user-forward
-A FORWARD -j ufw6-before-forward
-A ufw6-before-forward -m rt --rt-type 0 --rt-segsleft 0 -j DROP
-A ufw6-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw6-before-forward -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
-A ufw6-before-forward -j ufw6-user-forward
";

#[rstest]
#[case::policy("-P FORWARD DROP\n", "FORWARD", "first")]
#[case::docker(DOCKER, "DOCKER-USER", "before 0")]
#[case::ufw(UFW6, "ufw6-user-forward", "last")]
fn ip6tables_get_accepts_for_ipv6(#[case] text: &str, #[case] chain: &str, #[case] at: &str) {
    let mut ruleset = Ruleset { chains: iptables::parse(Tool::Iptables, IpFamily::V6, text) };
    let wanted = wanted_for(&["fd00:87::/64"], false);
    let plan = open(&ruleset, &wanted);
    assert_eq!(plan.obstacles, ["ip6tables chain FORWARD (policy drop)"]);
    assert_eq!(plan.edits.iter().map(words).collect::<Vec<_>>(), all(chain, "fd00:87::/64", at));
    apply(&mut ruleset, &plan.edits);
    assert_eq!(open(&ruleset, &wanted), Plan::default(), "{ruleset:#?}");
}

#[test]
fn each_subnet_has_accepts_of_its_own() {
    let wanted = wanted_for(&["10.87.1.0/24", "10.87.9.0/24"], false);
    let mut ruleset = rules("-P FORWARD DROP\n");
    let edits = open(&ruleset, &wanted).edits;
    assert_eq!(
        edits.iter().map(words).collect::<Vec<_>>(),
        [all("FORWARD", "10.87.1.0/24", "first"), all("FORWARD", "10.87.9.0/24", "first")].concat()
    );
    apply(&mut ruleset, &edits);
    assert_eq!(open(&ruleset, &wanted), Plan::default(), "{ruleset:#?}");
}
