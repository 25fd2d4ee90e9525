//! What a runtime asks for: addresses and a MAC, from any of the three sources that CNI's conventions know.
//!
//! A stronger source goes before a weaker one, pool by pool; but nothing is passed over in silence: an address that no pool can give is
//! refused, whatever its source.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::attachment::Args;
use crate::config::section::Section;
use crate::error::{Error, IP_IN_CNI_ARGS, Result};
use crate::ipam::pool::{Pool, Pools};
use crate::mac::Mac;

/// How a request came, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestSource {
    /// `runtimeConfig`: of a capability that the plugin has declared.
    Runtime,
    /// `args.cni`.
    Args,
    /// `CNI_ARGS`.
    Environment,
}

/// All requests of one ADD.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Each address once a source.
    ips: Vec<(RequestSource, Vec<IpAddr>)>,
    /// The strongest one.
    pub(crate) mac: Option<Mac>,
}

impl Requested {
    /// `args` are those of the environment, which have been read already. Errors: 7.
    pub(crate) fn read(args: &Args, config: &Map<String, Value>) -> Result<Self> {
        let mut whole = Section::new("", config);
        let runtime = whole.optional_section("runtimeConfig")?;
        let cni = whole.optional_section("args")?.map(|mut args| args.optional_section("cni")).transpose()?.flatten();
        let (mut ips, mut mac) = (Vec::new(), None);
        for (source, section) in [(RequestSource::Runtime, runtime), (RequestSource::Args, cni)] {
            let Some(mut section) = section else { continue };
            ips.push((source, addresses(&mut section)?));
            mac = mac.or(self::mac(&mut section)?);
        }
        ips.push((RequestSource::Environment, args.ips.clone()));
        Ok(Self { ips, mac: mac.or(args.mac) })
    }

    /// The addresses that count, one of a pool at most. Errors: 4 and 7.
    pub(crate) fn of_pools(&self, pools: &Pools) -> Result<Vec<IpAddr>> {
        for (source, ips) in &self.ips {
            if let Some((ip, refusal)) = ips.iter().find_map(|ip| Some((ip, pools.refusal(*ip)?))) {
                return Err(source.problem(format!("address {ip} {refusal}")));
            }
        }
        pools.iter().filter_map(|pool| self.of_pool(pool).transpose()).collect()
    }

    fn of_pool(&self, pool: &Pool) -> Result<Option<IpAddr>> {
        for (source, ips) in &self.ips {
            let mut own = ips.iter().filter(|ip| pool.own(**ip).is_some());
            match (own.next(), own.next()) {
                (None, _) => {}
                (Some(ip), None) => return Ok(Some(*ip)),
                (Some(one), Some(two)) => {
                    let problem = format!(
                        "addresses {one} and {two} are both in {pool}: a container gets one address of a range"
                    );
                    return Err(source.problem(problem));
                }
            }
        }
        Ok(None)
    }

    /// One that is not among those that somebody else `gave`, if there is such, with its source.
    pub(crate) fn missing_in(&self, gave: &[IpAddr]) -> Option<(IpAddr, &'static str)> {
        let mut all = self.ips.iter().flat_map(|(source, ips)| ips.iter().map(|ip| (*ip, source.as_str())));
        all.find(|(ip, _)| !gave.contains(ip))
    }
}

impl RequestSource {
    fn problem(self, problem: String) -> Error {
        Error::Requested { source: self.as_str(), problem }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtimeConfig.ips",
            Self::Args => "args.cni.ips",
            Self::Environment => IP_IN_CNI_ARGS,
        }
    }
}

/// `ips`: each with or without a prefix length, which is the pool's to say.
fn addresses(section: &mut Section) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for text in section.strings("ips")?.unwrap_or_default() {
        let address = parse_ip(&text);
        let address =
            address.ok_or_else(|| section.problem("ips", format!("has {text:?}, which is not an IP address")))?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// `mac`; an empty one is none.
fn mac(section: &mut Section) -> Result<Option<Mac>> {
    let Some(text) = section.string("mac")?.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|problem| section.problem("mac", format!("is {text:?}, which {problem}")))
}

