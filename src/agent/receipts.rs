//! Receipts: where the server says that its decisions are on record. Kept by whoever wants to prove them later.

use std::sync::Arc;

use protobuf::Message;

use crate::audit::proof::Receipt;
use crate::ids::hex;
use crate::protocol::{self, Status};

/// The type of a receipt among a refusal's details.
const RECEIPT_TYPE: &str = "/mas.runtime.v1.Receipt";

/// Takes every receipt; called on the thread that made the call, before the call returns.
#[derive(Clone)]
pub(super) struct ReceiptStore(Arc<dyn Fn(&Receipt) + Send + Sync>);

impl ReceiptStore {
    pub(super) fn new(keep: impl Fn(&Receipt) + Send + Sync + 'static) -> Self {
        Self(Arc::new(keep))
    }

    /// A call was accepted; older servers give no receipt.
    pub(super) fn accepted(&self, receipt: Option<&protocol::Receipt>, message_id: Option<&str>) {
        if let Some(receipt) = receipt {
            (self.0)(&from_wire(receipt, message_id));
        }
    }

    /// A call was refused: its receipt is among the details.
    pub(super) fn refused(&self, error: &grpcio::Error) {
        let grpcio::Error::RpcFailure(status) = error else {
            return;
        };
        let Ok(details) = Status::parse_from_bytes(status.details()) else {
            return;
        };
        let receipt = details.details.iter().find(|any| any.type_url.ends_with(RECEIPT_TYPE));
        if let Some(Ok(receipt)) = receipt.map(|any| protocol::Receipt::parse_from_bytes(&any.value)) {
            (self.0)(&from_wire(&receipt, None));
        }
    }
}

fn from_wire(receipt: &protocol::Receipt, message_id: Option<&str>) -> Receipt {
    Receipt {
        lane: receipt.lane.clone(),
        sequence: receipt.sequence,
        record_hash: hex(&receipt.record_hash),
        policy_version: hex(&receipt.policy_version),
        sender_sequence: receipt.sender_sequence,
        message_id: message_id.map(str::to_owned),
    }
}
