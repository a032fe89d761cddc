//! The protocol spoken by hand, so that a test sees every status and every event.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use grpcio::{CallOption, ChannelBuilder, ChannelCredentialsBuilder, EnvBuilder, WriteFlags};
use mas::protocol::client_event::Event;
use mas::protocol::server_event::Event as ServerKind;
use mas::protocol::*;
use mas::protocol::{HEALTH_CHECK, HealthCheckRequest, ServingStatus};
use serde_json::Value;

use super::PATIENCE;

/// Calls end after this.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Client {
    pub raw: grpcio::Client,
    methods: &'static Methods,
}

/// A call's refusal.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub code: String,
    pub details: String,
}

impl Refused {
    fn from(error: grpcio::Error) -> Self {
        match error {
            grpcio::Error::RpcFailure(status) => {
                let code = status.code().to_string();
                let name = code.split_once('-').map_or(code.clone(), |(_, name)| name.to_owned());
                Self { code: name, details: status.message().to_owned() }
            }
            other => Self { code: "LOCAL".to_owned(), details: other.to_string() },
        }
    }
}

type Called<T> = Result<T, Refused>;

impl Client {
    pub fn new(addr: &str, ca: Vec<u8>, pair: Option<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut credentials = ChannelCredentialsBuilder::new().root_cert(ca);
        if let Some((cert, key)) = pair {
            credentials = credentials.cert(cert, key);
        }
        let channel = ChannelBuilder::new(Arc::new(EnvBuilder::new().cq_count(1).build()))
            .use_local_subchannel_pool(true)
            .initial_reconnect_backoff(Duration::from_millis(20))
            .max_reconnect_backoff(Duration::from_millis(200))
            .set_credentials(credentials.build());
        Self { raw: grpcio::Client::new(channel.connect(addr)), methods: &RUNTIME_V1 }
    }

    /// A client with the files that `certs` has for the agent.
    pub fn with_files(addr: &str, certs: &Path, agent: &str) -> Self {
        let files = mas::certs::agent_files(certs, &mas::ids::AgentId::parse(agent).unwrap());
        let pair = (std::fs::read(files.cert).unwrap(), std::fs::read(files.key).unwrap());
        Self::new(addr, std::fs::read(mas::certs::ca_file(certs)).unwrap(), Some(pair))
    }

    /// The same connection over the older service path.
    pub fn v04(mut self) -> Self {
        self.methods = &MAS_V1;
        self
    }

    fn call<Q, R: Unpin>(&self, method: &grpcio::Method<Q, R>, request: &Q) -> Called<R> {
        self.raw
            .unary_call(method, request, CallOption::default().timeout(CALL_TIMEOUT))
            .map_err(Refused::from)
    }

    pub fn send_raw(&self, request: &SendRequest) -> Called<SendResponse> {
        self.call(&self.methods.send.client, request)
    }

    /// Sends from `instance`; the message id.
    pub fn send(&self, instance: &str, target: &str, data_json: &str) -> Called<String> {
        let request = SendRequest {
            target_id: target.to_owned(),
            message_type: "test".to_owned(),
            data_json: data_json.to_owned(),
            instance_id: instance.to_owned(),
            ..SendRequest::default()
        };
        self.send_raw(&request).map(|response| response.message_id)
    }

    /// The correlation id.
    pub fn request(&self, instance: &str, target: &str, data_json: &str, timeout_ms: i32) -> Called<String> {
        let request = RequestRequest {
            target_id: target.to_owned(),
            message_type: "question".to_owned(),
            data_json: data_json.to_owned(),
            timeout_ms,
            instance_id: instance.to_owned(),
            ..RequestRequest::default()
        };
        self.call(&self.methods.request.client, &request).map(|response| response.correlation_id)
    }

    pub fn reply(&self, instance: &str, correlation_id: &str, data_json: &str) -> Called<String> {
        let request = ReplyRequest {
            correlation_id: correlation_id.to_owned(),
            message_type: "answer".to_owned(),
            data_json: data_json.to_owned(),
            instance_id: instance.to_owned(),
            ..ReplyRequest::default()
        };
        self.call(&self.methods.reply.client, &request).map(|response| response.message_id)
    }

    /// What the standard health service says of a service.
    pub fn health(&self, service: &str) -> Called<ServingStatus> {
        let request = HealthCheckRequest { service: service.to_owned(), ..HealthCheckRequest::default() };
        self.call(&HEALTH_CHECK.client, &request).map(|response| response.status.enum_value_or_default())
    }

