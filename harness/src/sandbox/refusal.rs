//! Why the kernel refuses a user namespace, and what would help.
//!
//! Invariant: one error, which names the setting in the way as it is on this machine, and the command that changes it.

use std::fs;
use std::io;

use anyhow::{Error, anyhow};

/// A kernel setting, the value with which it forbids user namespaces, and one that allows them.
struct Gate {
    file: &'static str,
    forbids: &'static str,
    remedy: &'static str,
    what: &'static str,
}

const GATES: [Gate; 3] = [
    Gate {
        file: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        remedy: "kernel.apparmor_restrict_unprivileged_userns=0",
        what: "AppArmor takes every right from an ordinary user's namespace",
    },
    Gate {
        file: "/proc/sys/kernel/unprivileged_userns_clone",
        forbids: "0",
        remedy: "kernel.unprivileged_userns_clone=1",
        what: "only root may make a user namespace",
    },
    Gate {
        file: "/proc/sys/user/max_user_namespaces",
        forbids: "0",
        remedy: "user.max_user_namespaces=10000",
        what: "no user namespace may be made at all",
    },
];

/// Explains a refused namespace or identity map.
pub(super) fn explain(err: &io::Error) -> Error {
    describe(&err.to_string(), |file| fs::read_to_string(file).ok())
}

/// Explains a mount that was refused inside a user namespace: where `AppArmor` is the reason, the namespace itself was granted.
pub(super) fn explain_mounts(err: Error) -> Error {
    let denied = err
        .downcast_ref::<nix::errno::Errno>()
        .is_some_and(|errno| matches!(errno, nix::errno::Errno::EACCES | nix::errno::Errno::EPERM));
    if denied { explain_denied(&err) } else { err }
}

fn explain_denied(err: &Error) -> Error {
    describe(&format!("{err:#}"), |file| fs::read_to_string(file).ok())
}

/// `read` gives a setting's text, `None` where this kernel does not have it.
fn describe(cause: &str, read: impl Fn(&str) -> Option<String>) -> Error {
    let gate = GATES.iter().find(|gate| read(gate.file).is_some_and(|value| value.trim() == gate.forbids));
    match gate {
        Some(Gate { remedy, what, .. }) => {
            let (setting, _) = remedy.split_once('=').unwrap_or((remedy, ""));
            anyhow!(
                "make a user namespace: {what} ({setting}): {cause}; allow it with `sudo sysctl -w {remedy}`, or run this with sudo"
            )
        }
        None => anyhow!(
            "make a user namespace: {cause}; no known setting forbids it, so a container or security module may: run this with sudo, or outside of it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case(
        "apparmor_restrict_unprivileged_userns",
        "1\n",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )]
    #[case("unprivileged_userns_clone", "0\n", "sudo sysctl -w kernel.unprivileged_userns_clone=1")]
    #[case("max_user_namespaces", "0\n", "sudo sysctl -w user.max_user_namespaces=10000")]
    #[case("max_user_namespaces", "96365\n", "no known setting forbids it")]
    fn the_setting_in_the_way_is_named(#[case] setting: &str, #[case] value: &str, #[case] expected: &str) {
        let err = super::describe("operation not permitted", |file| file.ends_with(setting).then(|| value.to_owned()));
        assert!(err.to_string().contains(expected), "{err}");
    }
}
