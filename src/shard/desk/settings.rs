//! The configuration in force, as far as decisions depend on it.

use std::sync::Arc;

use crate::audit::tally::Known;
use crate::config::{Config, Delivery, Limits};
use crate::policy::{Card, Policy};

/// What an agent costs a discovery beside what is told of it.
const LISTED_BYTES: usize = 32;

/// What a configuration means for decisions. A round is decided by one of these as a whole.
#[derive(Debug)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// Bounds on requests.
    pub limits: Limits,
    /// Credit and redelivery.
    pub delivery: Delivery,
    /// Bytes of what Discover tells of all agents.
    pub listing_bytes: usize,
}

impl Settings {
    /// Compiles a configuration; counts of messages of `previous` go on counting.
    pub fn new(config: &Config, previous: Option<&Self>) -> Self {
        let policy = Policy::compile(config, previous.map(|previous| &previous.policy));
        let listed = |card: &Card| {
            let capabilities: usize = card.capabilities.iter().map(String::len).sum();
            card.id.as_str().len() + capabilities + card.metadata_json.len() + LISTED_BYTES
        };
        Self {
            listing_bytes: policy.agents().map(listed).sum(),
            policy,
            limits: config.limits.clone(),
            delivery: config.delivery.clone(),
        }
    }

    /// Whose names may be counted by: the agents'.
    pub fn known(self: &Arc<Self>) -> Arc<Known> {
        let settings = self.clone();
        Arc::new(move |name| settings.policy.agent(name).is_some())
    }
}
