//! What a sender wants forwarded: all of it that the receiver will see. What is searched for personal data and secrets, and what
//! is delivered, is one value, so that nothing can be delivered that was not searched.

use crate::clock::Now;

/// Longest `tracestate`, in bytes, and its most members, as W3C Trace Context has them.
pub const MAX_TRACE_STATE_BYTES: usize = 512;
const MAX_TRACE_MEMBERS: usize = 32;
/// Bytes of a `traceparent`.
const TRACE_PARENT_BYTES: usize = 55;

/// Texts beside the payload that a receiver sees.
pub const BESIDE: usize = 2;

/// A message's content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Content<'a> {
    /// Free text of the sender.
    pub message_type: &'a str,
    /// The payload: a checked JSON object, or empty.
    pub data_json: &'a str,
    /// W3C trace context of the sender.
    pub trace: Option<&'a Trace>,
}

impl<'a> Content<'a> {
    /// The payload as it is delivered: an empty one is an empty object.
    pub fn payload(&self) -> &'a str {
        if self.data_json.is_empty() { "{}" } else { self.data_json }
    }

    /// The texts beside the payload that the receiver sees and the sender is free to choose, by the name of their place.
    pub fn texts(&self) -> [(&'static str, &'a str); BESIDE] {
        let state = self.trace.and_then(|trace| trace.state.as_deref()).unwrap_or_default();
        [(MESSAGE_TYPE, self.message_type), (TRACE_STATE, state)]
    }
}

/// Names of places beside the payload. They do not begin with `/`, as no RFC 6901 pointer to a member does.
pub const MESSAGE_TYPE: &str = "message_type";
/// The trace state.
pub const TRACE_STATE: &str = "tracestate";

/// W3C trace context, as the sender gave it: in its grammar, or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`.
    pub state: Option<String>,
    /// When the request came, Unix microseconds.
    pub arrived_us: u64,
}

impl Trace {
    /// From two optional header values. What is not in the grammar of W3C Trace Context is left out, and without a parent there is
    /// no state.
    pub fn from_headers(parent: Option<&[u8]>, state: Option<&[u8]>) -> Option<Self> {
        let parent = std::str::from_utf8(parent?).ok().filter(|parent| is_trace_parent(parent.as_bytes()))?;
        let state =
            state.filter(|state| is_trace_state(state)).and_then(|state| std::str::from_utf8(state).ok());
        Some(Self {
            parent: parent.to_owned(),
            state: state.map(str::to_owned),
            arrived_us: Now::read().unix_us,
        })
    }
}

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
fn is_trace_parent(text: &[u8]) -> bool {
    let hex = |part: Option<&[u8]>| {
        part.is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let any = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().any(|b| *b != b'0'));
    let dashes = [2, 35, 52].iter().all(|place| text.get(*place) == Some(&b'-'));
    text.len() == TRACE_PARENT_BYTES
        && dashes
        && hex(text.get(..2))
        && text.get(..2) != Some(b"ff")
        && hex(text.get(3..35))
        && any(text.get(3..35))
        && hex(text.get(36..52))
        && any(text.get(36..52))
        && hex(text.get(53..))
}

/// `congo=t61rcWkgMzE,rojo=00f067aa0ba902b7`.
fn is_trace_state(text: &[u8]) -> bool {
    let key = |key: &[u8]| {
        let first = key.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = |b: &u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@')
        };
        first && key.len() <= 256 && key.iter().all(rest)
    };
    let value = |value: &[u8]| {
        let plain = |b: &u8| (0x20..0x7f).contains(b) && !matches!(b, b',' | b'=');
        !value.is_empty() && value.len() <= 256 && value.iter().all(plain) && value.last() != Some(&b' ')
    };
    let mut members = 0;
    let fits = text.split(|b| *b == b',').all(|member| {
        members += 1;
        let member = member.trim_ascii();
        let Some(equals) = memchr::memchr(b'=', member) else { return member.is_empty() };
        let (name, rest) = member.split_at(equals);
        key(name) && rest.split_first().is_some_and(|(_, rest)| value(rest))
    });
    fits && members <= MAX_TRACE_MEMBERS && text.len() <= MAX_TRACE_STATE_BYTES && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_the_grammar_of_trace_context_passes() {
        assert!(is_trace_parent(PARENT.as_bytes()));
        for other in [
            "card 4111111111111111 cvv 123",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "",
        ] {
            assert!(!is_trace_parent(other.as_bytes()), "{other}");
        }
        for state in ["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "a=1", "tenant@vendor=x y", "a=1, ,b=2"] {
            assert!(is_trace_state(state.as_bytes()), "{state}");
        }
        for other in ["password hunter2", "A=1", "a=", "a=1=2", "a=\u{e9}", "", "=1"] {
            assert!(!is_trace_state(other.as_bytes()), "{other}");
        }
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert!(!is_trace_state(many.as_bytes()));
    }

    #[test]
    fn without_a_parent_there_is_no_state() {
        assert_eq!(Trace::from_headers(None, Some(b"a=1")), None);
        let trace = Trace::from_headers(Some(PARENT.as_bytes()), Some(b"not in its grammar")).unwrap();
        assert_eq!((trace.parent.as_str(), trace.state), (PARENT, None));
    }
}
