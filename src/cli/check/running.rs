//! Checks of what runs: the server, and what is in Redis.

use super::args::CheckArgs;
use super::files::{checkpoint_ages, signature};
use super::outcome::{Bounds, Outcome, Status, Unit, settled};
use crate::cli::audit::verify_installation;
use crate::cli::facts::redis::{RedisFacts, RedisProblem};
use crate::cli::facts::seals;
use crate::cli::facts::server::{Inbox, Server, Told};
use crate::cli::text::time_text;
use crate::clock::Now;
use crate::config::{Config, Limits};
use crate::store::overview;

const SERVER: &str = "server";
const INBOX: &str = "inbox";
const DEAD_LETTERS: &str = "dlq";
const AUDIT: &str = "audit";
const REDIS: &str = "redis";
/// Seconds until the server answers.
const ANSWER_S: (f64, f64) = (0.5, 2.0);
/// Shares of an inbox's bound.
const INBOX_SHARES: (f64, f64) = (0.5, 0.9);
/// Dead letters.
const LETTERS: (f64, f64) = (1.0, 1000.0);
/// Percent of `maxmemory`.
const MEMORY_PERCENT: (f64, f64) = (75.0, 85.0);
/// Milliseconds between two checkpoints, where no configuration is at hand: as it is by default.
const INTERVAL_MS: u64 = 1000;

pub(super) fn server(args: &CheckArgs) -> Outcome {
    settled(SERVER, look_at_server(args))
}

fn look_at_server(args: &CheckArgs) -> Result<Outcome, String> {
    let bounds = args.bounds(Unit::Seconds, false, ANSWER_S)?;
    let mut outcome = Outcome::new(SERVER);
    let told = match Server::look(&args.admin) {
        Server::Told(told) => told,
        Server::NotAsked(why) => return Err(why),
        Server::Silent(why) => {
            outcome.found(Status::Critical, &why);
            return Ok(outcome);
        }
    };
    for (name, problem) in told.problems() {
        outcome.found(Status::Critical, &format!("{name}: {problem}"));
    }
    for (code, why) in told.troubles() {
        outcome.found(Status::Warning, &format!("{code}: {why}"));
    }
    let took = told.took.as_secs_f64();
    let status = outcome.value("answer time", took, Unit::Seconds, Some(bounds));
    let sessions: u64 = told
        .of("sessions")
        .as_object()
        .into_iter()
        .flat_map(|sessions| sessions.values())
        .filter_map(serde_json::Value::as_u64)
        .sum();
    let connections = told.of("connections").as_u64().unwrap_or(0);
    let state = if told.is_ready() { "ready" } else { "not ready" };
    outcome.found(status, &format!("{state}, answered in {took:.3} seconds, {sessions} sessions"));
    let _ = outcome.value("sessions", sessions as f64, Unit::None, None);
    let _ = outcome.value("connections", connections as f64, Unit::None, None);
    Ok(outcome)
}

pub(super) fn inbox(args: &CheckArgs, agents: &[String]) -> Outcome {
    settled(INBOX, look_at_inboxes(args, agents))
}

fn look_at_inboxes(args: &CheckArgs, agents: &[String]) -> Result<Outcome, String> {
    let config = args.admin.configuration();
    let limit = config.as_ref().map_or_else(|_| Limits::default().max_queue_len, |c| c.limits.max_queue_len);
    let default = (limit as f64 * INBOX_SHARES.0, limit as f64 * INBOX_SHARES.1);
    let bounds = args.bounds(Unit::None, false, default)?;
    if let Ok(config) = &config
        && let Some(unknown) = agents.iter().find(|name| !config.agents.contains_key(name.as_str()))
    {
        return Err(format!("{unknown:?} is not in `agents`"));
    }
    let server = Server::look(&args.admin);
    let mut inboxes = match (server.told(), config) {
        (Some(told), _) => told.inboxes(),
        (None, Ok(config)) => inboxes_in_redis(&config)
            .map_err(|error| format!("{}; {error}", server.why_not().unwrap_or_default()))?,
        (None, Err(trouble)) => return Err(trouble.to_string()),
    };
    inboxes.retain(|inbox| agents.is_empty() || agents.contains(&inbox.agent));
    // What is empty is not listed.
    for agent in
        agents.iter().filter(|agent| !inboxes.iter().any(|inbox| inbox.agent == **agent)).collect::<Vec<_>>()
    {
        inboxes.push(Inbox { agent: agent.clone(), queued: 0 });
    }
    Ok(outcome_of_inboxes(inboxes, bounds))
}

