//! Watches the deny-list of certificates (`tls_revoked_path`, written by `mas certs revoke`): a change is
//! in force within a second, a file that cannot be read changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::audit::Action;
use crate::audit::OperatorEvent;
use crate::certs::{CertsError, Revocations};
use crate::ids::hex;
use crate::shard::Shards;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A watched deny-list; watching ends when this is dropped.
pub struct DenyList {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What tells one state of the file from another.
fn state(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The digest of the file says which list it was.
fn changed(path: &Path) -> OperatorEvent {
    let digest = match std::fs::read(path) {
        Ok(bytes) => hex(&Sha256::digest(bytes)),
        // A missing file is an empty list.
        Err(_) => "none".to_owned(),
    };
    OperatorEvent {
        action: Action::RevocationsChanged,
        target: digest,
        rule: String::new(),
        reason: String::new(),
    }
}

impl DenyList {
    /// Reads the list, puts it in force and watches it. A missing file is an empty list.
    pub fn watch(path: PathBuf, shards: Arc<Shards>) -> Result<Self, CertsError> {
        let mut known = state(&path);
        let shared = shards.shared();
        shared.set_revoked(Revocations::load(&path)?);
        let (stop, stopped) = channel();
        let watch = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let now = state(&path);
                if now == known {
                    continue;
                }
                match Revocations::load(&path) {
                    Ok(list) => {
                        known = now;
                        shards.shared().set_revoked(list);
                        shards.record(changed(&path));
                        log::info!("{}: in force", path.display());
                    }
                    Err(error) => log::error!("the deny-list in force stays: {error}"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("deny-list".to_owned()).spawn(watch);
        if let Err(error) = &thread {
            log::error!("the deny-list is read, and not watched: {error}");
        }
        Ok(Self { stop, thread: thread.ok() })
    }
}

impl Drop for DenyList {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
