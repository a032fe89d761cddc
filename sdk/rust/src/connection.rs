//! The agent's connection: made, read until it ends, and made again, on a thread of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{
    CallOption, ChannelBuilder, ChannelCredentialsBuilder, Client, ClientDuplexReceiver, ClientDuplexSender,
    Environment, RpcStatusCode, WriteFlags,
};
use uuid::Uuid;

use crate::calls::Calls;
use crate::credentials::Credentials;
use crate::error::AgentError;
use crate::handlers::Intake;
use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::server_event::Event as ServerEventKind;
use crate::protocol::{ClientEvent, Delivery, Hello, ServerEvent, TRANSPORT, Welcome};
use crate::received::Received;
use crate::refusal::{Refusal, code_name};
use crate::session::{Offers, Open};
use crate::wire::timeout_ms;

/// Wait before connecting again, of which half to all is waited; doubles up to the last, starts anew after a session
/// that opened.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LAST: Duration = Duration::from_secs(2);
/// How long the server may take to open a session, at most.
pub(crate) const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is pinged after this, and given up when no answer comes in time. Sooner than the server would
/// (20 s): what it reads puts its own timer off, and answering a ping costs it half of what sending one does.
const KEEPALIVE_TIME: Duration = Duration::from_secs(19);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a channel ping a silent server, as agents do; for programs that speak the protocol themselves.
pub fn keep_alive(channel: ChannelBuilder) -> ChannelBuilder {
    channel
        .keepalive_time(KEEPALIVE_TIME)
        .keepalive_timeout(KEEPALIVE_TIMEOUT)
        .keepalive_permit_without_calls(true)
        // Or a client stops pinging after two pings in a silence.
        .http2_max_pings_without_data(0)
}

/// Where an agent connects to, and how.
pub(crate) struct Route {
    pub environment: Arc<Environment>,
    /// Tried in turn.
    pub addresses: Vec<String>,
    pub server_name: Option<String>,
    pub credentials: Credentials,
    /// Whether proxies of the environment are used, where the address is not this machine's own.
    pub proxy: bool,
    /// How long an address may take to open a session, from the first packet to its Welcome.
    pub welcome_timeout: Duration,
    pub refused_retry: Duration,
    pub refused_is_final: bool,
}

impl Route {
    /// A connection of its own, with the certificates as they are now.
    fn client(&self, address: &str) -> Result<Client, AgentError> {
        let pem = self.credentials.load()?;
        let tls = ChannelCredentialsBuilder::new().root_cert(pem.ca).cert(pem.cert, pem.key).build();
        let mut channel = keep_alive(ChannelBuilder::new(self.environment.clone()))
            .initial_reconnect_backoff(RECONNECT_FIRST)
            // How long gRPC gives a connection attempt.
            .raw_cfg_int(c"grpc.min_reconnect_backoff_ms".to_owned(), timeout_ms(self.welcome_timeout))
            .max_reconnect_backoff(RECONNECT_LAST)
            // Two agents in one process must not share a connection: it carries the identity.
            .use_local_subchannel_pool(true)
            .set_credentials(tls);
        if !self.proxy || is_loopback(address) {
            channel = channel.raw_cfg_int(c"grpc.enable_http_proxy".to_owned(), 0);
        }
        if let Some(name) = &self.server_name {
            channel = channel.override_ssl_target(name.as_str());
        }
        Ok(Client::new(channel.connect(address)))
    }
}

/// Whether an address is this machine's own.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    address.starts_with("unix:")
        || host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The thread that keeps a session open.
pub(crate) struct Connection {
    calls: Arc<Calls>,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    pub(crate) fn start(calls: &Arc<Calls>, route: Route, intake: Intake) -> std::io::Result<Self> {
        let reader = Reader { calls: calls.clone(), route, intake };
        let thread =
            std::thread::Builder::new().name("agent-stream".to_owned()).spawn(move || reader.run())?;
        Ok(Self { calls: calls.clone(), thread: Some(thread) })
    }