fn inboxes_in_redis(config: &Config) -> Result<Vec<Inbox>, String> {
    let look = || {
        let mut facts = RedisFacts::look(config)?;
        overview::inboxes(&mut facts.connection, config.agents.keys())
    };
    let views = look().map_err(|error| error.to_string())?;
    let inbox = |view: overview::InboxView| Inbox { agent: view.agent.to_string(), queued: view.queued };
    Ok(views.into_iter().filter(|view| view.queued > 0).map(inbox).collect())
}

fn outcome_of_inboxes(mut inboxes: Vec<Inbox>, bounds: Bounds) -> Outcome {
    let mut outcome = Outcome::new(INBOX);
    inboxes.sort_by(|a, b| (b.queued, &a.agent).cmp(&(a.queued, &b.agent)));
    for inbox in &inboxes {
        let count = inbox.queued as f64;
        let status = outcome.value(&inbox.agent, count, Unit::None, Some(bounds));
        outcome.found(status, &format!("{}: {} messages", inbox.agent, inbox.queued));
    }
    if inboxes.is_empty() {
        outcome.found(Status::Ok, "all inboxes are empty");
    }
    outcome
}

pub(super) fn dead_letters(args: &CheckArgs) -> Outcome {
    settled(DEAD_LETTERS, look_at_dead_letters(args))
}

fn look_at_dead_letters(args: &CheckArgs) -> Result<Outcome, String> {
    let bounds = args.bounds(Unit::None, false, LETTERS)?;
    let server = Server::look(&args.admin);
    let count = match server.told().and_then(|told| told.redis_number("dead_letters")) {
        Some(count) => count,
        None => {
            let config = args.admin.configuration().map_err(|trouble| trouble.to_string())?;
            let facts = RedisFacts::look(&config).map_err(|error| error.to_string())?;
            facts.overview.dead_letters
        }
    };
    let mut outcome = Outcome::new(DEAD_LETTERS);
    let status = outcome.value("dead letters", count as f64, Unit::None, Some(bounds));
    let hint = if count > 0 { ": `mas dlq list` shows them" } else { "" };
    outcome.found(status, &format!("{count} dead letters in Redis{hint}"));
    Ok(outcome)
}

pub(super) fn audit(args: &CheckArgs, verify: bool) -> Outcome {
    settled(AUDIT, look_at_audit(args, verify))
}

fn look_at_audit(args: &CheckArgs, verify: bool) -> Result<Outcome, String> {
    let config = args.admin.configuration();
    let interval_ms = config.as_ref().map_or(INTERVAL_MS, |config| config.audit.checkpoint_interval_ms);
    let bounds = args.bounds(Unit::Seconds, false, checkpoint_ages(interval_ms))?;
    let server = Server::look(&args.admin);
    let mut outcome = Outcome::new(AUDIT);
    match (server.told(), config) {
        (Some(told), _) => audit_of_server(&mut outcome, told, bounds),
        (None, Ok(config)) => audit_in_redis(&mut outcome, &config, bounds)
            .map_err(|error| format!("{}; {error}", server.why_not().unwrap_or_default()))?,
        (None, Err(trouble)) => return Err(trouble.to_string()),
    }
    if verify {
        let report = verify_installation(args.admin.config_path().map(std::path::Path::to_path_buf));
        let report = report.map_err(|trouble| trouble.to_string())?;
        let damages = report.damages.len() as u64 + report.further_damages;
        let _ = outcome.value("damages", damages as f64, Unit::None, None);
        let _ = outcome.value("records", report.records as f64, Unit::None, None);
        match damages {
            0 => outcome.found(Status::Ok, &format!("{} records verified: intact", report.records)),
            _ => outcome.found(
                Status::Critical,
                &format!("the trail does not verify: {damages} places; `mas audit verify` names them"),
            ),
        }
    }
    Ok(outcome)
}

fn audit_of_server(outcome: &mut Outcome, told: &Told, bounds: Bounds) {
    for (_, problem) in told.problems().iter().filter(|(name, _)| name == "audit") {
        outcome.found(Status::Critical, problem);
    }
    let is_of_trail = |code: &str| {
        [
            "checkpoints_failing",
            "redis_lacks_checkpoints",
            "archive_failing",
            "copy_failing",
            "trail_rolled_back",
        ]
        .contains(&code)
    };
    for (code, why) in told.troubles().iter().filter(|(code, _)| is_of_trail(code)) {
        outcome.found(Status::Warning, &format!("{code}: {why}"));
    }
    checkpoint(outcome, told.checkpoint_ms(), told.time_ms(), bounds);
}

