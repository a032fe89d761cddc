//! Things that happened without a job since the last commit, and go on record with the next: sessions that ended,
//! nacks, circuits, effects that failed. Each with its effects on the store.

use std::sync::Arc;

use uuid::Uuid;

use super::facts::PendingRequest;
use super::transaction::Transaction;
use crate::audit::{Action, Decision, Fields, OperatorEvent};
use crate::identity::Identity;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::shard::desk::session::Then;
use crate::store::attested::Foreign;
use crate::store::news::News;
use crate::store::owners::owned_by;
use crate::store::{keys, servers};

/// Something that happened and must be on record with the next commit.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A session ended.
    Closed { identity: Arc<Identity>, instance: InstanceId, reason: &'static str },
    /// It is not known whether this instance was entered as connected here; it has no session.
    Unopened { agent: AgentId, instance: InstanceId },
    /// Redis does not name this server for an instance that has a session here.
    Owned { agent: AgentId, instance: InstanceId },
    /// An instance was on a server that is gone.
    Orphaned { agent: AgentId, instance: InstanceId, server: ServerId },
    /// A delivery was refused by its receiver.
    Nacked {
        identity: Arc<Identity>,
        instance: InstanceId,
        message_id: Uuid,
        delivery: String,
        attempt: u32,
        then: Then,
        reason: String,
    },
    /// Messages are not in their inbox any more, and no server took them out.
    Vanished { agent: AgentId, instance: String, reason: String },
    /// Somebody else has changed an agent's state. It stays where it is, and nothing is done with it.
    ForeignState { agent: AgentId, found: Foreign },
    /// An effect that is on record as allowed was refused by the store.
    EffectFailed { message_id: Option<Uuid>, agent: String, error: String },
    /// A request whose reply could not be stored is pending again.
    Unanswered { correlation_id: CorrelationId, pending: PendingRequest, ttl_ms: u64 },
    /// A server whose session has just opened is told to look at the agent's inbox once more.
    Told { agent: AgentId, server: ServerId },
    /// A handler of the agent failed: other servers count it too.
    Failed { agent: AgentId },
    /// A target's circuit opened or closed.
    Circuit { agent: AgentId, opened: bool, reason: String },
    /// Something of the server itself.
    Operator(OperatorEvent),
    /// The lane ends in order.
    LaneClosed,
}

impl Event {
    /// The instance whose owner must be read before.
    pub(crate) fn of_instance(&self) -> Option<(&AgentId, &InstanceId)> {
        match self {
            Self::Closed { identity, instance, .. } => Some((&identity.agent, instance)),
            Self::Orphaned { agent, instance, .. }
            | Self::Unopened { agent, instance }
            | Self::Owned { agent, instance } => Some((agent, instance)),
            _ => None,
        }
    }
}

