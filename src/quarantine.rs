//! Who is shut out by an operator: agents by name, by what they offer, or all. Pure; it is stored in Redis
//! (`store/quarantines.rs`), and each server holds the newest that it has seen.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::AgentId;

/// Most entries: who has to shut out more says so by capability, or shuts out all.
pub const MAX_ENTRIES: usize = 1024;
/// Longest capability that can be named, in bytes.
const MAX_CAPABILITY_BYTES: usize = 256;

/// Whom a quarantine is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Whom {
    /// Every agent.
    All,
    /// One agent, also one that is not in the configuration.
    Agent(AgentId),
    /// All that offer a capability, also those that will.
    Capability(String),
}

impl Whom {
    /// Reads `all`, `agent:NAME` or `capability:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => (text == "all").then_some(Self::All),
            Some(("agent", name)) => AgentId::parse(name).map(Self::Agent),
            Some(("capability", name)) => {
                (1..=MAX_CAPABILITY_BYTES).contains(&name.len()).then(|| Self::Capability(name.to_owned()))
            }
            Some(_) => None,
        }
    }
}

impl Whom {
    /// Whether an agent with these capabilities is meant.
    pub fn names(&self, agent: &AgentId, capabilities: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Agent(named) => named == agent,
            Self::Capability(named) => capabilities.contains(named),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Agent(agent) => write!(f, "agent:{agent}"),
            Self::Capability(capability) => write!(f, "capability:{capability}"),
        }
    }
}

impl TryFrom<String> for Whom {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("{text:?}: expected \"all\", \"agent:NAME\" or \"capability:NAME\""))
    }
}

impl From<Whom> for String {
    fn from(whom: Whom) -> Self {
        whom.to_string()
    }
}

/// By whom somebody was shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// By whom, and why.
    pub by: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
}

/// Who is shut out: one document, which grows a version with each change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// An older document that somebody puts back is known by it. 0: nobody was ever shut out.
    pub version: u64,
    /// Those that are shut out now.
    pub entries: BTreeMap<Whom, Entry>,
}

impl Quarantine {
    /// Why an agent with these capabilities is shut out; `None`: it is not.
    pub fn holds<'a>(&'a self, agent: &AgentId, capabilities: &[String]) -> Option<(&'a Whom, &'a Entry)> {
        self.entries.iter().find(|(whom, _)| whom.names(agent, capabilities))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::parse(name).unwrap()
    }

    #[test]
    fn whom_is_written_as_it_is_read() {
        for text in ["all", "agent:a-1", "capability:a:b"] {
            assert_eq!(Whom::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "none", "agent:", "agent:a b", "capability:", "role:x"] {
            assert_eq!(Whom::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_agent_is_held_by_name_by_what_it_offers_or_with_all() {
        let mut quarantine = Quarantine::default();
        let entry = || Entry { by: String::new(), since_ms: 0 };
        let _ = quarantine.entries.insert(Whom::Agent(agent("a")), entry());
        let _ = quarantine.entries.insert(Whom::Capability("x".to_owned()), entry());
        assert!(quarantine.holds(&agent("a"), &[]).is_some());
        assert!(quarantine.holds(&agent("b"), &["x".to_owned()]).is_some());
        assert!(quarantine.holds(&agent("b"), &["y".to_owned()]).is_none());
        let _ = quarantine.entries.remove(&Whom::Agent(agent("a")));
        assert!(quarantine.holds(&agent("a"), &[]).is_none());
        let _ = quarantine.entries.insert(Whom::All, entry());
        assert!(quarantine.holds(&agent("a"), &[]).is_some());
    }

    #[test]
    fn a_later_versions_document_is_read() {
        let text = r#"{"version":3,"entries":{"agent:a":{"by":"x","since_ms":1,"until_ms":2}},"more":[]}"#;
        let read: Quarantine = serde_json::from_str(text).unwrap();
        assert!(read.version == 3 && read.holds(&agent("a"), &[]).is_some());
    }
}
