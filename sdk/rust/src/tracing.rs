//! Spans and metrics by OpenTelemetry's conventions for messaging, told to whatever provider the application has set
//! (`opentelemetry::global`); without one the API does nothing. The trace context stands in the message itself, so that the
//! receiver gets what the sender wrote, whatever is between them.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Instant;

use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, ContextGuard, KeyValue};

use crate::error::{AgentError, HandlerError};
use crate::protocol;
use crate::received::Received;

/// The name of the instrumentation.
const SCOPE: &str = "mas-agent";
/// Boundaries of the conventions for durations, in seconds.
const BOUNDARIES_S: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Longest word of a refusal; a text of gRPC's own is none.
const MAX_WORD: usize = 64;

const SYSTEM: &str = "messaging.system";
const OPERATION_NAME: &str = "messaging.operation.name";
const OPERATION_TYPE: &str = "messaging.operation.type";
const DESTINATION: &str = "messaging.destination.name";
const MESSAGE_ID: &str = "messaging.message.id";
const CONVERSATION_ID: &str = "messaging.message.conversation_id";
const CONSUMER_GROUP: &str = "messaging.consumer.group.name";
const CLIENT_ID: &str = "messaging.client.id";
const ERROR_TYPE: &str = "error.type";

/// What the span around a handler makes of the sender's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceParent {
    /// It links to it, from a trace of its own.
    #[default]
    Link,
    /// It is a child of it, and links to it.
    Parent,
}

/// What the calls and the handlers of one agent tell.
pub(crate) struct Tracing {
    tracer: BoxedTracer,
    duration: Histogram<f64>,
    process: Histogram<f64>,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    /// Of every span and metric.
    common: Vec<KeyValue>,
    instance: String,
    parent: TraceParent,
}

impl Tracing {
    /// Tells the providers that are set by now.
    pub(crate) fn new(addr: &str, instance: &str, parent: TraceParent) -> Self {
        let meter = global::meter(SCOPE);
        let mut common = vec![KeyValue::new(SYSTEM, "mas")];
        if let Some((host, port)) = addr.rsplit_once(':')
            && let Ok(port) = port.parse::<u16>()
        {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            common.push(KeyValue::new("server.address", host));
            common.push(KeyValue::new("server.port", i64::from(port)));
        }
        Self {
            tracer: global::tracer(SCOPE),
            duration: histogram(
                &meter,
                "messaging.client.operation.duration",
                "Duration of an operation that the agent began.",
            ),
            process: histogram(&meter, "messaging.process.duration", "Duration of handling a message."),
            sent: counter(&meter, "messaging.client.sent.messages", "Messages that the agent tried to send."),
            consumed: counter(
                &meter,
                "messaging.client.consumed.messages",
                "Messages that were handed to the agent's code.",
            ),
            common,
            instance: instance.to_owned(),
            parent,
        }
    }

