//! What happened by itself since the last commit, and goes on record with the next: sessions that ended,
//! nacks, dead letters, circuits, counts. Each with its effects on the store.

use std::sync::Arc;

use uuid::Uuid;

use super::decide::{PendingRequest, Transaction, cut};
use super::inbox::DeadLetter;
use crate::audit::{Action, Decision, Fields};
use crate::envelope::message_id_of;
use crate::identity::Identity;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::store::dead_letters::{self, Burial};
use crate::store::keys;
use crate::store::news::News;

/// How long an hour's counts are kept after the last one, in seconds: until the longest window has passed.
const RATE_TTL_S: u64 = 7200;

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
}

/// Something that happened and must be on record with the next commit.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// A session ended.
    Closed { identity: Arc<Identity>, instance: InstanceId, reason: &'static str },
    /// An instance was on a server that is gone.
    Orphaned { agent: AgentId, instance: InstanceId, server: ServerId },
    /// A delivery was refused by its receiver.
    Nacked {
        identity: Arc<Identity>,
        instance: InstanceId,
        message_id: Option<Uuid>,
        delivery: String,
        attempt: u32,
        retryable: bool,
        reason: String,
    },
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

impl Note {
    /// The agent of an instance that left, if this says so.
    pub(super) fn left(&self) -> Option<&AgentId> {
        match self {
            Self::Closed { identity, .. } => Some(&identity.agent),
            Self::Orphaned { agent, .. } => Some(agent),
            _ => None,
        }
    }
}

impl Transaction<'_> {
    /// Records what happened since the last commit, with its effects on the store.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Closed { identity, instance, reason } => {
                let agent = &identity.agent;
                self.record(
                    Action::SessionClose,
                    Decision::Event,
                    &Fields {
                        agent: agent.as_str(),
                        instance: instance.as_str(),
                        fingerprint: &identity.fingerprint,
                        reason,
                        ..Fields::default()
                    },
                );
                self.left(agent, instance);
                self.publish(&News::Closed(agent.clone(), instance.clone(), self.shared.server.clone()));
            }
            Note::Orphaned { agent, instance, server } => {
                // Another server may have taken note already, or the instance may be connected again.
                if self.facts.presence.is_owned_by(agent, instance, server) {
                    self.record(
                        Action::SessionClose,
                        Decision::Event,
                        &Fields {
                            agent: agent.as_str(),
                            instance: instance.as_str(),
                            reason: "server_gone",
                            ..Fields::default()
                        },
                    );
                    self.left(agent, instance);
                }
            }
            Note::Nacked { identity, instance, message_id, delivery, attempt, retryable, reason } => {
                self.record(
                    Action::Nack,
                    Decision::Event,
                    &Fields {
                        agent: identity.agent.as_str(),
                        instance: instance.as_str(),
                        fingerprint: &identity.fingerprint,
                        message_id: *message_id,
                        target: delivery,
                        attempt: *attempt,
                        rule: if *retryable { "retryable" } else { "not_retryable" },
                        reason,
                        ..Fields::default()
                    },
                );
            }
            Note::EffectFailed { message_id, agent, error } => {
                self.record(
                    Action::EffectFailed,
                    Decision::Event,
                    &Fields { agent, message_id: *message_id, reason: error, ..Fields::default() },
                );
            }
            Note::Unanswered { correlation_id, pending, ttl_ms } => {
                if *ttl_ms > 0 {
                    self.pend(correlation_id, pending, *ttl_ms);
                }
            }
            Note::Told { agent, server } => {
                self.effect("PUBLISH");
                let news = News::Inboxes(vec![agent.clone()]).to_text();
                let _ = self.batch.arg(keys::news_for(server)).arg(news);
            }
            Note::Failed { agent } => {
                self.publish(&News::Failed(agent.clone(), self.shared.server.clone()));
            }
            Note::Circuit { agent, opened, reason } => self.circuit(agent, *opened, reason),
            Note::Operator(OperatorEvent { action, target, rule, reason }) => {
                self.record(*action, Decision::Event, &Fields { target, rule, reason, ..Fields::default() });
            }
            Note::LaneClosed => self.record(Action::LaneClosed, Decision::Event, &Fields::default()),
        }
    }

    /// The store's view of an instance that has no session any more.
    fn left(&mut self, agent: &AgentId, instance: &InstanceId) {
        let here = self.inboxes.get(agent);
        if here.is_none_or(|inbox| inbox.slot(instance).is_none()) {
            self.effect("HSET");
            let left_ms = self.now.unix_us / 1000;
            let _ = self.batch.arg(keys::instances(agent)).arg(instance.as_str()).arg(left_ms);
        }
        let active = here.is_some_and(|inbox| !inbox.slots().is_empty())
            || self.facts.presence.any_elsewhere(agent, &self.shared.server);
        if !active {
            self.effect("HSET");
            let _ = self.batch.arg(keys::agent(agent)).arg("status").arg("INACTIVE");
        }
    }

    fn circuit(&mut self, agent: &AgentId, opened: bool, reason: &str) {
        let action = if opened { Action::CircuitOpened } else { Action::CircuitClosed };
        self.record(action, Decision::Event, &Fields { agent: agent.as_str(), reason, ..Fields::default() });
        let key = keys::circuit(agent);
        if opened {
            self.effect("HSET");
            let since_ms = self.now.unix_us / 1000;
            let _ = self.batch.arg(key).arg("state").arg("OPEN").arg("since_ms").arg(since_ms);
        } else {
            self.effect("DEL");
            let _ = self.batch.arg(key);
        }
        self.publish(&News::Circuit(agent.clone(), opened, self.shared.server.clone()));
    }

    /// Adds what the senders of this round have sent to the counts that all servers share, so that
    /// neither a restart nor another server forgets it. Where the answers will stand.
    pub(super) fn store_counts(&mut self) -> Vec<(AgentId, usize)> {
        let minute = self.now.unix_minute();
        let mut stored = Vec::with_capacity(self.senders.len());
        for (sender, count) in std::mem::take(&mut self.senders) {
            let key = keys::rate(&sender, minute / 60);
            stored.push((sender, self.effects));
            self.effect("HINCRBY");
            let _ = self.batch.arg(&key).arg(minute).arg(count);
            self.effect("EXPIRE");
            let _ = self.batch.arg(&key).arg(RATE_TTL_S);
        }
        stored
    }

    /// Copies an entry to the dead letters, payload and all. It leaves its inbox when this is committed.
    pub(super) fn dead_letter(
        &mut self,
        agent: &AgentId,
        stream: &str,
        letter: &DeadLetter,
        envelope: Option<&str>,
    ) {
        self.record(
            Action::DeadLetter,
            Decision::Event,
            &Fields {
                agent: agent.as_str(),
                instance: letter.holder.as_str(),
                message_id: envelope.and_then(message_id_of),
                target: stream,
                attempt: letter.attempts,
                reason: cut(&letter.reason),
                ..Fields::default()
            },
        );
        if let Some(envelope) = envelope {
            self.effect("XADD");
            let burial = Burial {
                envelope,
                agent,
                instance: &letter.holder,
                reason: cut(&letter.reason),
                attempts: letter.attempts,
                history: &letter.history,
                stream,
                entry: letter.key.entry,
                time_ms: self.now.unix_us / 1000,
            };
            dead_letters::arguments(self.batch, &burial);
        }
    }

    /// Removes what is left of an instance that is gone; `consumer`: also from the shared group.
    pub(super) fn clear_instance(&mut self, agent: &AgentId, instance: &InstanceId, consumer: bool) {
        self.effect("DEL");
        let _ = self.batch.arg(keys::instance_inbox(agent, instance));
        if consumer {
            self.effect("HDEL");
            let _ = self.batch.arg(keys::instances(agent)).arg(instance.as_str());
            self.effect("XGROUP");
            let _ = self
                .batch
                .arg("DELCONSUMER")
                .arg(keys::inbox(agent))
                .arg(keys::GROUP)
                .arg(keys::consumer(agent, instance));
        }
    }
}
