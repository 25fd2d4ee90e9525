//! The rules of CNI for what a plugin says and how it ends.
//!
//! Invariant: exit 0 with a result (or with silence, where silence is due), or exit non-zero with one error object; nothing else.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::process::Finished;
use crate::tally::Harm;

/// What a plugin answered, if it kept the rules.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It did what was asked; verbs that have a result give it.
    Done(Option<Value>),
    /// It could not.
    Refused(Refusal),
}

/// A CNI error object.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    /// The spec's number below 100, the plugin's own above.
    pub code: u32,
    /// One sentence.
    pub msg: String,
    /// More, where there is more.
    #[serde(default)]
    pub details: String,
    /// The version of CNI that it is of, if it says one.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
}

/// A rule that an answer breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What kind of harm that is.
    pub harm: Harm,
    /// Which rule, in words.
    pub text: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Broken {
    fn from(text: String) -> Self {
        Self { harm: Harm::Wrong, text }
    }
}

/// Reads what the plugin said when called with `command`.
pub(crate) fn read(command: &str, finished: &Finished) -> Result<Answer, Broken> {
    let broken = |harm, text: &str| Err(Broken { harm, text: text.to_owned() });
    let Some(status) = finished.status else {
        return broken(Harm::Hang, "the plugin did not end in time and was killed");
    };
    let said = finished.stdout.trim();
    if finished.stderr.contains("panicked at") {
        return broken(Harm::Panic, "the plugin panicked");
    }
    match status.code() {
        None => broken(Harm::Panic, &format!("the plugin was ended by a signal: {status}")),
        Some(0) if matches!(command, "ADD" | "VERSION") => {
            let result: Value = one_object(said, "a result")?;
            if result.get("code").is_some() {
                return broken(Harm::Wrong, "the plugin exited 0 with an error object");
            }
            Ok(Answer::Done(Some(result)))
        }
        Some(0) if said.is_empty() => Ok(Answer::Done(None)),
        Some(0) => Err(format!("{command} succeeds with an empty stdout, and this one was not").into()),
        Some(_) => {
            let object = one_object(said, "an error object")?;
            serde_json::from_value(object)
                .map(Answer::Refused)
                .map_err(|err| format!("the plugin failed and its error object is wrong: {err}").into())
        }
    }
}

fn one_object(said: &str, what: &str) -> Result<Value, String> {
    match serde_json::from_str(said) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(format!("stdout is JSON but not {what}")),
        Err(err) => Err(format!("stdout is not {what} alone: {err}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, read};
    use crate::process::Finished;
    use crate::tally::Harm;
    use rstest::rstest;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    const ERROR: &str = r#"{"cniVersion": "1.0.0", "code": 7, "msg": "no"}"#;

    fn finished(code: i32, stdout: &str, stderr: &str) -> Finished {
        Finished {
            status: Some(ExitStatus::from_raw(code << 8)),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            wall: Duration::ZERO,
        }
    }

    #[rstest]
    #[case("ADD", 0, r#"{"ips": []}"#)]
    #[case("DEL", 0, "")]
    #[case("CHECK", 0, "\n")]
    #[case("ADD", 1, ERROR)]
    #[case("DEL", 1, ERROR)]
    fn good_manners(#[case] command: &str, #[case] code: i32, #[case] stdout: &str) {
        let answer = read(command, &finished(code, stdout, "a log line")).unwrap();
        assert_eq!(matches!(answer, Answer::Refused(_)), code != 0);
    }

    #[rstest]
    #[case("ADD", 0, "", "", "not a result")]
    #[case("ADD", 0, "{}{}", "", "not a result alone")]
    #[case("ADD", 0, ERROR, "", "exited 0 with an error")]
    #[case("DEL", 0, "{}", "", "empty stdout")]
    #[case("DEL", 1, "", "oops", "not an error object")]
    #[case("ADD", 1, r#"{"msg": "no code"}"#, "", "error object is wrong")]
    #[case("ADD", 101, ERROR, "thread 'main' panicked at src/main.rs:1", "panicked")]
    fn bad_manners(#[case] cmd: &str, #[case] code: i32, #[case] out: &str, #[case] err: &str, #[case] says: &str) {
        let complaint = read(cmd, &finished(code, out, err)).unwrap_err();
        assert!(complaint.text.contains(says), "{complaint}");
    }

    #[test]
    fn a_killed_plugin_has_not_answered() {
        let late = Finished { status: None, ..finished(0, "{}", "") };
        assert_eq!(read("ADD", &late).unwrap_err().harm, Harm::Hang);
    }
}
