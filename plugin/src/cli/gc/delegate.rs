//! The plugin that gave an attachment its address, where that was not flatnet: it keeps an account, and must be told.
//!
//! It is called as a runtime calls it for DEL, with the network's configuration as it is now.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::attachment::Attachment;
use crate::cli::gateway::networks::of_cni;
use crate::cli::podman::{Backend, Settings};
use crate::cli::probe;
use crate::delegate::Delegate;
use crate::error::{Error, Result};
use crate::ipam::lease;
use crate::spec::Command;
use crate::{call, config, layout};

/// The networks whose addresses other plugins give.
pub(super) struct Delegates {
    networks: Vec<Network>,
    /// Where plugins are.
    folders: Vec<PathBuf>,
}

struct Network {
    name: String,
    plugin: String,
    /// What a runtime sends.
    config: String,
}

impl Delegates {
    /// Those of Podman's configuration. A file that cannot be read is none of them.
    pub(super) fn read() -> Self {
        let settings = Settings::read();
        let folder = settings.network_folder().unwrap_or_else(|| layout::CNI_NETWORKS.into());
        let texts = probe::files(&folder, "conflist").into_iter().filter_map(|file| fs::read_to_string(file).ok());
        let networks = texts.filter_map(|text| Network::of(&text)).collect();
        Self { networks, folders: settings.plugin_folders(Backend::Cni) }
    }

    /// Has the plugin take back what it gave to the attachment, which is gone. Errors: its own; 4, 11 and 110.
    pub(super) async fn take_back(&self, attachment: &Attachment) -> Result<()> {
        let is_its = |network: &&Network| lease::is_of_network(&attachment.link, &network.name);
        let Some(network) = self.networks.iter().find(is_its) else { return Ok(()) };
        let (Some(container), Some(interface)) = (&attachment.container, &attachment.interface) else { return Ok(()) };
        let path = env::join_paths(&self.folders).map_err(|e| Error::Environment {
            problems: vec![("CNI_PATH", format!("cannot hold the folders of plugins: {e}"))],
        })?;
        let delegate =
            Delegate::find(&network.plugin, &self.folders, Command::Del, &network.config)?.with_environment(vec![
                ("CNI_CONTAINERID", container.into()),
                ("CNI_IFNAME", interface.into()),
                ("CNI_PATH", path),
                ("CNI_NETNS", OsString::new()),
            ]);
        call::within_deadline(delegate.run(Command::Del)).await
    }
}

impl Network {
    fn of(text: &str) -> Option<Self> {
        let list: Value = serde_json::from_str(text).ok()?;
        let mut config = of_cni(&list)?;
        config.insert("cniVersion".into(), list.get("cniVersion")?.clone());
        Some(Self {
            name: config::name_of(&config).ok()?,
            plugin: config::delegate_of(&config)?.to_owned(),
            config: Value::Object(config).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_another_ipam_plugin_is_found() {
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "flatnet", "ipam": {"type": "host-local", "x": 1}}, {"type": "portmap"}]}"#;
        let network = Network::of(list).expect("a network");
        assert_eq!((network.name.as_str(), network.plugin.as_str()), ("n", "host-local"));
        let config = r#"{"type":"flatnet","ipam":{"type":"host-local","x":1},"name":"n","cniVersion":"1.0.0"}"#;
        assert_eq!(network.config, config);
    }

    #[test]
    fn what_is_flatnets_own_is_not() {
        assert!(Network::of(include_str!("../../../dist/flatnet.conflist")).is_none());
        assert!(Network::of("{").is_none());
    }
}
