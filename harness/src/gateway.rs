//! `flatnet gateway` on a node of a world, set up as an installed one is.
//!
//! Invariant: it is ready when it says so in systemd's way, and its configuration is what `flatnet install` would have written.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::lab::Namespace;
use crate::scenario::Setting;

/// Where CNI keeps its network configurations.
pub const FOLDER: &str = "/etc/cni/net.d";

/// How long it may take to get ready.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Writes the lists of all networks; gives the files.
pub fn configure(setting: &Setting) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
    setting
        .lists()
        .map(|plugins| {
            let (name, version) = plugins.first().map_or(("", ""), |first| (first.name(), first.version()));
            let file = Path::new(FOLDER).join(format!("{name}.conflist"));
            let plugins: Result<Vec<Value>, _> =
                plugins.iter().map(|network| serde_json::from_str(&network.to_json())).collect();
            let list = json!({ "cniVersion": version, "name": name, "plugins": plugins.context("read a network")? });
            fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))?;
            Ok(file)
        })
        .collect()
}

/// Starts it on `node`, and waits until it is ready.
pub fn start(node: &Namespace, flatnet: &Path) -> Result<Child> {
    let folder = format!("/run/harness/gateway-{}", node.name());
    fs::create_dir_all(&folder).context("make a folder for flatnet gateway")?;
    let (socket, log) = (format!("{folder}/notify"), format!("{folder}/log"));
    // One that was killed before has left it.
    drop(fs::remove_file(&socket));
    let ready = UnixDatagram::bind(&socket).context("listen for readiness")?;
    ready.set_read_timeout(Some(START_PATIENCE)).context("set a deadline")?;
    let mut command = node.command(flatnet)?;
    command.arg("gateway").env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
    let file = fs::File::create(&log).context("make a log")?;
    command.stdout(file.try_clone().context("share the log")?).stderr(file);
    let mut child = command.spawn().context("start flatnet gateway")?;
    let mut message = [0; 64];
    match ready.recv(&mut message) {
        Ok(length) if &message[..length] == b"READY=1" => Ok(child),
        said => {
            drop(child.kill());
            drop(child.wait());
            let log = fs::read_to_string(&log).unwrap_or_default();
            bail!("hear from flatnet gateway that it is ready ({said:?}): {}", log.trim())
        }
    }
}