    /// A message is sent. `waits`: for its reply.
    pub(crate) fn sending(
        &self,
        name: &'static str,
        target: &str,
        correlation_id: &str,
        waits: bool,
    ) -> Operation<'_> {
        let mut shared = self.shared(name, "send");
        if !target.is_empty() {
            shared.push(KeyValue::new(DESTINATION, target.to_owned()));
        }
        let mut own = Vec::new();
        if !correlation_id.is_empty() {
            own.push(KeyValue::new(CONVERSATION_ID, correlation_id.to_owned()));
        }
        let kind = if waits { SpanKind::Client } else { SpanKind::Producer };
        self.operation((named(name, target), kind), shared, own, (&Context::current(), None), &self.duration)
    }

    /// A handler of `agent` runs.
    pub(crate) fn processing(&self, agent: &str, received: &Received) -> Operation<'_> {
        let mut shared = self.shared("process", "process");
        shared.extend(consumer(agent));
        let wire = &received.wire;
        let mut own = vec![
            KeyValue::new(MESSAGE_ID, wire.message_id.clone()),
            KeyValue::new("mas.sender", wire.sender_id.clone()),
        ];
        own.extend(received.correlation_id().map(|id| KeyValue::new(CONVERSATION_ID, id.to_owned())));
        let created = creation_context(received);
        // Whatever was current when the agent was started is no parent of this.
        let parent = match (&created, self.parent) {
            (Some(created), TraceParent::Parent) => Context::new().with_remote_span_context(created.clone()),
            _ => Context::new(),
        };
        self.consumed.add(1, &shared);
        let how = (named("process", agent), SpanKind::Consumer);
        self.operation(how, shared, own, (&parent, created), &self.process)
    }

    fn shared(&self, name: &'static str, kind: &'static str) -> Vec<KeyValue> {
        let mut shared = vec![KeyValue::new(OPERATION_NAME, name), KeyValue::new(OPERATION_TYPE, kind)];
        shared.extend(self.common.iter().cloned());
        shared
    }

    fn operation<'a>(
        &'a self,
        (name, kind): (String, SpanKind),
        shared: Vec<KeyValue>,
        own: Vec<KeyValue>,
        (parent, link): (&Context, Option<SpanContext>),
        duration: &'a Histogram<f64>,
    ) -> Operation<'a> {
        let is_counted = matches!(kind, SpanKind::Consumer);
        let mut attributes = shared.clone();
        attributes.push(KeyValue::new(CLIENT_ID, self.instance.clone()));
        attributes.extend(own);
        let builder = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let builder = builder.with_links(link.map(Link::with_context).into_iter().collect());
        let span = self.tracer.build_with_context(builder, parent);
        Operation {
            tracing: self,
            context: parent.with_span(span),
            shared,
            began: Instant::now(),
            duration,
            is_counted,
        }
    }
}

/// One operation, until it is dropped.
pub(crate) struct Operation<'a> {
    tracing: &'a Tracing,
    context: Context,
    /// Of its span and of its metrics.
    shared: Vec<KeyValue>,
    began: Instant,
    duration: &'a Histogram<f64>,
    /// Its message is among those that were sent, or is none of them.
    is_counted: bool,
}

