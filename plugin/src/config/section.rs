//! One JSON object of the configuration, read key by key.
//!
//! Every key must be taken or skipped: `end` refuses what is left, so that no key is ignored in silence.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Prefix of the keys that the specification reserves for itself.
const SPEC_PREFIX: &str = "cni.dev/";
/// How alike (0 to 1, Jaro-Winkler) a known key must be to be offered in place of an unknown one.
const ALIKE: f64 = 0.8;

/// A JSON object, its place in the whole, and the keys asked for so far.
pub(crate) struct Section<'a> {
    path: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// `path` is empty for the outermost object.
    pub(crate) fn new(path: &str, map: &'a Map<String, Value>) -> Self {
        Self { path: path.to_owned(), map, known: Vec::new() }
    }

    /// Whether there is nothing in it, or `key` alone, and that is null or an empty text.
    pub(crate) fn has_only_empty(&self, key: &str) -> bool {
        self.map.iter().all(|(found, value)| found == key && is_empty(value))
    }

    /// Error 7 about `key` of this section; `problem` follows the key: "is ...".
    pub(crate) fn problem(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::Config { key: self.full(key), problem: problem.into() }
    }

    /// Whether the key is there; null counts as not, and so does an empty text.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !is_empty(value))
    }

    /// Accepts the key whatever its value.
    pub(crate) fn skip(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// A string, or nothing.
    pub(crate) fn string(&mut self, key: &'static str) -> Result<Option<String>> {
        self.take(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A string that must be there.
    pub(crate) fn required_string(&mut self, key: &'static str) -> Result<String> {
        self.string(key)?.ok_or_else(|| self.problem(key, "is missing"))
    }

    /// A list of strings, or nothing.
    pub(crate) fn strings(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.take(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// A whole number, or nothing.
    pub(crate) fn integer(&mut self, key: &'static str) -> Result<Option<i64>> {
        self.take(key, "a whole number", Value::as_i64)
    }

    /// True, false, or nothing.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.take(key, "true or false", Value::as_bool)
    }

    /// An object that must be there.
    pub(crate) fn section(&mut self, key: &'static str) -> Result<Section<'a>> {
        self.optional_section(key)?.ok_or_else(|| self.problem(key, "is missing"))
    }

    /// An object as it is, or nothing.
    pub(crate) fn object(&mut self, key: &'static str) -> Result<Option<&'a Map<String, Value>>> {
        self.take(key, "an object", Value::as_object)
    }

    /// An object, or nothing.
    pub(crate) fn optional_section(&mut self, key: &'static str) -> Result<Option<Section<'a>>> {
        let path = self.full(key);
        self.take(key, "an object", |value| Some(Section::new(&path, value.as_object()?)))
    }

    /// A list of objects; none where there is no such key.
    pub(crate) fn sections(&mut self, key: &'static str) -> Result<Vec<Section<'a>>> {
        let path = self.full(key);
        let found = self.take(key, "a list of objects", |value| sections(&path, value))?;
        Ok(found.unwrap_or_default())
    }

    /// A list of lists of objects; none where there is no such key.
    pub(crate) fn lists_of_sections(&mut self, key: &'static str) -> Result<Vec<Vec<Section<'a>>>> {
        let path = self.full(key);
        let found = self.take(key, "a list of lists of objects", |value| {
            let lists = value.as_array()?.iter().enumerate();
            lists.map(|(n, list)| sections(&format!("{path}[{n}]"), list)).collect()
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Where it stands in the whole, as messages name it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Refuses every key that nobody asked for. Errors: 2, with the nearest known key.
    pub(crate) fn end(self) -> Result<()> {
        let is_known = |key: &str| self.known.contains(&key) || key.starts_with(SPEC_PREFIX);
        let Some((unknown, value)) = self.map.iter().find(|(key, _)| !is_known(key)) else { return Ok(()) };
        let alike = |known: &str| strsim::jaro_winkler(known, unknown);
        let nearest = self.known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        let hint = match nearest.filter(|known| alike(known) >= ALIKE) {
            Some(nearest) => format!("did you mean {}?", self.full(nearest)),
            None => format!("known keys are {}", self.known.join(", ")),
        };
        Err(Error::UnknownKey { key: self.full(unknown), value: value.to_string(), hint })
    }

    /// JSON's null counts as a key that is not there.
    fn take<T>(
        &mut self,
        key: &'static str,
        shape: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.known.push(key);
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match convert(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.problem(key, format!("is {value}, not {shape}"))),
            },
        }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

fn sections<'a>(path: &str, list: &'a Value) -> Option<Vec<Section<'a>>> {
    let objects = list.as_array()?.iter().enumerate();
    objects.map(|(n, object)| Some(Section::new(&format!("{path}[{n}]"), object.as_object()?))).collect()
}
