//! Podman: whether it is there and runs, and by what it makes networks.
//!
//! What Podman does is asked of Podman; its configuration files are read only to name the one that is in the way.

use std::path::Path;

use super::finding::{Finding, PODMAN, PODMAN_BACKEND};
use crate::cli::podman::{self, Backend, Settings};
use crate::cli::probe::{self, Host, Ran};
use crate::layout;

/// What is known of Podman.
#[derive(Debug)]
pub(super) struct Podman {
    /// Nothing where there is no Podman that tells its version.
    pub(super) major: Option<u32>,
    /// What it says it has; nothing where it could not be asked.
    pub(super) backend: Option<String>,
    pub(super) settings: Settings,
    findings: Vec<Finding>,
}

impl Podman {
    pub(super) fn look(host: &Host) -> Self {
        let settings = Settings::read();
        let mut podman = Self { major: None, backend: None, settings, findings: Vec::new() };
        let found = podman.version(host);
        podman.findings.push(found);
        podman
    }

    /// Its own lines; `used` is the backend that the networks here are made for.
    pub(super) fn check(&self, used: Backend) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.push(self.judge_backend(used));
        findings
    }

    fn version(&mut self, host: &Host) -> Finding {
        let text = match probe::run("podman", &["--version"]) {
            Ran::Well(text) => text,
            Ran::Missing => return PODMAN.bad("not installed", "install Podman, such as `apt install podman`"),
            Ran::Badly(why) => return PODMAN.bad(format!("`podman --version` {why}"), "reinstall Podman"),
        };
        let version = text.split_whitespace().last().unwrap_or_default().to_owned();
        self.major = podman::major(&text);
        match self.major {
            None => return PODMAN.bad(format!("`podman --version` said {text:?}"), "reinstall Podman"),
            Some(..4) => {
                return PODMAN
                    .bad(version, "install Podman 4 or 5 (Debian 12 and Ubuntu 24.04 have 4, Debian 13 has 5)");
            }
            Some(_) => {}
        }
        if !host.root {
            return PODMAN.ok(format!("{version} (not root: root's Podman was not asked more)"));
        }
        match probe::run("podman", &["info", "--format", "{{.Host.NetworkBackend}}"]) {
            Ran::Well(backend) => {
                self.backend = Some(backend.trim().to_owned());
                PODMAN.ok(version)
            }
            Ran::Missing => PODMAN.bad("gone a moment after it was there", "look again"),
            Ran::Badly(why) => PODMAN.bad(
                format!("{version}, but `podman info` {why}"),
                "fix what `podman info` reports, as root; if it hangs, another Podman may hold its lock",
            ),
        }
    }

    fn judge_backend(&self, used: Backend) -> Finding {
        let (Some(major), Some(backend)) = (self.major, &self.backend) else {
            return PODMAN_BACKEND.skipped("Podman did not tell it");
        };
        let where_set = self.settings.origin("network_backend");
        let origin = where_set.map(|file| format!(", set in {}", file.display())).unwrap_or_default();
        let found = format!("{backend}{origin}");
        match (backend.as_str(), used) {
            ("cni", Backend::Cni) | ("netavark", Backend::Netavark) => PODMAN_BACKEND.ok(found),
            (_, Backend::Netavark) => PODMAN_BACKEND.bad(
                found,
                format!("Podman {major} needs netavark here: take `network_backend` out of containers.conf"),
            ),
            (_, Backend::Cni) => PODMAN_BACKEND.bad(found, self.cni_remedy()),
        }
    }

    fn cni_remedy(&self) -> String {
        match self.settings.origin("network_backend") {
            Some(file) if self.settings.only => format!(
                "CONTAINERS_CONF makes Podman read {0} and no other: set network_backend = \"cni\" there, under [network]",
                file.display()
            ),
            Some(file) => format!(
                "{} wins: set network_backend = \"cni\" there, under [network], or remove the line and run `flatnet install`",
                file.display()
            ),
            None if Path::new(layout::PODMAN_DROP_IN).exists() => format!(
                "{} does not set it: run `flatnet install`, which says what the change means for containers that exist",
                layout::PODMAN_DROP_IN
            ),
            None => "run `flatnet install`, which says what the change means for containers that exist".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn podman(backend: &str, files: &[(&str, &str)]) -> Podman {
        let settings = Settings::of(files);
        Podman { major: Some(4), backend: Some(backend.into()), settings, findings: Vec::new() }
    }

    #[test]
    fn the_last_file_wins_and_is_named() {
        let files = [
            ("/etc/containers/containers.conf.d/50-flatnet.conf", "[network]\nnetwork_backend = \"cni\"\n"),
            ("/etc/containers/containers.conf.d/99-mine.conf", "[engine]\n[network]\nnetwork_backend = \"netavark\"\n"),
        ];
        let finding = podman("netavark", &files).judge_backend(Backend::Cni);
        assert_eq!(finding.state, super::super::finding::State::Bad);
        assert!(finding.remedy.expect("a remedy").contains("99-mine.conf wins"), "{}", finding.found);
    }

    #[test]
    fn nothing_set_is_mended_by_install() {
        let finding = podman("netavark", &[]).judge_backend(Backend::Cni);
        assert!(finding.remedy.expect("a remedy").contains("flatnet install"));
    }

    #[test]
    fn folders_are_podmans_own_unless_set() {
        let set = [("x.conf", "[network]\ncni_plugin_dirs = [\"/a\", \"/b\"]\nnetwork_config_dir = \"/c\"\n")];
        assert_eq!(
            podman("cni", &set).settings.plugin_folders(Backend::Cni),
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
        assert_eq!(podman("cni", &set).settings.network_folder(), Some(PathBuf::from("/c")));
        let folders = podman("cni", &[]).settings.plugin_folders(Backend::Cni);
        assert!(folders.contains(&Path::new(layout::BINARY).parent().expect("a folder").to_owned()));
        let folders = podman("netavark", &[]).settings.plugin_folders(Backend::Netavark);
        assert!(folders.contains(&Path::new(layout::NETAVARK_DRIVER).parent().expect("a folder").to_owned()));
    }
}
