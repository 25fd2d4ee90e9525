//! `transfer`: large bodies, both ways.
//!
//! Invariant: it fails unless all came through intact, and was passed on while the rest had not yet been sent.

use serde::Deserialize;

use super::http::{Way, check_way, describe, lacks_nginx};
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

    fn lacks(&self, setting: &Setting) -> Option<String> {
        lacks_nginx(setting, self.options.via.as_deref())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("from", self.options.from.as_deref()?))
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let TransferOptions { mib, via, from, timeout_ms } = &self.options;
        let way = Way::find(world, &self.url, via.as_deref(), from.as_deref(), None, *timeout_ms)?;
        match client::transfer(way.from, &way.question, u64::from(*mib) * 1024 * 1024)? {
            Ok(()) => Ok(format!("{mib} MiB up and down")),
            Err(found) => Err(Failure::mismatch("all bytes, as they are sent", found)),
        }
    }
}
