//! Listings as real firewalls leave them, and what doctor reads in them.

use rstest::rstest;
use serde_json::{Map, Value, json};

use super::*;
use crate::filter::iptables;
use crate::filter::rules::Ruleset;

/// Docker's, beside a policy of DROP, as `iptables -S` has it.
const DOCKER: &str = r"-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
";

/// The part of ufw's that forwarding meets.
const UFW: &str = r#"-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N ufw-before-forward
-N ufw-user-forward
-N ufw-after-logging-forward
-N ufw-reject-forward
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-logging-forward
-A FORWARD -j ufw-reject-forward
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
"#;

fn network() -> Network {
    let config = json!({"name": "flatnet", "ipam": {"subnet": "10.87.1.0/24"}});
    Network::parse(config.as_object().unwrap_or(&Map::new())).expect("a network")
}

fn judge(chains: Vec<Chain>, bridged: bool) -> (Finding, Finding) {
    judge_both([chains, Vec::new()], bridged, &network())
}

/// By the rules of each family.
fn judge_both(chains: [Vec<Chain>; 2], bridged: bool, network: &Network) -> (Finding, Finding) {
    let [v4, v6] = chains;
    let filter = |family, chains| Filter {
        family,
        ruleset: Ruleset { chains },
        sources: vec!["a text"],
        unread: Vec::new(),
        bridged,
    };
    let firewall = Firewall { filters: [filter(IpFamily::V4, v4), filter(IpFamily::V6, v6)] };
    let host = Host { root: true, release: "6.1.0".into() };
    let mut findings = firewall.check(&host, Some("eth0"), network).into_iter();
    (findings.next().expect("the firewall's"), findings.next().expect("the bridge's"))
}

fn iptables(text: &str) -> Finding {
    judge(iptables::parse(Tool::Iptables, IpFamily::V4, text), false).0
}

fn with(rules: &str, more: &str) -> String {
    format!("{rules}{more}\n")
}

#[rstest]
#[case::docker(DOCKER, State::Bad, "iptables -I DOCKER-USER -o flatnet-br0 -j ACCEPT")]
#[case::ufw(UFW, State::Bad, "ufw route allow out on flatnet-br0")]
#[case::plain("-P FORWARD DROP\n", State::Bad, "iptables -I FORWARD -i flatnet-br0 -j ACCEPT")]
#[case::accepting("-P FORWARD ACCEPT\n", State::Ok, "")]
#[case::only_the_way_there("-P FORWARD DROP\n-A FORWARD -o flatnet-br0 -j ACCEPT\n", State::Bad, "-i flatnet-br0")]
#[case::both("-P FORWARD DROP\n-A FORWARD -o flatnet+ -j ACCEPT\n-A FORWARD -i flatnet-br0 -j ACCEPT\n", State::Ok, "")]
#[case::port(
    "-P FORWARD DROP\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\n-A FORWARD -o flatnet-br0 -p tcp --dport 80 -j ACCEPT\n",
    State::Warning,
    "if containers are not reached"
)]
#[case::quoted("-P FORWARD DROP\n-A FORWARD -m comment --comment \"-j DROP\" -j ACCEPT\n", State::Ok, "")]
#[case::rejecting(
    "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n",
    State::Bad,
    "FORWARD"
)]
#[case::udp("-P FORWARD ACCEPT\n-A FORWARD -p udp -j DROP\n", State::Ok, "")]
fn listings_of_iptables(#[case] text: &str, #[case] state: State, #[case] words: &str) {
    let finding = iptables(text);
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(finding.remedy.as_deref().unwrap_or_default().contains(words), "{finding:?}");
}

