//! Everything that topics need.

use std::path::PathBuf;
use std::sync::Arc;

use super::allowed::Rules;
use super::looked::{Looked, Reports};
use super::searches::Searches;
use crate::admin::sources::Sources;
use crate::audit::StoreKeys;

/// Everything that topics need.
pub(in crate::admin) struct Api {
    pub(super) sources: Arc<Sources>,
    pub(super) rules: Rules,
    pub(super) fleet: Reports,
    pub(super) agents: Looked,
    pub(super) searches: Searches,
}

impl Api {
    pub(in crate::admin) fn new(sources: Arc<Sources>) -> Self {
        Self {
            sources,
            rules: Rules::default(),
            fleet: Reports::default(),
            agents: Looked::default(),
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
}
