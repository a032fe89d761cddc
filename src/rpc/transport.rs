//! The Transport stream: one session. A reader turns client events into notes for the home worker; a
//! writer sends what the worker queued, batched per write. Both run on the call's completion queue.

use std::sync::Arc;

use std::future::poll_fn;

use futures_channel::oneshot;
use futures_util::future::select;
use futures_util::{SinkExt, TryStreamExt};
use grpcio::{DuplexSink, RequestStream, RpcContext, WriteFlags};

use super::caller::{Admitted, Stranger, TOO_OFTEN};
use super::convert;
use super::gateway::Gateway;
use super::status::status;
use crate::audit::Action;
use crate::clock::Now;
use crate::gate::Peer;
use crate::ids::InstanceId;
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::server_event::Event as ServerEventKind;
use crate::protocol::{
    ClientEvent, Deliveries, Delivery, Hello, RequestFailed, Results, ServerEvent, SubmissionResult,
    Untrusted, Welcome,
};
use crate::refusal::Refusal;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::job::Job;
use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::outcome::Declined;
use crate::shard::desk::session::{MAX_REASON_BYTES, MAX_SUBMISSIONS, Session, Settlement, Then};
use crate::store::news::Unanswered;

pub(super) fn serve(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    stream: RequestStream<Untrusted<ClientEvent>>,
    sink: DuplexSink<ServerEvent>,
) {
    let identity = gateway.callers.identify(&ctx);
    let gateway = gateway.clone();
    ctx.spawn(async move {
        match identity {
            Ok(admitted) => session(gateway, admitted, stream, sink).await,
            Err(stranger) => refuse(&gateway, stranger, "", sink).await,
        }
    });
}

async fn session(
    gateway: Gateway,
    admitted: Admitted,
    mut stream: RequestStream<Untrusted<ClientEvent>>,
    sink: DuplexSink<ServerEvent>,
) {
    let Admitted { identity, peer } = admitted;
    if !gateway.callers.may_open(&peer) {
        return end(sink, Some(TOO_OFTEN)).await;
    }
    let mut takes = Takes::default();
    let (instance, refusal) = match hello(&mut stream).await {
        Ok(hello) => {
            let knows = |name: &str| hello.features.iter().any(|feature| feature == name);
            takes = Takes { batches: knows(BATCHED_DELIVERIES), failures: knows(REQUEST_FAILED) };
            match InstanceId::parse(&hello.instance_id) {
                Some(instance) => (Ok(instance), Refusal::INVALID_INSTANCE_ID),
                None => (Err(hello.instance_id), Refusal::INVALID_INSTANCE_ID),
            }
        }
        Err(refusal) => (Err(String::new()), refusal),
    };
    let instance = match instance {
        Ok(instance) => instance,
        Err(text) => {
            let stranger = Stranger::new(refusal, Some(identity));
            return refuse(&gateway, stranger, &text, sink).await;
        }
    };
    let shared = gateway.shards.shared();
    let Some(home) = gateway.shards.home(&identity.agent) else {
        let stranger = Stranger::new(Refusal::OVERLOADED, Some(identity));
        return refuse(&gateway, stranger, instance.as_str(), sink).await;
    };
    let hash = identity.agent.route_hash();
    let max_in_flight = shared.settings().delivery.max_in_flight;
    let (session, cut) = Session::new(identity, instance, max_in_flight, home.line().clone());
    gateway.shards.submit(hash, Job::Open(session.clone()));
    let reading = read(&gateway, &peer, &session, stream);
    let writing = async {
        let written = write(&session, sink, takes, gateway.max_event_bytes);
        // Dropping the writer halfway drops its sink, which cancels the call.
        drop(select(std::pin::pin!(written), cut).await);
    };
    // The reader's end does not end the writer: the worker closes the queue when it has heard of it.
    let ((), ()) = futures_util::future::join(reading, writing).await;
    if shared.is_moving() {
        // On the same connection its client would come back here.
        peer.part(Now::mono_us());
    }
}

