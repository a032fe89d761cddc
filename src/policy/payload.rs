//! What a message must be before anybody asks whether it may be sent.

use crate::config::Limits;
use crate::envelope::MAX_MESSAGE_TYPE_BYTES;
use crate::json::{JsonError, check_object};
use crate::refusal::Refusal;

/// Checks type and payload against the bounds. An empty payload stands for `{}`.
pub fn check_payload(limits: &Limits, message_type: &str, data_json: &str) -> Result<(), Refusal> {
    if message_type.len() > MAX_MESSAGE_TYPE_BYTES {
        return Err(Refusal::INVALID_MESSAGE_TYPE);
    }
    if data_json.len() > limits.max_message_bytes {
        return Err(Refusal::MESSAGE_TOO_LARGE);
    }
    if data_json.is_empty() {
        return Ok(());
    }
    check_object(data_json, limits.max_json_depth).map_err(|error| match error {
        JsonError::Invalid => Refusal::INVALID_JSON,
        JsonError::NotAnObject => Refusal::PAYLOAD_MUST_BE_OBJECT,
    })
}
