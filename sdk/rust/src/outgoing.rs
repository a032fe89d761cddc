//! A message on its way out: what it is, what it may carry, and the calls that send it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use uuid::Uuid;

use crate::calls::{Calls, from_now};
use crate::error::{AgentError, NoReply};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::message::Message;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{REQUEST, RequestRequest, SEND, SendRequest};
use crate::receipts::Sent;
use crate::replies::{Answer, Replies};
use crate::session::{Offers, Open};
use crate::wire::{in_words, millis, receipt, timeout_ms};

/// So much longer than a call may take is a key of the library's remembered.
const KEY_KEPT: Duration = Duration::from_secs(60);

/// What a message may carry beyond the base protocol.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub key: Option<String>,
    pub ttl: Option<Duration>,
    pub not_before: Option<SystemTime>,
}

impl Options {
    /// A server that would ignore them must not get them.
    pub(crate) fn check(&self, offers: &Offers) -> Result<(), AgentError> {
        if self.key.is_some() && !offers.idempotency {
            return Err(AgentError::Unsupported("idempotency keys"));
        }
        if (self.ttl.is_some() || self.not_before.is_some()) && !offers.times {
            return Err(AgentError::Unsupported("times to live"));
        }
        Ok(())
    }

    /// The key under which it is sent, and how long the server has to remember it, in milliseconds.
    fn key_at(&self, offers: &Offers, own: Option<&OwnKey>) -> (String, u64) {
        match (&self.key, own) {
            (Some(key), _) => (key.clone(), 0),
            (None, Some(own)) if offers.idempotency => (own.key.clone(), own.window_ms),
            (None, _) => (String::new(), 0),
        }
    }

    /// Tries until `give_up`. Each attempt is given the message's key and for how long it is to be remembered.
    fn until<R>(
        &self,
        calls: &Calls,
        what: &str,
        give_up: Instant,
        mut attempt: impl FnMut(&Open, String, u64) -> Result<R, Failure>,
    ) -> Result<R, AgentError> {
        let own_key = self.own_key(calls, give_up);
        let has_key = self.key.is_some() || own_key.is_some();
        let is_repeatable = |open: &Open| has_key && open.offers.idempotency;
        calls.until(what, give_up, is_repeatable, |open| {
            self.check(&open.offers).map_err(Failure::Final)?;
            let (key, window_ms) = self.key_at(&open.offers, own_key.as_ref());
            attempt(open, key, window_ms)
        })
    }

    /// A key of the library's, where the caller has given none and lost answers are to be repeated.
    fn own_key(&self, calls: &Calls, give_up: Instant) -> Option<OwnKey> {
        (self.key.is_none() && calls.repeat_sends).then(|| OwnKey {
            key: Uuid::now_v7().simple().to_string(),
            window_ms: millis(give_up.saturating_duration_since(Instant::now()) + KEY_KEPT),
        })
    }

    pub(crate) fn ttl_ms(&self) -> u64 {
        self.ttl.map_or(0, |ttl| millis(ttl).max(1))
    }

    pub(crate) fn not_before_ms(&self) -> u64 {
        self.not_before.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, millis)
    }
}

/// A message to be sent, with what it may carry. From [`Handle::message`].
#[derive(Clone)]
#[must_use = "nothing is sent before `send` or `request`"]
pub struct Outgoing {
    agent: Handle,
    target: String,
    message_type: String,
    data_json: Result<String, Arc<serde_json::Error>>,
    options: Options,
    timeout: Option<Duration>,
}

impl Handle {
    /// Sends one message: when this returns it is stored and on record. Made again under one key where its answer was
    /// lost, so that it is sent once.
    pub fn send<T: Serialize + ?Sized>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<Sent, AgentError> {
        self.message(target, message_type, data).send()
    }

    /// Sends a request and waits for its reply.
    pub fn request<T: Serialize + ?Sized>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
        timeout: Duration,
    ) -> Result<Message, AgentError> {
        self.message(target, message_type, data).request(timeout)
    }

    /// Begins a message that carries more than a payload.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(agent: &mas_agent::Agent) -> Result<(), mas_agent::AgentError> {
    /// let order = serde_json::json!({"item": "tea"});
    /// agent.message("warehouse", "order", &order).key("order-17").ttl(Duration::from_secs(60)).send()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn message<T: Serialize + ?Sized>(&self, target: &str, message_type: &str, data: &T) -> Outgoing {
        Outgoing::new(self, target, message_type, data)
    }
}

impl Message {
    /// Sends another message from within a handler.
    pub fn send<T: Serialize + ?Sized>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<Sent, AgentError> {
        self.agent().send(target, message_type, data)
    }
}

impl Outgoing {
    pub(crate) fn new<T: Serialize + ?Sized>(
        agent: &Handle,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Self {
        Self {
            agent: agent.clone(),
            target: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: serde_json::to_string(data).map_err(Arc::new),
            options: Options::default(),
            timeout: None,
        }
    }

    /// Another message under the same key within the server's window returns the first one's id and has no second effect: 1
    /// to 64 of `A-Z a-z 0-9 _ -`.
    pub fn key(mut self, key: &str) -> Self {
        self.options.key = Some(key.to_owned());
        self
    }

    /// Not delivered later than this after acceptance.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// Not delivered before this time.
    pub fn not_before(mut self, at: SystemTime) -> Self {
        self.options.not_before = Some(at);
        self
    }

    /// How long [`send`](Self::send) may take, tries and waits included; by default the agent's `call_timeout`. A request has
    /// a time of its own.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn data(&self) -> Result<String, AgentError> {
        // The error cannot be cloned; its text can.
        self.data_json.clone().map_err(|error| AgentError::Payload(serde::ser::Error::custom(error)))
    }

