//! How an agent is described before it connects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpcio::EnvBuilder;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use uuid::Uuid;

use crate::agent::Agent;
use crate::calls::Calls;
use crate::connection::{Connection, Route, WELCOME_TIMEOUT};
use crate::credentials::{Credentials, variables};
use crate::error::{AgentError, HandlerError};
use crate::handle::Handle;
use crate::handlers::{Handler, Handlers, Pool};
use crate::message::Message;
use crate::receipts::{Receipt, Receipts};
use crate::session::{Event, Session, Tell};
use crate::submit::Submissions;
use crate::tracing::{TraceParent, Tracing};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An address is given this long, whatever the timeouts.
const LEAST_WELCOME: Duration = Duration::from_millis(500);
const REFUSED_RETRY: Duration = Duration::from_secs(10);
/// Longest of these that can be set: keeps deadlines computable.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Messages under way on the stream at a time.
const MAX_CALLS: usize = 1024;
const HANDLER_THREADS: usize = 4;
const MAX_HANDLER_THREADS: usize = 1024;
/// Longest name of a field that is quoted, in characters.
const MAX_NAME: usize = 64;
/// Longest instance id, in characters.
const MAX_INSTANCE_CHARS: usize = 32;

impl Agent {
    /// Starts describing an agent that connects to `addr` (`host:port`; several, separated by commas, are tried in turn).
    pub fn builder(addr: &str, credentials: Credentials) -> Builder {
        Builder::new(addr, credentials)
    }

    /// Describes an agent from the environment that `mas run` gives its processes: `MAS_SERVER_ADDR`, `MAS_TLS_CA`,
    /// `MAS_TLS_CERT`, `MAS_TLS_KEY` and, where it is set, `MAS_INSTANCE_ID`.
    pub fn builder_from_env() -> Result<Builder, AgentError> {
        let [addr, ca, cert, key] =
            variables(["MAS_SERVER_ADDR", "MAS_TLS_CA", "MAS_TLS_CERT", "MAS_TLS_KEY"])?;
        let builder = Builder::new(&addr, Credentials::from_files(ca, cert, key)?);
        Ok(match std::env::var("MAS_INSTANCE_ID") {
            Ok(instance) => builder.instance(&instance),
            Err(_) => builder,
        })
    }
}

/// An agent before it connects.
pub struct Builder {
    addr: String,
    credentials: Credentials,
    instance: String,
    server_name: Option<String>,
    proxy: bool,
    handlers: Handlers,
    threads: usize,
    call_timeout: Duration,
    repeat_sends: bool,
    max_calls: usize,
    receipts: Receipts,
    trace_parent: TraceParent,
    connect_timeout: Duration,
    drain_timeout: Duration,
    refused_retry: Duration,
    refused_is_final: bool,
    tell: Option<Arc<Tell>>,
}

