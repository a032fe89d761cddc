//! Who is shut out by an operator: agents by name, by what they offer, or all. Pure; it is stored in Redis
//! (`store/quarantines.rs`), and each server holds the newest that it has seen.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::AgentId;

/// Most entries, of which some may be released: who has to shut out more says so by capability, or shuts out all.
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

/// What was said of somebody last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Grows with every change: an older entry that somebody puts back is known by it.
    pub version: u64,
    /// Whether they are shut out; else they were let in again.
    pub active: bool,
    /// By whom, and why.
    pub by: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
}

/// Who is shut out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    entries: BTreeMap<Whom, Entry>,
}

impl Quarantine {
    /// Takes up what was read; of what is known already, the newer. Whether anything has changed.
    pub fn take_up(&mut self, read: impl IntoIterator<Item = (Whom, Entry)>) -> bool {
        let mut changed = false;
        for (whom, entry) in read {
            if self.entries.get(&whom).is_none_or(|known| known.version < entry.version) {
                changed = true;
                let _ = self.entries.insert(whom, entry);
            }
        }
        changed
    }

    /// Everything that is known, released entries included.
    pub fn entries(&self) -> &BTreeMap<Whom, Entry> {
        &self.entries
    }

    /// Those that are shut out now.
    pub fn active(&self) -> impl Iterator<Item = (&Whom, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.active)
    }

    /// Why an agent with these capabilities is shut out; `None`: it is not.
    pub fn holds<'a>(&'a self, agent: &AgentId, capabilities: &[String]) -> Option<(&'a Whom, &'a Entry)> {
        self.active().find(|(whom, _)| match whom {
            Whom::All => true,
            Whom::Agent(named) => named == agent,
            Whom::Capability(named) => capabilities.contains(named),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(version: u64, active: bool) -> Entry {
        Entry { version, active, by: String::new(), since_ms: 0 }
    }

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
        assert!(quarantine.take_up([
            (Whom::Agent(agent("a")), entry(1, true)),
            (Whom::Capability("x".to_owned()), entry(1, true)),
        ]));
        assert!(quarantine.holds(&agent("a"), &[]).is_some());
        assert!(quarantine.holds(&agent("b"), &["x".to_owned()]).is_some());
        assert!(quarantine.holds(&agent("b"), &["y".to_owned()]).is_none());
        let _ = quarantine.take_up([(Whom::Agent(agent("a")), entry(2, false))]);
        assert!(quarantine.holds(&agent("a"), &[]).is_none());
        let _ = quarantine.take_up([(Whom::All, entry(1, true))]);
        assert!(quarantine.holds(&agent("a"), &[]).is_some());
    }

    proptest! {
        #[test]
        fn the_newest_counts_in_whatever_order_it_is_read(versions in prop::collection::vec((1..20_u64, any::<bool>()), 1..20)) {
            let mut quarantine = Quarantine::default();
            let mut newest = entry(0, false);
            for (version, active) in versions {
                let changed = quarantine.take_up([(Whom::All, entry(version, active))]);
                prop_assert_eq!(changed, version > newest.version);
                if version > newest.version {
                    newest = entry(version, active);
                }
                prop_assert_eq!(quarantine.holds(&agent("a"), &[]).is_some(), newest.active);
            }
        }
    }
}
