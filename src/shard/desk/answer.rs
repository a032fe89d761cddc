//! Where a job's outcome goes: back to a unary call, or onto the session's stream.

use std::sync::Arc;

use super::outbox::Outbound;
use super::outcome::{Declined, Outcome};
use super::session::Session;
use crate::gate::{Answering, Credit};
use crate::refusal::{Kind, Refusal};

/// Where a unary call's outcome goes; with it what counts a large one until it is sent.
pub type Waiting<T> = Box<dyn FnOnce(Result<T, Declined>, Option<Answering>) + Send>;

/// Where a job's outcome goes, and what its caller spends if it is refused.
pub struct Answer<T> {
    to: To<T>,
    credit: Credit,
}

/// Where a job's outcome goes.
enum To<T> {
    /// To a unary call.
    Call(Waiting<T>),
    /// To the session that submitted it.
    Stream {
        /// Which.
        session: Arc<Session>,
        /// The client's name for it.
        reference: u64,
        /// What the result is called on the stream.
        name: fn(T) -> Outcome,
    },
}

impl<T> Answer<T> {
    /// To a unary call.
    pub fn call(answer: Waiting<T>, credit: Credit) -> Self {
        Self { to: To::Call(answer), credit }
    }

    /// To the session that submitted it under that reference.
    pub fn stream(session: Arc<Session>, reference: u64, name: fn(T) -> Outcome, credit: Credit) -> Self {
        Self { to: To::Stream { session, reference, name }, credit }
    }

    /// Tells of a change that happened: that it lasts only where that is `assured`. See [`put`](Self::put).
    #[must_use]
    pub fn done(self, done: T, assured: bool) -> Option<Arc<Session>> {
        self.put(if assured { Ok(done) } else { Err(Refusal::COMMIT_UNKNOWN.into()) })
    }

    /// Room for an answer of so many bytes; `None` where too much is on its way to that identity already.
    pub fn reserve(&self, bytes: usize) -> Option<Answering> {
        self.credit.answering(bytes as u64)
    }

    /// Tells whoever asked; what was reserved is given back once it is sent.
    #[must_use]
    pub fn put_large(self, done: T, answering: Answering) -> Option<Arc<Session>> {
        match self.to {
            To::Call(answer) => {
                answer(Ok(done), Some(answering));
                None
            }
            to @ To::Stream { .. } => Self { to, credit: self.credit }.put(Ok(done)),
        }
    }

    /// Tells whoever asked.
    pub fn send(self, result: Result<T, Declined>) {
        if let Some(session) = self.put(result) {
            session.outbox.wake();
        }
    }

    /// Tells whoever asked; a caller that is gone needs no answer. The session that comes back still has to be
    /// woken: a worker does that once for all that it has for it.
    #[must_use]
    pub fn put(self, result: Result<T, Declined>) -> Option<Arc<Session>> {
        // What fails for the server's sake costs the caller nothing.
        match result.as_ref().map_err(|declined| declined.refusal) {
            Ok(_) | Err(Refusal::STORAGE_FULL | Refusal::AUDIT_FULL) => {}
            Err(refusal) => match refusal.kind {
                Kind::Unavailable => {}
                Kind::Aborted => self.credit.spend_one(),
                _ => self.credit.spend(),
            },
        }
        match self.to {
            To::Call(answer) => {
                answer(result, None);
                None
            }
            To::Stream { session, reference, name } => {
                let outcome = match result {
                    Ok(success) => name(success),
                    Err(declined) => Outcome::Declined(declined),
                };
                let unannounced = session.outbox.push(Outbound::Result { reference, outcome });
                unannounced.then_some(session)
            }
        }
    }
}
