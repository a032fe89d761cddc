//! What the client library tells OpenTelemetry, with the published SDK as the application's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mas_agent::{Agent, AgentError, Builder, Credentials, HandlerError, TraceParent};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::json;

use crate::support::{Server, World, until};

/// Both keep what they are given; other tests of this process tell them, too.
#[derive(Debug, Clone, Default)]
struct Kept {
    spans: Arc<Mutex<Vec<SpanData>>>,
    /// By name and destination, how many values.
    counts: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.spans.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl PushMetricExporter for Kept {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut counts = self.counts.lock().unwrap();
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let key = |attributes: &[KeyValue]| {
                let found = attributes.iter().find(|one| one.key.as_str() == "messaging.destination.name");
                (metric.name().to_owned(), found.map(|one| one.value.to_string()).unwrap_or_default())
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    for point in sum.data_points() {
                        *counts.entry(key(&point.attributes().cloned().collect::<Vec<_>>())).or_default() =
                            point.value();
                    }
                }
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    for point in histogram.data_points() {
                        *counts.entry(key(&point.attributes().cloned().collect::<Vec<_>>())).or_default() =
                            point.count();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// The application's providers, once for the process; they hold what they were told.
fn providers() -> &'static (Kept, SdkMeterProvider) {
    static PROVIDERS: OnceLock<(Kept, SdkMeterProvider)> = OnceLock::new();
    PROVIDERS.get_or_init(|| {
        let kept = Kept::default();
        let tracers = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        opentelemetry::global::set_tracer_provider(tracers);
        let reader = PeriodicReader::builder(kept.clone()).with_interval(Duration::from_secs(3600)).build();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        opentelemetry::global::set_meter_provider(meters.clone());
        (kept, meters)
    })
}

fn agent(world: &World, server: &Server, name: &str) -> Builder {
    let (cert, key) = world.certificate(name);
    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    Agent::builder(&server.addr, Credentials::from_pem(ca, cert, key).unwrap())
}

fn of(span: &SpanData, name: &str) -> String {
    span.attributes
        .iter()
        .find(|one| one.key.as_str() == name)
        .map(|one| one.value.to_string())
        .unwrap_or_default()
}

/// The spans that name this agent as sender or destination, by name; each name must be there once.
fn spans(kept: &Kept, agents: &[&str]) -> BTreeMap<String, SpanData> {
    let mut found = BTreeMap::new();
    for span in kept.spans.lock().unwrap().iter() {
        if agents.iter().any(|agent| span.name.ends_with(&format!(" {agent}"))) {
            let before = found.insert(span.name.to_string(), span.clone());
            assert!(before.is_none(), "twice: {}", span.name);
        }
    }
    found
}

const AGENTS: &str = "\
permissions:
  - {type: allow_bidirectional, agents: [asker, solver]}
  - {type: allow, sender: solver, targets: [keeper]}
agents: [{agent_id: asker}, {agent_id: solver}, {agent_id: keeper}]
";

#[test]
fn one_trace_goes_from_a_request_through_its_handlers_to_its_reply() {
    let (kept, meters) = providers();
    let world = World::with(AGENTS, "");
    let server = world.server();
    let keeper = agent(&world, &server, "keeper").on_any(|_| Ok(())).connect().unwrap();
    let solver = agent(&world, &server, "solver")
        .trace_parent(TraceParent::Parent)
        .on_any(|message| {
            message.send("keeper", "note", &json!({}))?;
            message.reply("sum", &json!({"sum": 3}))?;
            Ok(())
        })
        .connect()
        .unwrap();
    let asker = agent(&world, &server, "asker").connect().unwrap();
    let reply = asker.request("solver", "add", &json!({"a": 1}), Duration::from_secs(20)).unwrap();
    assert_eq!(reply.data(), r#"{"sum":3}"#);
    let names = ["process keeper", "process solver", "reply asker", "request solver", "send keeper"];
    until("all spans are told", || spans(kept, &["asker", "solver", "keeper"]).len() == names.len());
    let spans = spans(kept, &["asker", "solver", "keeper"]);
    assert_eq!(spans.keys().map(String::as_str).collect::<Vec<_>>(), names);
    let (request, process) = (&spans["request solver"], &spans["process solver"]);
    let trace: TraceId = request.span_context.trace_id();
    let id = |name: &str| spans[name].span_context.span_id();
    let parents = [
        ("request solver", SpanId::INVALID, SpanKind::Client),
        ("process solver", id("request solver"), SpanKind::Consumer),
        ("send keeper", id("process solver"), SpanKind::Producer),
        ("reply asker", id("process solver"), SpanKind::Producer),
    ];
    for (name, parent, kind) in parents {
        let span = &spans[name];
        assert_eq!((span.span_context.trace_id(), span.parent_span_id), (trace, parent), "{name}");
        assert_eq!(span.span_kind, kind, "{name}");
        assert_eq!(of(span, "messaging.system"), "mas");
        assert_eq!(span.status, Status::Unset);
        let (host, port) = server.addr.rsplit_once(':').unwrap();
        assert_eq!((of(span, "server.address"), of(span, "server.port")), (host.to_owned(), port.to_owned()));
    }
    // By default a handler's span links to the sender's from a trace of its own.
    let noted = &spans["process keeper"];
    assert_ne!(noted.span_context.trace_id(), trace);
    let links: Vec<SpanId> = noted.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [id("send keeper")]);
    // The span of a request links to that in which its reply was sent, and says where it is on record.
    let links: Vec<SpanId> = request.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [id("reply asker")]);
    assert_eq!(of(process, "messaging.message.id"), of(request, "messaging.message.id"));
    assert_eq!(of(process, "mas.outcome"), "ack");
    assert!(!of(request, "mas.receipt.lane").is_empty() && of(request, "mas.receipt.sequence") != "0");
    let conversation = "messaging.message.conversation_id";
    assert_eq!(of(request, conversation), of(process, conversation));
    meters.force_flush().unwrap();
    let counts = kept.counts.lock().unwrap().clone();
    let count =
        |name: &str, agent: &str| counts.get(&(name.to_owned(), agent.to_owned())).copied().unwrap_or(0);
    assert_eq!(count("messaging.client.sent.messages", "keeper"), 1);
    assert_eq!(count("messaging.process.duration", "keeper"), 1);
    assert_eq!(count("messaging.client.consumed.messages", "asker"), 1);
    assert!(count("messaging.client.operation.duration", "solver") >= 1);
    drop((keeper, solver, asker));
    world.assert_intact();
}

const REFUSED: &str = "\
permissions: [{type: allow, sender: lender, targets: [failer]}]
agents: [{agent_id: lender}, {agent_id: failer}]
";

#[test]
fn what_fails_is_said_in_few_words_and_without_payloads() {
    let (kept, _) = providers();
    let world = World::with(REFUSED, "delivery: {max_attempts: 2, retry_backoff_ms: [10]}\n");
    let server = world.server();
    let failer = agent(&world, &server, "failer")
        .on("typed", |_, _: u8| Ok(()))
        .on("later", |_, _: serde_json::Value| Err(HandlerError::reject("no such account")))
        .connect()
        .unwrap();
    let lender = agent(&world, &server, "lender").connect().unwrap();
    let refused = failer.send("lender", "x", &json!({}));
    assert!(matches!(refused, Err(AgentError::Refused { .. })), "{refused:?}");
    lender.send("failer", "later", &json!({})).unwrap();
    until("the first is told", || {
        kept.spans.lock().unwrap().iter().any(|span| span.name == "process failer")
    });
    lender.send("failer", "typed", &json!({"note": "hunter2"})).unwrap();
    let told = |kept: &Kept| {
        let spans = kept.spans.lock().unwrap();
        let of_both = |span: &&SpanData| span.name == "process failer" || span.name == "send lender";
        spans.iter().filter(of_both).cloned().collect::<Vec<SpanData>>()
    };
    until("all are told", || told(kept).len() == 3);
    let told: Vec<(String, String, Status)> = told(kept)
        .iter()
        .map(|span| (of(span, "error.type"), of(span, "mas.outcome"), span.status.clone()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "not_authorized".to_owned(),
                String::new(),
                Status::error("refused: not_authorized (PERMISSION_DENIED)")
            ),
            ("reject".to_owned(), "dead".to_owned(), Status::error("no such account")),
            (
                "reject".to_owned(),
                "dead".to_owned(),
                Status::error("the payload is not what the handler takes")
            ),
        ]
    );
    drop((failer, lender));
}
