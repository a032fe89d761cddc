//! The Transport stream: one session. A reader turns client events into notes for the home worker; a
//! writer sends what the worker queued, batched per write. Both run on the call's completion queue.

use std::sync::Arc;

use futures_channel::mpsc;
use futures_channel::oneshot;
use futures_util::future::select;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{DuplexSink, RequestStream, RpcContext, WriteFlags};

use super::caller::Stranger;
use super::{Gateway, status};
use crate::audit::Action;
use crate::ids::InstanceId;
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::server_event::Event as ServerEventKind;
use crate::protocol::{ClientEvent, Delivery, ServerEvent, Untrusted, Welcome};
use crate::refusal::Refusal;
use crate::shard::job::{Declined, Job};
use crate::shard::session::{ClientNote, DeliveryId, MAX_REASON_BYTES, Outbound, Outlet, Session};

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
            Ok(identity) => session(gateway, identity, stream, sink).await,
            Err(stranger) => refuse(&gateway, stranger, "", sink).await,
        }
    });
}

async fn session(
    gateway: Gateway,
    identity: Arc<crate::identity::Identity>,
    mut stream: RequestStream<Untrusted<ClientEvent>>,
    sink: DuplexSink<ServerEvent>,
) {
    let (instance, refusal) = match hello(&mut stream).await {
        Ok(text) => match InstanceId::parse(&text) {
            Some(instance) => (Ok(instance), Refusal::INVALID_INSTANCE_ID),
            None => (Err(text), Refusal::INVALID_INSTANCE_ID),
        },
        Err(refusal) => (Err(String::new()), refusal),
    };
    let instance = match instance {
        Ok(instance) => instance,
        Err(text) => {
            let stranger = Stranger { refusal, identity: Some(identity) };
            return refuse(&gateway, stranger, &text, sink).await;
        }
    };
    let shared = gateway.shards.shared();
    let Some(home) = gateway.shards.home(&identity.agent) else {
        let stranger = Stranger { refusal: Refusal::OVERLOADED, identity: Some(identity) };
        return refuse(&gateway, stranger, instance.as_str(), sink).await;
    };
    let hash = identity.agent.route_hash();
    let max_in_flight = shared.settings().delivery.max_in_flight;
    let (session, outlet) = Session::new(identity, instance, max_in_flight, home.clone());
    gateway.shards.submit(hash, Job::Open(session.clone()));
    let reading = read(&session, stream);
    let writing = async {
        let Outlet { queue, cut } = outlet;
        let written = write(&session, queue, sink);
        // Dropping the writer halfway drops its sink, which cancels the call.
        drop(select(std::pin::pin!(written), cut).await);
    };
    // The reader's end does not end the writer: the worker closes the queue when it has heard of it.
    let ((), ()) = futures_util::future::join(reading, writing).await;
}

/// The first event must be Hello.
async fn hello(stream: &mut RequestStream<Untrusted<ClientEvent>>) -> Result<String, Refusal> {
    match stream.try_next().await {
        Ok(Some(Untrusted(Some(ClientEvent { event: Some(ClientEventKind::Hello(hello)), .. })))) => {
            Ok(hello.instance_id)
        }
        Ok(Some(_)) => Err(Refusal::EXPECTED_HELLO),
        Ok(None) | Err(_) => Err(Refusal::MISSING_HELLO),
    }
}

/// Hands on what the client says until the stream is over: half-closed, reset or broken alike.
async fn read(session: &Arc<Session>, mut stream: RequestStream<Untrusted<ClientEvent>>) {
    while let Ok(Some(event)) = stream.try_next().await {
        // Bytes that are no event, an unset event, a second Hello and heartbeats are ignored.
        let Some(event) = event.0.and_then(|event| event.event) else {
            continue;
        };
        match event {
            ClientEventKind::Ack(ack) => {
                if let Some(id) = DeliveryId::parse(&ack.delivery_id) {
                    session.note(ClientNote::Ack(id));
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
                    session.note(ClientNote::Nack { id, reason, retryable: nack.retryable });
                }
            }
            ClientEventKind::Acks(acks) => {
                for id in acks.delivery_ids.iter().filter_map(|id| DeliveryId::parse(id)) {
                    session.note(ClientNote::Ack(id));
                }
            }
            // Not offered yet.
            ClientEventKind::Submit(_) => {}
            ClientEventKind::Hello(_) | ClientEventKind::Heartbeat(_) => {}
        }
    }
    session.closed();
}

/// Sends what the worker queued until it ends the stream.
async fn write(
    session: &Arc<Session>,
    mut outbound: mpsc::UnboundedReceiver<Outbound>,
    mut sink: DuplexSink<ServerEvent>,
) {
    sink.enhance_batch(true);
    while let Some(first) = outbound.next().await {
        let mut next = Some(first);
        while let Some(item) = next {
            let event = match item {
                Outbound::Welcome => ServerEventKind::Welcome(Welcome {
                    agent_id: session.identity.agent.to_string(),
                    instance_id: session.instance.to_string(),
                    ..Welcome::default()
                }),
                Outbound::Delivery { id, attempt, envelope } => ServerEventKind::Delivery(Delivery {
                    delivery_id: id.to_string(),
                    envelope_json: envelope,
                    attempt,
                    ..Delivery::default()
                }),
                Outbound::End(refusal) => return end(sink, refusal).await,
            };
            let event = ServerEvent { event: Some(event), ..ServerEvent::default() };
            if sink.feed((event, WriteFlags::default())).await.is_err() {
                // The stream is gone; the reader tells the worker.
                return;
            }
            next = outbound.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
    end(sink, None).await;
}

async fn end(mut sink: DuplexSink<ServerEvent>, refusal: Option<Refusal>) {
    let ended = match refusal {
        Some(refusal) => sink.fail(status(refusal)).await,
        None => sink.close().await,
    };
    if let Err(error) = ended {
        log::debug!("a stream's end did not reach its client: {error}");
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
