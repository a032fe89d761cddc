//! What servers on one Redis tell each other at once: messages for each other's sessions, sessions that
//! open and close, circuits. News may be lost (Redis' publish is not durable): whoever subscribes anew
//! looks everything over, and a slow sweep finds the rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;

use super::connection::StoreError;
use super::endpoint::Endpoint;
use super::keys;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};

/// How long the subscriber waits for news before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// Wait before another connection attempt.
const RETRY: Duration = Duration::from_millis(250);

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These agents' inboxes hold something for sessions of the receiving server.
    Inboxes(Vec<AgentId>),
    /// An operator has taken so many messages out of an agent's inbox.
    Taken(AgentId, u64),
    /// A server has joined.
    Joined(ServerId),
    /// An instance has a session on that server.
    Opened(AgentId, InstanceId, ServerId),
    /// It has none any more.
    Closed(AgentId, InstanceId, ServerId),
    /// An agent's circuit opened or closed, as that server saw.
    Circuit(AgentId, bool, ServerId),
    /// A handler of the agent failed, as that server saw.
    Failed(AgentId, ServerId),
    /// No reply will come to a request; and a server's tag.
    Unanswered(Unanswered, String),
    /// A look at the registry of servers. Never published.
    Servers {
        /// The other servers that are alive.
        alive: BTreeSet<ServerId>,
        /// Whether a new one is among them.
        came: bool,
        /// Those that are gone.
        gone: Vec<ServerId>,
    },
    /// How much room Redis has for more. Never published.
    Storage {
        /// It is too little.
        full: bool,
        /// In bytes, where it is bounded.
        room: Option<u64>,
    },
    /// Whether Redis took the renewal of the server's lease; else why not. Never published.
    Lease(Option<String>),
    /// News may have been missed. Never published.
    Missed,
}

/// A request to which no reply will come, for its message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// Who asked.
    pub agent: AgentId,
    /// Which of its processes.
    pub instance: InstanceId,
    /// The request.
    pub correlation_id: CorrelationId,
    /// Its message.
    pub message_id: Uuid,
    /// Why, in one of a few words.
    pub reason: &'static str,
}

impl Unanswered {
    /// The reasons: what the receiver says of its failure is not for the sender.
    const REASONS: [&str; 4] = ["handler_failed", "no_handler", "max_attempts", "expired"];

    /// The reason for a dead letter's.
    pub fn reason_of(letter: &str) -> &'static str {
        // Beside these a letter has its receiver's own words, whatever they begin with.
        let word = if letter.starts_with("no_handler:") { "no_handler" } else { letter };
        Self::REASONS.into_iter().find(|reason| *reason == word).unwrap_or("handler_failed")
    }

    /// What its tag is over.
    pub fn says(&self) -> String {
        let Self { agent, instance, correlation_id, message_id, reason } = self;
        format!("{agent} {instance} {correlation_id} {message_id} {reason}")
    }
}

impl News {
    /// The text that is published.
    pub fn to_text(&self) -> String {
        match self {
            Self::Inboxes(agents) => {
                let mut text = "inboxes".to_owned();
                for agent in agents {
                    text.push(' ');
                    text.push_str(agent.as_str());
                }
                text
            }
            Self::Joined(server) => format!("joined {server}"),
            Self::Taken(agent, count) => format!("taken {agent} {count}"),
            Self::Opened(agent, instance, server) => format!("opened {agent} {instance} {server}"),
            Self::Closed(agent, instance, server) => format!("closed {agent} {instance} {server}"),
            Self::Circuit(agent, true, server) => format!("circuit-open {agent} {server}"),
            Self::Circuit(agent, false, server) => format!("circuit-closed {agent} {server}"),
            Self::Failed(agent, server) => format!("failed {agent} {server}"),
            Self::Unanswered(request, tag) => format!("unanswered {} {tag}", request.says()),
            Self::Servers { .. } | Self::Storage { .. } | Self::Lease(_) | Self::Missed => String::new(),
        }
    }

