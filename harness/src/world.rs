//! A running world, as the steps of a scenario find and change it.
//!
//! Invariant: must only be used inside a [`crate::sandbox`]; processes started for a container or gateway run in its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use nix::unistd::Pid;
use serde_json::{Map, Value};

use crate::deadline;
use crate::gateway;
use crate::http::{LISTENING, forwarder, nginx};
use crate::installed;
use crate::inventory::{self, Inventory};
use crate::lab::{self, Lab, Namespace, Proxy};
use crate::pattern::Pattern;
use crate::plugin::{Call, Plugins};
use crate::sandbox::Distro;
use crate::scenario::{Network, Setting};
use crate::tally::Tally;

/// How long a server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// One interface of one container, as a runtime remembers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The container's id.
    pub container: String,
    /// The interface's name in it.
    pub ifname: String,
    /// The network's name.
    pub network: String,
}

/// What came of its ADD.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The name of the container's namespace.
    pub namespace: String,
    /// The plugin's result.
    pub result: Value,
    /// What the runtime was asked for.
    pub wishes: Map<String, Value>,
    /// Whether it still is: no DEL has followed, and the container has not crashed.
    pub open: bool,
}

/// The lab and all that the steps have done in it.
#[derive(Debug)]
pub struct World {
    /// Hosts and containers.
    pub lab: Lab,
    /// Where plugins are.
    pub plugins: Plugins,
    /// Every interface that ADD has made.
    pub attached: BTreeMap<Attachment, Attached>,
    /// Every configuration that ADD was called with, changes of the step included.
    pub called_with: Vec<Network>,
    /// The last call that a step made.
    pub last_call: Option<Call>,
    /// What was done to the plugin so far.
    pub tally: Tally,
    /// How often the node was restarted.
    pub boots: usize,
    /// What `create` of netavark's contract has answered, by the network's name: Podman keeps that, and sends it with every call.
    pub created: BTreeMap<String, Value>,
    distros: BTreeMap<String, Arc<Distro>>,
    setting: Arc<Setting>,
    before: BTreeMap<String, Inventory>,
    servers: Vec<Child>,
    proxies: BTreeSet<String>,
    /// Configuration files that a step had the harness write.
    configured: BTreeSet<PathBuf>,
    /// What steps have said they leave: lines of an inventory.
    left: Vec<Pattern>,
}

impl World {
    /// Builds what `setting` asks for, and notes what each node has before anything is done there.
    pub fn build(setting: Arc<Setting>, plugins: Plugins) -> Result<Self> {
        let lab = Lab::build(&setting.hosts, &setting.subnets())?;
        if setting.installed {
            installed::put(&setting, &plugins)?;
        }
        let mut before = BTreeMap::new();
        for node in setting.in_role(lab::Role::Node) {
            before.insert(node.to_owned(), Inventory::take(&lab.host(node)?.namespace)?);
        }
        Ok(Self {
            lab,
            plugins,
            attached: BTreeMap::new(),
            called_with: Vec::new(),
            last_call: None,
            tally: Tally::default(),
            boots: 0,
            created: BTreeMap::new(),
            distros: BTreeMap::new(),
            setting,
            before,
            servers: Vec::new(),
            proxies: BTreeSet::new(),
            configured: BTreeSet::new(),
            left: Vec::new(),
        })
    }

    /// What the scenario is about.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The network of that name, or the one that is used where no name is given.
    pub fn network(&self, name: Option<&str>) -> Result<&Network> {
        self.setting.network(name).with_context(|| format!("find the network {}", name.unwrap_or_default()))
    }

    /// Says so if the network of a plugin that is held against a rule does not hold as many containers as there are, and `more`.
    pub fn lacks_room(&self, more: usize) -> Option<String> {
        let room = self.setting.subject.as_ref()?.traits.room?;
        let open = self.attached.values().filter(|attached| attached.open).count();
        let text = || {
            format!("the network has no more addresses: it holds no more than {room} at once, as a first look showed")
        };
        (open + more > room).then(text)
    }

    /// Ends a container as a crash does; nothing of it is attached any more.
    pub fn crash(&mut self, container: &str) -> Result<()> {
        self.lab.crash(container)?;
        for attached in self.attached.values_mut().filter(|attached| attached.namespace == container) {
            attached.open = false;
        }
        Ok(())
    }

