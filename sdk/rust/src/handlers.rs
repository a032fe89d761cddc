//! Handler threads: take a delivery, find its handler, run it, acknowledge or refuse.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::calls::Calls;
use crate::error::HandlerError;
use crate::handle::Handle;
use crate::message::Message;
use crate::received::{CurrentDelivery, Received};
use crate::wire::millis;

/// Deliveries whose end is remembered, so that a redelivery after a lost acknowledgement is not handled
/// again by this process.
const REMEMBERED: usize = 4096;
/// Longest reason of a refusal, in characters.
const MAX_REASON_CHARS: usize = 200;
/// What is on record of a message that was not handled before the agent stopped.
const STOPPED: &str = "agent_stopped";
/// Such a message is for another session at once; the server has a shortest wait of its own.
const GIVEN_BACK_MS: u64 = 1;
/// Longest that a message is held for a server that cannot put it off itself.
const MAX_HELD: Duration = Duration::from_secs(60);

pub(crate) type Handler = Arc<dyn Fn(&Message) -> Result<(), HandlerError> + Send + Sync>;

/// What handles which message type.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub by_type: HashMap<String, Handler>,
    pub fallback: Option<Handler>,
}

/// What is to be done. The server's credit bounds how much it is.
#[derive(Default)]
struct Work {
    waiting: VecDeque<Received>,
    /// Messages that wait, run or are held, and the newest delivery of each: the one that counts.
    taken: HashMap<String, CurrentDelivery>,
    /// Messages that were handled, oldest first, and the same for looking up.
    done: VecDeque<String>,
    is_done: HashSet<String>,
    /// Messages that the server gets back when their time has come.
    held: Vec<(Instant, String, String)>,
    running: usize,
    stopping: bool,
    closed: bool,
}

