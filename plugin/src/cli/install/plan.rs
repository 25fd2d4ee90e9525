//! A plan: what an installation or its removal will change, step by step; shown, agreed to, and carried out whole or not at all.
//!
//! Making a plan changes nothing. A step that fails ends it, and the steps before it are undone in reverse.

use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::{Map, Value, json};

use super::ask;
use super::files::{self, Saved};
use crate::cli::probe::{self, Ran};
use crate::deadline;
use crate::ipam::memory;
use crate::layout;

/// The exit code of "not without your word".
const REFUSED: u8 = 3;

/// How a plan is to be carried out.
#[derive(Args, Clone, Copy, Debug)]
pub(in crate::cli) struct Manner {
    /// Go on where otherwise a question would be asked
    #[arg(long, short)]
    yes: bool,
    /// Say what would be changed, and change nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print one JSON object, for scripts; questions are then refused
    #[arg(long)]
    json: bool,
}

/// All that will be done, in order.
#[derive(Debug, Default)]
pub(in crate::cli) struct Plan {
    pub(in crate::cli) steps: Vec<Step>,
    /// What nobody should have done to them without being asked.
    pub(in crate::cli) questions: Vec<String>,
    /// What the reader should know, and need not agree to.
    pub(in crate::cli) warnings: Vec<String>,
    /// What to do next, for people.
    pub(in crate::cli) next: Vec<String>,
    /// What it is about, for scripts.
    pub(in crate::cli) facts: Map<String, Value>,
}

/// One change, or one thing that is already as it should be.
#[derive(Debug)]
pub(in crate::cli) enum Step {
    /// The path goes from the one to the other, either of which may be nothing.
    File {
        action: &'static str,
        path: PathBuf,
        now: Option<Saved>,
        then: Option<Saved>,
    },
    /// Already as it should be.
    Unchanged {
        path: PathBuf,
    },
    MakeFolder(PathBuf),
    /// Only if it is empty by then.
    RemoveFolder(PathBuf),
    /// A program, and the one that takes it back.
    Run {
        action: &'static str,
        subject: String,
        run: Vec<String>,
        undo: Option<Vec<String>>,
    },
    /// Nothing, but a program once the steps behind it are undone.
    OnlyUndo(Vec<String>),
    /// The bridge of a network that goes; whoever needs it makes it anew.
    DeleteBridge {
        name: String,
    },
    /// The published ports of crashed containers.
    Unpublish,
    /// Which names had which addresses last, on all networks: a hint, which needs no way back.
    ForgetAddresses,
}

impl Step {
    /// A command line with its words apart by spaces.
    pub(in crate::cli) fn run(action: &'static str, subject: &str, run: &str, undo: Option<&str>) -> Self {
        Self::Run { action, subject: subject.to_owned(), run: words(run), undo: undo.map(words) }
    }

    /// A command line, as for a program that runs.
    pub(in crate::cli) fn only_undo(line: &str) -> Self {
        Self::OnlyUndo(words(line))
    }

    /// Nothing where there is nothing to tell of.
    fn describe(&self) -> Option<(&'static str, String)> {
        Some(match self {
            // Where the plan is made, nobody knows yet whether there are any.
            Self::OnlyUndo(_) | Self::Unpublish => return None,
            Self::File { action, path, .. } => (action, path.display().to_string()),
            Self::Unchanged { path } => ("unchanged", path.display().to_string()),
            Self::MakeFolder(path) => ("create", format!("{}/", path.display())),
            Self::RemoveFolder(path) => ("remove", format!("{}/", path.display())),
            Self::Run { action, subject, .. } => (action, subject.clone()),
            Self::DeleteBridge { name } => ("delete", format!("bridge {name}")),
            Self::ForgetAddresses => ("remove", format!("{}/", layout::MEMORY)),
        })
    }

    fn carry_out(&self) -> Result<()> {
        match self {
            Self::File { path, then, .. } => files::put(path, then.as_ref()),
            Self::Unchanged { .. } | Self::OnlyUndo(_) => Ok(()),
            Self::MakeFolder(path) => make_folder(path),
            Self::RemoveFolder(path) => remove_folder(path),
            Self::Run { run, .. } => execute(run),
            Self::DeleteBridge { name } => super::bridge::delete(name),
            Self::Unpublish => super::bridge::unpublish(),
            Self::ForgetAddresses => {
                memory::forget_all().with_context(|| format!("failed to empty {}", layout::MEMORY))
            }
        }
    }

    fn undo(&self) -> Result<()> {
        match self {
            Self::File { path, now, .. } => files::put(path, now.as_ref()),
            Self::MakeFolder(path) => remove_folder(path),
            Self::RemoveFolder(path) => make_folder(path),
            Self::Run { undo: Some(undo), .. } | Self::OnlyUndo(undo) => execute(undo),
            Self::Unchanged { .. }
            | Self::Run { undo: None, .. }
            | Self::DeleteBridge { .. }
            | Self::Unpublish
            | Self::ForgetAddresses => Ok(()),
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// For all to look into, whatever the umask is: Podman without root reads its settings here too. It may have been made since, as
/// Podman makes some of them by itself when it is asked anything.
fn make_folder(path: &Path) -> Result<()> {
    let made = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        failed => failed,
    };
    made.with_context(|| format!("failed to create the folder {}", path.display()))
}

/// Unless somebody has put something into it.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(()),
        done => done.with_context(|| format!("failed to remove {}", path.display())),
    }
}

fn execute(words: &[String]) -> Result<()> {
    let line = words.join(" ");
    let (program, arguments) = words.split_first().context("failed to run a program without a name")?;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match probe::run_within(deadline::INSTALL, program, &arguments) {
        Ran::Well(_) => Ok(()),
        Ran::Missing => Err(anyhow!("failed to run `{line}`: there is no {program}")),
        Ran::Badly(why) => Err(anyhow!("failed to run `{line}`: it {why}")),
    }
}

