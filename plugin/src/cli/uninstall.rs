//! `flatnet uninstall`: puts everything back as `flatnet install` found it.
//!
//! It goes by the record and by nothing else: what install did not change stays.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::install::plan::{Manner, Plan, Step};
use super::install::record::{Network, Record};
use super::install::{bridge, require_root, take_back};
use super::probe;
use crate::ipam::memory;
use crate::layout;
use crate::netavark::planned::All;

/// Put everything back as install found it
///
/// Files that install wrote go, files that it replaced come back, the service stops, and the bridge goes if no container is on it.
/// What somebody wrote into a file of install's is kept beside it, as `<file>.flatnet-saved`.
/// Which name had which address is forgotten. Containers and images stay. So does `net.ipv4.ip_forward`, which others may need by now.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    require_root("uninstall")?;
    let record = Record::read()?;
    record.as_ref().map_or_else(|| Ok(nothing()), plan)?.finish(arguments.manner, out)
}

fn nothing() -> Plan {
    let nothing = format!("`flatnet install` has not installed anything here: there is no {}", layout::RECORD);
    Plan { warnings: vec![nothing], ..Plan::default() }
}

/// The reverse of an installation: the service first, the record last.
fn plan(record: &Record) -> Result<Plan> {
    let mut plan = Plan::default();
    let network = &record.network;
    plan.facts.insert("network".into(), json!(network.name));
    let attached = bridge::attached(&network.name)?;
    if !attached.is_empty() {
        plan.questions.push(format!(
            "take the plugin from under running containers, which Podman then cannot stop cleanly; remove them first: {}",
            attached.join("; ")
        ));
    }
    if record.enabled_service {
        plan.steps.extend(take_back::service()?);
    }
    if record.made_network {
        plan.steps.extend(take_back::network(record)?);
    }
    let mut files = Vec::new();
    for written in record.files.iter().rev() {
        let (steps, question) = take_back::file(written)?;
        files.extend(steps);
        plan.questions.extend(question);
    }
    plan.steps.extend(take_back::with_readers(files));
    if record.enabled_service && probe::has_systemd() {
        plan.steps.push(take_back::reload());
    }
    if attached.is_empty() && bridge::is_idle(&network.bridge)? {
        plan.steps.push(Step::DeleteBridge { name: network.bridge.clone() });
    }
    // Of networks that were removed, or whose containers no flatnet serves any more.
    let left = bridge::left()?.into_iter().filter(|name| *name != network.bridge);
    plan.steps.extend(left.map(|name| Step::DeleteBridge { name }));
    // With a bridge they go anyhow.
    if !plan.steps.iter().any(|step| matches!(step, Step::DeleteBridge { .. })) && bridge::may_be_published()? {
        plan.steps.push(Step::Unpublish);
    }
    plan.warnings.extend(stay_behind(network).map(|name| {
        format!("network {name} is of flatnet and was not made by install: it stays, and works no more (`podman network rm {name}`)")
    }));
    if memory::is_there() {
        plan.steps.push(Step::ForgetAddresses);
    }
    plan.steps.extend(take_back::record(record)?);
    plan.steps.extend(folders(record).into_iter().map(Step::RemoveFolder));
    plan.next.push("flatnet is uninstalled, and everything is as it was before.".into());
    Ok(plan)
}

/// The networks of flatnet that somebody else has made.
fn stay_behind(network: &Network) -> impl Iterator<Item = String> {
    let others = All::read().networks.into_iter().filter(|other| other.kind == "flatnet" && other.name != network.name);
    others.map(|other| other.name)
}

/// Innermost first; the record's own are among them.
fn folders(record: &Record) -> Vec<PathBuf> {
    let mut folders: Vec<_> = record.folders.iter().filter(|folder| folder.is_dir()).cloned().collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    folders
}
