//! Calls on the stream: cheaper than unary calls, where the server offers it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use grpcio::RpcStatusCode;

use super::error::{Failure, classify_status};
use super::outbox::Outbox;
use super::receipts::Receipts;
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{Submission, SubmissionResult, Submit};

/// Calls that wait for their results on the stream.
#[derive(Default)]
pub(super) struct Submissions {
    next: AtomicU64,
    /// How many may be under way; 0: the server does not offer it.
    credit: AtomicUsize,
    waiting: Mutex<HashMap<u64, Sender<SubmissionResult>>>,
    receipts: Receipts,
}

impl Submissions {
    /// `receipts`: who keeps what the results carry.
    pub(super) fn new(receipts: Receipts) -> Self {
        Self { receipts, ..Self::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Sender<SubmissionResult>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session opened on which so many calls may be under way.
    pub(super) fn opened(&self, credit: usize) {
        self.credit.store(credit, Ordering::Relaxed);
    }

    /// The stream is over: nobody knows what became of what was under way.
    pub(super) fn lost(&self) {
        self.credit.store(0, Ordering::Relaxed);
        self.waiting().clear();
    }

    /// Results arrived.
    pub(super) fn answered(&self, results: Vec<SubmissionResult>) {
        let mut waiting = self.waiting();
        for result in results {
            if let Some(sender) = waiting.remove(&result.reference) {
                // Whoever waited may have given up just now.
                let _ = sender.try_send(result);
            }
        }
    }

    /// Makes a call on the stream; `None` where it is not to be had now.
    pub(super) fn call(
        &self,
        outbox: &Outbox,
        call: impl FnOnce() -> Call,
        give_up: Instant,
    ) -> Option<Result<Outcome, Failure>> {
        let reference = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = bounded(1);
        {
            let mut waiting = self.waiting();
            if waiting.len() >= self.credit.load(Ordering::Relaxed) {
                return None;
            }
            let _ = waiting.insert(reference, sender);
        }
        let submission = Submission { reference, call: Some(call()), ..Submission::default() };
        let submit = Submit { submissions: vec![submission], ..Submit::default() };
        if !outbox.send(ClientEventKind::Submit(submit)) {
            let _ = self.waiting().remove(&reference);
            return None;
        }
        let result = receiver.recv_deadline(give_up);
        let _ = self.waiting().remove(&reference);
        if let Ok(SubmissionResult { outcome: Some(outcome), .. }) = &result {
            self.receipts.keep_outcome(outcome);
        }
        Some(match result {
            Ok(SubmissionResult { outcome: Some(Outcome::Failure(failure)), .. }) => {
                Err(classify_status(RpcStatusCode::from(failure.code), failure.detail))
            }
            Ok(SubmissionResult { outcome: Some(outcome), .. }) => Ok(outcome),
            Ok(SubmissionResult { outcome: None, .. }) => {
                Err(Failure::Unknown("the server answered with nothing".to_owned()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Unknown("the stream was lost before the answer".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => Err(Failure::Unknown("no answer in time".to_owned())),
        })
    }
}