#[test]
fn what_doctor_says_is_what_mends() {
    let docker = with(DOCKER, "-A DOCKER-USER -o flatnet-br0 -j ACCEPT");
    // Appended behind the RETURN it has no effect; `-I` puts it before.
    assert_eq!(iptables(&docker).state, State::Bad);
    let docker = DOCKER.replace(
        "-A DOCKER-USER -j RETURN",
        "-A DOCKER-USER -i flatnet-br0 -j ACCEPT\n-A DOCKER-USER -o flatnet-br0 -j ACCEPT\n-A DOCKER-USER -j RETURN",
    );
    assert_eq!(iptables(&docker).state, State::Ok);
    let ufw = with(UFW, "-A ufw-user-forward -o flatnet-br0 -j ACCEPT");
    assert_eq!(iptables(&ufw).state, State::Ok);
}

fn nft(rules: &str, policy: &str) -> Finding {
    let text = format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.9", "json_schema_version": 1}}}},
        {{"table": {{"family": "inet", "name": "filter", "handle": 1}}}},
        {{"chain": {{"family": "inet", "table": "filter", "name": "forward", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "{policy}"}}}},
        {{"rule": {{"family": "inet", "table": "filter", "chain": "forward", "handle": 3, "expr": [{rules}]}}}}]}}"#
    );
    judge(nft::parse(IpFamily::V4, &text).expect("JSON").chains, false).0
}

const ESTABLISHED: &str = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}], ["invalid", {"drop": null}]]}}}"#;

#[rstest]
#[case::dropping("", "drop", State::Bad, "nft insert rule inet filter forward oifname flatnet-br0 accept")]
#[case::accepting("", "accept", State::Ok, "")]
#[case::rejecting(r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#, "accept", State::Bad, "inet filter")]
#[case::other_link(
    r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}, {"accept": null}"#,
    "drop",
    State::Bad,
    ""
)]
#[case::not_that_link(
    r#"{"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}, {"accept": null}"#,
    "drop",
    State::Ok,
    ""
)]
#[case::both_links(r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": ["eth*", "flatnet-br0"]}}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}"#, "drop", State::Ok, "")]
#[case::a_range(r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"prefix": {"addr": "10.88.0.0", "len": 16}}}}, {"drop": null}"#, "accept", State::Ok, "")]
#[case::our_range(r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}, {"drop": null}"#, "accept", State::Bad, "")]
#[case::icmp(
    r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "icmp"}}, {"drop": null}"#,
    "accept",
    State::Ok,
    ""
)]
#[case::named_set(
    r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "@lan"}}, {"accept": null}"#,
    "drop",
    State::Warning,
    ""
)]
#[case::unknown_expression(
    r#"{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}"#,
    "drop",
    State::Warning,
    ""
)]
#[case::joined_states(r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": {"|": ["new", "established"]}}}, {"accept": null}"#, "drop", State::Ok, "")]
#[case::named_map(r#"{"vmap": {"key": {"meta": {"key": "oifname"}}, "data": "@zones"}}"#, "drop", State::Warning, "")]
#[case::only_answers(ESTABLISHED, "drop", State::Bad, "")]
fn listings_of_nft(#[case] rules: &str, #[case] policy: &str, #[case] state: State, #[case] words: &str) {
    let finding = nft(rules, policy);
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(finding.remedy.as_deref().unwrap_or_default().contains(words), "{finding:?}");
}

/// The part of ufw's that a question to this host meets, with SSH allowed.
const UFW_INPUT: &str = r"-P INPUT DROP
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-N ufw-before-input
-N ufw-not-local
-N ufw-user-input
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
";

#[rstest]
#[case::ufw("", State::Warning, "ufw allow 8053/tcp")]
#[case::ufw_allowed("-A ufw-user-input -p tcp -m tcp --dport 8053 -j ACCEPT", State::Ok, "")]
#[case::several("-A ufw-user-input -p tcp -m multiport --dports 80,8000:8999 -j ACCEPT", State::Ok, "")]
#[case::other("-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT", State::Warning, "")]
#[case::from_somewhere("-A ufw-user-input -s 192.168.50.0/24 -j ACCEPT", State::Ok, "")]
fn questions_to_the_name_service(#[case] rule: &str, #[case] state: State, #[case] words: &str) {
    let finding = iptables(&with(UFW_INPUT, rule));
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(finding.remedy.as_deref().unwrap_or_default().contains(words), "{finding:?}");
}

