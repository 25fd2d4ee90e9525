//! Times the shipped gateway under load against a plain nginx that keeps its connections, in the same world and in turns.
//!
//! Invariant: a figure counts only if every answer was a page of the container, and a ratio only compares runs of the same round.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::median;
use crate::deadline;
use crate::http::nginx;
use crate::lab::{FOLDER, Namespace};
use crate::plugin::{Answer, Call, PATIENCE, Plugins, environment};
use crate::scenario::Setting;
use crate::world::World;

/// How many clients ask at the same time.
const CLIENTS: [u32; 3] = [1, 32, 256];
/// How long a server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Where the gateway and the plain nginx listen, for clients of the LAN.
const GATEWAY: &str = "192.168.50.1";
/// Of ten requests, as many may leave a connection in `TIME_WAIT`: one that is closed after each request leaves all.
const TIME_WAIT_MAX: f64 = 0.1;

/// What is compared with the plain nginx: a name, the `Host` that is asked for, and the port.
const WAYS: [Way; 3] = [
    Way { what: "plain nginx", host: "10-87-1-2.flat", port: 81 },
    Way { what: "by address", host: "10-87-1-2.flat", port: 80 },
    Way { what: "by name", host: "web.flat", port: 80 },
];

/// How the container is asked.
struct Way {
    what: &'static str,
    host: &'static str,
    port: u16,
}

/// What is run.
#[derive(Debug)]
pub struct Load {
    /// How often each number of clients asks in each way.
    pub rounds: NonZero<u32>,
    /// How long each time.
    pub seconds: NonZero<u32>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// How many ask at the same time.
    pub clients: u32,
    /// In which way.
    pub way: &'static str,
    /// Requests in a second, the median.
    pub requests: f64,
    /// To the plain nginx, the median of the rounds.
    pub ratio: f64,
    /// What nginx and the node's service use of a processor for one, in microseconds, the median.
    pub processor: f64,
    /// Of that, what the plain nginx uses, the median of the rounds.
    pub processor_ratio: f64,
    /// How many connections of the gateway have come to be in `TIME_WAIT` in a run, at most.
    pub time_wait: u64,
    /// For each request.
    time_wait_share: f64,
}

/// One run of the client.
struct Run {
    rate: f64,
    requests: f64,
    /// For each request, in microseconds.
    processor: f64,
    time_wait: u64,
}

/// What is asked of each way, as parts of the plain nginx.
#[derive(Clone, Copy, Debug, Default)]
pub struct Least {
    /// Requests in a second. On a busy machine, chance has a hand in it.
    pub requests: Option<f64>,
    /// What the plain nginx uses of a processor for a request, of what this way does: others that are busy change it less.
    pub processor: Option<f64>,
}

impl Load {
    /// Runs it and prints the table, or the same as JSON; an error if some way has less than `least`.
    pub fn report(&self, plugins: Plugins, json: bool, least: Least) -> Result<()> {
        let rows = self.run(plugins)?;
        let text =
            if json { serde_json::to_string_pretty(&rows).context("write the figures")? + "\n" } else { table(&rows) };
        io::stdout().write_all(text.as_bytes()).context("write the figures")?;
        match collapse(&rows, least) {
            Some(why) => bail!("bear the load: {why}"),
            None => Ok(()),
        }
    }

    /// Must be called inside a [`crate::sandbox`].
    pub fn run(&self, plugins: Plugins) -> Result<Vec<Row>> {
        let world = build(plugins)?;
        let mut rows = Vec::new();
        for clients in CLIENTS {
            let mut runs = WAYS.each_ref().map(|_| Vec::new());
            for _ in 0..self.rounds.get() {
                for (way, runs) in WAYS.iter().zip(&mut runs) {
                    runs.push(self.ask(&world, way, clients)?);
                }
            }
            rows.extend(WAYS.iter().zip(&runs).map(|(way, run)| row(clients, way, run, &runs[0])));
        }
        Ok(rows)
    }

