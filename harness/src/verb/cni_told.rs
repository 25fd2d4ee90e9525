//! What is told of calls of the plugin: all that went in and came out, or the outcome in a few words.
//!
//! Invariant: nothing is judged here.

use super::Failure;
use super::cni::Prepared;
use super::cni_expect;
use crate::plugin::Answer;
use crate::process::Finished;

/// All that went in and came out.
pub(super) fn with_evidence(failure: Failure, prepared: &Prepared, finished: &Finished) -> Failure {
    let env: Vec<String> = prepared.call.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    failure
        .with("plugin", format!("{} ended with {}", prepared.call.binary.display(), finished.status_text()))
        .with("environment", env.join("\n"))
        .with("stdin", prepared.call.stdin.as_str())
        .with("stdout", finished.stdout.trim_end())
        .with("stderr", finished.stderr.trim_end())
}

/// The outcome in a few words, and the time that the slowest call took.
pub(super) fn summary(answers: &[Answer], finished: &[Finished]) -> String {
    let slowest = finished.iter().map(|one| one.wall).max().unwrap_or_default();
    let words = match answers {
        [one] => one_summary(one),
        many => format!("{} answers", many.len()),
    };
    let gap = if words.is_empty() { "" } else { "  " };
    format!("{words}{gap}plugin {:.1} ms", slowest.as_secs_f64() * 1000.0)
}

fn one_summary(answer: &Answer) -> String {
    match answer {
        Answer::Refused(refusal) => format!("refused with {}: {}", refusal.code, refusal.msg),
        Answer::Done(Some(result)) => cni_expect::address(result).unwrap_or_default(),
        Answer::Done(None) => String::new(),
    }
}