#[test]
fn a_map_of_verdicts_is_its_elements() {
    let accept =
        r#"{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "flatnet-br0"}}, {"accept": null}"#;
    let rules = format!(
        "{ESTABLISHED}]}}}}, {{\"rule\": {{\"family\": \"inet\", \"table\": \"filter\", \"chain\": \"forward\", \"handle\": 4, \"expr\": [{accept}"
    );
    assert_eq!(nft(&rules, "drop").state, State::Ok);
}

#[test]
fn firewalld_has_words_of_its_own() {
    let text = r#"{"nftables": [
        {"chain": {"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "expr": [{"match": {"op": "==", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "expr": [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}}]}"#;
    let (finding, _) = judge(nft::parse(IpFamily::V4, text).expect("JSON").chains, false);
    assert_eq!(finding.state, State::Bad);
    assert!(finding.remedy.expect("a remedy").contains("firewall-cmd"));
}

#[test]
fn containers_are_cut_off_from_each_other_only_where_bridges_ask_the_firewall() {
    let rules =
        "-P FORWARD DROP\n-A FORWARD -i eth0 -o flatnet-br0 -j ACCEPT\n-A FORWARD -i flatnet-br0 -o eth0 -j ACCEPT\n";
    let both = |bridged| judge(iptables::parse(Tool::Iptables, IpFamily::V4, rules), bridged);
    assert_eq!((both(true).0.state, both(true).1.state), (State::Ok, State::Bad));
    assert_eq!(both(false).1.state, State::Ok);
    let (forward, between) = judge(iptables::parse(Tool::Iptables, IpFamily::V4, "-P FORWARD DROP\n"), true);
    assert_eq!((forward.state, between.state), (State::Bad, State::Skipped));
}

#[test]
fn what_could_not_be_read_is_said() {
    let filter = |family| Filter {
        family,
        ruleset: Ruleset::default(),
        sources: Vec::new(),
        unread: vec!["neither nft nor iptables is installed".into()],
        bridged: false,
    };
    let firewall = Firewall { filters: IpFamily::BOTH.map(filter) };
    let host = Host { root: true, release: String::new() };
    let finding = &firewall.check(&host, None, &network())[0];
    assert_eq!(finding.state, State::Warning);
    assert!(finding.found.contains("neither nft nor iptables"));
}

/// A bridge with a VLAN, and one that is no gateway: packets are seen where the kernel shows them.
#[rstest]
#[case::routed(json!({"vlan": 100}), "-A FORWARD -o flatnet-br0.100 -j ACCEPT\n-A FORWARD -i flatnet-br0.100 -j ACCEPT\n", State::Ok, State::Bad)]
#[case::on_the_bridge(json!({"vlan": 100}), "-A FORWARD -i flatnet-br0 -o flatnet-br0 -j ACCEPT\n", State::Bad, State::Ok)]
#[case::no_gateway(json!({"isGateway": false}), "-A FORWARD -i flatnet-br0 -o flatnet-br0 -j ACCEPT\n", State::Skipped, State::Ok)]
#[case::no_gateway_dropped(json!({"isGateway": false}), "", State::Skipped, State::Bad)]
fn where_the_kernel_shows_packets(
    #[case] mut config: Value,
    #[case] rules: &str,
    #[case] forward: State,
    #[case] between: State,
) {
    config["name"] = json!("flatnet");
    config["ipam"] = json!({"subnet": "10.87.1.0/24"});
    let network = Network::parse(config.as_object().expect("an object")).expect("a network");
    let chains = iptables::parse(Tool::Iptables, IpFamily::V4, &format!("-P FORWARD DROP\n{rules}"));
    let found = judge_both([chains, Vec::new()], true, &network);
    assert_eq!((found.0.state, found.1.state), (forward, between), "{found:?}");
}

/// A network of both families.
fn dual() -> Network {
    let ranges = json!([[{"subnet": "10.87.1.0/24"}], [{"subnet": "fd87:1::/64"}]]);
    let config = json!({"name": "flatnet", "ipam": {"ranges": ranges}});
    Network::parse(config.as_object().unwrap_or(&Map::new())).expect("a network")
}

fn ip6tables(text: &str) -> [Vec<Chain>; 2] {
    [Vec::new(), iptables::parse(Tool::Iptables, IpFamily::V6, text)]
}

#[rstest]
#[case::plain("-P FORWARD DROP\n", "run `ip6tables -I FORWARD -o flatnet-br0 -j ACCEPT`")]
#[case::docker(DOCKER, "ip6tables -I DOCKER-USER -i flatnet-br0 -j ACCEPT")]
#[case::ufw(&UFW.replace("ufw-", "ufw6-").replace("-p icmp -m icmp --icmp-type 8", "-p ipv6-icmp -m icmp6 --icmpv6-type 128"), "ufw route allow in on flatnet-br0")]
fn what_drops_ipv6_alone(#[case] text: &str, #[case] remedy: &str) {
    let (finding, _) = judge_both(ip6tables(text), false, &dual());
    assert_eq!(finding.state, State::Bad, "{finding:?}");
    assert_eq!(finding.found, "ip6tables chain FORWARD (policy drop) drops what the gateway sends over IPv6");
    assert!(finding.remedy.as_deref().unwrap_or_default().contains(remedy), "{finding:?}");
    // A network without IPv6 does not mind.
    assert_eq!(judge_both(ip6tables(text), false, &network()).0.state, State::Ok);
}

#[rstest]
#[case::family_alone(
    r#"{"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": "ipv6"}}, {"drop": null}"#,
    State::Bad
)]
#[case::the_other(r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "daddr"}}, "right": {"prefix": {"addr": "fd99::", "len": 16}}}}, {"drop": null}"#, State::Ok)]
#[case::ours(r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "daddr"}}, "right": {"prefix": {"addr": "fd00::", "len": 8}}}}, {"drop": null}"#, State::Bad)]
#[case::not_tcp(r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "nexthdr"}}, "right": "udp"}}, {"drop": null}"#, State::Ok)]
fn a_table_of_both_families_is_read_for_each(#[case] rule: &str, #[case] state: State) {
    let text = format!(
        r#"{{"nftables": [{{"chain": {{"family": "inet", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}}}},
        {{"rule": {{"family": "inet", "table": "filter", "chain": "forward", "expr": [{rule}]}}}},
        {{"chain": {{"family": "ip6", "table": "other", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}}}]}}"#
    );
    let [v4, v6] = IpFamily::BOTH.map(|family| nft::parse(family, &text).expect("JSON").chains);
    assert_eq!((v4.len(), v6.len()), (1, 2));
    let (finding, _) = judge_both([v4.clone(), v6], false, &dual());
    assert_eq!(finding.state, state, "{finding:?}");
    assert_eq!(judge(v4, false).0.state, State::Ok);
}

#[test]
fn a_question_by_ipv6_may_be_dropped_alone() {
    let text = "-P INPUT DROP\n-A INPUT -p ipv6-icmp -j ACCEPT\n";
    let (finding, _) = judge_both(ip6tables(text), false, &dual());
    assert_eq!(finding.state, State::Warning, "{finding:?}");
    let rule = "run `ip6tables -I INPUT -d fd87:1::1 -p tcp --dport 8053 -j ACCEPT`";
    assert!(finding.remedy.as_deref().unwrap_or_default().contains(rule), "{finding:?}");
}

#[test]
fn bridges_may_ask_ip6tables() {
    let rules =
        "-P FORWARD DROP\n-A FORWARD -i eth0 -o flatnet-br0 -j ACCEPT\n-A FORWARD -i flatnet-br0 -o eth0 -j ACCEPT\n";
    let (forward, between) = judge_both(ip6tables(rules), true, &dual());
    assert_eq!((forward.state, between.state), (State::Ok, State::Bad));
    assert!(between.remedy.expect("a remedy").contains("net.bridge.bridge-nf-call-ip6tables=0"));
}
