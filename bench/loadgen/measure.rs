//! One measurement: lanes that send, sessions that receive and acknowledge, histograms of both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::mpsc::unbounded;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{CallOption, ChannelBuilder, ChannelCredentialsBuilder, Client, EnvBuilder, WriteFlags};
use hdrhistogram::Histogram;
use mas::protocol::client_event::Event;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::{Ack, ClientEvent, Hello, RUNTIME_V1, SendRequest};

use crate::world::{World, receiver, sender};

type AnyError = Box<dyn std::error::Error>;

/// Longest latency that is told apart.
const MAX_LATENCY_US: u64 = 60_000_000;
/// How long sessions may take to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// What to do.
pub(crate) struct Plan {
    /// Sender and receiver pairs.
    pub(crate) pairs: usize,
    /// Calls in flight over all senders.
    pub(crate) in_flight: usize,
    /// Size of each payload.
    pub(crate) payload_bytes: usize,
    /// Time before counting.
    pub(crate) warm_up: Duration,
    /// Time that counts.
    pub(crate) counted: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    seconds: f64,
    accepted: u64,
    delivered: u64,
    failed: u64,
    server_cpu_s: f64,
    call_us: Histogram<u64>,
    end_to_end_us: Histogram<u64>,
}

struct Tally {
    start: Instant,
    counting: AtomicBool,
    over: AtomicBool,
    failed: AtomicU64,
    open: AtomicU64,
    call_us: Mutex<Histogram<u64>>,
    end_to_end_us: Mutex<Histogram<u64>>,
}

impl Tally {
    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn record(&self, histogram: &Mutex<Histogram<u64>>, us: u64) {
        if self.counting.load(Ordering::Relaxed) {
            histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us.max(1));
        }
    }
}

