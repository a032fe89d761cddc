//! What is traced of messages, for OpenTelemetry: calls from their arrival to their commit, deliveries from handing over to
//! their settlement. Workers hand finished spans to a thread that exports them; what there is no room for is dropped and
//! counted. A message that is not sampled costs a look at its trace context and no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use memchr::memmem::rfind;
use uuid::Uuid;

use crate::ids::{AgentId, InstanceId};

/// Spans that may wait for their export.
const MAX_WAITING: usize = 8192;
/// Where an envelope has its trace context; the last such place is the server's own.
const TRACEPARENT: &[u8] = b",\"traceparent\":";
/// Length of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A W3C trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span of whoever sent it.
    pub span: [u8; 8],
    /// Whether whoever began the trace keeps it.
    pub sampled: bool,
}

impl Context {
    /// Reads a `traceparent`; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex_bytes::<1>(bytes.get(..2)?)?;
        let whole = bytes.len() == TRACEPARENT_BYTES
            || (version != [0] && bytes.get(TRACEPARENT_BYTES) == Some(&b'-'));
        let dashes = [2, 35, 52].into_iter().all(|at| bytes.get(at) == Some(&b'-'));
        if !whole || !dashes || version == [0xff] {
            return None;
        }
        let trace = hex_bytes::<16>(bytes.get(3..35)?)?;
        let span = hex_bytes::<8>(bytes.get(36..52)?)?;
        let [flags] = hex_bytes::<1>(bytes.get(53..55)?)?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// That of a stored envelope.
    pub fn of_envelope(json: &str) -> Option<Self> {
        let at = rfind(json.as_bytes(), TRACEPARENT)? + TRACEPARENT.len();
        let text = json.get(at..)?.strip_prefix('"')?;
        Self::parse(text.get(..text.find('"')?)?)
    }
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex_bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: &u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// The span of a message's call: known wherever its id is.
pub fn call_span_of(message: Uuid) -> [u8; 8] {
    // Never all zero: the first bit says which kind of UUID it is.
    message.as_u64_pair().1.to_be_bytes()
}

/// The trace of a message: its sender's, else one of its own, named by its id.
pub fn trace_of(context: Option<&Context>, message: Uuid) -> [u8; 16] {
    context.map_or_else(|| message.into_bytes(), |context| context.trace)
}

/// A call that was decided: from its arrival to the answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpan {
    /// The sender's context.
    pub context: Option<Context>,
    /// `send`, `request` or `reply`.
    pub operation: &'static str,
    /// Who sent it.
    pub sender: AgentId,
    /// From which instance.
    pub instance: InstanceId,
    /// Whom it was for, as the sender gave it.
    pub target: String,
    /// The message.
    pub message_id: Uuid,
    /// The request that it belongs to; empty: none.
    pub correlation_id: String,
    /// The decision.
    pub decision: &'static str,
    /// The rule that decided.
    pub rule: String,
    /// What the sender was told, where it was refused.
    pub refusal: Option<&'static str>,
    /// The configuration in force.
    pub policy_version: [u8; 32],
    /// The audit lane of its record.
    pub lane: String,
    /// The record's sequence in it.
    pub seq: u64,
    /// When it arrived, Unix microseconds.
    pub arrived_us: u64,
    /// When it was decided.
    pub decided_us: u64,
    /// When it was committed.
    pub committed_us: u64,
}

/// A delivery: from handing it over to its settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySpan {
    /// The sender's context.
    pub context: Option<Context>,
    /// Whose inbox.
    pub agent: AgentId,
    /// Who was given it.
    pub instance: InstanceId,
    /// The message.
    pub message_id: Uuid,
    /// Which delivery of it.
    pub attempt: u32,
    /// `ack`, `nack`, `later`, `dead` or `lost`.
    pub outcome: &'static str,
    /// What the receiver said of a failure.
    pub reason: String,
    /// When it was handed over, Unix microseconds.
    pub delivered_us: u64,
    /// When it was settled.
    pub settled_us: u64,
}

