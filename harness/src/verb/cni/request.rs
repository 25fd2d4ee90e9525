//! What goes into a call: environment and configuration, as libcni sends them, with the changes of a step.
//!
//! Invariant: what a step does not say is what a runtime would say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};

use super::{Cni, Prev, Variable, before, chain};
use crate::lab::FOLDER;
use crate::plugin::{Call, PATIENCE, environment};
use crate::process::Finished;
use crate::scenario::Network;
use crate::verb::Failure;
use crate::world::{Attachment, World};

/// One call, ready to be made, and whom it is about.
#[derive(Clone)]
pub(in crate::verb) struct Prepared {
    pub(in crate::verb) call: Call,
    pub(in crate::verb) container: String,
    pub(in crate::verb) attachment: Attachment,
    pub(in crate::verb) network: Network,
    /// What the runtime is asked for.
    pub(in crate::verb) wishes: Map<String, Value>,
}

impl Cni {
    /// One call of `command` with the options of this step.
    pub(in crate::verb) fn prepare(
        &self,
        world: &mut World,
        command: &str,
        container: String,
    ) -> Result<Prepared, Failure> {
        let options = &self.options;
        let ifname = options.ifname.clone().unwrap_or_else(|| "eth0".to_owned());
        let id = options.id.clone().unwrap_or_else(|| container.clone());
        // DEL comes for containers that are gone, too.
        if options.netns.is_none() && matches!(command, "ADD" | "CHECK") {
            world.lab.container(&container)?;
        }
        let own = || (!container.is_empty()).then(|| Path::new(FOLDER).join(&container));
        let netns = options.netns.as_ref().map(PathBuf::from).or_else(own);
        let path = world.plugins.path();
        let env = self.environment(command, &id, netns.as_deref(), &ifname, &path);
        let network = world.network(self.network_name())?.name().to_owned();
        let attachment = Attachment { container: id, ifname, network };
        let wishes = self.wishes(world, &attachment)?;
        let network = self.network(world, command, &attachment, &wishes)?;
        let stdin = match (&options.stdin, &options.stdin_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
            (None, None) => network.to_json(),
        };
        let binary = world.plugins.find(network.kind())?;
        let patience = options.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let call = Call { binary, command: command.to_owned(), env, stdin, patience };
        Ok(Prepared { call, container, attachment, network, wishes })
    }

    /// What a runtime would say, with the changes of this step.
    pub(super) fn environment(
        &self,
        command: &str,
        id: &str,
        netns: Option<&Path>,
        ifname: &str,
        path: &str,
    ) -> BTreeMap<String, String> {
        let mut env = environment(command, id, netns, ifname, self.options.args.as_deref(), path);
        for (name, variable) in &self.options.env {
            match variable {
                Variable::Text(value) => drop(env.insert(name.clone(), value.clone())),
                Variable::Kept(true) => {}
                Variable::Kept(false) => drop(env.remove(name)),
            }
        }
        env
    }

    /// The configuration with the changes of this step, and with the result of ADD where a runtime would send it.
    fn network(
        &self,
        world: &World,
        command: &str,
        attachment: &Attachment,
        wishes: &Map<String, Value>,
    ) -> Result<Network, Failure> {
        let mut network = world.network(self.network_name())?.clone();
        network.ask(wishes);
        let before = chain::result_before(world, command, attachment);
        let before = match (&self.options.prev, before) {
            (Some(Prev::Word(before::Word::AsSeen)), Some(before)) => Some(before::as_seen(world, attachment, before)?),
            (_, before) => before,
        };
        self.changed(network, before)
    }

    /// What the runtime is asked for: by this step, else by the ADD before it.
    fn wishes(&self, world: &World, attachment: &Attachment) -> Result<Map<String, Value>, Failure> {
        let before = || world.attached.get(attachment).map(|attached| attached.wishes.clone()).unwrap_or_default();
        let said = self.options.runtime.as_ref().map(serde_json::to_value).transpose().context("say that in JSON")?;
        Ok(said.map_or_else(before, |said| said.as_object().cloned().unwrap_or_default()))
    }

    pub(super) fn changed(&self, mut network: Network, before: Option<Value>) -> Result<Network, Failure> {
        let options = &self.options;
        // Even a wrong `type` must not keep the step from reaching the plugin under test.
        let json = |value: &toml::Value| serde_json::to_value(value).context("say that in JSON");
        for (path, value) in &options.set {
            network.set(path, json(value)?);
        }
        if options.alone {
            network.set_alone();
        }
        match (&options.prev, before) {
            (Some(Prev::Kept(false)), _) | (None | Some(Prev::Kept(true) | Prev::Word(_)), None) => {}
            (Some(Prev::Changed(changes)), before) => {
                network.set("prevResult", before.unwrap_or_default());
                for (path, value) in changes {
                    network.set(&format!("prevResult.{path}"), json(value)?);
                }
            }
            (None | Some(Prev::Kept(true) | Prev::Word(_)), Some(before)) => network.set("prevResult", before),
        }
        options.unset.iter().for_each(|path| network.unset(path));
        Ok(network)
    }
}

/// All that went in and came out.
pub(in crate::verb) fn with_evidence(failure: Failure, prepared: &Prepared, finished: &Finished) -> Failure {
    let env: Vec<String> = prepared.call.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    failure
        .with("plugin", format!("{} ended with {}", prepared.call.binary.display(), finished.status_text()))
        .with("environment", env.join("\n"))
        .with("stdin", prepared.call.stdin.as_str())
        .with("stdout", finished.stdout.trim_end())
        .with("stderr", finished.stderr.trim_end())
}
