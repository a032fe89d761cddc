//! The server that each instance of an agent is connected to, as the hash `agent.instances:{agent}` names it.

use redis::Value;

use super::answers;
use crate::ids::{InstanceId, ServerId};

/// Stands before the id of a server in an instance's entry.
const SERVER_PREFIX: &str = "s:";

/// The owner of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It has a session on this server, if that server still lives.
    Server(ServerId),
    /// It has none.
    Nobody,
}

impl Owner {
    /// Reads the value of an instance's entry.
    pub fn parse(value: &str) -> Self {
        match value.strip_prefix(SERVER_PREFIX).and_then(ServerId::parse) {
            Some(server) => Self::Server(server),
            None => Self::Nobody,
        }
    }
}

/// The entry of an instance that has a session on `server`.
pub fn owned_by(server: &ServerId) -> String {
    format!("{SERVER_PREFIX}{server}")
}

/// Reads an agent's instances: HGETALL's answer.
pub fn instances(value: Value) -> Vec<(InstanceId, Owner)> {
    let pairs = answers::pairs(value).unwrap_or_default();
    let entry = |(name, value): (String, String)| Some((InstanceId::parse(&name)?, Owner::parse(&value)));
    pairs.into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_server_or_nobody() {
        let server = ServerId::new();
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let stored = Value::Array(vec![bulk("i"), bulk(&owned_by(&server)), bulk("j"), bulk("17")]);
        let read: Vec<Owner> = instances(stored).into_iter().map(|(_, owner)| owner).collect();
        assert_eq!(read, [Owner::Server(server), Owner::Nobody]);
    }
}
