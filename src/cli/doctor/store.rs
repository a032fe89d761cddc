//! Redis, and what is in it.

use super::finding::{Code, Findings};
use crate::cli::facts::redis::{RedisFacts, RedisProblem};
use crate::cli::facts::seals::{self, Signature};
use crate::cli::facts::server::Server;
use crate::cli::text::time_text;
use crate::clock::Now;
use crate::config::Config;
use crate::store::fitness::CLOSE_PERCENT;
use crate::store::overview::{self, AgentView};
use crate::store::owners::{self, Owner};
use crate::store::{StoreError, archived, servers, waiting};

/// Percent of `maxmemory` that is worth a word.
const MEMORY_PERCENT: f64 = 75.0;
/// How far two clocks may be apart, in milliseconds.
const CLOCK_MS: u64 = 1_000;
/// Messages may wait so long for an agent that is not connected, in milliseconds: it may be starting.
const UNATTENDED_MS: u64 = 60_000;
/// What a server that has just started, or loaded its configuration, may take to begin everything, in milliseconds.
const SETTLING_MS: u64 = 60_000;
/// Share of an inbox's bound that is nearly all of it, in percent.
const INBOX_PERCENT: u64 = 90;

pub(super) fn redis(findings: &mut Findings, facts: &RedisFacts) {
    let of = |name: &str| format!("INFO says {name}:{}", facts.info.of(name));
    for problem in facts.problems() {
        match problem {
            RedisProblem::Evicts => findings.add(
                Code::RedisEvicts,
                of("maxmemory_policy"),
                "redis-cli CONFIG SET maxmemory-policy noeviction; also in redis.conf",
            ),
            RedisProblem::Replica => findings.add(
                Code::RedisReplica,
                of("role"),
                "name the primary in gateway.redis.url, or gateway.redis.sentinel, which knows it",
            ),
            RedisProblem::Loading => {
                findings.add(Code::RedisLoading, of("loading"), "wait until it has read its files");
            }
            RedisProblem::AofFails => findings.add(
                Code::RedisWriteFails,
                of("aof_last_write_status"),
                "look at the disk of Redis' host, and at Redis' log",
            ),
            RedisProblem::SnapshotFails => findings.add(
                Code::RedisSnapshotFails,
                of("rdb_last_bgsave_status"),
                "look at the disk and the memory of Redis' host, and at Redis' log",
            ),
            RedisProblem::NotPersistent => findings.add(
                Code::RedisNotPersistent,
                format!("{}, and it has saved no snapshot", of("aof_enabled")),
                "redis-cli CONFIG SET appendonly yes; also in redis.conf: else a restart loses what waits",
            ),
        }
    }
    memory(findings, facts);
    if let Some(ahead_ms) = facts.ahead_ms
        && ahead_ms.unsigned_abs() > CLOCK_MS
    {
        findings.add(
            Code::ClockDiffers,
            format!("Redis' clock is {ahead_ms} ms ahead of this machine's"),
            "let chrony or systemd-timesyncd set both: times on record are the servers'",
        );
    }
}

fn memory(findings: &mut Findings, facts: &RedisFacts) {
    let evidence = format!("{} of {} bytes in use", facts.overview.used_bytes, facts.overview.max_bytes);
    match facts.memory_percent() {
        None => findings.add(
            Code::RedisUnbounded,
            "maxmemory is 0",
            "set `maxmemory` below what the host has: a server refuses messages in time, the kernel kills Redis",
        ),
        Some(percent) if percent >= CLOSE_PERCENT as f64 => findings.add(
            Code::RedisFull,
            evidence,
            "raise `maxmemory`, or make room: connect the agents whose inboxes are full, `mas dlq drop`; \
             `mas agents` shows who holds what",
        ),
        Some(percent) if percent >= MEMORY_PERCENT => findings.add(
            Code::RedisMemoryHigh,
            evidence,
            "raise `maxmemory` in time; `mas agents` shows whose inboxes are full, `mas dlq list` dead letters",
        ),
        Some(_) => {}
    }
}

