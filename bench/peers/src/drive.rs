//! One measurement of a peer: senders and receivers that differ from peer to peer, loops and counting that do
//! not.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::AnyError;
use crate::args::{Loop, MAX_UNDER_WAY};
use crate::clock::{now_us, until};
use crate::payload::Stamp;
use crate::process::cpu_s;
use crate::recorder::{Recorder, Schedule};

/// How long a message may take to be acknowledged to its sender.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of a run waits for what is under way: loadgen's.
pub(crate) const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long receivers may take to acknowledge what they have and to end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// How often things that are waited for are looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Longest sleep of the open loop's clock: how late the end is seen.
const MAX_NAP: Duration = Duration::from_millis(1);

/// A connection that sends to one receiver.
pub(crate) trait Sender: Send + Sync + 'static {
    /// Sends `payload`, and waits until it is acknowledged.
    fn send(&self, payload: Vec<u8>) -> impl Future<Output = Result<(), AnyError>> + Send;
}

/// A connection that receives, and acknowledges each message.
pub(crate) trait Receiver: Send + 'static {
    /// Hands every message to `inbox` until `leave` says to leave, and returns with all of them acknowledged.
    fn receive(
        self,
        inbox: Inbox,
        leave: watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), AnyError>> + Send;
}

/// Where a receiver's messages are counted.
pub(crate) struct Inbox {
    recorder: Arc<Recorder>,
    pair: usize,
}

impl Inbox {
    pub(crate) fn take(&self, payload: &[u8]) {
        self.recorder.delivered(self.pair, payload);
    }
}

/// What is asked of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Loop,
    pub(crate) payload_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

/// What came of it. Times in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) accepted_per_s: f64,
    pub(crate) delivered_per_s: f64,
    pub(crate) call_p50: f64,
    pub(crate) call_p99: f64,
    pub(crate) end_to_end_p50: f64,
    pub(crate) end_to_end_p99: f64,
    /// Of each server process, by name, for each accepted message.
    pub(crate) server_cpu_us: Vec<(&'static str, f64)>,
    pub(crate) client_cpu_us: f64,
    /// Under way when sending stopped.
    pub(crate) backlog: u64,
    /// Accepted, and not delivered some time after the end.
    pub(crate) undelivered: u64,
    /// Delivered more than once.
    pub(crate) repeated: u64,
    /// Still in the server at the end: not acknowledged by the receiver. `None`: not asked.
    pub(crate) left: Option<u64>,
    pub(crate) failures: BTreeMap<String, u64>,
}

