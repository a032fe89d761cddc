//! What waits to be written on one session's stream: filled by workers, emptied as a whole by the stream's
//! writer. Filling and waking are two steps, so that a worker fills during a round and wakes each writer once,
//! at its end: a wake-up costs more than the messages that it is for. Hot path.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::delivery::DeliveryId;
use super::outcome::Outcome;
use crate::refusal::Refusal;
use crate::store::news::Unanswered;

/// What goes out on a session's stream.
#[derive(Debug)]
pub enum Outbound {
    /// The session is open.
    Welcome,
    /// A message.
    Delivery {
        /// Its id.
        id: DeliveryId,
        /// Which delivery of the message it is, from 1.
        attempt: u32,
        /// The envelope's JSON text.
        envelope: String,
    },
    /// The outcome of a submission.
    Result {
        /// The client's name for it.
        reference: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// No reply will come to a request of this instance's.
    RequestFailed(Unanswered),
    /// The stream ends: in order, or with a refusal.
    End(Option<Refusal>),
}

/// The queue between workers and a stream's writer.
#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Vec<Outbound>,
    /// Whether somebody has undertaken to wake the writer for what waits.
    announced: bool,
    closed: bool,
    writer: Option<Waker>,
}

impl Outbox {
    /// Adds an item, unless the outbox is closed. True where the caller must see to it that
    /// [`wake`](Self::wake) is called; false where somebody who came before does.
    #[must_use]
    pub fn push(&self, item: Outbound) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.waiting.push(item);
        !std::mem::replace(&mut inner.announced, true)
    }

    /// Nothing more is added; what waits is still written.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// Wakes the writer.
    pub fn wake(&self) {
        let writer = self.lock().writer.take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Takes everything that waits, into an empty list that is used over and over; false once the outbox is
    /// closed and empty.
    pub fn poll_take(&self, into: &mut Vec<Outbound>, context: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.lock();
        if inner.waiting.is_empty() {
            if inner.closed {
                return Poll::Ready(false);
            }
            inner.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut inner.waiting, into);
        inner.announced = false;
        Poll::Ready(true)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in the critical sections can panic halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_those_who_fill_wakes_and_the_writer_gets_all() {
        let outbox = Outbox::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut taken = Vec::new();
        assert!(outbox.poll_take(&mut taken, &mut context).is_pending());
        assert!(outbox.push(Outbound::Welcome));
        assert!(!outbox.push(Outbound::End(None)));
        assert_eq!(outbox.poll_take(&mut taken, &mut context), Poll::Ready(true));
        assert_eq!(taken.len(), 2);
        taken.clear();
        assert!(outbox.push(Outbound::Welcome), "what comes after the writer has looked is announced anew");
        outbox.close();
        assert!(!outbox.push(Outbound::Welcome));
        assert_eq!(outbox.poll_take(&mut taken, &mut context), Poll::Ready(true));
        taken.clear();
        assert_eq!(outbox.poll_take(&mut taken, &mut context), Poll::Ready(false));
    }
}