    /// Sends it; when this returns it is stored and on record.
    pub fn send(self) -> Result<Sent, AgentError> {
        let calls = &self.agent.calls;
        let what = in_words("send", &self.target, &self.message_type);
        let mut operation = calls.tracing.sending("send", &self.target, "", false);
        let (traceparent, tracestate) = operation.headers();
        let mut request = SendRequest {
            traceparent,
            tracestate,
            data_json: self.data()?,
            target_id: self.target,
            message_type: self.message_type,
            instance_id: calls.session.instance.clone(),
            ttl_ms: self.options.ttl_ms(),
            not_before_ms: self.options.not_before_ms(),
            ..SendRequest::new()
        };
        let options = self.options;
        let give_up = from_now(self.timeout.unwrap_or(calls.call_timeout));
        let response = options.until(calls, &what, give_up, |open, key, window_ms| {
            (request.idempotency_key, request.idempotency_window_ms) = (key, window_ms);
            calls.message(
                (&what, open, give_up),
                (&SEND, &request, request.data_json.len()),
                || Call::Send(request.clone()),
                |outcome| if let Outcome::Send(response) = outcome { Some(response) } else { None },
                |receipts, response| {
                    receipts.keep(receipt(&response.receipt, &response.message_id).as_ref());
                },
            )
        });
        let response = response.inspect_err(|error| operation.failed(error))?;
        operation.accepted(&response.message_id, "", response.receipt.as_ref());
        Ok(Sent::new(response.message_id, response.receipt.as_ref(), &response.findings))
    }

    /// Sends it as a request and waits for its reply, for `timeout` altogether.
    pub fn request(self, timeout: Duration) -> Result<Message, AgentError> {
        let calls = &self.agent.calls;
        let what = in_words("request", &self.target, &self.message_type);
        let (began, give_up) = (Instant::now(), from_now(timeout));
        let mut operation = calls.tracing.sending("request", &self.target, "", true);
        let (traceparent, tracestate) = operation.headers();
        let mut request = RequestRequest {
            traceparent,
            tracestate,
            data_json: self.data()?,
            target_id: self.target.clone(),
            message_type: self.message_type.clone(),
            timeout_ms: timeout_ms(timeout),
            instance_id: calls.session.instance.clone(),
            ttl_ms: self.options.ttl_ms(),
            not_before_ms: self.options.not_before_ms(),
            ..RequestRequest::new()
        };
        let options = self.options;
        let asked = options.until(calls, &what, give_up, |open, key, window_ms| {
            (request.idempotency_key, request.idempotency_window_ms) = (key, window_ms);
            calls.message(
                (&what, open, give_up),
                (&REQUEST, &request, request.data_json.len()),
                || Call::Request(request.clone()),
                |outcome| if let Outcome::Request(response) = outcome { Some(response) } else { None },
                |receipts, response| {
                    receipts.keep(receipt(&response.receipt, &response.message_id).as_ref());
                },
            )
        });
        let asked = asked.inspect_err(|error| operation.failed(error))?;
        operation.accepted(&asked.message_id, &asked.correlation_id, asked.receipt.as_ref());
        let expected = Replies::expect(&calls.replies, asked.correlation_id.clone());
        let reason = match expected.wait(give_up) {
            Answer::Reply(reply) => {
                operation.answered(&calls.session.agent_id(), &reply);
                return Ok(Message::new(Arc::new(*reply), &self.agent));
            }
            Answer::Failed(reason) => Some(reason),
            Answer::Nothing => None,
        };
        let error = AgentError::NoReply(Box::new(NoReply {
            target: self.target,
            message_type: self.message_type,
            message_id: asked.message_id,
            correlation_id: asked.correlation_id,
            waited: began.elapsed(),
            reason,
        }));
        operation.failed(&error);
        Err(error)
    }
}

/// A key of the library's, under which a call is made again whose answer was lost.
struct OwnKey {
    key: String,
    /// What is left of the call, and [`KEY_KEPT`].
    window_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Named as in docs/clients.md.
    fn behaviours<const N: usize>(_names: [&str; N]) {}

    #[test]
    fn what_a_server_does_not_offer_is_not_sent_to_it() {
        behaviours(["call.unsupported"]);
        let (old, new) = (Offers::default(), Offers::read(&["submit".to_owned(), "commit".to_owned()], 0));
        let options = [
            Options { key: Some("k".to_owned()), ..Options::default() },
            Options { ttl: Some(Duration::from_secs(1)), ..Options::default() },
            Options { not_before: Some(UNIX_EPOCH), ..Options::default() },
        ];
        for option in options {
            assert!(matches!(option.check(&old), Err(AgentError::Unsupported(_))), "{option:?}");
            assert!(option.check(&new).is_ok(), "{option:?}");
        }
        assert!(Options::default().check(&old).is_ok());
        // A key of the library's own is for servers that know keys.
        let own = OwnKey { key: "own".to_owned(), window_ms: 90_000 };
        assert_eq!(Options::default().key_at(&old, Some(&own)), (String::new(), 0));
        assert_eq!(Options::default().key_at(&new, Some(&own)), ("own".to_owned(), 90_000));
        // The caller's is remembered as long as the server remembers any.
        let keyed = Options { key: Some("k".to_owned()), ..Options::default() };
        assert_eq!(keyed.key_at(&new, None), ("k".to_owned(), 0));
    }
}
