//! The calls of one agent, each bounded in time, made again where that cannot have a second effect.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grpcio::{CallOption, Method};

use crate::error::AgentError;
use crate::failure::{Failure, of_call};
use crate::outbox::Outbox;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::receipts::Receipts;
use crate::refusal::Refusal;
use crate::replies::Replies;
use crate::session::{Open, Session};
use crate::submit::{NoOutcome, Submissions};
use crate::tracing::Tracing;

/// Wait before a call is made again; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Longest wait for anything: keeps deadlines computable.
const MAX_WAIT: Duration = Duration::from_secs(365 * 86_400);
/// Longest payload of a submission. An event that is longer than the server takes ends the stream; what it takes is
/// configured there, and more than this in any case. What is longer goes by a call of its own.
const MAX_SUBMISSION_BYTES: usize = 64 * 1024;
/// A result of another kind than the call.
const FOREIGN: &str = "the server answered something else";

/// A time so far ahead, at most.
pub(crate) fn from_now(wait: Duration) -> Instant {
    Instant::now() + wait.min(MAX_WAIT)
}

/// What all calls of one agent share.
pub(crate) struct Calls {
    pub session: Session,
    pub call_timeout: Duration,
    /// Sends and requests whose answer was lost are made again, under a key of the library's.
    pub repeat_sends: bool,
    pub submissions: Submissions,
    pub replies: Arc<Replies>,
    pub tracing: Tracing,
    pub outbox: Outbox,
    receipts: Receipts,
    state_turn: (Mutex<bool>, Condvar),
}

/// The turn to change the state, until it is dropped.
pub(crate) struct StateTurn<'a>(&'a Calls);

impl Drop for StateTurn<'_> {
    fn drop(&mut self) {
        let (taken, changed) = &self.0.state_turn;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        changed.notify_one();
    }
}

impl Calls {
    pub(crate) fn new(
        session: Session,
        (call_timeout, repeat_sends): (Duration, bool),
        (submissions, receipts): (Submissions, Receipts),
        tracing: Tracing,
    ) -> Self {
        Self {
            session,
            call_timeout,
            repeat_sends,
            submissions,
            replies: Arc::default(),
            tracing,
            outbox: Outbox::default(),
            receipts,
            state_turn: Default::default(),
        }
    }

    /// Waits for the turn to change the state, among this process's threads, until `give_up`.
    pub(crate) fn state_turn(&self, give_up: Instant) -> Option<StateTurn<'_>> {
        let (taken, changed) = &self.state_turn;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = give_up.saturating_duration_since(Instant::now());
        let waited = changed.wait_timeout_while(taken, left, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!std::mem::replace(&mut *taken, true)).then_some(StateTurn(self))
    }

    /// Makes a call that has no second effect, or none that matters: a read.
    pub(crate) fn read<Q, R: Unpin>(
        &self,
        what: &str,
        method: &Method<Q, R>,
        request: &Q,
        give_up: Instant,
    ) -> Result<R, AgentError> {
        self.until(what, give_up, |_| true, |open| self.unary(what, open, method, request, give_up))
    }

    /// One attempt of a unary call.
    pub(crate) fn unary<Q, R: Unpin>(
        &self,
        what: &str,
        open: &Open,
        method: &Method<Q, R>,
        request: &Q,
        give_up: Instant,
    ) -> Result<R, Failure> {
        let left = give_up.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        open.client.unary_call(method, request, CallOption::default().timeout(left)).map_err(|error| {
            let failure = of_call(what, error);
            if let Failure::Passing(refusal) = &failure {
                self.receipts.keep(refusal.receipt.as_ref());
            }
            if let Failure::Final(error) = &failure {
                self.receipts.keep(error.refusal().and_then(|refusal| refusal.receipt.as_ref()));
            }
            failure
        })
    }

    /// One attempt of a message's call: on the stream where that takes it, by a call of its own otherwise.
    pub(crate) fn message<Q, R: Unpin>(
        &self,
        (what, open, give_up): (&str, &Open, Instant),
        (method, request, bytes): (&Method<Q, R>, &Q, usize),
        submit: impl FnOnce() -> Call,
        answer: impl FnOnce(Outcome) -> Option<R>,
        keep: impl FnOnce(&Receipts, &R),
    ) -> Result<R, Failure> {
        if open.offers.submit && bytes <= MAX_SUBMISSION_BYTES {
            match self.submissions.call(what, &self.outbox, submit, give_up) {
                Ok(outcome) => return answer(outcome).ok_or_else(|| Failure::Unknown(FOREIGN.to_owned())),
                Err(NoOutcome::Failed(failure)) => return Err(failure),
                // Nothing was sent.
                Err(NoOutcome::NotTaken) => return Err(Failure::Passing(Box::new(Refusal::not_taken(what)))),
            }
        }
        let response = self.unary(what, open, method, request, give_up)?;
        keep(&self.receipts, &response);
        Ok(response)
    }

    /// Tries until `give_up`; `repeatable`: whether an attempt whose answer was lost may be made again at this server.
    pub(crate) fn until<R>(
        &self,
        what: &str,
        give_up: Instant,
        repeatable: impl Fn(&Open) -> bool,
        mut attempt: impl FnMut(&Open) -> Result<R, Failure>,
    ) -> Result<R, AgentError> {
        let mut pause = RETRY_FIRST;
        let mut unknown = None;
        loop {
            // An attempt that may have happened must not be reported as one that did not.
            let lost = |error: AgentError, unknown: Option<String>| match unknown {
                Some(reason) => AgentError::Unknown { call: what.to_owned(), reason },
                None => error,
            };
            let open = self.session.wait_open(give_up).map_err(|error| lost(error, unknown.clone()))?;
            if unknown.is_some() && !repeatable(&open) {
                // Another server, which would do it once more.
                return Err(lost(AgentError::NotConnected(String::new()), unknown));
            }
            let (error, wait) = match attempt(&open) {
                Ok(response) => return Ok(response),
                // Of an attempt before it nothing is known, whatever is said of this one.
                Err(Failure::Final(error)) => return Err(lost(error, unknown)),
                Err(Failure::Passing(refusal)) => {
                    let wait = pause.max(refusal.retry_after.unwrap_or_default());
                    (AgentError::Refused(refusal), wait)
                }
                Err(Failure::Unknown(reason)) => {
                    let error = AgentError::Unknown { call: what.to_owned(), reason: reason.clone() };
                    if !repeatable(&open) {
                        return Err(error);
                    }
                    unknown = Some(reason);
                    (error, pause)
                }
            };
            if Instant::now() + wait >= give_up {
                return Err(lost(error, unknown));
            }
            std::thread::sleep(wait);
            pause = (pause * 2).min(RETRY_LAST);
        }
    }
}