/// What this server offers beyond the base protocol.
const FEATURES: [&str; 6] = ["submit", "acks", BATCHED_DELIVERIES, "commit", "later", REQUEST_FAILED];
/// A client that says so is told when no reply will come.
const REQUEST_FAILED: &str = "request_failed";
/// A client that says so gets several deliveries in one event.
const BATCHED_DELIVERIES: &str = "deliveries";
/// Envelope bytes in one event, unless a single one is larger: what any client's limits take.
const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Results in one event.
const MAX_BATCH_RESULTS: usize = 256;

/// Room for so many items is kept for the next write: an idle session holds little.
const KEPT_ITEMS: usize = 64;

/// The first event must be Hello.
async fn hello(stream: &mut RequestStream<Untrusted<ClientEvent>>) -> Result<Hello, Refusal> {
    match stream.try_next().await {
        Ok(Some(Untrusted(Some(ClientEvent { event: Some(ClientEventKind::Hello(hello)), .. })))) => {
            Ok(hello)
        }
        Ok(Some(_)) => Err(Refusal::EXPECTED_HELLO),
        Ok(None) | Err(_) => Err(Refusal::MISSING_HELLO),
    }
}

/// Hands on what the client says until the stream is over: half-closed, reset or broken alike.
async fn read(
    gateway: &Gateway,
    peer: &Arc<Peer>,
    session: &Arc<Session>,
    mut stream: RequestStream<Untrusted<ClientEvent>>,
) {
    while let Ok(Some(event)) = stream.try_next().await {
        // Bytes that are no event, an unset event, a second Hello and heartbeats are ignored.
        let Some(event) = event.0.and_then(|event| event.event) else {
            continue;
        };
        match event {
            ClientEventKind::Ack(ack) => {
                if let Some(id) = DeliveryId::parse(&ack.delivery_id) {
                    session.settle([Settlement::Ack(id)]);
                }
            }
            ClientEventKind::Nack(nack) => {
                if let Some(id) = DeliveryId::parse(&nack.delivery_id) {
                    let mut reason = nack.reason;
                    let mut end = reason.len().min(MAX_REASON_BYTES);
                    while !reason.is_char_boundary(end) {
                        end -= 1;
                    }
                    reason.truncate(end);
                    let then = match (nack.retryable, nack.retry_after_ms) {
                        (false, _) => Then::Bury,
                        (true, 0) => Then::Retry,
                        (true, after_ms) => Then::Later(after_ms),
                    };
                    session.settle([Settlement::Nack { id, reason, then }]);
                }
            }
            ClientEventKind::Acks(acks) => {
                let ids = acks.delivery_ids.iter().filter_map(|id| DeliveryId::parse(id));
                session.settle(ids.map(Settlement::Ack));
            }
            ClientEventKind::Submit(submit) => {
                for submission in submit.submissions {
                    if session.is_closed() || session.is_ended() {
                        break;
                    }
                    if !session.submit() {
                        // Its results would have to be kept for a client that does not read them. What it
                        // still says is read and dropped, so that the end of its stream reaches it.
                        session.end(Some(Refusal::TOO_MANY_SUBMISSIONS));
                        session.closed();
                        break;
                    }
                    super::submit::submit(gateway, peer, session, submission);
                }
                // Once for all of them.
                gateway.shards.ring();
            }
            ClientEventKind::Hello(_) | ClientEventKind::Heartbeat(_) => {}
        }
    }
    session.closed();
}