/// An address, with or without a prefix length.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains('/') { text.parse::<IpNetwork>().map(|network| network.ip()).ok() } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::ipam::pool::Range;

    fn pools() -> Pools {
        let range = |subnet: &str| Range::new(subnet.parse().expect("a subnet"), None, None, None).expect("a range");
        Pools::new(["10.87.1.0/24", "10.87.2.0/24", "fd00::/64"].map(|subnet| range(subnet).into()).into())
    }

    fn requested(environment: &str, config: &Value) -> Result<Requested> {
        let args = Args::parse(environment).expect("arguments");
        Requested::read(&args, config.as_object().expect("an object"))
    }

    #[rstest]
    #[case::nobody("", json!({}), "")]
    #[case::environment("IP=10.87.2.9", json!({}), "10.87.2.9")]
    #[case::several_in_the_environment("IP=fd00::9/64,10.87.1.9", json!({}), "10.87.1.9 fd00::9")]
    #[case::args("", json!({"args": {"cni": {"ips": ["10.87.1.9/24"]}}}), "10.87.1.9")]
    #[case::runtime("", json!({"runtimeConfig": {"ips": ["fd00::9", "10.87.1.9/24"]}}), "10.87.1.9 fd00::9")]
    #[case::the_same_twice("IP=10.87.1.9", json!({"runtimeConfig": {"ips": ["10.87.1.9", "10.87.1.9/24"]}}), "10.87.1.9")]
    #[case::the_same_in_other_words("IP=FD00:0::9,fd00::9", json!({}), "fd00::9")]
    #[case::runtime_before_args("", json!({"runtimeConfig": {"ips": ["10.87.1.9"]}, "args": {"cni": {"ips": ["10.87.1.8"]}}}), "10.87.1.9")]
    #[case::args_before_environment("IP=10.87.1.7", json!({"args": {"cni": {"ips": ["10.87.1.8"]}}}), "10.87.1.8")]
    #[case::each_pool_by_itself("IP=10.87.1.7,10.87.2.7", json!({"runtimeConfig": {"ips": ["fd00::9"]}, "args": {"cni": {"ips": ["10.87.2.8"]}}}), "10.87.1.7 10.87.2.8 fd00::9")]
    #[case::empty("IP=", json!({"runtimeConfig": {"ips": [], "mac": ""}, "args": {"cni": {"ips": null}}}), "")]
    #[case::what_is_not_flatnets("", json!({"runtimeConfig": {"portMappings": 1}, "args": {"labels": 1, "cni": {"labels": []}}}), "")]
    fn addresses_that_count(#[case] environment: &str, #[case] config: Value, #[case] expected: &str) {
        let asked = requested(environment, &config).expect("requests");
        let texts: Vec<_> = asked.of_pools(&pools()).expect("addresses").iter().map(ToString::to_string).collect();
        assert_eq!(texts.join(" "), expected);
    }

    #[rstest]
    #[case::outside("IP=10.99.0.5", json!({}), 4, "address 10.99.0.5 is outside this network's ranges (10.87.1.2 - ")]
    #[case::gateway("IP=10.87.2.1", json!({}), 4, "address 10.87.2.1 is the gateway's")]
    #[case::outside_args("", json!({"args": {"cni": {"ips": ["10.99.0.5"]}}}), 7, "address 10.99.0.5 is outside")]
    #[case::outside_runtime("", json!({"runtimeConfig": {"ips": ["fd01::5"]}}), 7, "address fd01::5 is outside")]
    #[case::weaker_but_outside("IP=10.99.0.5", json!({"runtimeConfig": {"ips": ["10.87.1.9"]}}), 4, "10.99.0.5")]
    #[case::two_of_a_pool("IP=10.87.1.9,10.87.1.8", json!({}), 4, "10.87.1.9 and 10.87.1.8 are both in 10.87.1.2 - ")]
    #[case::two_of_a_pool_by_args("", json!({"args": {"cni": {"ips": ["fd00::8", "fd00::9"]}}}), 7, "addresses fd00::8 and fd00::9 are both")]
    #[case::mapped("IP=::ffff:10.87.1.9", json!({}), 4, "is outside")]
    fn addresses_that_cannot_be(
        #[case] environment: &str,
        #[case] config: Value,
        #[case] code: u32,
        #[case] words: &str,
    ) {
        let error = requested(environment, &config).expect("requests").of_pools(&pools()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::runtime(json!({"runtimeConfig": []}), "runtimeConfig is [], not an object")]
    #[case::ips(json!({"runtimeConfig": {"ips": "10.87.1.9"}}), "runtimeConfig.ips is \"10.87.1.9\", not a list of strings")]
    #[case::ip(json!({"runtimeConfig": {"ips": ["10.87.1"]}}), "runtimeConfig.ips has \"10.87.1\"")]
    #[case::no_ip(json!({"args": {"cni": {"ips": [""]}}}), "args.cni.ips has \"\"")]
    #[case::prefix(json!({"args": {"cni": {"ips": ["10.87.1.9/33"]}}}), "args.cni.ips has \"10.87.1.9/33\"")]
    #[case::mac(json!({"runtimeConfig": {"mac": "zz"}}), "runtimeConfig.mac is \"zz\"")]
    #[case::mac_type(json!({"args": {"cni": {"mac": 1}}}), "args.cni.mac is 1, not a string")]
    #[case::weaker(json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}, "args": {"cni": {"mac": "zz"}}}), "args.cni.mac")]
    #[case::cni(json!({"args": {"cni": 1}}), "args.cni is 1, not an object")]
    fn malformed(#[case] config: Value, #[case] words: &str) {
        let error = requested("", &config).unwrap_err();
        assert_eq!(error.code(), 7, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    #[rstest]
    #[case::environment("MAC=02:00:00:00:00:03", json!({"args": {"cni": {"mac": ""}}}), 3)]
    #[case::args("MAC=02:00:00:00:00:03", json!({"args": {"cni": {"mac": "02:00:00:00:00:02"}}}), 2)]
    #[case::runtime("MAC=02:00:00:00:00:03", json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}}), 1)]
    fn the_strongest_mac(#[case] environment: &str, #[case] config: Value, #[case] last: u8) {
        assert_eq!(requested(environment, &config).expect("requests").mac, Some(Mac([2, 0, 0, 0, 0, last])));
    }
}