    /// Half-closes the stream and waits for the server to end it, until `give_up`.
    pub(crate) fn close(&mut self, give_up: Instant) {
        self.calls.session.begin_stop();
        self.calls.outbox.set(None);
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            drop(thread.join());
        }
        self.calls.session.stopped();
    }
}

struct Reader {
    calls: Arc<Calls>,
    route: Route,
    intake: Intake,
}

/// How a connection, or the attempt to make one, ended.
struct Over {
    /// A session had opened.
    opened: bool,
    why: Why,
}

enum Why {
    Ended(RpcStatusCode, String),
    Other(String),
}

impl Reader {
    fn run(&self) {
        let session = &self.calls.session;
        let (mut pause, mut turn) = (RECONNECT_FIRST, 0);
        while !session.is_stopping() {
            let address =
                self.route.addresses.get(turn % self.route.addresses.len()).cloned().unwrap_or_default();
            let Over { opened, why } = match self.route.client(&address) {
                Ok(client) => futures_executor::block_on(self.one_session(client)),
                Err(error) => Over { opened: false, why: Why::Other(error.to_string()) },
            };
            self.calls.outbox.set(None);
            self.calls.submissions.lost();
            if session.is_stopping() {
                break;
            }
            turn += usize::from(!opened);
            if opened {
                pause = RECONNECT_FIRST;
            }
            match why {
                Why::Ended(code, detail) if is_refusal(code, &detail) => {
                    let is_final = self.route.refused_is_final || cannot_change(&detail);
                    session.refused(refusal(&address, code, detail), is_final);
                    if is_final {
                        return;
                    }
                    session.pause(self.route.refused_retry);
                    continue;
                }
                Why::Ended(code, detail) => {
                    session.lost(format!("{address}: {detail} ({})", code_name(code)));
                }
                Why::Other(problem) => session.lost(format!("{address}: {problem}")),
            }
            session.pause(jittered(pause));
            pause = (pause * 2).min(RECONNECT_LAST);
        }
        session.stopped();
    }

    /// Runs one stream to its end.
    async fn one_session(&self, client: Client) -> Over {
        let over = |opened, error: &grpcio::Error| Over { opened, why: why(error) };
        let (sink, mut stream) = match client.duplex_streaming(&TRANSPORT, CallOption::default()) {
            Ok(stream) => stream,
            Err(error) => return over(false, &error),
        };
        let (sender, receiver) = unbounded();
        let hello = Hello {
            instance_id: self.calls.session.instance.clone(),
            features: vec!["deliveries".to_owned(), "request_failed".to_owned()],
            ..Hello::default()
        };
        let hello = ClientEventKind::Hello(hello);
        let _ = sender.unbounded_send(ClientEvent { event: Some(hello), ..ClientEvent::default() });
        client.spawn(write(receiver, sink));
        let welcome = match self.welcome(&mut stream).await {
            Ok(welcome) => welcome,
            Err(why) => return Over { opened: false, why },
        };
        self.calls.outbox.set(Some(sender));
        if self.calls.session.is_stopping() {
            self.calls.outbox.set(None);
        }
        let offers = Offers::read(&welcome.features, welcome.max_event_bytes);
        let credit = if offers.submit { welcome.max_submissions as usize } else { 0 };
        self.calls.submissions.opened(credit);
        self.calls.session.opened(welcome.agent_id, Open { client, offers });
        loop {
            match stream.try_next().await {
                Ok(Some(event)) => self.event(event),
                Ok(None) => {
                    return Over { opened: true, why: Why::Other("the server ended the stream".to_owned()) };
                }
                Err(error) => return over(true, &error),
            }
        }
    }

