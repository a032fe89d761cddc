//! How an agent is described before it connects.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::{ChannelBuilder, ChannelCredentialsBuilder, Client, EnvBuilder};
use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::connected::Agent;
use super::error::{AgentError, HandlerError};
use super::handlers::{Handler, Handlers, Pool};
use super::message::Message;
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::stream::Stream;
use super::tracing::{TraceParent, Tracing};
use crate::audit::proof::Receipt;
use crate::ids::InstanceId;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest of these that can be set: keeps deadlines computable.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
const HANDLER_THREADS: usize = 4;
const MAX_HANDLER_THREADS: usize = 1024;
/// A silent connection is pinged after this, and given up when no answer comes in time. Sooner than the server would
/// (20 s): what it reads puts its own timer off, and answering a ping costs it half of what sending one does.
const KEEPALIVE_TIME: Duration = Duration::from_secs(19);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to reach the server.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LAST: Duration = Duration::from_secs(2);

/// Makes a channel ping a silent server, as agents do; for programs that speak the protocol themselves.
pub fn keep_alive(channel: ChannelBuilder) -> ChannelBuilder {
    channel
        .keepalive_time(KEEPALIVE_TIME)
        .keepalive_timeout(KEEPALIVE_TIMEOUT)
        .keepalive_permit_without_calls(true)
        // Or a client stops pinging after two pings in a silence.
        .http2_max_pings_without_data(0)
}

/// Certificates of an agent, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The CA of the server's certificate.
    pub ca: Vec<u8>,
    /// The agent's certificate.
    pub cert: Vec<u8>,
    /// The agent's private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Reads the three files.
    pub fn from_files(
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, AgentError> {
        let read = |path: &Path| {
            let pem =
                std::fs::read(path).map_err(|e| AgentError::Setup(format!("{}: {e}", path.display())))?;
            if pem.contains(&0) {
                return Err(AgentError::Setup(format!("{}: not PEM", path.display())));
            }
            Ok(pem)
        };
        Ok(Self { ca: read(ca.as_ref())?, cert: read(cert.as_ref())?, key: read(key.as_ref())? })
    }
}

impl Agent {
    /// Starts describing an agent that connects to `addr` (`host:port`).
    pub fn builder(addr: &str, credentials: Credentials) -> Builder {
        Builder::new(addr, credentials)
    }

    /// Describes an agent from the environment that the runner gives its processes.
    pub fn builder_from_env() -> Result<Builder, AgentError> {
        Builder::from_env()
    }
}

/// An agent before it connects.
pub struct Builder {
    addr: String,
    credentials: Credentials,
    instance: String,
    server_name: Option<String>,
    handlers: Handlers,
    threads: usize,
    call_timeout: Duration,
    receipts: Receipts,
    trace_parent: TraceParent,
    connect_timeout: Duration,
    drain_timeout: Duration,
}

impl Builder {
    fn new(addr: &str, credentials: Credentials) -> Self {
        Self {
            addr: addr.to_owned(),
            credentials,
            instance: uuid::Uuid::new_v4().simple().to_string(),
            server_name: None,
            handlers: Handlers::default(),
            threads: HANDLER_THREADS,
            call_timeout: CALL_TIMEOUT,
            receipts: Receipts::default(),
            trace_parent: TraceParent::default(),
            connect_timeout: CONNECT_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }

    fn from_env() -> Result<Self, AgentError> {
        let var = |name: &str| std::env::var(name).map_err(|e| AgentError::Setup(format!("{name}: {e}")));
        let credentials =
            Credentials::from_files(var("MAS_TLS_CA")?, var("MAS_TLS_CERT")?, var("MAS_TLS_KEY")?)?;
        Ok(Self::new(&var("MAS_SERVER_ADDR")?, credentials).instance(&var("MAS_INSTANCE_ID")?))
    }

    /// The name of this process among the agent's instances; by default a random one. A process that
    /// comes back under the same name gets back what it had not acknowledged.
    #[must_use]
    pub fn instance(mut self, instance: &str) -> Self {
        instance.clone_into(&mut self.instance);
        self
    }

    /// The name in the server's certificate, where it is not the host of the address.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Handles messages of one type, with their payload as `T`. A payload that is no `T` goes to the
    /// dead letters.
    #[must_use]
    pub fn on<T, F>(mut self, message_type: &str, handler: F) -> Self
    where
        T: DeserializeOwned,
        F: Fn(&Message, T) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let typed: Handler = Arc::new(move |message: &Message| {
            let data = message
                .parse_data::<T>()
                .map_err(|error| HandlerError::reject(format!("handler_error:payload:{error}")))?;
            handler(message, data)
        });
        let _ = self.handlers.by_type.insert(message_type.to_owned(), typed);
        self
    }

