//! The list of what must no longer be accepted, `revoked.json`:
//! `{"fingerprints": [SHA-256 hex], "serials": [hex], "agents": [id]}`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CertsError, Fingerprint, Serial, files, revoked_file, unusable};
use crate::ids::AgentId;

/// What was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    fingerprints: BTreeSet<Fingerprint>,
    serials: BTreeSet<Serial>,
    agents: BTreeSet<AgentId>,
}

/// One thing to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Exactly one certificate.
    Fingerprint(Fingerprint),
    /// The certificate with this serial number.
    Serial(Serial),
    /// Every certificate of an agent, future ones included.
    Agent(AgentId),
}

/// The file as it is written.
#[derive(Default, Serialize, Deserialize)]
// A misspelt list would revoke nothing without anyone noticing.
#[serde(default, deny_unknown_fields)]
struct Document {
    fingerprints: Vec<String>,
    serials: Vec<String>,
    agents: Vec<String>,
}

/// Adds `entry` to the list of the CA in `dir`, which is made if it is missing. Returns whether it is
/// new there.
///
/// # Errors
/// When the list cannot be read, is not valid or cannot be written.
pub fn revoke(dir: &Path, entry: Revoked) -> Result<bool, CertsError> {
    let path = revoked_file(dir);
    // Between reading and writing nobody else's entry may get lost.
    let _lock = files::FolderLock::take(dir)?;
    let mut list = Revocations::load(&path)?;
    let added = list.insert(entry);
    if added {
        list.save(&path)?;
    }
    Ok(added)
}

impl Revocations {
    /// Reads a list; a file that does not exist is an empty one.
    ///
    /// # Errors
    /// [`CertsError::Io`], or [`CertsError::Unusable`] naming the entry that is not valid.
    pub fn load(path: &Path) -> Result<Self, CertsError> {
        Self::find(path).map(Option::unwrap_or_default)
    }

    /// Reads a list; `None` where there is no file.
    ///
    /// # Errors
    /// [`CertsError::Io`], or [`CertsError::Unusable`] naming the entry that is not valid.
    pub fn find(path: &Path) -> Result<Option<Self>, CertsError> {
        if !files::exists(path)? {
            return Ok(None);
        }
        Self::parse(&files::read(path)?).map(Some).map_err(|problem| unusable(path, problem))
    }

    /// Whether a certificate with these marks was revoked; `agent` is whom it names, if anyone.
    pub fn contains(&self, fingerprint: &Fingerprint, serial: &Serial, agent: Option<&AgentId>) -> bool {
        self.fingerprints.contains(fingerprint)
            || self.serials.contains(serial)
            || agent.is_some_and(|id| self.contains_agent(id))
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty() && self.serials.is_empty() && self.agents.is_empty()
    }

    /// Whether every certificate of agent `id` was revoked.
    pub fn contains_agent(&self, id: &AgentId) -> bool {
        self.agents.contains(id)
    }

    /// Adds an entry; `false` when it was there.
    pub fn insert(&mut self, entry: Revoked) -> bool {
        match entry {
            Revoked::Fingerprint(fingerprint) => self.fingerprints.insert(fingerprint),
            Revoked::Serial(serial) => self.serials.insert(serial),
            Revoked::Agent(id) => self.agents.insert(id),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        // An array would be taken for the lists in their order.
        if !text.trim_start().starts_with('{') {
            return Err("expected a JSON object".to_owned());
        }
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self {
            fingerprints: all(&document.fingerprints, "fingerprints", Fingerprint::parse)?,
            serials: all(&document.serials, "serials", Serial::parse)?,
            agents: all(&document.agents, "agents", AgentId::parse)?,
        })
    }

    fn save(&self, path: &Path) -> Result<(), CertsError> {
        let document = Document {
            fingerprints: self.fingerprints.iter().map(ToString::to_string).collect(),
            serials: self.serials.iter().map(ToString::to_string).collect(),
            agents: self.agents.iter().map(ToString::to_string).collect(),
        };
        let mut text = serde_json::to_string_pretty(&document).map_err(|error| unusable(path, error))?;
        text.push('\n');
        files::write(path, &text, files::PUBLIC)
    }
}

fn all<T: Ord>(
    texts: &[String],
    list: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<BTreeSet<T>, String> {
    texts.iter().map(|text| parse(text).ok_or_else(|| format!("`{list}`: {text:?} is not valid"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoking_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let entries = || {
            [
                Revoked::Agent(AgentId::parse("alpha").unwrap()),
                Revoked::Serial(Serial::parse("0A:1B").unwrap()),
                Revoked::Fingerprint(Fingerprint::of(b"x")),
            ]
        };
        for entry in entries() {
            assert!(revoke(dir.path(), entry).unwrap());
        }
        let path = revoked_file(dir.path());
        let first = files::read(&path).unwrap();
        for entry in entries() {
            assert!(!revoke(dir.path(), entry).unwrap());
        }
        assert_eq!(files::read(&path).unwrap(), first);
        let json: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(json["agents"], serde_json::json!(["alpha"]));
        assert_eq!(json["serials"], serde_json::json!(["0a1b"]));
        assert_eq!(json["fingerprints"][0], Fingerprint::of(b"x").as_str());
    }

    #[test]
    fn each_kind_of_entry_matches_by_itself() {
        let (fingerprint, serial) = (Fingerprint::of(b"x"), Serial::of(&[7]));
        let alpha = AgentId::parse("alpha").unwrap();
        let empty = Revocations::default();
        assert!(!empty.contains(&fingerprint, &serial, Some(&alpha)));
        for entry in [
            Revoked::Fingerprint(fingerprint.clone()),
            Revoked::Serial(serial.clone()),
            Revoked::Agent(alpha.clone()),
        ] {
            let mut list = empty.clone();
            assert!(list.insert(entry));
            assert!(list.contains(&fingerprint, &serial, Some(&alpha)));
            assert!(!list.contains(&Fingerprint::of(b"y"), &Serial::of(&[8]), None));
        }
    }

    #[test]
    fn a_list_that_is_not_valid_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = revoked_file(dir.path());
        for text in [
            "",
            "[]",
            r#"{"agent": ["alpha"]}"#,
            r#"{"agents": ["a b"]}"#,
            r#"{"serials": ["xy"]}"#,
            r#"{"fingerprints": ["00"]}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let entry = Revoked::Agent(AgentId::parse("beta").unwrap());
            let error = revoke(dir.path(), entry).unwrap_err().to_string();
            assert!(error.contains("revoked.json"), "{error}");
            assert_eq!(files::read(&path).unwrap(), text);
        }
        std::fs::write(&path, r#"{"agents": ["alpha"]}"#).unwrap();
        assert!(Revocations::load(&path).unwrap().contains_agent(&AgentId::parse("alpha").unwrap()));
    }
}
