//! What Redis says of itself: the answer to INFO.

use std::collections::BTreeMap;

use super::answers::text;
use super::connection::{Batch, Connection, StoreError};

/// What Redis says of itself, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// Asks for it. Where INFO is not allowed nothing is known.
    pub fn ask(connection: &mut Connection) -> Result<Self, StoreError> {
        let mut batch = Batch::new();
        let _ = batch.command("INFO");
        let answer = connection.run(&mut batch)?.pop().unwrap_or_default();
        Ok(text(&answer).map(Self::parse).unwrap_or_default())
    }

    /// Reads the answer.
    pub fn parse(info: &str) -> Self {
        let pairs = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A value; empty where Redis does not say.
    pub fn of(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A value that is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.of(name).parse().ok()
    }

    /// The first two numbers of its version.
    pub fn version(&self) -> (u32, u32) {
        let mut parts = self.of("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// All names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_read() {
        let info = Info::parse("# Server\r\nredis_version:7.0.15\r\nexecutable:/a:b\r\n\r\nmaxmemory:5\r\n");
        assert_eq!((info.version(), info.number("maxmemory")), ((7, 0), Some(5)));
        assert_eq!((info.of("executable"), info.of("missing")), ("/a:b", ""));
        assert_eq!(info.iter().count(), 3);
    }
}
