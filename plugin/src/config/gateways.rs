//! `gateways`: hosts outside the flat range that have a route to the containers, so that what is sent to them keeps its source address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// More would make each ADD compare more rules than it is worth; a subnet counts as one.
const MOST: usize = 64;

/// Addresses and subnets, in order and each once; the error follows the key.
pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<IpNetwork>, String> {
    let mut gateways = texts.into_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    gateways.sort_unstable();
    gateways.dedup();
    if gateways.len() > MOST {
        return Err(format!(
            "has {} entries, but {MOST} is the maximum: use subnets instead of addresses",
            gateways.len()
        ));
    }
    Ok(gateways)
}

/// One address, or one subnet without host bits, of either family.
pub(crate) fn one(text: &str) -> Result<IpNetwork, String> {
    let wrong =
        || format!("has {text:?}, not an IP address or subnet such as 172.30.0.1, 192.168.50.0/24 or fd00:50::/64");
    let gateway: IpNetwork = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) if text.contains('/') => text.parse().map_err(|_| wrong())?,
        Err(_) => return Err(wrong()),
    };
    if gateway.prefix() == 0 {
        return Err(format!("has {text:?}, which is every address: to masquerade nothing, set ipMasq to false"));
    }
    let meant = match gateway {
        IpNetwork::V6(gateway) => gateway.ip().to_ipv4_mapped().map(|address| address.to_string()),
        IpNetwork::V4(_) => None,
    };
    if let Some(meant) = meant {
        return Err(format!("has {text:?}, an IPv4-mapped address: did you mean {meant}?"));
    }
    if gateway.ip() != gateway.network() {
        let meant = format!("{}/{}", gateway.network(), gateway.prefix());
        return Err(format!("has {text:?}, which has host bits set: did you mean {meant}?"));
    }
    Ok(gateway)
}

/// As it is written: an address alone, a subnet with its prefix length.
pub(crate) fn text(gateway: IpNetwork) -> String {
    if gateway == gateway.ip().into() { gateway.ip().to_string() } else { gateway.to_string() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn addresses_and_subnets_are_told_once_and_in_order() {
        let texts = ["fd00:50::/64", "192.168.50.0/24", "fd00:30:0::1", "172.30.0.1", "172.30.0.1/32"];
        let found = parse(texts).expect("gateways");
        let expected = ["172.30.0.1", "192.168.50.0/24", "fd00:30::1", "fd00:50::/64"];
        assert_eq!(found.into_iter().map(text).collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case::name("gateway.lan", "not an IP address")]
    #[case::everything("0.0.0.0/0", "set ipMasq to false")]
    #[case::everything_of_ipv6("::/0", "set ipMasq to false")]
    #[case::host_bits("192.168.50.9/24", "did you mean 192.168.50.0/24?")]
    #[case::host_bits_of_ipv6("fd00:50::9/64", "did you mean fd00:50::/64?")]
    #[case::ipv4_in_ipv6("::ffff:172.30.0.1", "did you mean 172.30.0.1?")]
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
