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
/// … and of one agent: a receiver that settles nothing leaves room for the others.
const MAX_OF_AN_AGENT: usize = 2_048;

/// The deliveries, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Traced {
    of: HashMap<AgentId, HashMap<DeliveryId, DeliverySpan>>,
    count: usize,
}

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
        let own = self.of.get(agent).map_or(0, HashMap::len);
        if self.count >= MAX_TRACED || own >= MAX_OF_AN_AGENT {
            return tracer.drop_one();
        }
        self.count += 1;
        let of_agent = agent;
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
        let _ = self.of.entry(of_agent.clone()).or_default().insert(id, span);
    }

    /// A delivery is settled.
    pub(super) fn settle(
        &mut self,
        shared: &Shared,
        (agent, id): (&AgentId, DeliveryId),
        (outcome, reason): (&'static str, &str),
        now: Now,
    ) {
        if self.count == 0 {
            return;
        }
        let Some(own) = self.of.get_mut(agent) else { return };
        if let (Some(tracer), Some(span)) = (shared.tracer(), own.remove(&id)) {
            self.count -= 1;
            let (reason, settled_us) = (reason.to_owned(), now.unix_us);
            tracer.finish(Span::Delivery(Box::new(DeliverySpan { outcome, reason, settled_us, ..span })));
        }
        self.tidy(agent);
    }

    /// An instance is gone with what it was given.
    pub(super) fn lose(&mut self, shared: &Shared, agent: &AgentId, instance: &InstanceId, now: Now) {
        let (Some(tracer), Some(own)) = (shared.tracer(), self.of.get_mut(agent)) else { return };
        for (_, span) in own.extract_if(|_, span| span.instance == *instance) {
            self.count -= 1;
            tracer.finish(Span::Delivery(Box::new(DeliverySpan { settled_us: now.unix_us, ..span })));
        }
        self.tidy(agent);
    }

    /// Keeps no room for an agent of whom nothing is followed.
    fn tidy(&mut self, agent: &AgentId) {
        if self.of.get(agent).is_some_and(HashMap::is_empty) {
            drop(self.of.remove(agent));
        }
    }
}