    /// Gives a node another address in the place of `from`; tells on which link. From now on it is the node's own.
    pub fn renumber(&mut self, node: &str, from: IpNetwork, to: IpNetwork) -> Result<String> {
        let link = self.lab.renumber(node, from, to)?;
        if let Some(before) = self.before.get_mut(node) {
            before.renumber(&link, from, to);
        }
        Ok(link)
    }

    /// Ends the node and all containers, and leaves what a boot finds: its wires and its files.
    pub fn reboot(&mut self, node: &str) -> Result<()> {
        self.lab.reboot(node)?;
        self.boots += 1;
        for attached in self.attached.values_mut() {
            attached.open = false;
        }
        inventory::clear_run()
    }

    /// Ends every container with something attached that DEL would have to detach.
    pub fn crash_attached(&mut self) -> Result<()> {
        let open = |name: &str| self.attached.values().any(|it| it.open && it.namespace == name);
        let names: Vec<String> =
            self.lab.containers().map(Namespace::name).filter(|name| open(name)).map(str::to_owned).collect();
        names.iter().try_for_each(|name| self.crash(name))
    }

    /// The host of that name, else the container, which is made when it is first named.
    pub fn place(&mut self, name: &str) -> Result<&Namespace> {
        if self.lab.namespace(name).is_ok() { self.lab.namespace(name) } else { self.lab.container(name) }
    }

    /// The distribution of that name, which is made when it is first named; without a name the world's own.
    pub fn distro(&mut self, name: Option<&str>) -> Result<Option<Arc<Distro>>> {
        let Some(name) = name else { return Ok(None) };
        if !self.distros.contains_key(name) {
            let distro = Distro::create().with_context(|| format!("make the distribution {name}"))?;
            self.distros.insert(name.to_owned(), Arc::new(distro));
        }
        Ok(self.distros.get(name).cloned())
    }

    /// Starts the harness's own server in a container or on a host, and waits until it listens.
    pub fn serve(&mut self, place: &str, port: u16, body: Option<&str>) -> Result<()> {
        let mut command = self.place(place)?.command(own_binary())?;
        command.args(["__serve", "--name", place, "--port", &port.to_string()]);
        command.args(body.map(|body| format!("--body={body}")));
        self.servers.push(start_server(command).with_context(|| format!("serve port {port} of {place}"))?);
        Ok(())
    }

    /// Makes sure that the proxy of a gateway runs.
    pub fn proxy(&mut self, gateway: &str) -> Result<()> {
        if !self.proxies.insert(gateway.to_owned()) {
            return Ok(());
        }
        let host = self.lab.host(gateway)?;
        let server = match host.spec.proxy {
            Proxy::Builtin => {
                let mut command = host.namespace.command(own_binary())?;
                command.arg("__gateway");
                start_server(command)
            }
            Proxy::Nginx => start_nginx(&host.namespace),
        };
        self.servers.push(server.with_context(|| format!("start the proxy of {gateway}"))?);
        Ok(())
    }

    /// Starts `flatnet gateway` on a node with all networks configured, and waits until it is ready.
    pub fn start_gateway(&mut self, node: &str) -> Result<()> {
        self.configured.extend(gateway::configure(&self.setting)?);
        let flatnet = self.plugins.find("flatnet")?;
        self.servers.push(gateway::start(&self.lab.host(node)?.namespace, &flatnet)?);
        Ok(())
    }

    /// What is on a node now.
    pub fn inventory(&self, node: &str) -> Result<Inventory> {
        Inventory::take(&self.lab.host(node)?.namespace)
    }

    /// What has changed on a node `before` was taken from; waits some seconds for it to be nothing.
    pub fn changes_since(&self, node: &str, before: &Inventory) -> Result<Vec<String>> {
        let look = || {
            let (now, networks) = (self.inventory(node)?, self.networks());
            Ok(before.differences(&now, &networks).filter(|line| !self.is_furniture(line)).collect())
        };
        lab::settle(look, Vec::is_empty)
    }

