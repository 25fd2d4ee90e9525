//! Standard input: read with an end to the patience, parsed, and its version agreed on.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};

use super::json::{self, Refusal};
use crate::error::{Error, Result};
use crate::spec::{self, Command, SpecVersion};

/// A configuration is a few hundred bytes; anything near this is not one.
const STDIN_LIMIT_BYTES: usize = 1 << 20;

/// The configuration as it came, with its version read.
#[derive(Debug)]
pub(crate) struct Input {
    /// `cniVersion`, one that flatnet speaks.
    pub(crate) version: SpecVersion,
    /// The whole object.
    pub(crate) config: Map<String, Value>,
}

impl Input {
    /// Parses standard input's text, which VERSION does not need. Errors: 6 for bad JSON, 7 for JSON that is not an object.
    pub(crate) fn read(command: Command, text: &str) -> Result<Map<String, Value>> {
        match command {
            Command::Version if text.trim().is_empty() => Ok(Map::new()),
            // What is taken back must not hang on what somebody has written twice meanwhile.
            Command::Del | Command::Gc | Command::Version => Self::lenient_object(text),
            Command::Add | Command::Check | Command::Status => Self::object(text),
        }
    }

    /// The one JSON object that `text` is, in which no key is given twice. Errors: 6 and 7.
    pub(crate) fn object(text: &str) -> Result<Map<String, Value>> {
        Self::object_of(text, |text| match json::parse(text) {
            Err(Refusal::Malformed(error)) => Err(Error::Json { problem: error.to_string() }),
            Err(Refusal::Twice(key)) => {
                Err(Error::Config { key, problem: "is given twice: leave one of them out".into() })
            }
            Ok(value) => Ok(value),
        })
    }

    /// The same, where of a key that is given twice the last counts. Errors: 6 and 7.
    pub(crate) fn lenient_object(text: &str) -> Result<Map<String, Value>> {
        Self::object_of(text, |text| serde_json::from_str(text).map_err(|e| Error::Json { problem: e.to_string() }))
    }

    fn object_of(text: &str, parse: impl FnOnce(&str) -> Result<Value>) -> Result<Map<String, Value>> {
        if text.trim().is_empty() {
            return Err(Error::Json { problem: "it is empty".into() });
        }
        match parse(text)? {
            Value::Object(config) => Ok(config),
            other => {
                Err(Error::Config { key: "the JSON".into(), problem: format!("is {}, not an object", kind(&other)) })
            }
        }
    }

    /// Errors: 1 where there is no such version, or it does not have the command.
    pub(crate) fn negotiate(config: Map<String, Value>, command: Command) -> Result<Self> {
        let version = version_of(&config)?;
        if version < command.since() {
            return Err(Error::CommandVersion { command, version, since: command.since() });
        }
        Ok(Self { version, config })
    }
}

/// What kind of JSON it is.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The version that a configuration names. Errors: 1, and 7 where it is not even a string.
pub(crate) fn version_of(config: &Map<String, Value>) -> Result<SpecVersion> {
    let text = match config.get("cniVersion") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(other) => {
            return Err(Error::Config { key: "cniVersion".into(), problem: format!("is {other}, not a string") });
        }
    };
    SpecVersion::parse(text).ok_or_else(|| Error::Version { asked: text.to_owned() })
}

/// The version that an error object should carry: the configuration's own, once it is read and names one.
pub(crate) fn version_to_answer(config: &Map<String, Value>) -> SpecVersion {
    if config.is_empty() { spec::NEWEST } else { version_of(config).unwrap_or(spec::NEWEST) }
}

/// Reads standard input to its end, or until `deadline` has passed. Errors: 5.
pub(crate) fn read_stdin(deadline: Duration) -> Result<String> {
    let failed = |problem: String| Error::Stdin { problem };
    let until = Instant::now() + deadline;
    let stdin = io::stdin();
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let ready = match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => continue,
            ready => ready.map_err(|errno| failed(errno.desc().to_owned()))?,
        };
        if ready == 0 {
            return Err(failed(format!("it did not end within {} s", deadline.as_secs())));
        }
        match nix::unistd::read(&stdin, &mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(failed(errno.desc().to_owned())),
        }
        if bytes.len() > STDIN_LIMIT_BYTES {
            return Err(failed(format!("it is larger than {STDIN_LIMIT_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::Json { problem: "it is not UTF-8".into() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::add_1_0(r#"{"cniVersion": "1.0.0"}"#, Command::Add, None)]
    #[case::unknown_version(r#"{"cniVersion": "9.9.9"}"#, Command::Add, Some((1, "9.9.9")))]
    #[case::no_version("{}", Command::Add, None)]
    #[case::empty_version(r#"{"cniVersion": ""}"#, Command::Add, None)]
    #[case::null_version(r#"{"cniVersion": null}"#, Command::Add, None)]
    #[case::no_check_without_version("{}", Command::Check, Some((1, "CNI version 0.1.0")))]
    #[case::check_since_0_4(r#"{"cniVersion": "0.4.0"}"#, Command::Check, None)]
    #[case::gc_since_1_1(r#"{"cniVersion": "1.1.0"}"#, Command::Gc, None)]
    #[case::version_not_a_string(r#"{"cniVersion": 1}"#, Command::Add, Some((7, "cniVersion is 1")))]
    #[case::gc_before_1_1(r#"{"cniVersion": "1.0.0"}"#, Command::Gc, Some((1, "since 1.1.0")))]
    #[case::check_before_0_4(r#"{"cniVersion": "0.3.1"}"#, Command::Check, Some((1, "since 0.4.0")))]
    fn versions(#[case] config: &str, #[case] command: Command, #[case] refusal: Option<(u32, &str)>) {
        let outcome = Input::object(config).and_then(|config| Input::negotiate(config, command));
        match (outcome, refusal) {
            (Ok(_), None) => {}
            (Err(error), Some((code, words))) => {
                assert_eq!(error.code(), code, "{error}");
                assert!(error.to_string().contains(words), "{error}");
            }
            (outcome, refusal) => panic!("{outcome:?} instead of {refusal:?}"),
        }
    }

    #[rstest]
    #[case::empty("", 6)]
    #[case::white_space(" \n", 6)]
    #[case::broken("{", 6)]
    #[case::array("[]", 7)]
    #[case::twice(r#"{"name": "a", "ipam": {}, "name": "b"}"#, 7)]
    fn not_objects(#[case] text: &str, #[case] code: u32) {
        assert_eq!(Input::object(text).unwrap_err().code(), code);
    }

    #[test]
    fn what_is_taken_back_does_not_hang_on_a_key_that_is_given_twice() {
        let text = r#"{"name": "a", "name": "b"}"#;
        assert_eq!(
            Input::read(Command::Add, text).unwrap_err().to_string(),
            "invalid configuration: name is given twice: leave one of them out"
        );
        assert_eq!(Input::read(Command::Del, text).expect("an object")["name"], "b");
    }
}
