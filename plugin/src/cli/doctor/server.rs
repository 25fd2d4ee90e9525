//! The two servers on the way: the name service of this host, and the gateway that asks it.
//!
//! The gateway is asked by a name that can be no container's: what comes back has gone all the way and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::finding::{Finding, GATEWAY, NAME_SERVICE, State};
use super::http::{self, Answer};
use crate::cli::probe::{self, Ran};
use crate::deadline;
use crate::layout;

/// The name under which a gateway passes a question about health on to the name service.
const HEALTH: &str = "health.flatnet.invalid";
const HTTP_PORT: u16 = 80;

/// Where a gateway is, as a person says it: `172.30.0.1`, `gateway.lan:8080`, `http://172.30.0.1/`, `fd30::1`, `[fd30::1]:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Gateway {
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("{scheme} is not spoken here: say http://<address>")),
        };
        let authority = rest.trim_end_matches('/');
        let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
        if let Ok(address) = bare.parse::<Ipv6Addr>() {
            return Ok(IpAddr::from(address).into());
        }
        if let Ok(SocketAddr::V6(address)) = authority.parse() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = match authority.rsplit_once(':') {
            None => (authority, HTTP_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| format!("{port:?} is not a port"))?),
        };
        match host {
            "" => Err("an address or a name is missing".into()),
            host if host.contains(['/', ':', '@', ' ']) => Err(format!("{host:?} is not an address or a name")),
            host => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl From<IpAddr> for Gateway {
    fn from(address: IpAddr) -> Self {
        Self { host: address.to_string(), port: HTTP_PORT }
    }
}

impl Gateway {
    /// Its address, if that is how it was said.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// To be shown.
    fn place(&self) -> String {
        match self.address() {
            Some(address) => SocketAddr::new(address, self.port).to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// By the host's own resolver: this binary is linked statically, and glibc's then fails on any other glibc (getaddrinfo(3)).
    fn resolve(&self) -> Result<SocketAddr, String> {
        if let Some(address) = self.address() {
            return Ok((address, self.port).into());
        }
        // IPv4 first: a gateway that has both is reached by it as it ever was.
        let found = self.ask::<Ipv4Addr>("ahostsv4").or_else(|no_ipv4| match self.ask::<Ipv6Addr>("ahostsv6") {
            // Without a second family that is the whole answer.
            Err(_) => Err(no_ipv4),
            found => found,
        });
        Ok(SocketAddr::new(found?, self.port))
    }

    /// The first address of that name in getent's database.
    fn ask<A: FromStr + Into<IpAddr>>(&self, database: &str) -> Result<IpAddr, String> {
        match probe::run("getent", &[database, &self.host]) {
            Ran::Well(text) => {
                let address = text.split_whitespace().next().and_then(|word| word.parse::<A>().ok());
                address.map(Into::into).ok_or_else(|| "has no IP address".into())
            }
            Ran::Missing => Err("cannot be resolved: there is no getent".into()),
            Ran::Badly(why) => Err(format!("cannot be resolved: getent {why}")),
        }
    }
}

/// On each of the bridge's addresses; the first that does not answer is told.
pub(super) fn name_service(gateways: &[IpNetwork]) -> Finding {
    let mut answering = Vec::new();
    for gateway in gateways {
        let address = SocketAddr::new(gateway.ip(), layout::NAME_SERVICE_PORT);
        let place = address.to_string();
        let finding = judge_name_service(&place, &http::get(address, &place, "/health", deadline::NAME_SERVICE));
        if finding.state != State::Ok {
            return finding;
        }
        answering.push(place);
    }
    NAME_SERVICE.ok(match answering.as_slice() {
        [] => return NAME_SERVICE.skipped("the bridge has no address"),
        [one] => format!("{one} answers"),
        several => format!("{} answer", several.join(", ")),
    })
}

fn judge_name_service(place: &str, answer: &Answer) -> Finding {
    const START: &str =
        "run `systemctl enable --now flatnet.service`; without systemd, start `flatnet gateway` at boot";
    match answer {
        // It answers, which is its part: what it finds wrong has a line of its own.
        Answer::Status { code: 200 | 503, body, .. } if is_health(body) => NAME_SERVICE.ok(format!("{place} answers")),
        Answer::Status { code: 200 | 404, .. } => NAME_SERVICE.bad(
            format!("another server answers on {place}"),
            format!("stop it: `ss -ltnp 'sport = :{}'` names it", layout::NAME_SERVICE_PORT),
        ),
        Answer::Status { code, body, .. } => NAME_SERVICE
            .bad(format!("{place} answers {code}: {}", first_line(body)), "see `journalctl -u flatnet.service`"),
        Answer::Refused => NAME_SERVICE.bad(format!("nothing listens on {place}"), START),
        Answer::Timeout => NAME_SERVICE.bad(
            format!("{place} does not answer in time"),
            "run `systemctl restart flatnet.service`; a firewall's INPUT rules may be in the way, too",
        ),
        Answer::Otherwise(what) => NAME_SERVICE.bad(format!("{place}: {what}"), START),
    }
}

/// `asked` says whether this one was named, or is only where a gateway should be.
pub(super) fn gateway(gateway: Option<&Gateway>, asked: bool) -> Finding {
    let Some(gateway) = gateway else {
        return GATEWAY.skipped("not checked; pass `--gateway ADDRESS` to test it");
    };
    let place = gateway.place();
    match gateway.resolve() {
        Ok(address) => judge_gateway(&place, asked, &http::get(address, HEALTH, "/", deadline::GATEWAY)),
        Err(why) => GATEWAY.bad(format!("{place} {why}"), "pass the gateway's address instead of its name"),
    }
}

fn judge_gateway(place: &str, asked: bool, answer: &Answer) -> Finding {
    const ROUTE: &str = "the gateway has no way to this host: on Windows run `flatnet-route.ps1 -Install` as administrator; on Linux `ip route add <subnet> via <this host's address>`; or this host's firewall keeps it out: let TCP port 8053 in, such as by `ufw allow 8053/tcp`";
    const CONFIGURE: &str = "include flatnet.conf in the http block of its nginx.conf and reload it: the page on the gateway in the manual says how";
    const LET_IN: &str =
        "`New-NetFirewallRule -DisplayName OpenResty -Direction Inbound -Protocol TCP -LocalPort 80 -Action Allow`";
    match answer {
        Answer::Status { code: 200, body, .. } if is_health(body) => GATEWAY.ok(format!("{place} reaches this host")),
        // The name service's own words, which have come all the way.
        Answer::Status { code: 503, body, .. } if is_health(body) => {
            GATEWAY.ok(format!("{place} reaches this host, which says that it is not well: see the other lines"))
        }
        Answer::Status { code: 502..=504, .. } => {
            GATEWAY.bad(format!("{place} answers, but does not reach the name service ({})", status(answer)), ROUTE)
        }
        Answer::Status { .. } => {
            GATEWAY.bad(format!("{place} is a server without flatnet's configuration ({})", status(answer)), CONFIGURE)
        }
        Answer::Refused => GATEWAY.bad(
            format!("nothing listens on {place}"),
            "start OpenResty or nginx there, with flatnet.conf: the page on the gateway in the manual says how",
        ),
        // As it comes, Windows' firewall keeps WSL out, whomever else it lets in.
        Answer::Timeout if !asked => GATEWAY.warning(
            format!("{place} does not answer this host: perhaps by its firewall, and others reach it"),
            format!("ask it from elsewhere: `curl -H 'Host: {HEALTH}' http://<the gateway>/`; for this host, on Windows: {LET_IN}"),
        ),
        Answer::Timeout => GATEWAY.bad(
            format!("{place} does not answer in time"),
            format!("let port 80 through the gateway's firewall (Windows: {LET_IN}), and see that the address is its own"),
        ),
        Answer::Otherwise(what) => GATEWAY.bad(format!("{place}: {what}"), "see that the address is the gateway's"),
    }
}

fn status(answer: &Answer) -> String {
    match answer {
        Answer::Status { code, server: Some(server), .. } => format!("{code} from {server}"),
        Answer::Status { code, .. } => code.to_string(),
        _ => String::new(),
    }
}

/// Whether the name service says this; no other server does.
fn is_health(body: &str) -> bool {
    serde_json::from_str::<Value>(body.trim()).is_ok_and(|value| value.get("healthy").is_some_and(Value::is_boolean))
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::State;
    use super::*;

    #[rstest]
    #[case::address("172.30.0.1", "172.30.0.1", 80)]
    #[case::port("172.30.0.1:8080", "172.30.0.1", 8080)]
    #[case::url("http://gateway.lan/", "gateway.lan", 80)]
    #[case::url_with_port("http://gateway.lan:81", "gateway.lan", 81)]
    #[case::v6("fd30::1", "fd30::1", 80)]
    #[case::v6_in_brackets("[fd30:0::1]", "fd30::1", 80)]
    #[case::v6_url_with_port("http://[fd30::1]:8080/", "fd30::1", 8080)]
    fn gateways(#[case] text: &str, #[case] host: &str, #[case] port: u16) {
        assert_eq!(text.parse(), Ok(Gateway { host: host.into(), port }));
    }

    #[test]
    fn a_name_is_resolved_as_this_host_does_it() {
        let gateway: Gateway = "localhost:81".parse().expect("a gateway");
        assert_eq!(gateway.resolve(), Ok(([127, 0, 0, 1], 81).into()));
        let unknown: Gateway = "no-such-name.invalid".parse().expect("a gateway");
        assert!(unknown.resolve().is_err());
    }

    #[rstest]
    #[case::https("https://gateway.lan/")]
    #[case::port("gateway.lan:http")]
    #[case::path("http://gateway.lan/path")]
    #[case::nothing("http://")]
    #[case::v6_port("[fd30::1]:http")]
    fn no_gateways(#[case] text: &str) {
        assert!(text.parse::<Gateway>().is_err());
    }

    const GOOD: &str = "{\n  \"version\": \"0.1.0\",\n  \"healthy\": true,\n  \"networks\": []\n}\n";

    fn status(code: u16, body: &str) -> Answer {
        Answer::Status { code, server: Some("openresty".into()), body: body.into() }
    }

    #[rstest]
    #[case::good(status(200, GOOD), State::Ok, "")]
    #[case::not_well(status(503, "{\"healthy\": false}"), State::Ok, "")]
    #[case::another_page(status(200, "<html>Welcome to nginx!</html>"), State::Bad, "flatnet.conf")]
    #[case::anothers_object(status(200, "{\"status\": \"up\"}"), State::Bad, "flatnet.conf")]
    #[case::old_configuration(status(404, "not the name of a container"), State::Bad, "flatnet.conf")]
    #[case::no_way(status(503, "no route"), State::Bad, "flatnet-route.ps1")]
    #[case::refused(Answer::Refused, State::Bad, "start OpenResty")]
    #[case::silent(Answer::Timeout, State::Bad, "New-NetFirewallRule")]
    #[case::nonsense(Answer::Otherwise("what answers is not HTTP".into()), State::Bad, "address")]
    fn answers_of_a_gateway(#[case] answer: Answer, #[case] state: State, #[case] words: &str) {
        let finding = judge_gateway("172.30.0.1:80", true, &answer);
        assert_eq!(finding.state, state);
        assert!(finding.remedy.unwrap_or_default().contains(words));
    }

    #[test]
    fn a_gateway_that_was_not_named_may_be_silent() {
        let finding = judge_gateway("172.30.0.1:80", false, &Answer::Timeout);
        assert_eq!(finding.state, State::Warning);
        assert!(finding.remedy.unwrap_or_default().contains("New-NetFirewallRule"));
    }

    #[rstest]
    #[case::good(status(200, GOOD), State::Ok, "")]
    #[case::not_well(status(503, "{\"healthy\": false}"), State::Ok, "")]
    #[case::another(status(200, "hello"), State::Bad, "ss -ltnp")]
    #[case::anothers_object(status(200, "{\"status\": \"up\"}"), State::Bad, "ss -ltnp")]
    #[case::another_without_health(status(404, "{}"), State::Bad, "ss -ltnp")]
    #[case::broken(status(500, "failed to read"), State::Bad, "journalctl")]
    #[case::dead(Answer::Refused, State::Bad, "flatnet gateway")]
    #[case::silent(Answer::Timeout, State::Bad, "restart")]
    fn answers_of_the_name_service(#[case] answer: Answer, #[case] state: State, #[case] words: &str) {
        let finding = judge_name_service("10.87.1.1:8053", &answer);
        assert_eq!(finding.state, state);
        assert!(finding.remedy.unwrap_or_default().contains(words));
    }
}
