//! One worker: takes what waits, makes one round trip, and sleeps only when there is nothing to do.
//! Owns its Redis connection, its audit lane and the inboxes of its agents; shares nothing mutable but
//! the directory of connected instances.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::custody::Custody;
use super::inbox::{Inbox, Nacked};
use super::job::{Control, Job};
use super::mailbox::Inlet;
use super::notes::{Note, OperatorEvent};
use super::presence::{self, Owner};
use super::ready::Ready;
use super::session::{ClientNote, Session};
use super::{Settings, Shared};
use crate::audit::board::Slot;
use crate::audit::{Action, Lane, LaneId};
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::ids::{AgentId, AgentMap, InstanceId, ServerId, hex};
use crate::policy::Breaker;
use crate::refusal::Refusal;
use crate::store::answers::{self, EntryId};
use crate::store::fitness::{self, Assurance};
use crate::store::{Batch, Connection, StoreError, Value, keys, servers, trail};

/// Jobs taken into one round trip.
const MAX_BATCH_JOBS: usize = 256;
/// Payload bytes taken into one round trip; one job always fits.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Longest sleep; a safety net, every event rings the doorbell.
const MAX_SLEEP_MS: u64 = 60_000;
/// First wait before another connection attempt; doubles up to the last.
const RECONNECT_FIRST_MS: u64 = 20;
const RECONNECT_LAST_MS: u64 = 1000;
/// How often the inboxes of connected agents are looked over for anything missed.
const SWEEP_MS: u64 = 30_000;
/// How long a stop tries to commit what is left.
const STOP_PATIENCE_MS: u64 = 5_000;
/// How often the certificates of open sessions are looked at.
const EXPIRY_CHECK_MS: u64 = 1_000;
/// How long a stream that was ended may take to say so to a client that does not read.
const END_GRACE_MS: u64 = 1_000;
/// Agents registered in one round trip at connect.
const REGISTER_PAGE: usize = 256;
/// What is left of an instance is cleared away after this many times `reclaim_idle_ms`.
const GRACE_FACTOR: u64 = 2;
/// Wait after Redis refused a whole transaction (memory full, read-only) before what is due by itself is
/// tried again, in milliseconds.
pub(super) const STALL_MS: u64 = 250;

/// A due time's business.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Entries of this inbox are due, or something of a gone instance is to be cleared.
    Inbox(AgentId),
    /// Certificates run out.
    Expiry,
    /// A stream that was ended and may still hang.
    Cut(u64),
    /// The safety net.
    Sweep,
}

/// A look into Redis' pending entries list for entries that are not tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    pub agent: AgentId,
    pub owner: Option<InstanceId>,
    /// Entries after this one.
    pub after: Option<EntryId>,
}

/// A worker thread's state.
pub struct Worker {
    pub(super) index: usize,
    /// How many workers there are.
    count: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    inlet: Inlet,
    pub(super) connection: Option<Connection>,
    /// How commits over that connection are waited for.
    pub(super) assurance: Assurance,
    /// Whether the last one waited in vain.
    pub(super) unassured: bool,
    /// Redis refused the last transaction.
    pub(super) refused: bool,
    connects: u64,
    retry_at_ms: u64,
    retry_wait_ms: u64,
    boot: Uuid,
    pub(super) lane: Lane,
    /// Where the lane's head is put up for checkpoints.
    pub(super) slot: Arc<Slot>,
    pub(super) batch: Batch,
    /// Buffers of payload scans.
    pub(super) scratch: Scratch,
    pub(super) inboxes: AgentMap<Inbox>,
    /// Inboxes to look at in the next rounds.
    pub(super) ready: Ready,
    /// Inboxes with nothing to move but acknowledgements: these wait for the next transaction.
    pub(super) acking: Vec<AgentId>,
    /// Sessions whose writers are to be woken at the end of this round.
    pub(super) to_wake: Vec<Arc<Session>>,
    /// Inboxes whose consumer groups must be made again.
    pub(super) regroup: HashSet<AgentId>,
    /// Inboxes whose length is to be read.
    pub(super) measure: HashSet<AgentId>,
    /// Agents with dead letters to write.
    pub(super) dying: BTreeSet<AgentId>,
    pub(super) scans: VecDeque<Scan>,
    /// Gone instances whose remains are to be cleared.
    pub(super) clears: VecDeque<(AgentId, InstanceId)>,
    pub(super) notes: Vec<Note>,
    /// Deliveries and acknowledgements that are not on record yet.
    pub(super) custody: Custody,
    pub(super) stalled_until_ms: u64,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    watches_expiry: bool,
    /// Streams that were ended, until they are cut.
    ended: HashMap<u64, Arc<Session>>,
    next_ended: u64,
    pub(super) stopping: bool,
}

