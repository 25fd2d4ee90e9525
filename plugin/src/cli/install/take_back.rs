//! The way back: what an installation has left on the host, as steps that put back what was there before.
//!
//! What somebody has changed since is theirs: it is asked about, or left alone.

use std::iter;
use std::path::Path;

use anyhow::{Result, bail};
use ipnetwork::IpNetwork;

use super::files::{self, Saved};
use super::plan::Step;
use super::record::{Before, Network, Record, Written};
use crate::cli::probe::{self, Ran};
use crate::deadline;
use crate::layout;

/// A program that reads files of ours, and does so anew when it is asked.
struct Reader {
    name: &'static str,
    files: &'static [&'static str],
    /// What tells whether it runs: it succeeds, and says this word.
    state: (&'static str, &'static [&'static str]),
    running: &'static str,
    reload: &'static str,
}

const READERS: [Reader; 3] = [
    Reader {
        name: "firewalld",
        files: &[layout::FIREWALLD_ZONE, layout::FIREWALLD_POLICY],
        state: ("firewall-cmd", &["--state"]),
        running: "",
        reload: "firewall-cmd --reload",
    },
    Reader {
        name: "systemd-networkd",
        files: &[layout::NETWORKD_FILE],
        state: ("systemctl", &["is-active", "systemd-networkd"]),
        running: "active",
        reload: "networkctl reload",
    },
    Reader {
        name: "NetworkManager",
        files: &[layout::NETWORK_MANAGER_FILE],
        state: ("nmcli", &["-t", "-f", "RUNNING", "general"]),
        running: "running",
        reload: "nmcli general reload conf",
    },
];

/// The steps that put back what was there before one of our files, if there is anything to do; and the question that goes with them.
pub(in crate::cli) fn file(written: &Written) -> Result<(Vec<Step>, Option<String>)> {
    let path = &written.path;
    let now = files::look(path)?;
    if now.as_ref().is_some_and(|now| written.is_before(now)) {
        return Ok((Vec::new(), None));
    }
    let then = written.before.as_ref().map(Before::saved).transpose()?.flatten();
    if now == then {
        return Ok((Vec::new(), None));
    }
    let (action, what) =
        if then.is_some() { ("restore", "put back what was there before") } else { ("remove", "remove") };
    let (mut steps, mut question) = (Vec::new(), None);
    if let Some(now) = now.as_ref().filter(|now| !written.is(now)) {
        question = Some(format!("{what}: {}, which was changed since flatnet wrote it", path.display()));
        if now.is_by_hand() {
            steps.push(keep(path, now)?);
        }
    } else if written.before.is_some() && then.is_none() {
        question = Some(format!("remove: {}; what was there before is lost, as its copy was removed", path.display()));
    }
    steps.push(Step::File { action, path: path.clone(), now, then });
    Ok((steps, question))
}

/// The step that keeps somebody's changes to one of our files beside it.
fn keep(path: &Path, now: &Saved) -> Result<Step> {
    let path = files::beside(path);
    Ok(Step::File { action: "keep", now: files::look(&path)?, path, then: Some(now.clone()) })
}

/// Stops the service before its file goes. Where systemd does not run (any more), or has no such unit, only the link is left to go by
/// which it would be started.
pub(in crate::cli) fn service() -> Result<Option<Step>> {
    if probe::has_systemd() && Path::new(layout::UNIT).exists() {
        let (stop, start) = ("systemctl disable --now flatnet.service", "systemctl enable --now flatnet.service");
        return Ok(Some(Step::run("disable", "flatnet.service", stop, Some(start))));
    }
    remove(Path::new(layout::UNIT_WANTED))
}

/// The step that removes what is at `path`, if anything is.
fn remove(path: &Path) -> Result<Option<Step>> {
    Ok(files::look(path)?.map(|now| Step::File { action: "remove", path: path.into(), now: Some(now), then: None }))
}

/// What systemd has to be told when an installation is undone and the former files are back.
pub(super) fn former_service(earlier: Option<&Record>) -> Vec<Step> {
    let ran = earlier.is_some_and(|it| it.enabled_service) && Path::new(layout::UNIT_WANTED).is_symlink();
    let restart = ran.then(|| Step::only_undo("systemctl restart flatnet.service"));
    // The last is undone first.
    restart.into_iter().chain([Step::only_undo("systemctl daemon-reload")]).collect()
}

/// The steps, and where files are among them that a program which runs has read, it reads them anew after them, or once they are undone.
/// Connections go on meanwhile.
pub(in crate::cli) fn with_readers(steps: Vec<Step>) -> Vec<Step> {
    READERS.iter().fold(steps, |steps, reader| reader.around(steps))
}

impl Reader {
    fn around(&self, steps: Vec<Step>) -> Vec<Step> {
        let is_read = |step: &Step| matches!(step, Step::File { path, .. } if self.files.iter().any(|file| Path::new(file) == path));
        if !steps.iter().any(is_read) || !self.runs() {
            return steps;
        }
        let reload = Step::run("reload", self.name, self.reload, None);
        // What comes first is undone last.
        iter::once(Step::only_undo(self.reload)).chain(steps).chain([reload]).collect()
    }

    fn runs(&self) -> bool {
        let (program, arguments) = self.state;
        matches!(probe::run_within(deadline::INSTALL, program, arguments), Ran::Well(text) if text.contains(self.running))
    }
}

/// systemd forgets a file that is gone.
pub(in crate::cli) fn reload() -> Step {
    Step::run("reload", "systemd", "systemctl daemon-reload", Some("systemctl daemon-reload"))
}

/// Podman forgets the network that was made on our word, unless somebody has had it forget it before. Without Podman its file is all
/// that there is of it.
pub(in crate::cli) fn network(record: &Record) -> Result<Option<Step>> {
    let network = &record.network;
    let name = &network.name;
    let list = ["network", "ls", "--format", "{{.Name}} {{.Driver}}"];
    match probe::run_within(deadline::INSTALL, "podman", &list) {
        Ran::Well(networks) if networks.lines().any(|it| it.trim() == format!("{name} flatnet")) => {
            let (remove, make) = (format!("podman network rm {name}"), create_network(network));
            Ok(Some(Step::run("remove", &format!("network {name}"), &remove, Some(&make))))
        }
        Ran::Well(_) => Ok(None),
        Ran::Badly(why) => bail!("failed to ask Podman for its networks: `podman network ls` {why}"),
        Ran::Missing => remove(&Path::new(layout::NETAVARK_NETWORKS).join(format!("{name}.json"))),
    }
}

/// The command that makes the network. The gateways have their subnets' first addresses, as in a configuration that does not name any.
pub(super) fn create_network(network: &Network) -> String {
    let Network { name, bridge, .. } = network;
    let subnet = |subnet: &IpNetwork| {
        let gateway = subnet.iter().nth(1).unwrap_or(subnet.ip());
        format!("--subnet {subnet} --gateway {gateway}")
    };
    let subnets = network.subnets.iter().map(subnet);
    let options = options(network).map(|option| format!("--opt {option}"));
    let create = iter::once("podman network create --driver flatnet".to_owned());
    let words = create.chain(subnets).chain([format!("--interface-name {bridge}")]).chain(options);
    words.chain([name.clone()]).collect::<Vec<_>>().join(" ")
}

/// What of the network is an option for Podman, in the order of the keys.
pub(super) fn options(network: &Network) -> impl Iterator<Item = String> {
    let gateways = (!network.gateways.is_empty()).then(|| format!("gateways={}", network.gateways()));
    let masquerade = (!network.masquerade).then(|| "ipmasq=false".to_owned());
    let macspoofchk = network.macspoofchk.then(|| "macspoofchk=true".to_owned());
    gateways.into_iter().chain(masquerade).chain(macspoofchk)
}

/// The record itself, and what it kept, once nothing refers to them any more.
pub(in crate::cli) fn record(record: &Record) -> Result<Vec<Step>> {
    let kept = record.files.iter().filter_map(|file| file.before.as_ref()?.kept.clone());
    let mut steps = Vec::new();
    for path in kept.chain([Path::new(layout::RECORD).to_owned()]) {
        steps.extend(remove(&path)?);
    }
    Ok(steps)
}
