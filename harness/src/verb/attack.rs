//! `attack`: what becomes of others' requests while a container keeps a server busy.
//!
//! Invariant: the same requests are made before and during the attack, one after the other, and each counts.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Deserialize;

use super::http::{Way, check_way, lacks_nginx};
use super::{Failure, Misfit, Verb, misfit};
use crate::http::attack::{Attack, Kind};
use crate::http::client::{self, Question};
use crate::lab::Namespace;
use crate::scenario::Setting;
use crate::world::World;

/// What the attacker needs to get going.
const WARM_UP: Duration = Duration::from_millis(300);
/// The name service's process, as the kernel calls it.
const SERVICE: &str = "flatnet";

/// `{ attack = "evil", kind = "hold", to = "10.87.1.1:8053", ask = "http://web.flat/", via = "windows", expect = { share = 0.5 } }`
#[derive(Debug)]
pub(super) struct Step {
    container: String,
    options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    kind: Kind,
    to: SocketAddr,
    #[serde(default = "root")]
    path: String,
    #[serde(default = "two")]
    workers: usize,
    connections: Option<usize>,
    seconds: Option<u64>,
    /// What the others ask for.
    ask: String,
    via: Option<String>,
    from: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    expect: Expect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    /// Of the requests that are answered without an attack, how many are during it.
    share: Option<f64>,
    slowest_ms: Option<u128>,
    /// How much of one processor the service may use.
    processor: Option<f64>,
    /// How many requests may go wrong.
    failures: u32,
}

fn root() -> String {
    "/".to_owned()
}

fn two() -> usize {
    2
}

impl Step {
    pub(super) fn new(container: String, options: Options) -> Self {
        Self { container, options }
    }
}

impl Verb for Step {
    fn describe(&self) -> String {
        format!("attack {} by {:?} from {}", self.options.to, self.options.kind, self.container)
    }

    fn check(&self, setting: &Setting) -> Result<(), Misfit> {
        misfit("attack", setting.node(None))?;
        check_way("ask", &self.options.ask, setting, self.options.via.as_deref(), self.options.from.as_deref())
    }

    fn place(&self) -> Option<(&'static str, &str)> {
        Some(("attack", &self.container))
    }

    fn lacks(&self, setting: &Setting) -> Option<String> {
        lacks_nginx(setting, self.options.via.as_deref())
    }

    fn run(&self, world: &mut World) -> Result<String, Failure> {
        let Options { kind, to, path, workers, connections, seconds, ask, via, from, timeout_ms, expect } =
            &self.options;
        let node = world.setting().node(None).map_err(Failure::wrong)?.to_owned();
        let evil = world.place(&self.container)?.clone();
        let node = world.lab.namespace(&node)?.clone();
        let way = Way::find(world, ask, via.as_deref(), from.as_deref(), None, *timeout_ms)?;
        let time = Duration::from_secs(seconds.unwrap_or(2));
        let calm = Tally::take(way.from, &way.question, time)?;
        let attack = Attack {
            kind: *kind,
            address: *to,
            path: path.clone(),
            workers: *workers,
            connections: connections.unwrap_or(150),
            until: Instant::now() + WARM_UP + time,
        };
        let (used, attacked) = thread::scope(|scope| {
            let attack = scope.spawn(|| {
                evil.enter(|| {
                    attack.run();
                    Ok(())
                })
            });
            thread::sleep(WARM_UP);
            let before = node.processor_time(Some(SERVICE))?;
            let start = Instant::now();
            let attacked = Tally::take(way.from, &way.question, time)?;
            let used = (node.processor_time(Some(SERVICE))?.saturating_sub(before)).as_secs_f64()
                / start.elapsed().as_secs_f64();
            attack.join().map_err(|_| anyhow!("attack"))??;
            Ok::<_, anyhow::Error>((used, attacked))
        })?;
        let line = format!("calm {calm}, attacked {attacked}; the service used {:.0} % of a processor", used * 100.0);
        match expect.broken(&calm, &attacked, used) {
            None => Ok(line),
            Some(expected) => Err(Failure::mismatch(expected, line)),
        }
    }
}

impl Expect {
    /// What does not hold, in words.
    fn broken(&self, calm: &Tally, attacked: &Tally, used: f64) -> Option<String> {
        let share = f64::from(attacked.answers) / f64::from(calm.answers.max(1));
        if attacked.failures > self.failures || calm.failures > 0 {
            return Some(format!("{} failures at most", self.failures));
        }
        if self.share.is_some_and(|least| share < least) {
            return Some(format!("{} of the answers, not {share:.2}", self.share.unwrap_or_default()));
        }
        if self.slowest_ms.is_some_and(|most| attacked.slowest.as_millis() > most) {
            return Some(format!("the slowest in {} ms", self.slowest_ms.unwrap_or_default()));
        }
        let most = self.processor.filter(|most| used > *most)?;
        Some(format!("{:.0} % of a processor at most", most * 100.0))
    }
}

/// What became of requests that were made one after the other.
#[derive(Debug, Default)]
struct Tally {
    answers: u32,
    failures: u32,
    slowest: Duration,
}

impl Tally {
    fn take(from: &Namespace, question: &Question, time: Duration) -> Result<Self> {
        let mut tally = Self::default();
        let end = Instant::now() + time;
        while Instant::now() < end {
            let start = Instant::now();
            match client::get(from, question)? {
                Ok(answer) if answer.status < 500 => tally.answers += 1,
                _ => tally.failures += 1,
            }
            tally.slowest = tally.slowest.max(start.elapsed());
        }
        Ok(tally)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answers, {} failures, slowest {} ms", self.answers, self.failures, self.slowest.as_millis())
    }
}
