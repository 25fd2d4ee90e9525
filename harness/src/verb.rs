//! What a step can do. To add a verb: write a type that is a [`Verb`], and add its line to `VERBS`.
//!
//! Invariant: a verb is checked against its scenario before anything runs, and looks at fresh state whenever it runs.

mod advertise;
mod attack;
mod cni;
mod cni_expect;
mod cni_fault;
mod disk;
mod doctor;
mod fault;
mod gateway;
mod host;
mod hostile;
mod http;
mod kernel;
mod meanwhile;
mod netavark;
mod netavark_answer;
mod parallel;
mod process;
mod spoof;
mod stand_in;
mod transfer;

use std::fmt;

pub(crate) use cni_expect::first_address;
pub(crate) use stand_in::some_address;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

use crate::plugin::Broken;
use crate::scenario::Setting;
use crate::seeds::Seed;
use crate::tally::Harm;
use crate::world::World;

/// Reads a step of one verb.
type Read = fn(Words<'_>) -> Result<Box<dyn Verb>, Error>;

/// All verbs.
const VERBS: &[(&str, Read)] = &[
    ("add", |words| words.verb(cni::add)),
    ("del", |words| words.verb(cni::del)),
    ("check", |words| words.verb(cni::check)),
    ("version", |words| words.verb(cni::version)),
    ("cni", |words| words.verb(cni::any)),
    ("parallel", |words| words.verb(parallel::Parallel::new)),
    ("stand_in", |words| words.verb(stand_in::Make::new)),
    ("asked", |words| words.verb(stand_in::Asked::new)),
    ("netavark", |words| words.verb(netavark::call)),
    ("hostile", |words| words.verb(hostile::Hostile::new)),
    ("container", |words| words.verb(process::Container::new)),
    ("serve", |words| words.verb(http::Serve::new)),
    ("get", |words| words.verb(http::Get::new)),
    ("websocket", |words| words.verb(http::Websocket::new)),
    ("transfer", |words| words.verb(transfer::Transfer::new)),
    ("spoof", |words| words.verb(spoof::Spoof::new)),
    ("attack", |words| words.verb(attack::Step::new)),
    ("gateway", |words| words.verb(gateway::Gateway::new)),
    ("leases", |words| words.verb(kernel::Leases::new)),
    ("links", |words| words.verb(kernel::Links::new)),
    ("routes", |words| words.verb(kernel::Routes::new)),
    ("sysctl", |words| words.verb(kernel::Sysctl::new)),
    ("renumber", |words| words.verb(host::Renumber::new)),
    ("route", |words| words.verb(host::Route::new)),
    ("advertise", |words| words.verb(advertise::Advertise::new)),
    ("cut", |words| words.verb(host::Plug::cut)),
    ("mend", |words| words.verb(host::Plug::mend)),
    ("reboot", |words| words.verb(host::Reboot::new)),
    ("readonly", |words| words.verb(disk::Disk::readonly)),
    ("fill", |words| words.verb(disk::Disk::fill)),
    ("writable", |words| words.verb(disk::Disk::writable)),
    ("run", |words| words.verb(process::Run::new)),
    ("doctor", |words| words.verb(doctor::Doctor::new)),
    ("kill", |words| words.verb(process::Kill::new)),
    ("stop", |words| words.verb(process::Stop::new)),
];

/// One step's doing.
pub trait Verb: fmt::Debug + Send + Sync {
    /// The step in a few words, for the transcript.
    fn describe(&self) -> String;

    /// Whether it fits its scenario: the names that it uses exist, its options go together.
    fn check(&self, setting: &Setting) -> Result<(), Misfit>;

    /// The containers that there are by it: other steps may name these, and no others.
    fn introduces(&self) -> Vec<String> {
        Vec::new()
    }

    /// The host or container that it needs to be there, and the option that names it.
    fn place(&self) -> Option<(&'static str, &str)> {
        None
    }

    /// The steps within it; they are checked as it is.
    fn within(&self) -> &[Box<dyn Verb>] {
        &[]
    }

    /// What this machine lacks for it, in words; then the scenario is skipped.
    fn lacks(&self, _setting: &Setting) -> Option<String> {
        None
    }

    /// Whether it takes away something to look at: a container, an attachment, a wire.
    fn takes_away(&self) -> bool {
        false
    }

    /// What goes into flatnet by it, for fuzzing to begin with.
    fn seeds(&self, _setting: &Setting) -> Vec<Seed> {
        Vec::new()
    }

    /// Does it; gives what came of it in a few words.
    fn run(&self, world: &mut World) -> Result<String, Failure>;
}

/// Why a verb does not fit its scenario.
#[derive(Debug)]
pub struct Misfit {
    /// The option at fault.
    pub option: &'static str,
    /// What is wrong with it.
    pub text: String,
}

/// Turns a complaint into one about an option.
fn misfit<T>(option: &'static str, checked: Result<T, String>) -> Result<(), Misfit> {
    checked.map(drop).map_err(|text| Misfit { option, text })
}

/// Why a step failed.
#[derive(Debug, Default)]
pub struct Failure {
    /// What should have been, if that is the reason.
    pub expected: Option<String>,
    /// What was, or what went wrong.
    pub got: String,
    /// What kind of harm it is.
    pub harm: Harm,
    /// What may help to see why: a title and a text each.
    pub evidence: Vec<(String, String)>,
    /// How much it counts where a plugin is held against a rule.
    pub weight: Weight,
    /// The fault, of many that the step tries, that brought it about, as [`crate::fault::ONLY`] takes it.
    pub fault: Option<String>,
}

/// How much a failure counts where a plugin is held against a rule of CNI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As much as the rule.
    #[default]
    Full,
    /// No "must" asks for it: the plugin does refuse, and not in the words that the specification gives, or the step is a "should".
    Words,
    /// Nothing: the rule is not about such a plugin.
    Nothing,
    /// Nothing: it is the harness that could not do its part.
    Unknown,
}

