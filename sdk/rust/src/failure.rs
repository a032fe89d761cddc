//! What a failed attempt means for trying again.

use std::time::Duration;

use grpcio::RpcStatusCode;
use protobuf::Message;

use crate::error::AgentError;
use crate::protocol::{self, Status};
use crate::receipts::{Finding, Receipt};
use crate::refusal::{Refusal, code_name};

/// The types of what stands among a refusal's details.
const RECEIPT_TYPE: &str = "/mas.runtime.v1.Receipt";
const FINDINGS_TYPE: &str = "/mas.runtime.v1.Findings";
const RETRY_TYPE: &str = "/google.rpc.RetryInfo";
/// Nothing happened, and the same call may succeed in a moment.
const PASSING: [&str; 4] = ["overloaded", "storage_unavailable", "server_stopping", "session_not_connected"];

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
    let is_definite = refusal.is_later();
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
}
