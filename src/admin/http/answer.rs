//! Answers, and their bytes. Pure. What frames an answer and what tells browsers how to treat it is set here, and a
//! service cannot change it.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, RETRY_AFTER,
};

use super::events::EventSource;
use super::refused::Refused;
use super::request::{Method, Request};

/// What every answer says.
const FIXED: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];
/// What frames an answer: not a service's to say.
const FRAMING: &[&str] =
    &["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// What a service answers.
pub enum Answer {
    /// Bytes.
    Content(Content),
    /// Server-sent events, until either side ends them. The connection then has its place among the streams.
    Events(Box<dyn EventSource>),
}

/// An answer that is there as a whole.
#[derive(Debug, Clone)]
pub struct Content {
    status: StatusCode,
    fields: HeaderMap,
    body: Body,
}

/// The bytes of a body.
#[derive(Debug, Clone)]
pub enum Body {
    /// Embedded in the program, or made for this answer.
    Own(Cow<'static, [u8]>),
    /// Shared with other answers.
    Shared(Arc<[u8]>),
}

/// Names one state of a resource: a client that has it is not sent it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(HeaderValue);

impl ETag {
    /// `None` unless `tag` is made of letters, digits, `-`, `_` and `.`.
    pub fn new(tag: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let plain = !tag.is_empty() && tag.bytes().all(is_plain);
        if plain { HeaderValue::from_str(&format!("\"{tag}\"")).ok().map(Self) } else { None }
    }
}

impl Content {
    /// An answer of that type. A status below 200 is none that a service can give, and becomes 500.
    pub fn new(status: StatusCode, content_type: HeaderValue, body: impl Into<Body>) -> Self {
        let status = if status.is_informational() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        let mut fields = HeaderMap::new();
        let _ = fields.insert(CONTENT_TYPE, content_type);
        Self { status, fields, body: body.into() }
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<Body>) -> Self {
        Self::new(status, HeaderValue::from_static("text/plain; charset=utf-8"), text)
    }

    /// JSON that was written before.
    pub fn json(status: StatusCode, json: impl Into<Body>) -> Self {
        Self::new(status, HeaderValue::from_static("application/json"), json)
    }

    /// Adds a header field. Those that frame an answer, and those that every answer has, are left out when it is
    /// written; `Cache-Control` replaces `no-store`.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        let _ = self.fields.append(name, value);
        self
    }

    /// Names its state: a GET or HEAD request by a client that has it is answered with 304.
    #[must_use]
    pub fn with_etag(mut self, etag: ETag) -> Self {
        let _ = self.fields.insert(ETAG, etag.0);
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Own(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }

    /// Turns it into 304 where the client has it already.
    pub(super) fn unless_known(mut self, request: &Request) -> Self {
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let known = self.fields.get(ETAG).is_some_and(|etag| {
            request.headers().get_all(IF_NONE_MATCH).iter().any(|tags| is_among(etag, tags))
        });
        if reads && known && self.status == StatusCode::OK {
            self.status = StatusCode::NOT_MODIFIED;
            let _ = self.fields.remove(CONTENT_TYPE);
            self.body = Body::Own(Cow::Borrowed(b""));
        }
        self
    }

    /// The bytes of its head.
    pub(super) fn head(&self, keeps: bool) -> Vec<u8> {
        let length = self.has_body().then(|| self.body().len());
        head(self.status, &self.fields, length, keeps)
    }

    /// Whether its status allows one.
    pub(super) fn has_body(&self) -> bool {
        !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

impl From<Content> for Answer {
    fn from(content: Content) -> Self {
        Self::Content(content)
    }
}

impl From<Refused> for Content {
    fn from(refused: Refused) -> Self {
        let content = Self::text(refused.status(), format!("{refused}\n"));
        match refused {
            Refused::Method => content.with(ALLOW, HeaderValue::from_static("GET, HEAD, POST")),
            Refused::Full | Refused::StreamsFull => content.with(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => content,
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Own(Cow::Owned(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Own(Cow::Borrowed(bytes))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Cow<'static, [u8]>> for Body {
    fn from(bytes: Cow<'static, [u8]>) -> Self {
        Self::Own(bytes)
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

/// The head of a stream of events: it ends with its connection.
pub(super) fn events_head() -> Vec<u8> {
    let mut fields = HeaderMap::new();
    let _ = fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    head(StatusCode::OK, &fields, None, false)
}

fn head(status: StatusCode, fields: &HeaderMap, length: Option<usize>, keeps: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    let mut line = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let is_ours = |name: &str| FRAMING.contains(&name) || FIXED.iter().any(|(fixed, _)| *fixed == name);
    for (name, value) in fields.iter().filter(|(name, _)| !is_ours(name.as_str())) {
        line(name.as_str(), value.as_bytes());
    }
    if !fields.contains_key(CACHE_CONTROL) {
        line(CACHE_CONTROL.as_str(), b"no-store");
    }
    for (name, value) in FIXED {
        line(name, value.as_bytes());
    }
    if let Some(length) = length {
        line(CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
    }
    if !keeps {
        line(CONNECTION.as_str(), b"close");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether an `If-None-Match` names that tag. Tags of others may be cut at their commas; ours have none.
fn is_among(etag: &HeaderValue, tags: &HeaderValue) -> bool {
    let is_it = |tag: &[u8]| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    };
    tags.as_bytes().split(|byte| *byte == b',').any(is_it)
}

#[cfg(test)]
mod tests;
