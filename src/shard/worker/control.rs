//! What other threads tell a worker: sessions that open and end, settings, news of other servers.

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
use crate::shard::desk::session::Session;
use crate::shard::desk::session_key::SessionKey;
use crate::shard::desk::settings::Settings;
use crate::shard::inbox::Gone;
use crate::shard::txn::event::Event;
use crate::store::news::Unanswered;

/// How often the certificates of open sessions are looked at, in milliseconds.
const EXPIRY_CHECK_MS: u64 = 1_000;
/// How long a stream that was ended may take to say so to a client that does not read, in milliseconds.
const END_GRACE_MS: u64 = 1_000;

impl Worker {
    pub(super) fn take_control(&mut self, now: Now) {
        if self.inlet.has_missed_news() {
            log::warn!(
                code = "news_overflowed", worker = self.index;
                "worker {}: more news than can wait: it is read from Redis again", self.index
            );
            self.agenda.resync = true;
        }
        while let Some(control) = self.inlet.next_control() {
            match control {
                Control::Settlements(name) => self.settlements(&name, now),
                Control::Closed(name) => {
                    // The last settlements of a client still count.
                    self.settlements(&name, now);
                    self.close(&name, now, "stream_ended", None);
                }
                Control::News(agent) => self.news(agent),
                Control::Taken(agent, count) => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.taken(count);
                    }
                    // Some of them may be tracked here.
                    self.agenda.scan_from_start(&agent, None);
                }
                Control::Grown { agent, messages, bytes, replies } => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.size.told(messages, bytes);
                    }
                    self.replied(&agent, &replies);
                    self.news(agent);
                }
                Control::Weigh(agent) => self.weigh(&agent, now),
                // Messages added before this was known were not announced to that server: it looks once more.
                Control::OpenedElsewhere(agent, server) => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        let directory = &self.shared.directory;
                        inbox.size.keep_own(|instance| !directory.is_elsewhere(&agent, instance));
                    }
                    self.ledger.push(Event::Told { agent, server });
                }
                Control::Left(agent, instance) => {
                    self.left_elsewhere(&agent, instance, Some(now.mono_ms), now);
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
                Control::CloseCircuit(agent, reason) => self.close_circuit(agent, reason),
                Control::Failed(agent) => {
                    if let (Some(config), Some(inbox)) =
                        (self.settings.policy.breaker(), self.inboxes.get_mut(&agent))
                    {
                        // The server that saw it announces what follows.
                        let _ = inbox.breaker.failed(config, now.mono_ms);
                    }
                }
                Control::Unanswered(request) => self.unanswered(request),
                Control::Resync => self.agenda.resync = true,
                Control::CheckCertificates => self.check_certificates(now),
                Control::Reload(settings) => self.reload(settings, now),
                Control::Record(event) => self.ledger.push(Event::Operator(event)),
                Control::Move { from_ms, until_ms } => self.begin_to_move(from_ms, until_ms),
                Control::Stop => {
                    self.inlet.close();
                    self.stopping = true;
                }
            }
        }
    }

    /// Tells the instance that asked, if it is still here.
    fn unanswered(&mut self, request: Unanswered) {
        let inbox = self.inboxes.get(&request.agent);
        let key = inbox.and_then(|inbox| inbox.consumer(&request.instance)).map(|consumer| consumer.session);
        if let Some(session) = key.and_then(|key| self.sessions.get(key)).filter(|session| session.notice()) {
            session.send(Outbound::RequestFailed(request));
        }
    }

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
        let _ = self.agenda.measure.insert(agent.clone());
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
        self.traced.lose(&self.shared, &name.agent, &instance, now);
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

    pub(super) fn names(&self, which: impl Fn(&Session) -> bool) -> Vec<SessionName> {
        let name =
            |session: &Arc<Session>| SessionName { agent: session.identity.agent.clone(), key: session.key };
        self.sessions.open().filter(|session| which(session)).map(name).collect()
    }

    /// Ends the sessions whose certificates have run out or were revoked, and those of agents that are shut out.
    fn check_certificates(&mut self, now: Now) {
        let revoked = self.shared.revoked();
        let expired = self.names(|session| !session.identity.is_current(now));
        let withdrawn = self.names(|session| session.identity.is_revoked(&revoked));
        for name in expired {
            self.close(&name, now, "certificate_expired", Some(Refusal::INVALID_CERTIFICATE));
        }
        for name in withdrawn {
            self.close(&name, now, "certificate_revoked", Some(Refusal::CERTIFICATE_REVOKED));
        }
        let (settings, quarantine) = (self.settings.clone(), self.shared.quarantine());
        for name in self.names(|session| settings.is_shut_out(&session.identity.agent, &quarantine)) {
            self.close(&name, now, "quarantined", Some(Refusal::QUARANTINED));
        }
    }

    /// The regular look at the certificates; there is another as long as there are sessions.
    pub(super) fn certificates_due(&mut self, now: Now) {
        self.agenda.expiry_seen();
        self.check_certificates(now);
        if self.sessions.open().next().is_some() {
            self.agenda.watch_expiry(now.mono_ms + EXPIRY_CHECK_MS);
        }
    }

    /// Takes up other settings: sessions of agents that are not allowed any more end, new agents get
    /// inboxes. Messages for a removed agent stay in Redis.
    fn reload(&mut self, settings: Arc<Settings>, now: Now) {
        let before = std::mem::replace(&mut self.settings, settings);
        if let Some(tally) = self.link.lane.tally() {
            tally.knows(self.settings.known());
        }
        let policy = &self.settings.policy;
        let unlisted = |agent: &AgentId| policy.agent(agent.as_str()).is_none();
        let removed = self.names(|session| unlisted(&session.identity.agent));
        let retired: Vec<AgentId> = self.inboxes.keys().filter(|agent| unlisted(agent)).cloned().collect();
        for name in removed {
            self.close(&name, now, "agent_removed", Some(Refusal::AGENT_NOT_ALLOWLISTED));
        }
        self.agenda.retired.extend(retired);
        // Also who is shut out by what it offers.
        self.check_certificates(now);
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
                pending: None,
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

    /// Hands a delivery to a session.
    pub(super) fn deliver(&mut self, key: SessionKey, delivery: Outbound) {
        self.sessions.deliver(key, delivery);
    }
}
