//! What is true of any CNI request whatever: see [`super::request`].

use serde_json::{Map, Value};

use super::sound::{can_be_built, can_have, is_recorded, is_sound, refused};
use crate::attachment::Target;
use crate::cni::request::requested::Requested;
use crate::cni::request::{Environment, Input, version_to_answer};
use crate::cni::{add, check, gc, version};
use crate::config::{self, Configured, Network};
use crate::error::Result;
use crate::reply::Reply;
use crate::spec::{self, Command};

/// All that [`crate::cni::answer`] does before it acts.
pub(super) fn request(command: Command, environment: &Environment, config: Map<String, Value>) {
    assert!(spec::SUPPORTED.contains(&version_to_answer(&config)));
    assert!(matches!(version(&config), Reply::Versions(version) if !version.is_empty()));
    let input = match Input::negotiate(config, command) {
        Ok(input) => input,
        Err(error) => return refused(&error, &[1, 7]),
    };
    assert!(spec::SUPPORTED.contains(&input.version));
    let config = &input.config;
    match command {
        Command::Add => match add_of(environment, &input) {
            Err(error) => refused(&error, &[2, 4, 7]),
            Ok((target, configured, asked)) => {
                can_be_built(&configured);
                let name = match &configured {
                    Configured::Whole(network) => {
                        match asked.of_pools(&network.pools) {
                            Err(error) => refused(&error, &[4, 7]),
                            Ok(ips) => ips.into_iter().for_each(|asked| can_have(&network.pools, asked)),
                        }
                        &network.name
                    }
                    Configured::Delegated(draft, _) => &draft.name,
                };
                is_recorded(name, &target);
                // Whatever ADD takes, DEL takes back.
                let (deleted, of) = del_of(environment, config).expect("a request for DEL");
                assert_eq!((deleted.container, deleted.interface), (target.container, target.interface));
                assert_eq!(&of, name);
            }
        },
        Command::Del => match del_of(environment, config) {
            Err(error) => refused(&error, &[4, 7]),
            Ok((target, network)) => is_recorded(&network, &target),
        },
        Command::Check => match check_of(environment, &input) {
            Err(error) => refused(&error, &[2, 4, 7]),
            Ok(network) => is_sound(&network),
        },
        Command::Gc => {
            let asked = environment.require_path().and_then(|()| config::name_of(config));
            if let Err(error) = asked.and_then(|_| gc::Valid::parse(config)) {
                refused(&error, &[4, 7]);
            }
        }
        Command::Status => match Configured::parse(config) {
            Err(error) => refused(&error, &[2, 7]),
            Ok(configured) => can_be_built(&configured),
        },
        Command::Version => {}
    }
}

fn add_of(environment: &Environment, input: &Input) -> Result<(Target, Configured, Requested)> {
    let target = environment.target(Command::Add)?;
    let configured = Configured::parse(&input.config)?;
    add::before(&input.config, input.version)?;
    let asked = Requested::read(&target.args, &input.config)?;
    Ok((target, configured, asked))
}

fn del_of(environment: &Environment, config: &Map<String, Value>) -> Result<(Target, String)> {
    Ok((environment.target(Command::Del)?, config::name_of(config)?))
}

fn check_of(environment: &Environment, input: &Input) -> Result<Network> {
    let target = environment.target(Command::Check)?;
    let configured = Configured::parse(&input.config)?;
    let prev = check::PrevResult::read(&input.config, input.version, &target)?;
    let network = prev.complete(configured, &[])?;
    prev.expected(&target, &network, &[])?;
    Ok(network)
}