impl Operation<'_> {
    /// What begins while the guard lives is a child of it.
    pub(crate) fn enter(&self) -> ContextGuard {
        self.context.clone().attach()
    }

    /// `traceparent` and `tracestate` for its message; empty where nothing is traced.
    pub(crate) fn headers(&self) -> (String, String) {
        let span = self.context.span();
        let context = span.span_context();
        if !context.is_valid() {
            return Default::default();
        }
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        let parent = format!("00-{:032x}-{:016x}-{:02x}", context.trace_id(), context.span_id(), flags);
        (parent, context.trace_state().header())
    }

    /// The server has taken the message.
    pub(crate) fn accepted(
        &mut self,
        message_id: &str,
        correlation_id: &str,
        receipt: Option<&protocol::Receipt>,
    ) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new(MESSAGE_ID, message_id.to_owned()));
        if !correlation_id.is_empty() {
            span.set_attribute(KeyValue::new(CONVERSATION_ID, correlation_id.to_owned()));
        }
        if let Some(receipt) = receipt {
            span.set_attribute(KeyValue::new("mas.receipt.lane", receipt.lane.clone()));
            let sequence = i64::try_from(receipt.sequence).unwrap_or(i64::MAX);
            span.set_attribute(KeyValue::new("mas.receipt.sequence", sequence));
        }
        self.count();
    }

    /// The reply has come.
    pub(crate) fn answered(&self, agent: &str, reply: &Received) {
        if let Some(created) = creation_context(reply) {
            self.context.span().add_link(created, Vec::new());
        }
        let mut attributes = vec![KeyValue::new(OPERATION_NAME, "receive")];
        attributes.extend(consumer(agent));
        attributes.extend(self.tracing.common.iter().cloned());
        self.tracing.consumed.add(1, &attributes);
    }

    /// It failed.
    pub(crate) fn failed(&mut self, error: &AgentError) {
        // These leave nothing of it: it was not sent.
        if !matches!(
            error,
            AgentError::NotConnected(_)
                | AgentError::Setup(_)
                | AgentError::Payload(_)
                | AgentError::Unsupported(_)
        ) {
            self.count();
        }
        let kind = match error {
            AgentError::Refused(refusal) => {
                Cow::Owned(if is_word(&refusal.detail) { &refusal.detail } else { &refusal.code }.clone())
            }
            AgentError::Unknown { .. } => Cow::Borrowed("outcome_unknown"),
            AgentError::NotConnected(_) => Cow::Borrowed("not_connected"),
            AgentError::NoReply(_) => Cow::Borrowed("no_reply"),
            AgentError::Payload(_) => Cow::Borrowed("payload"),
            AgentError::Unsupported(_) => Cow::Borrowed("unsupported"),
            AgentError::Setup(_) => Cow::Borrowed("setup"),
        };
        let text = match error {
            // It may quote the payload.
            AgentError::Payload(_) => "the payload cannot be written or read".to_owned(),
            // Ids and places are in attributes, or in nobody's spans.
            AgentError::Refused(refusal) => format!("refused: {} ({})", refusal.detail, refusal.code),
            other => other.to_string(),
        };
        self.fails(kind, text);
    }

    /// The handler is through.
    /// `committed`: a commit has acknowledged the message, whatever its handler said afterwards.
    pub(crate) fn settled(&mut self, outcome: &Result<(), HandlerError>, committed: bool) {
        let (word, failure) = match outcome {
            Ok(()) => ("ack", None),
            Err(HandlerError::Later { reason, .. }) => ("later", Some(("later", reason))),
            Err(HandlerError::Retry(reason)) => ("nack", Some(("retry", reason))),
            Err(HandlerError::Reject(reason)) => ("dead", Some(("reject", reason))),
        };
        let word = if committed { "ack" } else { word };
        self.context.span().set_attribute(KeyValue::new("mas.outcome", word));
        if let Some((kind, reason)) = failure {
            let text = match reason.starts_with("handler_error:payload:") {
                // It may quote the payload.
                true => "the payload is not what the handler takes".to_owned(),
                false => reason.clone(),
            };
            self.fails(Cow::Borrowed(kind), text);
        }
    }

    fn fails(&mut self, kind: Cow<'static, str>, text: String) {
        let attribute = KeyValue::new(ERROR_TYPE, kind);
        let span = self.context.span();
        span.set_attribute(attribute.clone());
        span.set_status(Status::error(text));
        self.shared.push(attribute);
    }

    fn count(&mut self) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.tracing.sent.add(1, &self.shared);
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.duration.record(self.began.elapsed().as_secs_f64(), &self.shared);
        self.context.span().end();
    }
}

fn histogram(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    let builder = meter.f64_histogram(name).with_unit("s").with_description(description);
    builder.with_boundaries(BOUNDARIES_S.to_vec()).build()
}

fn counter(meter: &Meter, name: &'static str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_unit("{message}").with_description(description).build()
}

fn named(operation: &str, target: &str) -> String {
    if target.is_empty() { operation.to_owned() } else { format!("{operation} {target}") }
}

/// The instances of an agent are the group that shares its inbox.
fn consumer(agent: &str) -> [KeyValue; 2] {
    [KeyValue::new(DESTINATION, agent.to_owned()), KeyValue::new(CONSUMER_GROUP, agent.to_owned())]
}

/// Refusals' words are those of the contract, and few.
fn is_word(detail: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !detail.is_empty() && detail.len() <= MAX_WORD && detail.chars().all(fits)
}

/// The context in which a message was sent; `None`: there is none, or none that can be read.
fn creation_context(received: &Received) -> Option<SpanContext> {
    let meta = &received.wire.meta;
    let state = meta.tracestate.as_deref().and_then(|state| TraceState::from_str(state).ok());
    parse(meta.traceparent.as_deref()?, state.unwrap_or_default())
}

/// Reads a `traceparent`, of this version or of a later one.
fn parse(parent: &str, state: TraceState) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let fits = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !fits || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context =
        SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |text: &str| parse(text, TraceState::default());
        let context = read(good).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(read(&good.replacen("00", "01", 1).replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good.replacen("00", "ff", 1),
            &format!("{good}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_no_traceparent_panics(text in "[0-9a-f-]{0,60}|\\PC{0,40}") {
            let _ = parse(&text, TraceState::default());
        }
    }
}
