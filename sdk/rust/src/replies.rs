//! Requests that wait for their replies.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::received::Received;

/// Answers that arrived before their request's call returned: how many are kept, and for how long. What
/// is older answers a request that was given up.
const MAX_EARLY: usize = 256;
const EARLY_AGE: Duration = Duration::from_secs(10);

/// What came of a request.
pub(crate) enum Answer {
    Reply(Box<Received>),
    /// No reply will come: why.
    Failed(String),
    /// Nothing, in time.
    Nothing,
}

/// The replies of one agent.
#[derive(Default)]
pub(crate) struct Replies(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    by_correlation: HashMap<String, Sender<Answer>>,
    early: VecDeque<(Instant, String, Answer)>,
}

/// Somebody waits for a reply, until this is dropped.
pub(crate) struct Expected {
    replies: Arc<Replies>,
    correlation_id: String,
    receiver: Receiver<Answer>,
}

impl Replies {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on somebody waits for the reply of this id.
    pub(crate) fn expect(replies: &Arc<Self>, correlation_id: String) -> Expected {
        let (sender, receiver) = bounded(1);
        let mut waiting = replies.lock();
        let early = |(_, id, _): &(Instant, String, Answer)| *id == correlation_id;
        match waiting.early.iter().position(early).and_then(|at| waiting.early.remove(at)) {
            // There is room for one.
            Some((_, _, answer)) => drop(sender.try_send(answer)),
            None => drop(waiting.by_correlation.insert(correlation_id.clone(), sender)),
        }
        waiting.forget_stale();
        drop(waiting);
        Expected { replies: replies.clone(), correlation_id, receiver }
    }

    /// A reply has come; its request may still be on its way back from the server.
    pub(crate) fn came(&self, reply: Received) {
        let correlation_id = reply.correlation_id().unwrap_or_default().to_owned();
        self.answered(correlation_id, Answer::Reply(Box::new(reply)));
    }

    /// No reply will come.
    pub(crate) fn failed(&self, correlation_id: String, reason: String) {
        self.answered(correlation_id, Answer::Failed(reason));
    }

    fn answered(&self, correlation_id: String, answer: Answer) {
        let mut waiting = self.lock();
        match waiting.by_correlation.remove(&correlation_id) {
            // The requester may have given up just now.
            Some(sender) => drop(sender.try_send(answer)),
            None => {
                if waiting.early.len() == MAX_EARLY {
                    drop(waiting.early.pop_front());
                }
                waiting.early.push_back((Instant::now(), correlation_id, answer));
            }
        }
        waiting.forget_stale();
    }
}

impl Waiting {
    /// Those answer requests that were given up.
    fn forget_stale(&mut self) {
        while self.early.front().is_some_and(|(arrived, ..)| arrived.elapsed() > EARLY_AGE) {
            if let Some((_, id, Answer::Reply(_))) = self.early.pop_front() {
                log::warn!(code = "reply_late"; "nobody waits any more for the reply to {id}");
            }
        }
    }
}

impl Expected {
    /// What comes until `give_up`.
    pub(crate) fn wait(&self, give_up: Instant) -> Answer {
        self.receiver.recv_deadline(give_up).unwrap_or(Answer::Nothing)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let _ = self.replies.lock().by_correlation.remove(&self.correlation_id);
    }
}
