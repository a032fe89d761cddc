//! What the server says when it refuses, and what a failed attempt means for trying again.

use std::fmt;
use std::time::Duration;

use grpcio::RpcStatusCode;
use protobuf::Message;

use crate::error::AgentError;
use crate::protocol::{self, Status};
use crate::receipts::{Finding, Receipt};

/// The types of what stands among a refusal's details.
const RECEIPT_TYPE: &str = "/mas.runtime.v1.Receipt";
const FINDINGS_TYPE: &str = "/mas.runtime.v1.Findings";
const RETRY_TYPE: &str = "/google.rpc.RetryInfo";
/// Nothing happened, and the same call may succeed in a moment.
const PASSING: [&str; 4] = ["overloaded", "storage_unavailable", "server_stopping", "session_not_connected"];
/// Not now, and for no fault of the message: words that end a call, and leave a message that is being handled for later.
const LATER: [&str; 13] = [
    "rate_limited",
    "queue_full",
    "circuit_open",
    "storage_full",
    "overloaded",
    "storage_unavailable",
    "audit_unavailable",
    "audit_full",
    "server_stopping",
    "target_offline",
    // The agent itself is refused just now, or its message was delivered anew meanwhile.
    "session_not_connected",
    "quarantined",
    "delivery_not_held",
];

/// The server's refusal of a call: nothing happened, and it is on record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// What was called, to whom, of which type.
    pub call: String,
    /// gRPC's name of the status, such as `PERMISSION_DENIED`.
    pub code: String,
    /// The contract's word for the case, such as `not_authorized`.
    pub detail: String,
    /// When another try may help.
    pub retry_after: Option<Duration>,
    /// Of a message: the id under which it is on record.
    pub message_id: Option<String>,
    /// Where it is on record.
    pub receipt: Option<Receipt>,
    /// Of `dlp_blocked`: what was found in the payload.
    pub findings: Vec<Finding>,
}

impl Refusal {
    /// Whether it passes by itself: a handler that fails with it gets its message again, and no attempt is counted.
    pub fn is_later(&self) -> bool {
        LATER.contains(&self.detail.as_str()) || self.code == "UNAUTHENTICATED"
    }

    /// The stream is between two sessions, or full: nothing was sent.
    pub(crate) fn not_taken(call: &str) -> Self {
        Self {
            call: call.to_owned(),
            code: "UNAVAILABLE".to_owned(),
            detail: "overloaded".to_owned(),
            retry_after: None,
            message_id: None,
            receipt: None,
            findings: Vec::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.detail.is_empty() { &self.code } else { &self.detail }, self.call)?;
        for (separator, finding) in std::iter::once(": ").chain(std::iter::repeat(", ")).zip(&self.findings) {
            write!(f, "{separator}{} at {}", finding.kind, finding.pointer)?;
        }
        if let Some(retry_after) = self.retry_after {
            write!(f, "; try again in {retry_after:.3?}")?;
        }
        if let Some(message_id) = &self.message_id {
            write!(f, " (message {message_id}; `mas audit show {message_id}` says why)")?;
        }
        Ok(())
    }
}

/// What a failed attempt means for trying again.
pub(crate) enum Failure {
    /// Nothing happened; another try may succeed.
    Passing(Box<Refusal>),
    /// It may have happened.
    Unknown(String),
    /// Final.
    Final(AgentError),
}

/// Of a unary call.
pub(crate) fn of_call(call: &str, error: grpcio::Error) -> Failure {
    let status = match error {
        grpcio::Error::RpcFailure(status) => status,
        other => return Failure::Unknown(other.to_string()),
    };
    let details = Status::parse_from_bytes(status.details()).map(|status| status.details).unwrap_or_default();
    let detail = |name: &str| details.iter().find(|any| any.type_url.ends_with(name)).map(|any| &any.value);
    let receipt = detail(RECEIPT_TYPE).and_then(|bytes| protocol::Receipt::parse_from_bytes(bytes).ok());
    let findings = detail(FINDINGS_TYPE).and_then(|bytes| protocol::Findings::parse_from_bytes(bytes).ok());
    let retry_after = detail(RETRY_TYPE)
        .and_then(|bytes| protocol::RetryInfo::parse_from_bytes(bytes).ok())
        .and_then(|info| info.retry_delay.into_option())
        .and_then(|delay| Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?)));
    let refusal = Refusal {
        call: call.to_owned(),
        code: code_name(status.code()),
        detail: status.message().to_owned(),
        retry_after,
        message_id: receipt.as_ref().and_then(message_id),
        receipt: receipt.as_ref().map(|receipt| Receipt::from_wire(receipt, "")),
        findings: findings.map(|found| Finding::list(&found.findings)).unwrap_or_default(),
    };
    failure(status.code(), refusal)
}

