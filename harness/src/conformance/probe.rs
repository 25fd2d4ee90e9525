//! A first look at a plugin: what it speaks, gives, asks for and keeps.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; nothing that it does is judged, and a plugin that breaks the protocol
//! counts as one that has everything, so that the rules are tried and say what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::rule::Trait;
use super::{Ipam, ROOM, Traits};
use crate::inventory::Inventory;
use crate::lab::{FOLDER, View};
use crate::plugin::{Answer, Call, PATIENCE, Plugins, environment};
use crate::scenario::{Network, Setting};
use crate::stand_in::{self, Asked, StandIn};
use crate::suite;
use crate::verb::{first_address, some_address};
use crate::world::{World, own_binary};

/// How long the whole look may take.
const LONGEST: Duration = Duration::from_mins(2);

/// The host of a bare world.
const HOST: &str = "host";

/// The stand-in that shows whether anybody asks for it.
const STAND_IN: &str = "probe-ipam";

/// What a child process is to look at.
#[derive(Clone, Debug, Args)]
pub struct Order {
    /// The folder of the plugins.
    #[arg(long)]
    pub plugin_dir: PathBuf,
    /// The configuration.
    #[arg(long)]
    pub network: String,
}

impl Order {
    /// Looks, in this process's world; gives what there is to see as one line of JSON.
    pub fn inside(&self) -> Result<String> {
        let network: Network = serde_json::from_str(&self.network).context("read a network")?;
        let traits = Probe::new(network, Plugins::only(&self.plugin_dir)?)?.look()?;
        serde_json::to_string(&traits).context("write what a plugin has")
    }
}

