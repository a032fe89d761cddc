//! The newest signed checkpoints: in Redis, and in the anchor.

use crate::audit::checkpoint::Checkpoint;
use crate::audit::{KeyHistory, note};
use crate::checkpoint::anchor::Anchor;
use crate::config::Config;
use crate::key_files::KeyFiles;
use crate::store::{Connection, StoreError, checkpoints};

/// Where a log stands.
pub(in crate::cli) struct Seal {
    /// The checkpoint.
    pub(in crate::cli) checkpoint: Checkpoint,
    /// What its signature is worth.
    pub(in crate::cli) signature: Signature,
}

/// What the signature of a checkpoint is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Signature {
    /// It is that of the log's key.
    Good,
    /// It is another log's, whose key is not at hand.
    Unknown,
    /// It is not what the log's key has signed; why.
    Bad(String),
}

/// The public keys of this configuration's log; `None`: there are none yet, or they cannot be read.
pub(in crate::cli) fn keys(config: &Config) -> Option<KeyHistory> {
    KeyFiles::new(&config.audit.signing_key_path).read_history().ok().flatten()
}

/// The newest checkpoint in the anchor; `Ok(None)`: the anchor is empty. The error says why it cannot be read.
pub(in crate::cli) fn in_anchor(
    path: &std::path::Path,
    keys: Option<&KeyHistory>,
) -> Result<Option<Seal>, String> {
    let anchor = Anchor::open_read_only(path).map_err(|error| error.to_string())?;
    let mut anchor = anchor.ok_or_else(|| format!("{}: there is no such file", path.display()))?;
    let newest = anchor.last().map_err(|error| error.to_string())?;
    newest
        .map(|note| {
            seal(&note, keys).ok_or_else(|| format!("{}: no checkpoint in its last line", path.display()))
        })
        .transpose()
}

/// The newest checkpoint in Redis, of any server; `None`: there is none that can be read.
pub(in crate::cli) fn in_redis(
    connection: &mut Connection,
    keys: Option<&KeyHistory>,
) -> Result<Option<Seal>, StoreError> {
    Ok(checkpoints::newest(connection)?.and_then(|note| seal(&note, keys)))
}

fn seal(text: &str, keys: Option<&KeyHistory>) -> Option<Seal> {
    let checkpoint = Checkpoint::parse(note::text_of(text).ok()?).ok()?;
    let signature = match keys {
        Some(keys) if keys.origin() == checkpoint.origin => match Checkpoint::open(text, keys) {
            Ok(_) => Signature::Good,
            Err(error) => Signature::Bad(error.to_string()),
        },
        Some(_) | None => Signature::Unknown,
    };
    Some(Seal { checkpoint, signature })
}
