//! A view of the whole disk in which everything that is written is seen, and none of it reaches the disk.
//!
//! Invariant: it is the calling thread's alone, with the processes that it starts, and goes with them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::mounts;

/// What is no disk, or is the world's own and empty to begin with: looked at by the inventory.
const OTHERS: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// Where what is written lands.
const PLACE: &str = "/run/harness/watched";

/// Every folder covered by an overlay, or by those of the folders in it.
#[derive(Debug)]
pub struct Watched {
    place: PathBuf,
    /// Those that no overlay covers, with what was in them.
    bare: Vec<(PathBuf, Vec<PathBuf>)>,
}

impl Watched {
    /// Moves the calling thread into mounts of its own. Must be called inside a world.
    pub fn begin() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let place = Path::new(PLACE).join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        unshare(CloneFlags::CLONE_NEWNS).context("unshare mounts")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .context("cut mounts off from the world's")?;
        let mut watched = Self { place, bare: Vec::new() };
        watched.cover_all_in(Path::new("/"))?;
        Ok(watched)
    }

    fn cover_all_in(&mut self, folder: &Path) -> Result<()> {
        let entries = list(folder)?;
        for path in entries.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
            if OTHERS.iter().any(|other| path == Path::new(other)) {
                continue;
            }
            match mounts::overlay(path, path, &self.place) {
                // The kernel refuses where something is mounted further down that a user must not look behind.
                Err(err) if err.downcast_ref() == Some(&Errno::EINVAL) => self.cover_all_in(path)?,
                covered => covered?,
            }
        }
        self.bare.push((folder.to_owned(), entries));
        Ok(())
    }

    /// What was written since, by anybody of this view: where its overlay keeps it, as `<folder>/upper/<path in the folder>`.
    pub fn written(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (folder, before) in &self.bare {
            found.extend(list(folder)?.into_iter().filter(|path| !before.contains(path)));
        }
        for folder in list(&self.place)? {
            let upper = folder.join("upper");
            collect(&upper, &upper, &mut found)?;
        }
        found.sort();
        Ok(found)
    }

    /// The path under which a process of this view has `written` what an overlay keeps.
    pub fn original(written: &Path) -> Option<PathBuf> {
        let (place, file) = written.to_str()?.split_once("/upper/")?;
        let covered = place.rsplit('/').next()?.replace('-', "/");
        Some(Path::new("/").join(covered).join(file))
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", folder.display()))?,
    };
    entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(|| format!("list {}", folder.display()))
}

/// A folder that is in an upper half only because something in it was written is not counted itself.
fn collect(folder: &Path, upper: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = list(folder)?;
    if entries.is_empty() && folder != upper {
        found.push(folder.to_owned());
    }
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            collect(&path, upper, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}
