//! One Redis connection of one worker, and batches of commands for it: written at once, answered at
//! once, one round trip. Hot path: buffers are kept, nothing is formatted per command but its arguments.

use std::time::Duration;

use redis::{Client, RedisConnectionInfo, RedisError, RedisWrite, ToRedisArgs, Value};

use super::answers;
use super::primary::Lead;
use super::wire::Wire;

/// Code of what a replica answers to a write.
const READONLY: &str = "READONLY";

/// Why a batch has no answers.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be made; nothing was sent.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// No Sentinel leads to a primary; nothing was sent.
    #[error("no Redis is the primary: {0}")]
    NoPrimary(String),
    /// Redis cannot be what the configuration says; it, or the configuration, must change.
    #[error("{0}")]
    Unfit(String),
    /// The connection broke while the batch was under way: its outcome is unknown.
    #[error("the connection to Redis broke: {0}")]
    Broken(#[source] RedisError),
    /// Redis answered in a shape that the command does not have.
    #[error("Redis answered {command} unexpectedly: {answer}")]
    Unexpected {
        /// The command.
        command: &'static str,
        /// What came back.
        answer: String,
    },
}

/// An open connection.
pub struct Connection {
    link: Link,
    /// Where Sentinels have led to.
    lead: Option<Lead>,
}

enum Link {
    /// A socket.
    Plain(Wire),
    /// TLS.
    Crate(redis::Connection),
}

/// Commands that go out together, each with its answer in order.
#[derive(Default)]
pub struct Batch {
    /// Finished commands, as they go out.
    bytes: Vec<u8>,
    /// The command that was started last: its number of arguments goes before them.
    current: Arguments,
    count: usize,
}

/// A place in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    bytes: usize,
    count: usize,
}

/// Arguments of one command, as they go out.
#[derive(Default)]
struct Arguments {
    bytes: Vec<u8>,
    count: usize,
}

impl RedisWrite for Arguments {
    fn write_arg(&mut self, arg: &[u8]) {
        push_length(&mut self.bytes, b'$', arg.len());
        self.bytes.extend_from_slice(arg);
        self.bytes.extend_from_slice(b"\r\n");
        self.count += 1;
    }

    fn writer_for_next_arg(&mut self) -> impl std::io::Write + '_ {
        Piecewise { to: self, bytes: Vec::new() }
    }
}

/// An argument that is written in pieces: its length goes before it.
struct Piecewise<'a> {
    to: &'a mut Arguments,
    bytes: Vec<u8>,
}

impl std::io::Write for Piecewise<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Piecewise<'_> {
    fn drop(&mut self) {
        self.to.write_arg(&self.bytes);
    }
}

