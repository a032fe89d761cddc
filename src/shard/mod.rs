//! The worker loop: pinned threads that each own a Redis connection, an audit lane and the inboxes of
//! the agents that live there.
//!
//! * [`job`], [`mailbox`], [`session`], [`outbox`]: what completion-queue threads and workers hand over, and how.
//! * [`directory`]: which instances are connected, here and to other servers.
//! * [`inbox`]: one agent's sessions, credit and pending entries. Pure.
//! * [`worker`]: the loop, timers, connection.
//! * `round`: one round trip: gather facts, decide, commit, answer.
//! * `flow`: what follows in the same pipeline: acknowledge, claim, read.
//! * `custody`: who got and who acknowledged what, for the record.
//! * `presence`: which server has which instance, as the store says.
//! * `decide`: what happens to each job, and its audit record; `posts`: to messages and commits;
//!   `notes`: what happened by itself.

pub mod answer;
mod connect;
mod custody;
mod decide;
pub mod directory;
mod flow;
mod gather;
pub mod inbox;
pub mod job;
pub mod mailbox;
mod notes;
pub mod outbox;
mod posts;
pub(crate) mod presence;
mod ready;
mod round;
pub mod session;
mod settle;
mod timers;
pub mod worker;

pub use notes::OperatorEvent;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use uuid::Uuid;

use crate::audit::tap::Committed;
use crate::audit::{Board, Tap};
use crate::certs::Revocations;
use crate::config::{Config, Delivery, Durability, Limits};
use crate::ids::{AgentId, ServerId};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::store::Endpoint;
use crate::store::news::News;
use directory::Directory;
use job::{Control, Job};
use mailbox::Mailbox;

/// What a configuration means for decisions. A round is decided by one of these as a whole.
#[derive(Debug)]
pub struct Settings {
    /// The rules.
    pub policy: Policy,
    /// Bounds on requests.
    pub limits: Limits,
    /// Credit and redelivery.
    pub delivery: Delivery,
}

/// What every worker and every completion-queue thread of one server shares.
#[derive(Debug)]
pub struct Shared {
    /// Replaced as a whole by a reload.
    settings: RwLock<Arc<Settings>>,
    /// Certificates that are no good any more.
    revoked: RwLock<Arc<Revocations>>,
    /// Who is connected.
    pub directory: Directory,
    /// This run of this server.
    pub server: ServerId,
    /// Other servers on this Redis.
    peers: AtomicUsize,
    /// Where committed records are handed to their copy in a file, and what runs out there; absent: no copy.
    pub tap: Option<(Arc<Tap>, Receiver<Committed>)>,
    /// Targets whose circuits are not closed: what the home worker knows, for commits made elsewhere.
    circuits: RwLock<HashSet<AgentId>>,
    /// How each worker is reached; set once they run.
    mailboxes: OnceLock<Vec<Mailbox>>,
    /// Where the audit lanes stand, and whether anything may be admitted.
    pub board: Board,
    /// How long an idle worker looks for work before it sleeps, in microseconds.
    pub spin_us: u64,
    /// Where Redis is.
    pub redis: Endpoint,
    /// What must hold of a commit before it is answered.
    pub durability: Durability,
    /// Whether Redis has too little room for more.
    storage_full: AtomicBool,
}

impl Shared {
    /// The shared part of a server that runs `config`.
    pub fn new(config: &Config, server: ServerId, peers: usize) -> Self {
        Self {
            server,
            peers: AtomicUsize::new(peers),
            circuits: RwLock::default(),
            mailboxes: OnceLock::new(),
            settings: RwLock::new(Arc::new(Settings::new(config, None))),
            revoked: RwLock::default(),
            directory: Directory::default(),
            tap: config.audit.file_path.is_some().then(|| {
                let (tap, feed) = Tap::new();
                (Arc::new(tap), feed)
            }),
            board: Board::default(),
            spin_us: config.spin_us,
            redis: Endpoint::new(&config.redis),
            durability: config.redis.durability,
            storage_full: AtomicBool::new(false),
        }
    }

    /// Whether a target's circuit is known not to be closed.
    pub fn is_circuit_open(&self, agent: &str) -> bool {
        self.circuits.read().unwrap_or_else(PoisonError::into_inner).contains(agent)
    }

    /// A target's circuit opened, or closed.
    pub fn set_circuit(&self, agent: &AgentId, open: bool) {
        let mut circuits = self.circuits.write().unwrap_or_else(PoisonError::into_inner);
        if open {
            let _ = circuits.insert(agent.clone());
        } else {
            let _ = circuits.remove(agent);
        }
    }

    /// Tells an agent's home worker.
    pub fn tell(&self, agent: &AgentId, control: Control) {
        let mailboxes = self.mailboxes.get().map_or(&[][..], Vec::as_slice);
        let home = usize::from(agent.route_hash()) % mailboxes.len().max(1);
        if let Some(mailbox) = mailboxes.get(home) {
            mailbox.control(control);
        }
    }

    /// Whether other servers are on this Redis.
    pub fn has_peers(&self) -> bool {
        self.peers.load(Ordering::Relaxed) > 0
    }