    fn ask(&self, world: &World, way: &Way, clients: u32) -> Result<Run> {
        let [lan, windows, wsl] =
            ["lan", "windows", "wsl"].map(|name| world.lab.host(name).map(|host| &host.namespace));
        let (lan, windows, wsl) = (lan?, windows?, wsl?);
        let used = || Ok::<_, anyhow::Error>(windows.processor_time(None)? + wsl.processor_time(None)?);
        let (before, used_before) = (time_wait(windows)?, used()?);
        let mut command = lan.command("wrk")?;
        command.args(["-t1", &format!("-c{clients}"), &format!("-d{}s", self.seconds)]);
        command.args(["-H", &format!("Host: {}", way.host), &format!("http://{GATEWAY}:{}/", way.port)]);
        let output = command.output().context("start wrk (ci/setup installs it)")?;
        let used = used()?.saturating_sub(used_before);
        let said = String::from_utf8_lossy(&output.stdout);
        let number = |line: &str| said.lines().find_map(|it| numbers(it, line));
        if !output.status.success() || said.contains("Non-2xx") || said.contains("Socket errors") {
            bail!("ask {} with {clients} clients: {said}{}", way.what, String::from_utf8_lossy(&output.stderr));
        }
        let rate = number("Requests/sec:").with_context(|| format!("read what wrk says: {said}"))?;
        let requests = rate * f64::from(self.seconds.get());
        let processor = used.as_secs_f64() * 1e6 / requests.max(1.0);
        Ok(Run { rate, requests, processor, time_wait: time_wait(windows)?.saturating_sub(before) })
    }
}

/// Why these figures are those of a gateway that has collapsed, if so. Without `least`, none are.
pub fn collapse(rows: &[Row], least: Least) -> Option<String> {
    if least.requests.is_none() && least.processor.is_none() {
        return None;
    }
    rows.iter().find_map(|row| {
        let Row { clients, way, ratio, processor_ratio, time_wait, .. } = row;
        if least.requests.is_some_and(|least| *ratio < least) {
            return Some(format!("{clients} clients {way} get {ratio:.2} of plain nginx"));
        }
        if least.processor.is_some_and(|least| *processor_ratio < least) {
            return Some(format!(
                "{clients} clients {way} cost so much of a processor that plain nginx uses {processor_ratio:.2} of it"
            ));
        }
        let wasteful = row.time_wait_share > TIME_WAIT_MAX;
        wasteful.then(|| format!("{clients} clients {way} left {time_wait} connections in TIME_WAIT"))
    })
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| clients | | requests/s | of plain nginx | µs of a processor for each | plain nginx of that | new in TIME_WAIT |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { clients, way, requests, ratio, processor, processor_ratio, time_wait, .. } = row;
        let line = format!(
            "| {clients} | {way} | {requests:.0} | {ratio:.2} | {processor:.0} | {processor_ratio:.2} | {time_wait} |\n"
        );
        text.push_str(&line);
    }
    text
}

fn row(clients: u32, way: &Way, runs: &[Run], plain: &[Run]) -> Row {
    Row {
        clients,
        way: way.what,
        requests: median(runs.iter().map(|run| run.rate)),
        ratio: median(runs.iter().zip(plain).map(|(run, plain)| run.rate / plain.rate)),
        processor: median(runs.iter().map(|run| run.processor)),
        processor_ratio: median(runs.iter().zip(plain).map(|(run, plain)| plain.processor / run.processor)),
        time_wait: runs.iter().map(|run| run.time_wait).max().unwrap_or_default(),
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 connections")]
        time_wait_share: runs.iter().map(|run| run.time_wait as f64 / run.requests.max(1.0)).fold(0.0, f64::max),
    }
}

