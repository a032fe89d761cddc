//! A worker's connection to Redis, and the audit lane that is written over it. A connection is made on a thread of its
//! own, so that a Redis that hangs does not hold the worker up; it is looked at here only when it is ready.
//!
//! Every command that changes something goes out in a transaction that WATCHes the server's fence, or in a script that
//! reads it: a server that others have declared void changes nothing, however it comes back.

use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use uuid::Uuid;

use crate::audit::board::Slot;
use crate::audit::tally::Tally;
use crate::audit::{Lane, LaneId};
use crate::clock::Now;
use crate::shard::desk::control::Control;
use crate::shard::desk::mailbox::Line;
use crate::shard::desk::meters::{Meter, Way};
use crate::shard::desk::shared::Shared;
use crate::store::fitness::{self, Assurance};
use crate::store::pipeline::{Answers, Executed};
use crate::store::servers::{self, Fence};
use crate::store::{Batch, Connection, StoreError};

/// First wait before another connection attempt, in milliseconds; doubles up to the last.
const RECONNECT_FIRST_MS: u64 = 20;
/// Longest wait before another connection attempt, in milliseconds.
const RECONNECT_LAST_MS: u64 = 1000;
/// Wait after Redis refused a whole transaction (memory full, read-only) before what is due by itself is
/// tried again, in milliseconds.
pub(super) const STALL_MS: u64 = 250;

/// Wait after Redis refused what it takes when its memory is full, in milliseconds.
const PAUSE_MS: u64 = 20;

/// What the first lane says of what was before it.
const FIRST: &str = "boot";

/// A connection that may be used: Redis answers, and this server is not fenced.
struct Fresh {
    connection: Connection,
    assurance: Assurance,
}

enum State {
    Up(Fresh),
    /// A thread connects.
    Connecting(Receiver<Result<Fresh, StoreError>>),
    Down {
        retry_at_ms: u64,
    },
}

/// A worker's connection, its lane, and the batch that is being written.
pub(super) struct Link {
    index: usize,
    boot: Uuid,
    shared: Arc<Shared>,
    /// Wakes the worker.
    line: Line<Control>,
    state: State,
    pub batch: Batch,
    pub lane: Lane,
    /// What was before the lane, as its first record says.
    before: String,
    /// Where the lane's head is put up for checkpoints.
    slot: Arc<Slot>,
    /// What the worker measures.
    pub meter: Arc<Meter>,
    connects: u64,
    retry_wait_ms: u64,
    /// Commits are not as durable as configured.
    unassured: bool,
    /// Redis refused the last transaction.
    refused: bool,
    /// Until then only what Redis takes although its memory is full is tried (monotonic).
    stalled_until_ms: u64,
    /// Until then nothing is tried that is due by itself (monotonic).
    paused_until_ms: u64,
}

impl Link {
    /// A link without a connection.
    pub(super) fn new(shared: Arc<Shared>, boot: Uuid, index: usize, line: Line<Control>) -> Self {
        Self {
            index,
            boot,
            lane: Lane::new(LaneId::new(boot, index, 0)),
            before: FIRST.to_owned(),
            slot: shared.board.slot(index),
            meter: shared.meters.of(index),
            shared,
            line,
            state: State::Down { retry_at_ms: 0 },
            batch: Batch::new(),
            connects: 0,
            retry_wait_ms: RECONNECT_FIRST_MS,
            unassured: false,
            refused: false,
            stalled_until_ms: 0,
            paused_until_ms: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// How the way to Redis is.
    pub(super) fn way(&self) -> Way {
        match (self.is_up(), self.refused, self.unassured) {
            (false, _, _) => Way::Down,
            (true, true, _) => Way::Refused,
            (true, false, true) => Way::Unassured,
            (true, false, false) => Way::Open,
        }
    }

    /// When to look for a connection again; `None` where a thread will ring.
    pub(super) fn retry_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Down { retry_at_ms } => Some(retry_at_ms),
            State::Up(_) | State::Connecting(_) => None,
        }
    }

    pub(super) fn stalled_until_ms(&self) -> u64 {
        self.stalled_until_ms
    }

    /// Redis took no transaction, or refused a step of one.
    pub(super) fn stall(&mut self, now: Now) {
        self.stalled_until_ms = now.mono_ms + STALL_MS;
    }

    /// Redis did not even take what it takes when its memory is full.
    pub(super) fn pause(&mut self, now: Now) {
        self.paused_until_ms = now.mono_ms + PAUSE_MS;
    }

