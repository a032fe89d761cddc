//! How many bytes each inbox holds, and each state: kept by the agent's home worker, read by all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::ids::{AgentId, AgentMap};

/// Bytes that an entry takes in Redis beside its envelope.
const ENTRY_BYTES: usize = 64;

/// The bytes of one inbox, shared and own streams together; or of a state.
#[derive(Debug, Clone, Default)]
pub struct Stored(Arc<AtomicU64>);

impl Stored {
    /// What an envelope of so many bytes takes.
    pub fn of_entry(envelope: usize) -> u64 {
        (envelope + ENTRY_BYTES) as u64
    }

    /// As far as is known.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Redis was asked.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Something was added. Only the home worker changes it.
    pub fn add(&self, bytes: u64) {
        self.set(self.get().saturating_add(bytes));
    }

    /// Something has left.
    pub fn remove(&self, bytes: u64) {
        self.set(self.get().saturating_sub(bytes));
    }
}

/// A number of bytes for each agent.
#[derive(Debug, Default)]
pub struct Sizes(RwLock<AgentMap<Stored>>);

impl Sizes {
    fn read<T>(&self, f: impl FnOnce(&AgentMap<Stored>) -> T) -> T {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes an agent's known.
    pub fn enter(&self, agent: &AgentId, stored: Stored) {
        let _ = self.0.write().unwrap_or_else(PoisonError::into_inner).insert(agent.clone(), stored);
    }

    /// An agent's, where it is known.
    pub fn of(&self, agent: &str) -> Option<u64> {
        self.read(|sizes| sizes.get(agent).map(Stored::get))
    }

    /// Sets an agent's.
    pub fn note(&self, agent: &AgentId, bytes: u64) {
        let known = self.read(|sizes| sizes.get(agent).map(|stored| stored.set(bytes)));
        if known.is_none() {
            let stored = Stored::default();
            stored.set(bytes);
            self.enter(agent, stored);
        }
    }
}
