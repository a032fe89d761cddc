//! Spans as messages of OTLP, named as the semantic conventions of messaging have it.

use protobuf::MessageField;
use uuid::Uuid;

use super::attributes::{number, text};
use crate::audit::record::REPETITION_RULE;
use crate::ids::hex;
use crate::otlp::{
    ExportTraces, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span as OtlpSpan, SpanEvent,
    SpanKind, SpanLink, SpanStatus, SpanStatusCode,
};
use crate::shard::desk::spans::{CallSpan, DeliverySpan, Span, call_span_of, trace_of};

/// One export.
pub(super) fn export(spans: &[Span], resource: &Resource, scope: Scope) -> ExportTraces {
    let spans = spans.iter().map(|span| match span {
        Span::Call(span) => call(span),
        Span::Delivery(span) => delivery(span),
    });
    let scope_spans =
        ScopeSpans { scope: MessageField::some(scope), spans: spans.collect(), ..ScopeSpans::default() };
    let resource_spans = ResourceSpans {
        resource: MessageField::some(resource.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraces { resource_spans: vec![resource_spans], ..ExportTraces::default() }
}

fn ns(us: u64) -> u64 {
    us.saturating_mul(1000)
}

fn event(name: &str, at_us: u64) -> SpanEvent {
    SpanEvent { time_unix_nano: ns(at_us), name: name.to_owned(), ..SpanEvent::default() }
}

fn failed(message: &str) -> MessageField<SpanStatus> {
    MessageField::some(SpanStatus {
        message: message.to_owned(),
        code: SpanStatusCode::SPAN_STATUS_ERROR.into(),
        ..SpanStatus::default()
    })
}

/// What every span of a message says.
fn of_message(operation: &str, kind: &str, destination: &str, message: Uuid) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "mas"),
        text("messaging.operation.name", operation),
        text("messaging.operation.type", kind),
        text("messaging.destination.name", destination),
        text("messaging.message.id", &message.to_string()),
    ]
}

/// A repetition of a call has the message of the first one, and is a span of its own.
fn id_of_call(span: &CallSpan) -> [u8; 8] {
    match span.rule == REPETITION_RULE {
        true => Uuid::new_v4().as_u64_pair().1.to_be_bytes(),
        false => call_span_of(span.message_id),
    }
}

/// From the arrival of a call to its commit: a child of the sender's span.
fn call(span: &CallSpan) -> OtlpSpan {
    let mut attributes = of_message(span.operation, "send", &span.target, span.message_id);
    attributes.extend([
        text("mas.sender", span.sender.as_str()),
        text("mas.sender.instance", span.instance.as_str()),
        text("mas.decision", span.decision),
        text("mas.rule", &span.rule),
        text("mas.policy_version", &hex(&span.policy_version)),
        text("mas.receipt.lane", &span.lane),
        number("mas.receipt.sequence", span.seq),
    ]);
    if !span.correlation_id.is_empty() {
        attributes.push(text("messaging.message.conversation_id", &span.correlation_id));
    }
    let mut status = MessageField::none();
    if let Some(refusal) = span.refusal {
        attributes.push(text("error.type", refusal));
        status = failed(refusal);
    }
    OtlpSpan {
        trace_id: trace_of(span.context.as_ref(), span.message_id).to_vec(),
        span_id: id_of_call(span).to_vec(),
        parent_span_id: span.context.map(|context| context.span.to_vec()).unwrap_or_default(),
        name: format!("{} {}", span.operation, span.target),
        kind: SpanKind::SPAN_KIND_SERVER.into(),
        start_time_unix_nano: ns(span.arrived_us),
        end_time_unix_nano: ns(span.committed_us.max(span.arrived_us)),
        attributes,
        events: vec![event("decided", span.decided_us), event("committed", span.committed_us)],
        status,
        ..OtlpSpan::default()
    }
}

/// From handing a message over to its settlement: in the sender's trace, with a link to its call. Links, not parents, stand
/// between a call and what follows from it; where the sender traces nothing the call is all there is to belong to.
fn delivery(span: &DeliverySpan) -> OtlpSpan {
    let call = call_span_of(span.message_id).to_vec();
    let trace_id = trace_of(span.context.as_ref(), span.message_id).to_vec();
    let mut attributes = of_message("deliver", "process", span.agent.as_str(), span.message_id);
    attributes.extend([
        text("messaging.consumer.group.name", span.agent.as_str()),
        text("mas.receiver.instance", span.instance.as_str()),
        number("mas.attempt", u64::from(span.attempt)),
        text("mas.outcome", span.outcome),
    ]);
    let mut status = MessageField::none();
    if span.outcome != "ack" {
        attributes.push(text("error.type", span.outcome));
        status = failed(&span.reason);
    }
    // Each delivery of a message has a span of its own.
    let (_, own) = Uuid::new_v4().as_u64_pair();
    OtlpSpan {
        links: vec![SpanLink { trace_id: trace_id.clone(), span_id: call.clone(), ..SpanLink::default() }],
        trace_id,
        span_id: own.to_be_bytes().to_vec(),
        parent_span_id: span.context.map_or(call, |context| context.span.to_vec()),
        name: format!("deliver {}", span.agent),
        kind: SpanKind::SPAN_KIND_INTERNAL.into(),
        start_time_unix_nano: ns(span.delivered_us),
        end_time_unix_nano: ns(span.settled_us.max(span.delivered_us)),
        attributes,
        status,
        ..OtlpSpan::default()
    }
}
