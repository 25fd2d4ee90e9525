//! Podman in a world, with CNI or with netavark as its version has it: real containers on the network under test.
//!
//! Invariant: all that Podman keeps lies on mounts of the world, and control groups can only be read there,
//! so it shares nothing with a Podman of the machine, and nothing of it outlives the world.

mod image;
mod service;
mod setup;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{self as system, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::deadline;
use crate::inventory::{leases, nftables};
use crate::lab::{FOLDER, Namespace, View};
use crate::plugin::Plugins;
use crate::process;
use crate::shipped;

pub use image::{COMMAND, IMAGE, busybox, make_root};
pub use service::{SOCKET, Service};
pub use setup::{
    Backend, CNI_NETWORKS, CONTAINERS_CONF, configure, environment, lacks_cni, mount_private, reason_to_skip,
};

/// The shipped network's name, which is also the type of its first plugin: what Podman calls its driver.
pub const NETWORK: &str = "flatnet";

/// How long one command may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long Podman's clean-up, which runs behind a command that has ended, may take.
const CLEAN_UP_PATIENCE: Duration = Duration::from_secs(10);

/// Podman on a node.
#[derive(Debug)]
pub struct Podman {
    node: Namespace,
    backend: Backend,
    /// The file of settings that is read in the place of a user's.
    settings: Option<&'static str>,
}

/// How a container is attached to the network, as `podman inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// The container's own address.
    #[serde(rename = "IPAddress")]
    pub address: Ipv4Addr,
    /// The length of its prefix, in bits.
    #[serde(rename = "IPPrefixLen")]
    pub prefix: u8,
    /// Its default route.
    pub gateway: Ipv4Addr,
    /// The hardware address.
    #[serde(rename = "MacAddress")]
    pub mac: String,
    /// Its own address of IPv6, on a network that has IPv6.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "empty_or")]
    pub address6: Option<Ipv6Addr>,
}

/// Podman says nothing by an empty text.
fn empty_or<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Ipv6Addr>, D::Error> {
    let text = String::deserialize(value)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
}

impl Podman {
    /// Sets Podman up on `node` with the network [`NETWORK`] (with CNI the shipped one), the plugin from `plugins` and the image [`IMAGE`].
    ///
    /// Must be called in a world with the machine's users.
    pub fn set_up(node: &Namespace, plugins: &Plugins) -> Result<Self> {
        let backend = Backend::installed()?;
        mount_private()?;
        configure(backend, plugins)?;
        let podman = Self { node: node.clone(), backend, settings: Some(CONTAINERS_CONF) };
        image::import(&podman)?;
        if backend == Backend::Netavark {
            podman.output(["network", "create", "--driver", "flatnet", NETWORK])?;
        }
        Ok(podman)
    }

    /// Makes this the Podman of a host where flatnet never was: its backend is netavark, and its settings are where a user has them.
    pub fn forget_flatnet(&mut self) -> Result<()> {
        match self.backend {
            Backend::Cni => fs::remove_dir_all(CNI_NETWORKS).context("remove the network")?,
            Backend::Netavark => self.output(["network", "rm", NETWORK]).map(drop)?,
        }
        setup::write_user_config(self.backend)?;
        self.settings = None;
        Ok(())
    }

    /// Runs the binary under test as a person does who sits at no terminal: its exit status, and what it said.
    pub fn flatnet(&self, plugins: &Plugins, arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = self.program(&plugins.find("flatnet")?.display().to_string())?;
        command.args(arguments);
        let done = process::run(command, &[], PATIENCE)?;
        let status = done.status.and_then(|status| status.code());
        Ok((status.with_context(|| done.status_text())?, format!("{}{}", done.stdout, done.stderr)))
    }

    /// How this Podman makes networks, once flatnet is installed.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Makes one more network, on a bridge of its own; containers get an address of each subnet.
    pub fn add_network(&self, name: &str, bridge: &str, subnets: &[&str]) -> Result<()> {
        match self.backend {
            Backend::Cni => {
                let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
                // Podman asks for several addresses by this way alone.
                let capabilities = json!({ "ips": true, "mac": true });
                let ipam = json!({ "ranges": ranges });
                let plugin = json!({ "type": "flatnet", "bridge": bridge, "capabilities": capabilities, "ipam": ipam });
                let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
                setup::write_conflist(name, &list.to_string())
            }
            Backend::Netavark => {
                let mut options = vec!["network", "create", "--driver", "flatnet", "--interface-name", bridge];
                if subnets.iter().any(|subnet| subnet.contains(':')) {
                    options.push("--ipv6");
                }
                options.extend(subnets.iter().flat_map(|subnet| ["--subnet", subnet]));
                options.push(name);
                self.output(options).map(drop)
            }
        }
    }

