//! Whether the server is ready: every reason, each with what to do.

use std::collections::BTreeSet;

use super::seen::Seen;
use crate::clock::Now;
use crate::shard::Shards;
use crate::shard::desk::meters::Way;
use crate::shard::desk::troubles::Code;

/// A worker that was silent for so long is taken to hang, in milliseconds. It is woken once a second.
const SILENT_MS: u64 = 5_000;
/// What was seen so long ago is not known any more, in milliseconds.
const STALE_MS: u64 = 10_000;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name.
    pub(super) name: &'static str,
    /// Why not, and what to do; `None`: it is well.
    pub(super) problem: Option<String>,
}

/// Looks at everything that keeps the server from serving. `seen`: by the thread that watches.
pub(super) fn ready(shards: &Shards, seen: &Seen, certificates: &[(&'static str, i64)]) -> Vec<Check> {
    let (shared, now) = (shards.shared(), Now::read());
    let refusal = shared.board.refusal().map(|refusal| refusal.detail);
    let check = |name, problem: Option<String>| Check { name, problem };
    let draining = shared.is_draining();
    let lease = shared.troubles.all().into_iter().find(|trouble| trouble.code == Code::Lease);
    vec![
        check("drain", draining.then(|| "the server is stopping: send new work elsewhere".to_owned())),
        check("redis", redis_problem(seen, now)),
        check("lease", lease.map(|trouble| lease_problem(&trouble.why))),
        check("commits", commits_problem(shards)),
        check("workers", silent(shards, now)),
        check("audit", refusal.map(|detail| audit_problem(detail, shards))),
        check(
            "storage",
            shared.is_storage_full().then(|| {
                "Redis is nearly full: messages are refused until inboxes are drained or maxmemory is raised".to_owned()
            }),
        ),
        check("certificate", certificates_problem(certificates, now)),
    ]
}

/// Which certificate of the server has ended: no agent connects any more.
fn certificates_problem(certificates: &[(&'static str, i64)], now: Now) -> Option<String> {
    let now_s = i64::try_from(now.unix_us / 1_000_000).unwrap_or(i64::MAX);
    let (name, _) = certificates.iter().find(|(_, end_s)| *end_s < now_s)?;
    let remedy = match *name {
        "ca" => {
            "make another authority, put its certificate into tls_ca_path, and issue all certificates anew"
        }
        _ => "issue another one (`mas certs issue --server`) and send SIGHUP",
    };
    Some(format!("the certificate `{name}` has ended, and nobody can connect any more: {remedy}"))
}

fn lease_problem(why: &str) -> String {
    format!(
        "Redis does not take the renewal of this server's lease ({why}): other servers may declare it void. Does Redis take writes?"
    )
}

/// Why workers cannot commit, each reason once.
fn commits_problem(shards: &Shards) -> Option<String> {
    let why = |way| match way {
        Way::Open => None,
        Way::Down => Some("no connection to Redis: it is tried again by itself"),
        Way::Refused => Some("Redis refuses transactions: the server's log has its answer"),
        Way::Unassured => {
            Some("commits are not as durable as gateway.redis.durability says: are the replicas up?")
        }
    };
    let ways: BTreeSet<&str> =
        shards.shared().meters.all().iter().filter_map(|meter| why(meter.way())).collect();
    (!ways.is_empty()).then(|| ways.into_iter().collect::<Vec<_>>().join("; "))
}

fn redis_problem(seen: &Seen, now: Now) -> Option<String> {
    match &seen.redis {
        None => Some("Redis was not looked at yet".to_owned()),
        Some(Err(why)) => Some(format!(
            "{why}: is Redis running, and gateway.redis.url right? Calls are refused until it answers"
        )),
        Some(Ok(_)) if now.mono_ms.saturating_sub(seen.at_ms) > STALE_MS => {
            Some("Redis has not answered for more than 10 seconds".to_owned())
        }
        Some(Ok(_)) => None,
    }
}

fn silent(shards: &Shards, now: Now) -> Option<String> {
    let is_silent = |beat_ms: u64| now.mono_ms.saturating_sub(beat_ms) > SILENT_MS;
    let silent: Vec<String> = shards
        .shared()
        .meters
        .all()
        .iter()
        .enumerate()
        .filter(|(_, meter)| is_silent(meter.beat_ms.get()))
        .map(|(index, _)| index.to_string())
        .collect();
    (!silent.is_empty()).then(|| {
        format!(
            "worker {} has shown no sign of life for more than {} seconds: does Redis hang? Else take a stack trace and \
             start the server again",
            silent.join(", "),
            SILENT_MS / 1000
        )
    })
}

fn audit_problem(detail: &str, shards: &Shards) -> String {
    let why: Vec<String> = shards
        .shared()
        .troubles
        .all()
        .iter()
        .map(|trouble| format!("{}: {}", trouble.code.as_str(), trouble.why))
        .collect();
    match why.is_empty() {
        true => format!("{detail}: nothing is admitted"),
        false => format!("{detail}: nothing is admitted ({})", why.join("; ")),
    }
}