    /// Everything that is on a node and was not there before, or was and is gone; waits some seconds for it to be nothing.
    ///
    /// The lasting furniture of a network (its bridge, with the gateway's address) is not counted; processes that the
    /// harness did not start are.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        lab::settle(|| self.differences(), Vec::is_empty)
    }

    /// All networks whose furniture may stand.
    pub(crate) fn networks(&self) -> Vec<&Network> {
        self.setting.all_networks().chain(&self.called_with).collect()
    }

    /// What a step leaves on purpose, and nobody can take away (a kernel's table of the older iptables, for example).
    pub fn expect_left(&mut self, lines: &[Pattern]) {
        self.left.extend_from_slice(lines);
    }

    fn is_expected(&self, line: &str) -> bool {
        line.strip_prefix("+ ").is_some_and(|line| self.left.iter().any(|left| left.matches(line)))
    }

    /// What a plugin that is not flatnet keeps for its network.
    fn is_furniture(&self, line: &str) -> bool {
        let subject = self.setting.subject.as_ref();
        line.strip_prefix("+ ").is_some_and(|line| subject.is_some_and(|subject| subject.keeps(line)))
    }

    fn is_configuration(&self, line: &str) -> bool {
        let folder = line == format!("+ folder {}", gateway::FOLDER);
        let file = || self.configured.iter().any(|file| line == format!("+ file {}", file.display()));
        !self.configured.is_empty() && (folder || file())
    }

    fn differences(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (node, before) in &self.before {
            let now = self.inventory(node)?;
            let networks = self.networks();
            let is_known =
                |line: &String| self.is_configuration(line) || self.is_expected(line) || self.is_furniture(line);
            let lines = before.differences(&now, &networks).filter(|line| !is_known(line));
            found.extend(lines.map(|line| format!("{node}: {line}")));
        }
        for (name, distro) in &self.distros {
            found.extend(distro.enter(inventory::files)?.into_iter().map(|line| format!("{name}: + {line}")));
        }
        let servers: BTreeSet<u32> = self.servers.iter().map(Child::id).collect();
        for place in self.lab.hosts().map(|(_, host)| &host.namespace).chain(self.lab.containers()) {
            let strange = place.processes()?.into_iter().filter(|pid| !servers.contains(&pid.as_raw().unsigned_abs()));
            found.extend(strange.map(|pid| format!("{}: + process {}", place.name(), command_line(pid))));
        }
        for container in self.lab.containers() {
            let links = lab::View::of(container)?.links;
            let own = links.iter().filter(|link| link.name != "lo");
            // Once nothing is attached, a container has nothing but lo.
            let name = container.name();
            let open = self.attached.values().any(|it| it.open && it.namespace == name);
            found.extend(own.filter(|_| !open).map(|link| format!("{name}: + link {}", link.name)));
        }
        Ok(found)
    }
}

/// A killed world takes its servers along; this is for a world that is torn down by hand.
impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have been killed by a step before.
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// What a process was called with; the words are apart by NUL.
fn command_line(pid: Pid) -> String {
    // One that has ended in the meantime has no words any more.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

/// The program that this process runs, also where its name is out of reach.
pub fn own_binary() -> &'static str {
    "/proc/self/exe"
}

/// Starts one of the harness's servers and waits until it says that it listens.
fn start_server(mut command: Command) -> Result<Child> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start a server")?;
    let (heard, line) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        thread::spawn(move || {
            let mut text = String::new();
            drop(BufReader::new(out).read_line(&mut text));
            drop(heard.send(text));
        });
    }
    match line.recv_timeout(START_PATIENCE) {
        Ok(text) if text.trim() == LISTENING => Ok(child),
        said => {
            drop(child.kill());
            let status = child.wait().context("wait for a server")?;
            match said {
                Ok(_) => bail!("hear from a server: it ended with {status}"),
                Err(_) => bail!("hear from a server in time"),
            }
        }
    }
}

/// nginx does not say when it listens, so somebody has to knock.
fn start_nginx(gateway: &Namespace) -> Result<Child> {
    let mut child = nginx::command(gateway)?.spawn().context("start nginx")?;
    let door = SocketAddr::from((Ipv4Addr::LOCALHOST, forwarder::PORT));
    let outcome = gateway.enter(|| {
        let knock = || match child.try_wait() {
            Ok(None) => TcpStream::connect_timeout(&door, START_PATIENCE).ok().map(|_| true),
            _ => Some(false),
        };
        Ok(deadline::until(START_PATIENCE, knock))
    });
    if outcome? == Some(true) {
        return Ok(child);
    }
    drop(child.kill());
    drop(child.wait());
    let log = std::fs::read_to_string(format!("/run/harness/nginx-{}/error.log", gateway.name())).unwrap_or_default();
    bail!("hear from nginx: {}", log.trim())
}
