//! Whether Redis can be what the configuration asks for, how a commit is waited for, and whether there is room
//! for more.

use std::ops::RangeInclusive;

use redis::Value;

use super::answers::{self, text};
use super::connection::{Batch, Connection, StoreError};
use super::info::Info;
use crate::config::Durability;

/// The first Redis with WAITAOF.
const WAITAOF_SINCE: (u32, u32) = (7, 2);
/// Share of `maxmemory` above which nothing that takes room is admitted, in percent.
pub const CLOSE_PERCENT: u64 = 90;
/// Share of `maxmemory` below which it is again, in percent.
const OPEN_PERCENT: u64 = 85;
/// The only eviction policy under which Redis keeps what it was given.
pub const NOEVICTION: &str = "noeviction";

/// What follows a round's commands so that its callers may be told that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assurance {
    /// Nothing: Redis' answer is enough.
    Answered,
    /// WAITAOF for its own disk.
    Synced {
        /// For so long, in milliseconds.
        timeout_ms: u64,
    },
    /// WAIT for replicas.
    Replicated {
        /// For so many.
        replicas: u32,
        /// For so long, in milliseconds.
        timeout_ms: u64,
        /// And WAITAOF for its own disk.
        synced: bool,
    },
}

impl Assurance {
    /// Adds the commands that wait for everything this connection has written; where their answers stand.
    pub fn wait(self, batch: &mut Batch) -> Option<RangeInclusive<usize>> {
        match self {
            Self::Answered => None,
            Self::Synced { timeout_ms } => {
                let at = wait_aof(batch, timeout_ms);
                Some(at..=at)
            }
            Self::Replicated { replicas, timeout_ms, synced } => {
                let first = synced.then(|| wait_aof(batch, timeout_ms));
                let last = batch.command("WAIT");
                let _ = batch.arg(replicas).arg(timeout_ms);
                Some(first.unwrap_or(last)..=last)
            }
        }
    }

    /// Whether those answers say that what was waited for has happened.
    pub fn holds(self, waited: &[Value]) -> bool {
        let on_disk = |answer: Option<&Value>| match answer {
            Some(Value::Array(counts)) => counts.first().and_then(answers::int).is_some_and(|own| own >= 1),
            _ => false,
        };
        match self {
            Self::Answered => true,
            Self::Synced { .. } => on_disk(waited.first()),
            Self::Replicated { replicas, synced, .. } => {
                let copies = waited.last().and_then(answers::int).unwrap_or(0);
                copies >= u64::from(replicas) && (!synced || on_disk(waited.first()))
            }
        }
    }
}

fn wait_aof(batch: &mut Batch, timeout_ms: u64) -> usize {
    let at = batch.command("WAITAOF");
    let _ = batch.arg(1).arg(0).arg(timeout_ms);
    at
}

/// How much of its memory Redis uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What counts against the bound, in bytes.
    used: u64,
    /// `maxmemory`, in bytes; 0: no bound.
    max: u64,
}

impl Memory {
    /// What counts against the bound, in bytes.
    pub fn used(self) -> u64 {
        self.used
    }

    /// `maxmemory`, in bytes; 0: no bound.
    pub fn max(self) -> u64 {
        self.max
    }

    /// Whether there is too little room for more, given whether there was before.
    pub fn is_full(self, was_full: bool) -> bool {
        let percent = if was_full { OPEN_PERCENT } else { CLOSE_PERCENT };
        self.max > 0 && self.used > self.max / 100 * percent
    }

    /// Bytes that may be added before there is too little room for more; `None`: without a bound.
    pub fn room(self) -> Option<u64> {
        (self.max > 0).then(|| (self.max / 100 * CLOSE_PERCENT).saturating_sub(self.used))
    }
}

/// Adds the look at Redis' memory; where its answer stands.
pub fn look_at_memory(batch: &mut Batch) -> usize {
    let at = batch.command("INFO");
    let _ = batch.arg("memory");
    at
}

/// Reads that answer; `None` where Redis does not say.
pub fn memory(answer: &Value) -> Option<Memory> {
    memory_of(&Info::parse(text(answer)?))
}

fn memory_of(info: &Info) -> Option<Memory> {
    // Redis refuses by the same difference: buffers to replicas and for the disk do not count.
    let uncounted = info.number("mem_not_counted_for_evict").unwrap_or(0);
    Some(Memory {
        used: info.number("used_memory")?.saturating_sub(uncounted),
        max: info.number("maxmemory")?,
    })
}

