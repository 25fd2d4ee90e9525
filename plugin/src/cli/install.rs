//! `flatnet install`: puts flatnet on this host, for the Podman that is there.
//!
//! It changes nothing that the record does not name, so that uninstall can put everything back; and it works any number of times.

mod advice;
mod ask;
pub(super) mod bridge;
mod files;
pub(super) mod plan;
pub(super) mod record;
pub(super) mod take_back;
mod values;
mod wanted;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use ipnetwork::IpNetwork;
use serde_json::json;

use self::files::Saved;
use self::plan::{Manner, Plan, Step};
use self::record::{Before, Record, Written};
use self::wanted::Wanted;
use super::podman::Backend;
use super::probe::{self, Ran};
use crate::deadline;
use crate::layout;

/// Put flatnet on this host, for the Podman that is there
///
/// Podman 4 gets the CNI plugin, its network and the setting that makes it use CNI; Podman 5 gets the netavark driver and a network.
/// Where systemd runs, a service keeps the bridge in place from boot on. `flatnet uninstall` puts everything back.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(super) struct Arguments {
    /// This host's number in the flat range: it owns 10.87.N.0/24 [default: 1, or as installed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    host_id: Option<u8>,
    /// Another subnet than the host's number gives, such as 10.87.16.0/22, or one of each family: `--subnet 10.87.1.0/24 --subnet fd87:1::/64`
    #[arg(long = "subnet", value_name = "CIDR", conflicts_with = "host_id", value_parser = values::subnet)]
    subnets: Vec<IpNetwork>,
    /// Addresses of IPv6 as well, of `fd87:N::/64` for the host that owns 10.87.N.0/24 [default: no, or as installed]
    #[arg(long, conflicts_with = "subnets")]
    ipv6: bool,
    /// The bridge's name [default: flatnet-br0, or as installed]
    #[arg(long, value_name = "NAME", value_parser = values::bridge)]
    bridge: Option<String>,
    /// The network's name [default: flatnet, or as installed]
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    name: Option<String>,
    /// A gateway outside the flat range, which has a route to the containers: what they send there keeps its address. An address or a
    /// subnet, such as 172.30.0.1; may be said several times [default: none, or as installed]
    #[arg(long = "gateway", value_name = "ADDRESS", value_parser = values::gateway)]
    gateways: Vec<IpNetwork>,
    /// Do not masquerade what containers send beyond the flat range: they then reach what has a route back to them
    #[arg(long, conflicts_with = "masquerade")]
    no_masquerade: bool,
    /// Masquerade it, where an earlier installation does not
    #[arg(long)]
    masquerade: bool,
    #[command(flatten)]
    spoofing: Spoofing,
    /// Install for this network backend, and do not ask Podman for its version
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    #[command(flatten)]
    manner: Manner,
}

/// Whether containers may send as others.
#[derive(Args)]
struct Spoofing {
    /// Have containers send as themselves only (`macspoofchk`) [default: where the kernel can, or as installed]
    #[arg(long)]
    macspoofchk: bool,
    /// Let those that may send any frame (`NET_RAW`) send as anybody
    #[arg(long, conflicts_with = "macspoofchk")]
    no_macspoofchk: bool,
}

const AFTER: &str = "\
Exit codes: 0 done, or nothing to do; 1 failed, and everything was put back; 2 the arguments are
wrong; 3 nothing was changed, as confirmation is needed: --yes.";

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    require_root("install")?;
    let earlier = Record::read()?;
    let wanted = Wanted::of(arguments, earlier.as_ref())?;
    plan(&wanted, earlier.as_ref())?.finish(arguments.manner, out)
}

/// Errors where the caller may not change the host.
pub(super) fn require_root(command: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("{command} needs root: run `sudo flatnet {command}`")
}

