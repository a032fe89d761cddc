//! Which Redis is the primary, as the Sentinels said last; and where a connection was led to by them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Which Redis the Sentinels called the primary when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Primary {
    addr: Mutex<Option<String>>,
    /// How often it was another one than before.
    changes: AtomicU64,
}

/// Where a connection leads that was made through Sentinels.
#[derive(Debug)]
pub(super) struct Lead {
    addr: String,
    primary: Arc<Primary>,
    /// The changes that are known here.
    changes: u64,
}

impl Primary {
    /// The Sentinels name this one. True where it was another one before.
    pub(super) fn set(&self, addr: String) -> bool {
        let mut known = self.addr.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() == Some(&addr) {
            return false;
        }
        let is_first = known.replace(addr).is_none();
        let _ = self.changes.fetch_add(1, Ordering::Release);
        !is_first
    }
}

impl Lead {
    /// One that is about to be found: what Sentinels say from now on is newer than what was known.
    pub(super) fn new(primary: Arc<Primary>) -> Self {
        let changes = primary.changes.load(Ordering::Acquire);
        Self { addr: String::new(), primary, changes }
    }

    /// It leads there.
    pub(super) fn to(self, addr: String) -> Self {
        Self { addr, ..self }
    }

    /// The primary, where this is not the one any more. It may live on, and take writes that are lost.
    pub(super) fn successor(&mut self) -> Option<String> {
        let changes = self.primary.changes.load(Ordering::Acquire);
        if changes == self.changes {
            return None;
        }
        let now = self.primary.addr.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let successor = now.filter(|now| *now != self.addr);
        if successor.is_none() {
            self.changes = changes;
        }
        successor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_given_up_when_another_one_is_named_and_not_before() {
        let primary = Arc::<Primary>::default();
        let lead = |addr: &str| Lead::new(primary.clone()).to(addr.to_owned());
        let mut early = lead("a");
        assert!(!primary.set("a".to_owned()));
        let mut first = lead("a");
        assert_eq!((early.successor(), first.successor()), (None, None));
        // One that Sentinels have led to before anybody looked.
        let mut second = lead("b");
        assert!(primary.set("b".to_owned()));
        assert!(!primary.set("b".to_owned()));
        assert_eq!(first.successor().as_deref(), Some("b"));
        assert_eq!(early.successor().as_deref(), Some("b"));
        assert_eq!(second.successor(), None);
        // It is the primary again.
        assert!(primary.set("a".to_owned()));
        assert_eq!(first.successor(), None);
        assert_eq!(second.successor().as_deref(), Some("a"));
    }
}
