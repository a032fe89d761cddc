//! A request, and its head taken from bytes. Pure.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
};
use rustls::pki_types::CertificateDer;

use super::host::{Authority, Hosts, check_origin};
use super::limits::MAX_HEADERS;
use super::refused::Refused;
use super::socket::Remote;
use super::target::Target;

/// Sent by browsers: how the page that made the request is related to this server.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The methods that are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the header fields alone.
    Head,
    /// Changes something.
    Post,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from.
    pub remote: Remote,
    /// The certificate that it has shown, verified as the TLS configuration asks for.
    pub certificate: Option<CertificateDer<'static>>,
}

/// A whole request that was found to be in order.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) peer: Arc<Peer>,
}

/// What a request is checked against.
#[derive(Debug)]
pub struct Rules {
    /// Hosts that are answered for.
    pub hosts: Arc<Hosts>,
    /// The address that the connection came to.
    pub local: IpAddr,
    /// Longest body, in bytes.
    pub body_bytes: usize,
}

/// What stands before the body.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub method: Method,
    pub target: Target,
    pub fields: HeaderMap,
    /// Whether another request may follow on the connection.
    pub keeps: bool,
    pub body_bytes: usize,
    /// Whether the client waits to be told that its body is wanted.
    pub asks_first: bool,
}

/// Fields and body may hold secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?} {:?} with {} bytes)", self.method(), self.path(), self.body.len())
    }
}

impl Request {
    /// Its method.
    pub fn method(&self) -> Method {
        self.head.method
    }

    /// Its path, decoded: begins with `/`, has no `.` or `..` as a segment, no empty segment but the last, no
    /// `%`, no backslash and no control character. A slash cannot be part of a segment: what may contain one
    /// belongs in the query.
    pub fn path(&self) -> &str {
        &self.head.target.path
    }

    /// The pairs of its query, decoded, in their order, without control characters.
    pub fn query(&self) -> &[(String, String)] {
        &self.head.target.query
    }

    /// The value of a name in the query; the first one where there are several.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query().iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header field; `None` where the field is missing, there twice, or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers().get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }

    /// All header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.fields
    }

    /// Its body; empty where it has none.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Who sent it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Head {
    /// Takes the head apart, its empty line included.
    pub(super) fn parse(bytes: &[u8], rules: &Rules) -> Result<Self, Refused> {
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut slots);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Refused::Malformed),
            Err(httparse::Error::TooManyHeaders) => return Err(Refused::HeadTooLarge),
            Err(httparse::Error::Version) => return Err(Refused::Version),
            Err(_) => return Err(Refused::Malformed),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refused::Malformed);
        };
        let is_1_0 = version == 0;
        let fields = header_map(parsed.headers)?;
        let body_bytes = body_bytes(&fields)?;
        let host = host(&fields, is_1_0)?;
        if host.as_ref().is_some_and(|host| !rules.hosts.allows(host, rules.local)) {
            return Err(Refused::WrongHost);
        }
        let method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => return Err(Refused::Method),
        };
        let target = Target::parse(target)?;
        if method == Method::Post {
            let values = |name| fields.get_all(name).iter().map(HeaderValue::as_bytes);
            check_origin(host.as_ref(), values(ORIGIN), values(SEC_FETCH_SITE))?;
        } else if body_bytes > 0 {
            return Err(Refused::BodyOfGet);
        }
        // HTTP/1.0 has no interim answers.
        let asks_first = !is_1_0 && asks_first(&fields)?;
        if body_bytes > rules.body_bytes {
            return Err(Refused::BodyTooLong);
        }
        let keeps = !is_1_0 && !asks_to_close(&fields);
        Ok(Self { method, target, fields, keeps, body_bytes, asks_first })
    }
}

fn header_map(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Refused> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Refused::Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Refused::Malformed)?;
        let _ = fields.append(name, value);
    }
    Ok(fields)
}

/// The length of the body, told once and in digits, or not at all.
fn body_bytes(fields: &HeaderMap) -> Result<usize, Refused> {
    if fields.contains_key(TRANSFER_ENCODING) {
        let both = fields.contains_key(CONTENT_LENGTH);
        return Err(if both { Refused::LengthAndEncoding } else { Refused::Encoding });
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(0) };
    let digits = length.as_bytes();
    if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refused::Length);
    }
    // A number that is too large for its type is too long as well.
    Ok(length.to_str().ok().and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX))
}

/// The host, which HTTP/1.0 does not ask for.
fn host(fields: &HeaderMap, is_1_0: bool) -> Result<Option<Authority>, Refused> {
    let mut hosts = fields.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if is_1_0 { Ok(None) } else { Err(Refused::Host) };
    };
    let host = host.to_str().ok().and_then(Authority::parse);
    if hosts.next().is_some() || host.is_none() { Err(Refused::Host) } else { Ok(host) }
}

fn asks_first(fields: &HeaderMap) -> Result<bool, Refused> {
    let expectations = fields.get_all(EXPECT);
    if expectations.iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refused::Expectation);
    }
    Ok(expectations.iter().next().is_some())
}

fn asks_to_close(fields: &HeaderMap) -> bool {
    let is_close = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"close");
    fields.get_all(CONNECTION).iter().any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_close))
}
