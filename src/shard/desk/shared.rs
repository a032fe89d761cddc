//! Everything that all threads of one server see.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crossbeam_channel::Receiver;

use super::WorkerMailbox;
use super::control::Control;
use super::directory::Directory;
use super::job::Job;
use super::key_ring::KeyRing;
use super::listing::Snapshot;
use super::meters::{Meter, Meters, Way};
use super::peers::Peers;
use super::settings::Settings;
use super::spans::{Span, Tracer};
use super::stored::Sizes;
use super::troubles::{Code, Troubles};
use crate::audit::tap::CommittedBlock;
use crate::audit::watchers::Watchers;
use crate::audit::{Board, Tap};
use crate::certs::Revocations;
use crate::clock::Now;
use crate::config::{Config, Durability};
use crate::gate::Report;
use crate::ids::{AgentId, InstanceId, ServerId};
use crate::quarantine::Quarantine;
use crate::refusal::Refusal;
use crate::store::Endpoint;

/// What a state costs to read that was not read before, in bytes.
const UNKNOWN_STATE_BYTES: usize = 256 * 1024;

/// What every worker and every completion-queue thread of one server shares.
#[derive(Debug)]
pub struct Shared {
    /// Replaced as a whole by a reload.
    settings: RwLock<Arc<Settings>>,
    /// Certificates that are no good any more.
    revoked: RwLock<Arc<Revocations>>,
    /// Who is shut out.
    quarantine: RwLock<Arc<Quarantine>>,
    /// Who is connected.
    pub directory: Directory,
    /// Who is connected of those that Discover shows.
    pub listed: Snapshot,
    /// This run of this server.
    pub server: ServerId,
    /// Other servers on this Redis.
    pub peers: Peers,
    /// Where committed records are handed to their copy in a file, and what runs out there; absent: no copy.
    pub tap: Option<(Arc<Tap>, Receiver<CommittedBlock>)>,
    /// Where spans are handed in, and what runs out there; absent: nothing is traced.
    tracing: Option<(Tracer, Receiver<Span>)>,
    /// Targets whose circuits are not closed: what the home worker knows, for commits made elsewhere.
    circuits: RwLock<HashSet<AgentId>>,
    /// How each worker is reached; set once they run.
    mailboxes: OnceLock<Vec<WorkerMailbox>>,
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
    /// How much room Redis has for more, in bytes; `u64::MAX`: without a bound.
    storage_room: AtomicU64,
    /// The bytes of the shared inboxes.
    pub inboxes: Sizes,
    /// The bytes of the replies that wait, by the agent that asked.
    pub replies: Sizes,
    /// The bytes of the states, as far as one was read or written.
    pub states: Sizes,
    /// What was refused without being decided, counted for the record.
    pub report: Arc<Report>,
    /// The keys whose tags are on what servers store.
    pub key_ring: KeyRing,
    /// Who watches decisions as they are committed.
    pub watchers: Arc<Watchers>,
    /// What workers measure.
    pub meters: Meters,
    /// What does not work now.
    pub troubles: Troubles,
    /// The server is about to stop.
    draining: AtomicBool,
    moving: AtomicBool,
    quarantine_taken_ms: AtomicU64,
    /// Reloads that were taken, and those that were refused.
    reloads: (AtomicU64, AtomicU64),
    /// When the configuration in force was loaded, Unix milliseconds.
    loaded_ms: AtomicU64,
}

impl Shared {
    /// The shared part of a server that runs `config`.
    pub fn new(
        config: &Config,
        redis: Endpoint,
        (server, peers): (ServerId, &BTreeSet<ServerId>),
        key_ring: KeyRing,
    ) -> Self {
        Self {
            server,
            key_ring,
            peers: Peers::new(peers),
            circuits: RwLock::default(),
            mailboxes: OnceLock::new(),
            settings: RwLock::new(Arc::new(Settings::new(config, None))),
            revoked: RwLock::default(),
            quarantine: RwLock::default(),
            directory: Directory::default(),
            listed: Snapshot::default(),
            tap: config.audit.file_path.is_some().then(|| {
                let (tap, feed) = Tap::new();
                (Arc::new(tap), feed)
            }),
            tracing: config.telemetry.traces().then(|| Tracer::new(config.telemetry.sample_ratio)),
            board: Board::default(),
            spin_us: config.spin_us,
            redis,
            durability: config.redis.durability,
            storage_full: AtomicBool::new(false),
            storage_room: AtomicU64::new(u64::MAX),
            inboxes: Sizes::default(),
            replies: Sizes::default(),
            states: Sizes::default(),
            report: Arc::default(),
            watchers: Arc::default(),
            meters: Meters::default(),
            troubles: Troubles::default(),
            draining: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            quarantine_taken_ms: AtomicU64::new(0),
            reloads: Default::default(),
            loaded_ms: AtomicU64::new(Now::read().unix_us / 1000),
        }
    }

    /// What a job costs its worker, in bytes: what it carries, and what has to be read and walked through for it.
    pub fn cost(&self, job: &Job) -> usize {
        let behind = match job {
            Job::StateGet { caller, .. } => {
                let bytes = self.states.of(caller.identity.agent.as_str());
                bytes.map_or(UNKNOWN_STATE_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
            }
            Job::Discover { .. } => self.settings().listing.bytes(),
            // What was never read here is read as a whole.
            _ => match job.changed_state() {
                Some(agent) if self.states.of(agent.as_str()).is_none() => UNKNOWN_STATE_BYTES,
                Some(_) | None => 0,
            },
        };
        job.payload_bytes() + behind
    }

    /// Refuses a job that nothing has decided: it is counted, and goes on record with others of its kind.
    pub fn turn_away(&self, job: Job, refusal: Refusal) {
        self.report.unseen(job.agent(), refusal.detail, Now::mono_us());
        job.fail(refusal);
    }

    /// Where spans are handed in, where anything is traced.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracing.as_ref().map(|(tracer, _)| tracer)
    }