/// Runs `senders` and their `receivers` against the server process `pid`.
pub(crate) async fn run<S: Sender, R: Receiver>(
    senders: Vec<S>,
    receivers: Vec<R>,
    load: Load,
    server: (&'static str, u32),
) -> Result<Outcome, AnyError> {
    let schedule = Schedule::now(load.warm_up, load.counted);
    let open = matches!(load.kind, Loop::Open(_));
    let recorder = Arc::new(Recorder::new(schedule, open, senders.len())?);
    let (leave, leaving) = watch::channel(false);
    // Dropped with this future, whoever drops it: then all of them end.
    let mut receiving = JoinSet::new();
    for (pair, receiver) in receivers.into_iter().enumerate() {
        let inbox = Inbox { recorder: recorder.clone(), pair };
        receiving.spawn(receiver.receive(inbox, leaving.clone()));
    }
    let mut sending = JoinSet::new();
    start_sending(&mut sending, senders, load, &recorder)?;

    let own = std::process::id();
    let look = || -> Result<(f64, f64), AnyError> { Ok((cpu_s(server.1)?, cpu_s(own)?)) };
    pause(schedule.from_us, &mut receiving).await?;
    let before = look()?;
    pause(schedule.until_us, &mut receiving).await?;
    let after = look()?;
    recorder.end();
    let backlog = recorder.totals().under_way();

    let acknowledged = async {
        while let Some(ended) = sending.join_next().await {
            ended?;
        }
        Ok::<(), AnyError>(())
    };
    timeout(ACK_PATIENCE + DRAIN_PATIENCE, acknowledged).await.map_err(|_| "senders do not end")??;
    drain(&recorder, &mut receiving).await?;
    leave.send(true).map_err(|_| "no receiver is left")?;
    let left = async {
        while let Some(ended) = receiving.join_next().await {
            ended??;
        }
        Ok::<(), AnyError>(())
    };
    timeout(LEAVE_PATIENCE, left).await.map_err(|_| "receivers do not end")??;

    let totals = recorder.totals();
    let (call, end_to_end, mut failures) = recorder.sums()?;
    if totals.foreign > 0 {
        failures.insert("received, and nobody's".to_owned(), totals.foreign);
    }
    let per_message_us = |used_s: f64| used_s * 1e6 / call.len().max(1) as f64;
    Ok(Outcome {
        accepted_per_s: call.len() as f64 / schedule.counted_s(),
        delivered_per_s: end_to_end.len() as f64 / schedule.counted_s(),
        call_p50: call.at(0.5),
        call_p99: call.at(0.99),
        end_to_end_p50: end_to_end.at(0.5),
        end_to_end_p99: end_to_end.at(0.99),
        server_cpu_us: vec![(server.0, per_message_us(after.0 - before.0))],
        client_cpu_us: per_message_us(after.1 - before.1),
        backlog,
        undelivered: totals.accepted.saturating_sub(totals.delivered),
        repeated: totals.repeated,
        left: None,
        failures,
    })
}

/// Waits until `instant_us`; an error when a receiver ends before.
async fn pause(instant_us: u64, receiving: &mut JoinSet<Result<(), AnyError>>) -> Result<(), AnyError> {
    tokio::select! {
        () = sleep(until(instant_us)) => Ok(()),
        ended = receiving.join_next() => match ended {
            Some(outcome) => Err(outcome?.err().unwrap_or_else(|| "a receiver ended early".into())),
            None => Err("there is no receiver".into()),
        },
    }
}

/// Waits until all that was accepted has arrived, but not for ever.
async fn drain(recorder: &Recorder, receiving: &mut JoinSet<Result<(), AnyError>>) -> Result<(), AnyError> {
    let give_up = Instant::now() + DRAIN_PATIENCE;
    while recorder.totals().under_way() > 0 && Instant::now() < give_up {
        pause(now_us() + LOOK_INTERVAL.as_micros() as u64, receiving).await?;
    }
    Ok(())
}

/// One sender's part of the measurement.
struct Sending<S> {
    sender: S,
    recorder: Arc<Recorder>,
    pair: usize,
    payload_bytes: usize,
    next: AtomicU64,
}

fn start_sending<S: Sender>(
    tasks: &mut JoinSet<()>,
    senders: Vec<S>,
    load: Load,
    recorder: &Arc<Recorder>,
) -> Result<(), AnyError> {
    let count = senders.len();
    let mut due = Vec::with_capacity(count);
    for (pair, sender) in senders.into_iter().enumerate() {
        let sending = Sending {
            sender,
            recorder: recorder.clone(),
            pair,
            payload_bytes: load.payload_bytes,
            next: AtomicU64::new(0),
        };
        match load.kind {
            // The remainder goes to the first ones.
            Loop::Closed(all) => {
                let all = all as usize;
                let under_way = all / count + usize::from(pair < all % count);
                tasks.spawn(async move { sending.closed(under_way).await });
            }
            Loop::Open(_) => {
                let (instants, receiver) = mpsc::channel(MAX_UNDER_WAY);
                due.push(instants);
                tasks.spawn(async move { sending.open(receiver).await });
            }
        }
    }
    if let Loop::Open(rate) = load.kind {
        let recorder = recorder.clone();
        // A thread, for the runtime's clock is no finer than a millisecond. It ends with the schedule, or when
        // nobody listens any more.
        let _clock = std::thread::Builder::new()
            .name("clock".to_owned())
            .spawn(move || keep_time(f64::from(rate), &due, &recorder))?;
    }
    Ok(())
}

/// Open loop: message `n` is due at `n / rate`, on the clock, and its latency counts from then.
fn keep_time(rate: f64, senders: &[mpsc::Sender<u64>], recorder: &Recorder) {
    let schedule = recorder.schedule;
    for number in 0u64.. {
        let due_us = schedule.start_us + (number as f64 * 1e6 / rate) as u64;
        if due_us >= schedule.until_us {
            return;
        }
        while now_us() < due_us {
            std::thread::sleep(until(due_us).min(MAX_NAP));
        }
        let Some(sender) = senders.get(number as usize % senders.len().max(1)) else {
            return;
        };
        match sender.try_send(due_us) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => recorder.failed(TOO_MANY),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

/// An open loop that waited would be none: what cannot be sent counts as a failure.
const TOO_MANY: &str = "not sent: too many under way";

impl<S: Sender> Sending<S> {
    async fn one(&self, since_us: u64) {
        let stamp = Stamp { since_us, number: self.next.fetch_add(1, Ordering::Relaxed) };
        self.recorder.sent();
        match timeout(ACK_PATIENCE, self.sender.send(stamp.payload(self.payload_bytes))).await {
            Ok(Ok(())) => self.recorder.accepted(self.pair, since_us),
            Ok(Err(error)) => self.recorder.refused(&error.to_string()),
            Err(_) => self.recorder.refused("not acknowledged in time"),
        }
    }

    async fn closed(&self, under_way: usize) {
        let mut calls = FuturesUnordered::new();
        for _ in 0..under_way {
            calls.push(self.one(now_us()));
        }
        while calls.next().await.is_some() {
            if !self.recorder.is_over() {
                calls.push(self.one(now_us()));
            }
        }
    }

    async fn open(&self, mut due: mpsc::Receiver<u64>) {
        let mut calls = FuturesUnordered::new();
        let mut more = true;
        while more || !calls.is_empty() {
            tokio::select! {
                instant = due.recv(), if more => match instant {
                    Some(_) if calls.len() >= MAX_UNDER_WAY => self.recorder.failed(TOO_MANY),
                    Some(since_us) => calls.push(self.one(since_us)),
                    None => more = false,
                },
                Some(()) = calls.next(), if !calls.is_empty() => {}
            }
        }
    }
}