    /// The deny-list in force.
    pub fn revoked(&self) -> Arc<Revocations> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_revoked(&self, list: Revocations) {
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Settings {
    fn new(config: &Config, previous: Option<&Self>) -> Self {
        Self {
            policy: Policy::compile(config, previous.map(|previous| &previous.policy)),
            limits: config.limits.clone(),
            delivery: config.delivery.clone(),
        }
    }
}

/// The running workers.
pub struct Shards {
    shared: Arc<Shared>,
    boot: Uuid,
    mailboxes: Vec<Mailbox>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shards {
    /// Starts `count` workers, each connected to Redis; fails when the first connection does.
    pub fn start(shared: Arc<Shared>, count: usize) -> Result<Self, crate::store::StoreError> {
        // Names this run of the server, and no earlier attempt to start it: lanes are written once.
        let boot = Uuid::now_v7();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut shards = Self {
            shared: shared.clone(),
            boot,
            mailboxes: Vec::with_capacity(count),
            threads: Mutex::default(),
        };
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let (mailbox, inlet) = mailbox::mailbox();
            shards.mailboxes.push(mailbox);
            workers.push(worker::Worker::connect(shared.clone(), boot, index, count, inlet)?);
        }
        // Once: a start that fails before here is tried again.
        let _ = shared.mailboxes.set(shards.mailboxes.clone());
        let mut threads = Vec::with_capacity(count);
        for (index, worker) in workers.into_iter().enumerate() {
            let core = cores.get(index % cores.len().max(1)).copied();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Some(core) = core
                    && !core_affinity::set_for_current(core)
                {
                    log::warn!("worker {index} could not be pinned to core {}", core.id);
                }
                worker.run();
            });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => log::error!("worker {index} could not be started: {error}"),
            }
        }
        shards.threads = Mutex::new(threads);
        Ok(shards)
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// This run of the server: names its lanes.
    pub fn boot(&self) -> Uuid {
        self.boot
    }

    /// Puts an event of the server itself on record, with the first worker's next commit.
    pub fn record(&self, event: OperatorEvent) {
        if let Some(mailbox) = self.mailboxes.first() {
            mailbox.control(Control::Record(event));
        }
    }

    /// The mailbox of the worker that owns `agent`'s inbox.
    pub fn home(&self, agent: &AgentId) -> Option<&Mailbox> {
        self.by_hash(agent.route_hash())
    }

    /// The mailbox that a route hash leads to.
    pub fn by_hash(&self, hash: u16) -> Option<&Mailbox> {
        self.mailboxes.get(usize::from(hash) % self.mailboxes.len().max(1))
    }

    /// Hands a job to the worker behind `hash`, or refuses it at once.
    pub fn submit(&self, hash: u16, job: Job) {
        self.queue(hash, job);
        if let Some(mailbox) = self.by_hash(hash) {
            mailbox.ring();
        }
    }

    /// Wakes the workers that sleep on what was queued for them.
    pub fn ring(&self) {
        self.mailboxes.iter().for_each(Mailbox::ring);
    }

    /// The same as [`submit`](Self::submit), but for the doorbell: several jobs at a time are worth one
    /// [`ring`](Self::ring).
    pub fn queue(&self, hash: u16, job: Job) {
        if let Some(refusal) = self.shared.board.refusal() {
            return job.fail(refusal);
        }
        if job.takes_room() && self.shared.storage_full.load(Ordering::Relaxed) {
            return job.fail(Refusal::STORAGE_FULL);
        }
        match self.by_hash(hash) {
            Some(mailbox) => {
                if let Err((job, refusal)) = mailbox.try_send(job) {
                    job.fail(refusal);
                }
            }
            None => job.fail(Refusal::OVERLOADED),
        }
    }

    /// Passes on what other servers tell.
    pub fn hear(&self, news: News) {
        let shared = &self.shared;
        let own = &shared.server;
        match news {
            News::Inboxes(agents) => {
                for agent in agents {
                    shared.tell(&agent.clone(), Control::News(agent));
                }
            }
            News::Joined(server) => {
                if server != *own {
                    // How many there are, the look at the servers says.
                    let _ = shared.peers.fetch_max(1, Ordering::Relaxed);
                }
            }
            News::Opened(agent, instance, server) => {
                if server != *own {
                    shared.directory.insert_elsewhere(&agent, &instance, &server);
                    shared.tell(&agent.clone(), Control::OpenedElsewhere(agent, server));
                }
            }
            News::Closed(agent, instance, server) => {
                if server != *own {
                    shared.directory.remove_elsewhere(&agent, &instance);
                    shared.tell(&agent.clone(), Control::Left(agent, instance));
                }
            }
            News::Circuit(agent, open, server) => {
                if server != *own {
                    shared.tell(&agent.clone(), Control::Circuit(agent, open));
                }
            }
            News::Failed(agent, server) => {
                if server != *own {
                    shared.tell(&agent.clone(), Control::Failed(agent));
                }
            }
            News::Servers { others, came, gone } => {
                shared.peers.store(others, Ordering::Relaxed);
                for server in gone {
                    for (agent, instances) in shared.directory.remove_server(&server) {
                        for instance in instances {
                            shared.tell(&agent, Control::Orphaned(agent.clone(), instance, server.clone()));
                        }
                    }
                }
                if came {
                    self.tell_all(|| Control::LookOver);
                }
            }
            News::Storage { full } => shared.storage_full.store(full, Ordering::Relaxed),
            News::Missed => self.tell_all(|| Control::LookOver),
        }
    }

    fn tell_all(&self, control: impl Fn() -> Control) {
        for mailbox in &self.mailboxes {
            mailbox.control(control());
        }
    }

    /// Puts another configuration in force: for new calls at once, in each worker with its next round.
    pub fn reload(&self, config: &Config) {
        let settings = Arc::new(Settings::new(config, Some(&self.shared.settings())));
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        for mailbox in &self.mailboxes {
            mailbox.control(Control::Reload(settings.clone()));
        }
    }

    /// Puts another deny-list in force: for new calls at once, in each worker with its next round.
    pub fn set_revoked(&self, list: Revocations) {
        self.shared.set_revoked(list);
        self.tell_all(|| Control::Revoked);
    }

    /// Lets the workers finish what they accepted, end all sessions and stop.
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.control(Control::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a worker ended by a panic");
            }
        }
    }
}
