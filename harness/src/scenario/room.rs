//! How many containers a network holds at once.
//!
//! Invariant: a number only where the configuration itself tells it: of a plugin that gives addresses in a way of its own, nothing is said.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::Network;

/// What gives addresses out of `subnet` and `ranges`, beside a plugin that does it by itself.
const HOST_LOCAL: &str = "host-local";

/// What gives each container the same addresses.
const STATIC: &str = "static";

impl Network {
    /// How many containers it has addresses for, if that can be told: as many as the smallest of its sets.
    pub fn room(&self) -> Option<u128> {
        match self.ipam_kind() {
            Some(STATIC) => return Some(1),
            None | Some(HOST_LOCAL) => {}
            Some(_) => return None,
        }
        let ipam = self.value("ipam")?;
        let own = ipam.get("subnet").map(|_| room_of_set(std::slice::from_ref(ipam)));
        let sets = ipam.get("ranges").and_then(Value::as_array).into_iter().flatten();
        let sets = sets.map(|set| room_of_set(set.as_array()?));
        let rooms: Vec<u128> = own.into_iter().chain(sets).collect::<Option<_>>()?;
        rooms.into_iter().min()
    }
}

fn room_of_set(ranges: &[Value]) -> Option<u128> {
    ranges.iter().try_fold(0, |all: u128, range| Some(all.saturating_add(room_of_range(range)?)))
}

/// From the first to the last, both included; the subnet's own address, its broadcast address and the gateway are nobody's.
fn room_of_range(range: &Value) -> Option<u128> {
    let text = |key| range.get(key).map(|value| value.as_str()?.parse::<IpAddr>().ok());
    if range.get("exclude").is_some() {
        return None;
    }
    let subnet: IpNetwork = range.get("subnet")?.as_str()?.parse().ok()?;
    let base = number(subnet.network());
    let (bits, reserved) = if subnet.is_ipv4() { (32, 1) } else { (128, 0) };
    let size = 1_u128.checked_shl(bits - u32::from(subnet.prefix())).unwrap_or(u128::MAX);
    let (second, end) = (base.saturating_add(1), base.saturating_add(size - 1));
    let said = |key, otherwise: u128| text(key).map_or(Some(otherwise), |said| said.map(number));
    let first = said("rangeStart", second)?.max(second);
    let last = said("rangeEnd", end)?.min(end.saturating_sub(reserved));
    let gateway = said("gateway", second)?;
    let all = last.checked_sub(first).map_or(0, |more| more.saturating_add(1));
    Some(all.saturating_sub(u128::from((first..=last).contains(&gateway))))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::Network;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case(json!({"subnet": "10.90.1.0/30"}), Some(1))]
    #[case(json!({"subnet": "10.90.1.0/28"}), Some(13))]
    #[case(json!({"subnet": "10.90.1.0/32"}), Some(0))]
    #[case(json!({"type": "host-local", "subnet": "10.90.1.0/24"}), Some(253))]
    #[case(json!({"subnet": "255.255.255.255/32"}), Some(0))]
    #[case(json!({"subnet": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"}), Some(0))]
    #[case(json!({"subnet": "::/0"}), Some(u128::MAX - 2))]
    #[case(json!({"subnet": "fd90:1::/126"}), Some(2))]
    #[case(json!({"subnet": "fd90:1::/64"}), Some((1 << 64) - 2))]
    #[case(json!({"subnet": "10.90.1.0/24", "rangeStart": "10.90.1.10", "rangeEnd": "10.90.1.13"}), Some(4))]
    #[case(json!({"subnet": "10.90.1.0/24", "rangeStart": "10.90.1.10", "rangeEnd": "10.90.1.13", "gateway": "10.90.1.13"}), Some(3))]
    // Any range of a set will do, and each set has to give one.
    #[case(json!({"ranges": [[{"subnet": "10.90.1.0/30"}, {"subnet": "10.90.2.0/30"}], [{"subnet": "fd90:1::/64"}]]}), Some(2))]
    #[case(json!({"type": "static", "addresses": [{"address": "10.90.1.9/24"}]}), Some(1))]
    #[case::of_another(json!({"type": "other", "subnet": "10.90.1.0/30"}), None)]
    #[case::in_a_way_of_its_own(json!({"subnet": "10.90.1.0/28", "exclude": ["10.90.1.8/29"]}), None)]
    #[case::wrong(json!({"subnet": "10.90.1.0/33"}), None)]
    #[case::none(json!({}), None)]
    fn room_is_told_where_it_can_be(#[case] ipam: Value, #[case] expected: Option<u128>) {
        let network: Network = serde_json::from_value(json!({ "ipam": ipam })).unwrap();
        assert_eq!(network.room(), expected);
    }
}
