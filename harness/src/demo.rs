//! What flatnet does, shown in a second: a LAN client gets a container's page, and the container sees the gateway's own address.
//!
//! Invariant: everything shown is what the real plugin, the kernel and a real HTTP answer said; the world is gone afterwards.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::client::{self, Answer as Page, Question};
use crate::http::{forwarder, server};
use crate::lab::{FOLDER, View};
use crate::plugin::{Answer, Call, PATIENCE, Plugins, environment};
use crate::scenario::Setting;
use crate::terminal::{self, GOOD, HEADING, QUIET, paint};
use crate::world::World;

const NAME: &str = "10-87-1-2.flat";

const PICTURE: &str = r"
    [lan]  192.168.50.9               a client of the LAN; knows no route to containers
      |
    [windows]  192.168.50.1           the gateway: proxies http://10-87-1-2.<zone>/ to 10.87.1.2
      |        172.30.0.1
      |
    [wsl]  172.30.0.2                 the node, where containers run
       |
       flatnet-br0  10.87.1.1/24
          |
          eth0  10.87.1.2/24  [web]   the container
";

/// Shows it; `verbose` adds each call and what it answered. Must be called in a fresh world.
pub fn run(plugins: Plugins, verbose: bool) -> Result<()> {
    let mut world = World::build(Arc::new(Setting::usual()?), plugins)?;
    world.lab.container("web")?;
    let add = call(&world, "ADD")?;
    let leases = leases(&world)?;
    world.serve("web", 80, Some("hello from web"))?;
    world.proxy("windows")?;
    let page = fetch(&world)?;
    let del = call(&world, "DEL")?;
    world.lab.crash_all()?;
    let left = world.leftovers()?;
    if !left.is_empty() {
        bail!("leave nothing behind:\n{}", left.join("\n"));
    }
    let shown = Shown { add, leases, page, del };
    let mut text = shown.first()?;
    if verbose {
        text += &shown.details()?;
    }
    text += &hints(verbose);
    terminal::stdout().write_all(text.as_bytes()).context("show the demo")
}

/// What has happened.
struct Shown {
    add: Called,
    /// The container's links with their names, and whose they are.
    leases: Vec<String>,
    page: Page,
    del: Called,
}

/// One call of the plugin, as a runtime makes it.
struct Called {
    line: String,
    millis: f64,
    result: Option<Value>,
}

impl Shown {
    /// The one thing that matters: who fetched what, and whom the container saw.
    fn first(&self) -> Result<String> {
        let said = |header| self.page.header(header).unwrap_or("?");
        let result = self.add.result.as_ref().context("find the result of ADD")?;
        let address = result["ips"][0]["address"].as_str().context("find the container's address")?;
        let address = address.split('/').next().unwrap_or(address);
        let body = self.page.body.trim_end();
        let (server, peer) = (said(server::SERVED_BY), said(server::SAW_PEER));
        let (got, saw) = (format!("{} {body}", self.page.status), format!("saw {peer}"));
        Ok(format!(
            "{title}

  lan       192.168.50.9   fetched http://{NAME}/   {got}
  windows   192.168.50.1   passed it on to {address}
  {server:<9} {address:<14} answered, and {saw}: the gateway's own address

  No NAT on the way, and no port was published.
  {server} got its address in {add:.1} ms and gave it back in {del:.1} ms;
  left on wsl: nothing (the empty bridge stays for the next container).
",
            title = paint(HEADING, "flatnet in a throwaway network: no root, and nothing of yours was touched"),
            got = paint(GOOD, got),
            saw = paint(GOOD, saw),
            add = self.add.millis,
            del = self.del.millis,
        ))
    }

    fn details(&self) -> Result<String> {
        let heading = |text: &str| paint(HEADING, text);
        let result = serde_json::to_string_pretty(&self.add.result).context("show the result")?;
        let forwarded = self.page.header(server::SAW_FORWARDED_FOR).unwrap_or("?");
        let (body, status) = (self.page.body.trim_end(), self.page.status);
        Ok(format!(
            "{PICTURE}
{one}  ({add:.1} ms)
{add_line}
{result}

{two}
{leases}

{three}
     {status}  {body}
     the proxy passed on for whom: {forwarded}

{four}  ({del:.1} ms)
{del_line}
",
            one = heading("1. The runtime asks for an address: ADD"),
            two = heading("2. The lease is a name of the container's link, kept by the kernel; no file, no daemon"),
            three = heading(&format!("3. A LAN client asks the gateway for http://{NAME}/")),
            four = heading("4. The container goes: DEL"),
            add = self.add.millis,
            del = self.del.millis,
            add_line = indent(&self.add.line),
            del_line = indent(&self.del.line),
            result = indent(&result),
            leases = indent(&self.leases.join("\n")),
        ))
    }
}

fn hints(verbose: bool) -> String {
    let more = "\n  each call and its JSON:      cargo run -p harness -- demo --verbose";
    let text = format!(
        "\n  such a network to try out:   {shell}{more}\n",
        shell = paint(HEADING, "cargo run -p harness -- shell"),
        more = if verbose { String::new() } else { paint(QUIET, more) },
    );
    text
}

fn leases(world: &World) -> Result<Vec<String>> {
    let links = View::of(&world.lab.host("wsl")?.namespace)?.links;
    let named = links.iter().filter(|link| !link.names.is_empty());
    Ok(named
        .flat_map(|link| {
            let on = format!("{}  on {}", link.name, link.master.as_deref().unwrap_or("nothing"));
            std::iter::once(on).chain(link.names.iter().map(|name| format!("  {name}")))
        })
        .collect())
}

fn call(world: &World, command: &str) -> Result<Called> {
    let network = world.network(None)?;
    let netns = Path::new(FOLDER).join("web");
    let call = Call {
        binary: world.plugins.find(network.kind())?,
        command: command.to_owned(),
        env: environment(command, "web", Some(&netns), "eth0", None, &world.plugins.path()),
        stdin: network.to_json(),
        patience: PATIENCE,
    };
    let finished = call.run(&world.lab.host("wsl")?.namespace)?;
    let netns = netns.display();
    let line = format!("CNI_COMMAND={command} CNI_CONTAINERID=web CNI_NETNS={netns} CNI_IFNAME=eth0 flatnet");
    match call.read(&finished) {
        Ok(Answer::Done(result)) => Ok(Called { line, millis: finished.wall.as_secs_f64() * 1000.0, result }),
        Ok(Answer::Refused(refusal)) => bail!("{command}: {} {}", refusal.msg, refusal.details),
        Err(broken) => bail!("{command}: {broken}: {}{}", finished.stdout, finished.stderr),
    }
}

fn fetch(world: &World) -> Result<Page> {
    let question = Question {
        address: SocketAddr::from(([192, 168, 50, 1], forwarder::PORT)),
        host: NAME.to_owned(),
        path: "/".to_owned(),
        patience: Duration::from_secs(10),
    };
    match client::get(&world.lab.host("lan")?.namespace, &question)? {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => bail!("get the page: {} {}", answer.status, answer.body),
        Err(why) => bail!("get the page: {why}"),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n")
}
