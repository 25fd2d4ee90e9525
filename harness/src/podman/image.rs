//! The image that containers run: busybox alone, which serves one page.
//!
//! Invariant: made from what is installed; no registry is ever asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use serde_json::json;

use super::Podman;
use super::setup::find_program;

/// The name of the image, with its tag.
pub const IMAGE: &str = "localhost/flatnet-web:latest";

/// What serves the page.
pub const COMMAND: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/www"];

/// The image's files, until they are imported.
const FOLDER: &str = "/run/harness/flatnet-web";
/// What a container's programs are.
const APPLETS: [&str; 3] = ["httpd", "sh", "wget"];

/// How much of a program holds the name of its dynamic linker, if it has one.
const HEAD_BYTES: usize = 4096;

/// The page of a container says who it is and whose address it sees: an IPv6 one without the brackets, an IPv4 one as such.
const PAGE: &str = r#"#!/bin/sh
peer=${REMOTE_ADDR#[}
peer=${peer%]}
printf 'Content-Type: text/plain\r\n\r\n%s saw %s' "$NAME" "${peer#::ffff:}"
"#;

/// As process 1 busybox ignores SIGTERM, and every stop would last ten seconds: hence the signal.
const CHANGES: [&str; 2] = ["--change=STOPSIGNAL KILL", "--change=EXPOSE 80"];

/// Makes the image and imports it.
pub(super) fn import(podman: &Podman) -> Result<()> {
    let folder = make_root()?;
    let archive = Command::new(busybox()?).args(["tar", "-c", "-C"]).arg(folder).arg(".").output();
    let archive = archive.context("run busybox tar")?;
    if !archive.status.success() {
        bail!("archive the image: {}", String::from_utf8_lossy(&archive.stderr).trim());
    }
    let command = format!("--change=CMD {}", json!(COMMAND));
    let arguments = ["import", "--quiet", &command].into_iter().chain(CHANGES).chain(["-", IMAGE]);
    podman.feed(arguments, &archive.stdout).map(drop)
}

/// Makes the files of a container that serves the page, if it is started by [`COMMAND`] with its name as `NAME`; gives their folder.
pub fn make_root() -> Result<&'static Path> {
    let root = Path::new(FOLDER);
    let (programs, page) = (root.join("bin"), root.join("www/cgi-bin/index.cgi"));
    for folder in [&programs, &root.join("www/cgi-bin")] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::copy(busybox()?, programs.join("busybox")).context("copy busybox")?;
    for applet in APPLETS {
        symlink("busybox", programs.join(applet)).with_context(|| format!("link {applet}"))?;
    }
    fs::write(&page, PAGE).context("write the page")?;
    fs::set_permissions(&page, fs::Permissions::from_mode(0o755)).context("make the page a program")?;
    Ok(root)
}

/// A busybox that needs no library, as the image holds none.
pub fn busybox() -> Result<PathBuf> {
    let file = find_program("busybox").context("find busybox: install busybox-static")?;
    let program = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    // The dynamic linker's name follows the program headers.
    if program[..program.len().min(HEAD_BYTES)].windows(4).any(|bytes| bytes == b"/ld-") {
        bail!("use {}, as it is linked dynamically: install busybox-static", file.display());
    }
    Ok(file)
}
