//! What clients say of their deliveries, and what follows for circuits.

use super::Worker;
use crate::clock::Now;
use crate::ids::AgentId;
use crate::policy::Breaker;
use crate::shard::desk::control::SessionName;
use crate::shard::desk::session::{Session, Settlement, Then};
use crate::shard::inbox::Inbox;
use crate::shard::inbox::settle::Nacked;
use crate::shard::txn::event::Event;

impl Worker {
    /// Takes the acknowledgements and refusals that a session's client has sent.
    pub(super) fn settlements(&mut self, name: &SessionName, now: Now) {
        let Some(session) = self.sessions.get(name.key).cloned() else {
            return;
        };
        let agent = &name.agent;
        let mut succeeded = 0;
        let mut failures = Vec::new();
        for settlement in session.take_settlements() {
            match settlement {
                Settlement::Ack(id) => {
                    let Some(inbox) = self.inboxes.get_mut(agent) else {
                        return;
                    };
                    // Unknown, foreign and repeated ids, and those of earlier deliveries, change nothing.
                    if let Some(held) = inbox.ack(&session.instance, id) {
                        inbox.handling.add(&self.link.meter, now.mono_ms.saturating_sub(held.handed_ms));
                        let custody = &mut self.ledger.custody;
                        custody.acked(agent, &session.instance, held.message_id, held.attempt, now);
                        self.traced.settle(&self.shared, (agent, id), ("ack", ""), now);
                        succeeded += 1;
                    }
                }
                Settlement::Nack { .. } => failures.extend(self.nacked(&session, settlement, now)),
            }
        }
        self.note_dying(agent);
        // There may be credit for what waits; else acknowledgements are in no hurry.
        // What Redis has counted too much is corrected now: another server may go on from it.
        let has_work = |inbox: &Inbox| {
            inbox.has_work(now.mono_ms, &self.settings.delivery) || !inbox.recounts.is_empty()
        };
        if self.inboxes.get(agent).is_some_and(has_work) {
            self.agenda.ready.insert(agent.clone());
        } else if succeeded > 0 {
            self.agenda.acking.push(agent.clone());
        }
        self.schedule(agent);
        for _ in 0..succeeded {
            self.handler_succeeded(agent, now);
        }
        for reason in failures {
            self.handler_failed(agent, &reason, now);
        }
    }

    /// Takes one nack; its reason, where its message is dead now.
    fn nacked(&mut self, session: &Session, nack: Settlement, now: Now) -> Option<String> {
        let Settlement::Nack { id, reason, then } = nack else {
            return None;
        };
        let inbox = self.inboxes.get_mut(&session.identity.agent)?;
        let config = &self.settings.delivery;
        let (held, is_dead) = match inbox.nack(&session.instance, id, (&reason, then), now.mono_ms, config) {
            Nacked::Retried(held) => (held, false),
            Nacked::Dead(held) => (held, true),
            Nacked::Unknown => return None,
        };
        inbox.handling.add(&self.link.meter, now.mono_ms.saturating_sub(held.handed_ms));
        let outcome = match then {
            _ if is_dead => "dead",
            Then::Later(_) => "later",
            Then::Retry | Then::Bury => "nack",
        };
        let agent = &session.identity.agent;
        self.traced.settle(&self.shared, (agent, id), (outcome, &reason), now);
        self.ledger.push(Event::Nacked {
            identity: session.identity.clone(),
            instance: session.instance.clone(),
            message_id: held.message_id,
            delivery: id.to_string(),
            attempt: held.attempt,
            then,
            reason: reason.clone(),
        });
        is_dead.then_some(reason)
    }

    /// A handler of this agent failed for good.
    pub(super) fn handler_failed(&mut self, agent: &AgentId, reason: &str, now: Now) {
        if self.shared.has_peers() {
            self.ledger.push(Event::Failed { agent: agent.clone() });
        }
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(agent))
            && inbox.breaker.failed(config, now.mono_ms)
        {
            log::warn!(code = "circuit_opened", agent:%; "circuit of {agent} opened: {reason}");
            let (agent, reason) = (agent.clone(), reason.to_owned());
            self.shared.set_circuit(&agent, true);
            self.ledger.push(Event::Circuit { agent, opened: true, reason });
        }
    }

    /// An operator closes an agent's circuit.
    pub(super) fn close_circuit(&mut self, agent: AgentId, reason: String) {
        let Some(inbox) = self.inboxes.get_mut(&agent) else { return };
        inbox.breaker = Breaker::default();
        log::warn!(code = "circuit_closed", agent:%; "circuit of {agent} closed by an operator: {reason}");
        self.shared.set_circuit(&agent, false);
        self.ledger.push(Event::Circuit { agent, opened: false, reason });
    }

    /// A handler of this agent succeeded.
    pub(super) fn handler_succeeded(&mut self, agent: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(agent))
            && inbox.breaker.succeeded(config, now.mono_ms)
        {
            log::warn!(code = "circuit_closed", agent:%; "circuit of {agent} closed: its handlers succeed again");
            self.shared.set_circuit(agent, false);
            let (agent, reason) = (agent.clone(), String::new());
            self.ledger.push(Event::Circuit { agent, opened: false, reason });
        }
    }
}
