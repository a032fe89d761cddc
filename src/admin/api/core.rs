//! Everything that topics need.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value as Json;

use super::allowed::Rules;
use super::problem::Problem;
use super::searches::Searches;
use super::views::{Agents, Reports};
use crate::admin::counts::Counts;
use crate::admin::fleet::{Fleet, Member};
use crate::admin::sources::Sources;
use crate::audit::StoreKeys;
use crate::store::reports::{self, Kind};

/// What a topic answers.
pub(super) type Answered = Result<Json, Problem>;

/// Everything that topics need.
pub(in crate::admin) struct Api {
    pub(super) sources: Arc<Sources>,
    pub(super) rules: Rules,
    pub(super) fleet: Reports,
    pub(super) agents: Agents,
    pub(super) searches: Searches,
}

impl Api {
    pub(in crate::admin) fn new(sources: Arc<Sources>) -> Self {
        Self {
            sources,
            rules: Rules::default(),
            fleet: Reports::default(),
            agents: Agents::default(),
            searches: Searches::default(),
        }
    }

    /// The folders of archives.
    pub(super) fn archive_folders(&self) -> Vec<PathBuf> {
        self.sources.reloaded().config.audit.archive_folders()
    }

    /// The archive of this host, among those of all.
    pub(super) fn own_archive(&self) -> String {
        let reloaded = self.sources.reloaded();
        let dir = reloaded.config.audit.archive().map(|dir| dir.display().to_string());
        format!("{}:{}", self.sources.place.host, dir.unwrap_or_default())
    }

    /// The keys whose tags are on what servers store.
    pub(super) fn store_keys(&self) -> Arc<StoreKeys> {
        self.sources.shards.shared().key_ring.keys()
    }

    /// The other servers; the error is why Redis does not say.
    pub(super) fn members(&self) -> Result<Arc<Vec<Member>>, String> {
        let shared = self.sources.shards.shared();
        let keys = shared.key_ring.keys();
        self.sources
            .ask(&self.fleet.members, |connection| self.sources.fleet.read(connection, &keys, &shared.server))
    }

    /// What all servers have counted, as far as their reports are good. Where Redis does not answer, this one's.
    pub(super) fn counts(&self) -> Counts {
        let shared = self.sources.shards.shared();
        let mut all = Counts::own(&shared.meters.all());
        let keys = shared.key_ring.keys();
        let others = self.sources.ask(&self.fleet.counts, |connection| {
            let servers = Fleet::others(connection, &shared.server)?;
            let mut sum = Counts::default();
            for report in reports::read(connection, &keys, Kind::Counts, &servers)?.into_iter().flatten() {
                if let Some(counts) = Counts::parse(&report.text) {
                    sum.add(&counts);
                }
            }
            Ok(sum)
        });
        if let Ok(others) = others {
            all.add(&others);
        }
        all
    }
}
