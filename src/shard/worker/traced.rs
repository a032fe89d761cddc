//! Deliveries of traced messages that are not settled yet. Empty where nothing is traced.

use std::collections::HashMap;

use uuid::Uuid;

use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::shared::Shared;
use crate::shard::desk::spans::{Context, DeliverySpan, Span, Tracer};

/// Most that are kept at a time; further ones are dropped, and counted.
const MAX_TRACED: usize = 16_384;

/// The deliveries.
#[derive(Debug, Default)]
pub(super) struct Traced(HashMap<DeliveryId, DeliverySpan>);

impl Traced {
    /// A message is handed over.
    pub(super) fn begin(
        &mut self,
        tracer: &Tracer,
        (agent, instance): (&AgentId, &InstanceId),
        id: DeliveryId,
        (message_id, attempt, envelope): (Uuid, u32, &str),
        now: Now,
    ) {
        let context = Context::of_envelope(envelope);
        if !tracer.keeps(context.as_ref(), message_id) {
            return;
        }
        if self.0.len() >= MAX_TRACED {
            return tracer.drop_one();
        }
        let (agent, instance) = (agent.clone(), instance.clone());
        let (delivered_us, settled_us) = (now.unix_us, 0);
        let (outcome, reason) = ("lost", String::new());
        let span = DeliverySpan {
            context,
            agent,
            instance,
            message_id,
            attempt,
            outcome,
            reason,
            delivered_us,
            settled_us,
        };
        let _ = self.0.insert(id, span);
    }

    /// A delivery is settled.
    pub(super) fn settle(
        &mut self,
        shared: &Shared,
        id: DeliveryId,
        (outcome, reason): (&'static str, &str),
        now: Now,
    ) {
        if self.0.is_empty() {
            return;
        }
        if let (Some(tracer), Some(span)) = (shared.tracer(), self.0.remove(&id)) {
            let (reason, settled_us) = (reason.to_owned(), now.unix_us);
            tracer.finish(Span::Delivery(Box::new(DeliverySpan { outcome, reason, settled_us, ..span })));
        }
    }

    /// An instance is gone with what it was given.
    pub(super) fn lose(&mut self, shared: &Shared, agent: &AgentId, instance: &InstanceId, now: Now) {
        if self.0.is_empty() {
            return;
        }
        let Some(tracer) = shared.tracer() else { return };
        let is_lost = |span: &DeliverySpan| span.agent == *agent && span.instance == *instance;
        for (_, span) in self.0.extract_if(|_, span| is_lost(span)) {
            tracer.finish(Span::Delivery(Box::new(DeliverySpan { settled_us: now.unix_us, ..span })));
        }
    }
}
