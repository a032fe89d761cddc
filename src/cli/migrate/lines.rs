//! Where a key stands in the text, as the parser itself sees it.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One step from the document to a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The value of a key; as the last step the key itself.
    Key(&'a str),
    /// An element of a list, from 0.
    Index(usize),
}

/// The line of the place, from 1. Parses the text up to there and has the parser report an error of our
/// own: errors carry their place.
pub(super) fn line_of(text: &str, path: &[Step<'_>]) -> Option<usize> {
    let error = Probe(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.location().map(|location| location.line())
}

/// A path as it stands in messages: `agents[2].instances`.
pub(super) fn parse_path(text: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in text.split('.') {
        let mut pieces = part.split('[');
        let key = pieces.next().filter(|key| !key.is_empty() && !key.contains(' '))?;
        steps.push(Step::Key(key));
        for piece in pieces {
            steps.push(Step::Index(piece.strip_suffix(']')?.parse().ok()?));
        }
    }
    Some(steps)
}

/// Plain words that YAML 1.1 reads as truth values and YAML 1.2 as text, with their lines.
pub(super) fn old_spellings(text: &str) -> Vec<(usize, String)> {
    const WORDS: [&str; 4] = ["yes", "no", "on", "off"];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line);
        let values = line.split(": ").skip(1).chain(line.trim_start().strip_prefix("- "));
        for value in values {
            let word = value.trim_start().split([',', '}', ']']).next().unwrap_or("").trim();
            let is_old = WORDS.iter().any(|old| word.eq_ignore_ascii_case(old));
            if is_old {
                found.push((number + 1, word.to_owned()));
            }
        }
    }
    found
}

/// Walks the path and fails where it ends.
struct Probe<'a>(&'a [Step<'a>]);

const FOUND: &str = "found";

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.first() {
            None => deserializer.deserialize_any(Fail),
            Some(Step::Key(_)) => deserializer.deserialize_map(self),
            Some(Step::Index(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the structure of the path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Ok(());
        };
        while let Some(is_wanted) = map.next_key_seed(Name { wanted, is_last: rest.is_empty() })? {
            if is_wanted {
                map.next_value_seed(Probe(rest))?;
            } else {
                let IgnoredAny = map.next_value()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        let _ = seq.next_element_seed(Probe(rest))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A key: whether it is the wanted one; fails at it when it is the end of the path.
struct Name<'a> {
    wanted: &'a str,
    is_last: bool,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.is_last) {
            (true, true) => Err(E::custom(FOUND)),
            (is_wanted, _) => Ok(is_wanted),
        }
    }
}

/// Fails at any value.
struct Fail;

impl<'de> Visitor<'de> for Fail {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(FOUND))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom(FOUND))
    }
}
