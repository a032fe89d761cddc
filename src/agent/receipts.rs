//! Receipts: where the server says that its decisions are on record. Kept by whoever wants to prove them later.

use std::sync::Arc;

use protobuf::Message;

use crate::audit::proof::Receipt;
use crate::ids::hex;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{self, Status};

/// The type of a receipt among a refusal's details.
const RECEIPT_TYPE: &str = "/mas.runtime.v1.Receipt";

/// Who keeps receipts, if anybody does; called on the thread that made the call, before the call returns.
#[derive(Clone, Default)]
pub(super) struct Receipts(Option<Arc<Keep>>);

type Keep = dyn Fn(&Receipt) + Send + Sync;

impl Receipts {
    pub(super) fn kept_by(keep: impl Fn(&Receipt) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(keep)))
    }

    /// A call was decided; older servers give no receipt.
    pub(super) fn keep(&self, receipt: Option<&protocol::Receipt>, message_id: &str) {
        if let (Some(keep), Some(receipt)) = (&self.0, receipt) {
            keep(&from_wire(receipt, message_id));
        }
    }

    /// A call on the stream was decided; a commit holds the results of its messages.
    pub(super) fn keep_outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Send(response) => self.keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Request(response) => self.keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Reply(response) => self.keep(response.receipt.as_ref(), &response.message_id),
            Outcome::Failure(failure) => self.keep(failure.receipt.as_ref(), ""),
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

    /// A unary call was refused: its receipt is among the details.
    pub(super) fn keep_refusal(&self, error: &grpcio::Error) {
        let grpcio::Error::RpcFailure(status) = error else {
            return;
        };
        let Ok(details) = Status::parse_from_bytes(status.details()) else {
            return;
        };
        let receipt = details.details.iter().find(|any| any.type_url.ends_with(RECEIPT_TYPE));
        if let Some(Ok(receipt)) = receipt.map(|any| protocol::Receipt::parse_from_bytes(&any.value)) {
            self.keep(Some(&receipt), "");
        }
    }
}

fn from_wire(receipt: &protocol::Receipt, message_id: &str) -> Receipt {
    Receipt {
        lane: receipt.lane.clone(),
        sequence: receipt.sequence,
        record_hash: hex(&receipt.record_hash),
        policy_version: hex(&receipt.policy_version),
        sender_sequence: receipt.sender_sequence,
        message_id: (!message_id.is_empty()).then(|| message_id.to_owned()),
    }
}
