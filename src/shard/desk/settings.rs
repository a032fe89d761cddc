//! The configuration in force, as far as decisions depend on it.

use std::sync::Arc;

use super::listing::Listing;
use crate::audit::tally::Known;
use crate::config::{Config, Delivery, Limits};
use crate::ids::AgentId;
use crate::policy::Policy;
use crate::quarantine::Quarantine;

/// What a configuration means for decisions. A round is decided by one of these as a whole.
#[derive(Debug)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// Bounds on requests.
    pub limits: Limits,
    /// Credit and redelivery.
    pub delivery: Delivery,
    /// What Discover shows.
    pub listing: Arc<Listing>,
}

impl Settings {
    /// Compiles a configuration; counts of messages of `previous` go on counting.
    pub fn new(config: &Config, previous: Option<&Self>) -> Self {
        let policy = Policy::compile(config, previous.map(|previous| &previous.policy));
        Self {
            listing: Arc::new(Listing::new(&policy)),
            policy,
            limits: config.limits.clone(),
            delivery: config.delivery.clone(),
        }
    }

    /// Whether an agent is shut out, by its name or by what it offers.
    pub fn is_shut_out(&self, agent: &AgentId, quarantine: &Quarantine) -> bool {
        let capabilities = self.policy.agent(agent.as_str()).map_or(&[][..], |card| &card.capabilities);
        quarantine.holds(agent, capabilities).is_some()
    }

    /// Whose names may be counted by: the agents'.
    pub fn known(self: &Arc<Self>) -> Arc<Known> {
        let settings = self.clone();
        Arc::new(move |name| settings.policy.agent(name).is_some())
    }
}