/// What has to change, in the order in which an interruption does the least harm: the record first, the service last.
fn plan(wanted: &Wanted, earlier: Option<&Record>) -> Result<Plan> {
    let mut plan = Plan::default();
    plan.facts.insert("backend".into(), json!(wanted.backend));
    plan.facts.insert("network".into(), json!(wanted.network.name));
    plan.facts.insert("subnet".into(), json!(wanted.network.subnets.first()));
    plan.facts.insert("subnets".into(), json!(wanted.network.subnets));
    plan.facts.insert("bridge".into(), json!(wanted.network.bridge));
    let mut record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: wanted.backend,
        network: wanted.network.clone(),
        files: Vec::new(),
        folders: earlier.map(|record| record.folders.clone()).unwrap_or_default(),
        made_network: false,
        enabled_service: false,
    };
    let files = wanted.files()?;
    let (mut kept, mut changes, mut is_edited) = (Vec::new(), Vec::new(), false);
    for (path, then) in &files {
        if let Some(ours) = edited(path, wanted, earlier)? {
            plan.warnings.push(format!(
                "{} was changed since flatnet wrote it, and stays; remove it to have it written anew",
                path.display()
            ));
            changes.push(Step::Unchanged { path: path.clone() });
            record.files.push(ours.clone());
            // Its bridge is what it says, and no longer what the record says.
            is_edited = true;
            continue;
        }
        let change = change(path, then, earlier, &mut plan.questions)?;
        kept.extend(change.kept);
        record.files.extend(change.written);
        add_folders(path, &mut record.folders, &mut changes);
        changes.push(change.step);
    }
    let runtimes = match wanted.backend {
        Backend::Cni => Path::new(layout::CNI_RESULTS),
        Backend::Netavark => Path::new(layout::NETAVARK_NETWORKS),
    };
    // Runtime and plugin make them by themselves, because of what is installed here.
    for made in [&runtimes.join("file"), Path::new(layout::MEMORY)] {
        add_folders(made, &mut record.folders, &mut Vec::new());
    }
    let gone = going(&files, wanted, earlier, &mut plan)?;
    let network = network(wanted, earlier, &mut record)?;
    let service = service(wanted, earlier, &changes, &mut record);
    record_first(&record, kept, &mut plan)?;
    let bridge = going_bridge(wanted, earlier, &mut plan)?;
    if !service.is_empty() {
        plan.steps.extend(take_back::former_service(earlier));
    }
    plan.steps.extend(take_back::with_readers(gone.into_iter().chain(changes).collect()));
    plan.steps.extend(bridge);
    plan.steps.extend(network);
    plan.steps.extend(service);
    if !is_edited {
        refuse_conflict(wanted, earlier)?;
        ask_about_routes(wanted, earlier, &mut plan)?;
        bridge::refuse_masquerade(&wanted.parsed)?;
    }
    ask_about_containers(wanted, earlier, &mut plan)?;
    advice::warn(wanted, &mut plan);
    plan.next = advice::next(wanted);
    Ok(plan)
}

/// What becomes of one file.
struct Change {
    step: Step,
    /// Nothing for a file that was already there as it should be: it stays when flatnet goes.
    written: Option<Written>,
    /// Where the content of a replaced file goes.
    kept: Option<(PathBuf, Saved)>,
}

/// A network's file that somebody has edited, where no other network is asked for: an upgrade must not undo that.
fn edited<'a>(path: &Path, wanted: &Wanted, earlier: Option<&'a Record>) -> Result<Option<&'a Written>> {
    let same = earlier.filter(|it| it.network == wanted.network && it.backend == wanted.backend);
    let is_network = path.extension().is_some_and(|it| it == "conflist");
    let Some(ours) = same.and_then(|record| record.file(path)).filter(|_| is_network) else { return Ok(None) };
    Ok(files::look(path)?.filter(|now| !ours.is(now) && !ours.is_before(now)).map(|_| ours))
}

fn change(path: &Path, then: &Saved, earlier: Option<&Record>, questions: &mut Vec<String>) -> Result<Change> {
    let ours = earlier.and_then(|record| record.file(path));
    let now = files::look(path)?;
    let mut before = ours.and_then(|written| written.before.clone());
    let (mut kept, mut former) = (None, None);
    let action = match &now {
        Some(now) if now.serves_as(then) => {
            return Ok(Change {
                step: Step::Unchanged { path: path.into() },
                written: ours.map(|ours| ours.now(then)),
                kept,
            });
        }
        None => "create",
        Some(now) if ours.is_some_and(|written| written.is(now)) => {
            former = Some(now.hash());
            "update"
        }
        Some(now) => {
            // Where an installation was cut short, what it was about to replace may still be there.
            let is_theirs = ours.is_none_or(|written| written.is_before(now));
            let whose = if is_theirs { "flatnet did not write" } else { "was changed since flatnet wrote it" };
            questions.push(format!("replace {}, which {whose}", path.display()));
            if ours.is_none() {
                let name = path.to_string_lossy().trim_start_matches('/').replace('/', "-");
                let place = Path::new(layout::REPLACED).join(name);
                before = Some(Before::of(now, place.clone()));
                if matches!(now.content, files::Content::Bytes(_)) {
                    kept = Some((place, Saved { mode: 0o600, ..now.clone() }));
                }
            } else if !is_theirs && now.is_by_hand() {
                kept = Some((files::beside(path), now.clone()));
            }
            "replace"
        }
    };
    let written = Some(Written { path: path.into(), hash: then.hash(), former, before });
    Ok(Change { step: Step::File { action, path: path.into(), now, then: Some(then.clone()) }, written, kept })
}

