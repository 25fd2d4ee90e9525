//! What the scenarios send to flatnet, as files: what its fuzz targets (`plugin/fuzz`) begin with.
//!
//! Invariant: a seed has the very bytes that the plugin gets in a scenario, but for what only a running world knows.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::hostile;
use crate::scenario::{Scenario, Setting};
use crate::suite;

/// The longest that is worth keeping: what is long on purpose is tried by scenarios, and slows fuzzing down.
const LONGEST_BYTES: usize = 4096;

/// An input of a fuzz target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
}

/// Writes the seeds of all scenarios, and of all hostile requests, below `folder`; gives their number.
pub fn write(folder: &Path) -> Result<usize> {
    let mut seeds = Vec::new();
    for file in suite::find(&[])? {
        let scenario = Scenario::load(&file)?;
        seeds.extend(scenario.steps.iter().flat_map(|step| step.verb.seeds(&scenario.setting)));
    }
    seeds.extend(hostile::seeds(&Setting::usual()?.network));
    let mut written = 0;
    for Seed { target, bytes } in seeds.iter().filter(|seed| seed.bytes.len() <= LONGEST_BYTES) {
        let below = folder.join(target);
        fs::create_dir_all(&below).with_context(|| format!("make {}", below.display()))?;
        // The same content is one file.
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let file = below.join(format!("seed-{:016x}", hasher.finish()));
        written += usize::from(!file.exists());
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(written)
}

/// A CNI request, and its parts.
pub(crate) fn of_cni(env: &BTreeMap<impl AsRef<OsStr> + Ord, impl AsRef<OsStr>>, stdin: impl AsRef<[u8]>) -> Vec<Seed> {
    let stdin = stdin.as_ref();
    let mut request = Vec::new();
    let mut seeds = Vec::new();
    for (name, value) in env {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        request.extend_from_slice(&[name, b"=", value, b"\0"].concat());
        if name == b"CNI_ARGS" {
            seeds.push(Seed { target: "args", bytes: value.to_vec() });
        }
    }
    request.push(0);
    request.extend_from_slice(stdin);
    seeds.push(Seed { target: "request", bytes: request });
    seeds.push(Seed { target: "config", bytes: stdin.to_vec() });
    seeds
}

/// A request of netavark's, and the ports in it.
pub(crate) fn of_netavark(stdin: &str) -> Vec<Seed> {
    let mut seeds = vec![Seed { target: "netavark", bytes: stdin.as_bytes().to_vec() }];
    let request: Option<Value> = serde_json::from_str(stdin).ok();
    let ports = request.and_then(|request| Some(request.get("port_mappings")?.to_string()));
    seeds.extend(ports.map(|ports| Seed { target: "ports", bytes: ports.into_bytes() }));
    seeds
}

/// What an ADD in the usual world answers, for requests that bring it along.
pub(crate) fn result_of_add() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "flatnet-br0", "mac": "0a:57:0a:57:01:01" },
            { "name": "fn-b687a4b0", "mac": "0a:57:00:00:00:01" },
            { "name": "eth0", "mac": "0a:57:0a:57:01:02", "sandbox": "/run/netns/web" },
        ],
        "ips": [{ "interface": 2, "address": "10.87.1.2/24", "gateway": "10.87.1.1" }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.87.1.1" }],
        "dns": {},
    })
}