    /// Makes `--publish` work on the network: with CNI the reference `portmap` is chained, with netavark the driver publishes.
    pub fn enable_ports(&self) -> Result<()> {
        if self.backend == Backend::Netavark {
            return Ok(());
        }
        let mut list = shipped::list()?;
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        list["plugins"].as_array_mut().context("find the plugins of the shipped network")?.push(portmap);
        setup::write_conflist(NETWORK, &list.to_string())
    }

    /// Starts a container that answers every request on port 80 with `<name> saw <the client's address>`.
    pub fn start_web(&self, name: &str) -> Result<Attachment> {
        self.start_web_with(name, &[])
    }

    /// The same with more options of `podman run`.
    pub fn start_web_with(&self, name: &str, options: &[&str]) -> Result<Attachment> {
        let env = format!("NAME={name}");
        let run = ["run", "--detach", "--name", name, "--env", &env, "--network", NETWORK];
        self.output(run.iter().chain(options).chain(&[IMAGE]))?;
        self.attachment(name)
    }

    /// How a running container is attached to [`NETWORK`].
    pub fn attachment(&self, name: &str) -> Result<Attachment> {
        self.attachment_to(NETWORK, name)
    }

    /// How a running container is attached to one of its networks.
    pub fn attachment_to(&self, network: &str, name: &str) -> Result<Attachment> {
        let format = format!("{{{{json .NetworkSettings.Networks.{network}}}}}");
        let shown = self.output(["inspect", "--format", &format, name])?;
        serde_json::from_str(&shown).with_context(|| format!("read podman's view of {name}: {shown}"))
    }

    /// Fetches a page of `address` from within a container.
    pub fn fetch(&self, name: &str, address: Ipv4Addr) -> Result<String> {
        self.output(["exec", name, "wget", "-q", "-O", "-", &format!("http://{address}/")])
    }

