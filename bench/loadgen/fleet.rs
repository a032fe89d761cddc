//! Client processes from the outside: start them, give them a schedule, look at everybody's CPU meanwhile, and
//! add up what they report.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{DRAIN_PATIENCE, Ready, Report, Totals};
use crate::clock::sleep_until;
use crate::latency::Latencies;
use crate::plan::{ClientPlan, Path, Pattern, Schedule};
use crate::process::{Process, cpu_s};
use crate::{AnyError, CLIENT_COMMAND};

/// How long all sessions of a process may take to open.
const READY_PATIENCE: Duration = Duration::from_secs(600);
/// How long a report may take beyond the run and its drain.
const REPORT_PATIENCE: Duration = Duration::from_secs(30);
/// Most client processes.
pub(crate) const MAX_PROCESSES: u16 = 64;

/// Client processes with open sessions; ended when dropped.
pub(crate) struct Fleet {
    clients: Vec<Process>,
    pattern: Pattern,
    /// How they send: unary where a stream was asked for and the server takes no submissions.
    pub(crate) path: Path,
}

/// Processes whose CPU is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watched {
    pub(crate) server: Option<u32>,
    pub(crate) redis: Option<u32>,
}

/// What came of one run.
pub(crate) struct Outcome {
    /// Length of the counted window, in seconds.
    pub(crate) seconds: f64,
    pub(crate) slice_s: f64,
    pub(crate) call: Latencies,
    pub(crate) end_to_end: Latencies,
    pub(crate) slices: Vec<Latencies>,
    /// CPU in the window, in seconds; `None`: not a process of ours.
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) redis_cpu_s: Option<f64>,
    pub(crate) client_cpu_s: f64,
    /// Of the whole run.
    pub(crate) totals: Totals,
    /// Under way when sending stopped.
    pub(crate) backlog: i64,
    /// Accepted and, some time after the end, not delivered.
    pub(crate) undelivered: i64,
    pub(crate) foreign: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) pattern: Pattern,
    pub(crate) path: Path,
}

impl Fleet {
    /// Starts one process for each plan and waits until all their sessions are open.
    pub(crate) fn start(plans: &[ClientPlan]) -> Result<Self, AnyError> {
        let pattern = plans.first().ok_or("no client")?.pattern;
        let mut clients = Vec::with_capacity(plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let mut client = Process::again(&format!("client {index}"), &[CLIENT_COMMAND])?;
            client.tell(&serde_json::to_string(plan)?)?;
            clients.push(client);
        }
        let mut path = Path::Stream;
        for client in &mut clients {
            let ready: Ready = serde_json::from_str(&client.line(READY_PATIENCE)?)?;
            if ready.path == Path::Unary {
                path = Path::Unary;
            }
        }
        Ok(Self { clients, pattern, path })
    }

    /// Process ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.clients.iter().map(Process::pid).collect()
    }

    /// Runs the schedule; the processes end with it.
    pub(crate) fn run(mut self, schedule: Schedule, watched: Watched) -> Result<Outcome, AnyError> {
        let line = serde_json::to_string(&schedule)?;
        for client in &mut self.clients {
            client.tell(&line)?;
        }
        let pids = self.pids();
        let clients_cpu = || pids.iter().map(|pid| cpu_s(*pid)).sum::<Result<f64, _>>();
        let look = || -> Result<(Option<f64>, Option<f64>, f64), AnyError> {
            Ok((
                watched.server.map(cpu_s).transpose()?,
                watched.redis.map(cpu_s).transpose()?,
                clients_cpu()?,
            ))
        };
        sleep_until(schedule.from_us)?;
        let before = look()?;
        sleep_until(schedule.until_us)?;
        let after = look()?;
        let used = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
        let mut outcome = Outcome {
            seconds: (schedule.until_us - schedule.from_us) as f64 / 1e6,
            slice_s: schedule.slice_us as f64 / 1e6,
            call: Latencies::new()?,
            end_to_end: Latencies::new()?,
            slices: Vec::new(),
            server_cpu_s: used(before.0, after.0),
            redis_cpu_s: used(before.1, after.1),
            client_cpu_s: after.2 - before.2,
            totals: Totals::default(),
            backlog: 0,
            undelivered: 0,
            foreign: 0,
            failures: BTreeMap::new(),
            pattern: self.pattern,
            path: self.path,
        };
        let mut at_end = Totals::default();
        for client in &mut self.clients {
            let report: Report = serde_json::from_str(&client.line(DRAIN_PATIENCE + REPORT_PATIENCE)?)?;
            at_end.add(report.at_end);
            outcome.add(report)?;
        }
        let arrives = self.pattern.arrives();
        outcome.backlog = at_end.under_way(arrives);
        let Totals { accepted, delivered, .. } = outcome.totals;
        outcome.undelivered = if arrives { accepted.cast_signed() - delivered.cast_signed() } else { 0 };
        Ok(outcome)
    }
}

impl Outcome {
    fn add(&mut self, report: Report) -> Result<(), AnyError> {
        self.call.add_counts(&report.call);
        self.end_to_end.add_counts(&report.end_to_end);
        while self.slices.len() < report.slices.len() {
            self.slices.push(Latencies::coarse()?);
        }
        for (slice, counts) in self.slices.iter_mut().zip(&report.slices) {
            slice.add_counts(counts);
        }
        self.totals.add(report.totals);
        self.foreign += report.foreign;
        for (reason, count) in report.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        Ok(())
    }

    /// What the pattern is about: end to end, or for state the call.
    pub(crate) fn latency(&self) -> &Latencies {
        if self.pattern.arrives() { &self.end_to_end } else { &self.call }
    }

    /// Messages that were accepted, a second.
    pub(crate) fn accepted_per_s(&self) -> f64 {
        self.call.len() as f64 / self.seconds
    }

    /// Messages that arrived, a second.
    pub(crate) fn delivered_per_s(&self) -> f64 {
        self.end_to_end.len() as f64 / self.seconds
    }

    /// Microseconds of CPU for each accepted message.
    pub(crate) fn per_message_us(&self, cpu_s: f64) -> f64 {
        cpu_s * 1e6 / self.call.len().max(1) as f64
    }

    /// Failures of all reasons.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}