    pub fn discover(&self, capabilities: &[&str]) -> Called<Vec<AgentRecord>> {
        let request = DiscoverRequest {
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            ..DiscoverRequest::default()
        };
        self.call(&self.methods.discover.client, &request).map(|response| response.agents)
    }

    pub fn versioned_state(&self) -> Called<GetStateResponse> {
        self.call(&self.methods.get_state.client, &GetStateRequest::default())
    }

    pub fn change_state(&self, request: &UpdateStateRequest) -> Called<u64> {
        self.call(&self.methods.update_state.client, request).map(|response| response.version)
    }

    pub fn request_raw(&self, request: &RequestRequest) -> Called<RequestResponse> {
        self.call(&self.methods.request.client, request)
    }

    pub fn state(&self) -> Called<std::collections::HashMap<String, String>> {
        self.call(&self.methods.get_state.client, &GetStateRequest::default()).map(|response| response.state)
    }

    /// A call that is under way.
    pub fn begin_state(&self) -> grpcio::ClientUnaryReceiver<GetStateResponse> {
        let option = CallOption::default().timeout(CALL_TIMEOUT);
        self.raw
            .unary_call_async(&self.methods.get_state.client, &GetStateRequest::default(), option)
            .unwrap()
    }

    pub fn update_state(&self, updates: &[(&str, &str)]) -> Called<()> {
        let request = UpdateStateRequest {
            updates: updates.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..UpdateStateRequest::default()
        };
        self.call(&self.methods.update_state.client, &request).map(drop)
    }

    pub fn reset_state(&self) -> Called<()> {
        self.call(&self.methods.reset_state.client, &ResetStateRequest::default()).map(drop)
    }

    /// A Transport stream on which nothing has been said.
    pub fn stream(&self) -> Session {
        Session::open(self)
    }

    /// A session that is open.
    #[track_caller]
    pub fn session(&self, instance: &str) -> Session {
        match self.try_session(instance) {
            Ok(session) => session,
            Err(ended) => panic!("no session: {ended:?}"),
        }
    }

    pub fn try_session(&self, instance: &str) -> Result<Session, Ended> {
        let session = self.stream();
        session.hello(instance);
        match session.event(PATIENCE) {
            Some(Ok(ServerKind::Welcome(welcome))) => {
                assert_eq!(welcome.instance_id, instance);
                Ok(session)
            }
            Some(Ok(other)) => panic!("the first event was {other:?}"),
            Some(Err(ended)) => Err(ended),
            None => panic!("no welcome"),
        }
    }
}

/// What a look at a session's stream found.
#[derive(Debug)]
pub enum Polled {
    Delivered(Delivered),
    /// Of submissions.
    Results(Vec<SubmissionResult>),
    Nothing,
    Ended,
}

impl Client {
    /// A session, if the server opens it in time.
    pub fn try_open(&self, instance: &str, timeout: Duration) -> Option<Session> {
        let session = self.stream();
        session.hello(instance);
        match session.event(timeout) {
            Some(Ok(ServerKind::Welcome(_))) => Some(session),
            _ => None,
        }
    }
}

impl Session {
    /// The next delivery, if there is one, from a stream that may end at any time.
    pub fn poll(&self, timeout: Duration) -> Polled {
        if let Some(delivered) = self.deliveries.lock().unwrap().pop_front() {
            return Polled::Delivered(delivered);
        }
        match self.event(timeout) {
            None => Polled::Nothing,
            Some(Err(_)) => Polled::Ended,
            Some(Ok(ServerKind::Delivery(delivery))) => Polled::Delivered(delivery.into()),
            Some(Ok(ServerKind::Results(results))) => Polled::Results(results.results),
            Some(Ok(other)) => panic!("unexpected event {other:?}"),
        }
    }
}

/// A session whose client never reads anything.
pub struct Deaf {
    sink: grpcio::ClientDuplexSender<ClientEvent>,
    _stream: grpcio::ClientDuplexReceiver<ServerEvent>,
}

impl Deaf {
    /// Submits calls; whether the stream still took them.
    pub fn submit(&mut self, submissions: Vec<Submission>) -> bool {
        let event = Event::Submit(Submit { submissions, ..Submit::default() });
        let event = ClientEvent { event: Some(event), ..ClientEvent::default() };
        futures_executor::block_on(self.sink.send((event, WriteFlags::default()))).is_ok()
    }
}

