//! The unary calls, each bounded in time, repeated where the server says that nothing happened.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use grpcio::{CallOption, Client, Method};

use super::answers::{Committed, Peer};
use super::error::{AgentError, Failure, classify};
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::received::Received;
use super::submit::Submissions;
use super::tracing::{Operation, Tracing};
use crate::protocol;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{
    Commit, DiscoverRequest, GetStateRequest, RUNTIME_V1, ReplyRequest, RequestRequest, ResetStateRequest,
    SendRequest, SubmissionResult, UpdateStateRequest,
};

/// Wait before a refused call is tried again; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_millis(500);
/// Replies that arrived before their request's call returned: how many are kept, and for how long. What
/// is older answers a request that was given up.
const MAX_EARLY_REPLIES: usize = 256;
const EARLY_REPLY_AGE: Duration = Duration::from_secs(10);
/// Longest wait for anything: keeps deadlines computable.
const MAX_WAIT: Duration = Duration::from_secs(365 * 86_400);

/// The session as callers see it.
pub(super) struct Session {
    pub instance: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    agent_id: String,
    open: bool,
    stopping: bool,
    /// Why it is not open, as far as known.
    problem: String,
    /// A refusal that connecting again will not change.
    fatal: Option<(String, String)>,
}

impl Session {
    pub(super) fn new(instance: String) -> Self {
        Self { instance, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn opened(&self, agent_id: String) {
        let mut state = self.lock();
        state.agent_id = agent_id;
        state.open = true;
        self.changed.notify_all();
    }

    pub(super) fn lost(&self, problem: String) {
        let mut state = self.lock();
        state.open = false;
        state.problem = problem;
        self.changed.notify_all();
    }

    pub(super) fn refused(&self, code: String, detail: String) {
        let mut state = self.lock();
        state.open = false;
        state.fatal = Some((code, detail));
        self.changed.notify_all();
    }

    pub(super) fn begin_stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    pub(super) fn agent_id(&self) -> String {
        self.lock().agent_id.clone()
    }

    /// Waits `pause`, less when the agent is stopping meanwhile.
    pub(super) fn pause(&self, pause: Duration) {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.stopping);
        drop(waited);
    }

    /// Waits until the session is open.
    pub(super) fn wait_open(&self, give_up: Instant) -> Result<(), AgentError> {
        let mut state = self.lock();
        loop {
            if state.open {
                return Ok(());
            }
            if state.stopping {
                return Err(AgentError::NotConnected("the agent is stopping".to_owned()));
            }
            if let Some((code, detail)) = &state.fatal {
                return Err(AgentError::Refused { code: code.clone(), detail: detail.clone() });
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AgentError::NotConnected(state.problem.clone()));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A result of another kind than the call.
const FOREIGN: &str = "the server answered something else";

/// A key under which a call may be repeated.
fn new_key() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// What the server says of a message that it has taken.
struct Accepted {
    message_id: String,
    correlation_id: String,
    receipt: Option<protocol::Receipt>,
}

fn accepted(result: SubmissionResult) -> Option<Accepted> {
    let (message_id, correlation_id, receipt) = match result.outcome? {
        Outcome::Send(response) => (response.message_id, String::new(), response.receipt),
        Outcome::Request(response) => (response.message_id, response.correlation_id, response.receipt),
        Outcome::Reply(response) => (response.message_id, String::new(), response.receipt),
        Outcome::Commit(_) | Outcome::Failure(_) => return None,
    };
    Some(Accepted { message_id, correlation_id, receipt: receipt.into_option() })
}

/// The calls of one agent.
pub(super) struct Calls {
    pub client: Client,
    pub session: Session,
    pub call_timeout: Duration,
    pub submissions: Submissions,
    pub tracing: Tracing,
    receipts: Receipts,
    outbox: Outbox,
    waiting: Mutex<Waiting>,
}

/// Requests that wait for their replies.
#[derive(Default)]
struct Waiting {
    by_correlation: HashMap<String, Sender<Received>>,
    early: VecDeque<(Instant, Received)>,
}

impl Calls {
    pub(super) fn new(
        client: Client,
        instance: String,
        call_timeout: Duration,
        (outbox, receipts, tracing): (Outbox, Receipts, Tracing),
    ) -> Self {
        Self {
            client,
            session: Session::new(instance),
            call_timeout,
            submissions: Submissions::new(receipts.clone()),
            receipts,
            tracing,
            outbox,
            waiting: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call, again while the server says that nothing happened.
    fn call<Q, R: Unpin>(&self, method: &Method<Q, R>, request: &Q) -> Result<R, AgentError> {
        let give_up = Instant::now() + self.call_timeout.min(MAX_WAIT);
        self.until(give_up, false, |left| self.unary(method, request, left))
    }

    fn unary<Q, R: Unpin>(&self, method: &Method<Q, R>, request: &Q, left: Duration) -> Result<R, Failure> {
        let option = CallOption::default().timeout(left.max(RETRY_FIRST));
        self.client.unary_call(method, request, option).map_err(|error| {
            self.receipts.keep_refusal(&error);
            classify(error)
        })
    }

    /// Tries until `give_up`; `repeatable`: also when an attempt may have happened.
    fn until<R>(
        &self,
        give_up: Instant,
        repeatable: bool,
        attempt: impl Fn(Duration) -> Result<R, Failure>,
    ) -> Result<R, AgentError> {
        let mut pause = RETRY_FIRST;
        let mut unknown = None;
        loop {
            // An attempt that may have happened must not be reported as one that did not.
            let lost = |error: AgentError, unknown: Option<String>| match unknown {
                Some(problem) => AgentError::Unknown(problem),
                None => error,
            };
            self.session.wait_open(give_up).map_err(|error| lost(error, unknown.clone()))?;
            let left = give_up.saturating_duration_since(Instant::now());
            let problem = match attempt(left) {
                Ok(response) => return Ok(response),
                Err(Failure::Retry(problem)) => problem,
                Err(Failure::NoSession) => "session_not_connected".to_owned(),
                Err(Failure::Unknown(problem)) if repeatable => {
                    unknown = Some(problem.clone());
                    problem
                }
                Err(Failure::Unknown(problem)) => return Err(AgentError::Unknown(problem)),
                Err(Failure::Final(error)) => return Err(error),
            };
            if Instant::now() + pause >= give_up {
                return Err(lost(AgentError::NotConnected(problem), unknown));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    pub(super) fn send(
        &self,
        target: &str,
        message_type: &str,
        data_json: &str,
    ) -> Result<String, AgentError> {
        let mut operation = self.tracing.sending("send", target, "", false);
        let (traceparent, tracestate) = operation.headers();
        let request = SendRequest {
            traceparent,
            tracestate,
            target_id: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: data_json.to_owned(),
            instance_id: self.session.instance.clone(),
            idempotency_key: new_key(),
            ..SendRequest::new()
        };
        let give_up = Instant::now() + self.call_timeout.min(MAX_WAIT);
        let response = self.until(give_up, true, |left| {
            let submit = || Call::Send(request.clone());
            match self.submissions.call(&self.outbox, submit, Instant::now() + left) {
                Some(Ok(Outcome::Send(response))) => Ok(response),
                Some(Ok(_)) => Err(Failure::Unknown(FOREIGN.to_owned())),
                Some(Err(failure)) => Err(failure),
                None => self.unary(&RUNTIME_V1.send.client, &request, left).inspect(|response| {
                    self.receipts.keep(response.receipt.as_ref(), &response.message_id);
                }),
            }
        });
        let response = response.inspect_err(|error| operation.failed(error))?;
        operation.accepted(&response.message_id, "", response.receipt.as_ref());
        Ok(response.message_id)
    }

    /// Applies a commit, which only the stream carries. Not repeated where its outcome is unknown: the
    /// message comes again if it did not happen.
    pub(super) fn commit(&self, mut commit: Commit, sender: &str) -> Result<Committed, AgentError> {
        let give_up = Instant::now() + self.call_timeout.min(MAX_WAIT);
        let mut operations: Vec<Operation<'_>> = commit
            .messages
            .iter_mut()
            .filter_map(|message| self.collected(message.call.as_mut()?, sender))
            .collect();
        let done = self.until(give_up, false, |left| {
            let submit = || Call::Commit(commit.clone());
            match self.submissions.call(&self.outbox, submit, Instant::now() + left) {
                Some(Ok(Outcome::Commit(done))) => Ok(done),
                Some(Ok(_)) => Err(Failure::Unknown(FOREIGN.to_owned())),
                Some(Err(failure)) => Err(failure),
                None => Err(Failure::Retry("the stream takes no commit now".to_owned())),
            }
        });
        let done =
            done.inspect_err(|error| operations.iter_mut().for_each(|operation| operation.failed(error)))?;
        let accepted: Vec<Accepted> = done.results.into_iter().filter_map(accepted).collect();
        for (operation, one) in operations.iter_mut().zip(&accepted) {
            operation.accepted(&one.message_id, &one.correlation_id, one.receipt.as_ref());
        }
        let message_ids = accepted.into_iter().map(|one| one.message_id).collect();
        Ok(Committed { message_ids, version: done.version })
    }

    /// A message of a commit: none is the parent of another. `sender`: of what is answered.
    fn collected(&self, call: &mut Call, sender: &str) -> Option<Operation<'_>> {
        let (operation, traceparent, tracestate) = match call {
            Call::Send(request) => (
                self.tracing.sending("send", &request.target_id, "", false),
                &mut request.traceparent,
                &mut request.tracestate,
            ),
            Call::Request(request) => (
                self.tracing.sending("request", &request.target_id, "", false),
                &mut request.traceparent,
                &mut request.tracestate,
            ),
            Call::Reply(request) => (
                self.tracing.sending("reply", sender, &request.correlation_id, false),
                &mut request.traceparent,
                &mut request.tracestate,
            ),
            Call::Commit(_) => return None,
        };
        (*traceparent, *tracestate) = operation.headers();
        Some(operation)
    }

    pub(super) fn request(
        &self,
        target: &str,
        message_type: &str,
        data_json: &str,
        timeout: Duration,
    ) -> Result<Received, AgentError> {
        let started = Instant::now();
        let give_up = started + timeout.min(MAX_WAIT);
        let mut operation = self.tracing.sending("request", target, "", true);
        let (traceparent, tracestate) = operation.headers();
        let request = RequestRequest {
            traceparent,
            tracestate,
            target_id: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: data_json.to_owned(),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            instance_id: self.session.instance.clone(),
            idempotency_key: new_key(),
            ..RequestRequest::new()
        };
        let asked = self.until(give_up.min(started + self.call_timeout), true, |left| {
            let submit = || Call::Request(request.clone());
            match self.submissions.call(&self.outbox, submit, Instant::now() + left) {
                Some(Ok(Outcome::Request(response))) => Ok(response),
                Some(Ok(_)) => Err(Failure::Unknown(FOREIGN.to_owned())),
                Some(Err(failure)) => Err(failure),
                None => self.unary(&RUNTIME_V1.request.client, &request, left).inspect(|response| {
                    self.receipts.keep(response.receipt.as_ref(), &response.message_id);
                }),
            }
        });
        let asked = asked.inspect_err(|error| operation.failed(error))?;
        operation.accepted(&asked.message_id, &asked.correlation_id, asked.receipt.as_ref());
        let reply = self.await_reply(asked.correlation_id, timeout, give_up);
        match &reply {
            Ok(reply) => operation.answered(&self.session.agent_id(), reply),
            Err(error) => operation.failed(error),
        }
        reply
    }

    fn await_reply(
        &self,
        correlation_id: String,
        timeout: Duration,
        give_up: Instant,
    ) -> Result<Received, AgentError> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        {
            let mut waiting = self.waiting();
            let early = |(_, reply): &(Instant, Received)| reply.correlation_id() == Some(&correlation_id);
            if let Some(at) = waiting.early.iter().position(early)
                && let Some((_, reply)) = waiting.early.remove(at)
            {
                return Ok(reply);
            }
            let _ = waiting.by_correlation.insert(correlation_id.clone(), sender);
        }
        let reply = receiver.recv_deadline(give_up);
        let _ = self.waiting().by_correlation.remove(&correlation_id);
        reply.map_err(|_| AgentError::NoReply(timeout))
    }

    /// A reply arrived; its request may still be on its way back from the server.
    pub(super) fn replied(&self, reply: Received) {
        let mut waiting = self.waiting();
        let sender = reply.correlation_id().and_then(|id| waiting.by_correlation.remove(id));
        match sender {
            // The requester may have given up just now.
            Some(sender) => drop(sender.try_send(reply)),
            None => {
                let stale = |(arrived, _): &(Instant, Received)| arrived.elapsed() > EARLY_REPLY_AGE;
                while waiting.early.len() == MAX_EARLY_REPLIES || waiting.early.front().is_some_and(stale) {
                    drop(waiting.early.pop_front());
                }
                waiting.early.push_back((Instant::now(), reply));
            }
        }
    }

    pub(super) fn reply(
        &self,
        target: &str,
        correlation_id: &str,
        message_type: &str,
        data_json: &str,
    ) -> Result<String, AgentError> {
        let mut operation = self.tracing.sending("reply", target, correlation_id, false);
        let (traceparent, tracestate) = operation.headers();
        let request = ReplyRequest {
            traceparent,
            tracestate,
            correlation_id: correlation_id.to_owned(),
            message_type: message_type.to_owned(),
            data_json: data_json.to_owned(),
            instance_id: self.session.instance.clone(),
            ..ReplyRequest::new()
        };
        let give_up = Instant::now() + self.call_timeout.min(MAX_WAIT);
        let response = self.until(give_up, false, |left| {
            let submit = || Call::Reply(request.clone());
            match self.submissions.call(&self.outbox, submit, Instant::now() + left) {
                Some(Ok(Outcome::Reply(response))) => Ok(response),
                Some(Ok(_)) => Err(Failure::Unknown(FOREIGN.to_owned())),
                Some(Err(failure)) => Err(failure),
                None => self.unary(&RUNTIME_V1.reply.client, &request, left).inspect(|response| {
                    self.receipts.keep(response.receipt.as_ref(), &response.message_id);
                }),
            }
        });
        let response = response.inspect_err(|error| operation.failed(error))?;
        operation.accepted(&response.message_id, "", response.receipt.as_ref());
        Ok(response.message_id)
    }

    pub(super) fn discover(&self, capabilities: &[&str]) -> Result<Vec<Peer>, AgentError> {
        let request = DiscoverRequest {
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
            ..DiscoverRequest::new()
        };
        let response = self.call(&RUNTIME_V1.discover.client, &request)?;
        response
            .agents
            .into_iter()
            .map(|record| {
                Ok(Peer {
                    metadata: serde_json::from_str(&record.metadata_json).map_err(AgentError::Payload)?,
                    agent_id: record.agent_id,
                    capabilities: record.capabilities,
                    status: record.status,
                })
            })
            .collect()
    }

    pub(super) fn get_state(&self) -> Result<HashMap<String, String>, AgentError> {
        Ok(self.call(&RUNTIME_V1.get_state.client, &GetStateRequest::new())?.state)
    }

    pub(super) fn update_state(&self, updates: &[(&str, &str)]) -> Result<(), AgentError> {
        let request = UpdateStateRequest {
            updates: updates.iter().map(|&(field, value)| (field.to_owned(), value.to_owned())).collect(),
            ..UpdateStateRequest::new()
        };
        self.call(&RUNTIME_V1.update_state.client, &request).map(drop)
    }

    pub(super) fn reset_state(&self) -> Result<(), AgentError> {
        self.call(&RUNTIME_V1.reset_state.client, &ResetStateRequest::new()).map(drop)
    }
}
