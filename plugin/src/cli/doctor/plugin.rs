//! The installed files: the binary where runtimes look for it, the plugins that it is chained with, and the service.
//!
//! The installed binary is asked what it is; its name alone says nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::finding::{BINARY, CHAINED_PLUGINS, Finding, PLUGIN_FOLDERS, SERVICE};
use super::networks::Configured;
use crate::cli::podman::Backend;
use crate::cli::probe::{self, Ran};
use crate::layout;

const INSTALL: &str = "run `flatnet install`";

pub(super) fn check(backend: Backend, folders: &[PathBuf], networks: &[Configured]) -> Vec<Finding> {
    let path = match backend {
        Backend::Cni => layout::BINARY,
        Backend::Netavark => layout::NETAVARK_DRIVER,
    };
    vec![binary(path), plugin_folders(path, folders), chained(backend, folders, networks), service()]
}

fn binary(path: &str) -> Finding {
    let Ok(metadata) = fs::metadata(path) else { return BINARY.bad(format!("no {path}"), INSTALL) };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return BINARY.bad(format!("{path} is not an executable file"), INSTALL);
    }
    let own = concat!("flatnet ", env!("CARGO_PKG_VERSION"));
    match probe::run(path, &["--version"]) {
        Ran::Well(text) if text.trim() == own => BINARY.ok(format!("{path}, {own}")),
        Ran::Well(text) if text.starts_with("flatnet ") => BINARY.warning(
            format!("{path} is {}, and this is {own}", text.trim()),
            "run `flatnet install` of the version that is to stay",
        ),
        Ran::Well(_) => BINARY.bad(format!("{path} is another program"), INSTALL),
        Ran::Missing => BINARY.bad(format!("{path} cannot be run: its loader is missing"), INSTALL),
        Ran::Badly(why) => BINARY.bad(format!("{path} {why}"), INSTALL),
    }
}

fn plugin_folders(path: &str, folders: &[PathBuf]) -> Finding {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    // The first file of that name is the one that runs.
    let first = folders.iter().map(|folder| folder.join("flatnet")).find(|file| file.exists());
    match first {
        _ if !folders.iter().any(|it| it == folder) => PLUGIN_FOLDERS.bad(
            format!("Podman looks in {}", list(folders)),
            format!(
                "add {path:?} to cni_plugin_dirs (Podman 5: netavark_plugin_dirs) of containers.conf, under [network]",
                path = folder.to_string_lossy()
            ),
        ),
        Some(file) if file.canonicalize().ok() != Path::new(path).canonicalize().ok() => PLUGIN_FOLDERS
            .bad(format!("{} comes before {path}", file.display()), format!("remove it: `rm {}`", file.display())),
        _ => PLUGIN_FOLDERS.ok(folder.display().to_string()),
    }
}

fn chained(backend: Backend, folders: &[PathBuf], networks: &[Configured]) -> Finding {
    if backend == Backend::Netavark {
        // Its drivers are not chained, and flatnet publishes ports itself.
        return CHAINED_PLUGINS.ok("none is needed");
    }
    let wanted: Vec<_> = networks.iter().flat_map(|it| &it.plugins).filter(|it| *it != "flatnet").collect();
    let there = |plugin: &str| folders.iter().any(|folder| folder.join(plugin).is_file());
    match wanted.iter().find(|plugin| !there(plugin)) {
        Some(missing) => CHAINED_PLUGINS.bad(
            format!("{missing} is in none of {}", list(folders)),
            format!(
                "install it (`apt install containernetworking-plugins` has the reference plugins), or take {missing:?} out of the network's .conflist"
            ),
        ),
        None if wanted.is_empty() => CHAINED_PLUGINS.ok("none are needed (portmap would serve `podman run -p`)"),
        None => CHAINED_PLUGINS.ok(wanted.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

fn list(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn service() -> Finding {
    if !probe::has_systemd() {
        return SERVICE.skipped("systemd does not run here: start `flatnet gateway` at boot by other means");
    }
    // Both say one word, and exit with something else than 0 where it is not the best one.
    let asked = probe::run("systemctl", &["show", "flatnet.service", "--property=LoadState,ActiveState,UnitFileState"]);
    match asked {
        Ran::Well(text) => judge_service(&text),
        Ran::Missing => SERVICE.skipped("there is no systemctl to ask"),
        Ran::Badly(why) => SERVICE.skipped(format!("systemctl {why}")),
    }
}

/// `systemctl show` gives one `Key=value` a line.
fn judge_service(text: &str) -> Finding {
    let value =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("unknown");
    let (load, active, enabled) = (value("LoadState"), value("ActiveState"), value("UnitFileState"));
    match (load, active, enabled) {
        ("not-found", ..) => SERVICE.bad("not installed", INSTALL),
        ("masked", ..) => SERVICE.bad("masked", "run `systemctl unmask flatnet.service`, then `flatnet install`"),
        (_, "active", "enabled" | "enabled-runtime") => SERVICE.ok("active and enabled"),
        (_, "active", _) => SERVICE.warning(
            format!("active, but {enabled}"),
            "run `systemctl enable flatnet.service`, or it is gone after a boot",
        ),
        _ => SERVICE.bad(
            format!("{active}, {enabled}"),
            "run `systemctl enable --now flatnet.service`; why it stopped: `journalctl -u flatnet.service`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::finding::State;
    use super::*;

    #[rstest]
    #[case::good("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", State::Ok, "")]
    #[case::not_enabled(
        "LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n",
        State::Warning,
        "enable flatnet"
    )]
    #[case::failed("LoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n", State::Bad, "journalctl")]
    #[case::not_there("LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", State::Bad, "flatnet install")]
    #[case::masked("LoadState=masked\nActiveState=inactive\nUnitFileState=masked\n", State::Bad, "unmask")]
    fn services(#[case] text: &str, #[case] state: State, #[case] remedy: &str) {
        let finding = judge_service(text);
        assert_eq!(finding.state, state);
        assert!(finding.remedy.unwrap_or_default().contains(remedy));
    }

    #[test]
    fn a_folder_that_podman_does_not_look_in_is_bad() {
        let finding = plugin_folders("/opt/cni/bin/flatnet", &["/usr/lib/cni".into()]);
        assert_eq!(finding.state, State::Bad);
        assert!(finding.remedy.expect("a remedy").contains("/opt/cni/bin"));
    }
}
