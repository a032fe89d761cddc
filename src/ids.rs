//! Names and identifiers as types: what cannot be a Redis key fragment or a wire id cannot be built.
//!
//! Source of the shapes: the wire protocol. `agent_id` is `[A-Za-z0-9_-]{1,64}`, `instance_id` is
//! `[A-Za-z0-9_-]{1,32}`, both over the whole string (a trailing newline does not pass).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// Longest agent id, in bytes.
pub const MAX_AGENT_ID_BYTES: usize = 64;
/// Longest instance id, in bytes.
pub const MAX_INSTANCE_ID_BYTES: usize = 32;
/// Length of a correlation id: 32 lower-case hexadecimal characters.
pub const CORRELATION_ID_CHARS: usize = 32;

fn is_id(text: &str, max_bytes: usize) -> bool {
    !text.is_empty()
        && text.len() <= max_bytes
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $max:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the whole string, or returns `None` when a character or the length is not allowed.
            pub fn parse(text: &str) -> Option<Self> {
                is_id(text, $max).then(|| Self(Arc::from(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "{text:?} is not a valid {}: expected 1 to {} of A-Z a-z 0-9 _ -",
                        $what, $max
                    ))
                })
            }
        }
    };
}

string_id!(
    /// The name of an agent, as its certificate and `mas.yaml` give it.
    AgentId,
    MAX_AGENT_ID_BYTES,
    "agent id"
);
string_id!(
    /// The name of one running process of an agent, chosen by that process.
    InstanceId,
    MAX_INSTANCE_ID_BYTES,
    "instance id"
);

/// A map by agent. Looked up some twenty times per message, so its hash is a quick one; seeded per process,
/// and its keys are agents of the configuration, not a stranger's.
pub type AgentMap<V> = HashMap<AgentId, V, foldhash::fast::RandomState>;

impl AgentId {
    /// A stable 16-bit hash (FNV-1a, folded): the same on every server and in every version, because
    /// correlation ids carry it and it decides which worker an agent lives on.
    pub fn route_hash(&self) -> u16 {
        route_hash(&self.0)
    }

    /// The route hash of what may be an agent id; `None` where it is none.
    pub fn route_hash_of(text: &str) -> Option<u16> {
        is_id(text, MAX_AGENT_ID_BYTES).then(|| route_hash(text))
    }
}

fn route_hash(id: &str) -> u16 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 16) ^ (hash >> 32) ^ (hash >> 48)) as u16
}

/// Names one run of one server on a Redis: a UUIDv7 without hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(String);

impl ServerId {
    /// A fresh id.
    #[allow(clippy::new_without_default)] // Each one is another.
    pub fn new() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string())
    }

    /// Parses exactly 32 lower-case hexadecimal characters.
    pub fn parse(text: &str) -> Option<Self> {
        let right = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        right.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one request until it is answered: the 16-bit route hash of the requesting agent, so that a reply finds the
/// requester's worker without a look-up, and 106 random bits between the version and variant bits of a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CorrelationId([u8; 16]);

impl CorrelationId {
    /// A fresh, unguessable id whose replies route to `requester`.
    pub fn new(requester: &AgentId) -> Self {
        let mut bytes = *uuid::Uuid::new_v4().as_bytes();
        // The version and variant bits of the UUID stay: 122 - 16 random bits remain.
        bytes[..2].copy_from_slice(&requester.route_hash().to_be_bytes());
        Self(bytes)
    }

    /// Parses exactly 32 lower-case hexadecimal characters.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != CORRELATION_ID_CHARS {
            return None;
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair.first_chunk::<2>()?;
            *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// The id as bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The route hash of the agent that made the request.
    pub fn route_hash(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Lower-case hexadecimal text of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The bytes of lower-case hexadecimal text; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    pairs.map(byte).collect()
}

/// Longest name of an operator, in bytes.
pub const MAX_OPERATOR_NAME_BYTES: usize = 128;

/// Whether a certificate can name an operator so: letters, digits, `-`, `_` and `.`, and not dots alone.
pub fn is_operator_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_dots = name.bytes().all(|byte| byte == b'.');
    (1..=MAX_OPERATOR_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain) && !is_dots
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_agent_id_is_accepted_exactly_when_its_shape_is_right(text in ".{0,80}") {
            let right = !text.is_empty()
                && text.len() <= 64
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            prop_assert_eq!(AgentId::parse(&text).is_some(), right);
        }

        #[test]
        fn a_valid_id_with_a_newline_or_separator_does_not_pass(
            head in "[A-Za-z0-9_-]{1,20}", bad in "[\n\r\0:{}*. /]", tail in "[A-Za-z0-9_-]{0,5}"
        ) {
            let text = format!("{head}{bad}{tail}");
            prop_assert!(AgentId::parse(&text).is_none());
            prop_assert!(InstanceId::parse(&text).is_none());
        }

        #[test]
        fn a_correlation_id_reads_back_and_routes_to_its_requester(name in "[A-Za-z0-9_-]{1,64}") {
            let agent = AgentId::parse(&name).unwrap();
            let id = CorrelationId::new(&agent);
            let text = id.to_string();
            prop_assert_eq!(text.len(), CORRELATION_ID_CHARS);
            prop_assert_eq!(CorrelationId::parse(&text), Some(id));
            prop_assert_eq!(id.route_hash(), agent.route_hash());
        }

        #[test]
        fn no_other_text_is_a_correlation_id(text in ".{0,40}") {
            let right = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(CorrelationId::parse(&text).is_some(), right);
        }
    }

    #[test]
    fn the_route_hash_does_not_change_between_versions() {
        assert_eq!(AgentId::parse("alpha").unwrap().route_hash(), 2747);
    }
}
