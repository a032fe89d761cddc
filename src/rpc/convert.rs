//! Requests of the wire into jobs' parts, and outcomes into the wire's results: the same for unary calls
//! and for the stream.

use super::answer::{findings, receipt, refused_receipt};
use super::status::code;
use crate::clock::Now;
use crate::content::Trace;
use crate::ids::{AgentId, CorrelationId};
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome as Wire;
use crate::protocol::{
    CommitResponse, Failure, ReplyRequest, ReplyResponse, RequestRequest, RequestResponse, SendRequest,
    SendResponse, SubmissionResult,
};
use crate::refusal::Refusal;
use crate::shard::desk::job::{Outgoing, Post, Response};
use crate::shard::desk::outcome::{Accepted, CommitResult, MessageKind, Outcome};

/// How long a request may be answered when it does not say, in seconds.
const DEFAULT_REQUEST_TTL_S: u64 = 60;
/// Longest time a request may be answered, in seconds.
const MAX_REQUEST_TTL_S: u64 = 86_400;
/// Longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 64;
/// How far ahead a message's first delivery may be, in milliseconds: 30 days.
const MAX_DELAY_MS: u64 = 30 * 86_400_000;

/// `ceil(timeout_ms / 1000)`; 0 or less means the default.
fn request_ttl_s(timeout_ms: i32) -> u64 {
    match u64::try_from(timeout_ms) {
        Ok(0) | Err(_) => DEFAULT_REQUEST_TTL_S,
        Ok(timeout_ms) => timeout_ms.div_ceil(1000).min(MAX_REQUEST_TTL_S),
    }
}

fn idempotency_key(key: String) -> Result<Option<String>, Refusal> {
    if key.is_empty() {
        return Ok(None);
    }
    let right = key.len() <= MAX_IDEMPOTENCY_KEY_BYTES
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if right { Ok(Some(key)) } else { Err(Refusal::INVALID_IDEMPOTENCY_KEY) }
}

fn not_before(not_before_ms: u64) -> Result<u64, Refusal> {
    // Most messages have none: no look at the clock.
    if not_before_ms == 0 || not_before_ms <= Now::read().unix_us / 1000 + MAX_DELAY_MS {
        Ok(not_before_ms)
    } else {
        Err(Refusal::INVALID_NOT_BEFORE)
    }
}

/// A Send.
pub(super) fn send(request: SendRequest) -> Result<Post, Refusal> {
    Ok(Post {
        not_before_ms: not_before(request.not_before_ms)?,
        idempotency_key: idempotency_key(request.idempotency_key)?,
        idempotency_window_ms: request.idempotency_window_ms,
        target: request.target_id,
        message_type: request.message_type,
        data_json: request.data_json,
        request_ttl_s: None,
        ttl_ms: request.ttl_ms,
        trace: trace(&request.traceparent, &request.tracestate),
    })
}

/// A Request.
pub(super) fn request(request: RequestRequest) -> Result<Post, Refusal> {
    Ok(Post {
        not_before_ms: not_before(request.not_before_ms)?,
        idempotency_key: idempotency_key(request.idempotency_key)?,
        idempotency_window_ms: request.idempotency_window_ms,
        target: request.target_id,
        message_type: request.message_type,
        data_json: request.data_json,
        request_ttl_s: Some(request_ttl_s(request.timeout_ms)),
        ttl_ms: request.ttl_ms,
        trace: trace(&request.traceparent, &request.tracestate),
    })
}

/// A Reply.
pub(super) fn reply(request: ReplyRequest) -> Result<Response, Refusal> {
    if request.correlation_id.is_empty() {
        return Err(Refusal::MISSING_CORRELATION_ID);
    }
    Ok(Response {
        correlation_id: CorrelationId::parse(&request.correlation_id)
            .ok_or(Refusal::UNKNOWN_CORRELATION_ID)?,
        message_type: request.message_type,
        data_json: request.data_json,
        trace: trace(&request.traceparent, &request.tracestate),
    })
}

/// The trace context that a message has in itself.
fn trace(parent: &str, state: &str) -> Option<Trace> {
    let given = |text: &str| !text.is_empty();
    let (parent, state) = (Some(parent).filter(|t| given(t)), Some(state).filter(|t| given(t)));
    Trace::from_headers(parent.map(str::as_bytes), state.map(str::as_bytes))
}