/// Runs the plan.
pub(crate) fn run(world: &World, plan: &Plan) -> Result<Outcome, AnyError> {
    let tally = Arc::new(Tally {
        start: Instant::now(),
        counting: AtomicBool::new(false),
        over: AtomicBool::new(false),
        failed: AtomicU64::new(0),
        open: AtomicU64::new(0),
        call_us: Mutex::new(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?),
        end_to_end_us: Mutex::new(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?),
    });
    let environment = Arc::new(EnvBuilder::new().cq_count(2).name_prefix("load").build());
    let mut clients = Vec::new();
    for pair in 0..plan.pairs {
        for agent in [sender(pair), receiver(pair)] {
            let credentials = world.credentials(&agent)?;
            let tls = ChannelCredentialsBuilder::new()
                .root_cert(credentials.ca)
                .cert(credentials.cert, credentials.key);
            let channel = ChannelBuilder::new(environment.clone())
                .use_local_subchannel_pool(true)
                .set_credentials(tls.build())
                .connect(&world.addr);
            let client = Client::new(channel);
            open_session(&client, &tally)?;
            clients.push(client);
        }
    }
    let give_up = Instant::now() + OPEN_PATIENCE;
    while tally.open.load(Ordering::SeqCst) < clients.len() as u64 {
        if Instant::now() > give_up {
            return Err("not every session opened".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for lane in 0..plan.in_flight {
        let pair = lane % plan.pairs;
        if let Some(client) = clients.get(pair * 2) {
            spawn_lane(client.clone(), receiver(pair), plan.payload_bytes, tally.clone());
        }
    }
    std::thread::sleep(plan.warm_up);
    let cpu_before = world.server_cpu_s()?;
    tally.counting.store(true, Ordering::SeqCst);
    let counted = Instant::now();
    std::thread::sleep(plan.counted);
    tally.counting.store(false, Ordering::SeqCst);
    let seconds = counted.elapsed().as_secs_f64();
    let server_cpu_s = world.server_cpu_s()? - cpu_before;
    tally.over.store(true, Ordering::SeqCst);
    let take =
        |histogram: &Mutex<Histogram<u64>>| histogram.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (call_us, end_to_end_us) = (take(&tally.call_us), take(&tally.end_to_end_us));
    Ok(Outcome {
        seconds,
        accepted: call_us.len(),
        delivered: end_to_end_us.len(),
        failed: tally.failed.load(Ordering::SeqCst),
        server_cpu_s,
        call_us,
        end_to_end_us,
    })
}

/// A session that acknowledges whatever it gets.
fn open_session(client: &Client, tally: &Arc<Tally>) -> Result<(), AnyError> {
    let (mut sink, mut stream) =
        client.duplex_streaming(&RUNTIME_V1.transport.client, CallOption::default())?;
    let (sender, mut queue) = unbounded::<ClientEvent>();
    let event = |event| ClientEvent { event: Some(event), ..ClientEvent::default() };
    sender
        .unbounded_send(event(Event::Hello(Hello { instance_id: "load".to_owned(), ..Hello::default() })))?;
    client.spawn(async move {
        sink.enhance_batch(true);
        while let Some(first) = queue.next().await {
            let mut next = Some(first);
            while let Some(event) = next {
                if sink.feed((event, WriteFlags::default())).await.is_err() {
                    return;
                }
                next = queue.try_recv().ok();
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    });
    let tally = tally.clone();
    client.spawn(async move {
        while let Ok(Some(received)) = stream.try_next().await {
            match received.event {
                Some(ServerKind::Welcome(_)) => {
                    let _ = tally.open.fetch_add(1, Ordering::SeqCst);
                }
                Some(ServerKind::Delivery(delivery)) => {
                    if let Some(sent_us) = sent_us(&delivery.envelope_json) {
                        tally.record(&tally.end_to_end_us, tally.now_us().saturating_sub(sent_us));
                    }
                    let ack = Ack { delivery_id: delivery.delivery_id, ..Ack::default() };
                    if sender.unbounded_send(event(Event::Ack(ack))).is_err() {
                        return;
                    }
                }
                Some(_) | None => {}
            }
        }
    });
    Ok(())
}

/// The sending time that a lane wrote first into its payload.
fn sent_us(envelope: &str) -> Option<u64> {
    let (_, rest) = envelope.split_once("{\"t\":")?;
    rest.split_once(',')?.0.parse().ok()
}

fn spawn_lane(client: Client, target: String, payload_bytes: usize, tally: Arc<Tally>) {
    let spawner = client.clone();
    spawner.spawn(async move {
        while !tally.over.load(Ordering::Relaxed) {
            let sent_us = tally.now_us();
            let head = format!("{{\"t\":{sent_us},\"x\":\"");
            let filler = payload_bytes.saturating_sub(head.len() + 2);
            let request = SendRequest {
                target_id: target.clone(),
                message_type: "load".to_owned(),
                data_json: format!("{head}{}\"}}", "y".repeat(filler)),
                instance_id: "load".to_owned(),
                ..SendRequest::default()
            };
            let call = client.unary_call_async(&RUNTIME_V1.send.client, &request, CallOption::default());
            let accepted = match call {
                Ok(response) => response.await.is_ok(),
                Err(_) => false,
            };
            if accepted {
                tally.record(&tally.call_us, tally.now_us() - sent_us);
            } else {
                let _ = tally.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
}

impl Outcome {
    /// As a table.
    pub(crate) fn print(&self) {
        let rate = |count: u64| count as f64 / self.seconds;
        println!("accepted   {:>9.0} messages/s", rate(self.accepted));
        println!("delivered  {:>9.0} messages/s", rate(self.delivered));
        println!("failed     {:>9}", self.failed);
        println!("server CPU {:>9.1} µs/message", self.cpu_us());
        for (name, histogram) in [("call", &self.call_us), ("end to end", &self.end_to_end_us)] {
            let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
            println!(
                "{name:<10} p50 {:.2} ms  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                histogram.max() as f64 / 1000.0
            );
        }
    }

    fn cpu_us(&self) -> f64 {
        self.server_cpu_s * 1e6 / (self.accepted.max(1) as f64)
    }

    /// As JSON, times in microseconds.
    pub(crate) fn json(&self) -> serde_json::Value {
        let quantiles = |histogram: &Histogram<u64>| {
            serde_json::json!({
                "p50": histogram.value_at_quantile(0.5), "p90": histogram.value_at_quantile(0.9),
                "p99": histogram.value_at_quantile(0.99), "p99.9": histogram.value_at_quantile(0.999),
                "max": histogram.max(),
            })
        };
        serde_json::json!({
            "seconds": self.seconds, "accepted": self.accepted, "delivered": self.delivered,
            "failed": self.failed, "server_cpu_us_per_message": self.cpu_us(),
            "call_us": quantiles(&self.call_us), "end_to_end_us": quantiles(&self.end_to_end_us),
        })
    }
}
