//! A session: one Transport stream of one instance, as its completion-queue thread and its home worker
//! share it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::answer::Outcome;
use super::job::Control;
use super::mailbox::Mailbox;
use super::outbox::Outbox;
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::refusal::Refusal;
use crate::store::answers::EntryId;

/// Longest reason of a nack that is kept, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// Submissions of one session whose results are not written out yet: what a client may have under way.
pub const MAX_SUBMISSIONS: usize = 1024;

/// How long an acknowledgement that nothing waits for may take to reach the worker, in milliseconds.
const MAX_ACK_WAIT_MS: u64 = 20;

/// Which of a session's two streams a delivery came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The agent's inbox, shared by its instances.
    Shared,
    /// The instance's own inbox: replies.
    Own,
}

/// A delivery id: which entry of which stream. Its text is what the client acknowledges with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The stream.
    pub place: Place,
    /// The entry.
    pub entry: EntryId,
}

impl DeliveryId {
    /// Parses what [`Display`](std::fmt::Display) wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (place, entry) = match text.strip_prefix('r') {
            Some(rest) => (Place::Own, rest),
            None => (Place::Shared, text),
        };
        Some(Self { place, entry: EntryId::parse(entry)? })
    }
}

impl DeliveryId {
    /// Its text.
    pub fn to_text(self) -> String {
        match self.place {
            Place::Shared => self.entry.to_text(),
            Place::Own => format!("r{}", self.entry),
        }
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Place::Shared => write!(f, "{}", self.entry),
            Place::Own => write!(f, "r{}", self.entry),
        }
    }
}

/// What a client says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientNote {
    /// Handled.
    Ack(DeliveryId),
    /// Not handled.
    Nack {
        /// Which delivery.
        id: DeliveryId,
        /// Why, in the client's words.
        reason: String,
        /// Whether another delivery may help.
        retryable: bool,
    },
}

/// What goes out on a session's stream.
#[derive(Debug)]
pub enum Outbound {
    /// The session is open.
    Welcome,
    /// A message.
    Delivery {
        /// Its id.
        id: DeliveryId,
        /// Which delivery of the message it is, from 1.
        attempt: u32,
        /// The envelope's JSON text.
        envelope: String,
    },
    /// The outcome of a submission.
    Result {
        /// The client's name for it.
        reference: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// The stream ends: in order, or with a refusal.
    End(Option<Refusal>),
}

/// The shared part of a session.
pub struct Session {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Which of the agent's processes.
    pub instance: InstanceId,
    /// What its stream's writer has to write, in this order. Holds at most the session's credit of deliveries and
    /// [`MAX_SUBMISSIONS`] results: workers never send beyond that.
    pub outbox: Outbox,
    cut: Mutex<Option<oneshot::Sender<()>>>,
    notes: Mutex<Notes>,
    /// Notes that may wait: every valid one answers a delivery in flight, so twice the credit is ample
    /// and what exceeds it is forged or repeated.
    max_notes: usize,
    closed: AtomicBool,
    /// Whether messages wait for credit that an acknowledgement would give.
    hungry: AtomicBool,
    /// Submissions whose results are not written out yet.
    submitted: AtomicUsize,
    home: Mailbox,
}

#[derive(Default)]
struct Notes {
    waiting: Vec<ClientNote>,
    announced: Announced,
}

/// Whether the worker has been told of the notes that wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Announced {
    #[default]
    No,
    /// It looks within [`MAX_ACK_WAIT_MS`].
    InTime,
    /// It was woken.
    Now,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}/{})", self.identity.agent, self.instance)
    }
}

impl Session {
    /// A session that its home worker has yet to open, and what fires when its stream was ended and its client
    /// does not take note.
    pub fn new(
        identity: Arc<Identity>,
        instance: InstanceId,
        max_in_flight: usize,
        home: Mailbox,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (cut_sender, cut) = oneshot::channel();
        let session = Self {
            identity,
            instance,
            outbox: Outbox::default(),
            cut: Mutex::new(Some(cut_sender)),
            notes: Mutex::default(),
            max_notes: max_in_flight * 2,
            closed: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            submitted: AtomicUsize::new(0),
            home,
        };
        (Arc::new(session), cut)
    }

    /// Called by the stream's reader with what the client says in one event.
    pub fn note(self: &Arc<Self>, said: impl IntoIterator<Item = ClientNote>) {
        let mut notes = self.lock();
        let room = self.max_notes.saturating_sub(notes.waiting.len());
        let before = notes.waiting.len();
        notes.waiting.extend(said.into_iter().take(room));
        let new = notes.waiting.get(before..).unwrap_or_default();
        let hurry = self.hungry.load(Ordering::SeqCst)
            || new.iter().any(|note| matches!(note, ClientNote::Nack { .. }));
        let announce = if hurry { Announced::Now } else { Announced::InTime };
        // What was to be looked at in time may have become urgent meanwhile.
        if !notes.waiting.is_empty() && notes.announced < announce {
            notes.announced = announce;
            drop(notes);
            let events = Control::Events(self.clone());
            if hurry {
                self.home.control(events);
            } else {
                self.home.control_in_time(events, MAX_ACK_WAIT_MS);
            }
        }
    }

    /// Called by the stream's reader: whether another submission may be taken.
    pub fn submit(&self) -> bool {
        self.submitted.fetch_add(1, Ordering::Relaxed) < MAX_SUBMISSIONS
    }

    /// Called by the stream's writer: the result of a submission is on its way.
    pub fn answered(&self) {
        let _ = self.submitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Called by the stream's reader when the stream is over.
    pub fn closed(self: &Arc<Self>) {
        // Before the note: a worker that meets the note before the session's opening sees the flag then.
        self.closed.store(true, Ordering::SeqCst);
        self.home.control(Control::Closed(self.clone()));
    }

    /// Called by the worker: whether messages wait for this session's acknowledgements.
    pub fn set_hungry(self: &Arc<Self>, hungry: bool) {
        if self.hungry.swap(hungry, Ordering::SeqCst) || !hungry {
            return;
        }
        // Acknowledgements that came before were in no hurry.
        let mut notes = self.lock();
        if notes.announced == Announced::InTime {
            notes.announced = Announced::Now;
            drop(notes);
            self.home.control(Control::Events(self.clone()));
        }
    }

    /// Whether the stream is over.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Called by the worker: what the client has said since the last call.
    pub fn take_notes(&self) -> Vec<ClientNote> {
        let mut notes = self.lock();
        notes.announced = Announced::No;
        std::mem::take(&mut notes.waiting)
    }

    /// Sends one thing at once. A stream that is over has no writer any more; its close note says so.
    pub fn send(&self, outbound: Outbound) {
        if self.outbox.push(outbound) {
            self.outbox.wake();
        }
    }

    /// Gives a stream up that does not end: its client does not read.
    pub fn cut(&self) {
        let sender = self.cut.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A stream that has ended has no use for it.
        if let Some(sender) = sender {
            let _ = sender.send(());
        }
    }

    /// Ends the stream.
    pub fn end(&self, refusal: Option<Refusal>) {
        let _ = self.outbox.push(Outbound::End(refusal));
        self.outbox.close();
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing in the critical sections can panic halfway.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delivery_id_reads_back(ms in any::<u64>(), seq in any::<u64>(), own in any::<bool>()) {
            let place = if own { Place::Own } else { Place::Shared };
            let id = DeliveryId { place, entry: EntryId { ms, seq } };
            prop_assert_eq!(DeliveryId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn forged_delivery_ids_do_not_panic(text in ".{0,60}") {
            let _ = DeliveryId::parse(&text);
        }
    }
}
