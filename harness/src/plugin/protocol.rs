//! The rules of CNI for what a plugin says and how it ends.
//!
//! Invariant: exit 0 with a result (or with silence, where silence is due), or exit non-zero with one error object; nothing else.

use serde::Deserialize;
use serde_json::Value;

use crate::process::Finished;

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
}

/// Reads what the plugin said when called with `command`.
pub(super) fn read(command: &str, finished: &Finished) -> Result<Answer, String> {
    let Some(status) = finished.status else {
        return Err("the plugin did not end in time and was killed".to_owned());
    };
    let said = finished.stdout.trim();
    if finished.stderr.contains("panicked at") {
        return Err("the plugin panicked".to_owned());
    }
    match status.code() {
        None => Err(format!("the plugin was ended by a signal: {status}")),
        Some(0) if matches!(command, "ADD" | "VERSION") => {
            let result: Value = one_object(said, "a result")?;
            if result.get("code").is_some() {
                return Err("the plugin exited 0 with an error object".to_owned());
            }
            Ok(Answer::Done(Some(result)))
        }
        Some(0) if said.is_empty() => Ok(Answer::Done(None)),
        Some(0) => Err(format!("{command} succeeds with an empty stdout, and this one was not")),
        Some(_) => {
            let object = one_object(said, "an error object")?;
            serde_json::from_value(object)
                .map(Answer::Refused)
                .map_err(|err| format!("the plugin failed and its error object is wrong: {err}"))
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
        assert!(complaint.contains(says), "{complaint}");
    }

    #[test]
    fn a_killed_plugin_has_not_answered() {
        let late = Finished { status: None, ..finished(0, "{}", "") };
        assert!(read("ADD", &late).unwrap_err().contains("in time"));
    }
}
