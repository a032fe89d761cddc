//! What Redis says of the trail: where its lanes end, what of them is sealed and archived, and what the last verification has
//! found.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::audit::checkpoint::Checkpoint;
use crate::audit::{LaneId, StoreKeys, note};
use crate::ids::ServerId;
use crate::store::archived::{self, Archiver};
use crate::store::trail_ends::{self, End, Ends};
use crate::store::{Connection, StoreError, checkpoints, overview, reports};

/// Checkpoints in which lanes are looked for.
const LOOKED_AT: usize = 256;

/// What Redis says of the trail.
#[derive(Debug)]
pub(super) struct Trail {
    pub(super) ends: Ends,
    alive: Vec<ServerId>,
    /// The newest checkpoints.
    pub(super) newest_first: Vec<(String, Checkpoint)>,
    /// How many records of each lane they cover.
    pub(super) sealed: HashMap<LaneId, u64>,
    archived: HashMap<LaneId, u64>,
    pub(super) archiver: Option<Archiver>,
    /// What the last verification has found; `Some(None)`: something that no tag fits.
    pub(super) verified: Option<Option<Map<String, Json>>>,
}

impl Trail {
    /// Asks Redis.
    pub(super) fn read(connection: &mut Connection, keys: &StoreKeys) -> Result<Self, StoreError> {
        let parse = |text: String| {
            // What is none, `mas audit verify` names.
            let checkpoint = Checkpoint::parse(note::text_of(&text).ok()?).ok()?;
            Some((text, checkpoint))
        };
        // First the checkpoints: whatever they cover is in the lanes by now.
        let notes = checkpoints::newest_page(connection, LOOKED_AT)?;
        let newest_first: Vec<(String, Checkpoint)> = notes.into_iter().filter_map(parse).collect();
        let mut sealed: HashMap<LaneId, u64> = HashMap::new();
        for listed in newest_first.iter().flat_map(|(_, checkpoint)| &checkpoint.lanes) {
            let known = sealed.entry(listed.lane.clone()).or_default();
            *known = listed.head.seq.max(*known);
        }
        let ends = trail_ends::read(connection)?;
        let lanes: Vec<&LaneId> = ends.lanes.iter().map(|end| &end.lane).collect();
        let verified = reports::verified(connection, keys)?;
        Ok(Self {
            alive: overview::servers(connection)?.into_iter().collect(),
            newest_first,
            sealed,
            archived: archived::of(connection, keys, &lanes)?
                .into_iter()
                .map(|(lane, tree)| (lane, tree.size()))
                .collect(),
            ends,
            archiver: archived::archiver(connection)?,
            verified: verified.map(|noted| noted.ok().and_then(|text| serde_json::from_str(&text).ok())),
        })
    }

    /// Whether the lane is of a server that lives.
    pub(super) fn is_alive(&self, end: &End) -> bool {
        self.alive.iter().any(|alive| Some(alive.as_str()) == end.server.as_deref())
    }

    /// How many records of a lane are in files.
    pub(super) fn archived(&self, lane: &LaneId) -> u64 {
        self.archived.get(lane).copied().unwrap_or(0)
    }

    /// Records that no checkpoint covers yet, of lanes that are written.
    pub(super) fn unsealed(&self) -> u64 {
        let is_written = |end: &&End| self.sealed.contains_key(&end.lane) || self.is_alive(end);
        let unsealed = |end: &End| end.last.saturating_sub(self.sealed.get(&end.lane).copied().unwrap_or(0));
        self.ends.lanes.iter().filter(is_written).map(unsealed).sum()
    }

    /// Records in Redis that are in no file.
    pub(super) fn lag(&self) -> u64 {
        let lag =
            |end: &End| end.last.saturating_sub(self.archived(&end.lane).max(end.first.saturating_sub(1)));
        self.ends.lanes.iter().map(lag).sum()
    }

    /// Whether the last verification found nothing damaged; `None`: there was none that can be believed.
    pub(super) fn was_intact(&self) -> Option<bool> {
        let noted = self.verified.as_ref()?.as_ref()?;
        Some(noted.get("result")?.as_str()? != "damaged")
    }
}
