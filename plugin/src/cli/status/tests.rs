use anstream::adapter::strip_str;
use serde_json::json;

use super::*;
use crate::config;
use crate::ipam::lease;
use crate::netlink::Link;
use crate::reach::Fault;

const WIDTH: usize = 80;

fn line(network: Option<&str>, address: &str, name: &str) -> Line {
    let alias =
        network.map(|network| format!("network={network} container={name}-0123456789 interface=eth0 name={name}"));
    let names = vec![format!("flatnet-att-{name}@eth0"), format!("flatnet-ip-{address}")];
    let link = Link { name: "fn-00000001".into(), alias, names, up: true, forwarding: true, ..Link::default() };
    assert!(lease::leases(&link).next().is_some());
    ls::lines_of(&link, None).remove(0)
}

fn seen(name: &str, subnet: &str, report: Report) -> Seen {
    let config = json!({"name": name, "type": "flatnet", "ipam": {"subnet": subnet}});
    let network = config::Network::parse(config.as_object().expect("an object")).expect("a network");
    let gateway = network.gateway_networks()[0];
    let bridge = reached::Bridge { is_bad: false, found: format!("flatnet-br0, up, {gateway}"), remedy: None };
    Seen { network, bridge, report }
}

fn report(shown: &[(&str, Shown)]) -> Report {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mut report =
        Report { shown: shown.iter().map(|(it, shown)| (address(it), *shown)).collect(), ..Report::default() };
    for (it, shown) in shown.iter().filter(|(_, shown)| *shown != Shown::Reached) {
        let fault = Fault {
            address: address(it),
            who: "who".into(),
            found: format!("it is {shown:?}, for a reason that takes a whole sentence to say"),
            remedy: "run `ip link set fn-00000001 up`, or recreate the container".into(),
        };
        report.faults.push(fault);
    }
    report
}

fn status(seen: Vec<Seen>, lines: Vec<Line>) -> Status {
    Status::of("wsl".into(), None, seen, lines)
}

fn text(status: &Status) -> String {
    strip_str(&tree::text(status, Some(WIDTH), tree::Pen::ASCII)).to_string()
}

