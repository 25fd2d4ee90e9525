//! libcni itself, which containerd, CRI-O and Podman 4 call plugins by: its lists, its capability arguments, its cache.
//!
//! Invariant: nothing stands between a case and libcni but the client of `ci/libcni`; what is in the cache, libcni has put there.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::plugin::{Refusal, repository};
use harness::process;
use harness::shipped;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::world::{NODE, OWN, World, write};

/// The variable that names the folder of the clients; without it they are where `ci/libcni/build` puts them.
const FOLDER: &str = "FLATNET_LIBCNI";

/// Where libcni keeps results unless it is told otherwise.
const CACHE: &str = "/var/lib/cni";

/// How long a call of all plugins may take.
const PATIENCE: Duration = Duration::from_mins(1);

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 3);

/// One of the clients, by the name that `ci/libcni/build` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// libcni of the machine's distribution.
    Distribution,
    /// The newest one, which has GC and STATUS.
    Newest,
}

pub(crate) type Case = fn(Client, &mut World) -> Result<()>;

/// What each libcni is asked.
pub(crate) const CASES: [(&str, Case); 5] = [
    ("a_container_lives_by_the_cache", a_container_lives_by_the_cache),
    ("del_needs_no_cache", del_needs_no_cache),
    ("del_of_a_dead_container_clears_the_cache", del_of_a_dead_container_clears_the_cache),
    ("two_interfaces_have_a_result_each", two_interfaces_have_a_result_each),
    ("what_is_asked_for_reaches_the_plugins", what_is_asked_for_reaches_the_plugins),
];

/// What only the newest knows.
pub(crate) const NEWEST_CASES: [(&str, Case); 2] = [
    ("gc_frees_what_is_not_valid_any_more", gc_frees_what_is_not_valid_any_more),
    ("status_tells_a_full_pool", status_tells_a_full_pool),
];

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Distribution => "distribution",
            Self::Newest => "newest",
        }
    }

    /// The version of the specification that it makes of the shipped list.
    fn version(self) -> &'static str {
        match self {
            Self::Distribution => "1.0.0",
            Self::Newest => "1.1.0",
        }
    }

    fn file(self) -> PathBuf {
        let folder = env::var_os(FOLDER).map_or_else(|| repository().join("target/libcni"), PathBuf::from);
        folder.join(self.name())
    }

    /// Why it cannot be asked, if it cannot.
    pub(crate) fn lacks(self) -> Option<String> {
        let file = self.file();
        (!file.is_file()).then(|| format!("there is no libcni client {}: run ci/libcni/build", file.display()))
    }
}

/// What libcni answered.
#[derive(Debug, Default, Deserialize)]
struct Said {
    result: Option<Value>,
    #[serde(default)]
    capabilities: Vec<String>,
    error: Option<Failure>,
}

/// Its error, and in it the plugin's.
#[derive(Debug, Deserialize)]
struct Failure {
    text: String,
    #[serde(flatten)]
    refusal: Option<Refusal>,
}

/// A runtime that has one network.
struct Runtime {
    client: Client,
    list: Value,
    path: String,
    /// More of what goes into each call.
    more: BTreeMap<&'static str, Value>,
    /// Where the plugins look for programs.
    programs: Option<&'static str>,
}

impl Runtime {
    /// With the shipped network.
    fn new(client: Client, world: &World) -> Result<Self> {
        let it = Self {
            client,
            list: shipped::list()?,
            path: world.plugins().path(),
            more: BTreeMap::new(),
            programs: None,
        };
        it.write_list()?;
        Ok(it)
    }

    /// Where lists are: what is there is not left over.
    fn folder() -> PathBuf {
        Path::new(OWN).join("net.d")
    }

    fn write_list(&self) -> Result<()> {
        write(&Self::folder().join("flatnet.conflist"), &self.list.to_string())
    }

    /// Changes the list.
    fn set(&mut self, pointer: &str, value: Value) -> Result<()> {
        *self.list.pointer_mut(pointer).with_context(|| format!("find {pointer} in the list"))? = value;
        self.write_list()
    }

    fn call(&self, world: &World, verb: &str, container: &str, ifname: &str) -> Result<Said> {
        let mut request = json!({
            "verb": verb,
            "folder": Self::folder(),
            "network": "flatnet",
            "path": self.path.split(':').collect::<Vec<_>>(),
            "cache": CACHE,
            "container": container,
            "netns": format!("/run/netns/{container}"),
            "ifname": ifname,
        });
        for (key, value) in &self.more {
            request[*key] = value.clone();
        }
        let mut command = world.node()?.command(self.client.file())?;
        command.envs(self.programs.map(|path| ("PATH", path)));
        let done = process::run(command, request.to_string().as_bytes(), PATIENCE)?;
        let said: Said = serde_json::from_str(&done.stdout).with_context(|| {
            format!("read what {verb} gave: {}\n{}{}", done.status_text(), done.stdout, done.stderr)
        })?;
        let exit = done.status.and_then(|status| status.code());
        ensure!(exit == Some(i32::from(said.error.is_some())), "{verb} ended with {exit:?} and said {said:?}");
        Ok(said)
    }

