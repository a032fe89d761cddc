//! The rule behind a verdict, and its name as it goes on record.

use std::fmt::{self, Write};
use std::ops::Deref;
use std::sync::Arc;

/// Names the rule behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `permissions[index]` of `mas.yaml`.
    Permission(u32),
    /// The first role of the sender, by place in its `roles`, that permits it.
    Role(u32),
    /// The rate limit: which window is full.
    RateLimit(&'static str),
    /// The target's circuit is open.
    Circuit,
    /// The payload: the rule of its most restrictive finding.
    Dlp(Arc<str>),
    /// Nothing allows it.
    DefaultDeny,
    /// The target is not in the allowlist.
    UnknownTarget,
    /// A pending request is itself the permission to reply.
    PendingRequest,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission(index) => write!(f, "permissions[{index}]"),
            Self::Role(place) => write!(f, "roles[{place}]"),
            Self::RateLimit(window) => write!(f, "rate_limit.{window}"),
            Self::Circuit => f.write_str("circuit_breaker"),
            Self::Dlp(rule) => write!(f, "dlp.{rule}"),
            Self::DefaultDeny => f.write_str("default_deny"),
            Self::UnknownTarget => f.write_str("unknown_target"),
            Self::PendingRequest => f.write_str("pending_request"),
        }
    }
}

impl Rule {
    /// The name on record. It is written into the value itself: every message that passes has one.
    pub fn name(&self) -> RuleName {
        let mut name = RuleName::default();
        // Writing to a name cannot fail.
        let _ = write!(name, "{self}");
        name
    }
}

/// Bytes of a name that need no allocation: enough for every rule but those of DLP.
const SHORT_BYTES: usize = 38;

/// A rule's name as text.
#[derive(Clone)]
pub struct RuleName {
    short: [u8; SHORT_BYTES],
    len: usize,
    /// The whole name, when it is longer.
    long: String,
}

impl Default for RuleName {
    fn default() -> Self {
        Self { short: [0; SHORT_BYTES], len: 0, long: String::new() }
    }
}

impl Write for RuleName {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        match self.short.get_mut(self.len..end) {
            Some(room) if self.long.is_empty() => {
                room.copy_from_slice(part.as_bytes());
                self.len = end;
            }
            _ => {
                if self.long.is_empty() {
                    let begun = self.to_string();
                    self.long = begun;
                }
                self.long.push_str(part);
            }
        }
        Ok(())
    }
}

impl From<&str> for RuleName {
    fn from(text: &str) -> Self {
        let mut name = Self::default();
        // Writing to it cannot fail.
        let _ = name.write_str(text);
        name
    }
}

impl Deref for RuleName {
    type Target = str;

    fn deref(&self) -> &str {
        if !self.long.is_empty() {
            return &self.long;
        }
        // Only whole strings were written.
        self.short.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_is_displayed_however_long() {
        for rule in [
            Rule::Permission(0),
            Rule::Permission(u32::MAX),
            Rule::Role(7),
            Rule::RateLimit("per_minute"),
            Rule::Circuit,
            Rule::Dlp("default.ssn".into()),
            Rule::Dlp("ü".repeat(100).into()),
            Rule::DefaultDeny,
            Rule::UnknownTarget,
            Rule::PendingRequest,
        ] {
            assert_eq!(&*rule.name(), rule.to_string());
        }
        assert_eq!(&*RuleName::default(), "");
    }
}
