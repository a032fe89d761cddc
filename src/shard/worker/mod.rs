//! One worker: takes what waits, makes one round trip, and sleeps only when there is nothing to do.
//!
//! * [`link`]: the connection to Redis and the lane. * [`agenda`]: work that is due by itself, and when to wake.
//! * [`ledger`], [`custody`]: what must go on record. * [`sessions`], [`states`]: open streams; states as they were changed last.
//! * `control`: what other threads tell. * `adopt`: what Redis holds, compared after a connect.
//! * `round`: one round trip: plan, gather, decide, commit, settle.
//!
//! Owns its connection, its lane and the inboxes of its agents; shares nothing mutable but the directory of connected
//! instances.

mod adopt;
mod agenda;
mod control;
mod custody;
mod due;
mod ledger;
mod link;
mod moving;
mod ready;
mod round;
mod sessions;
mod settlements;
mod states;
mod traced;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::audit::StoreKeys;
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::ids::{AgentId, AgentMap};
use crate::refusal::Refusal;
use crate::shard::desk::control::Control;
use crate::shard::desk::job::Job;
use crate::shard::desk::mailbox::{Inlet, Line};
use crate::shard::desk::settings::Settings;
use crate::shard::desk::shared::Shared;
use crate::shard::inbox::Inbox;
use crate::shard::txn::event::Event;
use crate::shard::txn::written::Written;
use crate::store::StoreError;
use agenda::{Agenda, Standing, Timer, Wake};
use ledger::Ledger;
use link::Link;
use sessions::Sessions;
use states::States;
use traced::Traced;

/// Jobs taken into one round trip.
const MAX_BATCH_JOBS: usize = 256;
/// Payload bytes taken into one round trip; one job always fits.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// How long a stop tries to commit what is left, in milliseconds.
const STOP_PATIENCE_MS: u64 = 5_000;
/// Pause between two such attempts while Redis takes nothing.
const STOP_PAUSE: Duration = Duration::from_millis(20);

/// A worker thread's state.
pub(crate) struct Worker {
    index: usize,
    /// How many workers there are.
    count: usize,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    /// For tags on what is stored: those of the running round.
    keys: Arc<StoreKeys>,
    /// The messages of the round that is being settled.
    written: Written,
    inlet: Inlet<Job, Control>,
    link: Link,
    inboxes: AgentMap<Inbox>,
    sessions: Sessions,
    states: States,
    agenda: Agenda,
    ledger: Ledger,
    traced: Traced,
    /// Buffers of payload scans.
    scratch: Scratch,
    stopping: bool,
}

