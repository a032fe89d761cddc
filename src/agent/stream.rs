//! The Transport stream of an agent: opened, read until it ends, opened again with backoff.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{CallOption, ClientDuplexSender, RpcStatusCode, WriteFlags};

use super::calls::Calls;
use super::error::code_name;
use super::handlers::{Delivery, Intake, Taken};
use super::outbox::Outbox;
use super::received::{CurrentDelivery, Received};
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::server_event::Event as ServerEventKind;
use crate::protocol::{ClientEvent, Hello, RUNTIME_V1, ServerEvent};

/// Wait before connecting again; doubles up to the last, starts anew after a session that opened.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LAST: Duration = Duration::from_secs(2);

/// The thread that keeps a stream open.
pub(super) struct Stream {
    calls: Arc<Calls>,
    outbox: Outbox,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    pub(super) fn start(calls: &Arc<Calls>, outbox: &Outbox, intake: Intake) -> std::io::Result<Self> {
        let reader = Reader { calls: calls.clone(), outbox: outbox.clone(), intake };
        let thread =
            std::thread::Builder::new().name("agent-stream".to_owned()).spawn(move || reader.run())?;
        Ok(Self { calls: calls.clone(), outbox: outbox.clone(), thread: Some(thread) })
    }

    /// Half-closes the stream and waits for the server to end it, until `give_up`.
    pub(super) fn close(&mut self, give_up: Instant) {
        self.calls.session.begin_stop();
        self.outbox.set(None);
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            drop(thread.join());
        }
    }
}

struct Reader {
    calls: Arc<Calls>,
    outbox: Outbox,
    intake: Intake,
}

impl Reader {
    fn run(&self) {
        let mut pause = RECONNECT_FIRST;
        while !self.calls.session.is_stopping() {
            let (opened, ended) = futures_executor::block_on(self.one_session());
            self.outbox.set(None);
            self.calls.submissions.lost();
            if self.calls.session.is_stopping() {
                break;
            }
            if opened {
                pause = RECONNECT_FIRST;
            }
            match ended {
                Some((code, detail)) if is_fatal(code, &detail) => {
                    log::error!(code = "agent_refused"; "the server refuses this agent: {detail}");
                    self.calls.session.refused(code_name(code), detail);
                    return;
                }
                Some((code, detail)) => self.calls.session.lost(format!("{detail} ({})", code_name(code))),
                None => self.calls.session.lost("the server ended the stream".to_owned()),
            }
            self.calls.session.pause(pause);
            pause = (pause * 2).min(RECONNECT_LAST);
        }
        self.calls.session.lost("stopped".to_owned());
    }

    /// Runs one stream to its end: whether a session opened, and the status it ended with.
    async fn one_session(&self) -> (bool, Option<(RpcStatusCode, String)>) {
        let (sink, mut stream) =
            match self.calls.client.duplex_streaming(&RUNTIME_V1.transport.client, CallOption::default()) {
                Ok(stream) => stream,
                Err(error) => return (false, Some(status_of(&error))),
            };
        let (sender, receiver) = unbounded();
        let hello = Hello {
            instance_id: self.calls.session.instance.clone(),
            features: vec!["deliveries".to_owned()],
            ..Hello::default()
        };
        let hello = ClientEventKind::Hello(hello);
        let _ = sender.unbounded_send(ClientEvent { event: Some(hello), ..ClientEvent::default() });
        self.outbox.set(Some(sender));
        if self.calls.session.is_stopping() {
            self.outbox.set(None);
        }
        self.calls.client.spawn(write(receiver, sink));
        let mut opened = false;
        loop {
            match stream.try_next().await {
                Ok(Some(event)) => opened |= self.event(event),
                Ok(None) => return (opened, None),
                Err(error) => return (opened, Some(status_of(&error))),
            }
        }
    }

    /// True for Welcome.
    fn event(&self, event: ServerEvent) -> bool {
        match event.event {
            Some(ServerEventKind::Welcome(welcome)) => {
                let submits = welcome.features.iter().any(|feature| feature == "submit");
                let credit = if submits { welcome.max_submissions as usize } else { 0 };
                self.calls.submissions.opened(credit);
                self.calls.session.opened(welcome.agent_id);
                return true;
            }
            Some(ServerEventKind::Delivery(delivery)) => self.delivery(delivery),
            Some(ServerEventKind::Deliveries(batch)) => {
                for delivery in batch.deliveries {
                    self.delivery(delivery);
                }
            }
            Some(ServerEventKind::Results(results)) => self.calls.submissions.answered(results.results),
            Some(ServerEventKind::Error(error)) => {
                log::warn!(code = "server_error"; "server error {}: {}", error.code, error.message);
            }
            None => {}
        }
        false
    }

    fn delivery(&self, delivery: crate::protocol::Delivery) {
        let id = delivery.delivery_id;
        // Replies go to their waiting request, not through the handlers.
        if let Ok(received) = Received::parse(CurrentDelivery::new(id.clone()), &delivery.envelope_json)
            && received.is_reply()
        {
            self.calls.replied(received);
            self.outbox.ack(id);
            return;
        }
        let taken = self.intake.take(Delivery { id: id.clone(), envelope_json: delivery.envelope_json });
        match taken {
            Taken::Done => self.outbox.ack(id),
            Taken::Queued | Taken::Running | Taken::Declined => {}
        }
    }
}

/// Writes events until the outbox lets go of the stream, then half-closes it.
async fn write(mut events: UnboundedReceiver<ClientEvent>, mut sink: ClientDuplexSender<ClientEvent>) {
    sink.enhance_batch(true);
    while let Some(first) = events.next().await {
        let mut next = Some(first);
        while let Some(event) = next {
            if sink.feed((event, WriteFlags::default())).await.is_err() {
                return;
            }
            next = events.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = sink.close().await {
        log::debug!(code = "stream_gone"; "the stream was gone before it was closed: {error}");
    }
}

fn status_of(error: &grpcio::Error) -> (RpcStatusCode, String) {
    match error {
        grpcio::Error::RpcFailure(status) => (status.code(), status.message().to_owned()),
        other => (RpcStatusCode::UNKNOWN, other.to_string()),
    }
}

/// Whether connecting again cannot help until somebody changes something. An instance that is still
/// connected may be this process's own lost session: that passes.
fn is_fatal(code: RpcStatusCode, detail: &str) -> bool {
    match code {
        RpcStatusCode::UNAUTHENTICATED | RpcStatusCode::INVALID_ARGUMENT | RpcStatusCode::UNIMPLEMENTED => {
            true
        }
        RpcStatusCode::FAILED_PRECONDITION => detail != "instance_already_connected",
        _ => false,
    }
}
