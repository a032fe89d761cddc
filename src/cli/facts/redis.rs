//! Redis, asked directly.

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::config::Config;
use crate::store::info::Info;
use crate::store::overview::{self, Redis};
use crate::store::{Connection, Endpoint, StoreError};

/// Longest that one step of it is waited for: whoever watches waits, too.
const PATIENCE: Duration = Duration::from_secs(5);

/// What Redis says.
pub(in crate::cli) struct RedisFacts {
    /// For further questions.
    pub(in crate::cli) connection: Connection,
    /// Of itself.
    pub(in crate::cli) info: Info,
    /// Of what is in it.
    pub(in crate::cli) overview: Redis,
    /// How long one question took.
    pub(in crate::cli) took: Duration,
    /// By how much its clock is ahead of this machine's, in milliseconds; `None`: it does not say.
    pub(in crate::cli) ahead_ms: Option<i64>,
}

impl RedisFacts {
    /// Asks the Redis of a configuration.
    pub(in crate::cli) fn look(config: &Config) -> Result<Self, StoreError> {
        let mut connection = Endpoint::new(&config.redis).within(PATIENCE).open()?;
        let overview = overview::redis(&mut connection)?;
        let (started, before_us) = (Instant::now(), Now::read().unix_us);
        let info = Info::ask(&mut connection)?;
        let took = started.elapsed();
        // As if it had looked at its clock in the middle.
        let here_us = before_us.saturating_add(took.as_micros() as u64 / 2);
        let ahead_ms = info.number("server_time_usec").map(|there| (there as i64 - here_us as i64) / 1000);
        Ok(Self { connection, info, overview, took, ahead_ms })
    }

    /// Share of `maxmemory` in use, in percent; `None`: there is no bound.
    pub(in crate::cli) fn memory_percent(&self) -> Option<f64> {
        let Redis { used_bytes, max_bytes, .. } = self.overview;
        (max_bytes > 0).then(|| used_bytes as f64 * 100.0 / max_bytes as f64)
    }

    /// What would lose what Redis was given, or keeps it from taking more; each in words.
    pub(in crate::cli) fn problems(&self) -> Vec<RedisProblem> {
        problems(&self.info)
    }
}

/// What is wrong with a Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum RedisProblem {
    /// It throws away what it was given.
    Evicts,
    /// It is a copy of another one.
    Replica,
    /// It is reading its files.
    Loading,
    /// It could not write its append-only file.
    AofFails,
    /// It could not write its snapshot.
    SnapshotFails,
    /// Nothing of it is on disk.
    NotPersistent,
}

fn problems(info: &Info) -> Vec<RedisProblem> {
    let mut found = Vec::new();
    let mut note = |is_so: bool, problem| {
        if is_so {
            found.push(problem);
        }
    };
    let policy = info.of("maxmemory_policy");
    let evicts = !policy.is_empty() && policy != crate::store::fitness::NOEVICTION;
    note(evicts && info.number("maxmemory").is_some_and(|max| max > 0), RedisProblem::Evicts);
    note(!matches!(info.of("role"), "master" | ""), RedisProblem::Replica);
    note(info.of("loading") == "1", RedisProblem::Loading);
    note(info.of("aof_last_write_status") == "err", RedisProblem::AofFails);
    note(info.of("rdb_last_bgsave_status") == "err", RedisProblem::SnapshotFails);
    let has_snapshots = info.number("rdb_saves").is_some_and(|saves| saves > 0);
    note(info.of("aof_enabled") == "0" && !has_snapshots, RedisProblem::NotPersistent);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_messages_is_seen() {
        let of = |text: &str| problems(&Info::parse(text));
        assert_eq!(of(""), []);
        assert_eq!(of("role:master\naof_enabled:1\nmaxmemory:0\nmaxmemory_policy:allkeys-lru\n"), []);
        assert_eq!(of("maxmemory:9\nmaxmemory_policy:allkeys-lru\n"), [RedisProblem::Evicts]);
        assert_eq!(of("role:slave\naof_enabled:0\n"), [RedisProblem::Replica, RedisProblem::NotPersistent]);
        assert_eq!(
            of("aof_enabled:0\nrdb_saves:3\nrdb_last_bgsave_status:err\n"),
            [RedisProblem::SnapshotFails]
        );
        assert_eq!(
            of("loading:1\naof_last_write_status:err\n"),
            [RedisProblem::Loading, RedisProblem::AofFails]
        );
    }
}
