//! The plugin under test: found or built, called as a runtime calls it, its manners checked on every call.
//!
//! Invariant: a call that breaks the protocol (an unreadable answer, output where none belongs) is never taken for a result.

mod locate;
mod protocol;
pub mod shape;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::lab::Namespace;
use crate::process::{self, Finished};
use crate::sandbox::Distro;

pub use locate::{ENV_PLUGIN_DIR, Plugins, reference_folder, repository};
pub(crate) use protocol::read;
pub use protocol::{Answer, Broken, Refusal};

/// How long a call may take before the plugin is killed.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// One call of a plugin.
#[derive(Clone, Debug)]
pub struct Call {
    /// The executable.
    pub binary: PathBuf,
    /// `ADD`, `DEL`, ..; what `CNI_COMMAND` says unless `env` says otherwise.
    pub command: String,
    /// Its whole environment, but for `PATH`.
    pub env: BTreeMap<String, String>,
    /// What it reads.
    pub stdin: String,
    /// How long it may take.
    pub patience: Duration,
}

impl Call {
    /// Calls the plugin in the network of `node`.
    pub fn run(&self, node: &Namespace) -> Result<Finished> {
        self.run_in(node, None)
    }

    /// Calls the plugin in the network of `node`, and in another distribution than the world's own if one is given.
    pub fn run_in(&self, node: &Namespace, distro: Option<&Distro>) -> Result<Finished> {
        let mut command = self.command_in(node)?;
        distro.map_or(Ok(()), |distro| distro.adopt(&mut command))?;
        process::run(command, self.stdin.as_bytes(), self.patience)
    }

    /// The command that calls it, not started yet.
    pub(crate) fn command_in(&self, node: &Namespace) -> Result<Command> {
        let mut command = node.command(&self.binary)?;
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(&self.env);
        Ok(command)
    }

    /// What the plugin answered; the error names the rule that the answer breaks.
    pub fn read(&self, finished: &Finished) -> Result<Answer, Broken> {
        read(&self.command, finished)
    }
}

/// The environment by which a runtime says what it wants; `None` leaves a variable out.
pub fn environment(
    command: &str,
    container: &str,
    netns: Option<&Path>,
    ifname: &str,
    args: Option<&str>,
    path: &str,
) -> BTreeMap<String, String> {
    let netns = netns.map(|netns| netns.display().to_string());
    [
        ("CNI_COMMAND", Some(command)),
        ("CNI_CONTAINERID", Some(container)),
        ("CNI_NETNS", netns.as_deref()),
        ("CNI_IFNAME", Some(ifname)),
        ("CNI_ARGS", args),
        ("CNI_PATH", Some(path)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
    .collect()
}
