//! Checks `data_json` as a stranger's JSON: one object, no deeper than allowed, no key twice, every
//! number a finite double, every string valid Unicode. What passes is delivered byte for byte.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Keys of one object that are compared pairwise before a hash set is worth its allocation.
const LINEAR_KEYS: usize = 16;

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON in the sense above.
    Invalid,
    /// Valid, but the top level is no object.
    NotAnObject,
}

/// Checks that `text` is one JSON object that nests arrays and objects at most `max_depth` deep.
pub fn check_object(text: &str, max_depth: usize) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Value { depth_left: max_depth }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|_| JsonError::Invalid)?;
    if text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
        Ok(())
    } else {
        Err(JsonError::NotAnObject)
    }
}

/// Walks one value without building it.
#[derive(Clone, Copy)]
struct Value {
    depth_left: usize,
}

impl Value {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom("too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        if number.is_finite() { Ok(()) } else { Err(E::custom("number out of range")) }
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut seen = SeenKeys::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if !seen.insert(key.0) {
                return Err(de::Error::custom("duplicate key"));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A decoded object key, borrowed from the input where it holds no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The keys of one object so far. The first ones stand in the value itself: nearly all objects have few.
struct SeenKeys<'de> {
    few: [Cow<'de, str>; LINEAR_KEYS],
    len: usize,
    many: HashSet<Cow<'de, str>>,
}

impl Default for SeenKeys<'_> {
    fn default() -> Self {
        Self { few: [const { Cow::Borrowed("") }; LINEAR_KEYS], len: 0, many: HashSet::new() }
    }
}

impl<'de> SeenKeys<'de> {
    /// False when the key was there already.
    fn insert(&mut self, key: Cow<'de, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        let seen = self.few.get(..self.len).unwrap_or_default();
        if seen.contains(&key) {
            return false;
        }
        match self.few.get_mut(self.len) {
            Some(slot) => {
                *slot = key;
                self.len += 1;
            }
            None => {
                self.many = self.few.iter_mut().map(std::mem::take).collect();
                self.many.insert(key);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str) -> Result<(), JsonError> {
        check_object(text, 64)
    }

    #[test]
    fn objects_pass() {
        for good in ["{}", " {\"a\": [1, 2.5, -0, 1e308, null, true, \"\\ud83d\\ude00\"]} \n"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn other_values_are_no_objects() {
        for other in ["1", "null", "\"{}\"", "[{}]", " true"] {
            assert_eq!(check(other), Err(JsonError::NotAnObject), "{other}");
        }
    }

    #[test]
    fn what_is_no_strict_json_is_refused() {
        for bad in [
            "",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":-Infinity}",
            "{\"a\":1e400}",
            "{\"a\":-1e400}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00x\"}",
            "{\"\\ud800\":1}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":\"\n\"}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "\u{feff}{}",
        ] {
            assert_eq!(check(bad), Err(JsonError::Invalid), "{bad}");
        }
    }

    #[test]
    fn depth_is_counted_over_arrays_and_objects() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check_object(&nested(63), 64), Ok(()));
        assert_eq!(check_object(&nested(64), 64), Err(JsonError::Invalid));
        assert_eq!(check(&nested(500_000)), Err(JsonError::Invalid));
    }

    #[test]
    fn a_duplicate_among_many_keys_is_found() {
        let keys: Vec<String> = (0..1000).map(|i| format!("\"k{i}\":0")).collect();
        assert_eq!(check(&format!("{{{}}}", keys.join(","))), Ok(()));
        assert_eq!(check(&format!("{{{},\"k7\":1}}", keys.join(","))), Err(JsonError::Invalid));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_panic(text in ".{0,200}") {
            let _ = check(&text);
        }

        #[test]
        fn what_passes_is_an_object_to_another_parser_too(text in "[\\[\\]{}\":,0-9a-z\\\\ ]{0,40}") {
            if check(&text).is_ok() {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert!(value.is_object());
            }
        }
    }
}
