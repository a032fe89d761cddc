//! Why there is no answer.

use ::http::StatusCode;
use ::http::header::{HeaderValue, RETRY_AFTER};
use serde_json::{Value as Json, json};

use crate::admin::http::Content;
use crate::archive::ArchiveError;
use crate::history::HistoryError;
use crate::store::StoreError;

/// After how many seconds it is worth asking again where too much is asked at once.
const BUSY_S: &str = "1";
/// And where Redis does not answer.
const AWAY_S: &str = "2";

/// What a topic answers.
pub(super) type Answered = Result<Json, Problem>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Problem {
    /// What is wrong with what was asked.
    Asked(String),
    /// Who asks may not.
    Forbidden(&'static str),
    /// There is no such thing.
    Missing(String),
    /// Too much is asked at once.
    Busy,
    /// Redis does not answer.
    Away(String),
    /// Something here cannot be read.
    Unreadable(String),
}

impl Problem {
    /// It as an answer.
    pub(super) fn content(self) -> Content {
        let (status, why, again) = match self {
            Self::Asked(why) => (StatusCode::BAD_REQUEST, why, None),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, why.to_owned(), None),
            Self::Missing(why) => (StatusCode::NOT_FOUND, why, None),
            Self::Busy => {
                let why = "too many searches at once: try again in a second".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, why, Some(BUSY_S))
            }
            Self::Away(why) => (StatusCode::SERVICE_UNAVAILABLE, why, Some(AWAY_S)),
            Self::Unreadable(why) => (StatusCode::INTERNAL_SERVER_ERROR, why, None),
        };
        let content = Content::json(status, format!("{}\n", json!({"error": why})));
        match again {
            Some(seconds) => content.with(RETRY_AFTER, HeaderValue::from_static(seconds)),
            None => content,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Store(error) => error.into(),
            HistoryError::Asked(why) => Self::Asked(why),
            error => Self::Unreadable(error.to_string()),
        }
    }
}
