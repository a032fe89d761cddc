//! Watches the deny-list of certificates (`tls_revoked_path`, written by `mas certs revoke`): a change is
//! in force within a second. A file that cannot be read or is not there any more changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::audit::Action;
use crate::audit::OperatorEvent;
use crate::certs::{CertsError, Revocations};
use crate::files::{self, MAX_MATERIAL_BYTES};
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
type State = (SystemTime, u64);

/// The watching thread's view of the file.
struct Watch {
    path: PathBuf,
    shards: Arc<Shards>,
    /// The file whose list is in force; `None` where it is not there any more.
    known: Option<State>,
    /// The file that could not be used, and why, as it was logged.
    unusable: Option<(State, String)>,
}

fn state(path: &Path) -> Option<State> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The digest of the file says which list it was.
fn changed(path: &Path) -> OperatorEvent {
    let digest = match files::read(path, MAX_MATERIAL_BYTES) {
        Ok(bytes) => hex(&Sha256::digest(bytes)),
        // It was there a moment ago.
        Err(_) => "none".to_owned(),
    };
    OperatorEvent {
        action: Action::RevocationsChanged,
        target: digest,
        rule: String::new(),
        reason: String::new(),
        pending: None,
    }
}

impl Watch {
    fn look(&mut self) {
        let now = state(&self.path);
        if now == self.known {
            return;
        }
        let Some(now) = now else {
            // Moved away or on a volume that is not mounted: nobody meant to admit everybody again.
            (self.known, self.unusable) = (None, None);
            log::error!(
                code = "deny_list_refused", path:% = self.path.display();
                "the deny-list in force stays: {} is not there any more", self.path.display()
            );
            return;
        };
        match Revocations::find(&self.path) {
            Ok(Some(list)) => {
                (self.known, self.unusable) = (Some(now), None);
                self.shards.record(changed(&self.path));
                self.shards.set_revoked(list);
                log::info!(
                    code = "deny_list_taken", path:% = self.path.display();
                    "{}: in force", self.path.display()
                );
            }
            // Gone since: the next look finds that.
            Ok(None) => {}
            Err(error) => {
                let unusable = Some((now, error.to_string()));
                if self.unusable != unusable {
                    log::error!(
                        code = "deny_list_refused", path:% = self.path.display();
                        "the deny-list in force stays: {error}"
                    );
                    self.unusable = unusable;
                }
            }
        }
    }
}

impl DenyList {
    /// Reads the list, puts it in force and watches it. A file that is missing now is an empty list.
    pub fn watch(path: PathBuf, shards: Arc<Shards>) -> Result<Self, CertsError> {
        let known = state(&path);
        shards.set_revoked(Revocations::load(&path)?);
        let mut watch = Watch { path, shards, known, unusable: None };
        let (stop, stopped) = channel();
        let looks = move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                watch.look();
            }
        };
        let thread = std::thread::Builder::new().name("deny-list".to_owned()).spawn(looks);
        if let Err(error) = &thread {
            log::error!(
                code = "thread_not_started", part = "deny-list";
                "the deny-list is read, and not watched: {error}"
            );
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
