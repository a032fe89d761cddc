//! What is traced of a decision on a message.

use uuid::Uuid;

use super::judge::Judged;
use super::parties::Sender;
use super::transaction::{Transaction, cut};
use crate::ids::CorrelationId;
use crate::shard::desk::spans::{CallSpan, Context};

/// What a call was about.
pub(super) struct Traced<'a> {
    pub operation: &'static str,
    pub target: &'a str,
    pub message_id: Uuid,
    pub correlation_id: Option<CorrelationId>,
}

impl Transaction<'_> {
    /// Keeps the decision, which is on record as `seq`, where its message is traced.
    pub(super) fn trace(&mut self, sender: Sender<'_>, what: Traced<'_>, judged: &Judged, seq: u64) {
        let Some(tracer) = self.shared.tracer() else { return };
        let parent = sender.trace.map(|trace| trace.parent.as_str());
        let context = parent.and_then(Context::parse);
        if !tracer.keeps(context.as_ref(), what.message_id) {
            return;
        }
        self.spans.push(CallSpan {
            context,
            operation: what.operation,
            sender: sender.agent().clone(),
            instance: sender.instance.clone(),
            target: cut(what.target).to_owned(),
            message_id: what.message_id,
            correlation_id: what.correlation_id.map(|id| id.to_string()).unwrap_or_default(),
            decision: judged.decision.as_str(),
            rule: judged.rule.to_string(),
            refusal: judged.refusal.map(|refusal| refusal.detail),
            policy_version: *self.settings.policy.version(),
            lane: self.lane.id().to_string(),
            seq,
            arrived_us: sender.trace.map_or(self.now.unix_us, |trace| trace.arrived_us.min(self.now.unix_us)),
            decided_us: self.now.unix_us,
            committed_us: 0,
        });
    }
}