#[test]
fn each_container_has_the_mark_that_packets_have_shown() {
    let shown = [("10.87.1.2", Shown::Reached), ("10.87.1.3", Shown::Blocked), ("10.87.1.4", Shown::Silent)];
    let lines = vec![
        line(Some("flatnet"), "10.87.1.2", "web"),
        line(Some("flatnet"), "10.87.1.3", "db"),
        line(None, "10.87.1.4", "old"),
        line(Some("flatnet"), "10.87.1.5", "new"),
        line(Some("removed"), "10.99.1.2", "lost"),
    ];
    let status = status(vec![seen("flatnet", "10.87.1.0/24", report(&shown))], lines);
    assert!(!status.ok);
    insta::assert_snapshot!(text(&status), @r"
    wsl
    |- flatnet-br0, up, 10.87.1.1/24 (network flatnet: 10.87.1.0/24)
    |  |- reached    10.87.1.2  web
    |  |- blocked    10.87.1.3  db   it is Blocked, for a reason that takes a whole
    |  |                             sentence to say
    |  |             fix: run `ip link set fn-00000001 up`, or recreate the
    |  |                  container
    |  |- no answer  10.87.1.4  -    it is Silent, for a reason that takes a whole
    |  |                             sentence to say
    |  |             fix: run `ip link set fn-00000001 up`, or recreate the
    |  |                  container
    |  `- not tried  10.87.1.5  new  it came while the others were tried
    `- no bridge is known
       `- not tried  10.99.1.2  lost  removed  no valid file describes its network
                     fix: run `flatnet doctor`

    1 reached, 1 blocked, 1 no answer, 2 not tried: `flatnet doctor` looks at all
    the rest
    ");
}

#[test]
fn where_nothing_is_bad_it_is_ok() {
    let well = status(
        vec![seen("flatnet", "10.87.1.0/24", report(&[("10.87.1.2", Shown::Reached)]))],
        vec![line(Some("flatnet"), "10.87.1.2", "web")],
    );
    assert!(well.ok);
    insta::assert_snapshot!(text(&well), @r"
    wsl
    `- flatnet-br0, up, 10.87.1.1/24 (network flatnet: 10.87.1.0/24)
       `- reached  10.87.1.2  web

    1 reached
    ");
    let mut untried = Report { untried: Some("that needs root".into()), ..Report::default() };
    let lines = || vec![line(Some("flatnet"), "10.87.1.2", "web")];
    let nobody = status(vec![seen("flatnet", "10.87.1.0/24", untried)], lines());
    assert!(nobody.ok && text(&nobody).contains("not tried  10.87.1.2  web  that needs root"), "{}", text(&nobody));
    untried = Report { sampled: Some(128), ..Report::default() };
    let many = status(vec![seen("flatnet", "10.87.1.0/24", untried)], lines());
    assert!(text(&many).contains("more addresses than one look may try"), "{}", text(&many));
}

#[test]
fn of_one_network_the_others_do_not_matter() {
    let lines = || vec![line(Some("flatnet"), "10.87.1.2", "web"), line(Some("removed"), "10.99.1.2", "lost")];
    let seen = || vec![seen("flatnet", "10.87.1.0/24", report(&[("10.87.1.2", Shown::Reached)]))];
    assert!(!status(seen(), lines()).ok, "nobody knows how a network that no file describes is to be");
    let one = Status::of("wsl".into(), Some("flatnet"), seen(), lines());
    assert!(one.ok && one.others.is_empty(), "{}", text(&one));
}

#[test]
fn networks_that_share_a_bridge_are_one_branch() {
    let both = [("10.87.1.2", Shown::Reached)];
    let networks = vec![seen("flatnet", "10.87.1.0/24", report(&both)), seen("second", "10.88.1.0/24", report(&[]))];
    let status = status(networks, vec![line(Some("flatnet"), "10.87.1.2", "web")]);
    assert_eq!(status.bridges.len(), 1);
    insta::assert_snapshot!(text(&status), @r"
    wsl
    `- flatnet-br0, up, 10.87.1.1/24; flatnet-br0, up, 10.88.1.1/24 (network
       flatnet: 10.87.1.0/24; network second: 10.88.1.0/24)
       `- reached  10.87.1.2  web  flatnet

    1 reached
    ");
}

#[test]
fn a_bridge_that_is_bad_says_what_repairs_it() {
    let mut bad = seen("flatnet", "10.87.1.0/24", report(&[]));
    bad.bridge = reached::Bridge {
        is_bad: true,
        found: "flatnet-br0 is down".into(),
        remedy: Some("run `ip link set flatnet-br0 up`; the next container's start does so too".into()),
    };
    let status = status(vec![bad], Vec::new());
    assert!(!status.ok);
    insta::assert_snapshot!(text(&status), @r"
    wsl
    `- flatnet-br0 is down (network flatnet: 10.87.1.0/24)
       fix: run `ip link set flatnet-br0 up`; the next container's start does so too

    no container has an address: `flatnet doctor` looks at all the rest
    ");
    assert!(text(&self::status(Vec::new(), Vec::new())).contains("no valid network of type flatnet"));
}

#[test]
fn a_script_gets_an_object() {
    let blocked = [("10.87.1.2", Shown::Blocked)];
    let status = status(
        vec![seen("flatnet", "10.87.1.0/24", report(&blocked))],
        vec![line(Some("flatnet"), "10.87.1.2", "web")],
    );
    insta::assert_snapshot!(format!("{:#}", json!(status)), @r#"
    {
      "host": "wsl",
      "ok": false,
      "bridges": [
        {
          "name": "flatnet-br0",
          "ok": true,
          "found": [
            "flatnet-br0, up, 10.87.1.1/24"
          ],
          "networks": [
            {
              "name": "flatnet",
              "subnets": [
                "10.87.1.0/24"
              ],
              "gateways": [
                "10.87.1.1"
              ]
            }
          ],
          "containers": [
            {
              "address": "10.87.1.2",
              "network": "flatnet",
              "name": "web",
              "container": "web-0123456789",
              "interface": "eth0",
              "mac": null,
              "link": "fn-00000001",
              "state": "forwarding",
              "reach": "blocked",
              "found": "it is Blocked, for a reason that takes a whole sentence to say",
              "remedy": "run `ip link set fn-00000001 up`, or recreate the container"
            }
          ]
        }
      ],
      "others": []
    }
    "#);
}
