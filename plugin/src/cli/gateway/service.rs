//! The manners of a long-running process: signals that end it, and telling systemd that it is ready.

use std::env;
use std::ffi::OsStr;
use std::future::Future;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// From now on SIGTERM and SIGINT end the future, and not the process.
pub(super) fn asked_to_end() -> Result<impl Future<Output = Result<()>>> {
    let signals = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect::<SigSet>();
    signals.thread_block().context("failed to hold signals back")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let arrivals = SignalFd::with_flags(&signals, flags).context("failed to listen to signals")?;
    // SAFETY: the object owns its descriptor, gives no other, and stays open until it is dropped.
    let arrivals = unsafe { AsyncFd::register_with_interest(arrivals, Interest::READABLE) };
    let arrivals = arrivals.map_err(io::Error::from).context("failed to listen to signals")?;
    Ok(async move { arrivals.readable().await.map(drop).context("failed to listen to signals") })
}

/// Says a line to whoever watches. Nobody has to: a service runs on when its log has gone.
pub(super) fn say(out: &mut impl Write, line: &str) {
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Says what is wrong, to whoever still reads it.
pub(super) fn warn(what: &str) {
    drop(writeln!(io::stderr(), "flatnet: {what}"));
}

/// The time of day.
pub(super) fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hours, minutes, seconds) = (now / 3600 % 24, now / 60 % 60, now % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02} UTC")
}

/// The start-up protocol of `sd_notify(3)`: units that come after this one may start. Without systemd there is nobody to tell.
pub(super) fn tell_systemd_ready() {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(e) = notify(&socket) {
        warn(&format!("failed to tell systemd by {}: {e}", socket.display()));
    }
}

fn notify(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("flatnet-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        for (there, told) in [
            (UnixDatagram::bind(&path), path.into_os_string()),
            (UnixDatagram::bind_addr(&address), format!("@{name}").into()),
        ] {
            notify(&told).expect("told");
            let mut message = [0; 16];
            let length = there.and_then(|socket| socket.recv(&mut message)).expect("a message");
            assert_eq!(&message[..length], b"READY=1");
        }
    }
}