impl Transaction<'_> {
    /// Records an event, with its effects on the store.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Closed { identity, instance, reason } => self.closed(identity, instance, reason),
            Event::Unopened { agent, instance } => {
                if self.facts.presence.is_owned_by(agent, instance, &self.shared.server) {
                    self.leave(agent, instance);
                }
            }
            Event::Owned { agent, instance } => self.reenter(agent, instance),
            Event::Orphaned { agent, instance, server } => self.orphaned(agent, instance, server),
            Event::Nacked { .. } => self.nacked(event),
            Event::Vanished { agent, instance, reason } => self.note(
                Action::Vanished,
                &Fields { agent: agent.as_str(), instance, reason, ..Fields::default() },
            ),
            Event::ForeignState { agent, found } => self.put_aside(agent.as_str(), "", found),
            Event::EffectFailed { message_id, agent, error } => self.note(
                Action::EffectFailed,
                &Fields { agent, message_id: *message_id, reason: error, ..Fields::default() },
            ),
            Event::Unanswered { correlation_id, pending, ttl_ms } => {
                if *ttl_ms > 0 {
                    self.pend(correlation_id, pending, *ttl_ms);
                }
            }
            Event::Told { agent, server } => {
                let news = News::Inboxes(vec![agent.clone()]).to_text();
                let _ = self.effect("PUBLISH").arg(keys::news_for(server)).arg(news);
            }
            Event::Failed { agent } => {
                self.publish(&News::Failed(agent.clone(), self.shared.server.clone()));
            }
            Event::Circuit { agent, opened, reason } => self.circuit(agent, *opened, reason),
            Event::Operator(OperatorEvent { action, target, rule, reason, .. }) => {
                self.note(*action, &Fields { target, rule, reason, ..Fields::default() });
            }
            Event::LaneClosed => self.note(Action::LaneClosed, &Fields::default()),
        }
    }

    /// Records that something happened.
    fn note(&mut self, action: Action, fields: &Fields<'_>) {
        let _ = self.record(action, Decision::Event, fields);
    }

    /// Enters a session that is open here again, unless another server has its instance.
    fn reenter(&mut self, agent: &AgentId, instance: &InstanceId) {
        let here = self.inboxes.get(agent).is_some_and(|inbox| inbox.consumer(instance).is_some());
        if here && !self.facts.presence.elsewhere(agent, instance, &self.shared.server) {
            let owner = owned_by(&self.shared.server);
            let _ = self.effect("HSET").arg(keys::instances(agent)).arg(instance.as_str()).arg(owner);
            let _ = self.effect("HSET").arg(keys::agent(agent)).arg("status").arg("ACTIVE");
        }
    }

    fn closed(&mut self, identity: &Identity, instance: &InstanceId, reason: &str) {
        let agent = &identity.agent;
        self.note(
            Action::SessionClose,
            &Fields {
                agent: agent.as_str(),
                instance: instance.as_str(),
                fingerprint: &identity.fingerprint,
                reason,
                ..Fields::default()
            },
        );
        self.leave(agent, instance);
        self.publish(&News::Closed(agent.clone(), instance.clone(), self.shared.server.clone()));
    }

    /// Another server may have taken note already, or the instance may be connected again. Its server is fenced in
    /// the same transaction: nothing is taken from a server that may still commit.
    fn orphaned(&mut self, agent: &AgentId, instance: &InstanceId, server: &ServerId) {
        let presence = &self.facts.presence;
        if !presence.is_owned_by(agent, instance, server) || presence.servers.contains(server) {
            return;
        }
        self.note(
            Action::SessionClose,
            &Fields {
                agent: agent.as_str(),
                instance: instance.as_str(),
                reason: "server_gone",
                ..Fields::default()
            },
        );
        servers::set_fenced(self.effect("SET"), server);
        self.leave(agent, instance);
    }

    fn nacked(&mut self, event: &Event) {
        let Event::Nacked { identity, instance, message_id, delivery, attempt, then, reason } = event else {
            return;
        };
        self.note(
            Action::Nack,
            &Fields {
                agent: identity.agent.as_str(),
                instance: instance.as_str(),
                fingerprint: &identity.fingerprint,
                message_id: Some(*message_id),
                target: delivery,
                attempt: *attempt,
                rule: then.as_str(),
                reason,
                ..Fields::default()
            },
        );
    }

    /// The store's view of an instance that has no session any more, unless another server has it by now.
    fn leave(&mut self, agent: &AgentId, instance: &InstanceId) {
        let own = &self.shared.server;
        let here = self.inboxes.get(agent);
        let connected = here.is_some_and(|inbox| inbox.consumer(instance).is_some());
        if !connected && !self.facts.presence.elsewhere(agent, instance, own) {
            let left_ms = self.now.unix_us / 1000;
            let _ = self.effect("HSET").arg(keys::instances(agent)).arg(instance.as_str()).arg(left_ms);
        }
        let active = here.is_some_and(|inbox| !inbox.consumers().is_empty())
            || self.facts.presence.any_elsewhere(agent, &self.shared.server);
        if !active {
            let _ = self.effect("HSET").arg(keys::agent(agent)).arg("status").arg("INACTIVE");
        }
    }

    fn circuit(&mut self, agent: &AgentId, opened: bool, reason: &str) {
        let action = if opened { Action::CircuitOpened } else { Action::CircuitClosed };
        self.note(action, &Fields { agent: agent.as_str(), reason, ..Fields::default() });
        let key = keys::circuit(agent);
        if opened {
            let since_ms = self.now.unix_us / 1000;
            let _ = self.effect("HSET").arg(key).arg("state").arg("OPEN").arg("since_ms").arg(since_ms);
        } else {
            let _ = self.effect("DEL").arg(key);
        }
        self.publish(&News::Circuit(agent.clone(), opened, self.shared.server.clone()));
    }
}
