//! Which store key's tags are in this Redis. A server, or an operator's command, with other keys would take everything
//! there for a stranger's, and be taken for one.

use std::path::Path;

use redis::Value;

use super::answers::text;
use super::connection::{Connection, StoreError};
use super::trail::scan;
use super::{keys, trail};
use crate::audit::StoreKeys;

/// Enters the name of the store keys, or finds them entered; an error where others are.
pub fn enter(connection: &mut Connection, store_keys: &StoreKeys) -> Result<(), StoreError> {
    let own = store_keys.name();
    let mut entered = connection.command("GET", &[keys::STORE_KEY])?;
    if entered == Value::Nil {
        // Only then: a Redis whose memory is full refuses it.
        let _ = connection.command("SET", &[keys::STORE_KEY, &own, "NX"])?;
        entered = connection.command("GET", &[keys::STORE_KEY])?;
    }
    match text(&entered) {
        Some(entered) if entered == own => Ok(()),
        entered => Err(StoreError::Unfit(format!(
            "what this Redis holds was written with store key {} (key {} there), and gateway.audit.store_key_path \
             holds {own}: copy that file from a server of this Redis, or, if {} was changed by somebody else, set it \
             to {own}",
            entered.unwrap_or("(no text)").escape_default(),
            keys::STORE_KEY,
            keys::STORE_KEY,
        ))),
    }
}

/// Whether a log may begin on this Redis: nothing there was stored with store keys. An error where something was.
pub fn check_new(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let found = if connection.command("GET", &[keys::STORE_KEY])? != Value::Nil {
        Some(keys::STORE_KEY.to_owned())
    } else {
        let mut tagged = scan(connection, &format!("{}*", keys::STATE_TAG_PREFIX))?;
        tagged.extend(tagged_lane(connection)?);
        tagged.pop()
    };
    match found {
        None => Ok(()),
        Some(key) => Err(StoreError::Unfit(format!(
            "gateway.audit.store_key_path: {} is missing, and this Redis holds what was stored with store keys ({}): \
             copy the file from a server of this Redis; how to begin anew without it is in docs/trust.md",
            file.display(),
            key.escape_default()
        ))),
    }
}

/// A lane whose newest block has a tag, whoever made it.
fn tagged_lane(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    for lane in trail::lanes(connection)?.existing {
        match trail::newest_blocks(connection, &lane, 1) {
            Ok(blocks) if blocks.iter().any(|block| !block.tag.is_empty()) => {
                return Ok(Some(keys::lane(&lane)));
            }
            Ok(_) | Err(StoreError::Unexpected { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
