//! Agents that go on whatever happens: they connect again, to whichever server, and repeat what may not
//! have happened.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mas::protocol::{RequestRequest, SendRequest};

use super::history::{Accepted, Delivered, History, now_us};
use crate::support::{Client, Polled};

/// How long a call is repeated before its outcome is called unknown.
pub const CALL_PATIENCE: Duration = Duration::from_secs(25);
/// How long an attempt to open a session may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);

/// How long a session lasts before its agent goes elsewhere, in milliseconds: from and up to.
const STAY_MS: (u64, u64) = (500, 4000);

/// A small generator: campaigns can be repeated by their seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// From 0, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// Where the servers are, and orders to all agents.
#[derive(Debug, Clone)]
pub struct Place {
    addrs: Arc<[String; 2]>,
    /// Raised to make every agent drop its session.
    epoch: Arc<AtomicU64>,
    /// Receivers stay away.
    closed: Arc<AtomicBool>,
    /// Receivers of this process that have a session, or open one.
    receivers: Arc<AtomicUsize>,
}

/// A receiver that has a session or opens one.
struct Here<'p>(&'p AtomicUsize);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Place {
    pub fn new(addrs: [&str; 2]) -> Self {
        Self {
            addrs: Arc::new(addrs.map(str::to_owned)),
            epoch: Arc::default(),
            closed: Arc::default(),
            receivers: Arc::default(),
        }
    }

    pub fn addrs(&self) -> &[String; 2] {
        &self.addrs
    }

    pub fn lose_sessions(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// How many receivers of this process have a session, or open one.
    pub fn receivers(&self) -> usize {
        self.receivers.load(Ordering::SeqCst)
    }

    /// Lets a receiver connect, unless receivers stay away.
    fn enter(&self) -> Option<Here<'_>> {
        self.receivers.fetch_add(1, Ordering::SeqCst);
        let here = Here(&self.receivers);
        (!self.closed.load(Ordering::SeqCst)).then_some(here)
    }
}

/// One instance of one agent.
pub struct Member {
    pub agent: String,
    pub instance: String,
    place: Place,
    clients: [Client; 2],
    /// Which server its session is on.
    home: AtomicUsize,
    connected: AtomicBool,
    random: Mutex<Random>,
}

