//! What a scenario expects of a text: the text itself, or one with `*` (any run) and `?` (any one character) in it.
//!
//! Invariant: a pattern without either matches only itself, so an exact expectation needs no escape.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// A text with wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        glob(&self.0.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number or a truth value is as good as its text: `status = 200` and `status = "20?"` both work.
impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text, a number, or true or false")]
        enum Scalar {
            Text(String),
            Number(i64),
            Truth(bool),
        }
        Ok(Self(match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Truth(truth) => truth.to_string(),
        }))
    }
}

/// What is expected of a list of texts: of the first, or of all in their order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of them")]
pub enum Patterns {
    /// The first, whatever follows it.
    First(Pattern),
    /// These and no others.
    All(Vec<Pattern>),
}

impl Patterns {
    /// What is expected and what was got instead, if that differs.
    pub fn mismatch(&self, got: &[&str]) -> Option<(String, String)> {
        let (expected, fits) = match self {
            Self::First(first) => {
                let got = got.first().copied().unwrap_or_default();
                return (!first.matches(got)).then(|| (first.to_string(), got.to_owned()));
            }
            Self::All(all) => (all, all.len() == got.len() && all.iter().zip(got).all(|(it, got)| it.matches(got))),
        };
        let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        (!fits).then(|| (expected.join(", "), got.join(", ")))
    }
}

/// Matches greedily, going back to the last `*` on a mismatch: linear but for that.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where `got` does not hold what `expected` asks for, as `path: expected .., got ..`; `None` if it does.
///
/// An object may hold more than is asked, a list may not; texts are patterns.
pub fn json_mismatch(expected: &Value, got: &Value) -> Option<String> {
    mismatch("", expected, got)
}

fn mismatch(path: &str, expected: &Value, got: &Value) -> Option<String> {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => expected.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match got.get(key) {
                Some(got) => mismatch(&path, value, got),
                None => Some(format!("{path}: expected {value}, got nothing")),
            }
        }),
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            expected.iter().zip(got).enumerate().find_map(|(at, (e, g))| mismatch(&format!("{path}[{at}]"), e, g))
        }
        (Value::String(expected), Value::String(got)) if Pattern::new(expected).matches(got) => None,
        _ if expected == got => None,
        _ => Some(format!("{path}: expected {expected}, got {got}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Patterns, json_mismatch};
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case("web", "web", true)]
    #[case("web", "web2", false)]
    #[case("", "", true)]
    #[case("", "x", false)]
    #[case("*", "", true)]
    #[case("fn-????????", "fn-a1b2c3d4", true)]
    #[case("fn-????????", "fn-a1b2c3d", false)]
    #[case("*.87.*.2", "10.87.1.2", true)]
    #[case("a*b*c", "aXbYbZc", true)]
    #[case("a*b*c", "aXbYbZ", false)]
    #[case("**x", "x", true)]
    fn patterns(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
        assert_eq!(Pattern::new(pattern).matches(text), expected);
    }

    #[rstest]
    #[case(json!("10.*"), &["10.87.1.2", "fd87:1::2"], true)]
    #[case(json!("fd*"), &["10.87.1.2", "fd87:1::2"], false)]
    #[case(json!("10.*"), &[], false)]
    #[case(json!(["10.*", "fd*"]), &["10.87.1.2", "fd87:1::2"], true)]
    #[case(json!(["10.*"]), &["10.87.1.2", "fd87:1::2"], false)]
    #[case(json!(["fd*", "10.*"]), &["10.87.1.2", "fd87:1::2"], false)]
    fn lists(#[case] expected: Value, #[case] got: &[&str], #[case] fits: bool) {
        let expected: Patterns = serde_json::from_value(expected).unwrap();
        assert_eq!(expected.mismatch(got).is_none(), fits);
    }

    #[rstest]
    #[case(json!({"a": 1}), json!({"a": 1, "b": 2}), None)]
    #[case(json!({"a": {"b": "x*"}}), json!({"a": {"b": "xy"}}), None)]
    #[case(json!({"a": 1}), json!({}), Some("a: expected 1, got nothing"))]
    #[case(json!({"a": [1, 2]}), json!({"a": [1]}), Some("a: expected [1,2], got [1]"))]
    #[case(json!({"a": [{"b": 1}]}), json!({"a": [{"b": 2}]}), Some("a[0].b: expected 1, got 2"))]
    fn partial_json(#[case] expected: Value, #[case] got: Value, #[case] mismatch: Option<&str>) {
        assert_eq!(json_mismatch(&expected, &got).as_deref(), mismatch);
    }
}