/// Looks at what is in it; whether any server runs.
pub(super) fn contents(
    findings: &mut Findings,
    config: &Config,
    facts: &mut RedisFacts,
    server: &Server,
) -> Result<bool, StoreError> {
    let (letters, foreign) = (facts.overview.dead_letters, facts.overview.foreign);
    if letters > 0 {
        findings.add(
            Code::DeadLetters,
            format!("{letters} in Redis"),
            "`mas dlq list` says why; `mas dlq redrive` puts them back, `mas dlq drop` removes them",
        );
    }
    if foreign > 0 {
        findings.add(
            Code::ForeignEntries,
            format!("{foreign} put aside"),
            "`mas foreign list` shows them; find out who has Redis' password, then `mas foreign drop`",
        );
    }
    let connection = &mut facts.connection;
    let alive = servers::any_alive(connection)?;
    let is_new = server.told().is_some_and(|told| {
        let since_ms = told.of("loaded_unix_ms").as_u64().unwrap_or(0);
        told.time_ms().is_some_and(|now_ms| now_ms.saturating_sub(since_ms) < SETTLING_MS)
    });
    if alive && !is_new && config.audit.archive().is_some() && archived::archiver(connection)?.is_none() {
        findings.add(
            Code::NobodyArchives,
            "no server has the right to archive, although gateway.audit.archive is on",
            "right after a start of another server this passes within a minute; else look at the servers' logs for \
             \"archive\"",
        );
    }
    let keys = seals::keys(config);
    let seal = seals::in_redis(connection, keys.as_ref())?;
    if let Some(Signature::Bad(why)) = seal.as_ref().map(|seal| &seal.signature) {
        findings.add(
            Code::SignatureWrong,
            format!("the newest checkpoint in Redis: {why}"),
            "`mas audit verify` says from where on",
        );
    }
    let now_ms = facts.info.number("server_time_usec").unwrap_or_else(|| Now::read().unix_us) / 1000;
    agents(findings, config, facts, now_ms)?;
    Ok(alive)
}

fn agents(
    findings: &mut Findings,
    config: &Config,
    facts: &mut RedisFacts,
    now_ms: u64,
) -> Result<(), StoreError> {
    let connection = &mut facts.connection;
    let present = overview::servers(connection)?;
    let views = overview::agents(connection, config.agents.keys())?;
    let full: Vec<&AgentView> = views.iter().filter(|view| view.queued > 0).collect();
    let oldest = waiting::oldest_ms(connection, full.iter().map(|view| &view.agent))?;
    for (view, oldest_ms) in full.into_iter().zip(oldest) {
        let (agent, queued) = (&view.agent, view.queued);
        let bound = config.limits.max_queue_len;
        if queued.saturating_mul(100) >= bound.saturating_mul(INBOX_PERCENT) {
            findings.add(
                Code::InboxFull,
                format!("{agent}: {queued} messages of at most {bound} (limits.max_queue_len)"),
                format!("start more instances of {agent}; `mas inbox empty {agent}` moves what waits to the dead letters"),
            );
        }
        let is_connected = owners::instances(view.instances.clone())
            .iter()
            .any(|(_, owner)| matches!(owner, Owner::Server(server) if present.contains(server)));
        if let Some(oldest_ms) = oldest_ms
            && !is_connected
            && now_ms.saturating_sub(oldest_ms) >= UNATTENDED_MS
        {
            let since = time_text(oldest_ms.saturating_mul(1000));
            findings.add(
                Code::InboxUnattended,
                format!("{agent}: {queued} messages, the oldest of {since}, and no instance is connected"),
                format!("start {agent}; `mas inbox empty {agent}` moves what waits to the dead letters"),
            );
        }
    }
    for view in views.iter().filter_map(|view| Some((&view.agent, view.circuit_open_ms?))) {
        let (agent, since_ms) = view;
        findings.add(
            Code::CircuitOpen,
            format!("{agent}: since {}", time_text(since_ms.saturating_mul(1000))),
            format!(
                "`mas dlq list --agent {agent}` says how its deliveries failed; it closes once trials succeed"
            ),
        );
    }
    Ok(())
}