impl Builder {
    fn new(addr: &str, credentials: Credentials) -> Self {
        Self {
            addr: addr.to_owned(),
            credentials,
            instance: Uuid::new_v4().simple().to_string(),
            server_name: None,
            proxy: true,
            handlers: Handlers::default(),
            threads: HANDLER_THREADS,
            call_timeout: CALL_TIMEOUT,
            repeat_sends: true,
            max_calls: MAX_CALLS,
            receipts: Receipts::default(),
            trace_parent: TraceParent::default(),
            connect_timeout: CONNECT_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            refused_retry: REFUSED_RETRY,
            refused_is_final: false,
            tell: None,
        }
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

    /// Whether the proxy that `https_proxy` and its like name is used (default: yes, but never for loopback addresses).
    #[must_use]
    pub fn proxy(mut self, used: bool) -> Self {
        self.proxy = used;
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
            let data = parse::<T>(message.data()).map_err(HandlerError::reject)?;
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

    /// Is told when the connection is made, lost or refused. On the connection's own thread: it must not wait.
    #[must_use]
    pub fn on_event(mut self, tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.tell = Some(Arc::new(tell));
        self
    }

    /// Messages handled at the same time (default 4); 1 keeps the order of each sender.
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

    /// How long one call may take, tries and waits included (default 30 s). A request has a time of its own.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// Whether a send or request whose answer was lost is made again (default: yes), under a key that the server remembers for the
    /// call's time and a minute, so that it happens once. Without it the server and its Redis have less to do for each message, and
    /// such a call is [`AgentError::Unknown`], unless it has a [key](crate::Outgoing::key) of the program's.
    #[must_use]
    pub fn repeat_sends(mut self, repeated: bool) -> Self {
        self.repeat_sends = repeated;
        self
    }

    /// How many messages may be under way to the server at a time (default 1,024, and never more than it takes): further calls
    /// wait, and [`Handle::backlog`] says how many do.
    #[must_use]
    pub fn max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls.clamp(1, MAX_CALLS);
        self
    }

    /// How long [`connect`](Self::connect) waits for the session (default 10 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long a shutdown waits for running handlers (default 8 s).
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long after the server has refused this agent it is tried again (default 10 s).
    #[must_use]
    pub fn refused_retry(mut self, pause: Duration) -> Self {
        self.refused_retry = pause.min(MAX_TIMEOUT);
        self
    }

    /// Whether a refusal of this agent ends it (default: no, it is tried again). [`Agent::wait`] returns it.
    #[must_use]
    pub fn refused_is_final(mut self, is_final: bool) -> Self {
        self.refused_is_final = is_final;
        self
    }

    /// Connects and returns when the session is open.
    pub fn connect(self) -> Result<Agent, AgentError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.instance.is_empty()
            || self.instance.len() > MAX_INSTANCE_CHARS
            || !self.instance.chars().all(fits)
        {
            return Err(AgentError::Setup(format!(
                "{:?} is no instance id: expected 1 to {MAX_INSTANCE_CHARS} of A-Z a-z 0-9 _ -",
                self.instance
            )));
        }
        let addresses: Vec<String> =
            self.addr.split(',').map(str::trim).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
        // Each of them must have its turn before a start is given up.
        let welcome_timeout =
            (self.connect_timeout / (addresses.len() as u32 + 1)).clamp(LEAST_WELCOME, WELCOME_TIMEOUT);
        let Some(first) = addresses.first() else {
            return Err(AgentError::Setup("no address: expected host:port".to_owned()));
        };
        // What is wrong with them now is said at once.
        drop(self.credentials.load()?);
        let tracing = Tracing::new(first, &self.instance, self.trace_parent);
        let session = Session::new(self.instance, self.tell);
        let submissions = Submissions::new(self.receipts.clone(), self.max_calls);
        let calls = Arc::new(Calls::new(
            session,
            (self.call_timeout, self.repeat_sends),
            (submissions, self.receipts),
            tracing,
        ));
        let route = Route {
            environment: Arc::new(EnvBuilder::new().cq_count(1).name_prefix("agent-grpc").build()),
            addresses,
            server_name: self.server_name,
            credentials: self.credentials,
            proxy: self.proxy,
            welcome_timeout,
            refused_retry: self.refused_retry,
            refused_is_final: self.refused_is_final,
        };
        let setup =
            |error: std::io::Error| AgentError::Setup(format!("a thread could not be started: {error}"));
        let handle = Handle { calls };
        let pool = Pool::start(self.threads, &self.handlers, &handle).map_err(setup)?;
        let connection = Connection::start(&handle.calls, route, pool.intake()).map_err(setup)?;
        let agent = Agent { handle, connection, pool, drain_timeout: self.drain_timeout };
        drop(agent.calls.session.wait_started(Instant::now() + self.connect_timeout)?);
        Ok(agent)
    }
}

/// A payload as a type; else the reason of its refusal, which names the field and quotes nothing.
fn parse<T: DeserializeOwned>(data: &str) -> Result<T, String> {
    const MISSING: &str = "missing field";
    let mut reader = serde_json::Deserializer::from_str(data);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, text) = (path_of(error.path()), error.inner().to_string());
        // The name of a field that is missing is the type's, not the payload's.
        match text.strip_prefix(MISSING) {
            Some(_) => format!("handler_error:payload:{}", text.split(" at line").next().unwrap_or(MISSING)),
            None => format!("handler_error:payload:{path}"),
        }
    })
}

/// The way to a field. Names that are no identifiers may be the payload's own, and are not quoted.
fn path_of(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                let fits =
                    key.len() <= MAX_NAME && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                text.push_str(if text.is_empty() { "" } else { "." });
                text.push_str(if fits { key } else { "*" });
            }
            Segment::Unknown => text.push('?'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Order {
        item: String,
        lines: Vec<Line>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code)]
    struct Line {
        count: u32,
    }

    #[test]
    fn a_payload_that_does_not_fit_is_named_by_its_field_and_never_quoted() {
        let reason = |data: &str| parse::<Order>(data).unwrap_err();
        let secret = r#"{"item": "tea", "lines": [{"count": 1}, {"count": "4111-1111"}]}"#;
        assert_eq!(reason(secret), "handler_error:payload:lines[1].count");
        assert_eq!(reason(r#"{"item": "tea"}"#), "handler_error:payload:missing field `lines`");
        type Owners = std::collections::HashMap<String, u32>;
        let owners = parse::<Owners>(r#"{"jane@example.org": "x"}"#).unwrap_err();
        assert_eq!(owners, "handler_error:payload:*");
    }
}
