//! The server: connect the workers, listen, wait for a signal, drain.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::admin::{Admin, AdminError, Bound};
use crate::audit::Action;
use crate::audit::{OperatorEvent, StoreKeys};
use crate::certs::CertsError;
use crate::checkpoint::{Checkpointer, Seal, SealError};
use crate::clock::Now;
use crate::config::Config;
use crate::denylist::DenyList;
use crate::files::{self, MAX_MATERIAL_BYTES};
use crate::ids::hex;
use crate::key_files::store::LoadedKeys;
use crate::key_files::{KeyError, StoreKeyFile};
use crate::orders::Orders;
use crate::rpc::{Door, ListenError, Listener};
use crate::shard::Shards;
use crate::shard::desk::key_ring::KeyRing;
use crate::shard::desk::shared::Shared;
use crate::sink::{Sink, SinkError};
use crate::store::news::{News, Subscription};
use crate::store::servers::{Keeper, Membership};
use crate::store::{Endpoint, StoreError, fitness, joining};
use crate::takeover;
use crate::telemetry::Telemetry;

/// How long a start waits for Redis.
const REDIS_PATIENCE: Duration = Duration::from_secs(10);
/// How long a start waits for another one that takes over what Redis holds.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(600);
/// Wait between two attempts to reach Redis at start.
const REDIS_RETRY: Duration = Duration::from_millis(100);
/// How long a stop waits for open calls after the workers are done.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    listener: Listener,
    shards: Arc<Shards>,
    threads: usize,
    /// Fingerprint of the server's own certificate.
    certificate: Mutex<String>,
    /// The configuration that it started with: what is read at start only is compared with it.
    started: Config,
    checkpointer: Checkpointer,
    sink: Option<Sink>,
    admin: Admin,
    telemetry: Option<Telemetry>,
    _deny_list: Option<DenyList>,
    subscription: Subscription,
    _orders: Orders,
    // Given up last.
    keeper: Keeper,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store keys.
    #[error("gateway.audit.store_key_path: {0}")]
    StoreKeys(#[from] KeyError),
    /// The deny-list.
    #[error(transparent)]
    DenyList(#[from] CertsError),
    /// What seals the audit trail.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The copy of the trail.
    #[error("gateway.audit.file_path: {0}")]
    Sink(#[from] SinkError),
    /// Listening.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin listener.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The way to the collector.
    #[error("gateway.telemetry: {0}")]
    Telemetry(#[source] std::io::Error),
}

impl StartError {
    /// Whether the configuration, or a file that it names, must change first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Seal(error) => error.is_configuration(),
            Self::Sink(error) => !matches!(error, SinkError::Store(_)),
            Self::Store(error) => matches!(error, StoreError::Unfit(_)),
            Self::StoreKeys(_) => true,
            Self::DenyList(_) | Self::Listen(_) => false,
            Self::Telemetry(_) => true,
            Self::Admin(error) => !matches!(error, AdminError::System(_)),
        }
    }
}

impl Server {
    /// Starts with `threads` workers and half as many completion queues: the C core's pollers hand one epoll set
    /// to each other, so each further one costs wake-ups (a fifth of the server's work with two on two cores).
    /// Waits a bounded time for Redis.
    pub fn start(config: &Config, listen_addr: &str, threads: usize) -> Result<Self, StartError> {
        for warning in &config.warnings {
            log::warn!(
                code = "configuration_warning", path:% = config.path.display();
                "{}: {warning}", config.path.display()
            );
        }
        let file = StoreKeyFile::new(&config.audit.store_key_path);
        let stamp = file.stamp();
        let mut keys = match file.load(now_ms())? {
            Some(keys) => keys,
            None => begin(config, &file)?,
        };
        // One for everybody: what the Sentinels say is known to all connections that it has made.
        let redis = Endpoint::new(&config.redis);
        let membership = join(config, &redis, &keys.keys)?;
        if keys.taking_over {
            keys = take_over(config, &file)?;
        }
        // As it was before it was read: what came since is taken up with the first look.
        let key_ring = KeyRing::new(file, stamp, keys);
        let shared =
            Arc::new(Shared::new(config, redis, (membership.id().clone(), membership.others()), key_ring));
        // Before anything is signed: a server that cannot be reached, or cannot write its copy, leaves no checkpoint.
        let door = Door::new(config, listen_addr, shared.report.clone())?;
        let bound = Bound::new(config)?;
        let sink = Sink::start(&config.audit, &shared)?;
        let seal = Seal::open(&config.audit)?;
        let shards = Arc::new(connect(&shared, threads)?);
        let deny_list = match &config.tls.revoked {
            Some(path) => Some(DenyList::watch(path.clone(), shards.clone())?),
            None => None,
        };
        let keeper = membership.keep(&shared.redis, hear(&shards))?;
        let subscription = Subscription::start(&shared.redis, &shared.server, hear(&shards))?;
        let checkpointer = Checkpointer::start(seal, &config.audit, shards.clone())?;
        // Before anybody is let in.
        let orders = Orders::start(shards.clone(), door.peers().clone())?;
        let queues = threads.div_ceil(2);
        let listener = Listener::start(config, door, shards.clone(), queues)?;
        let admin = Admin::start(config, bound, &shards, (listener.peers(), &listener.addr))?;
        let telemetry =
            Telemetry::start(&config.telemetry, &shared, admin.page()).map_err(StartError::Telemetry)?;
        let certificate = fingerprint(&config.tls.cert);
        shards.record(OperatorEvent {
            action: Action::ServerStarted,
            target: listener.addr.clone(),
            rule: format!("mas-server {}, {threads} threads", env!("CARGO_PKG_VERSION")),
            reason: format!("certificate {certificate}"),
            pending: None,
        });
        let certificate = Mutex::new(certificate);
        Ok(Self {
            listener,
            shards,
            threads,
            certificate,
            started: config.clone(),
            checkpointer,
            sink,
            admin,
            telemetry,
            _deny_list: deny_list,
            subscription,
            _orders: orders,
            keeper,
        })
    }

    /// Prints the ready line: the one thing on stdout.
    pub fn announce(&self) -> std::io::Result<()> {
        log::info!(
            code = "server_ready", addr = self.listener.addr.as_str(), admin_addr = self.admin.addr.as_deref(),
            server = self.shards.shared().server.as_str(), version = env!("CARGO_PKG_VERSION");
            "ready: agents are served on {} by {} threads", self.listener.addr, self.threads
        );
        // Written out, so that the keys keep the order of the documentation.
        let line = format!(
            "{{\"event\":\"mas.server.ready\",\"pid\":{},\"listen_addr\":{},\"admin_addr\":{},\"threads\":{},\"version\":\"{}\"}}",
            std::process::id(),
            serde_json::Value::from(self.listener.addr.as_str()),
            serde_json::Value::from(self.admin.addr.as_deref()),
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
        let admin_tls = self.admin.read_tls(config)?;
        self.listener.renew(config)?;
        self.admin.reload(config, admin_tls);
        for warning in &config.warnings {
            log::warn!(
                code = "configuration_warning", path:% = config.path.display();
                "{}: {warning}", config.path.display()
            );
        }
        for key in config.waits_for_start(&self.started) {
            log::warn!(
                code = "configuration_waits", key, path:% = config.path.display();
                "{}: {key} has changed and is read at start only: restart the server to put it in force",
                config.path.display()
            );
        }
        self.shards.reload(config);
        self.shards.shared().reloaded(None);
        let new = fingerprint(&config.tls.cert);
        let old = std::mem::replace(
            &mut *self.certificate.lock().unwrap_or_else(PoisonError::into_inner),
            new.clone(),
        );
        if old != new {
            self.shards.record(OperatorEvent {
                action: Action::CertificateChanged,
                target: new.clone(),
                rule: String::new(),
                reason: format!("from {old} to {new}"),
                pending: None,
            });
        }
        // Also takes up another signing key.
        self.checkpointer.now();
        Ok(())
    }

    /// A reload was refused before it came here.
    pub fn reload_refused(&self) {
        // The error may quote what stands in the file.
        self.shards
            .shared()
            .reloaded(Some("the configuration is not valid: the server's log says why".to_owned()));
    }

    /// Finishes what was accepted, ends all sessions, records it, and stops listening.
    pub fn stop(self) {
        let Self { listener, shards, mut checkpointer, sink, admin, telemetry, subscription, keeper, .. } =
            self;
        // Before anything else: whoever asks is to send new work elsewhere.
        shards.shared().drain();
        admin.drain();
        checkpointer.stop_archiving();
        shards.record_unseen(true);
        shards.record(OperatorEvent {
            action: Action::ServerStopped,
            target: listener.addr.clone(),
            rule: String::new(),
            reason: String::new(),
            pending: None,
        });
        shards.stop();
        checkpointer.stop();
        // What the last rounds have handed in.
        drop(telemetry);
        if let Some(sink) = sink {
            sink.stop();
        }
        listener.stop(DRAIN_PATIENCE);
        admin.stop();
        drop(subscription);
        drop(keeper);
    }
}

/// SHA-256 of the first certificate in a file, in hexadecimal; says so where there is none.
fn fingerprint(path: &Path) -> String {
    let blocks = files::read(path, MAX_MATERIAL_BYTES)
        .ok()
        .and_then(|pem| pem::parse_many(pem).ok())
        .unwrap_or_default();
    let first = blocks.iter().find(|block| block.tag() == "CERTIFICATE");
    first.map_or_else(|| "unreadable".to_owned(), |block| hex(&Sha256::digest(block.contents())))
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

/// Makes the store keys, unless Redis holds what was stored with others.
fn begin(config: &Config, file: &StoreKeyFile) -> Result<LoadedKeys, StartError> {
    let endpoint = Endpoint::new(&config.redis);
    patiently(|| joining::check_new(&mut endpoint.open()?, file.path()))?;
    Ok(file.load_or_create(&file.lock()?, now_ms())?)
}

/// The first start takes over what Redis holds; of several, one at a time.
fn take_over(config: &Config, file: &StoreKeyFile) -> Result<LoadedKeys, StartError> {
    let give_up = Instant::now() + TAKEOVER_PATIENCE;
    let lock = loop {
        match file.lock() {
            Err(KeyError::Locked { .. }) if Instant::now() < give_up => {}
            locked => break locked?,
        }
    };
    let keys = file.load_or_create(&lock, now_ms())?;
    if keys.taking_over {
        takeover::run(&Endpoint::new(&config.redis), &keys.keys, &config.digest)?;
        file.taken_over(&lock)?;
    }
    Ok(keys)
}

fn now_ms() -> u64 {
    Now::read().unix_us / 1000
}

/// Joins the servers on this Redis, if it is fit and theirs are the same keys; waits for it.
fn join(config: &Config, endpoint: &Endpoint, keys: &StoreKeys) -> Result<Membership, StoreError> {
    patiently(|| {
        let mut connection = endpoint.open()?;
        fitness::check(&mut connection, config.redis.durability)?;
        joining::enter(&mut connection, keys)?;
        Membership::join(endpoint)
    })
}

fn connect(shared: &Arc<Shared>, threads: usize) -> Result<Shards, StoreError> {
    patiently(|| Shards::start(shared.clone(), threads))
}

/// Tries until it succeeds, for a bounded time; not again where only the configuration, or Redis' own, helps.
fn patiently<T>(attempt: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let give_up = Instant::now() + REDIS_PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error @ StoreError::Unfit(_)) => return Err(error),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(error) => {
                log::warn!(code = "redis_away"; "{error}; trying again");
                std::thread::sleep(REDIS_RETRY);
            }
        }
    }
}