/// Folders that a file needs; those that are made here go again with the installation.
fn add_folders(path: &Path, known: &mut Vec<PathBuf>, steps: &mut Vec<Step>) {
    for folder in files::missing_folders(path) {
        let planned = |step: &Step| matches!(step, Step::MakeFolder(made) if *made == folder);
        if !steps.iter().any(planned) {
            steps.push(Step::MakeFolder(folder.clone()));
        }
        if !known.contains(&folder) {
            known.push(folder);
        }
    }
}

/// What an earlier installation made and this one does not have: another backend's files, another name's network.
fn going(files: &[(PathBuf, Saved)], wanted: &Wanted, earlier: Option<&Record>, plan: &mut Plan) -> Result<Vec<Step>> {
    let Some(earlier) = earlier else { return Ok(Vec::new()) };
    let mut steps = Vec::new();
    let moved = earlier.network != wanted.network || earlier.backend != wanted.backend;
    if earlier.made_network && moved {
        steps.extend(take_back::network(earlier)?);
    }
    if earlier.enabled_service && !wanted.has_systemd {
        steps.extend(take_back::service()?);
    }
    for written in earlier.files.iter().filter(|written| !files.iter().any(|(path, _)| *path == written.path)) {
        let (back, question) = take_back::file(written)?;
        steps.extend(back);
        plan.questions.extend(question);
    }
    Ok(steps)
}

/// The bridge of the network that was before. It goes after the files: `flatnet gateway` makes anew whatever they still name.
fn going_bridge(wanted: &Wanted, earlier: Option<&Record>, plan: &mut Plan) -> Result<Option<Step>> {
    let moved = |it: &&Record| !it.network.is_where(&wanted.network) || it.backend != wanted.backend;
    let Some(earlier) = earlier.filter(moved) else { return Ok(None) };
    let attached = bridge::attached(&earlier.network.name)?;
    if !attached.is_empty() {
        plan.questions.push(format!("change the network of {} running containers", attached.len()));
        return Ok(None);
    }
    let idle = bridge::is_idle(&earlier.network.bridge)?;
    Ok(idle.then(|| Step::DeleteBridge { name: earlier.network.bridge.clone() }))
}

/// Podman makes netavark's networks itself, and asks the driver.
fn network(wanted: &Wanted, earlier: Option<&Record>, record: &mut Record) -> Result<Option<Step>> {
    if wanted.backend != Backend::Netavark || !wanted.podman {
        let stays = earlier.is_some_and(|it| it.made_network && it.network == wanted.network);
        record.made_network = stays && wanted.backend == Backend::Netavark;
        return Ok(None);
    }
    let name = &wanted.network.name;
    let format = "{{.Driver}} {{range .Subnets}}{{.Subnet}} {{end}}{{.NetworkInterface}}\
        {{range $key, $value := .Options}} {{$key}}={{$value}}{{end}}";
    // Under CNI the name is our own network's, which goes.
    let is_cni = earlier.is_some_and(|it| it.backend == Backend::Cni);
    let inspect = ["network", "inspect", "--format", format, name];
    let found = match probe::run_within(deadline::INSTALL, "podman", &inspect) {
        Ran::Well(found) if !is_cni => Some(found.trim().to_owned()),
        // Podman has no other word for "no such network".
        _ => None,
    };
    let facts = [format!("flatnet {} {}", wanted.network.subnets(" "), wanted.network.bridge)];
    let same = facts.into_iter().chain(take_back::options(&wanted.network)).collect::<Vec<_>>().join(" ");
    let ours = earlier.is_some_and(|it| it.made_network && it.network.name == *name);
    record.made_network = ours || found.is_none();
    match found {
        Some(found) if found == same => return Ok(Some(Step::Unchanged { path: format!("network {name}").into() })),
        Some(found) if !ours => {
            bail!("Podman already has a network {name} ({found}): remove it, or pass another --name")
        }
        _ => {}
    }
    let make = take_back::create_network(&wanted.network);
    let undo = format!("podman network rm {name}");
    Ok(Some(Step::run("create", &format!("network {name}"), &make, Some(&undo))))
}

