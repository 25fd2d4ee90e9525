//! The plugins of a network, called one after the other as libcni does it.
//!
//! Invariant: ADD hands each the result of the one before, CHECK and DEL hand all of them ADD's last; DEL begins with the last plugin;
//! the first that refuses is the last that is called.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Cni, Prepared};
use crate::lab::Namespace;
use crate::plugin::{Answer, Call};
use crate::process::Finished;
use crate::sandbox::Distro;
use crate::scenario::Network;
use crate::verb::Failure;
use crate::world::{Attached, Attachment, World};

/// The calls for one container, in order; where the network is one plugin, one.
pub(super) fn prepare(cni: &Cni, world: &mut World, container: String) -> Result<Vec<Prepared>, Failure> {
    let own = cni.prepare(world, cni.command(), container)?;
    let Some(chain) = world.setting().chain(cni.network_name()) else { return Ok(vec![own]) };
    let before = result_before(world, cni.command(), &own.attachment);
    let other = |network: &Network| {
        let mut network = network.clone();
        network.ask(&own.wishes);
        if let Some(before) = &before {
            network.set("prevResult", before.clone());
        }
        let binary = find(cni, world, network.kind())?;
        let call = Call { binary, stdin: network.to_json(), ..own.call.clone() };
        Ok(Prepared { call, network, ..own.clone() })
    };
    let mut calls = chain.others().map(other).collect::<Result<Vec<_>>>()?;
    calls.insert(chain.place(), own);
    match cni.command() {
        // It is about a binary, not about the network.
        "VERSION" => Ok(vec![calls.swap_remove(chain.place())]),
        "DEL" => Ok(calls.into_iter().rev().collect()),
        _ => Ok(calls),
    }
}

/// The result that a runtime has kept of that attachment and sends along.
pub(super) fn result_before(world: &World, command: &str, attachment: &Attachment) -> Option<Value> {
    let wanted = |attached: &&Attached| command == "CHECK" || (command == "DEL" && attached.open);
    world.attached.get(attachment).filter(wanted).map(|attached| attached.result.clone())
}

/// Calls for all containers at the same moment; gives the last call for each, with what it was sent, and what all before it took and said.
pub(super) fn run(
    world: &mut World,
    node: &str,
    distro: Option<&str>,
    all: Vec<Vec<Prepared>>,
) -> Result<Vec<(Prepared, Finished)>, Failure> {
    let distro = world.distro(distro)?;
    let (distro, node) = (distro.as_deref(), &world.lab.host(node)?.namespace);
    let start = &Barrier::new(all.len());
    let finished: Result<Vec<_>> = thread::scope(|scope| {
        let calls: Vec<_> = all
            .into_iter()
            .map(|calls| {
                scope.spawn(move || {
                    start.wait();
                    one_after_the_other(calls, node, distro)
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap_or_else(|_| bail!("make a call"))).collect()
    });
    Ok(finished?)
}

fn one_after_the_other(
    calls: Vec<Prepared>,
    node: &Namespace,
    distro: Option<&Distro>,
) -> Result<(Prepared, Finished)> {
    let mut last: Option<(Prepared, Finished)> = None;
    for mut prepared in calls {
        if let Some((before, finished)) = &last {
            match before.call.read(finished) {
                Ok(Answer::Done(Some(result))) if prepared.call.command == "ADD" => {
                    prepared.network.set("prevResult", result);
                    prepared.call.stdin = prepared.network.to_json();
                }
                Ok(Answer::Done(_)) => {}
                Ok(Answer::Refused(_)) | Err(_) => break,
            }
        }
        let mut finished = prepared.call.run_in(node, distro)?;
        if let Some((_, before)) = last {
            finished.wall += before.wall;
            finished.stderr.insert_str(0, &before.stderr);
        }
        last = Some((prepared, finished));
    }
    last.context("find a plugin to call")
}

/// The plugin that stands beside the one under test: where the step says that plugins are, else where they are installed.
fn find(cni: &Cni, world: &World, kind: &str) -> Result<PathBuf> {
    let Some(path) = cni.plugin_path() else { return world.plugins.find(kind) };
    let found = path.split(':').map(|folder| Path::new(folder).join(kind)).find(|file| file.is_file());
    found.with_context(|| format!("find a plugin named {kind} in {path}"))
}
