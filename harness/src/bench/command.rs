//! `harness bench`: what it is asked, and which of the two benches that is.

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::Result;

use super::gateway::{Least, Load};
use super::{Bench, Output};
use crate::plugin::Plugins;

/// What is timed, against what, and how the figures are given.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of the reference plugins, such as /usr/lib/cni.
    #[arg(long, required_unless_present = "gateway")]
    against: Option<PathBuf>,
    /// The gateway under load instead, by address and by name, for 1, 32 and 256 clients; needs wrk and nginx.
    #[arg(long, conflicts_with = "against")]
    gateway: bool,
    /// With --gateway: how long each run takes.
    #[arg(long, default_value = "4", requires = "gateway")]
    seconds: NonZero<u32>,
    /// With --gateway: fail where it answers less than this part of the plain nginx's requests, or uses up connections.
    #[arg(long, requires = "gateway")]
    at_least: Option<f64>,
    /// With --gateway: fail where the plain nginx uses less than this part of its processor time for a request, or it uses up
    /// connections. On a busy machine less is chance in this than in requests.
    #[arg(long, requires = "gateway")]
    at_least_processor: Option<f64>,
    /// The folder of flatnet; without it the plugin is built from this repository.
    #[arg(long)]
    pub plugin_dir: Option<PathBuf>,
    /// How often each verb of each is timed; with --gateway, how often each run is made.
    #[arg(long, default_value = "100", default_value_if("gateway", "true", "3"))]
    rounds: NonZero<u32>,
    /// How many other containers each has on its bridge, of the 1,023 that the kernel allows: a table for each number.
    #[arg(long, value_delimiter = ',', default_value = "1", conflicts_with = "gateway")]
    beside: Vec<NonZero<u32>>,
    /// netavark's program, such as /usr/lib/podman/netavark: its bridge driver is compared, too.
    #[arg(long, conflicts_with = "gateway")]
    netavark: Option<PathBuf>,
    /// Draw the times as an SVG into this file, too.
    #[arg(long, conflicts_with = "gateway")]
    chart: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// The inside of it. Must be called inside a [`crate::sandbox`].
pub fn run(arguments: &Arguments, plugins: Plugins) -> Result<()> {
    let Arguments { seconds, at_least, at_least_processor, rounds, json, .. } = *arguments;
    let Some(against) = arguments.against.clone() else {
        let least = Least { requests: at_least, processor: at_least_processor };
        return Load { rounds, seconds }.report(plugins, json, least);
    };
    let (netavark, beside) = (arguments.netavark.clone(), arguments.beside.clone());
    let bench = Bench { plugin_dir: plugins.folder().to_owned(), against, netavark, rounds, beside };
    bench.report(&Output { json, chart: arguments.chart.clone() })
}