impl Worker {
    /// A connected worker that owns every agent whose route hash falls to `index` of `count`.
    pub(crate) fn connect(
        shared: Arc<Shared>,
        boot: Uuid,
        index: usize,
        count: usize,
        (line, inlet): (Line<Control>, Inlet<Job, Control>),
    ) -> Result<Self, StoreError> {
        let settings = shared.settings();
        let keys = shared.key_ring.keys();
        let link = Link::new(shared.clone(), boot, index, line);
        let mut worker = Self {
            index,
            count,
            shared,
            settings,
            keys,
            written: Written::default(),
            inlet,
            link,
            inboxes: AgentMap::default(),
            sessions: Sessions::default(),
            states: States::default(),
            agenda: Agenda::default(),
            ledger: Ledger::default(),
            traced: Traced::default(),
            scratch: Scratch::new(),
            stopping: false,
        };
        let _ = worker.enlist();
        let now = Now::read();
        worker.link.connect(worker.settings.policy.version())?;
        worker.adopt_all(now)?;
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
            let inbox = Inbox::new(agent.clone(), max_bytes);
            self.link.meter.enter(agent, inbox.handling.clone());
            self.shared.inboxes.enter(agent, inbox.size.stored().clone());
            self.shared.replies.enter(agent, inbox.size.replies().clone());
            drop(self.inboxes.insert(agent.clone(), inbox));
        }
        new
    }

    /// The loop; returns after a stop.
    pub(crate) fn run(mut self) {
        self.inlet.attach();
        self.agenda.set_sweep(Now::read());
        loop {
            let now = Now::read();
            self.link.meter.beat_ms.set(now.mono_ms);
            self.link.meter.set_way(self.link.way());
            self.take_control(now);
            self.fire_timers(now);
            let jobs = self.inlet.take(MAX_BATCH_JOBS, MAX_BATCH_BYTES);
            if self.is_connected(now) {
                self.round(jobs, now);
            } else {
                for job in jobs {
                    self.shared.turn_away(job, Refusal::STORAGE_UNAVAILABLE);
                }
            }
            if self.stopping && self.inlet.has_no_job() {
                self.finish();
                return;
            }
            if self.inlet.is_empty()
                && let Wake::At(until_ms) = self.wake()
            {
                let slept = Now::mono_us();
                self.inlet.wait(until_ms, self.shared.spin_us);
                self.link.meter.idle_us.add(Now::mono_us().saturating_sub(slept));
            }
        }
    }

    /// Whether there is a connection; takes up a new one as soon as it is made.
    fn is_connected(&mut self, now: Now) -> bool {
        if self.link.reconnect(self.settings.policy.version(), now) {
            match self.adopt_all(now) {
                Ok(()) => log::info!(
                    code = "redis_back", worker = self.index;
                    "worker {}: connected to Redis again", self.index
                ),
                Err(error) => self.lose_link(&error, now),
            }
        }
        if self.link.is_up() && self.agenda.resync {
            self.resync(now);
        }
        self.link.is_up()
    }

    /// The connection broke: answers may have been lost with it.
    fn lose_link(&mut self, error: &StoreError, now: Now) {
        self.link.lose(error, now);
        // What was not assured may be lost with a primary.
        self.states = States::default();
        self.inboxes.values_mut().for_each(Inbox::mark_unverified);
    }

    fn wake(&self) -> Wake {
        let standing = Standing {
            connected: self.link.is_up(),
            retry_at_ms: self.link.retry_at_ms(),
            paused_until_ms: self.link.paused_until_ms(),
            events: !self.ledger.events().is_empty(),
            custody_due_ms: self.ledger.custody.due_ms(),
        };
        if self.stopping { Wake::Now } else { self.agenda.wake(Now::read(), standing) }
    }

    fn fire_timers(&mut self, now: Now) {
        while let Some(timer) = self.agenda.next_timer(now) {
            match timer {
                Timer::Inbox(agent) => self.inbox_due(agent, now),
                Timer::Expiry => self.certificates_due(now),
                Timer::Cut(key) => self.sessions.cut(key),
                Timer::Sweep => self.sweep(now),
                Timer::Move => self.move_due(now),
            }
        }
    }

    /// Ends every session, commits what is left and closes the lane.
    fn finish(mut self) {
        let now = Now::read();
        self.end_all_sessions(now);
        self.agenda.clears.clear();
        let _ = self.agenda.take_scans(usize::MAX);
        self.link.unstall();
        let give_up_ms = now.mono_ms + STOP_PATIENCE_MS;
        let mut closed = false;
        loop {
            let now = Now::read();
            let before = self.link.lane.confirmed().seq;
            if self.is_connected(now) {
                // A stall stays: what Redis takes although its memory is full is tried then.
                self.link.unpause();
                self.round(Vec::new(), now);
            }
            let leaving = self.inboxes.values().any(|inbox| !inbox.leaving.is_empty());
            let left = !self.ledger.is_empty() || leaving || !self.agenda.dying.is_empty();
            if !left && closed {
                break;
            }
            if !left {
                // The last record of all, if there are others.
                if self.link.has_lane() {
                    self.ledger.push(Event::LaneClosed);
                }
                closed = true;
            }
            if now.mono_ms >= give_up_ms {
                log::error!(
                    code = "events_not_recorded", worker = self.index, count = self.ledger.events().len();
                    "worker {}: Redis did not take the last {} events before the stop",
                    self.index,
                    self.ledger.events().len()
                );
                break;
            }
            if left && self.link.lane.confirmed().seq == before {
                // Redis takes nothing for now.
                std::thread::park_timeout(STOP_PAUSE);
            }
        }
        // What slipped in while the mailbox closed.
        while !self.inlet.has_no_job() {
            let left = self.inlet.take(MAX_BATCH_JOBS, MAX_BATCH_BYTES);
            left.into_iter().for_each(|job| job.fail(Refusal::SERVER_STOPPING));
        }
    }
}
