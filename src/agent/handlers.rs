//! Handler threads: take a delivery, find its handler, run it, acknowledge or refuse.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::calls::Calls;
use super::error::HandlerError;
use super::message::Message;
use super::outbox::Outbox;
use super::received::{CurrentDelivery, Received};
use crate::envelope::message_id_of;

/// Deliveries whose end is remembered, so that a redelivery after a lost acknowledgement is not handled
/// again by this process.
const REMEMBERED: usize = 4096;

pub(super) type Handler = Arc<dyn Fn(&Message) -> Result<(), HandlerError> + Send + Sync>;

/// What handles which message type.
#[derive(Clone, Default)]
pub(super) struct Handlers {
    pub by_type: HashMap<String, Handler>,
    pub fallback: Option<Handler>,
}

/// A message to handle. The server's credit bounds how many there are.
pub(super) struct Delivery {
    pub id: String,
    pub envelope_json: String,
}

impl Delivery {
    /// Names its message: two deliveries of it have ids of their own.
    fn message(&self) -> String {
        message_id_of(&self.envelope_json).map_or_else(|| self.id.clone(), |id| id.to_string())
    }
}

#[derive(Default)]
struct Work {
    waiting: VecDeque<(Delivery, CurrentDelivery)>,
    /// Messages that wait or run, and the id of the newest delivery of each: the one that counts.
    taken: HashMap<String, CurrentDelivery>,
    /// Messages that were handled, oldest first, and the same for looking up.
    done: VecDeque<String>,
    is_done: HashSet<String>,
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
pub(super) struct Pool {
    board: Arc<Board>,
    threads: Vec<JoinHandle<()>>,
}

/// Where the stream puts deliveries.
#[derive(Clone)]
pub(super) struct Intake {
    board: Arc<Board>,
}

/// What becomes of a delivery that has just arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A handler will run.
    Queued,
    /// A handler is at it already: it acknowledges when it is done.
    Running,
    /// A handler has finished it; only the acknowledgement was lost.
    Done,
    /// The agent is stopping: the server delivers it elsewhere.
    Declined,
}

impl Intake {
    pub(super) fn take(&self, delivery: Delivery) -> Taken {
        let mut work = self.board.lock();
        let message = delivery.message();
        if work.is_done.contains(&message) {
            return Taken::Done;
        }
        if let Some(current) = work.taken.get(&message) {
            current.set(delivery.id);
            return Taken::Running;
        }
        if work.stopping {
            return Taken::Declined;
        }
        let current = CurrentDelivery::new(delivery.id.clone());
        drop(work.taken.insert(message, current.clone()));
        work.waiting.push_back((delivery, current));
        self.board.changed.notify_one();
        Taken::Queued
    }
}

impl Pool {
    pub(super) fn start(
        threads: usize,
        handlers: Handlers,
        calls: &Arc<Calls>,
        outbox: &Outbox,
    ) -> std::io::Result<Self> {
        let board = Arc::new(Board { work: Mutex::default(), changed: Condvar::new() });
        let mut pool = Self { board, threads: Vec::with_capacity(threads) };
        for index in 0..threads {
            let worker = Worker {
                board: pool.board.clone(),
                handlers: handlers.clone(),
                calls: calls.clone(),
                outbox: outbox.clone(),
            };
            let thread =
                std::thread::Builder::new().name(format!("handler-{index}")).spawn(move || worker.run())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(super) fn intake(&self) -> Intake {
        Intake { board: self.board.clone() }
    }

    /// Lets what has arrived be handled, until `give_up`; then the threads end when their handler does.
    pub(super) fn drain(&mut self, give_up: Instant) {
        let mut work = self.board.lock();
        work.stopping = true;
        while work.running > 0 || !work.waiting.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!(
                    code = "messages_unhandled", count = work.taken.len();
                    "{} messages were not handled before the agent stopped", work.taken.len()
                );
                break;
            }
            work = self.board.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        work.closed = true;
        let idle = work.running == 0;
        drop(work);
        self.board.changed.notify_all();
        if idle {
            for thread in self.threads.drain(..) {
                drop(thread.join());
            }
        }
    }
}

struct Worker {
    board: Arc<Board>,
    handlers: Handlers,
    calls: Arc<Calls>,
    outbox: Outbox,
}

impl Worker {
    fn run(&self) {
        while let Some((delivery, current)) = self.next() {
            let outcome = self.handle(&delivery, &current);
            let message = delivery.message();
            let mut work = self.board.lock();
            work.running -= 1;
            drop(work.taken.remove(&message));
            if outcome.is_ok() {
                if work.done.len() == REMEMBERED
                    && let Some(oldest) = work.done.pop_front()
                {
                    let _ = work.is_done.remove(&oldest);
                }
                work.done.push_back(message.clone());
                let _ = work.is_done.insert(message);
            }
            drop(work);
            match outcome {
                Ok(()) => self.outbox.ack(current.get()),
                Err(HandlerError::Retry(reason)) => self.outbox.nack(current.get(), reason, true),
                Err(HandlerError::Reject(reason)) => self.outbox.nack(current.get(), reason, false),
            }
            self.board.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(Delivery, CurrentDelivery)> {
        let mut work = self.board.lock();
        loop {
            if work.closed {
                return None;
            }
            if let Some(delivery) = work.waiting.pop_front() {
                work.running += 1;
                return Some(delivery);
            }
            work = self.board.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn handle(&self, delivery: &Delivery, current: &CurrentDelivery) -> Result<(), HandlerError> {
        let received = Received::parse(current.clone(), &delivery.envelope_json)
            .map_err(|error| HandlerError::reject(format!("handler_error:envelope:{error}")))?;
        let message = Message::new(received, &self.calls);
        let handler = self.handlers.by_type.get(message.message_type()).or(self.handlers.fallback.as_ref());
        let Some(handler) = handler else {
            return Err(HandlerError::reject(format!("no_handler:{}", message.message_type())));
        };
        let agent = self.calls.session.agent_id();
        let mut operation = self.calls.tracing.processing(&agent, message.received());
        let outcome = {
            let _entered = operation.enter();
            match catch_unwind(AssertUnwindSafe(|| handler(&message))) {
                Ok(outcome) => outcome,
                Err(_) => Err(HandlerError::reject("handler_error:panic")),
            }
        };
        operation.settled(&outcome);
        outcome
    }
}
