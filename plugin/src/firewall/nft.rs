//! The program `nft`: started, fed, and waited for; killed where the caller's patience ends first.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::process::{Command, ExitStatus};

use super::table::{self, Table};
use crate::child::{Child, memory};
use crate::error::{Error, Result};

/// Where it is, should the runtime's PATH lack the folders of the system's programs.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

/// Far more than a table of published ports takes.
const OUTPUT_MAX_BYTES: usize = 64 << 20;

/// What libnftables says of a table that is not there.
const NO_TABLE: &str = "No such file or directory";

/// Reads flatnet's table, as it is now.
pub(super) async fn read() -> Result<Table> {
    let doing = "read the published ports";
    let done = run(&["--json", "list", "table", "ip", table::NAME], "", doing).await?;
    if !done.status.success() {
        return if done.stderr.contains(NO_TABLE) { Ok(Table::default()) } else { Err(refused(doing, &done)) };
    }
    let listing = serde_json::from_str(&done.stdout).map_err(|e| failed(doing, &format!("nft's answer: {e}")))?;
    Ok(Table::parse(&listing))
}

/// Carries out a script, whole or not at all.
pub(super) async fn change(script: &str) -> Result<()> {
    let doing = "change the published ports";
    let done = run(&["--file", "-"], script, doing).await?;
    if done.status.success() { Ok(()) } else { Err(refused(doing, &done)) }
}

/// What became of it.
struct Finished {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

async fn run(arguments: &[&str], script: &str, doing: &str) -> Result<Finished> {
    let io = |e: io::Error| failed(doing, &e.to_string());
    // Files in memory: neither end waits for the other, and only the output, a pipe, says when all is over.
    let (input, mut stderr) = (memory("nft", script).map_err(io)?, memory("nft", "").map_err(io)?);
    let running = start(arguments, &input, &stderr, doing)?;
    // One that is given up is killed: a transaction is done or not, whenever that happens.
    let (stdout, status) = running.hear(OUTPUT_MAX_BYTES).await.map_err(io)?;
    stderr.rewind().map_err(io)?;
    let mut said = Vec::new();
    stderr.read_to_end(&mut said).map_err(io)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { status, stdout: text(&stdout), stderr: text(&said) })
}

fn start(arguments: &[&str], input: &File, stderr: &File, doing: &str) -> Result<Child> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C");
        let ends = input.try_clone().and_then(|input| Ok((input, stderr.try_clone()?)));
        let (input, stderr) = ends.map_err(|e| failed(doing, &e.to_string()))?;
        match Child::start(command.stdin(input).stderr(stderr)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // A folder of PATH that cannot be looked into hides that there is none in the others.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && !program.contains('/') => {}
            started => return started.map_err(|e| failed(doing, &format!("{program} cannot be started: {e}"))),
        }
    }
    Err(Error::Firewall {
        doing: doing.to_owned(),
        problem: "the program nft is not installed".into(),
        remedy: "install the package nftables, or publish no ports: the container's own address needs none".into(),
    })
}

/// The first line says what is wrong; the others show where in the script.
fn refused(doing: &str, done: &Finished) -> Error {
    match done.stderr.lines().next() {
        Some(line) => failed(doing, &format!("nft says: {line}")),
        None => failed(doing, &format!("nft ended with {}", done.status)),
    }
}

fn failed(doing: &str, problem: &str) -> Error {
    Error::Firewall {
        doing: doing.to_owned(),
        problem: problem.to_owned(),
        remedy: "published ports need root, and a kernel (Linux 5.6 or newer) with nf_tables, nft_nat, nft_masq and nft_fib: see `dmesg`".into(),
    }
}
