//! Which records a reader wants.

use uuid::Uuid;

use crate::audit::{Action, Decision, View};
use crate::policy::replay::Found;

/// What a record must be to be wanted; all of it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Asked for by this agent.
    pub sender: Option<String>,
    /// For this agent, as the sender wrote it.
    pub target: Option<String>,
    /// Decided in one of these ways; empty: in any.
    pub decisions: Vec<Decision>,
    /// One of these; empty: any.
    pub actions: Vec<Action>,
    /// About this message.
    pub message_id: Option<Uuid>,
    /// With a finding of this type.
    pub violation: Option<String>,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn holds(&self, record: &View<'_>) -> bool {
        let about =
            |id: &Uuid| record.message_id == Some(*id) || record.messages.iter().any(|(m, _)| m == *id);
        self.sender.as_ref().is_none_or(|sender| sender == record.agent)
            && self.target.as_ref().is_none_or(|target| target == record.target)
            && (self.decisions.is_empty() || self.decisions.contains(&record.decision))
            && (self.actions.is_empty() || self.actions.contains(&record.action))
            && self.message_id.as_ref().is_none_or(about)
            && self.violation.as_ref().is_none_or(|kind| {
                // Without the name in it, it need not be parsed.
                record.findings.contains(kind.as_str())
                    && findings(record).iter().any(|finding| finding.kind == *kind)
            })
    }
}

/// The findings of a record.
pub fn findings(record: &View<'_>) -> Vec<Found> {
    if record.findings.is_empty() {
        return Vec::new();
    }
    serde_json::from_str(record.findings).unwrap_or_default()
}
