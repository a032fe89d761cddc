//! The scenes: each does something, checks what came of it, and says so in a line.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::worker::{Add, Report, Sum, Task};
use crate::cli::audit::verify_trail;
use crate::ids::AgentId;
use crate::runner::Runner;
use crate::store::{Endpoint, overview, owners};
use mas_agent::{Agent, Credentials};

/// How long any one thing may take before its scene counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tasks that the two workers share.
const TASKS: u32 = 40;
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

struct Stage<'a> {
    runner: &'a Runner,
    planner: Agent,
    begun: Receiver<Report>,
    done: Receiver<Report>,
    endpoint: &'a Endpoint,
    config_path: &'a Path,
}

pub(super) type AnyError = Box<dyn std::error::Error>;
type Scene = fn(&mut Stage<'_>) -> Result<String, AnyError>;

const SCENES: &[(&str, Scene)] = &[
    ("allow", allow),
    ("deny", deny),
    ("redact", redact),
    ("block", block),
    ("request / reply", request_reply),
    ("discover", discover),
    ("share the work", share),
    ("kill -9 mid-message", kill_worker),
    ("state, server killed", state),
    ("rate limit", rate_limit),
    ("circuit breaker", circuit),
    ("reload", reload),
    ("audit", audit),
];

/// Plays all scenes; how many there were, and how many failed.
pub(super) fn play(
    runner: &Runner,
    credentials: Credentials,
    endpoint: &Endpoint,
    config_path: &Path,
) -> Result<(usize, usize), AnyError> {
    let (begun_sender, begun) = unbounded();
    let (done_sender, done) = unbounded();
    let planner = Agent::builder(runner.server_addr(), credentials)
        .instance("demo")
        .on("begun", move |_, report: Report| {
            let _ = begun_sender.send(report);
            Ok(())
        })
        .on("noise", |_, _: serde_json::Value| Ok(()))
        .on("done", move |_, report: Report| {
            let _ = done_sender.send(report);
            Ok(())
        })
        .connect()?;
    let mut stage = Stage { runner, planner, begun, done, endpoint, config_path };
    let mut failed = 0;
    for (name, scene) in SCENES {
        let started = Instant::now();
        match scene(&mut stage) {
            Ok(said) => println!("  ✔ {name:<21} {said}  [{} ms]", started.elapsed().as_millis()),
            Err(error) => {
                failed += 1;
                println!("  ✘ {name:<21} {error}");
            }
        }
    }
    stage.planner.shutdown();
    Ok((SCENES.len(), failed))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), AnyError> {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > give_up {
            return Err(format!("waited in vain for {what}").into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn allow(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let id = stage.planner.send("worker", "task", &Task { number: 0, slow: false })?.message_id;
    let report = stage.done.recv_timeout(PATIENCE)?;
    let short = id.get(..4).unwrap_or(&id);
    let instance = report.instance;
    Ok(format!("planner → worker is in the rules: stored, on record as {short}…, done by {instance}"))
}

fn deny(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let refusal = |target: &str| match stage.planner.send(target, "open", &serde_json::json!({})) {
        Ok(_) => Err(format!("{target} was reachable")),
        Err(error) => Ok(error.detail().unwrap_or("no detail").to_owned()),
    };
    let (forbidden, unknown) = (refusal("vault")?, refusal("nobody")?);
    if forbidden != "not_authorized" || unknown != forbidden {
        return Err(format!("refused with {forbidden} and {unknown}").into());
    }
    Ok("planner → vault is not: not_authorized; an agent that does not exist looks the same".to_owned())
}

/// The detail of a refusal.
fn refused(stage: &Stage<'_>, target: &str, data: &serde_json::Value) -> Result<String, AnyError> {
    match stage.planner.send(target, "note", data) {
        Ok(_) => Err(format!("{data} was accepted").into()),
        Err(error) => Ok(error.detail().unwrap_or("no detail").to_owned()),
    }
}

fn redact(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let reply = stage.planner.request("worker", "echo", &json!({"text": "SSN 123-45-6789"}), PATIENCE)?;
    let echoed: serde_json::Value = reply.parse_data()?;
    if echoed.get("text") != Some(&"SSN XXX-XX-6789".into()) {
        return Err(format!("the worker saw {echoed}").into());
    }
    Ok("a social security number on its way: the worker saw \"SSN XXX-XX-6789\"".to_owned())
}

fn block(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    for data in [json!({"card": "4111 1111 1111 1111"}), json!({"password": "correct-horse-9"})] {
        let detail = refused(stage, "worker", &data)?;
        if detail != "dlp_blocked" {
            return Err(format!("refused with {detail}").into());
        }
    }
    Ok("a card number, a password: dlp_blocked; on record by type and place, not by text".to_owned())
}

fn rate_limit(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    // The planner may send 10,000 a minute; the worker's own limit is small.
    let reply = stage.planner.request("worker", "flood", &json!({}), PATIENCE)?;
    let flood: serde_json::Value = reply.parse_data()?;
    match (flood.get("sent").and_then(serde_json::Value::as_u64), flood.get("refusal")) {
        (Some(sent), Some(refusal)) if refusal == "rate_limited" => {
            Ok(format!("the worker tried to flood: rate_limited after {sent} more messages"))
        }
        _ => Err(format!("the worker reports {flood}").into()),
    }
}

fn circuit(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let mut failures = 0;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match stage.planner.send("worker", "fail", &json!({})) {
            Ok(_) => failures += 1,
            Err(error) if error.detail() == Some("circuit_open") => break,
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > give_up {
            return Err("the circuit did not open".into());
        }
        std::thread::sleep(LOOK);
    }
    let mut recovered = None;
    until("the circuit to close", || {
        recovered = stage.planner.request("worker", "add", &Add { a: 1, b: 1 }, PATIENCE).ok();
        recovered.is_some()
    })?;
    Ok(format!("after {failures} messages to failing handlers: circuit_open; a good one later closes it"))
}

fn reload(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let text = std::fs::read_to_string(stage.config_path)?;
    let rule = "permissions:\n  - {type: deny, sender: planner, targets: [worker]}\n";
    let pid = i32::try_from(stage.runner.server_pid().ok_or("the server is not running")?)?;
    std::fs::write(stage.config_path, text.replacen("permissions:\n", rule, 1))?;
    kill(Pid::from_raw(pid), Signal::SIGHUP)?;
    let data = json!({});
    let denied = until("the new rule", || {
        refused(stage, "worker", &data).is_ok_and(|detail| detail == "not_authorized")
    });
    std::fs::write(stage.config_path, text)?;
    kill(Pid::from_raw(pid), Signal::SIGHUP)?;
    denied?;
    until("the old rules", || stage.planner.send("worker", "ignored", &data).is_ok())?;
    Ok("a deny rule added and taken away while everybody stayed connected".to_owned())
}

fn request_reply(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let reply = stage.planner.request("worker", "add", &Add { a: 19, b: 23 }, PATIENCE)?;
    let sum: Sum = reply.parse_data()?;
    if sum.sum != 42 {
        return Err(format!("19 + 23 = {}", sum.sum).into());
    }
    Ok(format!("19 + 23 = {}, answered by {}", sum.sum, reply.sender_instance().unwrap_or("?")))
}

fn discover(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let found = stage.planner.discover(&[])?;
    let names: Vec<&str> = found.iter().map(|peer| peer.agent_id.as_str()).collect();
    if names != ["worker"] {
        return Err(format!("planner sees {names:?}").into());
    }
    Ok("planner sees worker, and not the vault it may not message".to_owned())
}

/// Instances of the worker that the store knows, connected ones as soon as it has started.
fn known_workers(endpoint: &Endpoint) -> Result<usize, AnyError> {
    let worker = AgentId::parse("worker").ok_or("a malformed agent id")?;
    let views = overview::agents(&mut endpoint.within(PATIENCE).open()?, std::iter::once(&worker))?;
    Ok(views.first().map_or(0, |view| owners::instances(view.instances.clone()).len()))
}

fn share(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let endpoint = stage.endpoint;
    until("both workers to be connected", || known_workers(endpoint).is_ok_and(|known| known == 2))?;
    for number in 1..=TASKS {
        drop(stage.planner.send("worker", "task", &Task { number, slow: false })?);
    }
    let mut by_instance: BTreeMap<String, u32> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < TASKS as usize {
        let report = stage.done.recv_timeout(PATIENCE)?;
        if !seen.insert(report.number) {
            return Err(format!("task {} was done twice", report.number).into());
        }
        *by_instance.entry(report.instance).or_default() += 1;
    }
    if by_instance.len() != 2 {
        return Err(format!("the work was not shared: {by_instance:?}").into());
    }
    let parts: Vec<String> =
        by_instance.iter().map(|(instance, count)| format!("{instance} did {count}")).collect();
    Ok(format!("{TASKS} tasks, each done once: {}", parts.join(", ")))
}

fn kill_worker(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let number = TASKS + 1;
    let id = stage.planner.send("worker", "task", &Task { number, slow: true })?.message_id;
    let begun = stage.begun.recv_timeout(PATIENCE)?;
    kill(Pid::from_raw(i32::try_from(begun.pid)?), Signal::SIGKILL)?;
    let killed = Instant::now();
    let done = loop {
        let report = stage.done.recv_timeout(PATIENCE)?;
        if report.number == number {
            break report;
        }
    };
    if done.pid == begun.pid {
        return Err("the killed process finished its task".into());
    }
    let short = id.get(id.len().saturating_sub(4)..).unwrap_or(&id);
    Ok(format!(
        "{} died holding …{short}; {} had it done {:.1} s later",
        begun.instance,
        if done.instance == begun.instance { "its successor" } else { done.instance.as_str() },
        killed.elapsed().as_secs_f64()
    ))
}

fn state(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    stage.planner.update_state(&[("plan", "\"step 7\"")])?;
    let old = stage.runner.server_pid().ok_or("the server is not running")?;
    kill(Pid::from_raw(i32::try_from(old)?), Signal::SIGKILL)?;
    until("a new server", || stage.runner.server_pid().is_some_and(|pid| pid != old))?;
    until("the planner's new session", || {
        stage
            .planner
            .state()
            .is_ok_and(|state| state.fields.get("plan").is_some_and(|plan| plan == "\"step 7\""))
    })?;
    let reply = stage.planner.request("worker", "add", &Add { a: 1, b: 1 }, PATIENCE)?;
    let sum: Sum = reply.parse_data()?;
    if sum.sum != 2 {
        return Err("the worker cannot add any more".into());
    }
    Ok("the server was killed too: restarted, all reconnected, the planner's state is still there".to_owned())
}

fn audit(stage: &mut Stage<'_>) -> Result<String, AnyError> {
    let report = verify_trail(stage.endpoint.within(PATIENCE).open()?)?;
    if let Some(damage) = report.damages.first() {
        return Err(damage.to_string().into());
    }
    let counts: Vec<String> =
        report.decisions.iter().map(|(name, count)| format!("{count} {name}")).collect();
    Ok(format!("{} records, in Merkle trees, intact: {}", report.records, counts.join(", ")))
}
