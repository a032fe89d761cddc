//! The server: connect the workers, listen, wait for a signal, drain.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::certs::CertsError;
use crate::config::Config;
use crate::denylist::DenyList;
use crate::rpc::{ListenError, Listener};
use crate::shard::{Shards, Shared};
use crate::store::StoreError;
use crate::store::news::{News, Subscription};
use crate::store::servers::{Keeper, Membership};

/// How long a start waits for Redis.
const REDIS_PATIENCE: Duration = Duration::from_secs(10);
/// Wait between two attempts to reach Redis at start.
const REDIS_RETRY: Duration = Duration::from_millis(100);
/// How long a stop waits for open calls after the workers are done.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    listener: Listener,
    shards: Arc<Shards>,
    threads: usize,
    _deny_list: Option<DenyList>,
    subscription: Subscription,
    // Given up last.
    keeper: Keeper,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deny-list.
    #[error(transparent)]
    DenyList(#[from] CertsError),
    /// Listening.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Server {
    /// Starts with `threads` workers and as many completion queues; waits a bounded time for Redis.
    pub fn start(config: &Config, listen_addr: &str, threads: usize) -> Result<Self, StartError> {
        for warning in &config.warnings {
            log::warn!("{}: {warning}", config.path.display());
        }
        let membership = join(config)?;
        let shared = Arc::new(Shared::new(config, membership.id().clone(), membership.others().len()));
        let deny_list = match &config.tls.revoked {
            Some(path) => Some(DenyList::watch(path.clone(), shared.clone())?),
            None => None,
        };
        let shards = Arc::new(connect(&shared, threads)?);
        let (url, timeout) = (&shared.redis_url, shared.redis_timeout);
        let keeper = membership.keep(url, timeout, hear(&shards))?;
        let subscription = Subscription::start(url, timeout, &shared.server, hear(&shards))?;
        let listener = Listener::start(config, listen_addr, shards.clone(), threads)?;
        Ok(Self { listener, shards, threads, _deny_list: deny_list, subscription, keeper })
    }

    /// Prints the ready line: the one thing on stdout.
    pub fn announce(&self) -> std::io::Result<()> {
        // Written out, so that the keys keep the order of the documentation.
        let line = format!(
            "{{\"event\":\"mas.server.ready\",\"pid\":{},\"listen_addr\":{},\"admin_addr\":null,\"threads\":{},\"version\":\"{}\"}}",
            std::process::id(),
            serde_json::Value::from(self.listener.addr.as_str()),
            self.threads,
            env!("CARGO_PKG_VERSION"),
        );
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }

    /// Puts another configuration and its certificates in force; sessions and messages that it still allows
    /// go on. Certificates that cannot be read change nothing.
    pub fn reload(&self, config: &Config) -> Result<(), ListenError> {
        self.listener.renew(config)?;
        for warning in &config.warnings {
            log::warn!("{}: {warning}", config.path.display());
        }
        self.shards.reload(config);
        Ok(())
    }

    /// Finishes what was accepted, ends all sessions, records it, and stops listening.
    pub fn stop(self) {
        let Self { listener, shards, subscription, keeper, .. } = self;
        shards.stop();
        listener.stop(DRAIN_PATIENCE);
        drop(subscription);
        drop(keeper);
    }
}

/// What the other servers tell goes to the workers.
fn hear(shards: &Arc<Shards>) -> impl Fn(News) + Send + 'static {
    let shards = Arc::downgrade(shards);
    move |news| {
        if let Some(shards) = shards.upgrade() {
            shards.hear(news);
        }
    }
}

/// Joins the servers on this Redis; waits for it.
fn join(config: &Config) -> Result<Membership, StoreError> {
    let give_up = Instant::now() + REDIS_PATIENCE;
    let timeout = Duration::from_millis(config.redis.timeout_ms);
    loop {
        match Membership::join(&config.redis.url, timeout) {
            Ok(membership) => return Ok(membership),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(error) => {
                log::warn!("{error}; trying again");
                std::thread::sleep(REDIS_RETRY);
            }
        }
    }
}

fn connect(shared: &Arc<Shared>, threads: usize) -> Result<Shards, StoreError> {
    let give_up = Instant::now() + REDIS_PATIENCE;
    loop {
        match Shards::start(shared.clone(), threads) {
            Ok(shards) => return Ok(shards),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(error) => {
                log::warn!("{error}; trying again");
                std::thread::sleep(REDIS_RETRY);
            }
        }
    }
}
