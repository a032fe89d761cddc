//! The sessions of a worker: those that are open, those that ended and whose streams may still hang, and those whose
//! writers are to be woken.

use std::collections::HashMap;
use std::sync::Arc;

use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::session::Session;
use crate::shard::desk::session_key::SessionKey;
use crate::shard::inbox::Inbox;

/// The sessions of a worker.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<SessionKey, Arc<Session>, foldhash::fast::RandomState>,
    /// Until they are cut.
    ended: HashMap<SessionKey, Arc<Session>>,
    /// Woken once, at the end of the round.
    to_wake: Vec<Arc<Session>>,
}

impl Sessions {
    /// A session opened.
    pub(super) fn insert(&mut self, session: Arc<Session>) {
        drop(self.open.insert(session.key, session));
    }

    /// The open session of that key.
    pub(super) fn get(&self, key: SessionKey) -> Option<&Arc<Session>> {
        self.open.get(&key)
    }

    /// A session ended; its stream is kept until it is cut.
    pub(super) fn end(&mut self, key: SessionKey) -> Option<Arc<Session>> {
        let session = self.open.remove(&key)?;
        drop(self.ended.insert(key, session.clone()));
        Some(session)
    }

    /// Cuts a stream that ended and may still hang.
    pub(super) fn cut(&mut self, key: SessionKey) {
        if let Some(session) = self.ended.remove(&key) {
            session.cut();
        }
    }

    /// Every open session.
    pub(super) fn open(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.open.values()
    }

    /// Hands a delivery to a session; its writer is woken at the end of the round.
    pub(super) fn deliver(&mut self, key: SessionKey, delivery: Outbound) {
        if let Some(session) = self.open.get(&key)
            && session.outbox.push(delivery)
        {
            self.to_wake.push(session.clone());
        }
    }

    /// These writers are woken at the end of the round.
    pub(super) fn wake_later(&mut self, sessions: impl IntoIterator<Item = Arc<Session>>) {
        self.to_wake.extend(sessions);
    }

    /// Wakes each writer once, however much there is for it.
    pub(super) fn wake(&mut self) {
        for session in self.to_wake.drain(..) {
            session.outbox.wake();
        }
    }

    /// Tells an inbox' sessions whether something waits that their acknowledgements would make room for.
    pub(super) fn tell_hunger(&self, inbox: &Inbox) {
        for (key, hungry) in inbox.hunger() {
            if let Some(session) = self.open.get(&key) {
                session.set_hungry(hungry);
            }
        }
    }
}
