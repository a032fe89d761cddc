//! Small things that calls have in common: payloads, times and words.

use std::time::Duration;

use serde::Serialize;

use crate::error::AgentError;
use crate::protocol;
use crate::receipts::Receipt;

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn to_json<T: Serialize + ?Sized>(data: &T) -> Result<String, AgentError> {
    serde_json::to_string(data).map_err(AgentError::Payload)
}

/// In words, for errors.
pub(crate) fn in_words(verb: &str, target: &str, message_type: &str) -> String {
    format!("{verb} {message_type:?} to {target}")
}

/// Milliseconds as the wire has them: what is more than 0 stays so.
pub(crate) fn timeout_ms(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// The receipt of an accepted message.
pub(crate) fn receipt(
    receipt: &protobuf::MessageField<protocol::Receipt>,
    message_id: &str,
) -> Option<Receipt> {
    receipt.as_ref().map(|receipt| Receipt::from_wire(receipt, message_id))
}
