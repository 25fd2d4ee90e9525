//! The program `nft`: started, fed, and waited for; killed where the caller's patience ends first.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::net::unix::pipe::Receiver;

use super::table::{self, Table};
use crate::error::{Error, Result};

/// Where it is, should the runtime's PATH lack the folders of the system's programs.
const PROGRAMS: [&str; 2] = ["nft", "/usr/sbin/nft"];

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

/// A running child is killed with this: a transaction is done or not, whenever that happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended before if either fails.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn run(arguments: &[&str], script: &str, doing: &str) -> Result<Finished> {
    let io = |e: io::Error| failed(doing, &e.to_string());
    // Files in memory: neither end waits for the other, and only the output, a pipe, says when all is over.
    let (input, mut stderr) = (memory(script).map_err(io)?, memory("").map_err(io)?);
    let mut running = Running(start(arguments, &input, &stderr, doing)?);
    let stdout = running.0.stdout.take().ok_or_else(|| failed(doing, "nft has no standard output"))?;
    let stdout = read_to_end(Receiver::from_owned_fd(OwnedFd::from(stdout)).map_err(io)?).await.map_err(io)?;
    let status = running.0.wait().map_err(io)?;
    stderr.rewind().map_err(io)?;
    let mut said = Vec::new();
    stderr.read_to_end(&mut said).map_err(io)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { status, stdout: text(&stdout), stderr: text(&said) })
}

fn start(arguments: &[&str], input: &File, stderr: &File, doing: &str) -> Result<Child> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C").stdout(Stdio::piped());
        let ends = input.try_clone().and_then(|input| Ok((input, stderr.try_clone()?)));
        let (input, stderr) = ends.map_err(|e| failed(doing, &e.to_string()))?;
        match command.stdin(input).stderr(stderr).spawn() {
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

fn memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("nft", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

async fn read_to_end(pipe: Receiver) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
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
