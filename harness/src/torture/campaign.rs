//! What befalls the plugin, in scenarios: shipped ones, and sweeps that are made up for a form and a seed.
//!
//! Invariant: a form and a seed give the same scenarios each time, and no campaign is without any.

mod sweep;

use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Form;
use crate::suite;

/// A kind of mishap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Campaign {
    /// Each verb is killed at each of its system calls.
    Kill,
    /// Each system call of each verb fails.
    Fail,
    /// Many calls at once.
    Storm,
    /// The host restarts under its containers.
    Reboot,
    /// Input that nobody should send.
    Input,
    /// What befalls hosts, wires, disks and firewalls.
    Faults,
}

/// One scenario of a campaign.
#[derive(Debug)]
pub(super) struct Case {
    /// What it is called, in words that make a file's name.
    pub(super) name: String,
    /// Where its text is.
    pub(super) source: Source,
    /// How long it is likely to take, beside others.
    pub(super) weight: u32,
}

/// Where a scenario's text is.
#[derive(Debug)]
pub(super) enum Source {
    /// In a file.
    Shipped(PathBuf),
    /// Here.
    MadeUp(String),
}

impl Campaign {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Kill, Self::Fail, Self::Storm, Self::Reboot, Self::Input, Self::Faults];

    /// Its scenarios.
    pub(super) fn cases(self, form: Form, seed: u32) -> Result<Vec<Case>> {
        let mut cases = self.shipped(form)?;
        cases.extend(match self {
            Self::Kill if form == Form::Long => sweep::kills(),
            Self::Fail if form == Form::Long => sweep::failures(),
            Self::Storm => storms(form, seed),
            Self::Reboot => reboots(form),
            Self::Input => hostile(),
            _ => Vec::new(),
        });
        if cases.is_empty() {
            bail!("find a scenario for the campaign {self}");
        }
        Ok(cases)
    }

    /// Those that the repository has for it.
    fn shipped(self, form: Form) -> Result<Vec<Case>> {
        let folders: &[&str] = match (self, form) {
            (Self::Input, _) => &["input"],
            (_, Form::Long) => &["faults", suite::LONG],
            (_, Form::Short) => &["faults"],
        };
        let below = |folder: &&str| suite::folder().join(folder).display().to_string();
        let mut cases = Vec::new();
        for file in suite::find(&folders.iter().map(below).collect::<Vec<_>>())? {
            if self == Self::Input || self == Self::of(&file)? {
                let weight =
                    if suite::is_long(&file) { 9 } else { u32::from(!matches!(self, Self::Input | Self::Faults)) };
                cases.push(Case { name: suite::name(&file), source: Source::Shipped(file), weight });
            }
        }
        Ok(cases)
    }

    /// Which of the others a scenario belongs to, by the most telling of its steps.
    fn of(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let telling = [("kill = {", Self::Kill), ("fail = {", Self::Fail), ("parallel = ", Self::Storm)];
        let found = telling.into_iter().find(|(words, _)| text.contains(words));
        Ok(found.map_or(Self::Faults, |(_, campaign)| campaign))
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
            Self::Storm => "storm",
            Self::Reboot => "reboot",
            Self::Input => "input",
            Self::Faults => "faults",
        })
    }
}

/// Calls for many containers at once, as any caller may make them, and as a careful one does.
fn storms(form: Form, seed: u32) -> Vec<Case> {
    let (storms, containers, rounds) = match form {
        Form::Short => (2, 48, 5),
        Form::Long => (30, 64, 16),
    };
    let storm = |number: u32| {
        let seed = u64::from(seed) + u64::from(number);
        let overlap = number.is_multiple_of(2);
        let step = format!(
            "{{ parallel = \"c\", containers = {containers}, rounds = {rounds}, seed = {seed}, overlap = {overlap}, \
             mix = [\"ADD\", \"DEL\", \"CHECK\", \"GC\"] }}"
        );
        let steps = [step, "{ leases = \"wsl\", expect = {} }".to_owned()];
        made_up(&format!("storm-with-seed-{seed}"), 24, 2, &steps)
    };
    (0..storms).map(storm).collect()
}

/// The host restarts under containers that nobody detaches; then as many must get addresses as before.
fn reboots(form: Form) -> Vec<Case> {
    let (containers, reboots) = match form {
        Form::Short => (24, 4),
        // All that a /24 holds.
        Form::Long => (253, 8),
    };
    let add = format!("{{ add = \"web\", together = {containers}, expect = {{ addresses = {containers} }} }}");
    let mut steps = vec![add.clone()];
    for _ in 0..reboots {
        let gone = ["{ reboot = \"wsl\" }", "{ leases = \"wsl\", expect = {} }"].map(str::to_owned);
        steps.extend(gone.into_iter().chain([add.clone()]));
    }
    vec![made_up("reboots", 24, 2, &steps)]
}

/// All requests that nobody should make; the shipped scenario, which each run of the suite has, makes some.
fn hostile() -> Vec<Case> {
    vec![made_up(
        "every-hostile-request",
        24,
        3,
        &["{ hostile = \"wsl\", every = 1, expect = { at_least = 1500 } }".to_owned()],
    )]
}

/// A scenario of those steps, in a network of that size.
fn made_up(name: &str, prefix: u8, weight: u32, steps: &[String]) -> Case {
    // With 1.1.0, which has GC.
    let mut text = format!(
        "summary = \"made up by harness torture: {name}\"\n\n[network]\ncniVersion = \"1.1.0\"\nname = \"flatnet\"\n\
         type = \"flatnet\"\nipam = {{ subnet = \"10.87.8.0/{prefix}\" }}\n\n[run]\nsteps = [\n"
    );
    for step in steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {step},");
    }
    text.push_str("]\n");
    Case { name: name.to_owned(), source: Source::MadeUp(text), weight }
}

#[cfg(test)]
mod tests {
    use super::{Campaign, Form, Source};
    use crate::scenario::Scenario;
    use rstest::rstest;

    #[rstest]
    fn every_campaign_has_scenarios_that_can_be_read(
        #[values(Form::Short, Form::Long)] form: Form,
        #[values(Campaign::Kill, Campaign::Fail, Campaign::Storm, Campaign::Reboot, Campaign::Input, Campaign::Faults)]
        campaign: Campaign,
    ) {
        let folder = tempfile::tempdir().unwrap();
        for case in campaign.cases(form, 7).unwrap() {
            let file = match case.source {
                Source::Shipped(file) => file,
                Source::MadeUp(text) => {
                    let file = folder.path().join("case.toml");
                    std::fs::write(&file, text).unwrap();
                    file
                }
            };
            Scenario::load(&file).unwrap_or_else(|err| panic!("{}: {err:#}", case.name));
        }
    }

    #[test]
    fn a_seed_gives_the_same_storms_and_another_gives_others() {
        let names = |seed| -> Vec<String> {
            Campaign::Storm.cases(Form::Short, seed).unwrap().into_iter().map(|case| case.name).collect()
        };
        assert_eq!(names(7), names(7));
        assert_ne!(names(7), names(9));
    }
}
