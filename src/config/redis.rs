//! The section `gateway.redis`: where the store is, how it is reached, and what it must promise.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::range::{Problem, within};

/// Most replicas that a commit may wait for.
const MAX_REPLICAS: u32 = 16;
/// Most Sentinels that are asked.
const MAX_SENTINELS: usize = 16;
/// Longest name of what the Sentinels watch, in bytes.
const MAX_MASTER_BYTES: usize = 128;
/// What a commit's wait leaves of `socket_timeout` for the round trip itself, in milliseconds.
pub(super) const WAIT_MARGIN_MS: u64 = 50;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Section {
    pub url: String,
    pub data_dir: PathBuf,
    /// Seconds; `null` is the default.
    pub socket_timeout: Option<f64>,
    /// A setting of the old server's Redis client.
    pub decode_responses: Option<bool>,
    pub durability: DurabilitySection,
    pub tls: RedisTls,
    pub sentinel: Option<Sentinel>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            data_dir: PathBuf::from(".mas/redis"),
            socket_timeout: None,
            decode_responses: None,
            durability: DurabilitySection::default(),
            tls: RedisTls::default(),
            sentinel: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DurabilitySection {
    pub mode: DurabilityMode,
    /// Replicas that must have a commit before it is answered.
    pub replicas: u32,
    /// How long they, or the disk, may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for DurabilitySection {
    fn default() -> Self {
        Self { mode: DurabilityMode::Accepted, replicas: 0, timeout_ms: 1000 }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DurabilityMode {
    #[default]
    Accepted,
    Fsynced,
    Replicated,
}

/// What must hold of a commit before it is answered (`gateway.redis.durability`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is in Redis.
    Accepted,
    /// It is on the disk of Redis' host.
    Fsynced {
        /// How long that may take, in milliseconds.
        timeout_ms: u64,
    },
    /// That many replicas have it too.
    Replicated {
        /// How many.
        replicas: u32,
        /// How long that may take, in milliseconds.
        timeout_ms: u64,
    },
}

impl DurabilitySection {
    pub(super) fn check(&self) -> Result<(), Problem> {
        within("replicas", self.replicas, 0, MAX_REPLICAS)?;
        within("timeout_ms", self.timeout_ms, 1, 60_000)?;
        if self.mode == DurabilityMode::Replicated && self.replicas == 0 {
            return Err(("replicas", "`replicated` needs at least 1".to_owned()));
        }
        Ok(())
    }

    pub(super) fn resolved(&self) -> Durability {
        let (replicas, timeout_ms) = (self.replicas, self.timeout_ms);
        match self.mode {
            DurabilityMode::Accepted => Durability::Accepted,
            DurabilityMode::Fsynced => Durability::Fsynced { timeout_ms },
            DurabilityMode::Replicated => Durability::Replicated { replicas, timeout_ms },
        }
    }
}

/// Files for `rediss://`, PEM (`gateway.redis.tls`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTls {
    /// The authority of Redis' certificate; `None`: those that the system trusts.
    #[serde(rename = "ca_path")]
    pub ca: Option<PathBuf>,
    /// The client certificate that is shown to Redis.
    #[serde(rename = "cert_path")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[serde(rename = "key_path")]
    pub key: Option<PathBuf>,
}

impl RedisTls {
    pub(super) fn check(&self, url: &str) -> Result<(), Problem> {
        if *self != Self::default() && !url.starts_with("rediss://") {
            return Err(("ca_path", "certificates need a url with rediss://".to_owned()));
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => Err(("key_path", "is missing: the certificate's private key".to_owned())),
            (None, Some(_)) => Err(("cert_path", "is missing: the certificate of the key".to_owned())),
            _ => Ok(()),
        }
    }

    pub(super) fn resolved(self, absolute: impl Fn(&Path) -> PathBuf) -> Self {
        let resolve = |path: Option<PathBuf>| path.map(|path| absolute(&path));
        Self { ca: resolve(self.ca), cert: resolve(self.cert), key: resolve(self.key) }
    }
}

/// Who knows which Redis is the primary (`gateway.redis.sentinel`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// The name under which the Sentinels watch it.
    pub master: String,
    /// The Sentinels, `host:port`; asked in this order.
    pub addrs: Vec<String>,
}

impl Sentinel {
    pub(super) fn check(&self, url: &str) -> Result<(), Problem> {
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err((
                "master",
                "the Sentinels' answer takes the place of the host of a redis:// or \
                                   rediss:// url"
                    .to_owned(),
            ));
        }
        if self.master.is_empty() || self.master.len() > MAX_MASTER_BYTES {
            return Err(("master", format!("expected 1 to {MAX_MASTER_BYTES} bytes")));
        }
        if self.addrs.is_empty() || self.addrs.len() > MAX_SENTINELS {
            return Err(("addrs", format!("expected 1 to {MAX_SENTINELS}")));
        }
        match self.addrs.iter().find(|addr| split(addr).is_none()) {
            Some(addr) => Err(("addrs", format!("{addr:?} is not host:port"))),
            None => Ok(()),
        }
    }

    /// The Sentinels' hosts and ports.
    pub fn places(&self) -> impl Iterator<Item = (&str, u16)> {
        self.addrs.iter().filter_map(|addr| split(addr))
    }
}

fn split(addr: &str) -> Option<(&str, u16)> {
    let (host, port) = addr.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}
