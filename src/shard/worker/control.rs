//! What other threads tell a worker, and what it does when a time has come: sessions, settlements, settings, news of
//! other servers.

use std::sync::Arc;

use super::Worker;
use super::agenda::Timer;
use crate::audit::{Action, OperatorEvent};
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId, hex};
use crate::policy::Breaker;
use crate::refusal::Refusal;
use crate::shard::desk::control::{Control, SessionName};
use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::session::{Session, Settlement};
use crate::shard::desk::session_key::SessionKey;
use crate::shard::desk::settings::Settings;
use crate::shard::inbox::settle::Nacked;
use crate::shard::inbox::{Gone, Inbox};
use crate::shard::txn::event::Event;

/// How often the certificates of open sessions are looked at, in milliseconds.
const EXPIRY_CHECK_MS: u64 = 1_000;
/// How long a stream that was ended may take to say so to a client that does not read, in milliseconds.
const END_GRACE_MS: u64 = 1_000;
/// The remains of an instance are cleared away after this many times `reclaim_idle_ms`.
const GRACE_FACTOR: u64 = 2;

impl Worker {
    pub(super) fn take_control(&mut self, now: Now) {
        while let Some(control) = self.inlet.next_control() {
            match control {
                Control::Settlements(name) => self.settlements(&name, now),
                Control::Closed(name) => {
                    // The last settlements of a client still count.
                    self.settlements(&name, now);
                    self.close(&name, now, "stream_ended", None);
                }
                Control::News(agent) => self.news(agent),
                // Messages added before this was known were not announced to that server: it looks once more.
                Control::OpenedElsewhere(agent, server) => {
                    self.ledger.push(Event::Told { agent, server });
                }
                Control::Left(agent, instance) => {
                    self.left_elsewhere(&agent, instance, Some(now.mono_ms), now)
                }
                Control::Orphaned(agent, instance, server) => {
                    let (of, gone) = (agent.clone(), instance.clone());
                    self.ledger.push(Event::Orphaned { agent: of, instance: gone, server });
                    self.left_elsewhere(&agent, instance, None, now);
                }
                Control::Circuit(agent, open) => {
                    self.shared.set_circuit(&agent, open);
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.breaker =
                            if open { Breaker::reopened(now.mono_ms) } else { Breaker::default() };
                    }
                }
                Control::Failed(agent) => {
                    if let (Some(config), Some(inbox)) =
                        (self.settings.policy.breaker(), self.inboxes.get_mut(&agent))
                    {
                        // The server that saw it announces what follows.
                        let _ = inbox.breaker.failed(config, now.mono_ms);
                    }
                }
                Control::Resync => self.agenda.resync = true,
                Control::CheckCertificates => self.check_certificates(now),
                Control::Reload(settings) => self.reload(settings, now),
                Control::Record(event) => self.ledger.push(Event::Operator(event)),
                Control::Stop => {
                    self.inlet.close();
                    self.stopping = true;
                }
            }
        }
    }

    // --- sessions --------------------------------------------------------------------------------

    /// A session opened: from now on it receives.
    pub(super) fn opened(&mut self, session: &Arc<Session>, now: Now) {
        let agent = session.identity.agent.clone();
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.open(&session.instance, session.key, &self.settings.delivery);
        // The settings may have changed since the stream began.
        session.raise_credit(self.settings.delivery.max_in_flight);
        self.sessions.insert(session.clone());
        self.shared.directory.insert(&agent, &session.instance);
        session.send(Outbound::Welcome);
        for owner in [None, Some(session.instance.clone())] {
            self.agenda.scan_from_start(&agent, owner);
        }
        self.agenda.watch_expiry(now.mono_ms + EXPIRY_CHECK_MS);
        self.note_dying(&agent);
        self.agenda.ready.insert(agent.clone());
        if session.is_closed() {
            self.close(&SessionName { agent, key: session.key }, now, "stream_ended", None);
        }
    }

    /// Ends a session in memory now; the record and the store follow with the next commit.
    pub(super) fn close(
        &mut self,
        name: &SessionName,
        now: Now,
        reason: &'static str,
        refusal: Option<Refusal>,
    ) {
        let reclaim_at_ms = now.mono_ms + self.settings.delivery.reclaim_idle_ms;
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(&name.agent) else {
            return;
        };
        let Some(instance) = inbox.close(name.key, reclaim_at_ms) else {
            return;
        };
        let since_ms = Some(now.mono_ms);
        let _ = inbox.gone.insert(instance.clone(), Gone { since_ms, clear_at_ms });
        self.shared.directory.remove(&name.agent, &instance);
        if let Some(session) = self.sessions.end(name.key) {
            self.ledger.push(Event::Closed { identity: session.identity.clone(), instance, reason });
            session.end(refusal);
            // A client that does not read never sees its stream's end: the stream is cut after a while.
            self.agenda.set_timer(now.mono_ms + END_GRACE_MS, Timer::Cut(name.key));
        }
        self.schedule(&name.agent);
        self.agenda.ready.insert(name.agent.clone());
    }

    pub(super) fn end_all_sessions(&mut self, now: Now) {
        for name in self.names(|_| true) {
            self.settlements(&name, now);
            self.close(&name, now, "server_stopping", Some(Refusal::SERVER_STOPPING));
        }
    }

    fn names(&self, which: impl Fn(&Session) -> bool) -> Vec<SessionName> {
        let name =
            |session: &Arc<Session>| SessionName { agent: session.identity.agent.clone(), key: session.key };
        self.sessions.open().filter(|session| which(session)).map(name).collect()
    }

    /// Ends the sessions whose certificates have run out or were revoked; looks again as long as there are sessions.
    pub(super) fn check_certificates(&mut self, now: Now) {
        self.agenda.expiry_seen();
        let revoked = self.shared.revoked();
        let expired = self.names(|session| !session.identity.is_current(now));
        let withdrawn = self.names(|session| session.identity.is_revoked(&revoked));
        for name in expired {
            self.close(&name, now, "certificate_expired", Some(Refusal::INVALID_CERTIFICATE));
        }
        for name in withdrawn {
            self.close(&name, now, "certificate_revoked", Some(Refusal::CERTIFICATE_REVOKED));
        }
        if self.sessions.open().next().is_some() {
            self.agenda.watch_expiry(now.mono_ms + EXPIRY_CHECK_MS);
        }
    }

    // --- settlements -----------------------------------------------------------------------------

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
                        let custody = &mut self.ledger.custody;
                        custody.acked(agent, &session.instance, held.message_id, held.attempt, now);
                        succeeded += 1;
                    }
                }
                Settlement::Nack { .. } => failures.extend(self.nacked(&session, settlement, now)),
            }
        }
        self.note_dying(agent);
        // There may be credit for what waits; else acknowledgements are in no hurry.
        let has_work = |inbox: &Inbox| inbox.has_work(now.mono_ms, &self.settings.delivery);
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
        let Settlement::Nack { id, reason, retryable } = nack else {
            return None;
        };
        let inbox = self.inboxes.get_mut(&session.identity.agent)?;
        let config = &self.settings.delivery;
        let (held, is_dead) =
            match inbox.nack(&session.instance, id, (&reason, retryable), now.mono_ms, config) {
                Nacked::Retried(held) => (held, false),
                Nacked::Dead(held) => (held, true),
                Nacked::Unknown => return None,
            };
        self.ledger.push(Event::Nacked {
            identity: session.identity.clone(),
            instance: session.instance.clone(),
            message_id: held.message_id,
            delivery: id.to_string(),
            attempt: held.attempt,
            retryable,
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
            log::warn!("circuit of {agent} opened: {reason}");
            let (agent, reason) = (agent.clone(), reason.to_owned());
            self.shared.set_circuit(&agent, true);
            self.ledger.push(Event::Circuit { agent, opened: true, reason });
        }
    }

    /// A handler of this agent succeeded.
    pub(super) fn handler_succeeded(&mut self, agent: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(agent))
            && inbox.breaker.succeeded(config, now.mono_ms)
        {
            self.shared.set_circuit(agent, false);
            let (agent, reason) = (agent.clone(), String::new());
            self.ledger.push(Event::Circuit { agent, opened: false, reason });
        }
    }

    // --- settings and news -----------------------------------------------------------------------

    /// Takes up other settings: sessions of agents that are not allowed any more end, new agents get
    /// inboxes. Messages for a removed agent stay in Redis.
    fn reload(&mut self, settings: Arc<Settings>, now: Now) {
        let before = std::mem::replace(&mut self.settings, settings);
        let policy = &self.settings.policy;
        let unlisted = |agent: &AgentId| policy.agent(agent.as_str()).is_none();
        let removed = self.names(|session| unlisted(&session.identity.agent));
        let retired: Vec<AgentId> = self.inboxes.keys().filter(|agent| unlisted(agent)).cloned().collect();
        for name in removed {
            self.close(&name, now, "agent_removed", Some(Refusal::AGENT_NOT_ALLOWLISTED));
        }
        self.agenda.retired.extend(retired);
        for agent in self.enlist() {
            let _ = self.agenda.retired.remove(&agent);
            // Redis is read for it, and for all: a reload is rare.
            self.agenda.resync = true;
        }
        // Credit may have changed.
        for session in self.sessions.open() {
            session.raise_credit(self.settings.delivery.max_in_flight);
        }
        for name in self.names(|_| true) {
            self.agenda.ready.insert(name.agent);
        }
        if self.index == 0 {
            let (old, new) = (before.policy.version(), self.settings.policy.version());
            self.ledger.push(Event::Operator(OperatorEvent {
                action: Action::ConfigChanged,
                target: String::new(),
                rule: String::new(),
                reason: format!("from {} to {}", hex(old), hex(new)),
            }));
        }
    }

    /// Another server, or another worker, put something into this inbox.
    fn news(&mut self, agent: AgentId) {
        if let Some(inbox) = self.inboxes.get_mut(&agent) {
            inbox.mark_stale();
            let _ = self.agenda.measure.insert(agent.clone());
            self.agenda.ready.insert(agent);
        }
    }

    /// An instance has no session on another server any more: what it holds waits here too, and the remains of it
    /// are cleared away in time. `since_ms`: when it left, where that is known.
    pub(super) fn left_elsewhere(
        &mut self,
        agent: &AgentId,
        instance: InstanceId,
        since_ms: Option<u64>,
        now: Now,
    ) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if inbox.consumer(&instance).is_none() {
            let _ = inbox.gone.entry(instance).or_insert(Gone { since_ms, clear_at_ms });
        }
        // Where nobody is connected the next session's scan finds it.
        if !inbox.consumers().is_empty() {
            self.agenda.scan_from_start(agent, None);
        }
        self.schedule(agent);
    }

    // --- times -----------------------------------------------------------------------------------

    /// How long an instance may be away before the remains of it are cleared, in milliseconds.
    pub(super) fn grace_ms(&self) -> u64 {
        self.settings.delivery.reclaim_idle_ms * GRACE_FACTOR
    }

    /// Schedules another look at this inbox, independent of its own times.
    pub(super) fn look_again(&mut self, agent: &AgentId, at_ms: u64) {
        self.agenda.set_timer(at_ms, Timer::Inbox(agent.clone()));
    }

    /// Makes sure the worker wakes when something of this inbox is due.
    pub(super) fn schedule(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let clears = inbox.gone.values().map(|gone| gone.clear_at_ms);
        let next = inbox.next_due_ms().into_iter().chain(clears).min();
        if let Some(at_ms) = next
            && inbox.timer_ms.is_none_or(|set| at_ms < set)
        {
            inbox.timer_ms = Some(at_ms);
            self.agenda.set_timer(at_ms, Timer::Inbox(agent.clone()));
        }
    }

    pub(super) fn inbox_due(&mut self, agent: AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.timer_ms = None;
        inbox.promote(now.mono_ms, &self.settings.delivery);
        let due = |gone: &Gone| gone.clear_at_ms <= now.mono_ms;
        let clears: Vec<InstanceId> =
            inbox.gone.iter().filter(|(_, gone)| due(gone)).map(|(instance, _)| instance.clone()).collect();
        if !clears.is_empty() {
            // Nobody has come for what waits: other servers may hand it on.
            inbox.forget_waiting();
        }
        for instance in clears {
            // Entered again with a later time where it cannot be cleared yet.
            let _ = inbox.gone.remove(&instance);
            self.agenda.clears.push_back((agent.clone(), instance));
        }
        self.note_dying(&agent);
        self.schedule(&agent);
        self.agenda.ready.insert(agent);
    }

    /// Has dead letters of this inbox written.
    pub(super) fn note_dying(&mut self, agent: &AgentId) {
        if self.inboxes.get(agent).is_some_and(|inbox| !inbox.dead.is_empty()) {
            let _ = self.agenda.dying.insert(agent.clone());
        }
    }

    /// The sweep's next step: inboxes with sessions are compared with Redis; those of agents that are no longer
    /// configured are dropped once nothing of them is under way.
    pub(super) fn sweep(&mut self, now: Now) {
        let inboxes = &self.inboxes;
        let open = || {
            let open = inboxes.values().filter(|inbox| !inbox.consumers().is_empty());
            open.map(|inbox| inbox.agent.clone()).collect()
        };
        for agent in self.agenda.next_sweep(open) {
            self.compare(&agent);
        }
        let idle =
            |inbox: &Inbox| inbox.consumers().is_empty() && inbox.leaving.is_empty() && inbox.dead.is_empty();
        for agent in std::mem::take(&mut self.agenda.retired) {
            if self.inboxes.get(&agent).is_some_and(idle) {
                drop(self.inboxes.remove(&agent));
            } else if self.inboxes.contains_key(&agent) {
                let _ = self.agenda.retired.insert(agent);
            }
        }
        self.agenda.set_sweep(now);
    }

    /// Has an inbox compared with Redis, if somebody is connected to it.
    pub(super) fn compare(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if inbox.consumers().is_empty() {
            return;
        }
        inbox.mark_stale();
        let owners: Vec<InstanceId> =
            inbox.consumers().iter().map(|consumer| consumer.instance.clone()).collect();
        self.agenda.scan_from_start(agent, None);
        for owner in owners {
            self.agenda.scan_from_start(agent, Some(owner));
        }
        let _ = self.agenda.measure.insert(agent.clone());
        self.agenda.ready.insert(agent.clone());
    }

    /// Hands a delivery to a session.
    pub(super) fn deliver(&mut self, key: SessionKey, delivery: Outbound) {
        self.sessions.deliver(key, delivery);
    }
}