    /// A call that must succeed.
    fn does(&self, world: &World, verb: &str, container: &str) -> Result<Said> {
        let said = self.call(world, verb, container, "eth0")?;
        if let Some(Failure { text, .. }) = &said.error {
            bail!("{verb} {container} by libcni: {text}");
        }
        Ok(said)
    }

    /// ADD, whose result must be what libcni has kept of it.
    fn add(&self, world: &World, container: &str) -> Result<Value> {
        let result = self.does(world, "add", container)?.result.context("get a result")?;
        let kept = self.does(world, "cached", container)?.result;
        ensure!(kept.as_ref() == Some(&result), "keep {result}: libcni has {kept:?}");
        Ok(result)
    }

    /// A call that the plugin must refuse with that code and in these words.
    fn refuses(&self, world: &World, verb: &str, container: &str, code: u32, words: &str) -> Result<()> {
        let said = self.call(world, verb, container, "eth0")?;
        let refusal = said.error.as_ref().and_then(|failure| failure.refusal.as_ref());
        let right = refusal.is_some_and(|it| it.code == code && it.msg.contains(words));
        ensure!(right, "{verb} {container} is refused with {code} and \"{words}\": libcni said {said:?}");
        Ok(())
    }

    /// Nothing is kept of it.
    fn expect_forgotten(&self, world: &World, container: &str) -> Result<()> {
        let kept = self.does(world, "cached", container)?.result;
        ensure!(kept.is_none(), "forget {container}: libcni has {kept:?}");
        Ok(())
    }
}

/// The file in which libcni keeps what ADD gave.
fn cache_file(container: &str, ifname: &str) -> PathBuf {
    Path::new(CACHE).join(format!("results/flatnet-{container}-{ifname}"))
}

/// The folder of its files stays, empty.
fn cache_stays(world: &mut World) {
    world.expect_left(&["folder /var/lib/cni/results"]);
}

fn a_container_lives_by_the_cache(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    let it = Runtime::new(client, world)?;
    let netns = world.container("web")?;
    it.does(world, "validate", "web")?;
    it.expect_forgotten(world, "web")?;
    // No result is kept, so none is sent.
    it.refuses(world, "check", "web", 7, "prevResult")?;

    let result = it.add(world, "web")?;
    ensure!(result["cniVersion"] == client.version(), "agree on {}: the result is {result}", client.version());
    ensure!(result["ips"][0]["address"] == format!("{FIRST}/24"), "give the first address: the result is {result}");
    ensure!(result["interfaces"][2]["sandbox"] == netns.display().to_string(), "name the sandbox: it is {result}");
    world.expect_leases(&[FIRST])?;
    world.expect_answer("web", (FIRST, 80).into())?;
    it.does(world, "check", "web")?;
    it.refuses(world, "add", "web", 103, "already has an interface eth0")?;
    it.does(world, "check", "web")?;

    world.run("web", "ip", &["address", "del", &format!("{FIRST}/24"), "dev", "eth0"])?;
    it.refuses(world, "check", "web", 106, &FIRST.to_string())?;
    it.does(world, "del", "web")?;
    it.expect_forgotten(world, "web")?;
    world.expect_leases(&[])?;
    it.does(world, "del", "web").map(drop)
}

fn del_needs_no_cache(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    let it = Runtime::new(client, world)?;
    world.container("web")?;
    it.add(world, "web")?;
    let file = cache_file("web", "eth0");
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    it.does(world, "del", "web")?;
    world.expect_leases(&[])
}

fn del_of_a_dead_container_clears_the_cache(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    let it = Runtime::new(client, world)?;
    world.container("web")?;
    it.add(world, "web")?;
    world.crash("web")?;
    // The lease went with the container; libcni still has its result.
    world.expect_leases(&[])?;
    ensure!(cache_file("web", "eth0").exists(), "keep the result until DEL");
    it.does(world, "del", "web")?;
    it.expect_forgotten(world, "web")
}

fn two_interfaces_have_a_result_each(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    let it = Runtime::new(client, world)?;
    world.container("web")?;
    it.add(world, "web")?;
    let second = it.call(world, "add", "web", "eth1")?;
    ensure!(second.error.is_none(), "add another interface: libcni said {second:?}");
    world.expect_leases(&[FIRST, SECOND])?;
    it.does(world, "del", "web")?;
    world.expect_leases(&[SECOND])?;
    let kept = it.call(world, "check", "web", "eth1")?;
    ensure!(kept.error.is_none(), "leave the other as it was: libcni said {kept:?}");
    it.call(world, "del", "web", "eth1")?;
    world.expect_leases(&[])
}

