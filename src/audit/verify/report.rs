//! What a verification found.

use std::collections::BTreeMap;

use super::damage::Damage;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records whose chain is intact.
    pub records: u64,
    /// Lanes looked at.
    pub lanes: usize,
    /// What is wrong, in the order in which it showed; empty: intact.
    pub damages: Vec<Damage>,
    /// What is wrong and was acknowledged by an operator, with who did it, and why.
    pub acknowledged: Vec<(Damage, String)>,
    /// Findings beyond those listed.
    pub further_damages: u64,
    /// Records by decision.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Checkpoints in the trail.
    pub checkpoints: u64,
    /// Checkpoints in the anchor.
    pub anchored: u64,
    /// Checkpoints that are in the anchor only, and newer than those in Redis.
    pub only_anchored: u64,
    /// When the newest checkpoint was signed, Unix milliseconds; 0: there is none.
    pub newest_checkpoint_ms: u64,
    /// Records that no checkpoint covers (yet).
    pub unsealed: u64,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages that are done: acknowledged, dropped or expired.
    pub done: u64,
    /// Messages that are accepted and not done.
    pub waiting: u64,
    /// Messages that are accepted, not done and in no inbox, of agents whose messages had vanished, as a server has
    /// recorded since.
    pub vanished: u64,
    /// Messages of before the trail, or of an older server: in Redis, or on record as handed on.
    pub older: u64,
    /// Messages of before the log's beginning that it has taken over.
    pub taken_over: u64,
    /// Records in lanes of before the log's beginning.
    pub taken_over_records: u64,
    /// What was not shown, for want of what.
    pub not_shown: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.damages.is_empty() && self.further_damages == 0
    }
}
