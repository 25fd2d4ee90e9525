//! What the reader of a plan should know beside it: what will not work yet, and what to do next.

use std::path::Path;

use super::plan::Plan;
use super::wanted::Wanted;
use crate::cli::podman::Backend;
use crate::layout;

pub(super) fn warn(wanted: &Wanted, plan: &mut Plan) {
    let mut warn = |text: String| plan.warnings.push(text);
    let binary = Path::new(wanted.backend.binary());
    let folders = wanted.settings.plugin_folders(wanted.backend);
    if !folders.iter().any(|folder| Some(folder.as_path()) == binary.parent()) {
        warn(format!(
            "Podman does not look for plugins where {} is: `flatnet doctor` says what to set",
            binary.display()
        ));
    }
    match wanted.backend {
        Backend::Cni => {
            if let Some(file) = wanted.overruled_by() {
                warn(format!("{} wins over {}: remove its network_backend", file.display(), layout::PODMAN_DROP_IN));
            }
            if !wanted.has_portmap {
                warn("`podman run -p` needs the reference plugin portmap: install containernetworking-plugins, and run this again".into());
            }
        }
        Backend::Netavark => {}
    }
    if let Some(why) = &wanted.unguarded {
        warn(format!("containers with NET_RAW can send as anybody (macspoofchk is off): {why}"));
    }
    if !wanted.has_systemd {
        let gateway = format!("{} gateway", wanted.backend.binary());
        warn(format!(
            "systemd does not run here: start `{gateway}` at boot by other means, for names at the gateway (WSL: systemd = true, \
             or command = \"{gateway}\", under [boot] of /etc/wsl.conf)"
        ));
    }
}

pub(super) fn next(wanted: &Wanted) -> Vec<String> {
    let Wanted { network, .. } = wanted;
    vec![
        format!(
            "flatnet is installed. Try: podman run -d --name web --network {} docker.io/library/nginx",
            network.name
        ),
        format!(
            "The gateway needs a route to {} by this host; `flatnet doctor` says what is missing.",
            network.subnets(" and to ")
        ),
    ]
}