    /// Stops a container as a user does.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.output(["stop", name]).map(drop)
    }

    /// Starts a container that was stopped or killed.
    pub fn start(&self, name: &str) -> Result<Attachment> {
        self.output(["start", name])?;
        self.attachment(name)
    }

    /// Kills a container; Podman cleans up behind it after this has returned.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.output(["kill", name]).map(drop)
    }

    /// Kills a container's monitor and then the container, as a lack of memory may: nobody cleans up behind them, and Podman goes
    /// on taking the container for running.
    pub fn crash(&self, name: &str) -> Result<()> {
        let shown =
            self.output(["inspect", "--format", "{{.State.ConmonPid}} {{.NetworkSettings.SandboxKey}}", name])?;
        let (monitor, namespace) = shown.split_once(' ').with_context(|| format!("read {shown:?}"))?;
        let namespace = namespace.rsplit('/').next().filter(|it| it.starts_with("netns-"));
        let namespace = namespace.with_context(|| format!("find the network namespace of {name} in {shown:?}"))?;
        let monitor = Pid::from_raw(monitor.parse().with_context(|| format!("read {shown:?}"))?);
        kill(monitor, Signal::SIGKILL).with_context(|| format!("kill the monitor of {name}"))?;
        Namespace::named(namespace).kill_processes()
    }

    /// Ends all containers and Podman's own processes on the spot, and what they had in memory, as the node's end does; nobody tells
    /// Podman.
    pub fn cut_off(&self) -> Result<()> {
        for namespace in containers()? {
            namespace.kill_processes()?;
            namespace.remove()?;
        }
        self.node.kill_processes()?;
        setup::forget_memory()
    }

    /// Removes a container, running or not.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.output(["rm", "--force", name]).map(drop)
    }

    /// What Podman calls the driver of a network; with CNI, the type of its first plugin.
    pub fn driver(&self, network: &str) -> Result<String> {
        self.output(["network", "inspect", "--format", "{{.Driver}}", network])
    }

    /// Starts the Docker API on [`SOCKET`].
    pub fn serve(&self) -> Result<Service> {
        Service::start(self)
    }

    /// Runs `podman` with `arguments` and gives what it printed, without the last line's end.
    pub fn output<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Result<String> {
        self.feed(arguments, &[])
    }

    fn feed<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>, stdin: &[u8]) -> Result<String> {
        let mut command = self.command()?;
        command.args(arguments);
        let line: Vec<_> = command.get_args().map(OsStr::to_string_lossy).map(Cow::into_owned).collect();
        let done = process::run(command, stdin, PATIENCE)?;
        if !done.status.is_some_and(|status| status.success()) {
            bail!("run podman {}: {}\n{}", line.join(" "), done.status_text(), done.stderr.trim());
        }
        Ok(done.stdout.trim_end().to_owned())
    }

    fn command(&self) -> Result<Command> {
        self.program("podman")
    }

    /// It reads nothing of the caller's environment but where programs are.
    fn program(&self, name: &str) -> Result<Command> {
        let mut command = self.node.command(name)?;
        command.env_clear().envs(environment(self.settings));
        Ok(command)
    }

    /// Addresses leased on the node, once they are `expected` (or after ten seconds, as they are then).
    pub fn leases(&self, expected: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>> {
        settle(|| leases(&self.node), |leases| leases == expected)
    }

    /// Names whatever containers have left on the node and in the world, once Podman has cleaned up behind them.
    ///
    /// Processes of the caller's own count: stop them first.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        settle(|| self.leftovers_now(), Vec::is_empty)
    }

    fn leftovers_now(&self) -> Result<Vec<String>> {
        // Processes first: asking Podman makes some.
        let mut left = processes()?;
        let view = View::of(&self.node)?;
        left.extend(
            view.links.iter().filter(|link| link.name.starts_with("fn-")).map(|link| format!("link {}", link.name)),
        );
        left.extend(leases(&self.node)?.iter().map(|address| format!("lease {address}")));
        // What masquerades stays with the bridge; what publishes does not.
        let rules = self.node.enter(nftables::list)?;
        let of_flatnet = |line: &str| {
            ["ip", "ip6"].iter().any(|family| line.starts_with(&format!("nftables chain {family} flatnet ")))
        };
        let publishes = |line: &String| of_flatnet(line) && !line.contains(" masquerade-");
        left.extend(rules.into_iter().filter(publishes));
        left.extend(containers()?.iter().map(|namespace| format!("namespace {}", namespace.name())));
        let containers = self.output(["ps", "--all", "--format", "{{.Names}}"])?;
        left.extend(containers.lines().map(|name| format!("container {name}")));
        Ok(left)
    }
}

/// The networks of containers, as Podman names them.
fn containers() -> Result<Vec<Namespace>> {
    let entries = fs::read_dir(FOLDER).context("list namespaces")?;
    let names = entries.map(|entry| Ok(entry.context("list namespaces")?.file_name().to_string_lossy().into_owned()));
    let names = names.filter(|name| name.as_ref().map_or(true, |name| name.starts_with("netns-")));
    names.map(|name| name.map(|name| Namespace::named(&name))).collect()
}

/// Looks until `settled`, for as long as a runtime's clean-up may take, and gives what was seen last.
pub fn settle<T>(look: impl Fn() -> Result<T>, settled: impl Fn(&T) -> bool) -> Result<T> {
    let mut last = None;
    deadline::until(CLEAN_UP_PATIENCE, || {
        let seen = last.insert(look());
        seen.as_ref().is_ok_and(&settled).then_some(())
    });
    last.context("look even once")?
}

/// Runs `command` as a world's first process has to: whatever loses its parent meanwhile is waited for too.
///
/// Podman's clean-up and its containers' monitors are such orphans, and Podman takes an unwaited one for alive.
/// Gives the exit status of `command`, 128 + the signal if one ended it.
pub fn with_orphans_reaped(mut command: Command) -> Result<u8> {
    let child = command.spawn().context("start the world's second process")?;
    let child = Pid::from_raw(child.id().cast_signed());
    loop {
        match wait().context("wait for the world's processes")? {
            WaitStatus::Exited(pid, status) if pid == child => return Ok(u8::try_from(status).unwrap_or(1)),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Ok(128 + signal as u8),
            _ => {}
        }
    }
}

/// Every process of the world but its first one and this one.
fn processes() -> Result<Vec<String>> {
    let own = system::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == 1 || pid == own {
            continue;
        }
        // One that ends between the two lines is not left over.
        if let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) {
            let start: Vec<_> = line.split('\0').take(4).collect();
            found.push(format!("process {pid} {}", start.join(" ").trim_end()));
        }
    }
    Ok(found)
}