    /// The spans that were handed in.
    pub fn spans(&self) -> Option<&Receiver<Span>> {
        self.tracing.as_ref().map(|(_, spans)| spans)
    }

    /// Whether a target's circuit is known not to be closed.
    pub fn is_circuit_open(&self, agent: &str) -> bool {
        self.circuits.read().unwrap_or_else(PoisonError::into_inner).contains(agent)
    }

    /// The targets whose circuits are not closed.
    pub fn open_circuits(&self) -> Vec<AgentId> {
        let circuits = self.circuits.read().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<AgentId> = circuits.iter().cloned().collect();
        open.sort();
        open
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

    fn home(&self, agent: &AgentId) -> Option<&WorkerMailbox> {
        let mailboxes = self.mailboxes.get().map_or(&[][..], Vec::as_slice);
        mailboxes.get(usize::from(agent.route_hash()) % mailboxes.len().max(1))
    }

    /// Tells an agent's home worker.
    pub fn tell(&self, agent: &AgentId, control: Control) {
        if let Some(mailbox) = self.home(agent) {
            mailbox.line().tell(control);
        }
    }

    /// Tells an agent's home worker what Redis tells as well.
    pub fn tell_news(&self, agent: &AgentId, control: Control) {
        if let Some(mailbox) = self.home(agent) {
            mailbox.line().tell_news(control);
        }
    }

    /// Sets the way to each worker, once: a start that fails before is tried again.
    pub fn set_mailboxes(&self, mailboxes: Vec<WorkerMailbox>) {
        let _ = self.mailboxes.set(mailboxes);
    }

    /// An instance has a session on another server.
    pub fn opened_elsewhere(&self, agent: &AgentId, instance: &InstanceId, server: &ServerId) {
        self.peers.heard(server);
        self.directory.insert_elsewhere(agent, instance, server);
    }

    /// Whether Redis has too little room for more.
    pub fn is_storage_full(&self) -> bool {
        self.storage_full.load(Ordering::Relaxed)
    }

    /// Whether Redis has too little room for more, and how much it has, where that is bounded.
    pub fn set_storage(&self, full: bool, room: Option<u64>) {
        self.storage_full.store(full, Ordering::Relaxed);
        self.storage_room.store(room.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How much room Redis has for more, in bytes; `u64::MAX`: without a bound.
    pub fn storage_room(&self) -> u64 {
        self.storage_room.load(Ordering::Relaxed)
    }

    /// So much was added since Redis was asked, and so much has left.
    pub fn take_room(&self, added: u64, left: u64) {
        let room = self.storage_room();
        if room != u64::MAX {
            // What another worker takes at the same time may be forgotten until Redis is asked again.
            let after = room.saturating_sub(added).saturating_add(left).min(u64::MAX - 1);
            self.storage_room.store(after, Ordering::Relaxed);
        }
    }

    /// A reload was taken, or refused and why.
    pub fn reloaded(&self, refused: Option<String>) {
        let (taken, not_taken) = &self.reloads;
        if refused.is_none() {
            let _ = taken.fetch_add(1, Ordering::Relaxed);
            self.loaded_ms.store(Now::read().unix_us / 1000, Ordering::Relaxed);
        } else {
            let _ = not_taken.fetch_add(1, Ordering::Relaxed);
        }
        self.troubles.set(Code::Reload, refused);
    }

    /// Reloads that were taken, and those that were refused.
    pub fn reloads(&self) -> (u64, u64) {
        (self.reloads.0.load(Ordering::Relaxed), self.reloads.1.load(Ordering::Relaxed))
    }

    /// When the configuration in force was loaded, Unix milliseconds.
    pub fn loaded_ms(&self) -> u64 {
        self.loaded_ms.load(Ordering::Relaxed)
    }

    /// The server is about to stop: nobody new should come.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Sessions move to other servers now, or do not.
    pub fn move_sessions(&self, is_moving: bool) {
        self.moving.store(is_moving, Ordering::Relaxed);
    }

    /// Whether they do.
    pub fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Relaxed)
    }

    /// Whether what is asked of it now is carried out, as far as is known.
    pub fn is_serving(&self) -> bool {
        let is_open = |meter: &Arc<Meter>| meter.way() == Way::Open;
        !self.is_draining()
            && self.board.refusal().is_none()
            && !self.troubles.all().iter().any(|trouble| trouble.code == Code::Lease)
            && self.meters.all().iter().all(is_open)
    }

    /// Whether it is.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Puts other settings in force.
    pub fn set_settings(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Whether other servers are on this Redis.
    pub fn has_peers(&self) -> bool {
        self.peers.any()
    }

    /// The deny-list in force.
    pub fn revoked(&self) -> Arc<Revocations> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another deny-list in force for new calls; the workers look after open sessions.
    pub(crate) fn set_revoked(&self, list: Revocations) {
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// Who is shut out.
    pub fn quarantine(&self) -> Arc<Quarantine> {
        self.quarantine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_quarantine(&self, quarantine: Quarantine) {
        *self.quarantine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(quarantine);
        self.quarantine_taken_ms.store(Now::read().unix_us / 1000, Ordering::Relaxed);
    }

    /// When that was taken up here, Unix milliseconds; 0: never.
    pub fn quarantine_taken_ms(&self) -> u64 {
        self.quarantine_taken_ms.load(Ordering::Relaxed)
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
