//! The other servers on the same Redis, as news and looks at the registry tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::ServerId;

/// Looks at the registry that may miss a server of which there was news: the first may be older than the news.
const UNCONFIRMED_LOOKS: u32 = 2;

/// The other servers. Read by all threads, for the price of one atomic.
#[derive(Debug, Default)]
pub struct Peers {
    /// Each with the looks in a row that have missed it.
    known: Mutex<BTreeMap<ServerId, u32>>,
    count: AtomicUsize,
}

impl Peers {
    /// These servers were in the registry.
    pub fn new(alive: &BTreeSet<ServerId>) -> Self {
        let known: BTreeMap<ServerId, u32> = alive.iter().map(|server| (server.clone(), 0)).collect();
        Self { count: AtomicUsize::new(known.len()), known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ServerId, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Which ones.
    pub fn all(&self) -> Vec<ServerId> {
        self.known().keys().cloned().collect()
    }

    /// There was news of a server.
    pub fn heard(&self, server: &ServerId) {
        let mut known = self.known();
        if !known.contains_key(server) {
            let _ = known.insert(server.clone(), 0);
            self.count.store(known.len(), Ordering::Relaxed);
        }
    }

    /// What a look at the registry found. Those that are gone: `gone`, and those of which there was news and that no
    /// look finds.
    pub fn looked(&self, alive: &BTreeSet<ServerId>, gone: Vec<ServerId>) -> BTreeSet<ServerId> {
        let mut known = self.known();
        let mut lost: BTreeSet<ServerId> = gone.into_iter().collect();
        known.retain(|server, missed| {
            *missed = if alive.contains(server) { 0 } else { *missed + 1 };
            if *missed >= UNCONFIRMED_LOOKS {
                let _ = lost.insert(server.clone());
            }
            !lost.contains(server)
        });
        for server in alive {
            let _ = known.entry(server.clone()).or_default();
        }
        self.count.store(known.len(), Ordering::Relaxed);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_which_there_was_only_news_is_gone_after_two_looks() {
        let (one, two) = (ServerId::new(), ServerId::new());
        let peers = Peers::new(&BTreeSet::from([one.clone()]));
        peers.heard(&two);
        let alive = BTreeSet::from([one.clone()]);
        assert!(peers.looked(&alive, Vec::new()).is_empty());
        assert_eq!(peers.looked(&alive, Vec::new()), BTreeSet::from([two.clone()]));
        assert!(peers.looked(&alive, Vec::new()).is_empty());
        // Late news of it brings it back for two looks.
        peers.heard(&two);
        let _ = peers.looked(&alive, Vec::new());
        assert_eq!(peers.looked(&alive, Vec::new()), BTreeSet::from([two]));
        assert_eq!(peers.looked(&BTreeSet::new(), vec![one.clone()]), BTreeSet::from([one]));
        assert!(!peers.any());
    }
}
