//! Another plugin that gives a network's addresses (`ipam.type`; specification, section 4 "Plugin Delegation").
//!
//! It gets flatnet's own environment and standard input, unchanged, and never more time than it is given: one that does not end is
//! ended, with all that it started. What it says counts only whole, and an error of its own is handed on with its name.

mod result;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{self, ExitStatus};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use serde::Deserialize;

pub(crate) use self::result::IpamResult;
use crate::child::{Child, memory};
use crate::deadline::{self, waiting_for};
use crate::error::{Error, Result};
use crate::spec::{Command, SpecVersion};

/// An answer is a few hundred bytes; anything near this is not one.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// How much is shown of what is not an answer.
const SHOWN_MAX_BYTES: usize = 200;

/// A plugin that was found, and what it is to read.
pub(crate) struct Delegate<'a> {
    plugin: &'a str,
    file: PathBuf,
    stdin: &'a str,
    /// Beside flatnet's own, and before it.
    environment: Vec<(&'static str, OsString)>,
}

/// One that has been started.
pub(crate) struct Running<'a> {
    plugin: &'a str,
    command: Command,
    child: Child,
}

/// Its error object (section "Error").
#[derive(Deserialize)]
struct Refusal {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl<'a> Delegate<'a> {
    /// The first executable of that name. `stdin` is flatnet's own. Errors: 110 naming the folders.
    pub(crate) fn find(plugin: &'a str, folders: &[PathBuf], command: Command, stdin: &'a str) -> Result<Self> {
        let files = || folders.iter().map(|folder| folder.join(plugin)).filter(|file| file.is_file());
        if let Some(file) = files().find(|file| access(file, AccessFlags::X_OK).is_ok()) {
            return Ok(Self { plugin, file, stdin, environment: Vec::new() });
        }
        let problem = match files().next() {
            Some(file) => format!("{} is not executable", file.display()),
            None => format!("there is no such plugin in {}", list(folders)),
        };
        let remedy = format!(
            "install {plugin} in a folder of CNI_PATH (the reference plugins: `apt install containernetworking-plugins`), or remove ipam.type from the network's configuration"
        );
        Err(Error::Delegate { plugin: plugin.to_owned(), command, problem, remedy })
    }

    /// The same with variables that flatnet itself was not given: an operator's command has none.
    pub(crate) fn with_environment(self, environment: Vec<(&'static str, OsString)>) -> Self {
        Self { environment, ..self }
    }

    /// Starts it. An ADD that has been started needs a DEL, unless all goes well. Errors: 110.
    pub(crate) fn start(&self, command: Command) -> Result<Running<'a>> {
        let Self { plugin, file, stdin, environment } = self;
        let start = || {
            let mut process = process::Command::new(file);
            process.envs(environment.iter().map(|(name, value)| (name, value)));
            process.env("CNI_COMMAND", command.to_string()).stdin(memory("ipam", stdin)?);
            Child::start(&mut process)
        };
        match start() {
            Ok(child) => Ok(Running { plugin, command, child }),
            Err(e) => Err(Error::Delegate {
                plugin: (*plugin).to_owned(),
                command,
                problem: format!("{} cannot be started: {e}", file.display()),
                remedy:
                    "reinstall it: it must be a program for this machine, or a script whose interpreter is installed"
                        .into(),
            }),
        }
    }

    /// Has it carry out a command that has no result. Errors: its own; 11 and 110.
    pub(crate) async fn run(&self, command: Command) -> Result<()> {
        self.start(command)?.end(deadline::DELEGATE).await.map(drop)
    }

    /// Has it take back what it may have given to an ADD that failed. Errors: its own; 11 and 110.
    pub(crate) async fn undo(&self) -> Result<()> {
        self.start(Command::Del)?.end(deadline::DELEGATE_UNDO).await.map(drop)
    }
}

impl Running<'_> {
    /// What it gives. Errors: its own; 2 for an address that flatnet cannot use, 11 and 110.
    pub(crate) async fn result(self, version: SpecVersion) -> Result<IpamResult> {
        let plugin = self.plugin.to_owned();
        let said = self.end(deadline::DELEGATE).await?;
        IpamResult::parse(&plugin, &said, version)
    }

