//! One session of one agent: acknowledges and answers what it gets, and sends on its stream or beside it.
//!
//! Runs on the completion queues' threads; nothing here blocks. What waits is bounded: submissions by the
//! messages under way, acknowledgements by the server's credit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{CallOption, Client, ClientDuplexReceiver, ClientDuplexSender, WriteFlags};
use mas::protocol::client_event::Event;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{
    Ack, Acks, ClientEvent, Commit, Delivery, GetStateRequest, Hello, Methods, ReplyRequest, RequestRequest,
    SendRequest, ServerEvent, Submission, SubmissionResult, Submit, UpdateStateRequest,
};

use super::recorder::Recorder;
use crate::AnyError;
use crate::clock::now_us;
use crate::payload::{Payloads, Stamp, stamp, string_after};
use crate::plan::{Path, Pattern, SessionPlan};

/// Submissions and acknowledgements in one event.
pub(crate) const MAX_EVENT_ITEMS: usize = 256;
/// Submissions handed to the writer at once.
pub(crate) const MAX_BURST: usize = 64;
/// Type of every message.
const MESSAGE_TYPE: &str = "load";
/// How long a request may be answered: longer than any run's drain.
const REQUEST_TIMEOUT_MS: i32 = 60_000;
/// Field that the state pattern writes.
const STATE_FIELD: &str = "load";
/// What a server that takes submissions on the stream says in Welcome.
const SUBMIT: &str = "submit";
/// What a server that takes several acknowledgements in one event says in Welcome.
const ACKS: &str = "acks";

/// What all sessions of a process share.
pub(crate) struct Common {
    pub(crate) pattern: Pattern,
    pub(crate) methods: &'static Methods,
    /// How messages are sent; settled when every session is open.
    pub(crate) path: OnceLock<Path>,
    pub(crate) payloads: Payloads,
    pub(crate) recorder: Recorder,
}

/// What the server said when it opened a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// Takes submissions on the stream.
    pub(crate) submit: bool,
    /// Takes several acknowledgements in one event.
    acks: bool,
    /// Submissions that may be unanswered.
    pub(crate) max_submissions: usize,
}

impl Common {
    /// How messages are sent.
    pub(crate) fn path(&self) -> Path {
        self.path.get().copied().unwrap_or(Path::Unary)
    }
}

#[allow(clippy::large_enum_variant)] // Each is sent at once: a box would be one more allocation a message.
enum Out {
    Ack(String),
    Submission(Submission),
    /// At most [`MAX_BURST`] of them.
    Burst(Vec<Submission>),
}

/// A message whose story is not over.
struct Pending {
    since_us: u64,
    /// Part of a closed loop: the next one follows.
    goes_on: bool,
    answered: bool,
    returned: bool,
}

/// A session; cheap to share.
pub(crate) struct Session {
    common: Arc<Common>,
    plan: SessionPlan,
    shard: usize,
    client: Client,
    queue: UnboundedSender<Out>,
    pending: Mutex<HashMap<u64, Pending>>,
    next: AtomicU64,
    turn: AtomicU64,
    offer: OnceLock<Offer>,
    closed: AtomicBool,
}

impl Session {
    /// Opens one; [`offer`](Self::offer) tells when it is open.
    pub(crate) fn open(
        common: &Arc<Common>,
        plan: SessionPlan,
        index: usize,
        client: Client,
    ) -> Result<Arc<Self>, AnyError> {
        let (sink, stream) =
            client.duplex_streaming(&common.methods.transport.client, CallOption::default())?;
        let (queue, items) = unbounded::<Out>();
        let session = Arc::new(Self {
            common: common.clone(),
            plan,
            shard: index,
            client,
            queue,
            pending: Mutex::default(),
            // Numbers are one's own: no two sessions of a process share any.
            next: AtomicU64::new((index as u64) << 40),
            turn: AtomicU64::new(0),
            offer: OnceLock::new(),
            closed: AtomicBool::new(false),
        });
        let (reader, writer) = (session.clone(), session.clone());
        session.client.spawn(async move { reader.read(stream).await });
        session.client.spawn(async move { writer.write(sink, items).await });
        Ok(session)
    }

    /// What the server offers; `None` until the session is open.
    pub(crate) fn offer(&self) -> Option<Offer> {
        self.offer.get().copied()
    }

    /// Whether its stream has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether it sends.
    pub(crate) fn sends(&self) -> bool {
        self.plan.sends
    }

    /// Messages whose story is not over.
    pub(crate) fn under_way(&self) -> usize {
        self.pending().len()
    }

