//! One measurement: lanes that send, sessions that receive and acknowledge, histograms of both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grpcio::{ChannelBuilder, ChannelCredentialsBuilder, Client, EnvBuilder};
use hdrhistogram::Histogram;
use mas::protocol::SendRequest;

use crate::connection::Connection;
use crate::world::{World, receiver, sender};

type AnyError = Box<dyn std::error::Error>;

/// Longest latency that is told apart.
const MAX_LATENCY_US: u64 = 60_000_000;
/// How long sessions may take to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// Messages under way in an open loop; beyond it they fail.
const MAX_UNDER_WAY: u64 = 1000;

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Path {
    /// One unary call each.
    Unary,
    /// On the session's stream.
    Stream,
}

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Sender and receiver pairs.
    pub(crate) pairs: usize,
    /// Calls in flight over all senders, in a closed loop.
    pub(crate) in_flight: usize,
    /// How messages are sent.
    pub(crate) path: Path,
    /// Messages a second in an open loop.
    pub(crate) rate: Option<u32>,
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

pub(crate) struct Tally {
    start: Instant,
    counting: AtomicBool,
    over: AtomicBool,
    failed: AtomicU64,
    open: AtomicU64,
    under_way: AtomicU64,
    call_us: Mutex<Histogram<u64>>,
    end_to_end_us: Mutex<Histogram<u64>>,
}

impl Tally {
    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// A session is open.
    pub(crate) fn opened(&self) {
        let _ = self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// A message arrived.
    pub(crate) fn delivered(&self, envelope: &str) {
        if let Some(sent_us) = sent_us(envelope) {
            self.record(&self.end_to_end_us, self.now_us().saturating_sub(sent_us));
        }
    }

    /// A message was accepted, or not.
    fn answered(&self, accepted: bool, since_us: u64) {
        if accepted {
            self.record(&self.call_us, self.now_us().saturating_sub(since_us));
        } else {
            let _ = self.failed.fetch_add(1, Ordering::SeqCst);
        }
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
        under_way: AtomicU64::new(0),
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
            clients.push((Connection::open(client.clone(), &tally)?, client));
        }
    }
    let give_up = Instant::now() + OPEN_PATIENCE;
    while tally.open.load(Ordering::SeqCst) < clients.len() as u64 {
        if Instant::now() > give_up {
            return Err("not every session opened".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let senders: Vec<(Connection, Client, String)> = clients
        .iter()
        .step_by(2)
        .enumerate()
        .map(|(pair, (connection, client))| (connection.clone(), client.clone(), receiver(pair)))
        .collect();
    let clock = match plan.rate {
        None => {
            for (connection, client, target) in senders.iter().cycle().take(plan.in_flight) {
                spawn_lane(connection, client, plan, target.clone(), tally.clone());
            }
            None
        }
        Some(rate) => {
            let (plan, tally) = (plan.clone(), tally.clone());
            Some(std::thread::spawn(move || run_clock(&senders, rate, &plan, &tally)))
        }
    };
    std::thread::sleep(plan.warm_up);
    let cpu_before = world.server_cpu_s()?;
    tally.counting.store(true, Ordering::SeqCst);
    let counted = Instant::now();
    std::thread::sleep(plan.counted);
    tally.counting.store(false, Ordering::SeqCst);
    let seconds = counted.elapsed().as_secs_f64();
    let server_cpu_s = world.server_cpu_s()? - cpu_before;
    tally.over.store(true, Ordering::SeqCst);
    if clock.is_some_and(|clock| clock.join().is_err()) {
        return Err("the clock's thread failed".into());
    }
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

/// The sending time that a lane wrote first into its payload.
fn sent_us(envelope: &str) -> Option<u64> {
    let (_, rest) = envelope.split_once("{\"t\":")?;
    rest.split_once(',')?.0.parse().ok()
}

fn message(target: &str, payload_bytes: usize, sent_us: u64) -> SendRequest {
    let head = format!("{{\"t\":{sent_us},\"x\":\"");
    let filler = payload_bytes.saturating_sub(head.len() + 2);
    SendRequest {
        target_id: target.to_owned(),
        message_type: "load".to_owned(),
        data_json: format!("{head}{}\"}}", "y".repeat(filler)),
        instance_id: "load".to_owned(),
        ..SendRequest::default()
    }
}

/// Closed loop: one message after the other.
fn spawn_lane(connection: &Connection, client: &Client, plan: &Plan, target: String, tally: Arc<Tally>) {
    let (connection, path, payload_bytes) = (connection.clone(), plan.path, plan.payload_bytes);
    client.spawn(async move {
        while !tally.over.load(Ordering::Relaxed) {
            let sent_us = tally.now_us();
            let accepted = connection.send(path, message(&target, payload_bytes, sent_us)).await;
            tally.answered(accepted, sent_us);
        }
    });
}

/// Open loop: message `n` is due at `n / rate`, on the clock, and its latency counts from then.
fn run_clock(lanes: &[(Connection, Client, String)], rate: u32, plan: &Plan, tally: &Arc<Tally>) {
    let start_us = tally.now_us();
    let mut number = 0u64;
    while !tally.over.load(Ordering::Relaxed) {
        let due_us = start_us + number * 1_000_000 / u64::from(rate);
        let now_us = tally.now_us();
        if due_us > now_us {
            std::thread::sleep(Duration::from_micros((due_us - now_us).min(1000)));
            continue;
        }
        let Some((connection, client, target)) = lanes.get(number as usize % lanes.len().max(1)) else {
            return;
        };
        number += 1;
        if tally.under_way.load(Ordering::Relaxed) >= MAX_UNDER_WAY {
            // The server is far behind: what is not sent is a failure, not a pause.
            let _ = tally.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let _ = tally.under_way.fetch_add(1, Ordering::Relaxed);
        let request = message(target, plan.payload_bytes, due_us);
        let (connection, tally, path) = (connection.clone(), tally.clone(), plan.path);
        client.spawn(async move {
            let accepted = connection.send(path, request).await;
            tally.answered(accepted, due_us);
            let _ = tally.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
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
