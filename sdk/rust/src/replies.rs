//! Requests that wait for their replies.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::received::Received;

/// Replies that arrived before their request's call returned: how many are kept, and for how long. What
/// is older answers a request that was given up.
const MAX_EARLY: usize = 256;
const EARLY_AGE: Duration = Duration::from_secs(10);

/// The replies of one agent.
#[derive(Default)]
pub(crate) struct Replies(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    by_correlation: HashMap<String, Sender<Received>>,
    early: VecDeque<(Instant, Received)>,
}

/// Somebody waits for a reply, until this is dropped.
pub(crate) struct Expected<'a> {
    replies: &'a Replies,
    correlation_id: String,
    receiver: Receiver<Received>,
}

impl Replies {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody waits for the reply of this id.
    pub(crate) fn expect(&self, correlation_id: String) -> Expected<'_> {
        let (sender, receiver) = bounded(1);
        let mut waiting = self.lock();
        let early = |(_, reply): &(Instant, Received)| reply.correlation_id() == Some(&correlation_id);
        match waiting.early.iter().position(early).and_then(|at| waiting.early.remove(at)) {
            // There is room for one.
            Some((_, reply)) => drop(sender.try_send(reply)),
            None => drop(waiting.by_correlation.insert(correlation_id.clone(), sender)),
        }
        drop(waiting);
        Expected { replies: self, correlation_id, receiver }
    }

    /// A reply has come; its request may still be on its way back from the server.
    pub(crate) fn came(&self, reply: Received) {
        let mut waiting = self.lock();
        let sender = reply.correlation_id().and_then(|id| waiting.by_correlation.remove(id));
        match sender {
            // The requester may have given up just now.
            Some(sender) => drop(sender.try_send(reply)),
            None => {
                let stale = |(arrived, _): &(Instant, Received)| arrived.elapsed() > EARLY_AGE;
                while waiting.early.len() == MAX_EARLY || waiting.early.front().is_some_and(stale) {
                    drop(waiting.early.pop_front());
                }
                waiting.early.push_back((Instant::now(), reply));
            }
        }
    }
}

impl Expected<'_> {
    /// The reply, if it comes until `give_up`.
    pub(crate) fn wait(&self, give_up: Instant) -> Option<Received> {
        self.receiver.recv_deadline(give_up).ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let _ = self.replies.lock().by_correlation.remove(&self.correlation_id);
    }
}