impl Worker {
    /// A connected worker that owns every agent whose route hash falls to `index` of `count`.
    pub fn connect(
        shared: Arc<Shared>,
        boot: Uuid,
        index: usize,
        count: usize,
        inlet: Inlet,
    ) -> Result<Self, StoreError> {
        let settings = shared.settings();
        let lane = Lane::new(LaneId::new(boot, index, 0));
        let slot = shared.board.slot(index);
        let mut worker = Self {
            index,
            count,
            shared,
            settings,
            inlet,
            connection: None,
            assurance: Assurance::Answered,
            unassured: false,
            refused: false,
            connects: 0,
            retry_at_ms: 0,
            retry_wait_ms: RECONNECT_FIRST_MS,
            boot,
            lane,
            slot,
            batch: Batch::new(),
            scratch: Scratch::new(),
            inboxes: AgentMap::default(),
            ready: Ready::default(),
            acking: Vec::new(),
            to_wake: Vec::new(),
            regroup: HashSet::new(),
            measure: HashSet::new(),
            dying: BTreeSet::new(),
            scans: VecDeque::new(),
            clears: VecDeque::new(),
            notes: Vec::new(),
            custody: Custody::default(),
            stalled_until_ms: 0,
            timers: BinaryHeap::new(),
            watches_expiry: false,
            ended: HashMap::new(),
            next_ended: 0,
            stopping: false,
        };
        let _ = worker.enlist();
        worker.establish(Now::read())?;
        Ok(worker)
    }

    /// Makes inboxes for the agents of the settings that live here and have none; which these are.
    fn enlist(&mut self) -> Vec<AgentId> {
        let max_bytes = self.settings.limits.max_message_bytes;
        let here = |agent: &AgentId| usize::from(agent.route_hash()) % self.count == self.index;
        let new: Vec<AgentId> = self
            .settings
            .policy
            .agents()
            .map(|card| &card.id)
            .filter(|agent| here(agent) && !self.inboxes.contains_key(*agent))
            .cloned()
            .collect();
        for agent in &new {
            drop(self.inboxes.insert(agent.clone(), Inbox::new(agent.clone(), max_bytes)));
        }
        new
    }

    /// Takes up other settings: sessions of agents that are not allowed any more end, new agents get
    /// inboxes. What waits for a removed agent stays in Redis.
    fn reload(&mut self, settings: Arc<Settings>, now: Now) {
        let before = std::mem::replace(&mut self.settings, settings);
        let removed: Vec<Arc<Session>> = self
            .inboxes
            .values()
            .filter(|inbox| self.settings.policy.agent(inbox.agent.as_str()).is_none())
            .flat_map(Inbox::slots)
            .map(|slot| slot.session.clone())
            .collect();
        for session in removed {
            self.close(&session, now, "agent_removed", Some(Refusal::AGENT_NOT_ALLOWLISTED));
        }
        let new = self.enlist();
        if let Some(mut connection) = self.connection.take() {
            self.batch.clear();
            match self.adopt_agents(&mut connection, &new, now) {
                Ok(()) => self.connection = Some(connection),
                // The next connect takes them up.
                Err(error) => self.disconnect(&error, now),
            }
        }
        if self.index == 0 {
            let (old, new) = (before.policy.version(), self.settings.policy.version());
            self.notes.push(Note::Operator(OperatorEvent {
                action: Action::ConfigChanged,
                target: String::new(),
                rule: String::new(),
                reason: format!("from {} to {}", hex(old), hex(new)),
            }));
        }
    }