impl Client {
    pub fn deaf_session(&self, instance: &str) -> Deaf {
        let method = &self.methods.transport.client;
        let (mut sink, stream) = self.raw.duplex_streaming(method, CallOption::default()).unwrap();
        let hello = Event::Hello(Hello { instance_id: instance.to_owned(), ..Hello::default() });
        let hello = ClientEvent { event: Some(hello), ..ClientEvent::default() };
        futures_executor::block_on(sink.send((hello, WriteFlags::default()))).unwrap();
        // Once calls of this instance pass, the session is open.
        super::until("the deaf session is open", || {
            !self.send(instance, "nobody", "{}").is_err_and(|e| e.details == "session_not_connected")
        });
        Deaf { sink, _stream: stream }
    }
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    InOrder,
    With(Refused),
}

impl Ended {
    /// A refusal with this code and detail.
    pub fn refused(code: &str, details: &str) -> Self {
        Self::With(Refused { code: code.to_owned(), details: details.to_owned() })
    }
}

/// A delivery, with its envelope read.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub id: String,
    pub json: String,
    pub envelope: Value,
    pub attempt: u32,
}

impl From<Delivery> for Delivered {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.delivery_id,
            envelope: serde_json::from_str(&delivery.envelope_json).unwrap(),
            json: delivery.envelope_json,
            attempt: delivery.attempt,
        }
    }
}

impl Delivered {
    pub fn data(&self) -> &Value {
        &self.envelope["data"]
    }

    pub fn message_id(&self) -> &str {
        self.envelope["message_id"].as_str().unwrap()
    }

    pub fn correlation_id(&self) -> &str {
        self.envelope["meta"]["correlation_id"].as_str().unwrap()
    }
}

/// One Transport stream. Dropping it resets the stream, as a client that vanishes does.
pub struct Session {
    events: Receiver<Result<ServerKind, Ended>>,
    /// Read while something else was waited for.
    deliveries: Mutex<VecDeque<Delivered>>,
    results: Mutex<VecDeque<SubmissionResult>>,
    sender: Option<UnboundedSender<Option<ClientEvent>>>,
    // The connection lives as long as its stream.
    _client: grpcio::Client,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sender = None;
        // The reset is sent by the client's own thread: it must have happened before the client goes.
        while let Some(Ok(_)) = self.event(PATIENCE) {}
    }
}

impl Session {
    fn open(client: &Client) -> Self {
        let (mut sink, mut stream) =
            client.raw.duplex_streaming(&client.methods.transport.client, CallOption::default()).unwrap();
        let (sender, mut queue) = unbounded::<Option<ClientEvent>>();
        let (event_sender, events) = crossbeam_channel::unbounded();
        client.raw.spawn(async move {
            while let Some(event) = queue.next().await {
                match event {
                    Some(event) => {
                        if sink.send((event, WriteFlags::default())).await.is_err() {
                            return;
                        }
                    }
                    None => {
                        let _ = sink.close().await;
                        return;
                    }
                }
            }
            // The session was dropped: reset.
            sink.cancel();
        });
        client.raw.spawn(async move {
            loop {
                let event = match stream.try_next().await {
                    Ok(Some(event)) => Ok(event.event.unwrap()),
                    Ok(None) => Err(Ended::InOrder),
                    Err(error) => Err(Ended::With(Refused::from(error))),
                };
                let over = event.is_err();
                if event_sender.send(event).is_err() || over {
                    return;
                }
            }
        });
        Self {
            events,
            deliveries: Mutex::default(),
            results: Mutex::default(),
            sender: Some(sender),
            _client: client.raw.clone(),
        }
    }

    fn say(&self, event: Event) {
        self.say_raw(ClientEvent { event: Some(event), ..ClientEvent::default() });
    }

    pub fn say_raw(&self, event: ClientEvent) {
        let _ = self.sender.as_ref().unwrap().unbounded_send(Some(event));
    }

