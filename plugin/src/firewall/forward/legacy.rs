//! The rules of the older iptables, which the kernel keeps apart from nftables: by the program `iptables-legacy`.
//!
//! Started only where the kernel has its table `filter` already; to list a table that is not there would load it.

use std::fs;

use super::plan::{Accept, Edit, Far, Position, Way};
use super::{Changed, Trouble, failed};
use crate::child::program::{self, Finished, Problem};
use crate::error::Error;
use crate::family::IpFamily;
use crate::filter::iptables;
use crate::filter::rules::{Ruleset, Tool};

/// How it says in its version that it is the older.
const LEGACY: &str = "legacy";
/// Waits for whoever else changes rules, in seconds (iptables(8), `--wait`).
const WAIT: [&str; 2] = ["--wait", "5"];

/// It may be installed under either name: the second is today's, on most hosts.
const fn programs(family: IpFamily) -> [&'static str; 2] {
    match family {
        IpFamily::V4 => ["iptables-legacy", "iptables"],
        IpFamily::V6 => ["ip6tables-legacy", "ip6tables"],
    }
}

/// The table `filter`; nothing where the kernel has none.
pub(super) async fn read(family: IpFamily) -> Result<Option<Ruleset>, Trouble> {
    let tables = fs::read_to_string(iptables::legacy_tables(family)).unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return Ok(None);
    }
    let listing = run(family, &["--list-rules"]).await?;
    Ok(Some(Ruleset { chains: iptables::parse(Tool::IptablesLegacy, family, &listing.stdout) }))
}

/// One after the other; each is there or not, whatever cuts it short, and the next look finds what is missing.
pub(super) async fn change(family: IpFamily, edits: &[Edit]) -> Result<Changed, Trouble> {
    for edit in edits {
        let (Edit::Remove { accept, .. } | Edit::Insert { accept, .. }) = edit;
        if let Some(link) = links(accept).find(|link| link.ends_with('+')) {
            let problem = format!("iptables reads {link} as a pattern, which may match other links");
            return Err(Trouble::Beyond(failed(problem, "give the network a bridge whose name does not end with +")));
        }
        let (words, accept) = match edit {
            Edit::Remove { chain, accept, .. } => (vec!["--delete".to_owned(), chain.name.clone()], accept),
            Edit::Insert { chain, accept, position } => {
                let name = chain.name.clone();
                let words = match position {
                    Position::First => vec!["--insert".to_owned(), name],
                    Position::Before(at, _) => vec!["--insert".to_owned(), name, (at + 1).to_string()],
                    Position::Last => vec!["--append".to_owned(), name],
                };
                (words, accept)
            }
        };
        let words: Vec<_> = words.into_iter().chain(specification(accept)).collect();
        match run(family, &words.iter().map(String::as_str).collect::<Vec<_>>()).await {
            Ok(_) => {}
            Err(Trouble::Failed(error)) => return Ok(Changed::Overtaken(error)),
            Err(beyond) => return Err(beyond),
        }
    }
    Ok(Changed::Done)
}

fn specification(accept: &Accept) -> Vec<String> {
    let (near, network, far) = match accept.way {
        Way::In => ("--out-interface", "--destination", "--in-interface"),
        Way::Out => ("--in-interface", "--source", "--out-interface"),
    };
    let Accept { subnet, comment, .. } = accept;
    let subnet = &subnet.to_string();
    let links = [near, far].into_iter().zip(links(accept)).flat_map(|(option, link)| [option, link]);
    let states = match accept.far {
        Far::Anybody | Far::Link(_) => None,
        Far::Answers => Some("RELATED,ESTABLISHED"),
        Far::Published => Some("DNAT"),
    };
    let states = states.into_iter().flat_map(|states| ["--match", "conntrack", "--ctstate", states]);
    let rest = ["--match", "comment", "--comment", comment, "--jump", "ACCEPT"];
    links.chain([network, subnet]).chain(states).chain(rest).map(str::to_owned).collect()
}

/// The near one, and the far one if it is about that.
fn links(accept: &Accept) -> impl Iterator<Item = &str> {
    let far = if let Far::Link(link) = &accept.far { Some(link.as_str()) } else { None };
    [accept.bridge.as_str()].into_iter().chain(far)
}

/// Errors: 109 where it is not installed, or does not succeed.
async fn run(family: IpFamily, arguments: &[&str]) -> Result<Finished, Trouble> {
    let [first, second] = programs(family);
    for program in [first, second] {
        if program == second && !is_legacy(program).await {
            continue;
        }
        let done = match program::run(program, &[&WAIT, arguments].concat(), "").await {
            Err(Problem::Missing) => continue,
            Err(Problem::Failed(problem)) => return Err(refused(program, &problem).into()),
            Ok(done) => done,
        };
        return if done.status.success() { Ok(done) } else { Err(refused(program, &done.refusal()).into()) };
    }
    Err(Trouble::Beyond(failed(
        format!("the kernel has rules of legacy iptables (table filter), but the program {first} is not installed"),
        "if containers are not reachable, install it (`apt install iptables`), or reboot, which removes those rules",
    )))
}

async fn is_legacy(program: &str) -> bool {
    program::run(program, &["--version"], "").await.is_ok_and(|done| done.stdout.contains(LEGACY))
}

fn refused(program: &str, problem: &str) -> Error {
    failed(format!("{program} {problem}"), "`flatnet doctor` shows which chain drops forwarded packets, and the fix")
}