    /// A handler of this agent failed for good.
    pub(super) fn handler_failed(&mut self, agent: &AgentId, reason: &str, now: Now) {
        if self.shared.has_peers() {
            self.notes.push(Note::Failed { agent: agent.clone() });
        }
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(agent))
            && inbox.breaker.failed(config, now.mono_ms)
        {
            log::warn!("circuit of {agent} opened: {reason}");
            let (agent, reason) = (agent.clone(), reason.to_owned());
            self.shared.set_circuit(&agent, true);
            self.notes.push(Note::Circuit { agent, opened: true, reason });
        }
    }

    /// A handler of this agent succeeded.
    pub(super) fn handler_succeeded(&mut self, agent: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(agent))
            && inbox.breaker.succeeded(config, now.mono_ms)
        {
            self.shared.set_circuit(agent, false);
            let (agent, reason) = (agent.clone(), String::new());
            self.notes.push(Note::Circuit { agent, opened: false, reason });
        }
    }

    /// The loop; returns after a stop.
    pub fn run(mut self) {
        self.inlet.attach();
        self.set_timer(Now::read().mono_ms + SWEEP_MS, Timer::Sweep);
        loop {
            let now = Now::read();
            self.take_control(now);
            self.fire_timers(now);
            let jobs = self.take_jobs();
            if self.is_connected(now) {
                self.round(jobs, now);
            } else {
                for job in jobs {
                    job.fail(Refusal::STORAGE_UNAVAILABLE);
                }
            }
            if self.stopping && self.inlet.jobs.is_empty() {
                self.finish();
                return;
            }
            if !self.has_work() {
                self.inlet.wait(self.sleep_until_ms(), self.shared.spin_us);
            }
        }
    }

    fn take_jobs(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while jobs.len() < MAX_BATCH_JOBS && bytes < MAX_BATCH_BYTES {
            let Ok(job) = self.inlet.jobs.try_recv() else {
                break;
            };
            self.inlet.taken(&job);
            bytes += job.payload_bytes();
            jobs.push(job);
        }
        jobs
    }

    fn take_control(&mut self, now: Now) {
        while let Ok(control) = self.inlet.control.try_recv() {
            match control {
                Control::Events(session) => self.client_notes(&session, now),
                Control::Closed(session) => {
                    // What it said last still counts.
                    self.client_notes(&session, now);
                    self.close(&session, now, "stream_ended", None);
                }
                Control::News(agent) => self.news(agent),
                // What was sent before this was heard of, that server was not told.
                Control::OpenedElsewhere(agent, server) => self.notes.push(Note::Told { agent, server }),
                Control::Left(agent, instance) => self.left_elsewhere(agent, instance, now),
                Control::Orphaned(agent, instance, server) => {
                    let (of, gone) = (agent.clone(), instance.clone());
                    self.notes.push(Note::Orphaned { agent: of, instance: gone, server });
                    self.left_elsewhere(agent, instance, now);
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
                Control::LookOver => self.look_over(now),
                Control::Reload(settings) => self.reload(settings, now),
                Control::Record(event) => self.notes.push(Note::Operator(event)),
                Control::Stop => {
                    self.inlet.close();
                    self.stopping = true;
                }
            }
        }
    }

    /// Another server put something into this inbox.
    fn news(&mut self, agent: AgentId) {
        if let Some(inbox) = self.inboxes.get_mut(&agent) {
            inbox.suspect();
            let _ = self.measure.insert(agent.clone());
            self.ready.insert(agent);
        }
    }

    /// An instance has no session on another server any more: what it holds waits here too, and what is
    /// left of it is cleared away in time.
    fn left_elsewhere(&mut self, agent: AgentId, instance: InstanceId, now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        if inbox.slot(&instance).is_none() {
            let _ = inbox.gone.entry(instance).or_insert(clear_at_ms);
        }
        self.scans.push_back(Scan { agent: agent.clone(), owner: None, after: None });
        self.schedule(&agent);
    }

    /// News may have been missed: who is connected where, and what waits, is read anew.
    fn look_over(&mut self, now: Now) {
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        if let Some(mut connection) = self.connection.take() {
            self.batch.clear();
            match self.adopt_agents(&mut connection, &agents, now) {
                Ok(()) => self.connection = Some(connection),
                Err(error) => return self.disconnect(&error, now),
            }
        }
        self.sweep();
    }

    fn client_notes(&mut self, session: &Arc<Session>, now: Now) {
        let agent = &session.identity.agent;
        let notes = session.take_notes();
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if !inbox.slot(&session.instance).is_some_and(|slot| Arc::ptr_eq(&slot.session, session)) {
            return;
        }
        let mut failures = Vec::new();
        let mut succeeded = 0;
        for note in notes {
            match note {
                // Unknown, foreign and repeated ids change nothing.
                ClientNote::Ack(id) => {
                    let Some((message_id, attempt)) = inbox.ack(&session.instance, id) else {
                        continue;
                    };
                    self.custody.acked(agent, &session.instance, message_id, attempt, now);
                    succeeded += 1;
                }
                ClientNote::Nack { id, reason, retryable } => {
                    let message_id = inbox.message_of(&session.instance, id);
                    let nacked = inbox.nack(
                        &session.instance,
                        id,
                        &reason,
                        retryable,
                        now.mono_ms,
                        &self.settings.delivery,
                    );
                    let attempt = match nacked {
                        Nacked::Retried(attempt) => attempt,
                        Nacked::Dead(attempt) => {
                            failures.push(reason.clone());
                            attempt
                        }
                        Nacked::Unknown => continue,
                    };
                    self.notes.push(Note::Nacked {
                        identity: session.identity.clone(),
                        instance: session.instance.clone(),
                        message_id,
                        delivery: id.to_string(),
                        attempt,
                        retryable,
                        reason,
                    });
                }
            }
        }
        if !inbox.dead.is_empty() {
            let _ = self.dying.insert(agent.clone());
        }
        // There may be credit for what waits; else acknowledgements are in no hurry.
        if inbox.has_work(now.mono_ms, &self.settings.delivery) {
            self.ready.insert(agent.clone());
        } else if succeeded > 0 {
            self.acking.push(agent.clone());
        }
        self.schedule(agent);
        for _ in 0..succeeded {
            self.handler_succeeded(agent, now);
        }
        for reason in failures {
            self.handler_failed(agent, &reason, now);
        }
    }

    /// Ends a session in memory now; the record and the store follow with the next commit.
    pub(super) fn close(
        &mut self,
        session: &Arc<Session>,
        now: Now,
        reason: &'static str,
        refusal: Option<Refusal>,
    ) {
        let agent = session.identity.agent.clone();
        let reclaim_at_ms = now.mono_ms + self.settings.delivery.reclaim_idle_ms;
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        if !inbox.close(session, reclaim_at_ms) {
            return;
        }
        self.shared.directory.remove(&agent, &session.instance);
        let _ = inbox.gone.insert(session.instance.clone(), clear_at_ms);
        self.notes.push(Note::Closed {
            identity: session.identity.clone(),
            instance: session.instance.clone(),
            reason,
        });
        session.end(refusal);
        self.cut_later(session, now);
        self.ready.insert(agent);
    }

    /// A client that does not read never sees its stream's end: it is cut after a while.
    fn cut_later(&mut self, session: &Arc<Session>, now: Now) {
        self.next_ended += 1;
        drop(self.ended.insert(self.next_ended, session.clone()));
        self.set_timer(now.mono_ms + END_GRACE_MS, Timer::Cut(self.next_ended));
    }

    /// How long an instance may be away before what is left of it is cleared, in milliseconds.
    pub(super) fn grace_ms(&self) -> u64 {
        self.settings.delivery.reclaim_idle_ms * GRACE_FACTOR
    }

    /// A session opened: from now on it receives.
    pub(super) fn opened(&mut self, session: &Arc<Session>, now: Now) {
        let agent = session.identity.agent.clone();
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.open(session.clone());
        self.shared.directory.insert(&agent, &session.instance);
        session.send(super::session::Outbound::Welcome);
        for owner in [None, Some(session.instance.clone())] {
            self.scans.push_back(Scan { agent: agent.clone(), owner, after: None });
        }
        if !std::mem::replace(&mut self.watches_expiry, true) {
            self.set_timer(now.mono_ms + EXPIRY_CHECK_MS, Timer::Expiry);
        }
        self.ready.insert(agent);
        if session.is_closed() {
            self.close(session, now, "stream_ended", None);
        }
    }

    // --- time ------------------------------------------------------------------------------------

    fn set_timer(&mut self, at_ms: u64, timer: Timer) {
        self.timers.push(Reverse((at_ms, timer)));
    }

    /// Has an inbox looked at again at a given time, whatever it waits for by itself.
    pub(super) fn look_again(&mut self, agent: &AgentId, at_ms: u64) {
        self.set_timer(at_ms, Timer::Inbox(agent.clone()));
    }

    /// Makes sure the worker wakes when something of this inbox is due.
    pub(super) fn schedule(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let next = inbox.next_due_ms().into_iter().chain(inbox.gone.values().copied()).min();
        if let Some(at_ms) = next
            && inbox.timer_ms.is_none_or(|set| at_ms < set)
        {
            inbox.timer_ms = Some(at_ms);
            self.set_timer(at_ms, Timer::Inbox(agent.clone()));
        }
    }

    fn fire_timers(&mut self, now: Now) {
        while let Some(Reverse((at_ms, _))) = self.timers.peek() {
            if *at_ms > now.mono_ms {
                break;
            }
            let Some(Reverse((_, timer))) = self.timers.pop() else {
                break;
            };
            match timer {
                Timer::Inbox(agent) => self.inbox_due(agent, now),
                Timer::Expiry => self.expire(now),
                Timer::Cut(number) => {
                    if let Some(session) = self.ended.remove(&number) {
                        session.cut();
                    }
                }
                Timer::Sweep => {
                    self.sweep();
                    self.set_timer(now.mono_ms + SWEEP_MS, Timer::Sweep);
                }
            }
        }
    }

    fn inbox_due(&mut self, agent: AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.timer_ms = None;
        let due: Vec<InstanceId> = inbox
            .gone
            .iter()
            .filter(|(_, at_ms)| **at_ms <= now.mono_ms)
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in due {
            // Entered again with a later time where it cannot be cleared yet.
            let _ = inbox.gone.remove(&instance);
            self.clears.push_back((agent.clone(), instance));
        }
        self.ready.insert(agent);
    }

    /// Ends the sessions whose certificates have run out or were revoked; looks again as long as there are sessions.
    fn expire(&mut self, now: Now) {
        let mut ended = Vec::new();
        let revoked = self.shared.revoked();
        let mut open = false;
        for slot in self.inboxes.values().flat_map(Inbox::slots) {
            open = true;
            let identity = &slot.session.identity;
            if !identity.is_current(now) {
                ended.push((slot.session.clone(), "certificate_expired", Refusal::INVALID_CERTIFICATE));
            } else if identity.is_revoked(&revoked) {
                ended.push((slot.session.clone(), "certificate_revoked", Refusal::CERTIFICATE_REVOKED));
            }
        }
        for (session, reason, refusal) in ended {
            self.close(&session, now, reason, Some(refusal));
        }
        self.watches_expiry = open;
        if open {
            self.set_timer(now.mono_ms + EXPIRY_CHECK_MS, Timer::Expiry);
        }
    }

    fn sweep(&mut self) {
        for (agent, inbox) in &mut self.inboxes {
            if inbox.slots().is_empty() {
                continue;
            }
            inbox.suspect();
            self.scans.extend(scans_of(inbox));
            let _ = self.measure.insert(agent.clone());
            self.ready.insert(agent.clone());
        }
    }

    fn has_work(&self) -> bool {
        if !self.inlet.jobs.is_empty() || !self.inlet.control.is_empty() || self.stopping {
            return true;
        }
        if self.connection.is_none() {
            return false;
        }
        let now = Now::read();
        let stalled = now.mono_ms < self.stalled_until_ms;
        let custody = self.custody.is_due(now);
        let ready = !self.ready.is_empty() || !self.scans.is_empty() || (custody && !self.acking.is_empty());
        let transacts =
            custody || !self.notes.is_empty() || !self.clears.is_empty() || !self.dying.is_empty();
        ready || (!stalled && (transacts || !self.regroup.is_empty()))
    }

    fn sleep_until_ms(&self) -> u64 {
        let now_ms = Now::read().mono_ms;
        let mut until_ms = now_ms + MAX_SLEEP_MS;
        if let Some(Reverse((at_ms, _))) = self.timers.peek() {
            until_ms = until_ms.min(*at_ms);
        }
        if let Some(due_ms) = self.custody.due_ms() {
            until_ms = until_ms.min(due_ms);
        }
        if self.connection.is_none() {
            until_ms = until_ms.min(self.retry_at_ms);
        }
        if self.stalled_until_ms > now_ms {
            until_ms = until_ms.min(self.stalled_until_ms);
        }
        until_ms
    }

    // --- connection ------------------------------------------------------------------------------

    fn is_connected(&mut self, now: Now) -> bool {
        if self.connection.is_some() {
            return true;
        }
        if now.mono_ms < self.retry_at_ms {
            return false;
        }
        match self.establish(now) {
            Ok(()) => {
                log::info!("worker {}: connected to Redis again", self.index);
                true
            }
            Err(error) => {
                log::warn!("worker {}: {error}", self.index);
                self.connection = None;
                self.retry_at_ms = Now::read().mono_ms + self.retry_wait_ms;
                self.retry_wait_ms = (self.retry_wait_ms * 2).min(RECONNECT_LAST_MS);
                false
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn disconnect(&mut self, error: &StoreError, now: Now) {
        log::warn!("worker {}: {error}", self.index);
        self.connection = None;
        self.batch.clear();
        self.retry_wait_ms = RECONNECT_FIRST_MS;
        self.retry_at_ms = now.mono_ms;
        for inbox in self.inboxes.values_mut() {
            inbox.claims_lost(now.mono_ms);
        }
    }

    /// Connects, opens a lane of its own for this connection, and takes up what Redis holds.
    fn establish(&mut self, now: Now) -> Result<(), StoreError> {
        let mut connection = self.shared.redis.open()?;
        let assurance = fitness::assurance(&mut connection, self.shared.durability)?;
        self.connects += 1;
        let mut lane = Lane::new(LaneId::new(self.boot, self.index, self.connects));
        // The first connection has no predecessor; any later one states how the last lane ended.
        let predecessor = if self.connects == 1 { "boot".to_owned() } else { self.lane.closing_note() };
        lane.open(now, &predecessor, self.settings.policy.version());
        open_lane(&mut connection, &mut self.batch, &mut lane, &self.shared.server, assurance, now)?;
        if lane.assured().seq > 0 {
            self.slot.publish(lane.id(), lane.assured());
        }
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        self.adopt_agents(&mut connection, &agents, now)?;
        self.lane = lane;
        self.connection = Some(connection);
        self.assurance = assurance;
        self.retry_wait_ms = RECONNECT_FIRST_MS;
        let connected = self.inboxes.iter().filter(|(_, inbox)| !inbox.slots().is_empty());
        self.regroup.extend(connected.map(|(agent, _)| agent.clone()));
        self.suspect_all();
        Ok(())
    }

    /// Of no inbox is it certain any more what Redis has for it.
    pub(super) fn suspect_all(&mut self) {
        for (agent, inbox) in &mut self.inboxes {
            inbox.suspect();
            if !inbox.slots().is_empty() {
                self.ready.insert(agent.clone());
                self.scans.extend(scans_of(inbox));
            }
        }
    }

    /// Registers this worker's agents and learns their inboxes' lengths and their absent instances.
    fn adopt_agents(
        &mut self,
        connection: &mut Connection,
        agents: &[AgentId],
        now: Now,
    ) -> Result<(), StoreError> {
        const PER_AGENT: usize = 7;
        let now_ms = (now.unix_us / 1000).to_string();
        for page in agents.chunks(REGISTER_PAGE) {
            for agent in page {
                self.register(agent, &now_ms);
            }
            let mut answers = connection.run(&mut self.batch)?.into_iter();
            for agent in page {
                let of_agent: Vec<Value> = answers.by_ref().take(PER_AGENT).collect();
                self.adopt(agent, &of_agent, now);
            }
        }
        Ok(())
    }

    fn register(&mut self, agent: &AgentId, now_ms: &str) {
        let key = keys::agent(agent);
        let batch = &mut self.batch;
        let active = self.inboxes.get(agent).is_some_and(|inbox| !inbox.slots().is_empty());
        let _ = batch.command("HSET");
        let _ = batch.arg(&key).arg("id").arg(agent.as_str());
        if let Some(card) = self.settings.policy.agent(agent.as_str()) {
            let capabilities = serde_json::Value::from(card.capabilities.clone()).to_string();
            let _ = batch.arg("capabilities").arg(capabilities).arg("metadata").arg(&card.metadata_json);
        }
        if active || !self.shared.has_peers() {
            let _ = batch.arg("status").arg(if active { "ACTIVE" } else { "INACTIVE" });
        }
        for (field, value) in [("status", "INACTIVE"), ("registered_at", now_ms)] {
            // What another server says of the agent stands.
            let _ = batch.command("HSETNX");
            let _ = batch.arg(&key).arg(field).arg(value);
        }
        let _ = batch.command("XLEN");
        let _ = batch.arg(keys::inbox(agent));
        let _ = batch.command("HGETALL");
        let _ = batch.arg(keys::instances(agent));
        let _ = batch.command("HGET");
        let _ = batch.arg(keys::circuit(agent)).arg("state");
        let _ = batch.command("HGETALL");
        let _ = batch.arg(keys::rate(agent));
    }

    fn adopt(&mut self, agent: &AgentId, answers: &[Value], now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let has_peers = self.shared.has_peers();
        let [_, _, _, len, instances, circuit, sent] = answers else {
            return;
        };
        if let Some(code) = answers.iter().find_map(answers::error_code) {
            log::error!("agent {agent}: Redis refused its registration: {code}");
        }
        if !std::mem::replace(&mut inbox.adopted, true) {
            if answers::text(circuit) == Some("OPEN") {
                inbox.breaker = Breaker::reopened(now.mono_ms);
                self.shared.set_circuit(agent, true);
            }
            if let Some(card) = self.settings.policy.agent(agent.as_str()) {
                card.sent().restore(stored_counts(sent), now.unix_s());
            }
        }
        inbox.len = answers::int(len).unwrap_or(0);
        for (instance, owner) in presence::instances(instances) {
            match owner {
                Owner::Server(server) if server != self.shared.server && has_peers => {
                    // Where that server is gone, the look at the servers finds it.
                    self.shared.directory.insert_elsewhere(agent, &instance, &server);
                }
                Owner::Server(_) | Owner::Nobody => {
                    self.shared.directory.remove_elsewhere(agent, &instance);
                    if inbox.slot(&instance).is_none() {
                        let _ = inbox.gone.entry(instance).or_insert(clear_at_ms);
                    }
                }
            }
        }
        self.schedule(agent);
    }

    // --- stop ------------------------------------------------------------------------------------

    /// Ends every session, commits what is left and closes the lane.
    fn finish(mut self) {
        let now = Now::read();
        let sessions: Vec<Arc<Session>> =
            self.inboxes.values().flat_map(Inbox::slots).map(|slot| slot.session.clone()).collect();
        for session in sessions {
            self.client_notes(&session, now);
            self.close(&session, now, "server_stopping", Some(Refusal::SERVER_STOPPING));
        }
        self.clears.clear();
        self.scans.clear();
        self.stalled_until_ms = 0;
        let give_up_ms = now.mono_ms + STOP_PATIENCE_MS;
        let mut closed = false;
        loop {
            let now = Now::read();
            if self.is_connected(now) {
                self.round(Vec::new(), now);
            } else {
                std::thread::park_timeout(Duration::from_millis(RECONNECT_FIRST_MS));
            }
            let acked = self.inboxes.values().any(|inbox| !inbox.acked.is_empty());
            let left = !self.notes.is_empty() || !self.custody.is_empty() || acked || !self.dying.is_empty();
            if !left && closed {
                break;
            }
            if !left {
                // The last record of all.
                self.notes.push(Note::LaneClosed);
                closed = true;
            }
            if now.mono_ms >= give_up_ms {
                log::error!(
                    "worker {}: Redis did not take the last {} events before the stop",
                    self.index,
                    self.notes.len()
                );
                break;
            }
        }
        // What slipped in while the mailbox closed.
        while let Ok(job) = self.inlet.jobs.try_recv() {
            job.fail(Refusal::SERVER_STOPPING);
        }
    }
}

/// Looks into the pending entries of an inbox: the shared one's and those of its connected instances.
fn scans_of(inbox: &Inbox) -> impl Iterator<Item = Scan> {
    let own = inbox.slots().iter().map(|slot| Some(slot.session.instance.clone()));
    std::iter::once(None).chain(own).map(|owner| Scan { agent: inbox.agent.clone(), owner, after: None })
}

/// What was counted lately: start of a bucket and messages in it.
fn stored_counts(value: &Value) -> Vec<(u64, u32)> {
    let pairs = answers::pairs(value.clone()).unwrap_or_default();
    let bucket = |(minute, count): &(String, String)| {
        Some((minute.parse::<u64>().ok()?.checked_mul(60)?, count.parse().ok()?))
    };
    pairs.iter().filter_map(bucket).collect()
}

/// Registers a lane and writes its first block, both or neither.
fn open_lane(
    connection: &mut Connection,
    batch: &mut Batch,
    lane: &mut Lane,
    server: &ServerId,
    assurance: Assurance,
    now: Now,
) -> Result<(), StoreError> {
    let description = serde_json::json!({
        "opened_unix_us": now.unix_us,
        "server": server.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    })
    .to_string();
    batch.clear();
    let _ = batch.command("MULTI");
    let _ = trail::register(batch, lane.id(), &description);
    if let Some(block) = lane.block() {
        let _ = trail::append(batch, block);
    }
    let exec_at = batch.command("EXEC");
    let _ = servers::watch_fence(batch, server);
    let waited = assurance.wait(batch);
    let answers = connection.run(batch)?;
    match answers.get(exec_at) {
        Some(Value::Array(effects)) if effects.iter().all(|e| answers::error_code(e).is_none()) => {
            if waited.is_none_or(|at| assurance.holds(answers.get(at).unwrap_or_default())) {
                lane.confirm();
            } else {
                lane.confirm_unassured();
            }
            Ok(())
        }
        other => {
            Err(StoreError::Unexpected { command: "opening an audit lane", answer: format!("{other:?}") })
        }
    }
}
