//! A client process: opens the sessions of its plan, sends by a schedule, and reports what it saw.
//!
//! It is told by lines on stdin and answers by lines on stdout: the plan, then `ready`; the schedule, then the
//! report. The end of stdin ends it.

mod recorder;
mod session;

use std::io::{BufRead, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use grpcio::{ChannelBuilder, ChannelCredentialsBuilder, Client, EnvBuilder, Environment};
use mas::certs::{agent_files, ca_file};
use mas::ids::AgentId;
use mas_agent::{Credentials, keep_alive};
use serde::{Deserialize, Serialize};

use crate::clock::{now_us, sleep_until};
use crate::payload::Payloads;
use crate::plan::{ClientPlan, Path, Schedule, SessionPlan};
use crate::{AnyError, process};
use recorder::Recorder;
use session::{Common, Offer, Session};

pub(crate) use recorder::{Report, Totals};
pub(crate) use session::MAX_EVENT_ITEMS;

/// How long one session may take to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
/// Handshakes under way at a time: more of them only wait for one another.
const MAX_OPENING: usize = 32;
/// How often things that are waited for are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Shortest sleep of the open loop's clock: what falls due meanwhile is sent together, and its latency counts
/// from when it was due.
const MIN_NAP_US: u64 = 250;
/// Longest sleep of the open loop's clock: how late the end is seen.
const MAX_NAP_US: u64 = 1000;
/// How long the end of a run waits for what is under way.
pub(crate) const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Nothing has arrived for this long: nothing comes any more.
const QUIET: Duration = Duration::from_millis(500);
/// Messages of one sender under way in an open loop, where the server sets no lower bound; one more is not
/// sent but counted as a failure: an open loop that waited would be none.
pub(crate) const MAX_UNDER_WAY: usize = 1000;

/// What a client process says when all its sessions are open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// How messages will be sent: unary where the server takes no submissions.
    pub(crate) path: Path,
}

/// The body of the process.
pub(crate) fn main() -> Result<(), AnyError> {
    process::end_with_parent()?;
    let mut lines = std::io::stdin().lock().lines();
    let plan: ClientPlan = serde_json::from_str(&lines.next().ok_or("no plan")??)?;
    let (common, sessions) = open(&plan)?;
    let submits = |session: &Arc<Session>| session.offer().is_some_and(|offer| offer.submit);
    // An older server takes no submissions: the same sessions, and unary calls.
    let path = if sessions.iter().all(submits) { plan.path } else { Path::Unary };
    common.path.set(path).map_err(|_| "a second path")?;
    say(&Ready { path })?;
    let schedule: Schedule = match lines.next() {
        Some(line) => serde_json::from_str(&line?)?,
        None => return Ok(()),
    };
    let report = run(&plan, &common, &sessions, schedule)?;
    say(&report)
}

fn say(what: &impl Serialize) -> Result<(), AnyError> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(what)?)?;
    stdout.flush()?;
    Ok(())
}

fn open(plan: &ClientPlan) -> Result<(Arc<Common>, Vec<Arc<Session>>), AnyError> {
    let environment =
        Arc::new(EnvBuilder::new().cq_count(plan.path.client_queues()).name_prefix("load").build());
    let content = plan.content;
    let common = Arc::new(Common {
        pattern: plan.pattern,
        methods: plan.generation.methods(),
        path: OnceLock::new(),
        payloads: Payloads::new(content.payload_bytes, content.findings, content.seed),
        recorder: Recorder::new(plan.rate.is_some())?,
    });
    let mut sessions: Vec<Arc<Session>> = Vec::with_capacity(plan.sessions.len());
    for (index, wanted) in plan.sessions.iter().enumerate() {
        if let Some(earlier) = index.checked_sub(MAX_OPENING).and_then(|earlier| sessions.get(earlier)) {
            wait_open(earlier, &common)?;
        }
        let client = Client::new(connect(plan, wanted, &environment)?);
        sessions.push(Session::open(&common, wanted.clone(), index, client)?);
    }
    for session in &sessions {
        let _ = wait_open(session, &common)?;
    }
    Ok((common, sessions))
}

