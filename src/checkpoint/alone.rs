//! A checkpoint without a server: over the lane of an operator's command, when none runs that would make one.

use uuid::Uuid;

use super::seal::{Seal, SealError};
use crate::audit::checkpoint::{Checkpoint, LaneHead, text_hash};
use crate::clock::Now;
use crate::config;
use crate::key_files::KeyFiles;
use crate::store::{Connection, checkpoints};

/// Signs where the lane stands: in the anchor, then in Redis. `boot` names the lane's writer.
pub fn seal_alone(
    config: &config::Audit,
    connection: &mut Connection,
    boot: Uuid,
    lane: LaneHead,
    policy: [u8; 32],
) -> Result<(), SealError> {
    if KeyFiles::new(&config.signing_key_path).read_history()?.is_none() {
        // It must not begin a log of its own.
        return Err(SealError::NoLog);
    }
    if config.anchor_path.as_ref().is_some_and(|path| !path.exists()) {
        return Err(SealError::NoLog);
    }
    let Seal { files, mut anchor, .. } = Seal::open(config)?;
    let lock = files.lock()?;
    let keys = files.load_or_create(&lock)?;
    let in_redis = checkpoints::newest(connection)?;
    let newest = match &mut anchor {
        Some(anchor) => {
            let _ = anchor.refresh()?;
            let last = anchor.last()?;
            if last != in_redis {
                // Redis lacks something: a start brings that first.
                return Err(SealError::NoLog);
            }
            last
        }
        None => in_redis,
    };
    let newest = newest.and_then(|note| Checkpoint::open(&note, &keys.history).ok());
    let last_ms = newest.as_ref().map_or(0, |(newest, _)| newest.time_ms);
    let now_ms = Now::read().unix_us / 1000;
    let checkpoint = Checkpoint {
        origin: keys.history.origin().to_owned(),
        size: lane.head.seq,
        boot,
        counter: 1,
        previous: newest.as_ref().map_or([0; 32], |(newest, _)| text_hash(&newest.encode())),
        time_ms: now_ms.max(last_ms + 1).max(keys.history.newest_from_ms()),
        policy,
        lanes: vec![lane],
    };
    let note = checkpoint.sign(&keys.signing).ok_or(SealError::Unsignable)?;
    if let Some(anchor) = &mut anchor {
        anchor.append(&note)?;
    }
    drop(lock);
    checkpoints::take_turn(connection, boot)?;
    let _ = checkpoints::append(connection, boot, &note, None)?;
    Ok(checkpoints::leave_turn(connection, boot)?)
}