    /// What it says when it has ended well.
    async fn end(self, patience: Duration) -> Result<Vec<u8>> {
        let Self { plugin, command, child } = self;
        let plugin = plugin.to_owned();
        let remedy = format!("see what {plugin} writes to standard error, and whether it is installed completely");
        match tokio::time::timeout(
            patience,
            waiting_for(format!("IPAM plugin {plugin} to end"), child.hear(ANSWER_MAX_BYTES)),
        )
        .await
        {
            Err(_elapsed) => Err(Error::DelegateSilent { plugin, command, patience }),
            Ok(Err(e)) => {
                let problem = format!("its answer cannot be read: {e}");
                Err(Error::Delegate { plugin, command, problem, remedy })
            }
            Ok(Ok((said, status))) if status.success() => Ok(said),
            Ok(Ok((said, status))) => Err(match refusal(&said) {
                Some(Refusal { code, msg, details }) => Error::DelegateRefused { plugin, command, code, msg, details },
                None => Error::Delegate { plugin, command, problem: badly(status, &said), remedy },
            }),
        }
    }
}

/// The error object that `said` is. A code of zero is none.
fn refusal(said: &[u8]) -> Option<Refusal> {
    serde_json::from_slice(said).ok().filter(|refusal: &Refusal| refusal.code != 0)
}

fn badly(status: ExitStatus, said: &[u8]) -> String {
    if said.trim_ascii().is_empty() {
        return format!("it ended with {status} and no output");
    }
    format!("it ended with {status} and printed {}", shown(said))
}

/// As much of it as fits a message.
fn shown(said: &[u8]) -> String {
    let said = said.trim_ascii();
    let text = String::from_utf8_lossy(&said[..said.len().min(SHOWN_MAX_BYTES)]);
    format!("{text:?}{}", if said.len() > SHOWN_MAX_BYTES { ".." } else { "" })
}

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if folders.is_empty() { "CNI_PATH, which names no folder".into() } else { folders.join(", ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole(r#"{"code": 7, "msg": "no range", "details": "why"}"#, Some((7, "no range", "why")))]
    #[case::bare(r#"{"code": 11}"#, Some((11, "", "")))]
    #[case::no_code(r#"{"msg": "no range"}"#, None)]
    #[case::no_error(r#"{"code": 0, "msg": "well"}"#, None)]
    #[case::negative(r#"{"code": -1, "msg": "well"}"#, None)]
    #[case::cut(r#"{"code": 7, "msg": "#, None)]
    #[case::nothing("", None)]
    fn error_objects(#[case] said: &str, #[case] expected: Option<(u32, &str, &str)>) {
        let found = refusal(said.as_bytes());
        assert_eq!(found.as_ref().map(|it| (it.code, it.msg.as_str(), it.details.as_str())), expected);
    }

    #[test]
    fn what_is_shown_of_an_answer_is_short_and_safe() {
        assert_eq!(shown(b" one\ntwo\x1b\xff "), "\"one\\ntwo\\u{1b}\u{fffd}\"");
        assert_eq!(shown(&[b'a'; 1000]).len(), SHOWN_MAX_BYTES + 4);
    }

    #[test]
    fn the_first_executable_is_the_one() {
        let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let folders = [first.path().to_owned(), PathBuf::from("/nonexistent"), second.path().to_owned()];
        let find = |plugin| Delegate::find(plugin, &folders, Command::Add, "").map(|found| found.file);
        std::fs::create_dir(first.path().join("ipam")).expect("a folder");
        let message = find("ipam").expect_err("only a folder").to_string();
        assert!(folders.iter().all(|folder| message.contains(&*folder.to_string_lossy())), "{message}");
        std::fs::write(first.path().join("ipam2"), "").expect("a file");
        let message = find("ipam2").expect_err("not executable").to_string();
        assert!(message.contains("ipam2 is not executable"), "{message}");
        std::os::unix::fs::symlink("/bin/sh", second.path().join("ipam2")).expect("a link");
        assert_eq!(find("ipam2").expect("a plugin"), second.path().join("ipam2"));
    }
}