    /// Says hello as a client that takes deliveries in batches.
    pub fn hello_batched(&self, instance: &str) {
        let features = vec!["deliveries".to_owned()];
        let hello = Hello { instance_id: instance.to_owned(), features, ..Hello::default() };
        self.say(Event::Hello(hello));
        match self.event(PATIENCE) {
            Some(Ok(ServerKind::Welcome(welcome))) => {
                assert!(welcome.features.iter().any(|feature| feature == "submit"));
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub fn ack_all(&self, delivery_ids: Vec<String>) {
        self.say(Event::Acks(Acks { delivery_ids, ..Acks::default() }));
    }

    pub fn hello(&self, instance: &str) {
        self.say(Event::Hello(Hello { instance_id: instance.to_owned(), ..Hello::default() }));
    }

    pub fn heartbeat(&self) {
        self.say(Event::Heartbeat(Heartbeat::default()));
    }

    pub fn ack(&self, delivery_id: &str) {
        self.say(Event::Ack(Ack { delivery_id: delivery_id.to_owned(), ..Ack::default() }));
    }

    pub fn nack(&self, delivery_id: &str, reason: &str, retryable: bool) {
        self.say(Event::Nack(Nack {
            delivery_id: delivery_id.to_owned(),
            reason: reason.to_owned(),
            retryable,
            ..Nack::default()
        }));
    }

    /// Says that a message cannot be handled now.
    pub fn put_off(&self, delivery_id: &str, reason: &str, retry_after_ms: u64) {
        self.say(Event::Nack(Nack {
            delivery_id: delivery_id.to_owned(),
            reason: reason.to_owned(),
            retryable: true,
            retry_after_ms,
            ..Nack::default()
        }));
    }

    /// Half-closes the stream: nothing more to say.
    pub fn half_close(&self) {
        let _ = self.sender.as_ref().unwrap().unbounded_send(None);
    }

    fn event(&self, timeout: Duration) -> Option<Result<ServerKind, Ended>> {
        match self.events.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(Ended::InOrder)),
        }
    }

    /// The next delivery.
    #[track_caller]
    pub fn next(&self) -> Delivered {
        self.next_within(PATIENCE).expect("a delivery")
    }

    /// The next delivery, or nothing within `timeout`.
    #[track_caller]
    pub fn next_within(&self, timeout: Duration) -> Option<Delivered> {
        match self.try_next(timeout)? {
            Ok(delivered) => Some(delivered),
            Err(ended) => panic!("the stream ended: {ended:?}"),
        }
    }

    /// Calls on the stream, all in one event.
    pub fn submit(&self, submissions: Vec<Submission>) {
        self.say(Event::Submit(Submit { submissions, ..Submit::default() }));
    }

    /// The next result of a submission.
    #[track_caller]
    pub fn result(&self) -> SubmissionResult {
        loop {
            if let Some(result) = self.results.lock().unwrap().pop_front() {
                return result;
            }
            match self.event(PATIENCE).expect("a result") {
                Ok(event) => self.sort(event),
                Err(ended) => panic!("the stream ended: {ended:?}"),
            }
        }
    }

    /// Submits one call and waits for its result.
    #[track_caller]
    pub fn call(&self, call: submission::Call) -> submission_result::Outcome {
        self.submit(vec![Submission { reference: 7, call: Some(call), ..Submission::default() }]);
        let result = self.result();
        assert_eq!(result.reference, 7);
        result.outcome.unwrap()
    }

    /// The next delivery, acknowledged.
    #[track_caller]
    pub fn take(&self) -> Delivered {
        let delivered = self.next();
        self.ack(&delivered.id);
        delivered
    }

    /// The next delivery, or nothing within `timeout`, or how the stream ended.
    #[track_caller]
    pub fn try_next(&self, timeout: Duration) -> Option<Result<Delivered, Ended>> {
        let give_up = Instant::now() + timeout;
        loop {
            if let Some(delivered) = self.deliveries.lock().unwrap().pop_front() {
                return Some(Ok(delivered));
            }
            match self.event(give_up.saturating_duration_since(Instant::now()))? {
                Ok(event) => self.sort(event),
                Err(ended) => return Some(Err(ended)),
            }
        }
    }

    #[track_caller]
    fn sort(&self, event: ServerKind) {
        match event {
            ServerKind::Delivery(delivery) => self.deliveries.lock().unwrap().push_back(delivery.into()),
            ServerKind::Deliveries(batch) => {
                self.deliveries.lock().unwrap().extend(batch.deliveries.into_iter().map(Delivered::from));
            }
            ServerKind::Results(results) => self.results.lock().unwrap().extend(results.results),
            other => panic!("unexpected event {other:?}"),
        }
    }

    /// How the stream ends.
    #[track_caller]
    pub fn end(&self) -> Ended {
        loop {
            match self.event(PATIENCE).expect("an end") {
                Ok(_) => {}
                Err(ended) => return ended,
            }
        }
    }
}
