//! The containers: what packets have shown of them, which of them nobody lives in, and one of them alone.
//!
//! Only a packet makes a line green, and what it could not be sent to is said.

use super::finding::{ATTACHMENTS, Finding, LEASES};
use crate::cli::gc;
use crate::cli::probe::Host;
use crate::config::Network;
use crate::error::Result;
use crate::ipam::lease;
use crate::netlink::{Link, Netlink};
use crate::reach::{self, Report, Subject};
use crate::{attachment, call};

/// The line of a network.
pub(super) fn judge(report: &Report) -> Finding {
    if let (Some(found), Some(first)) = (report.problem(), report.faults.first()) {
        return ATTACHMENTS.bad(found, first.remedy.clone());
    }
    if let Some(first) = report.doubts.first() {
        let rest = match report.doubts.len() - 1 {
            0 => String::new(),
            more => format!("; so it is with {more} more: {}", reach::names(&report.doubts[1..])),
        };
        let found = format!("{} ({}): {}{rest}", first.address, first.who, first.found);
        return ATTACHMENTS.warning(found, first.remedy.clone());
    }
    match (&report.untried, report.sampled, report.containers) {
        (.., 0) => ATTACHMENTS.ok("none"),
        (Some(why), _, count) => ATTACHMENTS.skipped(format!("{count}: {why}")),
        (None, Some(tried), count) => ATTACHMENTS.ok(format!(
            "{count}; {tried} addresses were tried, each of which is reached: the kernel has room for no more neighbours at a time (net.ipv4.neigh.default.gc_thresh3); each minute has other ones"
        )),
        (None, None, 1) => ATTACHMENTS.ok("1, which is reached"),
        (None, None, count) => ATTACHMENTS.ok(format!("{count}, each of which is reached")),
    }
}

/// A link that an ADD has left, or is about to finish.
pub(super) fn unfinished(link: &Link, bridge: &str) -> Finding {
    ATTACHMENTS.warning(
        format!("{} on {bridge} belongs to no container", link.name),
        format!("if it stays, an ADD was cut short: run `flatnet gc --yes`, or `ip link del {}`", link.name),
    )
}

/// Leases that nobody lives by.
pub(super) fn leases(host: &Host) -> Finding {
    if !host.root {
        return LEASES.skipped("not root: who lives by a lease was not looked at");
    }
    match gc::uninhabited() {
        Err(error) => LEASES.failed(&error),
        Ok(dead) if dead.is_empty() => LEASES.ok("each container with an address has a process"),
        Ok(dead) => LEASES.warning(
            format!("no process is left in {}", gc::names(&dead)),
            "run `flatnet gc`, which frees what Podman takes for dead as well, unless it starts at this moment; `flatnet gc --dry-run` only says",
        ),
    }
}

/// The container of that name, id (or its beginning) or address, whichever networks it is on; nothing where there is none.
pub(super) fn one(asked: &str, networks: &[Network], gateway: Option<std::net::IpAddr>) -> Result<Vec<Finding>> {
    call::block_on(call::within_deadline(async {
        let host = Netlink::open()?;
        let links = host.links().await?;
        let mut findings = Vec::new();
        for network in networks {
            for subject in reach::subjects(&links, network).iter().filter(|subject| is_meant(subject, asked)) {
                let report = reach::look(&host, network, &links, gateway, |it| it.address == subject.address).await?;
                let line = judge(&report);
                let whole = report.faults.is_empty() && report.doubts.is_empty() && report.untried.is_none();
                let line = if whole {
                    ATTACHMENTS.ok(format!("{} ({}) is reached", subject.address, reach::who(subject.link)))
                } else {
                    line
                };
                findings.push(line.of(&network.name));
            }
        }
        // Those that no file describes any more are nobody's to try; that they are there is said all the same.
        let strange = links
            .iter()
            .filter(|link| lease::is_whole(link) && !networks.iter().any(|it| lease::is_of_network(link, &it.name)));
        for (link, address) in strange.flat_map(|link| lease::leases(link).map(move |address| (link, address))) {
            if is_meant(&Subject { address, link }, asked) {
                let found = format!("{address} ({}) is of a network that no file describes", reach::who(link));
                findings.push(
                    ATTACHMENTS.bad(found, "put the network's file back, or recreate the container on another one"),
                );
            }
        }
        Ok(findings)
    }))
}

fn is_meant(subject: &Subject<'_>, asked: &str) -> bool {
    const ID_MIN: usize = 4;
    let id = lease::attachment_of(subject.link).and_then(attachment::parts_of).map(|(id, _)| id);
    asked.parse() == Ok(subject.address)
        || reach::who(subject.link) == asked
        || id.is_some_and(|id| id == asked || asked.len() >= ID_MIN && id.starts_with(asked))
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use crate::reach::Fault;

    fn fault() -> Fault {
        let address = "10.87.1.2".parse().expect("an address");
        Fault { address, who: "web".into(), found: "it is so".into(), remedy: "do this".into() }
    }

    #[test]
    fn only_packets_make_a_line_green() {
        let report =
            |untried: Option<&str>| Report { containers: 2, untried: untried.map(str::to_owned), ..Report::default() };
        assert_eq!(judge(&report(None)).found, "2, each of which is reached");
        assert_eq!(judge(&report(Some("not root"))).state, State::Skipped);
        assert_eq!(judge(&Report { faults: vec![fault()], ..report(None) }).state, State::Bad);
        let doubtful = judge(&Report { doubts: vec![fault()], ..report(None) });
        assert_eq!((doubtful.state, doubtful.remedy.as_deref()), (State::Warning, Some("do this")));
    }

    #[test]
    fn a_container_is_meant_by_name_address_or_id() {
        let names = vec!["flatnet-att-0123456789ab@eth0".into(), "flatnet-ip-10.87.1.2".into()];
        let alias = Some("network=flatnet container=0123456789ab interface=eth0 name=web".into());
        let link = Link { names, alias, ..Link::default() };
        let subject = Subject { address: "10.87.1.2".parse().expect("an address"), link: &link };
        for (asked, meant) in [
            ("web", true),
            ("10.87.1.2", true),
            ("0123", true),
            ("0123456789ab", true),
            ("012", false),
            ("w", false),
            ("10.87.1.3", false),
            ("", false),
        ] {
            assert_eq!(is_meant(&subject, asked), meant, "{asked}");
        }
    }
}
