//! One gate, from its opening to its end: nothing is left of the connections of an input, and nothing of the gate.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::stand_in::{StandIn, locked};
use crate::audit::{Action, OperatorEvent};
use crate::clock::Now;
use crate::config::Limits;
use crate::gate::{Closed, Doorstep, Gate, Peers, Report};

/// Inputs before the gate is replaced.
const INPUTS_EACH: usize = 512;
/// Frames of strangers before it is: they share what comes back slowly.
const STRANGERS_FRAMES: usize = 100;
/// How long anything may take that is waited for: longer than all that the gate itself waits for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the gate put on record: whose connections, what was done to them, and why; how often.
pub type Events = BTreeMap<(String, &'static str, String), u64>;

pub struct Life {
    gate: Gate,
    stand_in: Arc<StandIn>,
    peers: Arc<Peers>,
    report: Arc<Report>,
    pub addr: String,
    pub inputs: usize,
    strangers_frames: usize,
    /// Descriptors and threads of the process while nobody is connected.
    at_rest: (usize, usize),
}

impl Life {
    /// Opens a gate. `at_rest`: what the process had open beside the one before.
    pub fn begin(
        limits: &Limits,
        tls: Arc<ServerConfig>,
        stand_in: Arc<StandIn>,
        at_rest: Option<(usize, usize)>,
    ) -> Self {
        let report = Arc::new(Report::default());
        let doorstep = Doorstep::bind("127.0.0.1:0", limits, report.clone()).expect("a free port");
        let (peers, addr) = (doorstep.peers().clone(), doorstep.addr.clone());
        stand_in.stand_behind(Some(peers.clone()));
        let gate = doorstep.open(tls, stand_in.clone()).expect("a gate opens");
        let at_rest = at_rest.unwrap_or_else(open_now);
        let life = Self { gate, stand_in, peers, report, addr, inputs: 0, strangers_frames: 0, at_rest };
        life.rest();
        life
    }

    pub fn at_rest(&self) -> (usize, usize) {
        self.at_rest
    }

    pub fn is_spent(&self) -> bool {
        self.inputs >= INPUTS_EACH || self.strangers_frames >= STRANGERS_FRAMES
    }

    pub fn renew(&self, tls: Arc<ServerConfig>) {
        self.gate.renew(tls);
    }

    /// Strangers have sent so many frames; `cut`: one of them was cut, and all are turned away for a while.
    pub fn strangers_did(&mut self, frames: usize, cut: bool) {
        self.strangers_frames += if cut { STRANGERS_FRAMES } else { frames };
    }

    /// Waits until nothing is left of an input's connections: what is on record of them.
    pub fn rest(&self) -> Events {
        let give_up = Instant::now() + PATIENCE;
        self.stand_in.at_rest.store(true, Ordering::Relaxed);
        loop {
            // Who was handed over last has nobody who waits for it.
            drop(self.stand_in.taken());
            let (counts, open) = (self.peers.counts(), open_now());
            if counts == [0; 5] && open == self.at_rest {
                self.stand_in.at_rest.store(false, Ordering::Relaxed);
                return record(&self.report);
            }
            assert!(
                Instant::now() < give_up,
                "left of an input: {counts:?}, open {open:?} instead of {:?}: {:?}",
                self.at_rest,
                open_files()
            );
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Lets nobody in any more; what is left is to be ended.
    pub fn close(self) -> Ended {
        let closed = self.gate.close();
        self.stand_in.stand_behind(None);
        Ended { closed, peers: self.peers, report: self.report }
    }
}

/// A gate that lets nobody in any more.
pub struct Ended {
    closed: Closed,
    peers: Arc<Peers>,
    report: Arc<Report>,
}

impl Ended {
    /// Ends it: what is on record. Nobody needs it any more.
    pub fn end(self) -> Events {
        let begun = Instant::now();
        self.closed.end(PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "a gate that nobody needs does not end");
        assert_eq!(self.peers.counts(), [0; 5], "what is counted when a gate has ended");
        record(&self.report)
    }
}

/// Descriptors and threads of this process.
fn open_now() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).expect("proc is mounted").count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn open_files() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("proc is mounted");
    let path = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).unwrap_or_default();
    entries.flatten().map(|entry| path(entry).display().to_string()).collect()
}

/// Takes what is on record.
fn record(report: &Report) -> Events {
    let taken = Mutex::new(Vec::<OperatorEvent>::new());
    report.flush(Now::mono_us(), true, |event| locked(&taken).push(event));
    let mut events = Events::new();
    for event in locked(&taken).drain(..) {
        let done = match event.action {
            Action::ConnectionCut => "cut",
            Action::ConnectionRefused => "turned away",
            _ => "other",
        };
        let count = event.rule.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        *events.entry((event.target, done, event.reason)).or_default() += count;
    }
    events
}
