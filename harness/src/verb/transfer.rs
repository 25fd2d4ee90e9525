//! `transfer`: large bodies, both ways.
//!
//! Invariant: it fails unless all came through intact, and was passed on while the rest had not yet been sent.

use std::sync::mpsc;
use std::thread;

use anyhow::anyhow;
use serde::Deserialize;

use super::http::{Way, check_way, describe, lacks_nginx};
use super::meanwhile::Meanwhile;
use super::{Failure, Misfit, Verb};
use crate::http::client;
use crate::scenario::Setting;
use crate::world::World;

/// `{ transfer = "http://web.flat/", mib = 20, via = "windows" }`: an upload and a download of that size. Once for each server.
#[derive(Debug)]
pub(super) struct Transfer {
    url: String,
    options: TransferOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferOptions {
    mib: u32,
    via: Option<String>,
    from: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    meanwhile: Meanwhile,
}

impl Transfer {
    pub(super) fn new(url: String, options: TransferOptions) -> Self {
        Self { url, options }
    }
}

impl Verb for Transfer {
    fn describe(&self) -> String {
        describe("transfer", &self.url, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        check_way("transfer", &self.url, setting, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn within(&self) -> &[Box<dyn Verb>] {
        self.options.meanwhile.steps()
    }

    fn lacks(&self, setting: &Setting) -> Option<String> {
        lacks_nginx(setting, self.options.via.as_deref())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("from", self.options.from.as_deref()?))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let TransferOptions { mib, via, from, timeout_ms, meanwhile } = &self.options;
        let Way { from, question } = Way::find(world, &self.url, via.as_deref(), from.as_deref(), None, *timeout_ms)?;
        let from = from.clone();
        let (half, reached) = mpsc::channel();
        let (go, on) = mpsc::channel();
        let outcome = thread::scope(|scope| {
            let transfer = scope.spawn(move || {
                client::transfer(&from, &question, u64::from(*mib) * 1024 * 1024, move || {
                    let _ = half.send(());
                    let _ = on.recv();
                })
            });
            // A transfer that fails before does not come to it.
            let aside = reached.recv().map_or(Ok(()), |()| {
                meanwhile.run(world, || {
                    // Only the first is waited for.
                    let _ = go.send(());
                })
            });
            drop(go);
            let outcome = transfer.join().unwrap_or_else(|_| Err(anyhow!("transfer")));
            aside.map(|()| outcome)
        })?;
        match outcome? {
            Ok(()) => Ok(format!("{mib} MiB up and down")),
            Err(found) => Err(Failure::mismatch("all bytes, as they are sent", found)),
        }
    }
}