    /// Sends one message that was due at `since_us`; in a closed loop the next one follows when it is done.
    pub(crate) fn start(self: &Arc<Self>, since_us: u64, goes_on: bool) {
        match self.common.path() {
            Path::Stream => self.submit(since_us, goes_on),
            Path::Unary => self.spawn_call(since_us, goes_on),
        }
    }

    /// Sends what was due at these instants, none of which the next one follows. On the stream the writer wakes
    /// once for [`MAX_BURST`] of them, as an agent's would that has several things to say.
    pub(crate) fn start_all(self: &Arc<Self>, due_us: &[u64]) {
        if self.common.path() == Path::Unary {
            return due_us.iter().for_each(|since_us| self.spawn_call(*since_us, false));
        }
        for part in due_us.chunks(MAX_BURST) {
            let burst: Vec<Submission> =
                part.iter().map(|since_us| self.submission(*since_us, false)).collect();
            let references: Vec<u64> = burst.iter().map(|submission| submission.reference).collect();
            if self.queue.unbounded_send(Out::Burst(burst)).is_err() {
                references.iter().for_each(|reference| self.unsent(*reference));
            }
        }
    }

    fn spawn_call(self: &Arc<Self>, since_us: u64, goes_on: bool) {
        let session = self.clone();
        self.client.spawn(async move { session.call(since_us, goes_on).await });
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message comes back to its sender, and is done only then.
    fn returns(&self) -> bool {
        match self.common.pattern {
            Pattern::Request => true,
            // The unary echo is the response itself.
            Pattern::Echo => self.common.path() == Path::Stream,
            Pattern::Send | Pattern::FanIn | Pattern::FanOut | Pattern::State => false,
        }
    }

    fn register(&self, since_us: u64, goes_on: bool) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The echo has no result beside what comes back.
        let answered = self.common.pattern == Pattern::Echo;
        let pending = Pending { since_us, goes_on, answered, returned: !self.returns() };
        let _ = self.pending().insert(number, pending);
        self.common.recorder.sent();
        (number, self.common.payloads.make(Stamp { since_us, number }))
    }

