//! Where everything that the admin listener tells is gathered from: what all threads see, what the thread that watches has seen,
//! and the configuration in force.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::fleet::Fleet;
use super::health;
use super::http::Counters;
use super::performance::History;
use super::recent::Recent;
use super::seen::Seen;
use super::status::{Place, Status};
use super::trail::Trail;
use crate::certs;
use crate::clock::Now;
use crate::config::Config;
use crate::gate::Peers;
use crate::ids::hex;
use crate::policy::readable;
use crate::shard::Shards;
use crate::store::overview::{self, InboxView};
use crate::store::{Connection, StoreError};

/// What Redis said of the inboxes is asked again after so long, in milliseconds.
const INBOXES_MS: u64 = 5_000;
/// What it said of the trail is.
const TRAIL_MS: u64 = 2_000;

/// What a reload may change.
pub(super) struct Reloaded {
    /// The configuration in force.
    pub(super) config: Config,
    /// The digest of its rules, in hexadecimal.
    pub(super) rules_digest: String,
    /// By name, when certificates end, Unix seconds.
    pub(super) certificates: Vec<(&'static str, i64)>,
}

impl Reloaded {
    pub(super) fn new(config: &Config) -> Self {
        // Of several authorities one is enough.
        let ca = certs::last_ends(&config.tls.ca).map(|end_s| ("ca", end_s));
        let server = certs::ends(&config.tls.cert).map(|end_s| ("server", end_s));
        let certificates = [ca, server];
        Self {
            config: config.clone(),
            rules_digest: hex(&readable::digest(config)),
            certificates: certificates.into_iter().flatten().collect(),
        }
    }
}

/// Where it is gathered from.
pub(super) struct Sources {
    pub(super) shards: Arc<Shards>,
    pub(super) peers: Arc<Peers>,
    pub(super) place: Place,
    reloaded: RwLock<Arc<Reloaded>>,
    /// What the listeners count of themselves.
    counters: Mutex<Vec<Arc<Counters>>>,
    seen: Mutex<Seen>,
    inboxes: Recent<Vec<InboxView>>,
    trail: Recent<Trail>,
    pub(super) history: History,
    pub(super) fleet: Fleet,
}

impl Sources {
    pub(super) fn new(config: &Config, shards: Arc<Shards>, peers: Arc<Peers>, place: Place) -> Self {
        Self {
            shards,
            peers,
            place,
            reloaded: RwLock::new(Arc::new(Reloaded::new(config))),
            counters: Mutex::default(),
            seen: Mutex::default(),
            inboxes: Recent::new(INBOXES_MS),
            trail: Recent::new(TRAIL_MS),
            history: History::default(),
            fleet: Fleet::default(),
        }
    }

    /// A listener counts this of itself.
    pub(super) fn count_with(&self, counters: Arc<Counters>) {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(counters);
    }

    /// Another configuration is in force.
    pub(super) fn reload(&self, config: &Config) {
        let reloaded = Arc::new(Reloaded::new(config));
        *self.reloaded.write().unwrap_or_else(PoisonError::into_inner) = reloaded;
    }

    /// The configuration in force, and what comes with it.
    pub(super) fn reloaded(&self) -> Arc<Reloaded> {
        self.reloaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the thread that watches has seen.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has seen this.
    pub(super) fn set_seen(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Why Redis is known not to answer: nobody needs to wait for it then.
    pub(super) fn away(&self) -> Option<String> {
        self.seen().redis.and_then(Result::err)
    }

    /// What Redis says, or said a moment ago; the error is why it does not.
    pub(super) fn ask<T>(
        &self,
        recent: &Recent<T>,
        ask: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<Arc<T>, String> {
        match self.away() {
            Some(why) => Err(why),
            None => recent.read(&self.shards, ask),
        }
    }

    /// What Redis says of the trail.
    pub(super) fn trail(&self) -> Result<Arc<Trail>, String> {
        let keys = self.shards.shared().key_ring.keys();
        self.ask(&self.trail, |connection| Trail::read(connection, &keys))
    }

    /// The inboxes, as they were a few seconds ago at the most.
    pub(super) fn inboxes(&self) -> Arc<Vec<InboxView>> {
        let settings = self.shards.shared().settings();
        let agents = || settings.policy.agents().map(|card| &card.id);
        // Where Redis does not answer, what it said last is shown; that it does not is shown beside.
        let _ = self.ask(&self.inboxes, |connection| overview::inboxes(connection, agents()));
        self.known_inboxes()
    }

    fn known_inboxes(&self) -> Arc<Vec<InboxView>> {
        self.inboxes.known().unwrap_or_default()
    }

    /// Gathers it.
    pub(super) fn gather(&self) -> Status {
        let inboxes = self.inboxes();
        self.gather_with(inboxes)
    }

    /// Gathers it, and asks Redis for nothing.
    pub(super) fn gather_known(&self) -> Status {
        self.gather_with(self.known_inboxes())
    }

    fn gather_with(&self, inboxes: Arc<Vec<InboxView>>) -> Status {
        let (shared, now) = (self.shards.shared(), Now::read());
        let (seen, reloaded) = (self.seen(), self.reloaded());
        let settings = shared.settings();
        let is_known = |agent: &str| settings.policy.agent(agent).is_some();
        Status {
            server: shared.server.to_string(),
            place: self.place.clone(),
            rules_digest: reloaded.rules_digest.clone(),
            now_ms: now.unix_us / 1000,
            mono_ms: now.mono_ms,
            policy_version: hex(shared.settings().policy.version()),
            reloads: shared.reloads(),
            loaded_ms: shared.loaded_ms(),
            checks: health::ready(&self.shards, &seen, &reloaded.certificates),
            troubles: shared.troubles.all(),
            meters: shared.meters.all(),
            busy: seen.busy,
            sessions: shared.directory.local_counts(),
            circuits: shared.open_circuits(),
            inboxes,
            sealed_ms: shared.board.sealed_ms(),
            refusal: shared.board.refusal().map(|refusal| refusal.detail),
            draining: shared.is_draining(),
            trail: None,
            redis: seen.redis.unwrap_or_else(|| Err("not looked at yet".to_owned())),
            connections: self.peers.connections(),
            turned_away: shared.report.totals(),
            certificates: reloaded.certificates.clone(),
            agents_certificates: self.peers.certificates(is_known, Now::mono_us()),
            mailboxes: self.shards.depths(),
            http: self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            quarantine: shared.quarantine(),
            quarantine_taken_ms: shared.quarantine_taken_ms(),
            spans: shared.tracer().map(|tracer| tracer.counts().to_vec()).unwrap_or_default(),
        }
    }
}
