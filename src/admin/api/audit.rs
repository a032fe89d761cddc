//! The trail itself: its lanes, checkpoints, anchor and archive, and what the last verification has found.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::problem::Problem;
use super::proofs::{keys_json, public_keys};
use super::{Answered, Api};
use crate::admin::http::Request;
use crate::admin::recent::Recent;
use crate::archive::Pages;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::{LaneId, note};
use crate::checkpoint::anchor::Anchor;
use crate::clock::Now;
use crate::ids::ServerId;
use crate::shard::desk::troubles::Code;
use crate::store::reports::{self, NoReport};
use crate::store::trail_ends::{self, Ends};
use crate::store::{archived, checkpoints, overview};

/// Redis is asked again after so long, in milliseconds.
const EVERY_MS: u64 = 2_000;
/// Checkpoints in which lanes are looked for …
const LOOKED_AT: usize = 256;
/// … and of them those that are shown, newest first.
const SHOWN: usize = 20;

/// What Redis and the files said last.
pub(super) struct Looked(Recent<View>);

impl Default for Looked {
    fn default() -> Self {
        Self(Recent::new(EVERY_MS))
    }
}

/// What Redis says of the trail.
struct View {
    ends: Ends,
    alive: Vec<ServerId>,
    /// Newest first.
    notes: Vec<String>,
    archived: HashMap<LaneId, u64>,
    archiver: Option<archived::Archiver>,
    verified: Option<Result<String, NoReport>>,
}

/// `GET /api/v1/audit`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let keys = api.store_keys();
    let view = api.audit.0.read(&api.sources.shards, |connection| {
        Ok(View {
            alive: overview::servers(connection)?.into_iter().collect(),
            ends: trail_ends::read(connection)?,
            notes: checkpoints::newest_page(connection, LOOKED_AT)?,
            archived: archived::read(connection, &keys)?
                .lanes
                .into_iter()
                .map(|(lane, tree)| (lane, tree.size()))
                .collect(),
            archiver: archived::archiver(connection)?,
            verified: reports::verified(connection, &keys)?,
        })
    });
    let view = view.map_err(Problem::Away)?;
    let shared = api.sources.shards.shared();
    let notes = Notes::of(&view.notes);
    let log = match public_keys(api) {
        Ok(keys) => json!({
            "id": keys.log_id(), "origin": keys.origin(), "keys": keys_json(&keys),
            "key_hash": keys.newest().hash_text(), "public_key_file": keys.encode(),
            "store_key": api.store_keys().newest_name(),
        }),
        Err(Problem::Missing(_)) => Json::Null,
        Err(problem) => return Err(problem),
    };
    Ok(json!({
        "time_unix_ms": Now::read().unix_us / 1000,
        "log": log,
        "refusing": shared.board.refusal().map(|refusal| refusal.detail),
        "lanes": view.lanes(&notes),
        "lanes_cut": view.ends.cut,
        "unsealed": view.unsealed(&notes),
        "checkpoints": notes.shown(),
        "anchor": anchor(api, &notes),
        "archive": archive(api, &view)?,
        "verified": verified(&view),
    }))
}

/// The newest checkpoints.
struct Notes<'a> {
    newest_first: Vec<(&'a str, Checkpoint)>,
    /// How many records of each lane they cover.
    sealed: HashMap<LaneId, u64>,
}

impl<'a> Notes<'a> {
    fn of(notes: &'a [String]) -> Self {
        let parse = |note: &'a String| {
            // What is none, `mas audit verify` names.
            let checkpoint = Checkpoint::parse(note::text_of(note).ok()?).ok()?;
            Some((note.as_str(), checkpoint))
        };
        let newest_first: Vec<(&str, Checkpoint)> = notes.iter().filter_map(parse).collect();
        let mut sealed: HashMap<LaneId, u64> = HashMap::new();
        for listed in newest_first.iter().flat_map(|(_, checkpoint)| &checkpoint.lanes) {
            let known = sealed.entry(listed.lane.clone()).or_default();
            *known = listed.head.seq.max(*known);
        }
        Self { newest_first, sealed }
    }

    fn shown(&self) -> Vec<Json> {
        let shown = self.newest_first.iter().take(SHOWN);
        shown
            .map(|(note, checkpoint)| {
                json!({
                    "time_unix_ms": checkpoint.time_ms, "log": checkpoint.origin, "boot": checkpoint.boot.to_string(),
                    "counter": checkpoint.counter, "records": checkpoint.size, "lanes": checkpoint.lanes.len(),
                    "note": note,
                })
            })
            .collect()
    }
}

