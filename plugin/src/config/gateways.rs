//! `gateways`: hosts outside the flat range that have a route to the containers, so that what is sent to them keeps its source address.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// More would make each ADD compare more rules than it is worth; a subnet counts as one.
const MOST: usize = 64;

/// Addresses and subnets, in order and each once; the error follows the key.
pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Ipv4Network>, String> {
    let mut gateways = texts.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    gateways.sort_unstable();
    gateways.dedup();
    if gateways.len() > MOST {
        return Err(format!(
            "has {} entries, but {MOST} is the most: name subnets instead of addresses",
            gateways.len()
        ));
    }
    Ok(gateways)
}

/// One address, or one subnet without host bits.
pub(crate) fn one(text: &str) -> Result<Ipv4Network, String> {
    let wrong = || format!("has {text:?}, not an IPv4 address or subnet such as 172.30.0.1 or 192.168.50.0/24");
    let gateway: Ipv4Network = match text.parse::<Ipv4Addr>() {
        Ok(address) => address.into(),
        Err(_) if text.contains('/') => text.parse().map_err(|_| wrong())?,
        Err(_) => return Err(wrong()),
    };
    if gateway.prefix() == 0 {
        return Err(format!("has {text:?}, which is everything: set ipMasq to false, and nothing is translated"));
    }
    if gateway.ip() != gateway.network() {
        let meant = format!("{}/{}", gateway.network(), gateway.prefix());
        return Err(format!("has {text:?}, which has host bits set: did you mean {meant}?"));
    }
    Ok(gateway)
}

/// As it is written: an address alone, a subnet with its prefix length.
pub(crate) fn text(gateway: Ipv4Network) -> String {
    if gateway.mask() == Ipv4Addr::BROADCAST { gateway.ip().to_string() } else { gateway.to_string() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn addresses_and_subnets_are_told_once_and_in_order() {
        let found = parse(["192.168.50.0/24", "172.30.0.1", "172.30.0.1/32"]).expect("gateways");
        assert_eq!(found.into_iter().map(text).collect::<Vec<_>>(), ["172.30.0.1", "192.168.50.0/24"]);
    }

    #[rstest]
    #[case::v6("fd00::1", "not an IPv4 address")]
    #[case::name("gateway.lan", "not an IPv4 address")]
    #[case::everything("0.0.0.0/0", "set ipMasq to false")]
    #[case::host_bits("192.168.50.9/24", "did you mean 192.168.50.0/24?")]
    fn refused(#[case] text: &str, #[case] words: &str) {
        let problem = parse([text]).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }

    #[test]
    fn too_many_are_refused() {
        let texts: Vec<_> = (0..=MOST).map(|n| format!("172.30.0.{n}")).collect();
        assert!(parse(texts.iter().map(String::as_str)).unwrap_err().contains("has 65 entries"));
    }
}
