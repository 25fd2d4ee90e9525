//! Programs of the host's: started, fed, and waited for; killed where the caller's patience ends first.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus};

use super::{Child, memory, place};
use crate::deadline::waiting_for;

/// Far more than any listing takes.
const OUTPUT_MAX_BYTES: usize = 64 << 20;

/// What became of one.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Why none was run to its end.
pub(crate) enum Problem {
    /// It is not installed.
    Missing,
    /// In words.
    Failed(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Finished {
    /// What it has to say where it did not succeed: the first line says what is wrong.
    pub(crate) fn refusal(&self) -> String {
        match self.stderr.lines().next() {
            Some(line) => format!("says: {line}"),
            None => format!("ended with {}", self.status),
        }
    }
}

/// Runs it to its end, in the C locale.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Finished, Problem> {
    // Files in memory: neither end waits for the other, and only the output, a pipe, says when all is over.
    let (input, mut stderr) = (memory(program, input)?, memory(program, "")?);
    let running = start(program, arguments, &input, &stderr)?;
    // One that is given up is killed: what it changes is done or not, whenever that happens.
    let (stdout, status) = waiting_for(format!("the program {program} to end"), running.hear(OUTPUT_MAX_BYTES)).await?;
    stderr.rewind()?;
    let mut said = Vec::new();
    stderr.read_to_end(&mut said)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished { status, stdout: text(&stdout), stderr: text(&said) })
}

fn start(program: &str, arguments: &[&str], input: &File, stderr: &File) -> Result<Child, Problem> {
    let file = place::find(program).ok_or(Problem::Missing)?;
    let mut command = Command::new(&file);
    command.args(arguments).env("LC_ALL", "C");
    Child::start(command.stdin(input.try_clone()?).stderr(stderr.try_clone()?))
        .map_err(|e| Problem::Failed(format!("{} cannot be started: {e}", file.display())))
}