/// One message of a commit; a commit in a commit is none.
pub(super) fn outgoing(call: Option<Call>) -> Result<Outgoing, Refusal> {
    match call {
        Some(Call::Send(content)) => send(content).map(Outgoing::Post),
        Some(Call::Request(content)) => request(content).map(Outgoing::Post),
        Some(Call::Reply(content)) => reply(content).map(Outgoing::Response),
        Some(Call::Commit(_)) | None => Err(Refusal::MALFORMED_REQUEST),
    }
}

/// Where a message's job goes: to its target's worker. A target that is no id is refused by the
/// sender's.
pub(super) fn route(sender: &AgentId, target: &str) -> u16 {
    AgentId::route_hash_of(target).unwrap_or_else(|| sender.route_hash())
}

pub(super) fn send_response(accepted: Accepted) -> SendResponse {
    SendResponse {
        message_id: text(accepted.message_id),
        receipt: receipt(accepted.receipt).into(),
        findings: findings(accepted.found),
        ..SendResponse::default()
    }
}

pub(super) fn request_response(accepted: Accepted) -> RequestResponse {
    RequestResponse {
        message_id: text(accepted.message_id),
        correlation_id: accepted.correlation_id.map(|id| id.to_string()).unwrap_or_default(),
        receipt: receipt(accepted.receipt).into(),
        findings: findings(accepted.found),
        ..RequestResponse::default()
    }
}

pub(super) fn reply_response(accepted: Accepted) -> ReplyResponse {
    ReplyResponse {
        message_id: text(accepted.message_id),
        receipt: receipt(accepted.receipt).into(),
        findings: findings(accepted.found),
        ..ReplyResponse::default()
    }
}

/// A message id, without a detour over formatting.
fn text(message_id: uuid::Uuid) -> String {
    let mut buffer = uuid::Uuid::encode_buffer();
    message_id.hyphenated().encode_lower(&mut buffer).to_owned()
}

/// A result as the stream has it.
pub(super) fn result(reference: u64, outcome: Outcome) -> SubmissionResult {
    let outcome = match outcome {
        Outcome::Accepted(kind, accepted) => accepted_as(kind, accepted),
        Outcome::Committed(CommitResult { messages, kinds, version }) => {
            let results = messages
                .into_iter()
                .zip(kinds)
                .enumerate()
                .map(|(place, (accepted, kind))| SubmissionResult {
                    reference: place as u64,
                    outcome: Some(accepted_as(kind, accepted)),
                    ..SubmissionResult::default()
                })
                .collect();
            Wire::Commit(CommitResponse { results, version, ..CommitResponse::default() })
        }
        Outcome::Declined(declined) => Wire::Failure(Failure {
            code: code(declined.refusal).into(),
            detail: declined.refusal.detail.to_owned(),
            retry_after_ms: declined.refusal.retry_after_ms.unwrap_or(0),
            receipt: refused_receipt(&declined).into(),
            findings: declined.told.map(|told| findings(told.found)).unwrap_or_default(),
            ..Failure::default()
        }),
    };
    SubmissionResult { reference, outcome: Some(outcome), ..SubmissionResult::default() }
}

fn accepted_as(kind: MessageKind, accepted: Accepted) -> Wire {
    match kind {
        MessageKind::Sent => Wire::Send(send_response(accepted)),
        MessageKind::Requested => Wire::Request(request_response(accepted)),
        MessageKind::Replied => Wire::Reply(reply_response(accepted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_timeout_is_rounded_up_and_bounded() {
        assert_eq!(request_ttl_s(0), 60);
        assert_eq!(request_ttl_s(-5), 60);
        assert_eq!(request_ttl_s(1), 1);
        assert_eq!(request_ttl_s(1000), 1);
        assert_eq!(request_ttl_s(1001), 2);
        assert_eq!(request_ttl_s(i32::MAX), 86_400);
    }

    #[test]
    fn idempotency_keys_have_a_shape() {
        assert_eq!(idempotency_key(String::new()), Ok(None));
        assert_eq!(idempotency_key("a-B_9".to_owned()), Ok(Some("a-B_9".to_owned())));
        for bad in ["a:b".to_owned(), "a\n".to_owned(), "x".repeat(65)] {
            assert_eq!(idempotency_key(bad), Err(Refusal::INVALID_IDEMPOTENCY_KEY));
        }
    }
}
