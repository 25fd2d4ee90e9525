//! Programs of the host's: started, fed, and waited for; killed where the caller's patience ends first.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::net::unix::pipe::Receiver;

/// Where system programs are, should the runtime's PATH lack the folder.
const FOLDER: &str = "/usr/sbin/";

/// What became of one.
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why none was run to its end.
pub(super) enum Problem {
    /// It is not installed.
    Missing,
    /// In words.
    Failed(String),
}

/// A running child is killed with this: what it changes is done or not, whenever that happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended before if either fails.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Finished {
    /// What it has to say where it did not succeed: the first line says what is wrong.
    pub(super) fn refusal(&self) -> String {
        match self.stderr.lines().next() {
            Some(line) => format!("says: {line}"),
            None => format!("ended with {}", self.status),
        }
    }
}

/// Runs it to its end, in the C locale.
pub(super) async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Finished, Problem> {
    // Files in memory: neither end waits for the other, and only the output, a pipe, says when all is over.
    let (input, mut stderr) = (memory(input)?, memory("")?);
    let mut running = Running(start(program, arguments, &input, &stderr)?);
    let stdout = running.0.stdout.take().ok_or_else(|| Problem::Failed("it has no standard output".into()))?;
    let stdout = read_to_end(Receiver::from_owned_fd(OwnedFd::from(stdout))?).await?;
    let status = running.0.wait()?;
    stderr.rewind()?;
    let mut said = Vec::new();
    stderr.read_to_end(&mut said)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { status, stdout: text(&stdout), stderr: text(&said) })
}

fn start(program: &str, arguments: &[&str], input: &File, stderr: &File) -> Result<Child, Problem> {
    for file in [program, &format!("{FOLDER}{program}")] {
        let mut command = Command::new(file);
        command.args(arguments).env("LC_ALL", "C").stdout(Stdio::piped());
        match command.stdin(input.try_clone()?).stderr(stderr.try_clone()?).spawn() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // A folder of PATH that cannot be looked into hides that there is none in the others.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && !file.contains('/') => {}
            Err(e) => return Err(Problem::Failed(format!("{file} cannot be started: {e}"))),
            Ok(child) => return Ok(child),
        }
    }
    Err(Problem::Missing)
}

fn memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("flatnet", MFdFlags::MFD_CLOEXEC)?);
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