/// Sends what the worker queued until it ends the stream: what waits goes out in one write, results in
/// one event, and so do deliveries for a client that takes them so.
async fn write(
    session: &Arc<Session>,
    mut sink: DuplexSink<ServerEvent>,
    takes: Takes,
    max_event_bytes: usize,
) {
    sink.enhance_batch(true);
    let mut waiting = Vec::new();
    while poll_fn(|context| session.outbox.poll_take(&mut waiting, context)).await {
        let mut items = waiting.drain(..).peekable();
        let (mut results, mut deliveries) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some(item) = items.next() {
            let event = match item {
                Outbound::Welcome => Some(ServerEventKind::Welcome(welcome(session, max_event_bytes))),
                Outbound::Delivery { id, attempt, envelope } => {
                    let size = envelope.len();
                    let delivery = Delivery {
                        delivery_id: id.to_text(),
                        envelope_json: envelope,
                        attempt,
                        ..Delivery::default()
                    };
                    if takes.batches {
                        // What does not fit goes into the next event, so that only a single delivery can be larger.
                        let full =
                            (bytes + size > MAX_BATCH_BYTES).then(|| batch_of(&mut deliveries)).flatten();
                        bytes = if full.is_some() { size } else { bytes + size };
                        deliveries.push(delivery);
                        full
                    } else {
                        Some(ServerEventKind::Delivery(delivery))
                    }
                }
                Outbound::Result { reference, outcome } => {
                    session.answered();
                    results.push(convert::result(reference, outcome));
                    (results.len() >= MAX_BATCH_RESULTS).then(|| self::results(std::mem::take(&mut results)))
                }
                Outbound::RequestFailed(request) => {
                    session.noticed();
                    takes.failures.then(|| request_failed(&request))
                }
                Outbound::End(refusal) => {
                    // What was decided before is told before.
                    let left = [batch_of(&mut deliveries), results_of(&mut results)];
                    for event in left.into_iter().flatten() {
                        let event = ServerEvent { event: Some(event), ..ServerEvent::default() };
                        if sink.feed((event, WriteFlags::default())).await.is_err() {
                            return;
                        }
                    }
                    return end(sink, refusal).await;
                }
            };
            let last = items.peek().is_none();
            let rest =
                if last { [batch_of(&mut deliveries), results_of(&mut results)] } else { [None, None] };
            for event in event.into_iter().chain(rest.into_iter().flatten()) {
                let event = ServerEvent { event: Some(event), ..ServerEvent::default() };
                if sink.feed((event, WriteFlags::default())).await.is_err() {
                    // The stream is gone; the reader tells the worker.
                    return;
                }
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
        drop(items);
        waiting.shrink_to(KEPT_ITEMS);
    }
    end(sink, None).await;
}

/// What a client understands beyond the base protocol.
#[derive(Debug, Clone, Copy, Default)]
struct Takes {
    batches: bool,
    failures: bool,
}

fn request_failed(request: &Unanswered) -> ServerEventKind {
    ServerEventKind::RequestFailed(RequestFailed {
        correlation_id: request.correlation_id.to_string(),
        message_id: request.message_id.to_string(),
        reason: request.reason.to_owned(),
        ..RequestFailed::default()
    })
}

fn welcome(session: &Session, max_event_bytes: usize) -> Welcome {
    Welcome {
        agent_id: session.identity.agent.to_string(),
        instance_id: session.instance.to_string(),
        features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        max_submissions: MAX_SUBMISSIONS as u32,
        max_event_bytes: u32::try_from(max_event_bytes).unwrap_or(u32::MAX),
        ..Welcome::default()
    }
}

fn batch(deliveries: Vec<Delivery>) -> ServerEventKind {
    ServerEventKind::Deliveries(Deliveries { deliveries, ..Deliveries::default() })
}

fn batch_of(deliveries: &mut Vec<Delivery>) -> Option<ServerEventKind> {
    (!deliveries.is_empty()).then(|| batch(std::mem::take(deliveries)))
}

fn results(results: Vec<SubmissionResult>) -> ServerEventKind {
    ServerEventKind::Results(Results { results, ..Results::default() })
}

fn results_of(waiting: &mut Vec<SubmissionResult>) -> Option<ServerEventKind> {
    (!waiting.is_empty()).then(|| results(std::mem::take(waiting)))
}

async fn end(mut sink: DuplexSink<ServerEvent>, refusal: Option<Refusal>) {
    let ended = match refusal {
        Some(refusal) => sink.fail(status(refusal)).await,
        None => sink.close().await,
    };
    if let Err(error) = ended {
        log::debug!(code = "answer_unsent"; "a stream's end did not reach its client: {error}");
    }
}

/// Has the refusal recorded, then ends the stream with it.
async fn refuse(gateway: &Gateway, stranger: Stranger, instance: &str, sink: DuplexSink<ServerEvent>) {
    let (answer, receiver) = oneshot::channel();
    let answer = Box::new(move |declined: Declined| {
        // A client that is gone needs no answer.
        let _ = answer.send(declined.refusal);
    });
    gateway.refuse(Action::SessionOpen, stranger, instance, "", "", answer);
    let refusal = receiver.await.unwrap_or(Refusal::SERVER_STOPPING);
    end(sink, Some(refusal)).await;
}
