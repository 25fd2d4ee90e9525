//! What the options of `flatnet install` may be.
//!
//! A value that cannot be is refused before anything is looked at, and the refusal names the option (by clap).

use ipnetwork::IpNetwork;

use crate::config::gateways;
use crate::ipam::pool::Range;
use crate::layout;
use crate::names::{interface_name_problem, is_identifier};

/// `--subnet`.
pub(super) fn subnet(text: &str) -> Result<IpNetwork, String> {
    let subnet: IpNetwork = text.parse().map_err(|_| "it is not a subnet such as 10.87.1.0/24".to_owned())?;
    if !text.contains('/') {
        return Err("it lacks its prefix length, such as /24".into());
    }
    Range::new(subnet, None, None, None).map(|_| subnet).map_err(|(_, problem)| format!("it {problem}"))
}

/// `--gateway`: what is inside the flat range is never translated anyway, and may be a container.
pub(super) fn gateway(text: &str) -> Result<IpNetwork, String> {
    let gateway = gateways::one(text)?;
    let is_flat = match gateway {
        IpNetwork::V4(gateway) => gateway.is_subnet_of(layout::FLAT_RANGE),
        IpNetwork::V6(gateway) => gateway.is_subnet_of(layout::FLAT_RANGE_IPV6),
    };
    if is_flat {
        return Err("it is inside the flat range, where no address is translated: leave the option out".into());
    }
    Ok(gateway)
}

/// `--name`.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_identifier(text) {
        return Ok(text.to_owned());
    }
    Err("it must start with a letter or digit and hold only letters, digits, _ . -".into())
}

/// `--bridge`.
pub(super) fn bridge(text: &str) -> Result<String, String> {
    match interface_name_problem(text) {
        Some(problem) => Err(format!("it {problem}")),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::host_bits("10.87.1.5/24", "did you mean 10.87.1.0/24?")]
    #[case::too_long("10.87.1.0/33", "not a subnet such as")]
    #[case::no_length("10.87.1.0", "lacks its prefix length")]
    #[case::reserved("10.87.0.0/24", "reserved for gateways")]
    #[case::too_small("10.87.1.0/31", "is 10.87.1.0/31")]
    #[case::a_name("lan", "not a subnet such as")]
    fn a_subnet_that_cannot_be_is_refused(#[case] text: &str, #[case] words: &str) {
        let problem = subnet(text).expect_err(text);
        assert!(problem.contains(words), "{problem}");
    }

    #[rstest]
    #[case("10.87.1.9", false)]
    #[case("10.87.0.1", false)]
    #[case("10.87.0.0/16", false)]
    #[case("10.0.0.0/8", true)]
    #[case("172.30.0.1", true)]
    #[case("fd87:0::1", false)]
    #[case("fd30::1", true)]
    fn a_gateway_is_outside_the_flat_range(#[case] text: &str, #[case] taken: bool) {
        assert_eq!(gateway(text).is_ok(), taken, "{text}");
    }
}
