//! The store keys in force, taken up from their file when it changes: by the checkpointer's look, and at once when
//! something has a tag of a key that is not known here.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::audit::StoreKeys;
use crate::clock::Now;
use crate::key_files::store::LoadedKeys;
use crate::key_files::{KeyError, Stamp, StoreKeyFile};

/// Shortest time between two looks at the file for the sake of a key that is not known, in milliseconds.
const LOOK_MS: u64 = 1000;

/// The store keys of a running server.
#[derive(Debug)]
pub struct KeyRing {
    file: StoreKeyFile,
    keys: RwLock<Arc<StoreKeys>>,
    read: Mutex<ReadState>,
}

#[derive(Debug)]
struct ReadState {
    stamp: Option<Stamp>,
    /// When the next key begins to make tags (Unix milliseconds).
    next_ms: Option<u64>,
    /// When the file was looked at last for a key that is not known (monotonic).
    looked_ms: Option<u64>,
    failing: bool,
}

impl KeyRing {
    /// The keys that a start has read from this file, and its state before that.
    pub fn new(file: StoreKeyFile, stamp: Option<Stamp>, loaded: LoadedKeys) -> Self {
        let read = ReadState { stamp, next_ms: loaded.next_ms, looked_ms: None, failing: false };
        Self { file, keys: RwLock::new(Arc::new(loaded.keys)), read: Mutex::new(read) }
    }

    /// The keys in force.
    pub fn keys(&self) -> Arc<StoreKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up keys that were added, and the one whose time has come. The name of another key that makes tags now.
    pub fn renew(&self, now: Now) -> Option<String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew_locked(&mut read, now)
    }

    fn renew_locked(&self, read: &mut ReadState, now: Now) -> Option<String> {
        let now_ms = now.unix_us / 1000;
        let stamp = self.file.stamp();
        let begins = read.next_ms.is_some_and(|next_ms| next_ms <= now_ms);
        if stamp == read.stamp && !begins {
            return None;
        }
        let before = self.keys();
        match self.file.load(now_ms) {
            Ok(Some(loaded)) if loaded.keys.name() == before.name() => {
                read.failing = false;
                read.stamp = stamp;
                read.next_ms = loaded.next_ms;
                let newest = loaded.keys.newest_name();
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded.keys);
                (newest != before.newest_name()).then_some(newest)
            }
            Ok(Some(_)) => {
                self.fail(read, "holds another log's keys; those in force stay");
                None
            }
            Ok(None) => {
                self.fail(read, "is gone; the keys in force stay, and the next start needs it");
                None
            }
            Err(error) => {
                self.fail(read, &describe(&error));
                None
            }
        }
    }

    /// Something has a tag of a key that is not known: the keys after another look, unless there was one a moment ago.
    pub fn look_for_more(&self, now: Now) -> Arc<StoreKeys> {
        // Held until the keys are renewed: whoever comes second finds them.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked_ms.is_none_or(|looked_ms| now.mono_ms >= looked_ms + LOOK_MS) {
            read.looked_ms = Some(now.mono_ms);
            let _ = self.renew_locked(&mut read, now);
        }
        self.keys()
    }

    fn fail(&self, read: &mut ReadState, problem: &str) {
        if !std::mem::replace(&mut read.failing, true) {
            log::error!(
                code = "store_keys_refused", path:% = self.file.path().display();
                "store keys: {}: {problem}", self.file.path().display()
            );
        }
    }
}

fn describe(error: &KeyError) -> String {
    format!("cannot be taken up: {error}; the keys in force stay")
}
