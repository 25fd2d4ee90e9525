//! What flatnet does, step by step, on standard error, where `FLATNET_LOG` is set. Off by default, and then it costs one comparison a step.
//!
//! Under a service standard error is the journal; under Podman it is what `podman --log-level=debug` shows.

use std::env;
use std::io::Write;
use std::time::Instant;

use log::LevelFilter;

/// The environment variable that has the level: `debug` for steps, `trace` for the messages to and from the kernel as well.
pub(crate) const VARIABLE: &str = "FLATNET_LOG";

/// Begins to write, if the variable asks for it. Each line has the time since then, in milliseconds.
pub(crate) fn start() {
    let Some(level) = env::var_os(VARIABLE).filter(|level| !level.is_empty()) else { return };
    let Some(level) = level.to_str().and_then(|level| level.parse::<LevelFilter>().ok()) else {
        eprintln!(
            "flatnet: unsupported value for {VARIABLE}: {} (use error, warn, info, debug or trace)",
            level.display()
        );
        return;
    };
    let began = Instant::now();
    let line = move |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let elapsed = began.elapsed().as_secs_f64() * 1e3;
        writeln!(out, "flatnet: {elapsed:8.3} ms {} {}", record.level().as_str().to_ascii_lowercase(), record.args())
    };
    // Only flatnet's own: libraries have logs of their own.
    env_logger::Builder::new().filter_module("flatnet", level).format(line).init();
}