struct Board {
    work: Mutex<Work>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handler threads of one agent.
pub(crate) struct Pool {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
}

/// Where the stream puts deliveries.
#[derive(Clone)]
pub(crate) struct Intake {
    board: Arc<Board>,
}

impl Intake {
    /// Takes a delivery; true: it was handled before, and only its acknowledgement was lost.
    pub(crate) fn take(&self, received: Received) -> bool {
        let mut work = self.board.lock();
        let message = received.wire.message_id.clone();
        if work.is_done.contains(&message) {
            return true;
        }
        if let Some(current) = work.taken.get(&message) {
            // A handler is at it: it acknowledges when it is done.
            current.set(received.delivery.get());
        } else {
            drop(work.taken.insert(message, received.delivery.clone()));
            if !work.stopping {
                work.waiting.push_back(received);
                self.board.changed.notify_one();
            }
            // What comes while stopping is given back at its end.
        }
        false
    }
}

impl Pool {
    pub(crate) fn start(threads: usize, handlers: &Handlers, agent: &Handle) -> std::io::Result<Self> {
        let board = Arc::new(Board { work: Mutex::default(), changed: Condvar::new() });
        let mut pool = Self { board, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let worker =
                Worker { board: pool.board.clone(), handlers: handlers.clone(), agent: agent.clone() };
            let thread =
                std::thread::Builder::new().name(format!("handler-{index}")).spawn(move || worker.run())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(crate) fn intake(&self) -> Intake {
        Intake { board: self.board.clone() }
    }

    /// Lets what has arrived be handled, until `give_up`, and gives back the rest. What a handler still says after that is not
    /// heard.
    pub(crate) fn drain(&mut self, give_up: Instant, calls: &Calls) {
        let mut work = self.board.lock();
        work.stopping = true;
        while work.running > 0 || !work.waiting.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            work = self.board.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        work.closed = true;
        let idle = work.running == 0;
        if !work.taken.is_empty() {
            log::warn!(
                code = "messages_unhandled", count = work.taken.len();
                "{} messages were not handled before the agent stopped; they stay with the server", work.taken.len()
            );
        }
        // Where it cannot be put off, the end of the session gives it back, and counts an attempt.
        if calls.session.open().is_some_and(|open| open.offers.later) {
            for current in work.taken.values() {
                calls.outbox.nack(current.get(), STOPPED.to_owned(), true, GIVEN_BACK_MS);
            }
        }
        drop(work);
        self.board.changed.notify_all();
        if idle {
            for thread in self.threads.drain(..) {
                drop(thread.join());
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Threads that wait would wait for ever.
        self.board.lock().closed = true;
        self.board.changed.notify_all();
    }
}

struct Worker {
    board: Arc<Board>,
    handlers: Handlers,
    agent: Handle,
}

impl Worker {
    fn run(&self) {
        while let Some(received) = self.next() {
            let message = Message::new(Arc::new(received), &self.agent);
            let outcome = self.handle(&message);
            self.settle(&message, outcome);
            self.board.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Received> {
        let mut work = self.board.lock();
        loop {
            if work.closed {
                return None;
            }
            self.give_back(&mut work);
            if let Some(received) = work.waiting.pop_front() {
                work.running += 1;
                return Some(received);
            }
            work = match work.held.iter().map(|(at, ..)| *at).min() {
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    self.board.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.board.changed.wait(work).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Messages that were held long enough.
    fn give_back(&self, work: &mut Work) {
        let now = Instant::now();
        let (due, held) = std::mem::take(&mut work.held).into_iter().partition(|(at, ..)| *at <= now);
        work.held = held;
        for (_, message, reason) in due {
            if let Some(current) = work.taken.remove(&message) {
                self.agent.calls.outbox.nack(current.get(), reason, true, 0);
            }
        }
    }

    fn handle(&self, message: &Message) -> Result<(), HandlerError> {
        let handler = self.handlers.by_type.get(message.message_type()).or(self.handlers.fallback.as_ref());
        let Some(handler) = handler else {
            return Err(HandlerError::reject(format!("no_handler:{}", message.message_type())));
        };
        let calls = &self.agent.calls;
        let mut operation = calls.tracing.processing(&calls.session.agent_id(), &message.received);
        let mut outcome = {
            let _entered = operation.enter();
            match catch_unwind(AssertUnwindSafe(|| handler(message))) {
                Ok(outcome) => outcome,
                Err(_) => Err(HandlerError::reject("handler_error:panic")),
            }
        };
        let committed = message.received.is_committed();
        operation.settled(&outcome, committed);
        if let (true, Err(error)) = (committed, &outcome) {
            let (what, from) = (message.message_type(), message.sender());
            log::error!(code = "handler_failed"; "{what} {} from {from} failed after its commit, which stands: {error}", message.message_id());
            outcome = Ok(());
        }
        outcome
    }

    /// Tells the server, unless the agent has been closed meanwhile.
    fn settle(&self, message: &Message, outcome: Result<(), HandlerError>) {
        let (calls, current) = (&self.agent.calls, &message.received.delivery);
        let id = message.message_id().to_owned();
        let mut work = self.board.lock();
        work.running -= 1;
        let can_put_off = calls.session.open().is_none_or(|open| open.offers.later);
        if let (Err(HandlerError::Later { reason, after }), false) = (&outcome, can_put_off) {
            work.held.push((Instant::now() + (*after).min(MAX_HELD), id, cut(reason)));
            return;
        }
        drop(work.taken.remove(&id));
        if outcome.is_ok() {
            if work.done.len() == REMEMBERED
                && let Some(oldest) = work.done.pop_front()
            {
                let _ = work.is_done.remove(&oldest);
            }
            work.done.push_back(id.clone());
            let _ = work.is_done.insert(id);
        }
        if work.closed {
            return;
        }
        drop(work);
        let (what, from) = (message.message_type(), message.sender());
        match outcome {
            Ok(()) => calls.outbox.ack(current.get()),
            Err(HandlerError::Later { reason, after }) => {
                log::info!(code = "message_put_off"; "{what} {} from {from} cannot be handled now, and comes again: {reason}", message.message_id());
                calls.outbox.nack(current.get(), cut(&reason), true, millis(after).max(1));
            }
            Err(HandlerError::Retry(reason)) => {
                log::warn!(code = "handler_failed"; "{what} {} from {from} failed at attempt {}, and is delivered again unless that was the last: {reason}", message.message_id(), message.attempt());
                calls.outbox.nack(current.get(), cut(&reason), true, 0);
            }
            Err(HandlerError::Reject(reason)) => {
                log::error!(code = "handler_failed"; "{what} {} from {from} failed, and is a dead letter: {reason}", message.message_id());
                calls.outbox.nack(current.get(), cut(&reason), false, 0);
            }
        }
    }
}

fn cut(reason: &str) -> String {
    reason.chars().take(MAX_REASON_CHARS).collect()
}
