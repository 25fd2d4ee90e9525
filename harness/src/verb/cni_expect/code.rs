//! Which code an error is expected to have.
//!
//! Invariant: a code that the specification keeps for something else is never what is expected.

use std::fmt;

use serde::Deserialize;

/// What the specification gives a meaning, or libcni in its name: 8 is the plugin's own namespace.
const KNOWN: [u32; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51];

/// From here on codes are the plugin's own.
const OWN: u32 = 100;

/// One code, one of several, or whatever the specification allows.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a code, a list of codes, \"any\" or \"not 3\"")]
pub(super) enum Codes {
    One(u32),
    Several(Vec<u32>),
    Word(Word),
}

/// Codes that need not be told one by one.
#[derive(Debug, Deserialize)]
pub(super) enum Word {
    /// One that the specification gives a meaning, or one of the plugin's own.
    #[serde(rename = "any")]
    Any,
    /// The same, but not the one that says that there is nothing to clean up.
    #[serde(rename = "not 3")]
    Not3,
}

impl Codes {
    /// Whether it may be that one.
    pub(super) fn allow(&self, code: u32) -> bool {
        match self {
            Self::One(one) => *one == code,
            Self::Several(several) => several.contains(&code),
            Self::Word(Word::Any) => is_lawful(code),
            Self::Word(Word::Not3) => is_lawful(code) && code != 3,
        }
    }

    /// Whether it is one that stands for a reason: another code then is a matter of words.
    pub(super) fn is_named(&self) -> bool {
        !matches!(self, Self::Word(_))
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(code) => write!(f, "error {code}"),
            Self::Several(codes) => {
                let codes: Vec<String> = codes.iter().map(u32::to_string).collect();
                write!(f, "error {}", codes.join(" or "))
            }
            Self::Word(Word::Any) => f.write_str("an error with a code of the specification's, or of 100 and above"),
            Self::Word(Word::Not3) => {
                f.write_str("an error that does not say with code 3 that there is nothing to clean up")
            }
        }
    }
}

fn is_lawful(code: u32) -> bool {
    KNOWN.contains(&code) || code >= OWN
}

#[cfg(test)]
mod tests {
    use super::{Codes, Word};
    use rstest::rstest;

    #[rstest]
    #[case(Codes::One(4), &[4], &[3, 100])]
    #[case(Codes::Several(vec![6, 7]), &[6, 7], &[4, 999])]
    #[case(Codes::Word(Word::Any), &[3, 11, 51, 100, 999], &[0, 9, 12, 99])]
    #[case(Codes::Word(Word::Not3), &[4, 100], &[3, 42])]
    fn what_may_be(#[case] codes: Codes, #[case] allowed: &[u32], #[case] others: &[u32]) {
        assert!(allowed.iter().all(|code| codes.allow(*code)));
        assert!(!others.iter().any(|code| codes.allow(*code)));
    }
}