impl View {
    fn lanes(&self, notes: &Notes<'_>) -> Vec<Json> {
        let is_alive = |server: &str| self.alive.iter().any(|alive| alive.as_str() == server);
        let lane = |end: &trail_ends::End| {
            json!({
                "lane": end.lane.as_str(), "server": end.server, "operator": end.operator,
                "opened_unix_ms": end.opened_us.map(|us| us / 1000), "head": end.last, "oldest": end.first,
                "sealed": notes.sealed.get(&end.lane), "archived": self.archived.get(&end.lane).copied().unwrap_or(0),
                "alive": end.server.as_deref().is_some_and(is_alive),
            })
        };
        let mut lanes: Vec<Json> = self.ends.lanes.iter().map(lane).collect();
        // Stable: within both the newest runs stay first.
        lanes.sort_by_key(|lane| lane.get("alive") != Some(&Json::Bool(true)));
        lanes
    }

    /// Records that no checkpoint covers yet, of lanes that are written.
    fn unsealed(&self, notes: &Notes<'_>) -> u64 {
        let is_written = |end: &&trail_ends::End| {
            let server = end.server.as_deref();
            notes.sealed.contains_key(&end.lane)
                || self.alive.iter().any(|alive| Some(alive.as_str()) == server)
        };
        let unsealed = |end: &trail_ends::End| {
            end.last.saturating_sub(notes.sealed.get(&end.lane).copied().unwrap_or(0))
        };
        self.ends.lanes.iter().filter(is_written).map(unsealed).sum()
    }

    /// Records in Redis that are in no file.
    fn lag(&self) -> u64 {
        let lag = |end: &trail_ends::End| {
            let archived = self.archived.get(&end.lane).copied().unwrap_or(0);
            end.last.saturating_sub(archived.max(end.first.saturating_sub(1)))
        };
        self.ends.lanes.iter().map(lag).sum()
    }
}

fn anchor(api: &Api, notes: &Notes<'_>) -> Json {
    let reloaded = api.sources.reloaded();
    let Some(path) = &reloaded.config.audit.anchor_path else { return Json::Null };
    let read =
        Anchor::open_read_only(path).and_then(|anchor| anchor.map(|mut anchor| anchor.last()).transpose());
    let state = |state: &str, why: Option<String>, newest: Option<&Checkpoint>| {
        json!({
            "path": path.display().to_string(), "state": state, "why": why,
            "newest_unix_ms": newest.map(|newest| newest.time_ms), "counter": newest.map(|newest| newest.counter),
        })
    };
    let last = match read {
        Err(error) => return state("broken", Some(error.to_string()), None),
        Ok(last) => last.flatten(),
    };
    let newest = last.as_deref().and_then(|last| Checkpoint::parse(note::text_of(last).ok()?).ok());
    let own = api.sources.shards.boot();
    let in_redis = notes.newest_first.iter().find(|(_, checkpoint)| checkpoint.boot == own);
    // A checkpoint is in the anchor before it is in Redis.
    let is_behind = in_redis
        .is_some_and(|(_, in_redis)| newest.as_ref().is_none_or(|newest| newest.time_ms < in_redis.time_ms));
    match is_behind {
        true => state(
            "behind",
            Some(
                "Redis has a newer checkpoint of this server: was the file put back, or moved away?"
                    .to_owned(),
            ),
            newest.as_ref(),
        ),
        false => state("good", None, newest.as_ref()),
    }
}

fn archive(api: &Api, view: &View) -> Answered {
    let reloaded = api.sources.reloaded();
    let Some(dir) = reloaded.config.audit.archive() else { return Ok(Json::Null) };
    let (segments, bytes) = Pages::open(std::slice::from_ref(&dir.to_path_buf()))?.size();
    let troubles = api.sources.shards.shared().troubles.all();
    let why = troubles.into_iter().find(|trouble| trouble.code == Code::Archive).map(|trouble| trouble.why);
    let archiver = view.archiver.as_ref().map(|archiver| format!("{}:{}", archiver.host, archiver.dir));
    Ok(json!({
        "dir": dir.display().to_string(), "segments": segments, "bytes": bytes, "lag": view.lag(),
        "max_records": reloaded.config.audit.max_records(),
        "here": archiver.as_deref() == Some(api.own_archive().as_str()), "archiver": archiver, "why": why,
    }))
}

/// What was noted of the last verification; whoever can write to Redis may have put it there where it is not trusted.
fn verified(view: &View) -> Json {
    let Some(found) = &view.verified else { return Json::Null };
    let noted =
        found.as_ref().ok().and_then(|text| serde_json::from_str::<BTreeMap<String, Json>>(text).ok());
    match noted {
        Some(mut noted) => {
            let _ = noted.insert("trusted".to_owned(), true.into());
            json!(noted)
        }
        None => json!({"trusted": false}),
    }
}