/// Looks at Redis once, at start.
pub fn check(connection: &mut Connection, durability: Durability) -> Result<(), StoreError> {
    let info = Info::ask(connection)?;
    match (info.number("maxmemory"), info.of("maxmemory_policy")) {
        (Some(0), _) | (Some(_), NOEVICTION) => {}
        (Some(_), policy) if !policy.is_empty() => {
            return Err(StoreError::Unfit(format!(
                "Redis evicts what it was given (`maxmemory-policy {policy}`); set `maxmemory-policy {NOEVICTION}`"
            )));
        }
        _ => log::warn!(
            code = "redis_eviction_unknown";
            "Redis does not say what it does when its memory is full: nothing must be evicted, and messages \
             are refused only when Redis refuses them"
        ),
    }
    if let Durability::Replicated { replicas, .. } = durability {
        let connected = info.number("connected_slaves").unwrap_or(0);
        if info.of("role") != "master" || connected < u64::from(replicas) {
            return Err(StoreError::Unfit(format!(
                "durability `replicated` asks for {replicas} replicas, and this Redis ({}) has {connected}",
                info.of("role")
            )));
        }
    }
    assurance_of(connection, &info, durability).map(drop)
}

/// How commits over this connection are waited for: every connection may lead to another Redis.
pub fn assurance(connection: &mut Connection, durability: Durability) -> Result<Assurance, StoreError> {
    match durability {
        Durability::Accepted => Ok(Assurance::Answered),
        Durability::Fsynced { .. } | Durability::Replicated { .. } => {
            let info = Info::ask(connection)?;
            assurance_of(connection, &info, durability)
        }
    }
}

fn assurance_of(
    connection: &mut Connection,
    info: &Info,
    durability: Durability,
) -> Result<Assurance, StoreError> {
    let has_waitaof = info.version() >= WAITAOF_SINCE;
    let has_aof = info.of("aof_enabled") == "1";
    match durability {
        Durability::Accepted => Ok(Assurance::Answered),
        Durability::Replicated { replicas, timeout_ms } => {
            Ok(Assurance::Replicated { replicas, timeout_ms, synced: has_waitaof && has_aof })
        }
        Durability::Fsynced { .. } if !has_aof => Err(StoreError::Unfit(
            "durability `fsynced`: this Redis writes no append-only file; set `appendonly yes`".to_owned(),
        )),
        Durability::Fsynced { timeout_ms } => {
            // Where Redis does not show its settings, it must say each time.
            let always = setting(connection, "appendfsync")?.as_deref() == Some("always");
            let unbroken = setting(connection, "no-appendfsync-on-rewrite")?.as_deref() == Some("no");
            if always && unbroken {
                Ok(Assurance::Answered)
            } else if has_waitaof {
                Ok(Assurance::Synced { timeout_ms })
            } else {
                Err(StoreError::Unfit(format!(
                    "durability `fsynced`: Redis {} has no WAITAOF; set `appendfsync always` and \
                     `no-appendfsync-on-rewrite no`, or use Redis {}.{} or later",
                    info.of("redis_version"),
                    WAITAOF_SINCE.0,
                    WAITAOF_SINCE.1
                )))
            }
        }
    }
}

/// A setting; `None` where Redis does not show it.
fn setting(connection: &mut Connection, name: &str) -> Result<Option<String>, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("CONFIG");
    let _ = batch.arg("GET").arg(name);
    let found = connection.run(&mut batch)?.pop().and_then(answers::pairs).unwrap_or_default();
    Ok(found.into_iter().next().map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_closes_late_and_opens_later() {
        let at = |used| Memory { used, max: 1000 };
        assert!(!at(900).is_full(false) && at(901).is_full(false));
        assert!(at(851).is_full(true) && !at(850).is_full(true));
        assert!(!Memory { used: u64::MAX, max: 0 }.is_full(true));
        assert_eq!((at(100).room(), at(950).room()), (Some(800), Some(0)));
        assert_eq!(Memory { used: 5, max: 0 }.room(), None);
    }

    #[test]
    fn what_redis_says_of_its_memory_is_read() {
        let info = "# Memory\r\nused_memory:1000\r\nmaxmemory:5000\r\nmem_not_counted_for_evict:100\r\n";
        let read = |info: &str| memory(&Value::BulkString(info.as_bytes().to_vec()));
        assert_eq!(read(info), Some(Memory { used: 900, max: 5000 }));
        assert_eq!(read(""), None);
        assert!(Info::parse("redis_version:7.2\n").version() >= WAITAOF_SINCE);
    }

    #[test]
    fn too_few_replicas_are_not_enough() {
        let two = Assurance::Replicated { replicas: 2, timeout_ms: 1, synced: false };
        assert!(two.holds(&[Value::Int(2)]) && !two.holds(&[Value::Int(1)]) && !two.holds(&[]));
        let aof = |own| Value::Array(vec![Value::Int(own), Value::Int(0)]);
        let both = Assurance::Replicated { replicas: 1, timeout_ms: 1, synced: true };
        assert!(both.holds(&[aof(1), Value::Int(1)]) && !both.holds(&[aof(0), Value::Int(1)]));
        assert!(!Assurance::Synced { timeout_ms: 1 }.holds(&[aof(0)]));
        assert!(Assurance::Answered.holds(&[]));
        let mut batch = Batch::new();
        let _ = batch.command("PING");
        assert_eq!(both.wait(&mut batch), Some(1..=2));
        assert_eq!(Assurance::Answered.wait(&mut batch), None);
    }
}
