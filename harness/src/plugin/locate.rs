//! Where plugin binaries are: a given folder, or built from this repository; reference plugins beside them.
//!
//! Invariant: the folder that the caller gave always comes first, so nothing installed shadows the binary under test.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::asked;

/// The variable that names the folder of the binary under test.
pub const ENV_PLUGIN_DIR: &str = "FLATNET_PLUGIN_DIR";

/// The type of the plugin under test.
const UNDER_TEST: &str = "flatnet";

/// Where the reference plugins may be, as `ci/reference-plugins` has it, too.
const REFERENCE_FOLDERS: [&str; 5] =
    ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni", "/usr/local/libexec/cni", "/usr/local/lib/cni"];

/// The folders in which plugins are looked for, in order.
#[derive(Clone, Debug)]
pub struct Plugins {
    folders: Vec<PathBuf>,
    /// A folder of stand-ins for other plugins, which are found before these.
    stand_ins: Option<PathBuf>,
}

impl Plugins {
    /// Looks in `folder`, else in the one that the environment names, else builds the plugin from this repository.
    pub fn locate(folder: Option<&Path>) -> Result<Self> {
        let under_test = match folder.map(Path::to_owned).or_else(|| env::var_os(ENV_PLUGIN_DIR).map(PathBuf::from)) {
            Some(folder) => canonical(&folder)?,
            None => build()?,
        };
        let mut folders = vec![under_test];
        folders.extend(REFERENCE_FOLDERS.map(PathBuf::from).into_iter().filter(|folder| folder.is_dir()));
        Ok(Self { folders, stand_ins: None })
    }

    /// Looks in `folder` and nowhere else: what is installed elsewhere is not what is asked about.
    pub fn only(folder: &Path) -> Result<Self> {
        Ok(Self { folders: vec![canonical(folder)?], stand_ins: None })
    }

    /// Has `CNI_PATH` begin with a folder of stand-ins.
    pub fn prefer(&mut self, stand_ins: &Path) {
        self.stand_ins = Some(stand_ins.to_owned());
    }

    /// The folder of the binary under test.
    pub fn folder(&self) -> &Path {
        &self.folders[0]
    }

    /// The executable of a plugin type; the one under test is never one that happens to be installed.
    pub fn find(&self, kind: &str) -> Result<PathBuf> {
        if kind == UNDER_TEST {
            let file = self.folder().join(kind);
            return file.is_file().then_some(file).with_context(|| {
                format!("find {UNDER_TEST} in the plugin folder {}: there is no such file", self.folder().display())
            });
        }
        let found = self.folders.iter().map(|folder| folder.join(kind)).find(|file| file.is_file());
        found.with_context(|| format!("find a plugin named {kind} in {}", self.path()))
    }

    /// All folders, as `CNI_PATH` has them.
    pub fn path(&self) -> String {
        let folders = self.stand_ins.iter().chain(&self.folders);
        let folders: Vec<_> = folders.map(|folder| folder.display().to_string()).collect();
        folders.join(":")
    }
}

fn canonical(folder: &Path) -> Result<PathBuf> {
    let found = folder.canonicalize().with_context(|| format!("find the plugin folder {}", folder.display()));
    found.map_err(asked::wrongly)
}

/// The folder of the reference plugins that has all of these.
pub fn reference_folder(kinds: &[&str]) -> Option<&'static Path> {
    let has_all = |folder: &&Path| kinds.iter().all(|kind| folder.join(kind).is_file());
    REFERENCE_FOLDERS.into_iter().map(Path::new).find(has_all)
}

/// This repository, as it was when the harness was built.
pub fn repository() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Builds the plugin as the harness itself was built (debug or release), and gives its folder.
fn build() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args([
        "build",
        "--package",
        "flatnet",
        "--message-format=json-render-diagnostics",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    // It may take a minute, and cargo says what it does only once it knows.
    drop(writeln!(io::stderr(), "harness: building flatnet, the plugin under test (cargo build --package flatnet)"));
    let output = command.stderr(Stdio::inherit()).output().context("run cargo to build the plugin")?;
    if !output.status.success() {
        bail!("build the plugin: cargo ended with {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let named = message["target"]["name"] == "flatnet";
        message["executable"].as_str().filter(|_| named).map(PathBuf::from)
    });
    let folder = executable.as_deref().and_then(Path::parent).map(Path::to_owned);
    folder.context("find the plugin that cargo built")
}

#[cfg(test)]
mod tests {
    use super::{Plugins, UNDER_TEST};
    use std::fs;

    #[test]
    fn the_plugin_under_test_comes_from_its_folder_and_others_from_anywhere() {
        let (given, installed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [UNDER_TEST, "bridge"] {
            fs::write(installed.path().join(name), "").unwrap();
        }
        let folders = vec![given.path().to_owned(), installed.path().to_owned()];
        let plugins = Plugins { folders, stand_ins: None };
        assert_eq!(plugins.find("bridge").unwrap(), installed.path().join("bridge"));
        let told = plugins.find(UNDER_TEST).unwrap_err().to_string();
        assert!(told.contains(given.path().to_str().unwrap()), "{told}");
    }
}
