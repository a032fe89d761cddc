//! The section `roles`, and how its patterns are read.

use serde::Deserialize;

use crate::ids::AgentId;

/// A role: a name for what agents of some kind may do (`roles`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name; `agents[].roles` refer to it.
    pub name: String,
    /// Patterns: `send:worker`, `send:worker-*`, `send:*`.
    pub permissions: Vec<String>,
}

/// What a pattern allows to send to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `send:*`.
    All,
    /// `send:prefix*`.
    Prefix(String),
    /// `send:agent`.
    Agent(AgentId),
}

/// Reads `send:agent`, `send:prefix*` or `send:*`.
pub fn parse_pattern(text: &str) -> Option<Pattern> {
    let target = text.strip_prefix("send:")?;
    if target == "*" {
        return Some(Pattern::All);
    }
    match target.strip_suffix('*') {
        // A prefix is the beginning of an agent's name.
        Some(prefix) => AgentId::parse(prefix).map(|prefix| Pattern::Prefix(prefix.to_string())),
        None => AgentId::parse(target).map(Pattern::Agent),
    }
}
