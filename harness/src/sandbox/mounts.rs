//! The world's private mounts: fresh `/proc`, and empty folders where the plugin keeps its state.
//!
//! Invariant: the plugin's real default paths exist, are empty, and writing there reaches nothing outside the world.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

/// Where the plugin keeps or finds state: all empty in a new world.
pub const STATE_FOLDERS: [&str; 3] = ["/run", "/var/lib/cni", "/etc/cni"];

/// Cuts the mounts off from the machine's and puts the private ones in place.
pub(super) fn make_private() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("cut mounts off from the machine's")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)
        .context("mount a fresh /proc (in a container, its /proc must not be masked)")?;
    // The overlays' upper halves live in a first /run, which the lasting one then hides.
    tmpfs("/run")?;
    for folder in STATE_FOLDERS.iter().filter(|folder| **folder != "/run") {
        empty_folder(folder)?;
    }
    tmpfs("/run")
}

/// Covers `folder` with an empty one of the world's own, which it becomes even if the machine has no such folder. Must be
/// called inside a world.
pub fn empty_folder(folder: &str) -> Result<()> {
    ensure(Path::new(folder))?;
    tmpfs(folder)
}

fn tmpfs(folder: &str) -> Result<()> {
    mount(Some("world"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount an empty {folder}"))
}

/// Makes `folder` exist in this world: an overlay over its parent, so that the machine's disk is not written to.
fn ensure(folder: &Path) -> Result<()> {
    let Some(parent) = folder.parent().filter(|_| !folder.is_dir()) else {
        return Ok(());
    };
    let scratch = Path::new("/run").join(parent.to_string_lossy().trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir_all(&upper).context("make a folder in the world")?;
    fs::create_dir_all(&work).context("make a folder in the world")?;
    let options =
        format!("lowerdir={},upperdir={},workdir={},userxattr", parent.display(), upper.display(), work.display());
    mount(Some("world"), parent, Some("overlay"), MsFlags::empty(), Some(options.as_str())).with_context(|| {
        let folder = folder.display();
        format!("make {folder} in the world (`sudo mkdir -p {folder}` once would do without an overlay)")
    })?;
    fs::create_dir(folder).with_context(|| format!("make {} in the world", folder.display()))
}
