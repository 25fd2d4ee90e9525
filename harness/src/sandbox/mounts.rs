//! The world's private mounts: fresh `/proc`, and empty folders where flatnet keeps its state or is installed.
//!
//! Invariant: the plugin's real default paths exist, are empty, and writing there reaches nothing outside the world.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

/// Where flatnet keeps or finds state, and where it is installed: all empty in a new world.
pub const STATE_FOLDERS: [&str; 11] = [
    "/run",
    "/var/lib/cni",
    "/var/lib/flatnet",
    "/etc/cni",
    "/etc/containers",
    "/etc/firewalld",
    "/etc/systemd/system",
    "/etc/systemd/network",
    "/etc/NetworkManager",
    "/opt/cni",
    "/usr/local/libexec/netavark",
];

/// Where flatnet's command goes, beside the machine's programs: those stay to be seen, and what is written stays in the world.
pub const COMMANDS: &str = "/usr/local/bin";

/// The size of a folder that is not full, as the kernel has it where nothing is said.
const ROOM: &str = "size=50%,nr_inodes=1m";

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
        Some(kept) => overlay(kept, folder, Path::new("/run"))?,
    }
    match fs::remove_file(folder.join("flatnet")) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).context("hide the machine's flatnet"),
        _ => Ok(()),
    }
}

/// Refuses what would empty, fill or lock a folder of the machine's: `/run` is the world's own, or this is none.
pub fn require_world() -> Result<()> {
    if is_of_the_world(Path::new("/run"))? { Ok(()) } else { bail!("touch /run outside a world: it is the machine's") }
}

/// Covers `folder` with an empty one of the world's own, which it becomes even if the machine has no such folder. Must be
/// called inside a world.
pub fn empty_folder(folder: &str) -> Result<()> {
    ensure(Path::new(folder))?;
    tmpfs(folder)
}

/// What can be done with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Files can be read, and nothing else.
    ReadOnly,
    /// Files can be read and removed; there is room for no other file, and for not one byte more.
    Full,
    /// Anything.
    Writable,
}

/// Brings a folder of the world's own (a mount of its own, or one below `/proc`) into that condition. Must be called inside a world.
pub fn set_condition(folder: &str, condition: Condition) -> Result<()> {
    require_world()?;
    let none = None::<&str>;
    if !is_mount(folder)? {
        mount(Some(folder), folder, none, MsFlags::MS_BIND, none).with_context(|| format!("cover {folder}"))?;
    }
    if !folder.starts_with("/proc") {
        resize(folder, condition)?;
    }
    // After the size: to change that unlocks.
    let locked = if condition == Condition::ReadOnly { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    mount(none, folder, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | locked, none)
        .with_context(|| format!("lock or unlock {folder}"))
}

fn resize(folder: &str, condition: Condition) -> Result<()> {
    let found = statvfs(folder).with_context(|| format!("look at {folder}"))?;
    let room = match condition {
        Condition::Full => {
            let bytes = (found.blocks() - found.blocks_free()) * found.fragment_size();
            // None at all would be understood as no limit.
            format!("size={},nr_inodes={}", bytes.max(1), found.files() - found.files_free())
        }
        Condition::ReadOnly | Condition::Writable => ROOM.to_owned(),
    };
    let none = None::<&str>;
    mount(none, folder, none, MsFlags::MS_REMOUNT, Some(room.as_str())).with_context(|| format!("resize {folder}"))
}

fn is_mount(folder: &str) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("list mounts")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4) == Some(folder)))
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
        overlay(there, there, Path::new("/run")).with_context(|| {
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

/// Covers `folder` with what is in `lower`, and whatever is written lands in the folder `upper` of one below `place`.
pub(super) fn overlay(lower: &Path, folder: &Path, place: &Path) -> Result<()> {
    if folder == Path::new("/") {
        bail!("put an overlay over the whole machine");
    }
    let scratch = place.join(folder.to_string_lossy().trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    fs::create_dir_all(&upper).context("make a folder in the world")?;
    fs::create_dir_all(&work).context("make a folder in the world")?;
    let options =
        format!("lowerdir={},upperdir={},workdir={},userxattr", lower.display(), upper.display(), work.display());
    mount(Some(SOURCE), folder, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("put an overlay over {}", folder.display()))
}
