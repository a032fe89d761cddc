//! Events of the server itself, for the record.

use std::sync::Arc;

use super::record::Action;

/// Something that happened to the server itself, or that its operator did.
#[derive(Debug, Clone)]
pub struct OperatorEvent {
    /// What.
    pub action: Action,
    /// What it is about: an address, a lane, a file.
    pub target: String,
    /// Which version or rule of it.
    pub rule: String,
    /// Further plain detail.
    pub reason: String,
    /// Dropped with the event, once it is on record, for whoever waits for that.
    pub pending: Option<Arc<()>>,
}