    fn target(&self) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let targets = &self.plan.targets;
        targets.get(turn % targets.len().max(1)).cloned().unwrap_or_default()
    }

    // --- on the stream ---------------------------------------------------------------------------

    fn submit(&self, since_us: u64, goes_on: bool) {
        let submission = self.submission(since_us, goes_on);
        let reference = submission.reference;
        if self.queue.unbounded_send(Out::Submission(submission)).is_err() {
            self.unsent(reference);
        }
    }

    fn unsent(&self, reference: u64) {
        let _ = self.pending().remove(&reference);
        self.common.recorder.failed("the stream is over");
    }

    fn submission(&self, since_us: u64, goes_on: bool) -> Submission {
        let (reference, data_json) = self.register(since_us, goes_on);
        let call = match self.common.pattern {
            Pattern::Request => Call::Request(self.request_of(data_json)),
            Pattern::State => Call::Commit(Commit {
                updates: [(STATE_FIELD.to_owned(), data_json)].into(),
                ..Commit::default()
            }),
            Pattern::Send | Pattern::FanIn | Pattern::FanOut | Pattern::Echo => {
                Call::Send(self.send_of(data_json))
            }
        };
        Submission { reference, call: Some(call), ..Submission::default() }
    }

    fn result(self: &Arc<Self>, result: SubmissionResult) {
        let now_us = now_us();
        match result.outcome {
            Some(Outcome::Failure(failure)) => self.refused(result.reference, &failure.detail),
            Some(Outcome::Send(_) | Outcome::Request(_) | Outcome::Commit(_)) => {
                self.accepted(result.reference, now_us);
            }
            // What a receiver replied: nobody waits for it.
            Some(Outcome::Reply(_)) => {}
            Some(_) | None => self.refused(result.reference, "a result of an unknown kind"),
        }
    }

    fn accepted(self: &Arc<Self>, number: u64, now_us: u64) {
        let over = {
            let mut pending = self.pending();
            let Some(entry) = pending.get_mut(&number) else {
                return;
            };
            entry.answered = true;
            let alone = self.common.pattern == Pattern::State;
            self.common.recorder.accepted(self.shard, entry.since_us, now_us, alone);
            if entry.returned { pending.remove(&number) } else { None }
        };
        self.go_on(over, now_us);
    }

    fn returned(self: &Arc<Self>, stamp: Stamp, now_us: u64) {
        let over = {
            let mut pending = self.pending();
            let Some(entry) = pending.get_mut(&stamp.number) else {
                self.common.recorder.strange();
                return;
            };
            if std::mem::replace(&mut entry.returned, true) {
                self.common.recorder.strange();
                return;
            }
            self.common.recorder.delivered(self.shard, entry.since_us, now_us);
            if self.common.pattern == Pattern::Echo {
                self.common.recorder.accepted(self.shard, entry.since_us, now_us, false);
            }
            if entry.answered { pending.remove(&stamp.number) } else { None }
        };
        self.go_on(over, now_us);
    }

    fn refused(self: &Arc<Self>, number: u64, reason: &str) {
        let over = self.pending().remove(&number);
        if over.is_some() {
            self.common.recorder.failed(reason);
        } else {
            self.common.recorder.problem(reason);
        }
        self.go_on(over, now_us());
    }

    fn go_on(self: &Arc<Self>, over: Option<Pending>, now_us: u64) {
        if over.is_some_and(|pending| pending.goes_on) && !self.common.recorder.is_over() && !self.is_closed()
        {
            self.start(now_us, true);
        }
    }

    // --- beside the stream -----------------------------------------------------------------------

    async fn call(self: Arc<Self>, since_us: u64, goes_on: bool) {
        let (number, data_json) = self.register(since_us, goes_on);
        let option = CallOption::default();
        let client = &self.client;
        let outcome = match self.common.pattern {
            Pattern::Request => {
                match client.unary_call_async(
                    &self.common.methods.request.client,
                    &self.request_of(data_json),
                    option,
                ) {
                    Ok(response) => response.await.map(drop),
                    Err(error) => Err(error),
                }
            }
            // Every other call reads what the one before it wrote.
            Pattern::State if number % 2 == 1 => {
                match client.unary_call_async(
                    &self.common.methods.get_state.client,
                    &GetStateRequest::default(),
                    option,
                ) {
                    Ok(response) => response.await.map(drop),
                    Err(error) => Err(error),
                }
            }
            Pattern::State => {
                let updates = [(STATE_FIELD.to_owned(), data_json)].into();
                let request = UpdateStateRequest { updates, ..UpdateStateRequest::default() };
                match client.unary_call_async(&self.common.methods.update_state.client, &request, option) {
                    Ok(response) => response.await.map(drop),
                    Err(error) => Err(error),
                }
            }
            Pattern::Send | Pattern::FanIn | Pattern::FanOut | Pattern::Echo => {
                match client.unary_call_async(
                    &self.common.methods.send.client,
                    &self.send_of(data_json),
                    option,
                ) {
                    Ok(response) => response.await.map(drop),
                    Err(error) => Err(error),
                }
            }
        };
        match outcome {
            Ok(()) => {
                let now_us = now_us();
                if self.common.pattern == Pattern::Echo {
                    self.common.recorder.delivered(self.shard, since_us, now_us);
                }
                self.accepted(number, now_us);
            }
            Err(error) => self.refused(number, &reason(&error)),
        }
    }

    fn send_of(&self, data_json: String) -> SendRequest {
        SendRequest {
            target_id: self.target(),
            message_type: MESSAGE_TYPE.to_owned(),
            data_json,
            instance_id: self.plan.instance.clone(),
            ..SendRequest::default()
        }
    }

    fn request_of(&self, data_json: String) -> RequestRequest {
        RequestRequest {
            target_id: self.target(),
            message_type: MESSAGE_TYPE.to_owned(),
            data_json,
            timeout_ms: REQUEST_TIMEOUT_MS,
            instance_id: self.plan.instance.clone(),
            ..RequestRequest::default()
        }
    }

    // --- what arrives ----------------------------------------------------------------------------

    async fn read(self: Arc<Self>, mut stream: ClientDuplexReceiver<ServerEvent>) {
        let problem = loop {
            match stream.try_next().await {
                Ok(Some(event)) => self.event(event),
                Ok(None) => break "the server ended the stream".to_owned(),
                Err(error) => break reason(&error),
            }
        };
        self.closed.store(true, Ordering::SeqCst);
        if !self.common.recorder.is_over() {
            self.common.recorder.problem(&format!("session lost: {problem}"));
        }
        let lost = std::mem::take(&mut *self.pending());
        for _ in lost.values().filter(|pending| !pending.answered) {
            self.common.recorder.failed("outcome unknown: the session was lost");
        }
    }

    fn event(self: &Arc<Self>, event: ServerEvent) {
        match event.event {
            Some(ServerKind::Welcome(welcome)) => {
                let has = |name: &str| welcome.features.iter().any(|feature| feature == name);
                let _ = self.offer.set(Offer {
                    submit: has(SUBMIT),
                    acks: has(ACKS),
                    max_submissions: welcome.max_submissions as usize,
                });
            }
            Some(ServerKind::Delivery(delivery)) => self.delivery(delivery),
            Some(ServerKind::Deliveries(batch)) => {
                for delivery in batch.deliveries {
                    self.delivery(delivery);
                }
            }
            Some(ServerKind::Results(results)) => {
                for result in results.results {
                    self.result(result);
                }
            }
            Some(ServerKind::Error(error)) => {
                self.common.recorder.problem(&format!("{}: {}", error.code, error.message));
            }
            Some(_) | None => {}
        }
    }

    fn delivery(self: &Arc<Self>, delivery: Delivery) {
        let now_us = now_us();
        let envelope = &delivery.envelope_json;
        match (self.common.pattern, stamp(envelope)) {
            (_, None) => self.common.recorder.strange(),
            (Pattern::Echo, Some(stamp)) => return self.returned(stamp, now_us),
            (Pattern::Request, Some(stamp)) if self.plan.sends => self.returned(stamp, now_us),
            (Pattern::Request, Some(stamp)) => match string_after(envelope, "correlation_id") {
                Some(id) => self.reply(id, stamp),
                None => self.common.recorder.strange(),
            },
            (Pattern::Send | Pattern::FanIn | Pattern::FanOut | Pattern::State, Some(stamp)) => {
                self.common.recorder.delivered(self.shard, stamp.since_us, now_us);
            }
        }
        // A stream that is over needs no acknowledgement.
        let _ = self.queue.unbounded_send(Out::Ack(delivery.delivery_id));
    }

    fn reply(self: &Arc<Self>, correlation_id: &str, stamp: Stamp) {
        let reply = ReplyRequest {
            correlation_id: correlation_id.to_owned(),
            message_type: MESSAGE_TYPE.to_owned(),
            data_json: self.common.payloads.make(stamp),
            instance_id: self.plan.instance.clone(),
            ..ReplyRequest::default()
        };
        match self.common.path() {
            Path::Stream => {
                let submission = Submission {
                    reference: self.next.fetch_add(1, Ordering::Relaxed),
                    call: Some(Call::Reply(reply)),
                    ..Submission::default()
                };
                // As with acknowledgements.
                let _ = self.queue.unbounded_send(Out::Submission(submission));
            }
            Path::Unary => {
                let session = self.clone();
                self.client.spawn(async move {
                    let call = session.client.unary_call_async(
                        &session.common.methods.reply.client,
                        &reply,
                        CallOption::default(),
                    );
                    let outcome = match call {
                        Ok(response) => response.await.map(drop),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = outcome {
                        session.common.recorder.problem(&format!("reply: {}", reason(&error)));
                    }
                });
            }
        }
    }

    // --- what goes out ---------------------------------------------------------------------------

    /// What waits at the same time goes out in one event of each kind, in one write.
    async fn write(
        self: Arc<Self>,
        mut sink: ClientDuplexSender<ClientEvent>,
        mut items: UnboundedReceiver<Out>,
    ) {
        let event = |event| {
            let event = ClientEvent { event: Some(event), ..ClientEvent::default() };
            (event, WriteFlags::default())
        };
        let hello = Hello {
            instance_id: self.plan.instance.clone(),
            features: vec![SUBMIT.to_owned(), "deliveries".to_owned()],
            ..Hello::default()
        };
        // Where writing fails reading fails too, and says why.
        if sink.send(event(Event::Hello(hello))).await.is_err() {
            return;
        }
        sink.enhance_batch(true);
        while let Some(first) = items.next().await {
            let (mut acks, mut submissions) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(item) = next {
                match item {
                    Out::Ack(id) => acks.push(id),
                    Out::Submission(submission) => submissions.push(submission),
                    Out::Burst(burst) => submissions.extend(burst),
                }
                let full = acks.len() + submissions.len() > MAX_EVENT_ITEMS - MAX_BURST;
                next = if full { None } else { items.try_recv().ok() };
            }
            let mut events = Vec::new();
            if self.offer().is_some_and(|offer| offer.acks) {
                if !acks.is_empty() {
                    events.push(Event::Acks(Acks { delivery_ids: acks, ..Acks::default() }));
                }
            } else {
                let single = |delivery_id| Event::Ack(Ack { delivery_id, ..Ack::default() });
                events.extend(acks.into_iter().map(single));
            }
            if !submissions.is_empty() {
                events.push(Event::Submit(Submit { submissions, ..Submit::default() }));
            }
            for kind in events {
                if sink.feed(event(kind)).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    }
}

/// What a failed call says: the server's own words where there are any.
fn reason(error: &grpcio::Error) -> String {
    match error {
        grpcio::Error::RpcFailure(status) => format!("{:?} {}", status.code(), status.message()),
        other => other.to_string(),
    }
}
