//! The trail itself: its lanes, checkpoints, anchor and archive, and what the last verification has found.

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use super::proofs::{keys_json, public_keys};
use crate::admin::http::Request;
use crate::admin::trail::Trail;
use crate::archive::Pages;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::note;
use crate::checkpoint::anchor::Anchor;
use crate::clock::Now;
use crate::shard::desk::troubles::Code;
use crate::store::trail_ends::End;

/// Checkpoints that are shown, newest first.
const SHOWN: usize = 20;

/// `GET /api/v1/audit`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let trail = api.sources.trail().map_err(Problem::Away)?;
    let shared = api.sources.shards.shared();
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
        "lanes": lanes(&trail),
        "lanes_cut": trail.ends.cut,
        "unsealed": trail.unsealed(),
        "checkpoints": shown(&trail),
        "anchor": anchor(api, &trail),
        "archive": archive(api, &trail)?,
        "verified": verified(&trail),
    }))
}

fn shown(trail: &Trail) -> Vec<Json> {
    let shown = trail.newest_first.iter().take(SHOWN);
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

fn lanes(trail: &Trail) -> Vec<Json> {
    let lane = |end: &End| {
        json!({
            "lane": end.lane.as_str(), "server": end.server, "operator": end.operator,
            "opened_unix_ms": end.opened_us.map(|us| us / 1000), "head": end.last, "oldest": end.first,
            "sealed": trail.sealed.get(&end.lane), "archived": trail.archived(&end.lane),
            "alive": trail.is_alive(end),
        })
    };
    let mut ends: Vec<&End> = trail.ends.lanes.iter().collect();
    // Stable: within both the newest runs stay first.
    ends.sort_by_key(|end| !trail.is_alive(end));
    ends.into_iter().map(lane).collect()
}

fn anchor(api: &Api, trail: &Trail) -> Json {
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
    let in_redis = trail.newest_first.iter().find(|(_, checkpoint)| checkpoint.boot == own);
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

fn archive(api: &Api, trail: &Trail) -> Answered {
    let reloaded = api.sources.reloaded();
    let Some(dir) = reloaded.config.audit.archive() else { return Ok(Json::Null) };
    let (segments, bytes) = Pages::open(std::slice::from_ref(&dir.to_path_buf()))?.size();
    let troubles = api.sources.shards.shared().troubles.all();
    let why = troubles.into_iter().find(|trouble| trouble.code == Code::Archive).map(|trouble| trouble.why);
    let archiver = trail.archiver.as_ref().map(|archiver| format!("{}:{}", archiver.host, archiver.dir));
    Ok(json!({
        "dir": dir.display().to_string(), "segments": segments, "bytes": bytes, "lag": trail.lag(),
        "max_records": reloaded.config.audit.max_records(),
        "here": archiver.as_deref() == Some(api.own_archive().as_str()), "archiver": archiver, "why": why,
    }))
}

/// What was noted of the last verification; whoever can write to Redis may have put it there where it is not trusted.
fn verified(trail: &Trail) -> Json {
    match &trail.verified {
        None => Json::Null,
        Some(None) => json!({"trusted": false}),
        Some(Some(noted)) => {
            let mut noted = noted.clone();
            let _ = noted.insert("trusted".to_owned(), true.into());
            Json::Object(noted)
        }
    }
}
