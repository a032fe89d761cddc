//! Traces and metrics to a collector, by OTLP over HTTP (`gateway.telemetry`). Two threads of their own: one takes the spans
//! that workers hand in and never waits for (`shard/desk/spans.rs`), one sends what a scrape would be told, now and then. A
//! collector that is away costs spans, which are counted, and nothing else.
//!
//! * `spans`, `metrics`: what is told, as messages of OTLP.
//! * `collector`: how it gets there.

mod attributes;
mod collector;
mod metrics;
mod spans;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use protobuf::Message;

use crate::clock::Now;
use crate::config;
use crate::otlp::{Resource, Scope};
use crate::shard::desk::shared::Shared;
use crate::shard::desk::spans::Span;
use attributes::text;
use collector::{Collector, Failure};

/// Spans in one export.
const MAX_BATCH: usize = 512;
/// How long the first span of an export waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Attempts at one export, and the wait after the first; it doubles.
const ATTEMPTS: u32 = 4;
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How often a collector that fails is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The running threads; they end when this is dropped, after one more attempt at what waits.
pub struct Telemetry {
    stop: Vec<Sender<()>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Telemetry {
    /// Starts what the configuration asks for. `page`: what a scrape is told now, as Prometheus reads it.
    pub fn start(
        config: &config::Telemetry,
        shared: &Arc<Shared>,
        page: impl Fn() -> Option<String> + Send + 'static,
    ) -> io::Result<Option<Self>> {
        let Some(endpoint) = config.otlp_endpoint.as_deref().filter(|_| config.exports()) else {
            return Ok(None);
        };
        let collector = Collector::new(endpoint, &config.headers).map_err(io::Error::other)?;
        let resource = resource(config, shared);
        let mut started =
            Self { stop: Vec::new(), stopping: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        if let Some(spans) = shared.spans() {
            let (spans, stopped) = (spans.clone(), started.stopper());
            let exporter = Exporter {
                shared: shared.clone(),
                collector: collector.clone(),
                resource: resource.clone(),
                stopping: started.stopping.clone(),
                logged: None,
                gave_up: false,
            };
            started.spawn("telemetry", move || exporter.run(&spans, &stopped))?;
        }
        if config.export_metrics {
            let interval = Duration::from_millis(config.metrics_export_interval_ms);
            let stopped = started.stopper();
            let began_us = Now::read().unix_us;
            started.spawn("telemetry-stats", move || {
                send_metrics(&collector, &resource, began_us, interval, &stopped, &page);
            })?;
        }
        Ok(Some(started))
    }

    fn stopper(&mut self) -> Receiver<()> {
        let (stop, stopped) = bounded(1);
        self.stop.push(stop);
        stopped
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A thread hears that its line is gone.
        self.stop.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!(
                    code = "thread_panicked", part = "telemetry";
                    "a thread that exports telemetry had panicked"
                );
            }
        }
    }
}

/// What the spans and metrics of this server are of.
fn resource(config: &config::Telemetry, shared: &Shared) -> Resource {
    let mut attributes = vec![
        text("service.name", &config.service_name),
        text("service.namespace", &config.service_namespace),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", shared.server.as_str()),
    ];
    if let Some(environment) = &config.environment {
        attributes.push(text("deployment.environment.name", environment));
    }
    Resource { attributes, ..Resource::default() }
}

fn scope() -> Scope {
    Scope { name: "mas".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), ..Scope::default() }
}

struct Exporter {
    shared: Arc<Shared>,
    collector: Collector,
    resource: Resource,
    stopping: Arc<AtomicBool>,
    logged: Option<Instant>,
    /// The last export could not be made.
    gave_up: bool,
}

impl Exporter {
    fn run(mut self, spans: &Receiver<Span>, stopped: &Receiver<()>) {
        let mut batch = Vec::new();
        let mut send_at: Option<Instant> = None;
        loop {
            let wait = send_at.map_or(BATCH_WAIT, |at| at.saturating_duration_since(Instant::now()));
            match spans.recv_timeout(wait) {
                Ok(span) => {
                    batch.push(span);
                    let _ = send_at.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let is_over = self.stopping.load(Ordering::Relaxed);
            if is_over {
                batch.extend(spans.try_iter().take(MAX_BATCH));
            }
            if is_over && self.gave_up {
                // The collector is away: nothing waits for it at a stop.
                let lost = batch.len() + spans.try_iter().count();
                return self.shared.tracer().into_iter().for_each(|tracer| tracer.lost(lost));
            }
            let is_due = send_at.is_some_and(|at| Instant::now() >= at);
            if batch.len() >= MAX_BATCH || ((is_due || is_over) && !batch.is_empty()) {
                self.send(&std::mem::take(&mut batch), stopped);
                send_at = None;
            }
            if is_over && spans.is_empty() {
                return;
            }
        }
    }

    fn send(&mut self, batch: &[Span], stopped: &Receiver<()>) {
        let export = spans::export(batch, &self.resource, scope());
        let Ok(body) = export.write_to_bytes() else { return };
        let tracer = self.shared.tracer();
        let mut wait = RETRY_WAIT;
        for attempt in 1..=ATTEMPTS {
            match self.collector.post("/v1/traces", &body) {
                Ok(()) => {
                    self.gave_up = false;
                    return tracer.into_iter().for_each(|tracer| tracer.exported(batch.len()));
                }
                Err(Failure { why, again }) => {
                    let last = !again || attempt == ATTEMPTS || self.stopping.load(Ordering::Relaxed);
                    if last {
                        self.gave_up = true;
                        tracer.into_iter().for_each(|tracer| tracer.lost(batch.len()));
                        return self.log(&why, batch.len());
                    }
                    // Either the server stops, or the time is over.
                    let _ = stopped.recv_timeout(wait);
                    wait *= 2;
                }
            }
        }
    }

    fn log(&mut self, why: &str, count: usize) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            log::warn!(code = "spans_not_exported", count; "{count} spans could not be exported: {why}");
        }
    }
}

fn send_metrics(
    collector: &Collector,
    resource: &Resource,
    began_us: u64,
    interval: Duration,
    stopped: &Receiver<()>,
    page: &impl Fn() -> Option<String>,
) {
    let mut logged: Option<Instant> = None;
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let Some(page) = page() else { continue };
        let export = metrics::export(&page, resource, scope(), (began_us, Now::read().unix_us));
        let Ok(body) = export.write_to_bytes() else { continue };
        if let Err(Failure { why, .. }) = collector.post("/v1/metrics", &body)
            && logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY)
        {
            logged = Some(Instant::now());
            log::warn!(code = "metrics_not_exported"; "metrics could not be exported: {why}");
        }
    }
}
