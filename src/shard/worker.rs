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
use super::ready::Ready;
use super::session::{ClientNote, Session};
use super::timers::{Sweep, Timer};
use super::{Settings, Shared};
use crate::audit::board::Slot;
use crate::audit::{Action, Lane, LaneId};
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::ids::{AgentId, AgentMap, InstanceId, hex};
use crate::policy::Breaker;
use crate::refusal::Refusal;
use crate::store::answers::EntryId;
use crate::store::fitness::Assurance;
use crate::store::{Batch, Connection, StoreError};

/// Jobs taken into one round trip.
const MAX_BATCH_JOBS: usize = 256;
/// Payload bytes taken into one round trip; one job always fits.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// First wait before another connection attempt; doubles up to the last.
pub(super) const RECONNECT_FIRST_MS: u64 = 20;
/// How long a stop tries to commit what is left.
const STOP_PATIENCE_MS: u64 = 5_000;
/// How often the certificates of open sessions are looked at.
pub(super) const EXPIRY_CHECK_MS: u64 = 1_000;
/// How long a stream that was ended may take to say so to a client that does not read.
const END_GRACE_MS: u64 = 1_000;
/// What is left of an instance is cleared away after this many times `reclaim_idle_ms`.
const GRACE_FACTOR: u64 = 2;
/// Wait after Redis refused a whole transaction (memory full, read-only) before what is due by itself is
/// tried again, in milliseconds.
pub(super) const STALL_MS: u64 = 250;

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
    pub(super) count: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) inlet: Inlet,
    pub(super) connection: Option<Connection>,
    /// How commits over that connection are waited for.
    pub(super) assurance: Assurance,
    /// Whether the last one waited in vain.
    pub(super) unassured: bool,
    /// Redis refused the last transaction.
    pub(super) refused: bool,
    pub(super) connects: u64,
    pub(super) retry_at_ms: u64,
    pub(super) retry_wait_ms: u64,
    pub(super) boot: Uuid,
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
    pub(super) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub(super) sweep: Sweep,
    pub(super) watches_expiry: bool,
    /// Streams that were ended, until they are cut.
    pub(super) ended: HashMap<u64, Arc<Session>>,
    pub(super) next_ended: u64,
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
            sweep: Sweep::default(),
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
    pub(super) fn enlist(&mut self) -> Vec<AgentId> {
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
    pub(super) fn reload(&mut self, settings: Arc<Settings>, now: Now) {
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
        self.set_sweep(Now::read());
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

    pub(super) fn take_jobs(&mut self) -> Vec<Job> {
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

    pub(super) fn take_control(&mut self, now: Now) {
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
                Control::Revoked => self.expire(now),
                Control::Record(event) => self.notes.push(Note::Operator(event)),
                Control::Stop => {
                    self.inlet.close();
                    self.stopping = true;
                }
            }
        }
    }

    /// Another server put something into this inbox.
    pub(super) fn news(&mut self, agent: AgentId) {
        if let Some(inbox) = self.inboxes.get_mut(&agent) {
            inbox.suspect();
            let _ = self.measure.insert(agent.clone());
            self.ready.insert(agent);
        }
    }

    /// An instance has no session on another server any more: what it holds waits here too, and what is
    /// left of it is cleared away in time.
    pub(super) fn left_elsewhere(&mut self, agent: AgentId, instance: InstanceId, now: Now) {
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
    pub(super) fn look_over(&mut self, now: Now) {
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        if let Some(mut connection) = self.connection.take() {
            self.batch.clear();
            match self.adopt_agents(&mut connection, &agents, now) {
                Ok(()) => self.connection = Some(connection),
                Err(error) => return self.disconnect(&error, now),
            }
        }
        for agent in &agents {
            self.look_at(agent);
        }
    }

    pub(super) fn client_notes(&mut self, session: &Arc<Session>, now: Now) {
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
    pub(super) fn cut_later(&mut self, session: &Arc<Session>, now: Now) {
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

    // --- stop ------------------------------------------------------------------------------------

    /// Ends every session, commits what is left and closes the lane.
    pub(super) fn finish(mut self) {
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
