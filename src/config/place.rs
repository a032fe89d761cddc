//! Where in the document a key stands, so that what is wrong with its value can be said with the line.
//!
//! The text is read a second time for it, by the parser that read it the first time, and only once
//! something is wrong: nothing has to be carried along for errors that hardly ever happen.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The way to one value of the document: `agents[3].tls_key_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// Names separated by dots, indexes in brackets. Names with such characters are added by
    /// [`KeyPath::key`].
    pub(crate) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
            steps.push(Step::Key(name.to_owned()));
            let indexes = indexes.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok());
            steps.extend(indexes.map(Step::Index));
        }
        Self(steps)
    }

    /// One step down into a mapping.
    pub(crate) fn key(mut self, name: &str) -> Self {
        self.0.push(Step::Key(name.to_owned()));
        self
    }

    /// One step down into a list.
    pub(crate) fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// The line of the key, or of the list's element, in a text that is a valid document; for one that is
    /// not there, the line of what should hold it; `None` when the document itself should. Lines count
    /// from 1.
    pub(crate) fn line(&self, text: &str) -> Option<usize> {
        (1..=self.0.len()).rev().find_map(|depth| line(self.0.get(..depth)?, text))
    }
}

fn line(steps: &[Step], text: &str) -> Option<usize> {
    // Finding it is an error, because errors are what the parser gives positions to.
    let found = Seek { steps }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    found.location().map(|location| location.line())
}

impl From<&str> for KeyPath {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if place == 0 => f.write_str(name)?,
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// What ends the search; nobody reads it.
const FOUND: &str = "found";

/// Walks down the document, and fails where the steps end.
#[derive(Clone, Copy)]
struct Seek<'a> {
    steps: &'a [Step],
}

impl Seek<'_> {
    fn leaf<E: Error>(self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.leaf()?;
        while let Some(next) = map.next_key_seed(Name { steps: self.steps })? {
            match next {
                Some(steps) => map.next_value_seed(Seek { steps })?,
                None => {
                    let _: IgnoredAny = map.next_value()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.leaf()?;
        let Some((Step::Index(wanted), steps)) = self.steps.split_first() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut index = 0;
        while if index == *wanted {
            list.next_element_seed(Seek { steps })?.is_some()
        } else {
            list.next_element::<IgnoredAny>()?.is_some()
        } {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.leaf()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.leaf()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }
}

/// A key of a mapping: the steps behind it when it is the wanted one.
struct Name<'a> {
    steps: &'a [Step],
}

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a [Step]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, 'a> Visitor<'de> for Name<'a> {
    type Value = Option<&'a [Step]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<Self::Value, E> {
        match self.steps.split_first() {
            // The last step's key itself: its value may begin on a later line.
            Some((Step::Key(wanted), [])) if wanted == found => Err(E::custom(FOUND)),
            Some((Step::Key(wanted), rest)) if wanted == found => Ok(Some(rest)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\nserver: 1\nagents:\n  - agent_id: a\n    tls_key_path: x\n  - {agent_id: b,\n     \
                        metadata: {deep: [1,\n 2]}}\nlist: &l [1, 2]\nagain: *l\n'a.b[0]':\n  x: null\n";

    #[test]
    fn keys_and_elements_have_lines() {
        for (path, line) in [
            ("server", 2),
            ("agents", 3),
            ("agents[0]", 4),
            ("agents[0].tls_key_path", 5),
            ("agents[1]", 6),
            ("agents[1].metadata.deep", 7),
            ("agents[1].metadata.deep[1]", 8),
            ("list[1]", 9),
            ("again", 10),
        ] {
            assert_eq!(KeyPath::parse(path).line(TEXT), Some(line), "{path}");
            assert_eq!(KeyPath::parse(path).to_string(), path);
        }
        assert_eq!(KeyPath(Vec::new()).key("a.b[0]").key("x").line(TEXT), Some(12));
    }

    #[test]
    fn what_is_not_there_stands_where_it_should_be() {
        for (path, line) in [
            ("nothing", None),
            ("nothing.below", None),
            ("server.x", Some(2)),
            ("server[0]", Some(2)),
            ("agents.agent_id", Some(3)),
            ("agents[2]", Some(3)),
            ("agents[0].roles[0]", Some(4)),
        ] {
            assert_eq!(KeyPath::parse(path).line(TEXT), line, "{path}");
        }
        assert_eq!(KeyPath::parse("x").line(""), None);
    }
}
