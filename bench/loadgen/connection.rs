//! One agent's connection: a session that acknowledges what it gets, and messages sent on it or beside it.
//! What waits at the same time goes out in one event.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_channel::oneshot;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{CallOption, Client, ClientDuplexSender, WriteFlags};
use mas::protocol::client_event::Event;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{
    Acks, ClientEvent, Delivery, Hello, RUNTIME_V1, SendRequest, Submission, SubmissionResult, Submit,
};

use crate::measure::{Path, Tally};

type AnyError = Box<dyn std::error::Error>;

/// Submissions and acknowledgements in one event.
const MAX_EVENT_ITEMS: usize = 256;

enum Out {
    Ack(String),
    Submission(Submission),
}

/// A connection that can send.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    queue: UnboundedSender<Out>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<bool>>>>,
    next: Arc<AtomicU64>,
}

impl Connection {
    /// Opens a session; `tally` hears when it is open, and of every delivery.
    pub(crate) fn open(client: Client, tally: &Arc<Tally>) -> Result<Self, AnyError> {
        let (sink, mut stream) =
            client.duplex_streaming(&RUNTIME_V1.transport.client, CallOption::default())?;
        let (queue, items) = unbounded::<Out>();
        client.spawn(write(sink, items));
        let connection =
            Self { client: client.clone(), queue, waiting: Arc::default(), next: Arc::default() };
        let (own, tally) = (connection.clone(), tally.clone());
        client.spawn(async move {
            while let Ok(Some(received)) = stream.try_next().await {
                match received.event {
                    Some(ServerKind::Welcome(_)) => tally.opened(),
                    Some(ServerKind::Delivery(delivery)) => own.delivered(delivery, &tally),
                    Some(ServerKind::Deliveries(batch)) => {
                        for delivery in batch.deliveries {
                            own.delivered(delivery, &tally);
                        }
                    }
                    Some(ServerKind::Results(results)) => own.answered(results.results),
                    Some(_) | None => {}
                }
            }
        });
        Ok(connection)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delivered(&self, delivery: Delivery, tally: &Tally) {
        tally.delivered(&delivery.envelope_json);
        // A stream that is over needs no acknowledgement.
        let _ = self.queue.unbounded_send(Out::Ack(delivery.delivery_id));
    }

    fn answered(&self, results: Vec<SubmissionResult>) {
        let mut waiting = self.waiting();
        for result in results {
            if let Some(sender) = waiting.remove(&result.reference) {
                let _ = sender.send(matches!(result.outcome, Some(Outcome::Send(_))));
            }
        }
    }

    /// Sends one message: whether it was accepted.
    pub(crate) async fn send(&self, path: Path, request: SendRequest) -> bool {
        match path {
            Path::Unary => {
                let call =
                    self.client.unary_call_async(&RUNTIME_V1.send.client, &request, CallOption::default());
                match call {
                    Ok(response) => response.await.is_ok(),
                    Err(_) => false,
                }
            }
            Path::Stream => {
                let reference = self.next.fetch_add(1, Ordering::Relaxed);
                let (sender, receiver) = oneshot::channel();
                let _ = self.waiting().insert(reference, sender);
                let submission =
                    Submission { reference, call: Some(Call::Send(request)), ..Submission::default() };
                if self.queue.unbounded_send(Out::Submission(submission)).is_err() {
                    return false;
                }
                receiver.await.unwrap_or(false)
            }
        }
    }
}

async fn write(mut sink: ClientDuplexSender<ClientEvent>, mut items: UnboundedReceiver<Out>) {
    let event = |event| (ClientEvent { event: Some(event), ..ClientEvent::default() }, WriteFlags::default());
    let hello =
        Hello { instance_id: "load".to_owned(), features: vec!["deliveries".to_owned()], ..Hello::default() };
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
            }
            next =
                if acks.len() + submissions.len() < MAX_EVENT_ITEMS { items.try_recv().ok() } else { None };
        }
        if !acks.is_empty() {
            let acks = Acks { delivery_ids: acks, ..Acks::default() };
            if sink.feed(event(Event::Acks(acks))).await.is_err() {
                return;
            }
        }
        if !submissions.is_empty() {
            let submit = Submit { submissions, ..Submit::default() };
            if sink.feed(event(Event::Submit(submit))).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