    /// Handles messages of every type that has no handler of its own.
    #[must_use]
    pub fn on_any<F>(mut self, handler: F) -> Self
    where
        F: Fn(&Message) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.handlers.fallback = Some(Arc::new(handler));
        self
    }

    /// Messages handled at the same time (default 4).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, MAX_HANDLER_THREADS);
        self
    }

    /// Hands every receipt that the server gives to `keep`: of what it accepted, and of what it refused. On the
    /// thread that made the call, before the call returns.
    #[must_use]
    pub fn keep_receipts(mut self, keep: impl Fn(&Receipt) + Send + Sync + 'static) -> Self {
        self.receipts = Receipts::kept_by(keep);
        self
    }

    /// What the span around a handler makes of the sender's span (default: a link).
    #[must_use]
    pub fn trace_parent(mut self, parent: TraceParent) -> Self {
        self.trace_parent = parent;
        self
    }

    /// How long one call may take, tries and waits included (default 30 s).
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long [`connect`](Self::connect) waits for the session (default 10 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long a shutdown waits for running handlers (default 10 s).
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// Connects and returns when the session is open.
    pub fn connect(self) -> Result<Agent, AgentError> {
        if InstanceId::parse(&self.instance).is_none() {
            return Err(AgentError::Setup(format!(
                "{:?} is no instance id: expected 1 to 32 of A-Z a-z 0-9 _ -",
                self.instance
            )));
        }
        let environment = Arc::new(EnvBuilder::new().cq_count(1).name_prefix("agent-grpc").build());
        let credentials = ChannelCredentialsBuilder::new()
            .root_cert(self.credentials.ca)
            .cert(self.credentials.cert, self.credentials.key)
            .build();
        let mut channel = keep_alive(ChannelBuilder::new(environment))
            .initial_reconnect_backoff(RECONNECT_FIRST)
            .max_reconnect_backoff(RECONNECT_LAST)
            // Two agents in one process must not share a connection: it carries the identity.
            .use_local_subchannel_pool(true)
            .set_credentials(credentials);
        if let Some(name) = self.server_name {
            channel = channel.override_ssl_target(name);
        }
        let client = Client::new(channel.connect(&self.addr));
        let outbox = Outbox::default();
        let tracing = Tracing::new(&self.addr, &self.instance, self.trace_parent);
        let (receipts, timeout) = (self.receipts, self.call_timeout);
        let calls = Arc::new(Calls::new(client, self.instance, timeout, (outbox.clone(), receipts, tracing)));
        let setup =
            |error: std::io::Error| AgentError::Setup(format!("a thread could not be started: {error}"));
        let pool = Pool::start(self.threads, self.handlers, &calls, &outbox).map_err(setup)?;
        let stream = Stream::start(&calls, &outbox, pool.intake()).map_err(setup)?;
        let agent = Agent { calls, stream, pool, drain_timeout: self.drain_timeout };
        agent.calls.session.wait_open(Instant::now() + self.connect_timeout)?;
        Ok(agent)
    }
}
