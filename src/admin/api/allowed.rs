//! Who may send to whom, worked out once for each configuration.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::AgentId;
use crate::shard::desk::settings::Settings;

/// Most agents among whom it is worked out: the work grows with their square.
pub(super) const MAX_AGENTS: usize = 1_000;

/// Who may send to whom.
#[derive(Debug)]
pub(super) struct Allowed {
    version: [u8; 32],
    /// The agents, by name; the first [`MAX_AGENTS`].
    pub(super) agents: Vec<AgentId>,
    /// For each of them the places of those that it may send to, ascending.
    pub(super) rows: Vec<Vec<usize>>,
    /// For each of them, how many may send to it.
    pub(super) senders: Vec<usize>,
    /// Whether there are more.
    pub(super) cut: bool,
}

/// What was worked out last.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<Option<Arc<Allowed>>>);

impl Rules {
    /// Who may send to whom by these settings.
    pub(super) fn allowed(&self, settings: &Settings) -> Arc<Allowed> {
        // Whoever comes meanwhile waits for the same.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowed) = known.as_ref().filter(|known| known.version == *settings.policy.version()) {
            return allowed.clone();
        }
        let allowed = Arc::new(Allowed::new(settings));
        *known = Some(allowed.clone());
        allowed
    }
}

impl Allowed {
    fn new(settings: &Settings) -> Self {
        let policy = &settings.policy;
        let mut agents: Vec<AgentId> = policy.agents().map(|card| card.id.clone()).collect();
        agents.sort_unstable();
        let cut = agents.len() > MAX_AGENTS;
        agents.truncate(MAX_AGENTS);
        let row = |from: &AgentId| {
            let to = agents.iter().enumerate().filter(|(_, to)| policy.may_message(from, to));
            to.map(|(at, _)| at).collect::<Vec<usize>>()
        };
        let rows: Vec<Vec<usize>> = agents.iter().map(row).collect();
        let mut senders = vec![0; agents.len()];
        for at in rows.iter().flatten() {
            if let Some(count) = senders.get_mut(*at) {
                *count += 1;
            }
        }
        Self { version: *policy.version(), agents, rows, senders, cut }
    }

    /// The place of an agent.
    pub(super) fn at(&self, name: &str) -> Option<usize> {
        self.agents.binary_search_by(|agent| agent.as_str().cmp(name)).ok()
    }
}
