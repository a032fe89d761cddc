//! A session: one Transport stream of one instance, as its completion-queue thread and its home worker
//! share it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::control::{Control, SessionName};
use super::delivery::DeliveryId;
use super::mailbox::Line;
use super::outbox::{Outbound, Outbox};
use super::session_key::SessionKey;
use crate::audit::record::LATER_RULE;
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::refusal::Refusal;

/// Longest reason of a nack that is kept, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// Submissions of one session whose results are not written out yet: what a client may have under way.
pub const MAX_SUBMISSIONS: usize = 1024;

/// Failed requests that a client may be told of and has not read; of further ones it hears nothing.
const MAX_NOTICES: usize = 1024;

/// How long an acknowledgement that nothing waits for may take to reach the worker, in milliseconds.
const MAX_ACK_WAIT_MS: u64 = 20;

/// What a client says of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Handled.
    Ack(DeliveryId),
    /// Not handled.
    Nack {
        /// Which delivery.
        id: DeliveryId,
        /// Why, in the client's words.
        reason: String,
        /// What is to become of it.
        then: Then,
    },
}

/// What is to become of a message whose delivery was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// No other delivery helps: to the dead letters.
    Bury,
    /// Deliver it again, longer and longer after each attempt, as often as the configuration has it.
    Retry,
    /// It could not be handled now, which is nobody's failure: deliver it again, no sooner than this many milliseconds
    /// later, and do not count the attempt.
    Later(u64),
}

impl Then {
    /// As it is on record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bury => "not_retryable",
            Self::Retry => "retryable",
            Self::Later(_) => LATER_RULE,
        }
    }
}

/// The shared part of a session.
pub struct Session {
    /// Names it among all sessions of this process.
    pub key: SessionKey,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Which of the agent's processes.
    pub instance: InstanceId,
    /// What its stream's writer has to write, in this order. Holds at most the session's credit of deliveries and
    /// [`MAX_SUBMISSIONS`] results and `MAX_NOTICES` failed requests: workers never send beyond that.
    pub outbox: Outbox,
    cut: Mutex<Option<oneshot::Sender<()>>>,
    notes: Mutex<Settlements>,
    /// Settlements that may wait: every valid one answers a delivery in flight, so twice the credit is ample
    /// and what exceeds it is forged or repeated.
    max_settlements: AtomicUsize,
    closed: AtomicBool,
    /// The server has ended it: nothing that its client still says counts.
    ended: AtomicBool,
    /// Whether messages wait for credit that an acknowledgement would give.
    hungry: AtomicBool,
    /// Submissions whose results are not written out yet.
    submitted: AtomicUsize,
    /// Failed requests that its client is not told of yet.
    notices: AtomicUsize,
    home: Line<Control>,
}

#[derive(Default)]
struct Settlements {
    waiting: Vec<Settlement>,
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
        home: Line<Control>,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (cut_sender, cut) = oneshot::channel();
        let session = Self {
            key: SessionKey::next(),
            identity,
            instance,
            outbox: Outbox::default(),
            cut: Mutex::new(Some(cut_sender)),
            notes: Mutex::default(),
            max_settlements: AtomicUsize::new(max_in_flight * 2),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            submitted: AtomicUsize::new(0),
            notices: AtomicUsize::new(0),
            home,
        };
        (Arc::new(session), cut)
    }

    /// Whether its client can be told of one more failed request.
    pub fn notice(&self) -> bool {
        let more = |notices: usize| (notices < MAX_NOTICES).then_some(notices + 1);
        self.notices.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// It was told of one.
    pub fn noticed(&self) {
        let _ = self.notices.fetch_sub(1, Ordering::Relaxed);
    }

    /// Called by the stream's reader with what the client says in one event.
    pub fn settle(&self, said: impl IntoIterator<Item = Settlement>) {
        let mut notes = self.lock();
        let room = self.max_settlements.load(Ordering::SeqCst).saturating_sub(notes.waiting.len());
        let before = notes.waiting.len();
        notes.waiting.extend(said.into_iter().take(room));
        let new = notes.waiting.get(before..).unwrap_or_default();
        let hurry = self.hungry.load(Ordering::SeqCst)
            || new.iter().any(|note| matches!(note, Settlement::Nack { .. }));
        let announce = if hurry { Announced::Now } else { Announced::InTime };
        // What was to be looked at in time may have become urgent meanwhile.
        if !notes.waiting.is_empty() && notes.announced < announce {
            notes.announced = announce;
            drop(notes);
            let events = Control::Settlements(self.name());
            if hurry {
                self.home.tell(events);
            } else {
                self.home.tell_in_time(events, MAX_ACK_WAIT_MS);
            }
        }
    }

    /// Called by the worker before it raises the session's credit: as many settlements may wait then. A lower credit
    /// leaves the bound, for the deliveries that are under way.
    pub fn raise_credit(&self, max_in_flight: usize) {
        let _ = self.max_settlements.fetch_max(max_in_flight * 2, Ordering::SeqCst);
    }

    /// Called by the stream's reader: whether another submission may be taken.
    pub fn submit(&self) -> bool {
        self.submitted.fetch_add(1, Ordering::Relaxed) < MAX_SUBMISSIONS
    }

    /// Called by the stream's writer: the result of a submission is on its way.
    pub fn answered(&self) {
        let _ = self.submitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there are submissions whose results are not written out yet.
    pub fn has_submissions(&self) -> bool {
        self.submitted.load(Ordering::Relaxed) > 0
    }

    /// Called by the stream's reader when the stream is over.
    pub fn closed(&self) {
        // Before the note: a worker that meets the note before the session's opening sees the flag then.
        self.closed.store(true, Ordering::SeqCst);
        self.home.tell(Control::Closed(self.name()));
    }

    /// Called by the worker: whether messages wait for this session's acknowledgements.
    pub fn set_hungry(&self, hungry: bool) {
        if self.hungry.swap(hungry, Ordering::SeqCst) || !hungry {
            return;
        }
        // Acknowledgements that came before were in no hurry.
        let mut notes = self.lock();
        if notes.announced == Announced::InTime {
            notes.announced = Announced::Now;
            drop(notes);
            self.home.tell(Control::Settlements(self.name()));
        }
    }

    /// Whether the stream is over.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether the server has ended the session.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Called by the worker: what the client has said since the last call.
    pub fn take_settlements(&self) -> Vec<Settlement> {
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
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.outbox.push(Outbound::End(refusal));
        self.outbox.close();
    }

    fn name(&self) -> SessionName {
        SessionName { agent: self.identity.agent.clone(), key: self.key }
    }

    fn lock(&self) -> MutexGuard<'_, Settlements> {
        // Nothing in the critical sections can panic halfway.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