fn push_length(bytes: &mut Vec<u8>, kind: u8, length: usize) {
    bytes.push(kind);
    bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

impl Connection {
    /// Connects; no step of it and no later round trip takes longer than `timeout`.
    pub(super) fn open(client: &Client, timeout: Duration) -> Result<Self, StoreError> {
        let info = client.get_connection_info();
        let wire =
            Wire::connect(info.addr(), timeout).map_err(|error| StoreError::Unreachable(error.into()))?;
        if let Some(wire) = wire {
            let mut connection = Self { link: Link::Plain(wire), lead: None };
            connection.log_in(info.redis_settings())?;
            return Ok(connection);
        }
        let inner = client.get_connection_with_timeout(timeout).map_err(StoreError::Unreachable)?;
        inner
            .set_read_timeout(Some(timeout))
            .and_then(|()| inner.set_write_timeout(Some(timeout)))
            .map_err(StoreError::Unreachable)?;
        Ok(Self { link: Link::Crate(inner), lead: None })
    }

    /// It is where Sentinels have led to, and of no use once they name another Redis.
    pub(super) fn led(&mut self, lead: Lead) {
        self.lead = Some(lead);
    }

    /// An error once the Sentinels name another Redis.
    pub fn check_lead(&mut self) -> Result<(), StoreError> {
        match self.lead.as_mut().and_then(Lead::successor) {
            Some(other) => Err(StoreError::NoPrimary(format!("the Sentinels name another one, {other}"))),
            None => Ok(()),
        }
    }

    /// What the URL says beside the address.
    fn log_in(&mut self, settings: &RedisConnectionInfo) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        if let Some(password) = settings.password() {
            batch.command("AUTH");
            if let Some(username) = settings.username() {
                batch.arg(username);
            }
            batch.arg(password);
        }
        if settings.db() != 0 {
            batch.command("SELECT");
            batch.arg(settings.db());
        }
        for answer in self.run(&mut batch)? {
            if let Value::ServerError(error) = answer {
                return Err(StoreError::Unreachable(error.into()));
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        match &mut self.link {
            Link::Plain(wire) => wire.send(bytes).map_err(RedisError::from),
            Link::Crate(inner) => inner.send_packed_command(bytes),
        }
    }

    fn receive(&mut self) -> Result<Value, RedisError> {
        match &mut self.link {
            Link::Plain(wire) => wire.receive().map_err(RedisError::from),
            Link::Crate(inner) => inner.recv_response(),
        }
    }

    /// Sends the batch and reads all its answers. A command that Redis refuses is an answer
    /// (`Value::ServerError`), not an error. After an error the connection must be dropped: what it
    /// reads next would belong to another command.
    pub fn run(&mut self, batch: &mut Batch) -> Result<Vec<Value>, StoreError> {
        batch.finish_command();
        let count = batch.count;
        if count == 0 {
            return Ok(Vec::new());
        }
        self.check_lead()?;
        self.send(&batch.bytes).map_err(StoreError::Broken)?;
        batch.clear();
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(self.receive().map_err(StoreError::Broken)?);
        }
        if answers.iter().any(|answer| answers::error_code(answer) == Some(READONLY)) {
            // It was the primary before: another connection may lead to the one that is now.
            return Err(StoreError::NoPrimary("this one has become a read-only replica".to_owned()));
        }
        Ok(answers)
    }

    /// One command; its refusal is an error here.
    pub fn command(&mut self, name: &'static str, args: &[&str]) -> Result<Value, StoreError> {
        let mut batch = Batch::new();
        batch.command(name);
        for arg in args {
            batch.arg(*arg);
        }
        match self.run(&mut batch)?.pop() {
            Some(Value::ServerError(error)) => {
                Err(StoreError::Unexpected { command: name, answer: format!("{error:?}") })
            }
            Some(value) => Ok(value),
            None => Err(StoreError::Unexpected { command: name, answer: "nothing".to_owned() }),
        }
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the next command and returns the place of its answer.
    pub fn command(&mut self, name: &str) -> usize {
        self.finish_command();
        let place = self.count;
        self.current.write_arg(name.as_bytes());
        self.count += 1;
        place
    }

    /// Adds an argument to the command that was started last.
    pub fn arg<T: ToRedisArgs>(&mut self, value: T) -> &mut Self {
        value.write_redis_args(&mut self.current);
        self
    }

    /// Commands so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no command.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Drops every command.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.current.bytes.clear();
        self.current.count = 0;
        self.count = 0;
    }

    /// The place behind the last command.
    pub(super) fn mark(&mut self) -> Mark {
        self.finish_command();
        Mark { bytes: self.bytes.len(), count: self.count }
    }

    /// Takes the commands behind a place out again: their text, as it would go out.
    pub(super) fn take_from(&mut self, mark: Mark) -> Vec<u8> {
        self.finish_command();
        self.count = mark.count;
        self.bytes.split_off(mark.bytes)
    }

    fn finish_command(&mut self) {
        let Arguments { bytes, count } = &mut self.current;
        if *count > 0 {
            push_length(&mut self.bytes, b'*', *count);
            self.bytes.append(bytes);
            *count = 0;
        }
    }
}
