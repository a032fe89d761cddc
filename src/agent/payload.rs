//! Payloads as they go to the server.

use serde::Serialize;

use super::error::AgentError;

pub(super) fn to_json<T: Serialize>(data: &T) -> Result<String, AgentError> {
    serde_json::to_string(data).map_err(AgentError::Payload)
}
