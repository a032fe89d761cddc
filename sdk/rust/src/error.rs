//! What can go wrong, for callers and for handlers.

use std::fmt;
use std::time::Duration;

use crate::refusal::Refusal;

/// Wait before a message comes again that could not be handled now, where the server named none.
pub(crate) const LATER_DEFAULT: Duration = Duration::from_secs(1);

/// Why a call of an agent failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The server refused; nothing happened.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer was lost on the way: it may or may not have happened.
    #[error("{call}: outcome unknown: {reason}")]
    Unknown {
        /// What was called, to whom, of which type.
        call: String,
        /// How the answer was lost.
        reason: String,
    },
    /// No session with the server within the call's time; nothing happened.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The request was accepted, and no reply came in time.
    #[error("{0}")]
    NoReply(Box<NoReply>),
    /// The payload cannot be written or read as JSON.
    #[error("payload: {0}")]
    Payload(#[source] serde_json::Error),
    /// The server does not offer this; nothing was sent.
    #[error("this server has no {0}")]
    Unsupported(&'static str),
    /// A file, an environment variable, or a setting.
    #[error("{0}")]
    Setup(String),
}

/// A request to which no reply came in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoReply {
    /// Whom was asked.
    pub target: String,
    /// The request's type.
    pub message_type: String,
    /// Under which id the request is on record: `mas audit show` shows what became of it.
    pub message_id: String,
    /// What ties request and reply together.
    pub correlation_id: String,
    /// How long the reply was waited for.
    pub waited: Duration,
    /// Why none will come, where the server knows: `handler_failed`, `no_handler`, `max_attempts` or `expired`.
    pub reason: Option<String>,
}

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, message_type, message_id, waited, reason, .. } = self;
        if let Some(reason) = reason {
            return write!(
                f,
                "no reply will come from {target} to {message_type:?}: {reason} (message {message_id}; `mas audit show {message_id}` says what became of it)"
            );
        }
        write!(
            f,
            "no reply from {target} to {message_type:?} within {waited:.3?} (message {message_id}; `mas audit show {message_id}` says what became of it)"
        )
    }
}

impl AgentError {
    /// The contract's word for a refusal.
    pub fn detail(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.detail.as_str())
    }

    /// The refusal, where it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// Why a handler did not handle a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// Deliver it again: something passing. The server waits longer each time; in the end it is a dead letter.
    #[error("{0}")]
    Retry(String),
    /// It cannot be handled now, which is nobody's failure: deliver it again, and do not count the attempt.
    #[error("{reason}")]
    Later {
        /// Why not.
        reason: String,
        /// No sooner than this; the server waits longer each time.
        after: Duration,
    },
    /// To the dead letters: it cannot be handled.
    #[error("{0}")]
    Reject(String),
}

impl HandlerError {
    /// Another delivery may help.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry(reason.to_string())
    }

    /// Another delivery helps, no sooner than `after`; this one was no failure.
    pub fn later(reason: impl fmt::Display, after: Duration) -> Self {
        Self::Later { reason: reason.to_string(), after }
    }

    /// No delivery will help.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject(reason.to_string())
    }
}

/// What a failed call inside a handler means for the message in hand: `?` does the right thing.
impl From<AgentError> for HandlerError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Refused(refusal) if refusal.is_later() => {
                Self::later(&refusal.detail, refusal.retry_after.unwrap_or(LATER_DEFAULT))
            }
            AgentError::Refused(refusal) if refusal.detail == "version_mismatch" => {
                Self::retry(&refusal.detail)
            }
            AgentError::Refused(refusal) => Self::reject(format!("handler_error:{}", refusal.detail)),
            AgentError::NotConnected(_) => Self::later("not_connected", LATER_DEFAULT),
            AgentError::Unknown { .. } => Self::later("outcome_unknown", LATER_DEFAULT),
            AgentError::NoReply(_) => Self::retry("no_reply"),
            // Their texts may quote the payload.
            AgentError::Payload(_) => Self::reject("handler_error:payload"),
            AgentError::Unsupported(_) => Self::reject("handler_error:unsupported"),
            AgentError::Setup(_) => Self::reject("handler_error:setup"),
        }
    }
}