    pub(super) fn paused_until_ms(&self) -> u64 {
        self.paused_until_ms
    }

    /// A stop tries everything at once.
    pub(super) fn unstall(&mut self) {
        self.stalled_until_ms = 0;
        self.paused_until_ms = 0;
    }

    /// Everything is tried at once again, in the way that Redis took last.
    pub(super) fn unpause(&mut self) {
        self.paused_until_ms = 0;
    }

    /// Whether this worker has written to a lane.
    pub(super) fn has_lane(&self) -> bool {
        !self.lane.is_unused() || self.before != FIRST
    }

    /// Whether this is the first connection.
    pub(super) fn is_first(&self) -> bool {
        self.connects <= 1
    }

    /// Whether commits are not as durable as configured.
    pub(super) fn is_unassured(&self) -> bool {
        self.unassured
    }

    pub(super) fn assurance(&self) -> Assurance {
        match &self.state {
            State::Up(fresh) => fresh.assurance,
            State::Connecting(_) | State::Down { .. } => Assurance::Answered,
        }
    }

    /// Connects on this thread: for the start.
    pub(super) fn connect(&mut self, policy_version: &[u8]) -> Result<(), StoreError> {
        let fresh = connect(&self.shared)?;
        self.take_up(fresh, policy_version);
        Ok(())
    }

    /// Looks for a connection, or begins to make one. True when a new one is in use: whatever Redis holds must be
    /// compared then.
    pub(super) fn reconnect(&mut self, policy_version: &[u8], now: Now) -> bool {
        match &self.state {
            State::Up(_) => false,
            State::Down { retry_at_ms } if now.mono_ms < *retry_at_ms => false,
            State::Down { .. } => {
                self.begin(now);
                false
            }
            State::Connecting(result) => match result.try_recv() {
                Ok(Ok(fresh)) => {
                    self.take_up(fresh, policy_version);
                    true
                }
                Ok(Err(error)) => {
                    self.failed(&error, now);
                    false
                }
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => {
                    self.state = State::Down { retry_at_ms: now.mono_ms + self.retry_wait_ms };
                    false
                }
            },
        }
    }

    /// Starts the thread that connects; at most one runs for a worker.
    fn begin(&mut self, now: Now) {
        let (sender, result) = bounded(1);
        let (shared, line) = (self.shared.clone(), self.line.clone());
        let thread = std::thread::Builder::new().name(format!("connect-{}", self.index)).spawn(move || {
            // A worker that has stopped meanwhile needs none.
            let _ = sender.send(connect(&shared));
            line.ring();
        });
        match thread {
            Ok(_) => self.state = State::Connecting(result),
            Err(error) => {
                log::warn!(
                    code = "thread_not_started", worker = self.index, part = "connect";
                    "worker {}: no thread to connect to Redis: {error}", self.index
                );
                self.state = State::Down { retry_at_ms: now.mono_ms + RECONNECT_LAST_MS };
            }
        }
    }

    fn failed(&mut self, error: &StoreError, now: Now) {
        log::warn!(code = "redis_away", worker = self.index; "worker {}: {error}", self.index);
        self.state = State::Down { retry_at_ms: now.mono_ms + self.retry_wait_ms };
        self.retry_wait_ms = (self.retry_wait_ms * 2).min(RECONNECT_LAST_MS);
    }

    /// Uses a connection from now on, with a lane of its own.
    fn take_up(&mut self, fresh: Fresh, policy_version: &[u8]) {
        self.connects += 1;
        // The first connection has no predecessor; any later one states how the last lane ended that was written to.
        if self.connects > 1 && !self.lane.is_unused() {
            self.before = self.lane.closing_note();
        }
        let id = LaneId::new(self.boot, self.index, self.connects);
        let tally = self.lane.take_tally();
        self.lane = Lane::opening(id, &self.before, policy_version);
        self.lane.count_with(tally.unwrap_or_else(|| {
            let settings = self.shared.settings();
            Box::new(Tally::new(self.meter.counters.clone(), settings.known()))
        }));
        self.batch.clear();
        self.state = State::Up(fresh);
        self.retry_wait_ms = RECONNECT_FIRST_MS;
    }

