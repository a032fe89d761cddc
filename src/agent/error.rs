//! What can go wrong, for callers and for handlers.

use grpcio::RpcStatusCode;

/// Why a call of an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The server refused: `code` is gRPC's name for the status, `detail` the contract's word.
    #[error("refused: {detail} ({code})")]
    Refused {
        /// Such as `PERMISSION_DENIED`.
        code: String,
        /// Such as `not_authorized`.
        detail: String,
    },
    /// The connection broke on the way: it may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// No session within the call's timeout.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// No reply in time.
    #[error("no reply within {0:?}")]
    NoReply(std::time::Duration),
    /// The payload cannot be written or read as JSON.
    #[error("payload: {0}")]
    Payload(#[source] serde_json::Error),
    /// A file, an environment variable, or a builder setting.
    #[error("{0}")]
    Setup(String),
}

impl AgentError {
    /// The contract's detail string of a refusal.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused { detail, .. } => Some(detail),
            Self::Unknown(_)
            | Self::NotConnected(_)
            | Self::NoReply(_)
            | Self::Payload(_)
            | Self::Setup(_) => None,
        }
    }
}

/// What a failed call means for trying again.
pub(super) enum Failure {
    /// Nothing happened; another try may succeed.
    Retry(String),
    /// It may have happened.
    Unknown(String),
    /// No session yet, or not any more.
    NoSession,
    /// Final.
    Final(AgentError),
}

pub(super) fn classify(error: grpcio::Error) -> Failure {
    match error {
        grpcio::Error::RpcFailure(status) => classify_status(status.code(), status.message().to_owned()),
        other => Failure::Unknown(other.to_string()),
    }
}

pub(super) fn classify_status(code: RpcStatusCode, detail: String) -> Failure {
    match (code, detail.as_str()) {
        (RpcStatusCode::UNAVAILABLE, "overloaded" | "storage_unavailable" | "server_stopping") => {
            Failure::Retry(detail)
        }
        (RpcStatusCode::FAILED_PRECONDITION, "session_not_connected") => Failure::NoSession,
        (RpcStatusCode::UNAVAILABLE | RpcStatusCode::DEADLINE_EXCEEDED | RpcStatusCode::CANCELLED, _) => {
            Failure::Unknown(detail)
        }
        (code, _) => Failure::Final(AgentError::Refused { code: code_name(code), detail }),
    }
}

/// gRPC prints codes as `7-PERMISSION_DENIED`.
pub(super) fn code_name(code: RpcStatusCode) -> String {
    let text = code.to_string();
    text.split_once('-').map_or(text.clone(), |(_, name)| name.to_owned())
}

/// Why a handler did not handle a message.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Deliver it again later: something passing.
    #[error("{0}")]
    Retry(String),
    /// To the dead letters: it cannot be handled.
    #[error("{0}")]
    Reject(String),
}

impl HandlerError {
    /// Another delivery may help.
    pub fn retry(reason: impl std::fmt::Display) -> Self {
        Self::Retry(reason.to_string())
    }

    /// No delivery will help.
    pub fn reject(reason: impl std::fmt::Display) -> Self {
        Self::Reject(reason.to_string())
    }
}

impl From<AgentError> for HandlerError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Unknown(_) | AgentError::NotConnected(_) | AgentError::NoReply(_) => {
                Self::Retry(error.to_string())
            }
            AgentError::Refused { .. } | AgentError::Payload(_) | AgentError::Setup(_) => {
                Self::Reject(error.to_string())
            }
        }
    }
}