    /// The first event of a stream that the server takes.
    async fn welcome(&self, stream: &mut ClientDuplexReceiver<ServerEvent>) -> Result<Welcome, Why> {
        let (in_time, late) = oneshot::channel::<()>();
        let (calls, timeout) = (self.calls.clone(), self.route.welcome_timeout);
        // Holds the time: it ends with this call, or lets it know that it took too long.
        let watching = std::thread::Builder::new().name("agent-connect".to_owned()).spawn(move || {
            let give_up = Instant::now() + timeout;
            while !in_time.is_canceled() && !calls.session.is_stopping() && Instant::now() < give_up {
                calls.session.pause_until(give_up);
            }
        });
        let _ = watching.map_err(|error| Why::Other(format!("a thread could not be started: {error}")))?;
        let outcome = match select(stream.try_next(), late).await {
            Either::Left((
                Ok(Some(ServerEvent { event: Some(ServerEventKind::Welcome(welcome)), .. })),
                _,
            )) => Ok(welcome),
            Either::Left((Ok(Some(_)), _)) => Err(Why::Other("the first event was no welcome".to_owned())),
            Either::Left((Ok(None), _)) => Err(Why::Other("the server ended the stream".to_owned())),
            Either::Left((Err(error), _)) => Err(why(&error)),
            Either::Right(_) => Err(Why::Other(format!("no welcome within {timeout:?}"))),
        };
        // Or it would watch until the time is over.
        self.calls.session.wake();
        if outcome.is_err() {
            stream.cancel();
        }
        outcome
    }

    fn event(&self, event: ServerEvent) {
        match event.event {
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
            Some(ServerEventKind::RequestFailed(failed)) => {
                self.calls.replies.failed(failed.correlation_id, failed.reason);
            }
            Some(ServerEventKind::Welcome(_)) | None => {}
        }
    }

    fn delivery(&self, delivery: Delivery) {
        let id = delivery.delivery_id.clone();
        match Received::read(delivery) {
            // Replies go to their waiting request, not through the handlers.
            Ok(received) if received.is_reply() => {
                self.calls.replies.came(received);
                self.calls.outbox.ack(id);
            }
            Ok(received) => {
                if self.intake.take(received) {
                    self.calls.outbox.ack(id);
                }
            }
            Err(error) => {
                log::error!(code = "envelope_unreadable"; "an envelope cannot be read: {error}");
                self.calls.outbox.nack(id, "invalid_envelope".to_owned(), false, 0);
            }
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

fn why(error: &grpcio::Error) -> Why {
    match error {
        grpcio::Error::RpcFailure(status) => Why::Ended(status.code(), status.message().to_owned()),
        other => Why::Other(other.to_string()),
    }
}

/// Half to all of it, so that many agents do not come at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + f64::from(Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX) / 2.0)
}

/// Whether the server refuses this agent, and somebody has to change something. An instance that is still
/// connected may be this process's own lost session: that passes.
fn is_refusal(code: RpcStatusCode, detail: &str) -> bool {
    match code {
        RpcStatusCode::UNAUTHENTICATED
        | RpcStatusCode::PERMISSION_DENIED
        | RpcStatusCode::INVALID_ARGUMENT
        | RpcStatusCode::UNIMPLEMENTED => true,
        RpcStatusCode::FAILED_PRECONDITION => detail != "instance_already_connected",
        _ => false,
    }
}

/// Whether a refusal is this program's own doing, which nobody else can change.
fn cannot_change(detail: &str) -> bool {
    matches!(detail, "invalid_instance_id" | "missing_hello" | "expected_hello")
}

fn refusal(address: &str, code: RpcStatusCode, detail: String) -> Refusal {
    Refusal {
        call: format!("connect to {address}"),
        code: code_name(code),
        detail,
        retry_after: None,
        message_id: None,
        receipt: None,
        findings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known_by_name_and_number() {
        for address in ["127.0.0.1:50051", "127.8.0.1:1", "[::1]:50051", "localhost:1", "unix:/run/mas.sock"]
        {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["mas.example.org:50051", "10.0.0.1:1", "[2001:db8::1]:1", "localhost.example:1"] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn a_wait_is_jittered_between_half_and_all_of_it() {
        let pause = Duration::from_secs(1);
        assert!((0..1000).map(|_| jittered(pause)).all(|wait| wait >= pause / 2 && wait <= pause));
    }
}