fn audit_in_redis(outcome: &mut Outcome, config: &Config, bounds: Bounds) -> Result<(), String> {
    let mut facts = RedisFacts::look(config).map_err(|error| error.to_string())?;
    let keys = seals::keys(config);
    let seal = seals::in_redis(&mut facts.connection, keys.as_ref()).map_err(|error| error.to_string())?;
    checkpoint(outcome, seal.as_ref().map(|seal| seal.checkpoint.time_ms), None, bounds);
    if let Some(seal) = &seal {
        signature(outcome, &seal.signature);
    }
    if facts.overview.servers == 0 {
        outcome.found(Status::Ok, "no server runs: nothing is sealed");
    }
    Ok(())
}

fn checkpoint(outcome: &mut Outcome, made_ms: Option<u64>, now_ms: Option<u64>, bounds: Bounds) {
    let Some(made_ms) = made_ms else {
        return outcome.found(Status::Critical, "there is no checkpoint yet");
    };
    let now_ms = now_ms.unwrap_or_else(|| Now::read().unix_us / 1000);
    let age_s = (now_ms as f64 - made_ms as f64) / 1000.0;
    let status = outcome.value("checkpoint age", age_s, Unit::Seconds, Some(bounds));
    let time = time_text(made_ms.saturating_mul(1000));
    outcome.found(status, &format!("newest checkpoint of {time}, {age_s:.0} seconds ago"));
}

pub(super) fn redis(args: &CheckArgs) -> Outcome {
    settled(REDIS, look_at_redis(args))
}

fn look_at_redis(args: &CheckArgs) -> Result<Outcome, String> {
    let bounds = args.bounds(Unit::Percent, false, MEMORY_PERCENT)?;
    let server = Server::look(&args.admin);
    let mut outcome = Outcome::new(REDIS);
    let config = args.admin.configuration();
    if let Some(told) = server.told()
        && let Some(why) = told.of("redis").get("why").and_then(serde_json::Value::as_str)
    {
        outcome.found(Status::Critical, &format!("the server does not reach it: {why}"));
    }
    match config.map_err(|trouble| trouble.to_string()).and_then(|config| {
        let facts = RedisFacts::look(&config).map_err(|error| error.to_string())?;
        Ok(facts)
    }) {
        Ok(facts) => redis_of_facts(&mut outcome, &facts, bounds),
        Err(why) => match server.told().filter(|told| told.redis_number("used_bytes").is_some()) {
            // Who operates a server need not have Redis' password.
            Some(told) => {
                let used = told.redis_number("used_bytes").unwrap_or(0);
                let max = told.redis_number("max_bytes").unwrap_or(0);
                outcome.found(Status::Ok, &format!("the server reaches it; this command does not: {why}"));
                memory(&mut outcome, used, max, bounds);
            }
            None => outcome.found(Status::Critical, &why),
        },
    }
    Ok(outcome)
}

fn redis_of_facts(outcome: &mut Outcome, facts: &RedisFacts, bounds: Bounds) {
    for problem in facts.problems() {
        let (status, what) = match problem {
            RedisProblem::Evicts => {
                (Status::Critical, "it evicts what it was given: set `maxmemory-policy noeviction`")
            }
            RedisProblem::Replica => (Status::Critical, "it is a replica, and takes no writes"),
            RedisProblem::Loading => (Status::Critical, "it is loading its data"),
            RedisProblem::AofFails => (Status::Critical, "it cannot write its append-only file"),
            RedisProblem::SnapshotFails => (Status::Warning, "its last snapshot failed"),
            RedisProblem::NotPersistent => {
                (Status::Warning, "nothing of it is on disk: set `appendonly yes`")
            }
        };
        outcome.found(status, what);
    }
    memory(outcome, facts.overview.used_bytes, facts.overview.max_bytes, bounds);
    let took = facts.took.as_secs_f64();
    let _ = outcome.value("answer time", took, Unit::Seconds, None);
    let version = facts.info.of("redis_version");
    outcome.found(Status::Ok, &format!("Redis {version}, answered in {took:.3} seconds"));
}

fn memory(outcome: &mut Outcome, used: u64, max: u64, bounds: Bounds) {
    let _ = outcome.value("memory", used as f64, Unit::None, None);
    if max == 0 {
        return outcome.found(Status::Ok, &format!("{used} bytes in use, without a bound (maxmemory 0)"));
    }
    let percent = used as f64 * 100.0 / max as f64;
    let status = outcome.value("memory used", percent, Unit::Percent, Some(bounds));
    outcome.found(status, &format!("{percent:.1} % of {max} bytes in use"));
}