impl Member {
    /// With the certificate that `certs` has for the agent.
    pub fn new(certs: &Path, place: &Place, agent: &str, instance: &str, seed: u64) -> Self {
        let client = |n: usize| Client::with_files(&place.addrs[n], certs, agent);
        Self {
            agent: agent.to_owned(),
            instance: instance.to_owned(),
            place: place.clone(),
            clients: [client(0), client(1)],
            home: AtomicUsize::new(seed as usize % 2),
            connected: AtomicBool::new(false),
            random: Mutex::new(Random(seed)),
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().below(bound)
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn client(&self) -> &Client {
        &self.clients[self.home.load(Ordering::SeqCst)]
    }

    /// Keeps a session open, now here, now there, and handles what comes.
    pub fn keep_session(&self, history: &History, over: &AtomicBool) {
        let mut answered = HashSet::new();
        while !over.load(Ordering::SeqCst) {
            let epoch = self.place.epoch.load(Ordering::SeqCst);
            let here = self.agent.starts_with('r').then(|| self.place.enter());
            let away = matches!(here, Some(None));
            let session = if away { None } else { self.client().try_open(&self.instance, OPEN_PATIENCE) };
            let Some(session) = session else {
                self.home.fetch_xor(1, Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            self.connected.store(true, Ordering::SeqCst);
            let stay = Duration::from_millis(STAY_MS.0 + self.below(STAY_MS.1 - STAY_MS.0));
            let leave = Instant::now() + stay;
            while !over.load(Ordering::SeqCst)
                && self.place.epoch.load(Ordering::SeqCst) == epoch
                && Instant::now() < leave
            {
                let delivered = match session.poll(Duration::from_millis(20)) {
                    Polled::Nothing => continue,
                    Polled::Ended => break,
                    Polled::Delivered(delivered) => delivered,
                };
                let meta = &delivered.envelope["meta"];
                let reply = meta["is_reply"] == true;
                history.note(|seen| {
                    seen.delivered.push(Delivered {
                        message_id: delivered.message_id().to_owned(),
                        agent: self.agent.clone(),
                        instance: self.instance.clone(),
                        attempt: delivered.attempt,
                        reply_to: reply.then(|| delivered.correlation_id().to_owned()),
                        at_us: now_us(),
                        target: delivered.envelope["target_id"].as_str().unwrap_or_default().to_owned(),
                    });
                });
                if meta["expects_reply"] == true && answered.insert(delivered.message_id().to_owned()) {
                    let correlation = delivered.correlation_id();
                    // An unknown outcome is not repeated here: the message comes again if need be.
                    if let Ok(id) = self.client().reply(&self.instance, correlation, "{}") {
                        history.note(|seen| seen.replied.push((id, correlation.to_owned())));
                    }
                }
                if self.chance(4) {
                    session.nack(&delivered.id, "not now", true);
                } else if self.chance(1) {
                    session.nack(&delivered.id, "handler_error:Test", false);
                } else {
                    session.ack(&delivered.id);
                }
            }
            self.connected.store(false, Ordering::SeqCst);
            if self.chance(50) {
                self.home.fetch_xor(1, Ordering::SeqCst);
            }
        }
    }

    /// Sends, each message until its outcome is known.
    pub fn keep_sending(&self, history: &History, sending: &AtomicBool) {
        let mut number = 0u64;
        while sending.load(Ordering::SeqCst) {
            if !self.connected.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            number += 1;
            let target = ["r0", "r1"][(number % 2) as usize];
            if number.is_multiple_of(50) {
                // What is not allowed must never arrive.
                let refused = self.client().send(&self.instance, "vault", "{}");
                if let Err(refused) = refused {
                    history.note(|seen| *seen.refused.entry(refused.details).or_default() += 1);
                }
            }
            self.send_one(history, target, number);
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    fn send_one(&self, history: &History, target: &str, number: u64) {
        let key = format!("{}-{}-{number}", self.agent, std::process::id());
        let data_json = format!("{{\"n\":{number}}}");
        let give_up = Instant::now() + CALL_PATIENCE;
        let mut tries = 0usize;
        loop {
            // The other server knows the session too, mostly.
            let client = if tries % 3 == 2 {
                &self.clients[1 - self.home.load(Ordering::SeqCst)]
            } else {
                self.client()
            };
            let outcome = if number.is_multiple_of(4) {
                let request = RequestRequest {
                    target_id: target.to_owned(),
                    data_json: data_json.clone(),
                    instance_id: self.instance.clone(),
                    idempotency_key: key.clone(),
                    ..RequestRequest::default()
                };
                client.request_raw(&request).map(|r| (r.message_id, Some(r.correlation_id), r.receipt))
            } else {
                let request = SendRequest {
                    target_id: target.to_owned(),
                    data_json: data_json.clone(),
                    instance_id: self.instance.clone(),
                    idempotency_key: key.clone(),
                    ..SendRequest::default()
                };
                client.send_raw(&request).map(|r| (r.message_id, None, r.receipt))
            };
            match outcome {
                Ok((message_id, correlation_id, receipt)) => {
                    let receipt = (receipt.lane.clone(), receipt.sequence);
                    history.note(|seen| {
                        seen.retried += tries;
                        seen.accepted.push(Accepted {
                            message_id,
                            sender: self.agent.clone(),
                            instance: self.instance.clone(),
                            target: target.to_owned(),
                            correlation_id,
                            receipt,
                        });
                    });
                    return;
                }
                Err(refused) => {
                    let again = refused.code != "INVALID_ARGUMENT" && refused.code != "PERMISSION_DENIED";
                    if !again {
                        history.note(|seen| *seen.refused.entry(refused.details).or_default() += 1);
                        return;
                    }
                    if Instant::now() >= give_up {
                        history.note(|seen| seen.unknown += 1);
                        return;
                    }
                    tries += 1;
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
    }
}