/// A container with an nginx in it, the gateway, and a plain nginx beside it.
fn build(plugins: Plugins) -> Result<World> {
    let mut world = World::build(Arc::new(Setting::usual()?), plugins)?;
    world.lab.container("web")?;
    world.start_gateway("wsl")?;
    attach(&world)?;
    let (web, windows) = (world.lab.namespace("web")?, &world.lab.host("windows")?.namespace);
    let page = "server { listen 80; location / { return 200 \"a page of some bytes\\n\"; } }";
    start(nginx::with(web, "page", page)?, web, "10.87.1.2:80")?;
    let plain = "upstream container { server 10.87.1.2:80; keepalive 256; keepalive_requests 100000; }\n\
        server { listen 81; location / { proxy_pass http://container; proxy_http_version 1.1; \
        proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr; } }";
    start(nginx::with(windows, "plain", plain)?, windows, "172.30.0.1:81")?;
    start(nginx::command(windows)?, windows, "172.30.0.1:80")?;
    Ok(world)
}

fn attach(world: &World) -> Result<()> {
    let network = world.network(None)?;
    let netns = Path::new(FOLDER).join("web");
    let call = Call {
        binary: world.plugins.find(network.kind())?,
        command: "ADD".into(),
        env: environment("ADD", "web", Some(&netns), "eth0", Some("K8S_POD_NAME=web"), &world.plugins.path()),
        stdin: network.to_json(),
        patience: PATIENCE,
    };
    let finished = call.run(&world.lab.host("wsl")?.namespace)?;
    match call.read(&finished) {
        Ok(Answer::Done(_)) => Ok(()),
        other => bail!("attach a container: {other:?}"),
    }
}

/// Starts a server that lasts as long as this world, and waits until it listens.
fn start(mut command: Command, namespace: &Namespace, at: &str) -> Result<()> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("start nginx at {at}"))?;
    let at: SocketAddr = at.parse().context("read an address")?;
    let listens = || namespace.enter(|| Ok(TcpStream::connect(at)?)).ok();
    deadline::until(START_PATIENCE, listens).map(drop).with_context(|| format!("wait for nginx at {at}"))
}

/// How many connections of the namespace wait for their last packets to die out.
fn time_wait(namespace: &Namespace) -> Result<u64> {
    namespace.enter(|| {
        let text = fs::read_to_string("/proc/thread-self/net/sockstat").context("read the counts of sockets")?;
        let count = text.split_whitespace().skip_while(|word| *word != "tw").nth(1);
        count.and_then(|count| count.parse().ok()).context("find the count of TIME_WAIT")
    })
}

/// The number after `name` in `line`.
fn numbers(line: &str, name: &str) -> Option<f64> {
    line.trim().strip_prefix(name)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rates: [f64; 3], processor: f64, time_wait: u64) -> Vec<Run> {
        rates.map(|rate| Run { rate, requests: rate, processor, time_wait }).into()
    }

    #[test]
    fn a_gateway_that_is_slow_or_costs_much_or_closes_its_connections_has_collapsed() {
        let plain = runs([1000.0, 900.0, 100.0], 20.0, 3);
        let of = |rates, processor, time_wait| vec![row(32, &WAYS[1], &runs(rates, processor, time_wait), &plain)];
        let good = of([900.0, 800.0, 90.0], 25.0, 3);
        insta::assert_snapshot!(table(&good), @r"
        | clients | | requests/s | of plain nginx | µs of a processor for each | plain nginx of that | new in TIME_WAIT |
        |---|---|---|---|---|---|---|
        | 32 | by address | 800 | 0.90 | 25 | 0.80 | 3 |
        ");
        let least = Least { requests: Some(0.5), processor: Some(0.7) };
        assert_eq!(collapse(&good, least), None);
        let why = |rows: Vec<Row>| collapse(&rows, least).unwrap_or_default();
        assert!(why(of([20.0, 18.0, 2.0], 25.0, 0)).contains("get 0.02"));
        assert!(why(of([900.0, 800.0, 90.0], 50.0, 0)).contains("uses 0.40"));
        assert!(why(of([900.0, 800.0, 90.0], 25.0, 700)).contains("TIME_WAIT"));
        assert_eq!(collapse(&of([20.0, 18.0, 2.0], 50.0, 700), Least::default()), None);
    }
}
