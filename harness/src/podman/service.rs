//! The Docker API, as Podman serves it.
//!
//! Invariant: answers when it is given out, and ends with the value that stands for it.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Podman;
use crate::deadline;

/// Where the API listens, as `DOCKER_HOST` has it.
pub const SOCKET: &str = "unix:///run/podman.sock";

const PATIENCE: Duration = Duration::from_secs(10);

/// A running API.
#[derive(Debug)]
pub struct Service {
    process: Child,
}

impl Service {
    pub(super) fn start(podman: &Podman) -> Result<Self> {
        let mut command = podman.command()?;
        command.args(["system", "service", "--time=0", SOCKET]).stdin(Stdio::null());
        let mut service = Self { process: command.spawn().context("start podman's API")? };
        let socket = SOCKET.trim_start_matches("unix://");
        let ready = deadline::until(PATIENCE, || {
            let ended = service.process.try_wait().ok().flatten().is_some();
            (ended || UnixStream::connect(socket).is_ok()).then_some(!ended)
        });
        match ready {
            Some(true) => Ok(service),
            Some(false) => bail!("start podman's API: it ended at once"),
            None => bail!("start podman's API: it did not listen on {socket} within {PATIENCE:?}"),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended before if this fails.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