impl Plan {
    /// Whether there is anything to do.
    fn is_idle(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Unchanged { .. }))
    }

    /// Shows the plan, gets the reader's word where it needs it, and does it.
    pub(in crate::cli) fn finish(&self, manner: Manner, out: &mut impl Write) -> Result<ExitCode> {
        let idle = self.is_idle();
        if !manner.json {
            self.show(out)?;
        }
        let mut refused = false;
        if !manner.dry_run && !idle {
            refused = !(manner.yes || self.questions.is_empty() || (!manner.json && ask::agree(&self.questions, out)?));
            if !refused {
                self.carry_out()?;
            }
        }
        if manner.json {
            writeln!(out, "{:#}", self.json(manner, refused)).context("failed to write what was done")?;
        } else {
            let last = match (idle, manner.dry_run, refused) {
                (true, ..) => "nothing to do".to_owned(),
                (_, true, _) => "nothing was changed: this was a dry run".to_owned(),
                (.., true) => "nothing was changed; run again with --yes to confirm".to_owned(),
                _ => self.next.join("\n"),
            };
            writeln!(out, "{last}").context("failed to write what was done")?;
        }
        Ok(if refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
    }

    fn show(&self, out: &mut impl Write) -> Result<()> {
        for (action, subject) in self.steps.iter().filter_map(Step::describe) {
            writeln!(out, "{action:<10}{subject}").context("failed to write the plan")?;
        }
        for warning in &self.warnings {
            writeln!(out, "note: {warning}").context("failed to write the plan")?;
        }
        for question in &self.questions {
            writeln!(out, "confirmation needed: {question}").context("failed to write the plan")?;
        }
        Ok(())
    }

    fn json(&self, manner: Manner, refused: bool) -> Value {
        let actions = self.steps.iter().filter_map(Step::describe);
        let actions: Vec<_> =
            actions.map(|(action, subject)| json!({ "action": action, "subject": subject })).collect();
        let mut object = self.facts.clone();
        object.insert("changed".into(), json!(!manner.dry_run && !refused && !self.is_idle()));
        object.insert("refused".into(), json!(refused));
        object.insert("actions".into(), json!(actions));
        object.insert("questions".into(), json!(self.questions));
        object.insert("warnings".into(), json!(self.warnings));
        Value::Object(object)
    }

    /// Every step, or none.
    fn carry_out(&self) -> Result<()> {
        for (done, step) in self.steps.iter().enumerate() {
            let Err(cause) = step.carry_out() else { continue };
            let undone: Vec<_> = self.steps[..done].iter().rev().filter_map(|step| step.undo().err()).collect();
            if undone.is_empty() {
                return Err(cause.context("failed to finish; everything was rolled back"));
            }
            let left: Vec<_> = undone.iter().map(|error| format!("{error:#}")).collect();
            return Err(cause.context(format!("failed to finish, and to roll back: {}", left.join("; "))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(path: PathBuf, then: Option<&str>) -> Step {
        let now = files::look(&path).expect("a look");
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let then = then.map(|text| Saved { owner, ..Saved::new(text, 0o644) });
        Step::File { action: "replace", path, now, then }
    }

    fn finish(plan: &Plan, yes: bool, dry_run: bool) -> Result<String> {
        let mut out = Vec::new();
        plan.finish(Manner { yes, dry_run, json: true }, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_failing_step_takes_all_others_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (theirs, new) = (folder.path().join("theirs"), folder.path().join("made/new"));
        fs::write(&theirs, "theirs").expect("a file");
        let before = files::look(&theirs).expect("a look");
        let steps = vec![
            step(theirs.clone(), Some("ours")),
            Step::MakeFolder(folder.path().join("made")),
            step(new, Some("new")),
            Step::run("start", "nothing", "/nonexistent/program now", None),
        ];
        let error = finish(&Plan { steps, ..Plan::default() }, true, false).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("rolled back") && text.contains("there is no /nonexistent/program"), "{text}");
        assert_eq!(files::look(&theirs).expect("a look"), before);
        assert_eq!(fs::read_dir(folder.path()).expect("a list").count(), 1);
    }

    #[test]
    fn a_dry_run_and_a_refusal_change_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let steps = vec![step(file.clone(), Some("ours"))];
        let plan = Plan { steps, questions: vec!["replace the cat".into()], ..Plan::default() };
        assert!(finish(&plan, true, true).expect("a dry run").contains("\"changed\": false"));
        assert!(finish(&plan, false, false).expect("a refusal").contains("\"refused\": true"));
        assert!(!file.exists());
        assert!(finish(&plan, true, false).expect("a change").contains("\"changed\": true"));
        assert!(file.exists());
    }

    #[test]
    fn a_folder_may_be_there_by_now_and_in_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let steps = vec![
            Step::MakeFolder(folder.path().to_owned()),
            step(folder.path().join("theirs"), Some("theirs")),
            Step::MakeFolder(folder.path().join("new")),
        ];
        finish(&Plan { steps, ..Plan::default() }, true, false).expect("folders");
        let mode = fs::metadata(folder.path().join("new")).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        Step::MakeFolder(folder.path().to_owned()).undo().expect("it stays");
        assert!(folder.path().join("theirs").exists());
    }

    #[test]
    fn a_folder_that_others_use_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("theirs"), "").expect("a file");
        let plan = Plan { steps: vec![Step::RemoveFolder(folder.path().to_owned())], ..Plan::default() };
        finish(&plan, true, false).expect("no error");
        assert!(folder.path().join("theirs").exists());
    }
}