    /// Sends the batch; behind it the fence is watched again, and, where that is asked for, durability waited for.
    /// The answers, and whether all is as durable as configured. After an error the connection is given up.
    pub(super) fn finish(&mut self, waits: bool) -> Result<(Answers, bool), StoreError> {
        let fence = servers::watch_fence(&mut self.batch, &self.shared.server);
        let assurance = self.assurance();
        // Last, so that nothing stands behind it.
        let waited = waits.then(|| assurance.wait(&mut self.batch)).flatten();
        let mut answers = self.run()?;
        self.check(answers.take(fence));
        let assured = waited.is_none_or(|at| assurance.holds(answers.at(*at.start()..*at.end() + 1)));
        Ok((answers, assured))
    }

    /// An error once the Sentinels name another Redis.
    pub(super) fn check_lead(&mut self) -> Result<(), StoreError> {
        match &mut self.state {
            State::Up(fresh) => fresh.connection.check_lead(),
            State::Connecting(_) | State::Down { .. } => Ok(()),
        }
    }

    /// Sends the batch and reads its answers.
    pub(super) fn run(&mut self) -> Result<Answers, StoreError> {
        match &mut self.state {
            State::Up(fresh) => fresh.connection.run(&mut self.batch).map(Answers::new),
            State::Connecting(_) | State::Down { .. } => Err(StoreError::Unexpected {
                command: "a batch",
                answer: "there is no connection".to_owned(),
            }),
        }
    }

    fn check(&self, fence: Fence) {
        check(fence);
    }

    /// The connection is of no use any more.
    pub(super) fn lose(&mut self, error: &StoreError, now: Now) {
        log::warn!(code = "redis_away", worker = self.index; "worker {}: {error}", self.index);
        self.batch.clear();
        self.retry_wait_ms = RECONNECT_FIRST_MS;
        self.state = State::Down { retry_at_ms: now.mono_ms };
    }

    /// The lane's waiting block is in Redis.
    pub(super) fn confirm(&mut self, assured: bool) {
        if let Some((tap, _)) = &self.shared.tap {
            let (first_seq, bytes) = self.lane.waiting();
            tap.offer(self.lane.id(), first_seq, bytes);
        }
        self.shared.watchers.offer(self.lane.id(), self.lane.waiting().1);
        if assured {
            self.lane.confirm();
            self.slot.publish(self.lane.id(), self.lane.assured());
        } else {
            self.lane.confirm_unassured();
        }
    }

    /// Notes whether Redis takes transactions; says so when that changes.
    pub(super) fn note_executed(&mut self, executed: &Executed, answers: &Answers) {
        match executed {
            Executed::Done(_) => {
                if std::mem::take(&mut self.refused) {
                    self.stalled_until_ms = 0;
                    log::warn!(
                        code = "transactions_resumed", worker = self.index;
                        "worker {}: Redis takes transactions again", self.index
                    );
                }
            }
            Executed::Conflict => {}
            Executed::Refused => {
                // Once, not per message that meets the same.
                if !std::mem::replace(&mut self.refused, true) {
                    log::error!(
                        code = "transactions_refused", worker = self.index;
                        "worker {}: Redis refuses transactions: {:?}", self.index, answers.refusal()
                    );
                }
            }
        }
    }

    /// Notes whether commits are as durable as configured; says so when that changes. True when they are again.
    pub(super) fn note_assurance(&mut self, assured: bool) -> bool {
        if std::mem::replace(&mut self.unassured, !assured) != assured {
            return false;
        }
        if assured {
            log::warn!(
                code = "commits_durable", worker = self.index;
                "worker {}: commits are as durable as configured again", self.index
            );
        } else {
            log::error!(
                code = "commits_not_durable", worker = self.index;
                "worker {}: commits are in Redis, and not as durable as configured ({:?}): callers are told \
                 commit_unknown, and nothing is delivered",
                self.index,
                self.shared.durability
            );
        }
        assured
    }
}

/// Makes a connection: Redis answers, and this server is not fenced. The look at the fence guards the first
/// transaction.
fn connect(shared: &Shared) -> Result<Fresh, StoreError> {
    let mut connection = shared.redis.open()?;
    let assurance = fitness::assurance(&mut connection, shared.durability)?;
    let mut batch = Batch::new();
    let fence = servers::watch_fence(&mut batch, &shared.server);
    let mut answers = Answers::new(connection.run(&mut batch)?);
    check(answers.take(fence));
    Ok(Fresh { connection, assurance })
}

/// Ends the process of a server that others have declared void: what it holds is theirs now.
fn check(fence: Fence) {
    if fence == Fence::Fenced {
        log::error!(
            code = "server_fenced";
            "this server was silent for too long: others have taken over. It ends now"
        );
        // At once: handlers that run at an orderly exit would wait for threads that are busy.
        signal_hook::low_level::exit(1);
    }
}
