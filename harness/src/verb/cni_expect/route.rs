//! Whether a route of a result is in the kernel.
//!
//! Invariant: whatever the result says of it is compared, and what it leaves open is not.

use serde_json::Value;

use crate::lab::{Route, TABLE_LOCAL, View};
use crate::verb::Failure;
use crate::verb::cni::field;

/// Judges whether `container` has that route.
pub(super) fn is_real(claim: &Value, container: &View) -> Result<(), Failure> {
    let apart = container.routes_apart.iter().filter(|route| is_meant(claim, route));
    let all = container.routes.iter().chain(apart).filter(|route| leads_there(claim, route));
    match all.map(|route| differences(claim, route)).min_by_key(Vec::len) {
        Some(closest) if closest.is_empty() => Ok(()),
        Some(closest) => {
            let has = closest.join(", ");
            Err(Failure::wrong(format!("the result has the route {claim}, and the kernel has it with {has}")))
        }
        None => Err(Failure::wrong(format!("the result has the route {claim}, and the kernel has not"))),
    }
}

/// Whether a route that the kernel might have by itself counts: what is its own, or in the table `local`, does only if the claim says that table.
fn is_meant(claim: &Value, route: &Route) -> bool {
    let by_table = field(claim, "table").as_u64() == Some(route.table.into());
    by_table || !(route.table == TABLE_LOCAL || route.is_kernels())
}

/// Whether it is to the same destination, by the same next hop if the result says one.
fn leads_there(claim: &Value, route: &Route) -> bool {
    let text = |key| field(claim, key).as_str();
    let to = text("dst").unwrap_or_default();
    let destination = if matches!(to, "0.0.0.0/0" | "::/0") { "default" } else { to };
    let gateway = route.gateway.map(|gateway| gateway.to_string());
    let family = route.gateway.is_none_or(|gateway| gateway.is_ipv6() == to.contains(':'));
    route.destination == destination && family && text("gw").is_none_or(|gw| gateway.as_deref() == Some(gw))
}

/// What the kernel has, where the result says something else.
fn differences(claim: &Value, route: &Route) -> Vec<String> {
    let is_ipv6 = field(claim, "dst").as_str().is_some_and(|to| to.contains(':'));
    // 0 is how a result says none of these; among scopes it is one. IPv6 has no scopes.
    let said = |key| field(claim, key).as_u64().filter(|said| *said != 0);
    let scope = field(claim, "scope").as_u64().filter(|_| !is_ipv6);
    let all = [
        ("mtu", said("mtu"), route.mtu),
        ("advmss", said("advmss"), route.advmss),
        ("priority", said("priority"), route.priority),
        ("table", said("table"), Some(route.table)),
        ("scope", scope, Some(u32::from(route.scope))),
    ];
    let differs = |said: Option<u64>, known: Option<u32>| said.is_some_and(|said| known.map(u64::from) != Some(said));
    let different = all.into_iter().filter(|(_, said, known)| differs(*said, *known));
    let text = |known: Option<u32>| known.map_or_else(|| "none".to_owned(), |known| known.to_string());
    different.map(|(key, _, known)| format!("{key} {}", text(known))).collect()
}

#[cfg(test)]
mod tests {
    use super::is_real;
    use crate::lab::{Route, View};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn kernel() -> View {
        let (gateway, to_link) = ("10.87.1.1".parse().ok(), "fd87:1::1".parse().ok());
        let main = Route { destination: "10.99.0.0/16".to_owned(), gateway, table: 254, ..Route::default() };
        let other = Route { table: 100, priority: Some(7), mtu: Some(1400), advmss: Some(1360), ..main.clone() };
        let link = Route { destination: "10.98.0.0/16".to_owned(), gateway: None, scope: 253, ..main.clone() };
        let local =
            Route { destination: "fe80::/10".to_owned(), gateway: to_link, priority: Some(1024), ..main.clone() };
        let own = ["fe80::/64 254", "ff00::/8 255", "10.87.1.2/32 255", "127.0.0.0/8 255"].map(kernels);
        let routes_apart = own.into_iter().chain([local]).collect();
        View { routes: vec![main, other, link], routes_apart, ..View::default() }
    }

    fn kernels(text: &str) -> Route {
        let (to, table) = text.split_once(' ').unwrap();
        let origin = "proto kernel type local".to_owned();
        Route { destination: to.to_owned(), table: table.parse().unwrap(), origin, ..Route::default() }
    }

    #[rstest]
    #[case(json!({"dst": "10.99.0.0/16"}))]
    #[case(json!({"dst": "10.99.0.0/16", "gw": "10.87.1.1", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0}))]
    #[case(json!({"dst": "10.99.0.0/16", "mtu": 0, "priority": 0, "table": 254}))]
    #[case(json!({"dst": "10.98.0.0/16", "scope": 253}))]
    // The kernel has such routes by itself, too.
    #[case(json!({"dst": "fe80::/10", "gw": "fd87:1::1", "scope": 200}))]
    #[case(json!({"dst": "fe80::/64", "table": 254}))]
    #[case(json!({"dst": "10.87.1.2/32", "table": 255}))]
    fn what_the_kernel_has_is_real(#[case] claim: Value) {
        assert_eq!(is_real(&claim, &kernel()).map_err(|failure| failure.line()), Ok(()));
    }

    #[rstest]
    #[case(json!({"dst": "10.97.0.0/16"}), "and the kernel has not")]
    #[case(json!({"dst": "10.99.0.0/16", "gw": "10.87.1.9"}), "and the kernel has not")]
    #[case(json!({"dst": "10.99.0.0/16", "mtu": 1300}), "the kernel has it with mtu none")]
    #[case(json!({"dst": "10.99.0.0/16", "table": 100, "mtu": 1400, "advmss": 1340}), "the kernel has it with advmss 1360")]
    #[case(json!({"dst": "10.98.0.0/16", "priority": 9}), "the kernel has it with priority none")]
    #[case(json!({"dst": "10.98.0.0/16", "scope": 200}), "the kernel has it with scope 253")]
    #[case(json!({"dst": "fe80::/10", "advmss": 9}), "the kernel has it with advmss none")]
    #[case(json!({"dst": "fe80::/10", "table": 255}), "the kernel has it with table 254")]
    // Whoever tells those has not made them.
    #[case(json!({"dst": "fe80::/64"}), "and the kernel has not")]
    #[case(json!({"dst": "ff00::/8", "table": 254}), "and the kernel has not")]
    #[case(json!({"dst": "10.87.1.2/32"}), "and the kernel has not")]
    #[case(json!({"dst": "127.0.0.0/8"}), "and the kernel has not")]
    fn what_the_kernel_has_otherwise_is_told(#[case] claim: Value, #[case] told: &str) {
        let failure = is_real(&claim, &kernel()).unwrap_err().line();
        assert!(failure.contains(told), "{failure}");
    }
}