/// Of a submission on the stream.
pub(crate) fn of_submission(call: &str, failed: protocol::Failure) -> Failure {
    let code = RpcStatusCode::from(failed.code);
    let refusal = Refusal {
        call: call.to_owned(),
        code: code_name(code),
        detail: failed.detail,
        retry_after: (failed.retry_after_ms > 0).then(|| Duration::from_millis(failed.retry_after_ms)),
        message_id: failed.receipt.as_ref().and_then(message_id),
        receipt: failed.receipt.as_ref().map(|receipt| Receipt::from_wire(receipt, "")),
        findings: Finding::list(&failed.findings),
    };
    failure(code, refusal)
}

fn message_id(receipt: &protocol::Receipt) -> Option<String> {
    Some(receipt.message_id.clone()).filter(|id| !id.is_empty())
}

fn failure(code: RpcStatusCode, refusal: Refusal) -> Failure {
    if PASSING.contains(&refusal.detail.as_str()) {
        return Failure::Passing(Box::new(refusal));
    }
    let is_definite = LATER.contains(&refusal.detail.as_str());
    match code {
        RpcStatusCode::UNAVAILABLE
        | RpcStatusCode::DEADLINE_EXCEEDED
        | RpcStatusCode::CANCELLED
        | RpcStatusCode::UNKNOWN
        | RpcStatusCode::INTERNAL
            if !is_definite =>
        {
            Failure::Unknown(format!("{} ({})", refusal.detail, refusal.code))
        }
        _ => Failure::Final(AgentError::Refused(Box::new(refusal))),
    }
}

/// gRPC prints codes as `7-PERMISSION_DENIED`.
pub(crate) fn code_name(code: RpcStatusCode) -> String {
    let text = code.to_string();
    text.split_once('-').map_or(text.clone(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(code: RpcStatusCode, detail: &str) -> &'static str {
        let refusal = Refusal {
            call: "send".to_owned(),
            code: code_name(code),
            detail: detail.to_owned(),
            retry_after: None,
            message_id: None,
            receipt: None,
            findings: Vec::new(),
        };
        match failure(code, refusal) {
            Failure::Passing(_) => "passing",
            Failure::Unknown(_) => "unknown",
            Failure::Final(_) => "final",
        }
    }

    #[test]
    fn only_a_lost_answer_is_unknown() {
        for (code, detail, expected) in [
            (RpcStatusCode::UNAVAILABLE, "overloaded", "passing"),
            (RpcStatusCode::FAILED_PRECONDITION, "session_not_connected", "passing"),
            (RpcStatusCode::UNAVAILABLE, "audit_unavailable", "final"),
            (RpcStatusCode::UNAVAILABLE, "commit_unknown", "unknown"),
            (RpcStatusCode::UNAVAILABLE, "Socket closed", "unknown"),
            (RpcStatusCode::DEADLINE_EXCEEDED, "", "unknown"),
            (RpcStatusCode::RESOURCE_EXHAUSTED, "rate_limited", "final"),
            (RpcStatusCode::PERMISSION_DENIED, "not_authorized", "final"),
        ] {
            assert_eq!(classified(code, detail), expected, "{detail}");
        }
    }

    #[test]
    fn a_refusal_says_what_was_refused_and_where_to_look() {
        let refusal = Refusal {
            call: "send \"quote\" to quotes".to_owned(),
            code: "PERMISSION_DENIED".to_owned(),
            detail: "dlp_blocked".to_owned(),
            retry_after: Some(Duration::from_millis(1500)),
            message_id: Some("01a2".to_owned()),
            receipt: None,
            findings: vec![Finding {
                kind: "credit_card".to_owned(),
                pointer: "/text".to_owned(),
                action: "block".to_owned(),
            }],
        };
        assert_eq!(
            refusal.to_string(),
            "dlp_blocked: send \"quote\" to quotes: credit_card at /text; try again in 1.500s (message 01a2; `mas audit show 01a2` says why)"
        );
    }
}
