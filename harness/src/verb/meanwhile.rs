//! Steps within a step: what is done while something else is under way.
//!
//! Invariant: they are steps like any other, checked against the scenario before anything runs.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::DeTable;

use super::{Failure, Verb, Words, find};
use crate::world::World;

/// `meanwhile = [{ cut = "wsl" }, ..]`
#[derive(Debug, Default)]
pub(super) struct Meanwhile(Vec<Box<dyn Verb>>);

impl Meanwhile {
    /// The steps, in order.
    pub(super) fn steps(&self) -> &[Box<dyn Verb>] {
        &self.0
    }

    /// Does all of them, or those before the first that fails; `after_each` is called between them.
    pub(super) fn run(&self, world: &mut World, mut after_each: impl FnMut()) -> Result<(), Failure> {
        self.0.iter().try_for_each(|step| {
            let outcome = step.run(world);
            after_each();
            let told = |failure: Failure| Failure { got: format!("{}: {}", step.describe(), failure.got), ..failure };
            outcome.map(drop).map_err(told)
        })
    }
}

impl<'de> Deserialize<'de> for Meanwhile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tables = Vec::<toml::Table>::deserialize(deserializer)?;
        tables.into_iter().map(|table| read(&table).map_err(D::Error::custom)).collect::<Result<_, _>>().map(Self)
    }
}

/// A verb is made of the text of a step, so the table becomes one again.
fn read(table: &toml::Table) -> Result<Box<dyn Verb>, String> {
    let text = toml::to_string(table).map_err(|err| err.to_string())?;
    let mut options = DeTable::parse(&text).map_err(|err| err.message().to_owned())?.into_inner();
    let known = options.keys().find_map(|key| Some((key.clone(), find(key.get_ref())?)));
    let (key, read) = known.ok_or("a step needs a verb")?;
    let subject = options.remove(&key).ok_or("a step needs a verb")?;
    read(Words::new(subject, Spanned::new(0..text.len(), options))).map_err(|err| err.message().to_owned())
}
