//! The proof that a record is under a signed checkpoint, with what a browser needs to check it by itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use crate::admin::http::Request;
use crate::audit::json::record_json;
use crate::audit::{KeyHistory, LaneId, View};
use crate::history::lookup::{self, Found, MAX_HASHED};
use crate::ids::hex;
use crate::key_files::KeyFiles;

/// `GET /api/v1/proofs/LANE/SEQ`
pub(super) fn route(api: &Api, request: &Request, lane: &str, seq: &str) -> Answered {
    let _ = Asked::of(request, &[])?;
    let wrong = || Problem::Asked(format!("{seq:?} is no place in a lane: expected a number from 1 on"));
    let seq: u64 = seq.parse().ok().filter(|seq| *seq > 0).ok_or_else(wrong)?;
    let lane = LaneId::from_stored(lane);
    let keys = public_keys(api)?;
    let found = api.searches.run(&api.sources, |connection| {
        Ok(lookup::prove(connection, &api.store_keys(), &api.archive_folders(), &lane, seq)?)
    })?;
    let proof = match found {
        Found::Proof(proof) => proof,
        Found::NoRecord => {
            return Err(Problem::Missing(format!(
                "lane {lane} has no record {seq} in Redis or in an archive here"
            )));
        }
        Found::NotSealed => {
            return Err(Problem::Missing(format!(
                "no checkpoint covers record {seq} of lane {lane} yet: one is made once a second while anything happens"
            )));
        }
        Found::TooMuch => {
            return Err(Problem::Missing(format!(
                "the proof takes more than {MAX_HASHED} records of lane {lane}, or some of them are not here: \
                 mas audit proof --lane {lane} --sequence {seq} makes it"
            )));
        }
    };
    // What is handed out has been checked: Redis is a place where others can write.
    let proven = proof.check(std::slice::from_ref(&keys)).map_err(|error| {
        Problem::Unreadable(format!("the proof does not hold: {error}; mas audit verify says what is wrong"))
    })?;
    let bytes = proven.record.encode();
    let record = View::decode(&bytes).map_or(Json::Null, |view| record_json(&lane, &view));
    Ok(json!({
        "proof": *proof,
        "leaf_hash": hex(&proven.leaf),
        "record": record,
        "checkpoint": {
            "log": proven.checkpoint.origin, "boot": proven.checkpoint.boot.to_string(),
            "counter": proven.checkpoint.counter, "time_unix_ms": proven.checkpoint.time_ms,
        },
        "keys": keys_json(&keys),
        "public_key_file": keys.encode(),
    }))
}

/// The log's keys, each as a browser takes it.
pub(super) fn keys_json(keys: &KeyHistory) -> Vec<Json> {
    keys.keys()
        .map(|(from_ms, key)| {
            json!({
                "name": key.name(), "key": BASE64.encode(key.public()), "key_hash": key.hash_text(),
                "from_unix_ms": from_ms,
            })
        })
        .collect()
}

/// The public key that signs checkpoints, with its history.
pub(super) fn public_keys(api: &Api) -> Result<KeyHistory, Problem> {
    let files = KeyFiles::new(&api.sources.reloaded().config.audit.signing_key_path);
    let read = files.read_history().map_err(|error| Problem::Unreadable(error.to_string()))?;
    read.ok_or_else(|| {
        Problem::Missing("there is no public key yet: the first checkpoint makes it".to_owned())
    })
}