/// A finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Of a call.
    Call(Box<CallSpan>),
    /// Of a delivery.
    Delivery(Box<DeliverySpan>),
}

/// Where workers hand in spans, and which ones.
#[derive(Debug)]
pub struct Tracer {
    /// A message without a trace is kept where the last 32 bits of its id are below it.
    below: u64,
    line: Sender<Span>,
    dropped: AtomicU64,
    exported: AtomicU64,
}

impl Tracer {
    /// Keeps that share of the messages whose senders trace nothing, and all whose senders keep their trace.
    pub fn new(ratio: f64) -> (Self, Receiver<Span>) {
        let (line, spans) = bounded(MAX_WAITING);
        let below = (ratio * (u64::from(u32::MAX) + 1) as f64) as u64;
        (Self { below, line, dropped: AtomicU64::new(0), exported: AtomicU64::new(0) }, spans)
    }

    /// Whether a message is traced.
    pub fn keeps(&self, context: Option<&Context>, message: Uuid) -> bool {
        match context {
            Some(context) => context.sampled,
            // The first ones count up within a millisecond; these are random.
            None => message.as_u64_pair().1 & u64::from(u32::MAX) < self.below,
        }
    }

    /// Hands in a span.
    pub fn finish(&self, span: Span) {
        if let Err(TrySendError::Full(_)) = self.line.try_send(span) {
            self.drop_one();
        }
    }

    /// A span that there was no room for.
    pub fn drop_one(&self) {
        let _ = self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// So many were exported.
    pub fn exported(&self, count: usize) {
        let _ = self.exported.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So many could not be exported.
    pub fn lost(&self, count: usize) {
        let _ = self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Spans by what became of them: exported, and dropped.
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("exported", read(&self.exported)), ("dropped", read(&self.dropped))]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_as_w3c_says() {
        let context = Context::parse(PARENT).unwrap();
        assert_eq!(context.span, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(context.sampled && !Context::parse(&PARENT.replace("-01", "-00")).unwrap().sampled);
        // A later version may have more behind it.
        assert!(Context::parse(&format!("cc{}-what", &PARENT[2..])).is_some());
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-x"),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_envelope_has_its_own_context_and_not_that_of_its_payload() {
        let envelope = |payload: &str, parent: &str| {
            format!(
                "{{\"data\":{{\"a\":1,\"traceparent\":\"{payload}\"}},\"meta\":{{\"is\":1,\"traceparent\":{parent},\"tracestate\":null}}}}"
            )
        };
        let quoted = format!("\"{PARENT}\"");
        assert_eq!(Context::of_envelope(&envelope("x", &quoted)), Context::parse(PARENT));
        assert_eq!(Context::of_envelope(&envelope(PARENT, "null")), None);
        assert_eq!(Context::of_envelope("{}"), None);
    }

    #[test]
    fn a_ratio_is_kept_and_a_sender_decides_for_its_own() {
        let kept = |ratio: f64| {
            let (tracer, _spans) = Tracer::new(ratio);
            (0..10_000).filter(|_| tracer.keeps(None, Uuid::now_v7())).count()
        };
        assert_eq!((kept(0.0), kept(1.0)), (0, 10_000));
        let some = kept(0.1);
        assert!((800..1200).contains(&some), "{some}");
        let (tracer, _spans) = Tracer::new(0.0);
        assert!(tracer.keeps(Context::parse(PARENT).as_ref(), Uuid::now_v7()));
        let (tracer, _spans) = Tracer::new(1.0);
        assert!(!tracer.keeps(Context::parse(&PARENT.replace("-01", "-00")).as_ref(), Uuid::now_v7()));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}|[0-9a-f-]{50,60}") {
            let _ = Context::parse(&text);
            let _ = Context::of_envelope(&text);
            let _ = Context::of_envelope(&format!(",\"traceparent\":\"{text}"));
        }
    }
}