/// Has a child process look, in a world of its own.
pub fn look(network: &Network, plugin_dir: &Path) -> Result<Traits> {
    let mut command = Command::new(own_binary());
    command.arg("__probe").arg("--plugin-dir").arg(plugin_dir).args(["--network", &network.to_json()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start a world")?;
    let told = suite::first_line(&mut child, LONGEST).and_then(|line| serde_json::from_str(&line).ok());
    let Some(traits) = told else {
        let (_, why) = suite::why_broken(child);
        bail!("try {}: {why}", network.kind());
    };
    // Its end closes the world; it has said all that it had to say.
    drop(child.stdin.take());
    drop(child.wait());
    Ok(traits)
}

/// A container by its name, and the answer to its ADD.
type Held = (String, Result<Answer, String>);

struct Probe {
    world: World,
    network: Network,
    containers: usize,
}

impl Probe {
    fn new(network: Network, plugins: Plugins) -> Result<Self> {
        let world = World::build(Arc::new(Setting::bare(network.clone())), plugins)?;
        Ok(Self { world, network, containers: 0 })
    }

    fn look(mut self) -> Result<Traits> {
        let versions = self.versions()?;
        let before = self.world.inventory(HOST)?;
        let network = self.network.clone();
        let result = match self.come_and_go(&network)? {
            Ok(Answer::Done(Some(result))) => result,
            Ok(Answer::Refused(refusal)) => {
                let (kind, code) = (network.kind(), refusal.code);
                bail!("attach a container: {kind} refuses with error {code}: {} {}", refusal.msg, refusal.details)
            }
            Ok(Answer::Done(None)) | Err(_) => {
                return Ok(Traits { versions, is: Trait::ALL.to_vec(), ..Traits::default() });
            }
        };
        let address = first_address(&result).and_then(|address| address.parse().ok());
        let first = self.kept_since(&before)?;
        drop(self.come_and_go(&network)?);
        // What grows with every container is nothing that belongs there.
        let grows = !self.kept_since(&before)?.is_subset(&first);
        let furniture = if grows { Vec::new() } else { first.into_iter().collect() };
        let shown = [
            (Trait::Addresses, address.is_some()),
            (Trait::Routes, has(&result, "routes")),
            (Trait::HostLinks, self.lists_what_goes(&result)?),
            (Trait::Delegation, self.delegates(address)?),
            (Trait::Independence, self.is_independent()?),
        ];
        let is: Vec<_> = shown.into_iter().filter(|(_, shown)| *shown).map(|(what, _)| what).collect();
        let ipam = if is.contains(&Trait::Delegation) { self.ipam() } else { None };
        let room = if address.is_some() && self.network.room().is_none() { self.room()? } else { None };
        Ok(Traits { versions, ipam, room, is, address, furniture })
    }

    /// Whether a result lists a link of the host's that has gone with its container.
    fn lists_what_goes(&self, result: &Value) -> Result<bool> {
        let host = View::of(&self.world.lab.host(HOST)?.namespace)?;
        let interfaces = result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
        let text =
            |interface: &'_ Value, key| interface.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut of_host = interfaces.filter(|it| text(it, "sandbox").is_empty()).map(|it| text(it, "name"));
        Ok(of_host.any(|name| host.link(&name).is_none()))
    }

    /// What there is more than `before`, as patterns.
    fn kept_since(&self, before: &Inventory) -> Result<BTreeSet<String>> {
        let now = self.world.inventory(HOST)?;
        Ok(before.differences(&now, &[]).filter_map(|line| pattern(&line, self.network.name())).collect())
    }

    fn versions(&mut self) -> Result<Vec<String>> {
        let stdin = json!({ "cniVersion": self.network.version() }).to_string();
        let Ok(Answer::Done(Some(answer))) = self.call("VERSION", "dummy", stdin)? else { return Ok(Vec::new()) };
        let versions = answer.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
        Ok(versions.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Whether a plugin that only it can have asked was asked.
    fn delegates(&mut self, address: Option<IpNetwork>) -> Result<bool> {
        let stand_in = StandIn {
            name: STAND_IN.to_owned(),
            version: self.network.version().to_owned(),
            addresses: some_address(address.or_else(|| self.network.subnets().first().copied())).into_iter().collect(),
            routes: Vec::new(),
            refuses: BTreeMap::new(),
        };
        stand_in.write()?;
        self.world.plugins.prefer(Path::new(stand_in::FOLDER));
        let mut network = self.network.clone();
        network.set("ipam.type", STAND_IN.into());
        drop(self.come_and_go(&network)?);
        Ok(Asked::take(STAND_IN)?.commands.contains(&"ADD".to_owned()))
    }

    /// The plugin that the network names for its addresses; one that does not tell its versions sets no bounds to the rules.
    fn ipam(&self) -> Option<Ipam> {
        let kind = self.network.ipam_kind()?;
        let versions = self.world.plugins.versions(kind, self.network.version()).ok()?;
        Some(Ipam { kind: kind.to_owned(), versions })
    }

    /// How many containers the network holds at once, if those are fewer than the rules have.
    fn room(&mut self) -> Result<Option<usize>> {
        let mut held = Vec::new();
        while held.len() < ROOM && self.holds_one_more(&mut held)? {}
        let room = held.len();
        let full = room < ROOM && self.is_full(&mut held)?;
        let network = self.network.clone();
        held.into_iter().try_for_each(|(container, answer)| self.go(&container, &network, &answer))?;
        Ok(full.then_some(room))
    }

    /// Whether it is for want of room that no more than those that are `held` could come: where one goes, one more can come, and only one.
    /// Else the plugin refuses for some other reason, or keeps what it should have freed, and that is its own fault.
    fn is_full(&mut self, held: &mut Vec<Held>) -> Result<bool> {
        let Some((container, answer)) = held.pop() else { return Ok(false) };
        let network = self.network.clone();
        self.go(&container, &network, &answer)?;
        Ok(self.holds_one_more(held)? && !self.holds_one_more(held)?)
    }

    /// Whether another container can come; then it stays.
    fn holds_one_more(&mut self, held: &mut Vec<Held>) -> Result<bool> {
        let network = self.network.clone();
        let (container, answer) = self.come(&network)?;
        let came = matches!(answer, Ok(Answer::Done(_)));
        if came {
            held.push((container, answer));
        } else {
            self.go(&container, &network, &answer)?;
        }
        Ok(came)
    }

    fn is_independent(&mut self) -> Result<bool> {
        let mut network = self.network.clone();
        network.set_alone();
        Ok(matches!(self.come_and_go(&network)?, Ok(Answer::Done(_))))
    }

    /// A container's ADD and DEL; gives the answer to ADD, or which rule it breaks.
    fn come_and_go(&mut self, network: &Network) -> Result<Result<Answer, String>> {
        let (container, answer) = self.come(network)?;
        self.go(&container, network, &answer)?;
        Ok(answer)
    }

    /// ADD of another container.
    fn come(&mut self, network: &Network) -> Result<Held> {
        self.containers += 1;
        let container = format!("probe-{}", self.containers);
        self.world.lab.container(&container)?;
        let answer = self.call("ADD", &container, network.to_json())?;
        Ok((container, answer))
    }

    /// DEL, after that answer to ADD; then the container ends.
    fn go(&mut self, container: &str, network: &Network, answer: &Result<Answer, String>) -> Result<()> {
        let mut network = network.clone();
        if let Ok(Answer::Done(Some(result))) = answer {
            network.set("prevResult", result.clone());
        }
        drop(self.call("DEL", container, network.to_json())?);
        self.world.lab.crash(container)
    }

    fn call(&self, command: &str, container: &str, stdin: String) -> Result<Result<Answer, String>> {
        let netns = Path::new(FOLDER).join(container);
        let call = Call {
            binary: self.world.plugins.find(self.network.kind())?,
            command: command.to_owned(),
            env: environment(command, container, Some(&netns), "eth0", None, &self.world.plugins.path()),
            stdin,
            patience: PATIENCE,
        };
        let finished = call.run(&self.world.lab.host(HOST)?.namespace)?;
        Ok(call.read(&finished).map_err(|broken| broken.text))
    }
}

fn has(result: &Value, list: &str) -> bool {
    result.get(list).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// A line that is new, as a pattern that does not mind the network's name, or the MAC and MTU of a link.
fn pattern(line: &str, network: &str) -> Option<String> {
    let line = line.strip_prefix("+ ")?;
    let words: Vec<&str> = line.split(' ').collect();
    let after = |at: usize| at.checked_sub(1).and_then(|before| words.get(before)).copied().unwrap_or_default();
    let word = |(at, word): (usize, &&str)| match after(at) {
        "mac" | "mtu" if words.first() == Some(&"link") => "*".to_owned(),
        _ => word.split('/').map(|part| if part == network { "*" } else { part }).collect::<Vec<_>>().join("/"),
    };
    Some(words.iter().enumerate().map(word).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::pattern;
    use rstest::rstest;

    #[rstest]
    #[case("+ link cni0 (bridge) up mtu 1500 mac 02:00:00:00:00:01", Some("link cni0 (bridge) up mtu * mac *"))]
    #[case("+ file /var/lib/cni/networks/web/lock", Some("file /var/lib/cni/networks/*/lock"))]
    #[case("+ address 10.1.0.1/24 on cni0", Some("address 10.1.0.1/24 on cni0"))]
    #[case("- route default dev eth0", None)]
    fn what_stays_is_a_pattern(#[case] line: &str, #[case] expected: Option<&str>) {
        assert_eq!(pattern(line, "web").as_deref(), expected);
    }
}