/// systemd is told where anything changed that it runs.
fn service(wanted: &Wanted, earlier: Option<&Record>, changes: &[Step], record: &mut Record) -> Vec<Step> {
    record.enabled_service = wanted.has_systemd;
    let enabled = earlier.is_some_and(|record| record.enabled_service);
    let idle = changes.iter().all(|step| matches!(step, Step::Unchanged { .. }));
    if !wanted.has_systemd || (enabled && idle) {
        return Vec::new();
    }
    let unit = "flatnet.service";
    let mut steps = vec![take_back::reload()];
    if enabled {
        steps.push(Step::run("restart", unit, "systemctl restart flatnet.service", None));
    } else {
        // A start that fails leaves the unit enabled, and waiting to be started again.
        let undo = "systemctl disable --now flatnet.service";
        steps.push(Step::run("enable", unit, "systemctl enable flatnet.service", Some(undo)));
        steps.push(Step::run("start", unit, "systemctl start flatnet.service", None));
    }
    steps
}

/// The record, with what it keeps, before anything that it names is changed.
fn record_first(record: &Record, kept: Vec<(PathBuf, Saved)>, plan: &mut Plan) -> Result<()> {
    let path = Path::new(layout::RECORD);
    let mut record = record.clone();
    let mut steps = Vec::new();
    for place in kept.iter().map(|(place, _)| place.as_path()).chain([path]) {
        add_folders(place, &mut record.folders, &mut steps);
    }
    for (path, saved) in kept {
        let now = files::look(&path)?;
        steps.push(Step::File { action: "keep", path, now, then: Some(saved) });
    }
    let (now, then) = (files::look(path)?, Saved::new(record.text(), 0o644));
    if now.as_ref().is_none_or(|now| !now.serves_as(&then)) {
        let action = if now.is_some() { "update" } else { "create" };
        steps.push(Step::File { action, path: path.into(), now, then: Some(then) });
    }
    plan.steps.extend(steps);
    Ok(())
}

/// The bridge of an earlier installation is changed or deleted by the plan itself.
fn refuse_conflict(wanted: &Wanted, earlier: Option<&Record>) -> Result<()> {
    if earlier.is_some_and(|record| record.network != wanted.network && record.network.bridge == wanted.network.bridge)
    {
        return Ok(());
    }
    bridge::refuse_conflict(&wanted.parsed)
}

/// What the host reaches in the subnet, it would look for among the containers.
fn ask_about_routes(wanted: &Wanted, earlier: Option<&Record>, plan: &mut Plan) -> Result<()> {
    if earlier.is_none_or(|record| record.network.subnets != wanted.network.subnets) {
        for route in bridge::routes_into(&wanted.parsed)? {
            plan.questions.push(format!(
                "take a subnet that the host has a route into, {route}: what is there is then not reached from here; another --subnet avoids that"
            ));
        }
    }
    Ok(())
}

/// A change of backend takes the networks from containers that exist.
fn ask_about_containers(wanted: &Wanted, earlier: Option<&Record>, plan: &mut Plan) -> Result<()> {
    let switched = earlier.is_some_and(|record| record.file(Path::new(layout::PODMAN_DROP_IN)).is_some());
    if wanted.backend != Backend::Cni || !wanted.podman || switched {
        return Ok(());
    }
    let ask = |arguments: &[&str]| match probe::run_within(deadline::INSTALL, "podman", arguments) {
        Ran::Well(text) => Ok(text.trim().to_owned()),
        Ran::Missing => bail!("failed to run podman: it is gone"),
        Ran::Badly(why) => bail!("failed to ask Podman: `podman {}` {why}", arguments.join(" ")),
    };
    let backend = ask(&["info", "--format", "{{.Host.NetworkBackend}}"])?;
    let containers = ask(&["ps", "--all", "--quiet"])?.lines().count();
    if backend != Backend::Cni.as_str() && containers > 0 {
        plan.questions.push(format!(
            "switch Podman from {backend} to CNI with {containers} containers: they and their volumes stay, but their networks are {backend}'s, \
             which Podman then no longer sees; stop and remove them first (`podman rm`), and run them anew after that. \
             For a clean start Podman's manual advises `podman system reset`, which removes all containers, images and networks"
        ));
    }
    Ok(())
}
