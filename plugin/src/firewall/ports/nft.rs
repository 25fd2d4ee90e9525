//! What is said to the program `nft`, and what it answers.

use super::TABLE;
use super::table::Table;
use crate::error::{Error, Result};
use crate::firewall::family::IpFamily;
use crate::firewall::program::{self, Finished, Problem};

const PROGRAM: &str = "nft";

/// What libnftables says of a table that is not there.
const NO_TABLE: &str = "No such file or directory";

/// Reads flatnet's table of that family, as it is now.
pub(super) async fn read(family: IpFamily) -> Result<Table> {
    let doing = "read the published ports";
    let done = run(&["--json", "list", "table", family.tables().as_str(), TABLE], "", doing).await?;
    if !done.status.success() {
        return if done.stderr.contains(NO_TABLE) { Ok(Table::default()) } else { Err(refused(doing, &done)) };
    }
    let listing = serde_json::from_str(&done.stdout).map_err(|e| failed(doing, &format!("nft's answer: {e}")))?;
    Ok(Table::parse(family, &listing))
}

/// Carries out a script, whole or not at all.
pub(super) async fn change(script: &str) -> Result<()> {
    let doing = "change the published ports";
    let done = run(&["--file", "-"], script, doing).await?;
    if done.status.success() { Ok(()) } else { Err(refused(doing, &done)) }
}

async fn run(arguments: &[&str], script: &str, doing: &str) -> Result<Finished> {
    program::run(PROGRAM, arguments, script).await.map_err(|problem| match problem {
        Problem::Missing => Error::Firewall {
            doing: doing.to_owned(),
            problem: "the program nft is not installed".into(),
            remedy: "install the package nftables, or publish no ports: the container's own address needs none".into(),
        },
        Problem::Failed(problem) => failed(doing, &problem),
    })
}

fn refused(doing: &str, done: &Finished) -> Error {
    failed(doing, &format!("{PROGRAM} {}", done.refusal()))
}

fn failed(doing: &str, problem: &str) -> Error {
    Error::Firewall {
        doing: doing.to_owned(),
        problem: problem.to_owned(),
        remedy: "published ports need root, and a kernel (Linux 5.6 or newer) with nf_tables, nft_nat, nft_masq and nft_fib: see `dmesg`".into(),
    }
}
