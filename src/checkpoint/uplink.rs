//! Brings checkpoints from the anchor to Redis, in order, and catches up with what Redis missed. Without an
//! anchor they wait in memory.

use std::collections::VecDeque;
use std::time::Duration;

use super::anchor::{Anchor, AnchorError};
use crate::audit::Checkpoint;
use crate::audit::note;
use crate::store::checkpoints::{self, Stored};
use crate::store::{Connection, StoreError};

/// Checkpoints brought in one step.
const STEP: usize = 256;
/// Checkpoints that wait for Redis where there is no anchor.
const MAX_WAITING: usize = 4096;
/// Checkpoints that Redis keeps of those that the anchor holds too, and nothing archives: a day's, and some.
const MAX_LIVE_CHECKPOINTS: u64 = 100_000;
/// Longest round trip: a checkpoint must not wait long for a Redis that hangs.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// Why Redis does not have all checkpoints.
#[derive(Debug, thiserror::Error)]
pub(super) enum UplinkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    #[error("Redis did not take a checkpoint: {0}")]
    Refused(String),
    #[error("{MAX_WAITING} checkpoints wait for Redis, and no anchor holds them")]
    TooMany,
}

pub(super) struct Uplink {
    url: String,
    timeout: Duration,
    connection: Option<Connection>,
    /// Up to here in the anchor Redis has everything.
    sent_to: u64,
    /// Where there is no anchor: what Redis has not.
    waiting: VecDeque<String>,
    /// Whether something else may take checkpoints out of Redis.
    archived: bool,
    foreign: bool,
}

impl Uplink {
    pub(super) fn new(url: &str, timeout: Duration, connection: Connection, archived: bool) -> Self {
        Self {
            url: url.to_owned(),
            timeout: timeout.min(MAX_ROUND_TRIP),
            connection: Some(connection),
            sent_to: 0,
            waiting: VecDeque::new(),
            archived,
            foreign: false,
        }
    }

    /// Redis has everything up to this place in the anchor.
    pub(super) fn set_sent(&mut self, offset: u64) {
        self.sent_to = offset;
    }

    /// Without an anchor: this one is to be brought.
    pub(super) fn enqueue(&mut self, note: String) -> Result<(), UplinkError> {
        if self.waiting.len() == MAX_WAITING {
            return Err(UplinkError::TooMany);
        }
        self.waiting.push_back(note);
        Ok(())
    }

    /// Brings what Redis has not.
    pub(super) fn bring(&mut self, anchor: Option<&mut Anchor>) -> Result<(), UplinkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.url, self.timeout)?,
        };
        match anchor {
            Some(anchor) => {
                while self.sent_to < anchor.end() {
                    for (note, next) in anchor.read_from(self.sent_to, STEP)? {
                        self.send(&mut connection, &note, Some(MAX_LIVE_CHECKPOINTS))?;
                        self.sent_to = next;
                    }
                }
            }
            None => {
                while let Some(note) = self.waiting.pop_front() {
                    if let Err(error) = self.send(&mut connection, &note, None) {
                        self.waiting.push_front(note);
                        return Err(error);
                    }
                }
            }
        }
        // Kept only where nothing went wrong with it.
        self.connection = Some(connection);
        Ok(())
    }

    fn send(
        &mut self,
        connection: &mut Connection,
        note: &str,
        max_len: Option<u64>,
    ) -> Result<(), UplinkError> {
        let time_ms = note::text_of(note).ok().and_then(|text| Checkpoint::parse(text).ok());
        let Some(time_ms) = time_ms.map(|checkpoint| checkpoint.time_ms) else {
            // `mas audit verify` finds the line; here it must not hold up those behind it.
            log::error!("the anchor holds a line that is no checkpoint; Redis does not get it");
            return Ok(());
        };
        let max_len = max_len.filter(|_| !self.archived);
        match checkpoints::append(connection, time_ms, note, max_len)? {
            Stored::Yes => {
                self.foreign = false;
                Ok(())
            }
            Stored::Foreign => {
                if !std::mem::replace(&mut self.foreign, true) {
                    log::error!(
                        "Redis holds checkpoints that this server did not write; those of this server are in \
                         its anchor"
                    );
                }
                Ok(())
            }
            Stored::Refused(error) => Err(UplinkError::Refused(error)),
        }
    }
}
