//! One handler's work, whole: acknowledgement, state and messages in one transaction.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::calls::from_now;
use crate::error::{AgentError, NoReply};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::message::Message;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{
    Commit as Wire, CommitResponse, ReplyRequest, RequestRequest, SendRequest, Submission,
};
use crate::receipts::Sent;
use crate::refusal::Refusal;
use crate::replies::{Answer, Expected, Replies};
use crate::reply::is_late;
use crate::session::Offers;
use crate::submit::NoOutcome;
use crate::tracing::Operation;
use crate::wire::{in_words, timeout_ms, to_json};

/// Longest event with a commit, which has no other way than the stream, where the server does not say how long one may be.
const MAX_EVENT_BYTES: u32 = 1024 * 1024;
/// What an event has around its commit: a reference, and lengths.
const EVENT_BYTES: u64 = 64;

/// What is to happen together, or not at all. From [`Message::commit`] and [`Handle::commit`].
#[must_use = "nothing happens before `apply`"]
pub struct Commit {
    agent: Handle,
    message: Option<Message>,
    wire: Wire,
    /// Of its requests, in their order.
    waits: Vec<Duration>,
}

impl Handle {
    /// Begins state and messages as one step, without a message that was handled.
    pub fn commit(&self) -> Commit {
        Commit::new(self, None)
    }
}

impl Message {
    /// Begins what this handler wants to happen as a whole: its acknowledgement, changes of the state,
    /// messages. A handler whose commit succeeded returns `Ok` as usual.
    pub fn commit(&self) -> Commit {
        Commit::new(self.agent(), Some(self))
    }
}

impl Commit {
    fn new(agent: &Handle, message: Option<&Message>) -> Self {
        let delivery_id = message.map(|message| message.received.delivery.get()).unwrap_or_default();
        let wire = Wire { delivery_id, ..Wire::default() };
        Self { agent: agent.clone(), message: message.cloned(), wire, waits: Vec::new() }
    }

    /// Sets a field of this agent's state.
    pub fn set(mut self, field: &str, value: &str) -> Self {
        let _ = self.wire.updates.insert(field.to_owned(), value.to_owned());
        self
    }

    /// Only if the state has this version; otherwise the commit is refused as `version_mismatch`.
    pub fn expect_version(mut self, version: u64) -> Self {
        self.wire.expected_version = Some(version);
        self
    }

