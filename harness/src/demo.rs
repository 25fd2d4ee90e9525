//! What flatnet does, shown in a second: a container joins, a LAN client gets its page, the container leaves.
//!
//! Invariant: everything shown is what the real plugin, the kernel and a real HTTP answer said; the world is gone afterwards.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http::client::{self, Question};
use crate::http::{forwarder, server};
use crate::lab::{FOLDER, View};
use crate::plugin::{Answer, Call, PATIENCE, Plugins, environment};
use crate::scenario::Setting;
use crate::world::World;

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

/// Shows it. Must be called in a fresh world.
pub fn run(plugins: Plugins) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "flatnet in a throwaway network: no root, and nothing of yours is touched\n{PICTURE}")?;
    let mut world = World::build(Arc::new(Setting::usual()?), plugins)?;
    world.lab.container("web")?;

    let result = call(&world, "ADD", &mut out, "1. The runtime asks for an address: ADD")?;
    writeln!(out, "{}\n", indent(&serde_json::to_string_pretty(&result).context("show the result")?))?;

    writeln!(out, "2. The lease is a name of the container's link, kept by the kernel; no file, no daemon")?;
    for link in View::of(&world.lab.host("wsl")?.namespace)?.links.iter().filter(|link| !link.names.is_empty()) {
        writeln!(out, "     {}  on {}", link.name, link.master.as_deref().unwrap_or("nothing"))?;
        link.names.iter().try_for_each(|name| writeln!(out, "       {name}"))?;
    }

    writeln!(out, "\n3. A LAN client asks the gateway for http://10-87-1-2.flat/")?;
    world.serve("web", 80, None)?;
    world.proxy("windows")?;
    fetch(&world, &mut out)?;

    call(&world, "DEL", &mut out, "\n4. The container goes: DEL")?;
    world.lab.crash_all()?;
    let left = world.leftovers()?;
    if !left.is_empty() {
        bail!("leave nothing behind:\n{}", left.join("\n"));
    }
    writeln!(out, "     left on wsl: nothing (the empty bridge stays for the next container)\n")?;
    writeln!(out, "Look around in such a network: cargo run -p harness -- shell lifecycle/a-container-answers")?;
    Ok(())
}

/// Calls the plugin and says how long it took.
fn call(world: &World, command: &str, out: &mut impl Write, title: &str) -> Result<Option<serde_json::Value>> {
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
    writeln!(out, "{title}  ({:.1} ms)", finished.wall.as_secs_f64() * 1000.0)?;
    writeln!(
        out,
        "     CNI_COMMAND={command} CNI_CONTAINERID=web CNI_NETNS={} CNI_IFNAME=eth0 flatnet",
        netns.display()
    )?;
    match call.read(&finished) {
        Ok(Answer::Done(result)) => Ok(result),
        Ok(Answer::Refused(refusal)) => bail!("{command}: {} {}", refusal.msg, refusal.details),
        Err(broken) => bail!("{command}: {broken}: {}{}", finished.stdout, finished.stderr),
    }
}

fn fetch(world: &World, out: &mut impl Write) -> Result<()> {
    let question = Question {
        address: SocketAddr::from(([192, 168, 50, 1], forwarder::PORT)),
        host: "10-87-1-2.flat".to_owned(),
        path: "/".to_owned(),
        patience: Duration::from_secs(10),
    };
    let answer = match client::get(&world.lab.host("lan")?.namespace, &question)? {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => bail!("get the page: {} {}", answer.status, answer.body),
        Err(why) => bail!("get the page: {why}"),
    };
    let said = |header| answer.header(header).unwrap_or("?");
    writeln!(out, "     {}  {}", answer.status, answer.body.trim_end())?;
    writeln!(
        out,
        "     {} answered, and saw the gateway's own address {}:",
        said(server::SERVED_BY),
        said(server::SAW_PEER)
    )?;
    writeln!(out, "     no NAT between the two (the proxy passed on for whom: {})", said(server::SAW_FORWARDED_FOR))?;
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n")
}