    /// Reads it back; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        if kind == "inboxes" {
            return words.map(AgentId::parse).collect::<Option<_>>().map(Self::Inboxes);
        }
        if kind == "joined" {
            let server = ServerId::parse(words.next()?)?;
            return words.next().is_none().then_some(Self::Joined(server));
        }
        let agent = AgentId::parse(words.next()?)?;
        let news = match kind {
            "opened" | "closed" => {
                let instance = InstanceId::parse(words.next()?)?;
                let server = ServerId::parse(words.next()?)?;
                if kind == "opened" {
                    Self::Opened(agent, instance, server)
                } else {
                    Self::Closed(agent, instance, server)
                }
            }
            "circuit-open" => Self::Circuit(agent, true, ServerId::parse(words.next()?)?),
            "circuit-closed" => Self::Circuit(agent, false, ServerId::parse(words.next()?)?),
            "taken" => Self::Taken(agent, words.next()?.parse().ok()?),
            "failed" => Self::Failed(agent, ServerId::parse(words.next()?)?),
            "unanswered" => {
                let request = Unanswered {
                    agent,
                    instance: InstanceId::parse(words.next()?)?,
                    correlation_id: CorrelationId::parse(words.next()?)?,
                    message_id: Uuid::parse_str(words.next()?).ok()?,
                    reason: words
                        .next()
                        .and_then(|word| Unanswered::REASONS.into_iter().find(|r| *r == word))?,
                };
                Self::Unanswered(request, words.next()?.to_owned())
            }
            _ => return None,
        };
        words.next().is_none().then_some(news)
    }
}

/// A subscription that is kept up by a thread of its own until it is dropped.
pub struct Subscription {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscription {
    /// Tells `tell` what the other servers publish for all and for this one.
    pub fn start(
        endpoint: &Endpoint,
        own: &ServerId,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (endpoint, own_channel, stopping) = (endpoint.clone(), keys::news_for(own), stop.clone());
        let thread = std::thread::Builder::new().name("news".to_owned()).spawn(move || {
            let mut failing = false;
            while !stopping.load(Ordering::Relaxed) {
                let Err(error) = listen(&endpoint, &own_channel, &stopping, &tell) else {
                    // Stopped, or the Sentinels name another Redis.
                    continue;
                };
                if !std::mem::replace(&mut failing, true) {
                    // Workers report how Redis is; this is about speed only.
                    log::info!(code = "news_missed"; "no news from other servers for now: {error}");
                }
                std::thread::park_timeout(RETRY);
            }
        });
        match thread {
            Ok(thread) => Ok(Self { stop, thread: Some(thread) }),
            Err(error) => Err(StoreError::Unexpected {
                command: "starting the subscriber's thread",
                answer: error.to_string(),
            }),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn listen(
    endpoint: &Endpoint,
    own_channel: &str,
    stopping: &AtomicBool,
    tell: &impl Fn(News),
) -> Result<(), StoreError> {
    let timeout = endpoint.timeout();
    let (client, mut lead) = endpoint.find()?;
    let mut connection = client.get_connection_with_timeout(timeout).map_err(StoreError::Unreachable)?;
    let goes_on =
        || !stopping.load(Ordering::Relaxed) && lead.as_mut().is_none_or(|lead| lead.successor().is_none());
    hear(&mut connection, timeout, own_channel, goes_on, tell).map_err(StoreError::Broken)
}

fn hear(
    connection: &mut redis::Connection,
    timeout: Duration,
    own_channel: &str,
    mut goes_on: impl FnMut() -> bool,
    tell: &impl Fn(News),
) -> Result<(), redis::RedisError> {
    let mut subscriber = connection.as_pubsub();
    subscriber.set_read_timeout(Some(timeout))?;
    subscriber.subscribe(&[keys::NEWS, own_channel])?;
    subscriber.set_read_timeout(Some(PATIENCE))?;
    tell(News::Missed);
    while goes_on() {
        let message = match subscriber.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => continue,
            Err(error) => return Err(error),
        };
        let text: String = message.get_payload()?;
        match News::parse(&text) {
            Some(news) => tell(news),
            None => log::warn!(
                code = "stranger_published", channel = message.get_channel_name();
                "a stranger published on {}", message.get_channel_name()
            ),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn news_read_back() {
        let agent = AgentId::parse("a-1").unwrap();
        let instance = InstanceId::parse("i0").unwrap();
        let server = ServerId::new();
        for news in [
            News::Inboxes(vec![agent.clone(), AgentId::parse("b").unwrap()]),
            News::Joined(server.clone()),
            News::Opened(agent.clone(), instance.clone(), server.clone()),
            News::Closed(agent.clone(), instance, server.clone()),
            News::Circuit(agent.clone(), true, server.clone()),
            News::Circuit(agent.clone(), false, server.clone()),
            News::Failed(agent.clone(), server),
            News::Taken(agent, 64),
        ] {
            assert_eq!(News::parse(&news.to_text()), Some(news));
        }
        assert_eq!(News::parse(""), None);
        assert_eq!(News::parse("opened a b"), None);
    }

    proptest! {
        #[test]
        fn strangers_do_no_harm(text in ".{0,80}") {
            let _ = News::parse(&text);
        }
    }
}
