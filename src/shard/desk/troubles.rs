//! What does not work now, by a stable code: for readiness, metrics and operators. Set and cleared by whoever finds it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Now;

/// What may not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// No checkpoint can be written.
    Checkpoints,
    /// Checkpoints are in the anchor, and Redis does not take them.
    CheckpointsInRedis,
    /// The trail cannot be archived.
    Archive,
    /// Dead letters are too many for Redis and cannot be moved to a file.
    DeadLetters,
    /// The copy of the trail cannot be written.
    Copy,
    /// A disk that the trail needs fills up.
    DiskLow,
    /// Redis does not take the renewal of the server's lease: others may declare it void.
    Lease,
    /// The last reload was refused: what was in force stays.
    Reload,
    /// Who is in quarantine cannot be read: what is known stays in force.
    Quarantine,
    /// Another server on this Redis decides by other rules.
    RulesDiffer,
    /// Another server on this Redis is of another version.
    VersionsDiffer,
    /// Another server on this Redis has ended without a stop in order.
    ServerGone,
    /// A start has found that Redis holds less than the anchor says.
    RolledBack,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 13] = [
        Self::Checkpoints,
        Self::CheckpointsInRedis,
        Self::Archive,
        Self::DeadLetters,
        Self::Copy,
        Self::DiskLow,
        Self::Lease,
        Self::Reload,
        Self::Quarantine,
        Self::RulesDiffer,
        Self::VersionsDiffer,
        Self::ServerGone,
        Self::RolledBack,
    ];

    /// Its name, as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints_failing",
            Self::CheckpointsInRedis => "redis_lacks_checkpoints",
            Self::Archive => "archive_failing",
            Self::DeadLetters => "dead_letters_stuck",
            Self::Copy => "copy_failing",
            Self::DiskLow => "disk_low",
            Self::Lease => "lease_not_renewed",
            Self::Reload => "reload_refused",
            Self::Quarantine => "quarantine_unreadable",
            Self::RulesDiffer => "rules_differ",
            Self::VersionsDiffer => "versions_differ",
            Self::ServerGone => "server_gone",
            Self::RolledBack => "trail_rolled_back",
        }
    }
}

/// One thing that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub code: Code,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Why, as it was said last.
    pub why: String,
}

/// What does not work now.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<Code, Trouble>>);

impl Troubles {
    /// It does not work, and why; or it works.
    pub fn set(&self, code: Code, why: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (why, known.get_mut(&code)) {
            (None, None) => {}
            (None, Some(_)) => drop(known.remove(&code)),
            (Some(why), Some(trouble)) => trouble.why = why,
            (Some(why), None) => {
                let trouble = Trouble { code, since_ms: Now::read().unix_us / 1000, why };
                drop(known.insert(code, trouble));
            }
        }
    }

    /// All of it.
    pub fn all(&self) -> Vec<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_keeps_its_beginning_until_it_is_over() {
        let troubles = Troubles::default();
        troubles.set(Code::Copy, None);
        assert!(troubles.all().is_empty());
        troubles.set(Code::Copy, Some("disk full".to_owned()));
        let first = troubles.all();
        troubles.set(Code::Copy, Some("no such file".to_owned()));
        let second = troubles.all();
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!((first[0].since_ms, &*second[0].why), (second[0].since_ms, "no such file"));
        troubles.set(Code::Copy, None);
        assert!(troubles.all().is_empty());
    }
}
