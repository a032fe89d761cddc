//! Why the server itself answers a request, and with which status.

use http::StatusCode;

/// What is wrong with a request, or with the moment it came in. Its text is what the peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no HTTP/1 request.
    #[error("the request is malformed")]
    Malformed,
    /// Its path or query cannot be taken for one thing only.
    #[error("the path or query is not acceptable")]
    Target,
    /// No Host header, more than one, or none that names a host.
    #[error("exactly one Host header is required")]
    Host,
    /// A Content-Length that is no number, or more than one.
    #[error("the Content-Length is malformed")]
    Length,
    /// Two ways to tell where the body ends.
    #[error("Content-Length and Transfer-Encoding exclude each other")]
    LengthAndEncoding,
    /// A body where none belongs.
    #[error("a GET or HEAD request has no body")]
    BodyOfGet,
    /// A page of another origin has sent it.
    #[error("requests of other origins are refused")]
    Origin,
    /// Its method is not one of [`super::Method`].
    #[error("only GET, HEAD and POST are answered")]
    Method,
    /// It did not arrive in time.
    #[error("the request took too long")]
    Slow,
    /// Its body is longer than the limit.
    #[error("the body is too long")]
    BodyTooLong,
    /// Its first line alone is longer than the limit.
    #[error("the request line is too long")]
    TargetTooLong,
    /// It expects something other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// It is meant for a host that this is not.
    #[error("this server is not that host")]
    WrongHost,
    /// Its header fields are too long or too many.
    #[error("the header fields are too large")]
    HeadTooLarge,
    /// The service panicked.
    #[error("the request failed")]
    Failed,
    /// It has a Transfer-Encoding.
    #[error("Transfer-Encoding is not supported")]
    Encoding,
    /// No place for one more connection.
    #[error("too many connections")]
    Full,
    /// No place for one more event stream.
    #[error("too many event streams")]
    StreamsFull,
    /// Its version is not 1.0 or 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl Refused {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed
            | Self::Target
            | Self::Host
            | Self::Length
            | Self::LengthAndEncoding
            | Self::BodyOfGet => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Encoding => StatusCode::NOT_IMPLEMENTED,
            Self::Full | Self::StreamsFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}