    /// Sends a message.
    pub fn send<T: Serialize + ?Sized>(
        mut self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<Self, AgentError> {
        self.push(Call::Send(SendRequest {
            target_id: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: to_json(data)?,
            ..SendRequest::default()
        }));
        Ok(self)
    }

    /// Sends a request, whose reply can be waited for once it is committed: [`Committed::replies`].
    pub fn request<T: Serialize + ?Sized>(
        mut self,
        target: &str,
        message_type: &str,
        data: &T,
        timeout: Duration,
    ) -> Result<Self, AgentError> {
        self.push(Call::Request(RequestRequest {
            target_id: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: to_json(data)?,
            timeout_ms: timeout_ms(timeout),
            ..RequestRequest::default()
        }));
        self.waits.push(timeout);
        Ok(self)
    }

    /// Answers the request that is handled, once. Where nobody waits for the reply any more, the rest is committed without it.
    pub fn reply<T: Serialize + ?Sized>(mut self, message_type: &str, data: &T) -> Result<Self, AgentError> {
        let Some(message) = &self.message else {
            return Err(AgentError::Setup("a commit without a message has nothing to reply to".to_owned()));
        };
        if self.has_reply() {
            return Err(AgentError::Setup("this commit answers its message already".to_owned()));
        }
        let request = ReplyRequest {
            correlation_id: message.reply_to()?.to_owned(),
            message_type: message_type.to_owned(),
            data_json: to_json(data)?,
            ..ReplyRequest::default()
        };
        self.push(Call::Reply(request));
        Ok(self)
    }

    /// Has it done. When this returns an error, nothing of it was done, except where the outcome is
    /// unknown; the message is then still to be handled.
    pub fn apply(mut self) -> Result<Committed, AgentError> {
        let give_up = from_now(self.agent.calls.call_timeout);
        let done = match self.attempt(give_up) {
            Err(error) if is_late(&error) && self.drop_reply() => {
                log::warn!(code = "reply_late"; "nobody waits any more for the reply of a commit: it is committed without it");
                self.attempt(give_up)?
            }
            done => done?,
        };
        if let Some(message) = &self.message {
            message.received.set_committed();
        }
        Ok(self.committed(done))
    }

    fn has_reply(&self) -> bool {
        self.wire.messages.iter().any(|message| matches!(message.call, Some(Call::Reply(_))))
    }

    /// Takes the reply out; whether there was one.
    fn drop_reply(&mut self) -> bool {
        let before = self.wire.messages.len();
        self.wire.messages.retain(|message| !matches!(message.call, Some(Call::Reply(_))));
        self.wire.messages.len() < before
    }

    fn attempt(&mut self, give_up: Instant) -> Result<CommitResponse, AgentError> {
        let calls = self.agent.calls.clone();
        let sender = self.message.as_ref().map(Message::sender).unwrap_or_default();
        let mut operations: Vec<Operation<'_>> = self
            .wire
            .messages
            .iter_mut()
            .filter_map(|message| collected(&calls, message.call.as_mut()?, sender))
            .collect();
        let what = match &self.message {
            Some(message) => in_words("commit of", message.sender(), message.message_type()),
            None => "commit".to_owned(),
        };
        let (wire, handled) = (&self.wire, self.message.as_ref());
        let done = calls.until(
            &what,
            give_up,
            |_| false,
            |open| {
                if !(open.offers.submit && open.offers.commit) {
                    return Err(Failure::Final(AgentError::Unsupported("atomic commit")));
                }
                // The message may have been delivered anew since this was begun.
                let delivery_id = handled.map(|message| message.received.delivery.get()).unwrap_or_default();
                let wire = Wire { delivery_id, ..wire.clone() };
                fits(&wire, &open.offers).map_err(Failure::Final)?;
                let submit = || Call::Commit(wire);
                match calls.submissions.call(&what, &calls.outbox, submit, give_up) {
                    Ok(Outcome::Commit(done)) => Ok(done),
                    Ok(_) => Err(Failure::Unknown("the server answered something else".to_owned())),
                    Err(NoOutcome::Failed(failure)) => Err(failure),
                    Err(NoOutcome::NotTaken) => Err(Failure::Passing(Box::new(Refusal::not_taken(&what)))),
                }
            },
        );
        let done =
            done.inspect_err(|error| operations.iter_mut().for_each(|operation| operation.failed(error)))?;
        for (operation, result) in operations.iter_mut().zip(&done.results) {
            match &result.outcome {
                Some(Outcome::Send(one)) => operation.accepted(&one.message_id, "", one.receipt.as_ref()),
                Some(Outcome::Reply(one)) => operation.accepted(&one.message_id, "", one.receipt.as_ref()),
                Some(Outcome::Request(one)) => {
                    operation.accepted(&one.message_id, &one.correlation_id, one.receipt.as_ref());
                }
                Some(Outcome::Commit(_) | Outcome::Failure(_)) | None => {}
            }
        }
        Ok(done)
    }

    fn committed(self, done: CommitResponse) -> Committed {
        let (mut sent, mut replies) = (Vec::new(), Vec::new());
        let mut waits = self.waits.into_iter();
        for (result, message) in done.results.into_iter().zip(self.wire.messages) {
            match result.outcome {
                Some(Outcome::Send(one)) => {
                    sent.push(Sent::new(one.message_id, one.receipt.as_ref(), &one.findings));
                }
                Some(Outcome::Reply(one)) => {
                    sent.push(Sent::new(one.message_id, one.receipt.as_ref(), &one.findings));
                }
                Some(Outcome::Request(one)) => {
                    let (target, message_type) = match message.call {
                        Some(Call::Request(request)) => (request.target_id, request.message_type),
                        _ => Default::default(),
                    };
                    let timeout = waits.next().unwrap_or_default();
                    replies.push(PendingReply {
                        expected: Replies::expect(&self.agent.calls.replies, one.correlation_id.clone()),
                        agent: self.agent.clone(),
                        about: NoReply {
                            target,
                            message_type,
                            message_id: one.message_id.clone(),
                            correlation_id: one.correlation_id,
                            waited: timeout,
                            reason: None,
                        },
                        give_up: from_now(timeout),
                    });
                    sent.push(Sent::new(one.message_id, one.receipt.as_ref(), &one.findings));
                }
                Some(Outcome::Commit(_) | Outcome::Failure(_)) | None => {}
            }
        }
        Committed { sent, replies, version: done.version }
    }

    fn push(&mut self, call: Call) {
        self.wire.messages.push(Submission { call: Some(call), ..Submission::default() });
    }
}

/// What a commit did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Committed {
    /// Its messages, in their order.
    pub sent: Vec<Sent>,
    /// The replies to its requests, in their order.
    pub replies: Vec<PendingReply>,
    /// The version of the state afterwards; 0 where it was not touched.
    pub version: u64,
}

/// The reply to a request that was part of a commit.
#[must_use = "the reply comes to whoever waits for it"]
pub struct PendingReply {
    agent: Handle,
    about: NoReply,
    expected: Expected,
    give_up: Instant,
}

impl std::fmt::Debug for PendingReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingReply({})", self.about.correlation_id)
    }
}

impl PendingReply {
    /// Waits for it, until the request's time is over.
    pub fn wait(self) -> Result<Message, AgentError> {
        match self.expected.wait(self.give_up) {
            Answer::Reply(reply) => Ok(Message::new(std::sync::Arc::new(*reply), &self.agent)),
            Answer::Failed(reason) => {
                Err(AgentError::NoReply(Box::new(NoReply { reason: Some(reason), ..self.about })))
            }
            Answer::Nothing => Err(AgentError::NoReply(Box::new(self.about))),
        }
    }
}

/// An event that is longer than the server takes would end the stream.
fn fits(commit: &Wire, offers: &Offers) -> Result<(), AgentError> {
    let most = match offers.max_event_bytes {
        0 => MAX_EVENT_BYTES,
        said => said,
    };
    let size = protobuf::Message::compute_size(commit) + EVENT_BYTES;
    match size <= u64::from(most) {
        true => Ok(()),
        false => Err(AgentError::Setup(format!("a commit of {size} bytes: the server takes at most {most}"))),
    }
}

/// A message of a commit: none is the parent of another. `sender`: of what is answered.
fn collected<'a>(calls: &'a crate::calls::Calls, call: &mut Call, sender: &str) -> Option<Operation<'a>> {
    let tracing = &calls.tracing;
    let (operation, traceparent, tracestate) = match call {
        Call::Send(request) => (
            tracing.sending("send", &request.target_id, "", false),
            &mut request.traceparent,
            &mut request.tracestate,
        ),
        Call::Request(request) => (
            tracing.sending("request", &request.target_id, "", false),
            &mut request.traceparent,
            &mut request.tracestate,
        ),
        Call::Reply(request) => (
            tracing.sending("reply", sender, &request.correlation_id, false),
            &mut request.traceparent,
            &mut request.tracestate,
        ),
        Call::Commit(_) => return None,
    };
    (*traceparent, *tracestate) = operation.headers();
    Some(operation)
}
