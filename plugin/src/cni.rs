//! CNI: what a runtime asks, and a recipe for each of its verbs.

pub(crate) mod add;
pub(crate) mod check;
mod del;
pub(crate) mod gc;
pub(crate) mod request;
mod status;
pub(crate) mod trial;
mod undo;

pub(crate) use self::add::{Source, attach};
pub(crate) use self::del::{Published, detach, remove};

use std::process::ExitCode;

use log::debug;
use serde_json::{Map, Value};

use self::request::{Environment, Input};
use crate::call::{begin_call, block_on, panic_message};
use crate::config::{self, Configured};
use crate::deadline;
use crate::delegate::Delegate;
use crate::error::{Error, Result, both};
use crate::reply::{self, Reply};
use crate::rootless;
use crate::spec::{self, Command, SpecVersion};

/// Answers a CNI runtime: one object or nothing on standard output, and the exit code.
pub(crate) fn answer() -> ExitCode {
    begin_call();
    // A panic's own text goes to standard error; the runtime still gets its error object.
    let outcome = std::panic::catch_unwind(carry_out).unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(reply::error(spec::NEWEST, &Error::Internal { message }))
    });
    match (reply::write(&outcome), outcome) {
        (Ok(()), Ok(_)) => ExitCode::SUCCESS,
        (Ok(()), Err(_)) => ExitCode::FAILURE,
        (Err(e), _) => {
            eprintln!("flatnet: failed to write standard output: {e}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<Reply, Value> {
    let environment = Environment::read();
    let mut config = Map::new();
    let outcome = environment.command().and_then(|command| {
        debug!("{command}: {environment:?}");
        let text = request::read_stdin(deadline::CALL)?;
        config = Input::read(command, &text)?;
        run(command, &environment, config.clone(), &text)
    });
    match &outcome {
        Ok(_) => debug!("done"),
        Err(error) => debug!("failed with code {}: {error}", error.code()),
    }
    outcome.map_err(|error| reply::error(request::version_to_answer(&config), &error))
}

/// What a runtime called flatnet with: what another plugin is called with that gives the network's addresses (`ipam.type`).
struct Call<'a> {
    command: Command,
    environment: &'a Environment,
    /// Standard input, as it came.
    text: &'a str,
}

impl<'a> Call<'a> {
    /// The plugin of that name. Errors: 4 and 110.
    fn find(&self, plugin: &'a str) -> Result<Delegate<'a>> {
        Delegate::find(plugin, &self.environment.plugin_folders()?, self.command, self.text)
    }

    /// Has `plugin`, if there is one, carry out the command too, whatever became of flatnet's own part, and after that: what it gives out is
    /// never still in use. Reports both failures.
    fn pass_on(&self, own: Result<Reply>, plugin: Option<&'a str>) -> Result<Reply> {
        let Some(plugin) = plugin else { return own };
        // It has a patience of its own, and must hear of it also where flatnet's part was late.
        let theirs = self.find(plugin).and_then(|delegate| block_on(delegate.run(self.command)));
        both(own.map(drop), theirs).map(|()| Reply::Nothing)
    }
}

/// Carries out `command`. Everything is validated before anything is touched. `text` is what `config` was read from.
fn run(command: Command, environment: &Environment, config: Map<String, Value>, text: &str) -> Result<Reply> {
    // Whatever version is asked about: it need not be one that exists.
    if command == Command::Version {
        return Ok(version(&config));
    }
    let input = Input::negotiate(config, command)?;
    let call = Call { command, environment, text };
    match command {
        Command::Add => block_on(add::add(&call, &input)),
        Command::Del => {
            let target = environment.target(command)?;
            let network = config::name_of(&input.config)?;
            let done = block_on(del::del(&target, &network));
            call.pass_on(done, config::delegate_of(&input.config))
        }
        Command::Check => {
            let target = environment.target(command)?;
            let configured = Configured::parse(&input.config)?;
            let prev = check::PrevResult::read(&input.config, input.version, &target)?;
            let checked = block_on(check::check(&target, configured, &prev));
            call.pass_on(checked, config::delegate_of(&input.config))
        }
        Command::Gc => {
            environment.require_path()?;
            let network = config::name_of(&input.config)?;
            let valid = gc::Valid::parse(&input.config)?;
            call.pass_on(block_on(gc::gc(&network, &valid)), config::delegate_of(&input.config))
        }
        Command::Status => {
            let configured = Configured::parse(&input.config)?;
            rootless::refuse().map_err(|cause| status::not_ready(false, &cause))?;
            match configured {
                Configured::Whole(network) => block_on(status::status(network)),
                Configured::Delegated(draft, plugin) => {
                    let status = call.pass_on(block_on(status::status_of_delegated(draft)), Some(&plugin));
                    status.map_err(status::without_delegate)
                }
            }
        }
        Command::Version => unreachable!("answered above"),
    }
}

/// VERSION needs nothing but the question's own version, whatever it is; none counts as 0.1.0.
pub(crate) fn version(config: &Map<String, Value>) -> Reply {
    let asked = config.get("cniVersion").and_then(Value::as_str).filter(|asked| !asked.is_empty());
    Reply::Versions(asked.unwrap_or(SpecVersion::V0_1_0.as_str()).to_owned())
}
