//! The real gateway: nginx, or `OpenResty`, with the shipped configuration, inside a world.
//!
//! Invariant: all that it writes is under the world's `/run`, and it runs as one process and one user (a user namespace has no second one).

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::Namespace;
use crate::shipped;

/// Its executable, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps it where an ordinary user does not look.
    let folders =
        env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/openresty/bin")]);
    let files = folders.flat_map(|folder| ["openresty", "nginx"].map(|name| folder.join(name)));
    files.into_iter().find(|file| file.is_file())
}

/// The command that serves port 80 of `gateway`.
pub fn command(gateway: &Namespace) -> Result<Command> {
    let folder = folder(gateway, "nginx")?;
    for (name, text) in [
        ("flatnet.conf", shipped::NGINX_CONF),
        ("flatnet-proxy.conf", shipped::NGINX_PROXY),
        ("flatnet-upstreams.conf", shipped::NGINX_UPSTREAMS),
    ] {
        fs::write(format!("{folder}/{name}"), text).with_context(|| format!("write the shipped {name}"))?;
    }
    run(gateway, &folder, &format!("include \"{folder}/flatnet.conf\";"))
}

/// The command that serves whatever `http` says, in its block of the configuration; `name` keeps it apart from others in `place`.
pub fn with(place: &Namespace, name: &str, http: &str) -> Result<Command> {
    let folder = folder(place, name)?;
    run(place, &folder, http)
}

fn folder(place: &Namespace, name: &str) -> Result<String> {
    let folder = format!("/run/harness/{name}-{}", place.name());
    fs::create_dir_all(&folder).context("make a folder for nginx")?;
    Ok(folder)
}

fn run(place: &Namespace, folder: &str, http: &str) -> Result<Command> {
    let binary = find().context("find nginx or openresty")?;
    let config = format!("{folder}/nginx.conf");
    fs::write(&config, main_config(folder, http)).context("write the configuration of nginx")?;
    let mut command = place.command(binary)?;
    command.args(["-c", &config, "-p", folder, "-e", &format!("{folder}/error.log")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn main_config(folder: &str, http: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\nuser root;\npcre_jit on;\npid {folder}/pid;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n    access_log off;\n    keepalive_requests 100000;\n\
         {temporary}    {http}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::main_config;

    #[test]
    fn the_shipped_file_is_included_from_the_worlds_own_folder() {
        let folder = "/run/harness/nginx-my gateway";
        let config = main_config(folder, &format!("include \"{folder}/flatnet.conf\";"));
        assert!(config.contains("include \"/run/harness/nginx-my gateway/flatnet.conf\";"), "{config}");
    }
}
