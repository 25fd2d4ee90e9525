//! A mistake in a scenario file: where it is, what it is, what was probably meant.
//!
//! Invariant: every mistake has a place; a misspelt word is shown the nearest known one.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

/// What is wrong with a file.
#[derive(Debug)]
pub struct Mistake {
    span: Range<usize>,
    text: String,
}

impl Mistake {
    /// A mistake at these bytes.
    pub fn new(span: Range<usize>, text: impl Into<String>) -> Self {
        Self { span, text: text.into() }
    }

    /// What the reader of TOML complains of, and what else `owner` could have said.
    pub fn from_toml(err: &toml::de::Error, owner: &str) -> Self {
        Self::new(err.span().unwrap_or_default(), explain(err.message(), owner))
    }

    /// Puts it in words: `file:line:column: what`.
    pub fn at(&self, file: &Path, text: &str) -> impl Display {
        let (line, column) = position(text, self.span.start);
        format!("{}:{line}:{column}: {}", file.display(), self.text)
    }
}

/// The line and column (in characters, from 1) of a byte.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// "did you mean", if any known word is near.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    match near.min() {
        Some((distance, known)) if distance <= 1 + word.len() / 3 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    }
}

/// Serde lists what it knows in backquotes behind the word that it does not know.
fn explain(message: &str, owner: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.to_owned();
    };
    let words: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    match words.split_first() {
        Some((word, known)) => {
            let suggestion = suggestion(word, known.iter().copied());
            format!("`{word}` does not belong to {owner}{suggestion} (it knows {})", known.join(", "))
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{explain, position};
    use rstest::rstest;

    #[rstest]
    #[case(0, (1, 1))]
    #[case(2, (1, 3))]
    #[case(4, (2, 1))]
    #[case(7, (2, 2))]
    #[case(8, (2, 3))]
    #[case(99, (2, 3))]
    fn places(#[case] offset: usize, #[case] place: (usize, usize)) {
        assert_eq!(position("abc\nこn", offset), place);
    }

    #[test]
    fn the_nearest_known_word_is_offered() {
        let text = explain("unknown field `prot`, expected one of `port`, `body`", "`serve`");
        assert_eq!(text, "`prot` does not belong to `serve`; did you mean `port`? (it knows port, body)");
        let text = explain("unknown field `via`, expected `port` or `body`", "`serve`");
        assert_eq!(text, "`via` does not belong to `serve` (it knows port, body)");
    }
}
