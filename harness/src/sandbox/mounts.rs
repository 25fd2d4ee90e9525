//! The world's private mounts: fresh `/proc`, and empty folders where flatnet keeps its state or is installed.
//!
//! Invariant: the plugin's real default paths exist, are empty, and writing there reaches nothing outside the world.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

/// Where flatnet keeps or finds state, and where it is installed: all empty in a new world.
pub const STATE_FOLDERS: [&str; 9] = [
    "/run",
    "/var/lib/cni",
    "/var/lib/flatnet",
    "/etc/cni",
    "/etc/containers",
    "/etc/firewalld",
    "/etc/systemd/system",
    "/opt/cni",
    "/usr/local/libexec/netavark",
];

/// Where flatnet's command goes, beside the machine's programs: those stay to be seen, and what is written stays in the world.
pub const COMMANDS: &str = "/usr/local/bin";

/// What the world's own mounts say that they are of.
const SOURCE: &str = "world";

/// Cuts the mounts off from the machine's and puts the private ones in place.
pub(super) fn make_private() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("cut mounts off from the machine's")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)
        .context("mount a fresh /proc (in a container, its /proc must not be masked)")?;
    // The overlays' upper halves live in a first /run, which the lasting one then hides.
    tmpfs("/run")?;
    let commands = keep_commands()?;
    let others = || STATE_FOLDERS.iter().filter(|folder| **folder != "/run");
    // An overlay hides what is mounted below it, so each is there before the first is covered.
    others().try_for_each(|folder| ensure(Path::new(folder)))?;
    cover_commands(commands)?;
    others().try_for_each(|folder| tmpfs(folder))?;
    tmpfs("/run")
}

/// The machine's commands, if it has any, in a place where nothing that covers them later hides them.
fn keep_commands() -> Result<Option<&'static Path>> {
    let kept = Path::new("/run/commands");
    if !Path::new(COMMANDS).is_dir() {
        return Ok(None);
    }
    fs::create_dir(kept).context("make a folder in the world")?;
    let none = None::<&str>;
    mount(Some(COMMANDS), kept, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("keep {COMMANDS}"))?;
    Ok(Some(kept))
}

/// In the world flatnet is not installed, even if it is on the machine. An overlay over a folder further up would not do: in
/// it the commands' folder still is the machine's root's, who is nobody in a user namespace.
fn cover_commands(kept: Option<&Path>) -> Result<()> {
    let folder = Path::new(COMMANDS);
    match kept {
        None => ensure(folder)?,
        Some(kept) => overlay(kept, folder)?,
    }
    match fs::remove_file(folder.join("flatnet")) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).context("hide the machine's flatnet"),
        _ => Ok(()),
    }
}

/// Covers `folder` with an empty one of the world's own, which it becomes even if the machine has no such folder. Must be
/// called inside a world.
pub fn empty_folder(folder: &str) -> Result<()> {
    ensure(Path::new(folder))?;
    tmpfs(folder)
}

fn tmpfs(folder: &str) -> Result<()> {
    mount(Some(SOURCE), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount an empty {folder}"))
}

/// Makes `folder` exist in this world: an overlay over what there is above it, so that the machine's disk is not written to.
fn ensure(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let there = folder.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
    if !is_of_the_world(there)? {
        overlay(there, there).with_context(|| {
            let folder = folder.display();
            format!("make {folder} in the world (`sudo mkdir -p {folder}` once would do without an overlay)")
        })?;
    }
    fs::create_dir_all(folder).with_context(|| format!("make {} in the world", folder.display()))
}

/// Whether what is written to `folder` stays in the world.
fn is_of_the_world(folder: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
    let covers = |line: &str| {
        let (place, source) = (line.split(' ').nth(4), line.split(" - ").nth(1).and_then(|it| it.split(' ').nth(1)));
        place.is_some_and(|place| folder.starts_with(place)) && source == Some(SOURCE)
    };
    Ok(mounts.lines().any(covers))
}

/// Covers `folder` with what is in `lower`, and whatever is written stays in the world.
fn overlay(lower: &Path, folder: &Path) -> Result<()> {
    if folder == Path::new("/") {
        bail!("put an overlay over the whole machine");
    }
    let scratch = Path::new("/run").join(folder.to_string_lossy().trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir_all(&upper).context("make a folder in the world")?;
    fs::create_dir_all(&work).context("make a folder in the world")?;
    let options =
        format!("lowerdir={},upperdir={},workdir={},userxattr", lower.display(), upper.display(), work.display());
    mount(Some(SOURCE), folder, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("put an overlay over {}", folder.display()))
}
