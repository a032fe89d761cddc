//! What the server says when it refuses.

use std::fmt;
use std::time::Duration;

use grpcio::RpcStatusCode;

use crate::receipts::{Finding, Receipt};

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

/// gRPC prints codes as `7-PERMISSION_DENIED`.
pub(crate) fn code_name(code: RpcStatusCode) -> String {
    let text = code.to_string();
    text.split_once('-').map_or(text.clone(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
