//! JSON in which no object has a key twice.
//!
//! Of two values for one key another program may take the other one: who reads a configuration, and who checks it, must not differ.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is not JSON.
    Malformed(serde_json::Error),
    /// An object has the key of this path twice.
    Twice(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "it is not JSON: {error}"),
            Self::Twice(path) => write!(f, "{path} is given twice: leave one of them out"),
        }
    }
}

/// The value that `text` is.
pub(crate) fn parse(text: &str) -> Result<Value, Refusal> {
    let twice = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = Place { outer: None, step: Step::Whole, twice: &twice }.deserialize(&mut json);
    let parsed = parsed.and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| twice.take().map_or(Refusal::Malformed(error), Refusal::Twice))
}

/// Where a value stands.
struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// The path of the first key that came twice.
    twice: &'a RefCell<Option<String>>,
}

/// The last part of a path.
#[derive(Clone, Copy)]
enum Step<'a> {
    Whole,
    Key(&'a str),
    Item(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        let outer = self.outer.map(Place::path).unwrap_or_default();
        match self.step {
            Step::Whole => outer,
            Step::Key(key) if outer.is_empty() => key.to_owned(),
            Step::Key(key) => format!("{outer}.{key}"),
            Step::Item(n) => format!("{outer}[{n}]"),
        }
    }

    fn inner<'b>(&'b self, step: Step<'b>) -> Place<'b> {
        Place { outer: Some(self), step, twice: self.twice }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner(Step::Item(list.len())))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let inner = self.inner(Step::Key(&key));
            if map.contains_key(&key) {
                self.twice.replace(Some(inner.path()));
                return Err(A::Error::custom("a key is given twice"));
            }
            let value = entries.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::outermost(r#"{"name": "a", "mtu": 1, "name": "b"}"#, "name")]
    #[case::the_same_value(r#"{"name": "a", "name": "a"}"#, "name")]
    #[case::inside(r#"{"ipam": {"subnet": "10.87.1.0/24", "subnet": "10.87.2.0/24"}}"#, "ipam.subnet")]
    #[case::in_a_list(
        r#"{"plugins": [{}, {"ipam": {"ranges": [[{"subnet": 1, "subnet": 2}]]}}]}"#,
        "plugins[1].ipam.ranges[0][0].subnet"
    )]
    #[case::in_another_dress("{\"name\": 1, \"n\\u0061me\": 2}", "name")]
    fn a_key_that_is_given_twice_is_named(#[case] text: &str, #[case] path: &str) {
        match parse(text) {
            Err(Refusal::Twice(found)) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case::cut_off(r#"{"name": "#)]
    #[case::more_behind("{} {}")]
    #[case::nothing("")]
    fn what_is_no_json_is_malformed(#[case] text: &str) {
        assert!(matches!(parse(text), Err(Refusal::Malformed(_))));
    }

    /// Any JSON.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn all_other_json_is_read_as_it_is(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(parse(&text).expect("JSON"), serde_json::from_str::<Value>(&text).expect("JSON"));
        }
    }
}