fn connect(
    plan: &ClientPlan,
    session: &SessionPlan,
    environment: &Arc<Environment>,
) -> Result<grpcio::Channel, AnyError> {
    let agent =
        AgentId::parse(&session.agent).ok_or_else(|| format!("{:?} is no agent id", session.agent))?;
    let files = agent_files(&plan.certs, &agent);
    let credentials = Credentials::from_files(ca_file(&plan.certs), files.cert, files.key)?.load()?;
    let tls = ChannelCredentialsBuilder::new()
        .root_cert(credentials.ca)
        .cert(credentials.cert, credentials.key)
        .build();
    let mut channel = keep_alive(ChannelBuilder::new(environment.clone()))
        // A connection carries its agent's identity: none is shared.
        .use_local_subchannel_pool(true)
        .set_credentials(tls);
    if let Some(name) = &plan.server_name {
        channel = channel.override_ssl_target(name.as_str());
    }
    Ok(channel.connect(&plan.addr))
}

fn wait_open(session: &Arc<Session>, common: &Common) -> Result<Offer, AnyError> {
    let give_up = Instant::now() + OPEN_PATIENCE;
    loop {
        if let Some(offer) = session.offer() {
            return Ok(offer);
        }
        if session.is_closed() {
            return Err(format!("a session was refused: {:?}", common.recorder.failures()).into());
        }
        if Instant::now() >= give_up {
            return Err(format!("a session did not open within {OPEN_PATIENCE:?}").into());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn run(
    plan: &ClientPlan,
    common: &Arc<Common>,
    sessions: &[Arc<Session>],
    schedule: Schedule,
) -> Result<Report, AnyError> {
    let recorder = &common.recorder;
    recorder.begin(schedule)?;
    let senders: Vec<&Arc<Session>> = sessions.iter().filter(|session| session.sends()).collect();
    sleep_until(schedule.start_us)?;
    if !senders.is_empty() {
        match plan.rate {
            None => {
                for session in senders.iter().cycle().take(plan.in_flight) {
                    session.start(now_us(), true);
                }
                sleep_until(schedule.until_us)?;
            }
            Some(rate) => keep_time(&senders, rate, common, schedule),
        }
    } else {
        sleep_until(schedule.until_us)?;
    }
    recorder.end();
    let at_end = recorder.totals();
    drain(recorder, plan);
    recorder.report(at_end)
}

/// Waits until nothing is under way; where other processes send or receive too, until nothing has happened
/// for a while.
fn drain(recorder: &Recorder, plan: &ClientPlan) {
    let give_up = Instant::now() + DRAIN_PATIENCE;
    let (mut last, mut changed) = (recorder.totals(), Instant::now());
    while Instant::now() < give_up {
        let now = recorder.totals();
        if plan.alone && now.under_way(plan.pattern.arrives()) <= 0 {
            return;
        }
        if now != last {
            (last, changed) = (now, Instant::now());
        }
        if changed.elapsed() > QUIET {
            return;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Open loop: message `n` is due at `n / rate`, on the clock, and its latency counts from then.
fn keep_time(senders: &[&Arc<Session>], rate: f64, common: &Common, schedule: Schedule) {
    let recorder = &common.recorder;
    let mut number = 0u64;
    // What is due by now, by sender.
    let mut due: Vec<Vec<u64>> = vec![Vec::new(); senders.len()];
    loop {
        let now_us = now_us();
        let mut next_us;
        loop {
            next_us = schedule.start_us + (number as f64 * 1e6 / rate) as u64;
            if next_us > now_us || next_us >= schedule.until_us {
                break;
            }
            let sender = number as usize % senders.len().max(1);
            number += 1;
            if let Some(due) = due.get_mut(sender) {
                due.push(next_us);
            }
        }
        for (session, due) in senders.iter().zip(&mut due).filter(|(_, due)| !due.is_empty()) {
            let submissions = session.offer().map_or(0, |offer| offer.max_submissions);
            let bound =
                if common.path() == Path::Stream { submissions.min(MAX_UNDER_WAY) } else { MAX_UNDER_WAY };
            let room = bound.saturating_sub(session.under_way());
            for _ in room..due.len() {
                recorder.problem("not sent: too many under way");
            }
            due.truncate(room);
            session.start_all(due);
            due.clear();
        }
        if next_us >= schedule.until_us {
            return;
        }
        std::thread::sleep(Duration::from_micros((next_us - now_us).clamp(MIN_NAP_US, MAX_NAP_US)));
    }
}
