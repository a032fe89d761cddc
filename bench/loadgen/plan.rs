//! What a measurement does: the part that the user chose, and the part that one client process is told.

use std::path::PathBuf;

use mas::protocol::{MAS_V1, Methods, RUNTIME_V1};
use serde::{Deserialize, Serialize};

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// One unary call each.
    Unary,
    /// On the session's stream.
    Stream,
}

impl Path {
    /// Completion queues, which are threads, of a client process. A second one costs a stream's client a fifth
    /// more CPU and brings nothing; unary calls need it, for one alone would be the bottleneck.
    pub(crate) fn client_queues(self) -> usize {
        match self {
            Self::Unary => 2,
            Self::Stream => 1,
        }
    }
}

/// Who says what to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pattern {
    /// Each sender has a receiver of its own.
    Send,
    /// The same, and each message is a request that the receiver answers.
    Request,
    /// All senders have one receiver.
    FanIn,
    /// One sender has all receivers.
    FanOut,
    /// Each agent updates and reads its own state; nobody receives anything.
    State,
    /// Against the echo server of the floors.
    #[value(skip)]
    Echo,
}

impl Pattern {
    /// Whether messages arrive anywhere.
    pub(crate) fn arrives(self) -> bool {
        self != Self::State
    }
}

/// Which clients' service path is called; methods and messages are the same.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub(crate) enum Generation {
    /// `mas.v1.MasService`.
    #[value(name = "0.4")]
    V04,
    /// `mas.runtime.v1.RuntimeService`.
    #[default]
    #[value(name = "0.5")]
    V05,
}

impl Generation {
    /// Its methods.
    pub(crate) fn methods(self) -> &'static Methods {
        match self {
            Self::V04 => &MAS_V1,
            Self::V05 => &RUNTIME_V1,
        }
    }
}

/// One session to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionPlan {
    /// Whose.
    pub(crate) agent: String,
    /// Which of the agent's instances.
    pub(crate) instance: String,
    /// Whom it sends to, in turn; empty: it only receives.
    pub(crate) targets: Vec<String>,
    /// Whether it sends at all: state has no target.
    pub(crate) sends: bool,
}

/// What is in the messages.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Size of each payload, in bytes.
    pub(crate) payload_bytes: usize,
    /// The part of the messages, 0 to 1, that the default rules of data-loss prevention find something in.
    pub(crate) findings: f64,
    /// Makes the same payloads again.
    pub(crate) seed: u64,
}

/// What one client process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClientPlan {
    /// `host:port` of the server.
    pub(crate) addr: String,
    /// The folder with `ca.pem` and `agents/NAME.{pem,key}`.
    pub(crate) certs: PathBuf,
    /// The name in the server's certificate, where it is not the host of the address.
    pub(crate) server_name: Option<String>,
    pub(crate) generation: Generation,
    pub(crate) pattern: Pattern,
    pub(crate) path: Path,
    pub(crate) sessions: Vec<SessionPlan>,
    /// Whether no other process takes part.
    pub(crate) alone: bool,
    /// Messages under way in a closed loop.
    pub(crate) in_flight: usize,
    /// Messages a second in an open loop; `None`: closed.
    pub(crate) rate: Option<f64>,
    pub(crate) content: Content,
}

/// When a client process does what, in microseconds of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) start_us: u64,
    /// Counting starts.
    pub(crate) from_us: u64,
    /// Counting ends, and so does sending.
    pub(crate) until_us: u64,
    /// Length of the slices in which latency over time is kept.
    pub(crate) slice_us: u64,
}

/// Slices of a run: what a plot over time shows.
pub(crate) const MAX_SLICES: u64 = 120;
/// Shortest slice.
const MIN_SLICE_US: u64 = 100_000;

impl Schedule {
    /// Starting a little later than now, so that every process has it before.
    pub(crate) fn soon(warm_up_s: f64, counted_s: f64) -> Self {
        /// What it takes to hand the schedule to some processes.
        const LEAD_US: u64 = 50_000;
        let start_us = crate::clock::now_us() + LEAD_US;
        let from_us = start_us + (warm_up_s * 1e6) as u64;
        let counted_us = (counted_s * 1e6) as u64;
        let slice_us = (counted_us / MAX_SLICES + 1).max(MIN_SLICE_US);
        Self { start_us, from_us, until_us: from_us + counted_us, slice_us }
    }
}