impl Failure {
    /// Something else was expected.
    pub fn mismatch(expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self { expected: Some(expected.to_string()), got: got.to_string(), ..Self::default() }
    }

    /// Something went wrong.
    pub fn wrong(got: impl fmt::Display) -> Self {
        Self { got: got.to_string(), ..Self::default() }
    }

    /// Says what kind of harm it is.
    #[must_use]
    pub fn harm(mut self, harm: Harm) -> Self {
        self.harm = harm;
        self
    }

    /// Says how much it counts.
    #[must_use]
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Itself in a line.
    pub fn line(&self) -> String {
        match &self.expected {
            Some(expected) => format!("expected {expected}, got {}", self.got),
            None => self.got.clone(),
        }
    }

    /// Adds a text that may help.
    #[must_use]
    pub fn with(mut self, title: impl Into<String>, text: impl Into<String>) -> Self {
        self.evidence.push((title.into(), text.into()));
        self
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::wrong(broken.text).harm(broken.harm)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(err: anyhow::Error) -> Self {
        Self::wrong(format!("failed to {err:#}")).weight(Weight::Unknown)
    }
}

/// The text of a step: what its verb is said of, and the options beside it.
#[derive(Debug)]
pub struct Words<'a> {
    subject: Spanned<DeValue<'a>>,
    options: Spanned<DeTable<'a>>,
}

impl<'a> Words<'a> {
    /// `{ verb = subject, option = .. }` without the verb.
    pub fn new(subject: Spanned<DeValue<'a>>, options: Spanned<DeTable<'a>>) -> Self {
        Self { subject, options }
    }

    /// Reads both and makes the verb of them.
    fn verb<S, O, V>(self, make: fn(S, O) -> V) -> Result<Box<dyn Verb>, Error>
    where
        S: DeserializeOwned,
        O: DeserializeOwned,
        V: Verb + 'static,
    {
        let subject = S::deserialize(ValueDeserializer::from(self.subject))?;
        let span = self.options.span();
        let options = Spanned::new(span, DeValue::Table(self.options.into_inner()));
        Ok(Box::new(make(subject, O::deserialize(ValueDeserializer::from(options))?)))
    }
}

/// How to read the verb of that name.
pub fn find(name: &str) -> Option<Read> {
    VERBS.iter().find(|(known, _)| *known == name).map(|(_, read)| *read)
}

/// The names of all verbs.
pub fn names() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|(name, _)| *name)
}
