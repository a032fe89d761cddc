//! Receipts and findings: what the server tells of its decisions beside them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol;
use crate::protocol::submission_result::Outcome;

/// Where the server says that a decision is on record. As JSON, hashes are hexadecimal: `mas audit proof --check` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The lane that holds the record.
    pub lane: String,
    /// The record's position in it, from 1.
    pub sequence: u64,
    /// The record's leaf hash, 64 hexadecimal digits.
    pub record_hash: String,
    /// Digest of the configuration that decided, 64 hexadecimal digits.
    pub policy_version: String,
    /// The number of this decision among its sender's in the lane, from 1 without gaps.
    pub sender_sequence: u64,
    /// The message it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

impl Receipt {
    /// `message_id`: of an accepted message, whose receipt does not name it.
    pub(crate) fn from_wire(receipt: &protocol::Receipt, message_id: &str) -> Self {
        let message_id = if message_id.is_empty() { &receipt.message_id } else { message_id };
        Self {
            lane: receipt.lane.clone(),
            sequence: receipt.sequence,
            record_hash: hex(&receipt.record_hash),
            policy_version: hex(&receipt.policy_version),
            sender_sequence: receipt.sender_sequence,
            message_id: (!message_id.is_empty()).then(|| message_id.to_owned()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What data-loss prevention found in a message of this agent. Never the text itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// Such as `credit_card`.
    pub kind: String,
    /// Where in the payload, RFC 6901; `message_type` for the message's type.
    pub pointer: String,
    /// `block` or `redact`.
    pub action: String,
}

impl Finding {
    pub(crate) fn list(found: &[protocol::Finding]) -> Vec<Self> {
        let finding = |found: &protocol::Finding| Self {
            kind: found.type_.clone(),
            pointer: found.pointer.clone(),
            action: found.action.clone(),
        };
        found.iter().map(finding).collect()
    }
}

/// An accepted message: stored and on record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its id.
    pub message_id: String,
    /// Where the decision is on record; absent where the server gives no receipts.
    pub receipt: Option<Receipt>,
    /// What was redacted in it before it was stored.
    pub findings: Vec<Finding>,
}

impl Sent {
    pub(crate) fn new(
        message_id: String,
        receipt: Option<&protocol::Receipt>,
        findings: &[protocol::Finding],
    ) -> Self {
        let receipt = receipt.map(|receipt| Receipt::from_wire(receipt, &message_id));
        Self { message_id, receipt, findings: Finding::list(findings) }
    }
}

/// The message's id.
impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message_id)
    }
}

/// Who keeps receipts, if anybody does; called on the thread that made the call, before the call returns.
#[derive(Clone, Default)]
pub(crate) struct Receipts(Option<Arc<Keep>>);

type Keep = dyn Fn(&Receipt) + Send + Sync;

impl Receipts {
    pub(crate) fn kept_by(keep: impl Fn(&Receipt) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(keep)))
    }

    /// A call was decided; older servers give no receipt.
    pub(crate) fn keep(&self, receipt: Option<&Receipt>) {
        if let (Some(keep), Some(receipt)) = (&self.0, receipt) {
            keep(receipt);
        }
    }

    /// A call on the stream was decided; a commit holds the results of its messages.
    pub(crate) fn keep_outcome(&self, outcome: &Outcome) {
        if self.0.is_none() {
            return;
        }
        let keep = |receipt: Option<&protocol::Receipt>, id: &str| {
            self.keep(receipt.map(|receipt| Receipt::from_wire(receipt, id)).as_ref());
        };
        match outcome {
            Outcome::Send(response) => keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Request(response) => keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Reply(response) => keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Failure(failure) => keep(failure.receipt.as_ref(), ""),
            Outcome::Commit(commit) => {
                for outcome in commit.results.iter().filter_map(|result| result.outcome.as_ref()) {
                    // A commit holds no commits.
                    if !matches!(outcome, Outcome::Commit(_)) {
                        self.keep_outcome(outcome);
                    }
                }
            }
        }
    }
}