/// By capabilities an address, a MAC, and a port, which the reference `portmap` behind flatnet publishes; by `CNI_ARGS` an address and a
/// MAC, which stand back behind capabilities.
fn what_is_asked_for_reaches_the_plugins(client: Client, world: &mut World) -> Result<()> {
    const BY_CAPABILITY: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 77);
    const BY_ARGS: Ipv4Addr = Ipv4Addr::new(10, 87, 1, 50);
    // Its empty chains stay, and for the older versions a table.
    world.expect_left(&["nftables * nat*", "folder /var/lib/cni/results"]);
    let mut it = Runtime::new(client, world)?;
    let plugins = it.list["plugins"].as_array_mut().context("find the plugins")?;
    plugins[0]["capabilities"] = json!({ "ips": true, "mac": true });
    plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
    // The reference plugins of distributions are from before 1.1.0.
    it.list["cniVersions"] = json!(["1.0.0"]);
    it.write_list()?;
    world.container("web")?;
    world.container("db")?;
    let mut capabilities = it.does(world, "validate", "web")?.capabilities;
    capabilities.sort();
    ensure!(capabilities == ["ips", "mac", "portMappings"], "declare what there is: libcni found {capabilities:?}");

    let args = [["IgnoreUnknown", "1"], ["K8S_POD_NAME", "shop"], ["IP", "10.87.1.50"], ["MAC", "02:00:00:00:00:50"]];
    it.more.insert("args", json!(args));
    let db = it.add(world, "db")?;
    ensure!(db["interfaces"][2]["mac"] == "02:00:00:00:00:50", "give the MAC: the result is {db}");
    let port = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    let capabilities = json!({ "ips": ["10.87.1.77/24"], "mac": "02:00:00:00:00:77", "portMappings": [port] });
    it.more.insert("capabilities", capabilities);
    let web = it.add(world, "web")?;
    ensure!(web["interfaces"][2]["mac"] == "02:00:00:00:00:77", "give the MAC: the result is {web}");
    world.expect_leases(&[BY_CAPABILITY, BY_ARGS])?;
    world.expect_answer("web", (BY_CAPABILITY, 80).into())?;
    world.expect_answer("web", World::published(8080))?;
    // portmap 1.1 looks for an IPv4 container's chain in ip6tables as well, and never finds it there: it must not find ip6tables.
    it.programs = Some("/run/harness/v4");
    world.run(NODE, "sh", &["-c", "mkdir -p /run/harness/v4 && ln -s \"$(command -v iptables)\" /run/harness/v4/"])?;
    it.does(world, "check", "web")?;
    it.programs = None;
    it.does(world, "del", "web")?;
    it.does(world, "del", "db")?;
    world.expect_closed(8080)?;
    world.expect_leases(&[])
}

fn gc_frees_what_is_not_valid_any_more(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    let mut it = Runtime::new(client, world)?;
    // Of one libcni knows nothing any more: only the plugin can find it. Another it takes back by a DEL of its own.
    world.container("lost")?;
    it.add(world, "lost")?;
    let file = cache_file("lost", "eth0");
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
    // A runtime that does not say what is valid is refused.
    it.more.insert("valid", Value::Null);
    it.refuses(world, "gc", "", 7, "valid-attachments")?;
    world.expect_leases(&[FIRST])?;
    for name in ["kept", "web"] {
        world.container(name)?;
        it.add(world, name)?;
    }
    world.expect_leases(&[FIRST, SECOND, Ipv4Addr::new(10, 87, 1, 4)])?;
    it.more.insert("valid", json!([{ "container": "kept", "ifname": "eth0" }]));
    it.does(world, "gc", "")?;
    world.expect_leases(&[SECOND])?;
    it.expect_forgotten(world, "web")?;
    it.does(world, "check", "kept")?;
    world.expect_answer("kept", (SECOND, 80).into())?;
    it.does(world, "gc", "")?;
    it.more.insert("valid", json!([]));
    it.does(world, "gc", "")?;
    world.expect_leases(&[])?;
    it.expect_forgotten(world, "kept")
}

fn status_tells_a_full_pool(client: Client, world: &mut World) -> Result<()> {
    cache_stays(world);
    // The bridge's part of a subnet that is not the shipped one.
    world.expect_left(&["address 10.87.1.1/30 on flatnet-br0", "route 10.87.1.0/30 dev flatnet-br0 *"]);
    let mut it = Runtime::new(client, world)?;
    it.set("/plugins/0/ipam/subnet", json!("10.87.1.0/30"))?;
    world.container("web")?;
    world.container("late")?;
    it.does(world, "status", "")?;
    it.add(world, "web")?;
    it.refuses(world, "status", "", 50, "no address is free")?;
    it.refuses(world, "add", "late", 101, "no address is free")?;
    it.does(world, "check", "web")?;
    it.does(world, "del", "web")?;
    it.does(world, "status", "")?;
    ensure!(world.addresses_of("late", "eth0")?.is_empty(), "leave nothing of an ADD that failed");
    Ok(())
}
