//! What a caller gets beside the answer: receipts, and on refusals the details of the rich error model
//! (`google.rpc.Status` in the trailer `grpc-status-details-bin`), which is the one trailer that gRPC's
//! C core wrapper lets a handler send.

use grpcio::{Metadata, MetadataBuilder, RpcStatus};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::duration::Duration;

use super::status::{code, status};
use crate::protocol::{self, RetryInfo, Status};
use crate::refusal::Refusal;
use crate::shard::desk::outcome::{Declined, Found, Receipt};

/// A receipt as the wire has it.
pub(super) fn receipt(receipt: Option<Receipt>) -> Option<protocol::Receipt> {
    let Receipt { lane, place, policy_version } = receipt?;
    Some(protocol::Receipt {
        lane: lane.as_str().to_owned(),
        sequence: place.seq,
        record_hash: place.leaf.to_vec(),
        policy_version: policy_version.to_vec(),
        sender_sequence: place.sender_seq,
        ..protocol::Receipt::default()
    })
}

/// The receipt of a refusal: of the message that was refused, where it was one. A commit is refused for one of its messages.
pub(super) fn refused_receipt(declined: &Declined) -> Option<protocol::Receipt> {
    let Some(told) = &declined.told else {
        return receipt(declined.receipt.clone());
    };
    let mut receipt = receipt(told.receipt.clone().or_else(|| declined.receipt.clone()))?;
    receipt.message_id = told.message_id.to_string();
    Some(receipt)
}

/// What a sender is told of its message.
pub(super) fn findings(found: Vec<Found>) -> Vec<protocol::Finding> {
    let finding = |found: Found| protocol::Finding {
        type_: found.kind.to_string(),
        pointer: found.pointer,
        action: found.action.to_owned(),
        ..protocol::Finding::default()
    };
    found.into_iter().map(finding).collect()
}

/// `retry-after-ms`. In the response's headers: gRPC's C core wrapper sends no trailers of one's own.
pub(super) fn retry_after(refusal: Refusal) -> Option<Metadata> {
    let retry_after_ms = refusal.retry_after_ms?.to_string();
    let mut headers = MetadataBuilder::new();
    // The name and the digits are what gRPC allows.
    let _ = headers.add_str("retry-after-ms", &retry_after_ms).ok()?;
    Some(headers.build())
}

/// The status of a refusal with its receipt and, where it is known, the time to try again.
pub(super) fn detailed(declined: &Declined) -> RpcStatus {
    let mut details = Vec::new();
    if let Some(retry_after_ms) = declined.refusal.retry_after_ms {
        let delay = Duration {
            seconds: (retry_after_ms / 1000) as i64,
            nanos: (retry_after_ms % 1000) as i32 * 1_000_000,
            ..Duration::default()
        };
        let info = RetryInfo { retry_delay: Some(delay).into(), ..RetryInfo::default() };
        details.extend(packed("google.rpc.RetryInfo", &info));
    }
    if let Some(receipt) = refused_receipt(declined) {
        details.extend(packed("mas.runtime.v1.Receipt", &receipt));
    }
    if let Some(told) = declined.told.as_ref().filter(|told| !told.found.is_empty()) {
        let findings = findings(told.found.clone());
        let findings = protocol::Findings { findings, ..protocol::Findings::default() };
        details.extend(packed("mas.runtime.v1.Findings", &findings));
    }
    let plain = status(declined.refusal);
    let rich = Status {
        code: i32::from(code(declined.refusal)),
        message: declined.refusal.detail.to_owned(),
        details,
        ..Status::default()
    };
    match rich.write_to_bytes() {
        Ok(bytes) => RpcStatus::with_details(plain.code(), declined.refusal.detail.to_owned(), bytes),
        // The details are an addition: the status stands without them.
        Err(_) => plain,
    }
}

fn packed(name: &str, message: &impl Message) -> Option<Any> {
    Some(Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.write_to_bytes().ok()?,
        ..Any::default()
    })
}
