//! The configuration in force, as far as decisions depend on it.

use crate::config::{Config, Delivery, Limits};
use crate::policy::Policy;

/// What a configuration means for decisions. A round is decided by one of these as a whole.
#[derive(Debug)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// Bounds on requests.
    pub limits: Limits,
    /// Credit and redelivery.
    pub delivery: Delivery,
}

impl Settings {
    /// Compiles a configuration; counts of messages of `previous` go on counting.
    pub fn new(config: &Config, previous: Option<&Self>) -> Self {
        Self {
            policy: Policy::compile(config, previous.map(|previous| &previous.policy)),
            limits: config.limits.clone(),
            delivery: config.delivery.clone(),
        }
    }
}
