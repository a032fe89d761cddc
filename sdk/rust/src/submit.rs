//! Calls on the stream: cheaper than unary calls, where the server offers it.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::failure::{Failure, of_submission};
use crate::outbox::Outbox;
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{Submission, SubmissionResult, Submit};
use crate::receipts::Receipts;

/// Calls that wait for their results on the stream.
pub(crate) struct Submissions {
    state: Mutex<State>,
    /// A result has come, or the stream is another one.
    changed: Condvar,
    receipts: Receipts,
    /// Calls under way at a time, whatever more the server allows.
    max_calls: usize,
}

#[derive(Default)]
struct State {
    next: u64,
    /// How many may be under way; 0: there is no stream, or its server does not offer it.
    credit: usize,
    waiting: HashMap<u64, Sender<SubmissionResult>>,
    /// Calls that wait until there is room for them.
    backlog: usize,
}

/// Why a submission has no outcome.
pub(crate) enum NoOutcome {
    /// The stream takes none now; nothing was sent.
    NotTaken,
    /// It failed.
    Failed(Failure),
}

impl Submissions {
    /// `receipts`: who keeps what the results carry.
    pub(crate) fn new(receipts: Receipts, max_calls: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), receipts, max_calls }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session opened on which so many calls may be under way.
    pub(crate) fn opened(&self, credit: usize) {
        self.lock().credit = credit.min(self.max_calls);
        self.changed.notify_all();
    }

    /// The stream is over: nobody knows what became of what was under way.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        state.credit = 0;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Results arrived.
    pub(crate) fn answered(&self, results: Vec<SubmissionResult>) {
        let mut state = self.lock();
        for result in results {
            if let Some(sender) = state.waiting.remove(&result.reference) {
                // Whoever waited may have given up just now.
                let _ = sender.try_send(result);
            }
        }
        let anybody = state.backlog > 0;
        drop(state);
        if anybody {
            self.changed.notify_all();
        }
    }

    /// Calls that wait in the agent, because as many are under way as the server takes at a time.
    pub(crate) fn backlog(&self) -> usize {
        self.lock().backlog
    }

    /// Waits for a place among the calls under way.
    fn place(&self, give_up: Instant) -> Option<(u64, Receiver<SubmissionResult>)> {
        let mut state = self.lock();
        while state.credit > 0 && state.waiting.len() >= state.credit {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state.backlog += 1;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.backlog -= 1;
        }
        if state.credit == 0 {
            return None;
        }
        let (sender, receiver) = bounded(1);
        state.next += 1;
        let reference = state.next;
        let _ = state.waiting.insert(reference, sender);
        Some((reference, receiver))
    }

    /// Makes a call on the stream; `what`: in words.
    pub(crate) fn call(
        &self,
        what: &str,
        outbox: &Outbox,
        call: impl FnOnce() -> Call,
        give_up: Instant,
    ) -> Result<Outcome, NoOutcome> {
        let (reference, receiver) = self.place(give_up).ok_or(NoOutcome::NotTaken)?;
        let submission = Submission { reference, call: Some(call()), ..Submission::default() };
        let submit = Submit { submissions: vec![submission], ..Submit::default() };
        if !outbox.send(ClientEventKind::Submit(submit)) {
            let _ = self.lock().waiting.remove(&reference);
            return Err(NoOutcome::NotTaken);
        }
        let result = receiver.recv_deadline(give_up);
        // The server counts it until it has answered, so it stays among those under way when nobody waits any more.
        if let Ok(SubmissionResult { outcome: Some(outcome), .. }) = &result {
            self.receipts.keep_outcome(outcome);
        }
        let unknown = |why: &str| Err(NoOutcome::Failed(Failure::Unknown(why.to_owned())));
        match result {
            Ok(SubmissionResult { outcome: Some(Outcome::Failure(failure)), .. }) => {
                Err(NoOutcome::Failed(of_submission(what, failure)))
            }
            Ok(SubmissionResult { outcome: Some(outcome), .. }) => Ok(outcome),
            Ok(SubmissionResult { outcome: None, .. }) => unknown("the server answered with nothing"),
            Err(RecvTimeoutError::Disconnected) => unknown("the stream was lost before the answer"),
            Err(RecvTimeoutError::Timeout) => unknown("no answer in time"),
        }
    }
}
