//! Brings checkpoints from the anchor to Redis, in order, and catches up with what Redis missed. Without an
//! anchor they wait in memory.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::anchor::{Anchor, AnchorError};
use crate::audit::{Checkpoint, StoreKeys, note};
use crate::store::answers::EntryId;
use crate::store::archived;
use crate::store::checkpoints::{self, Newest};
use crate::store::{Connection, Endpoint, StoreError};

/// Checkpoints brought in one step.
const STEP: usize = 256;
/// Checkpoints that wait for Redis where there is no anchor.
const MAX_WAITING: usize = 4096;
/// Checkpoints that Redis keeps of those that the anchor holds too, and nothing archives: a day's, and some.
const MAX_LIVE_CHECKPOINTS: u64 = 100_000;
/// Longest round trip: a checkpoint must not wait long for a Redis that hangs.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// Checkpoints of which it is remembered where they are: far more than are brought while one waits for the archive.
const MAX_PLACES: usize = 4096;

/// Tries, each of which another connection of this run may disturb: one that was given up, and that has
/// something on its way yet.
const MAX_TURNS: usize = 3;

/// Why Redis does not have all checkpoints.
#[derive(Debug, thiserror::Error)]
pub(super) enum UplinkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    #[error("{MAX_WAITING} checkpoints wait for Redis, and no anchor holds them")]
    TooMany,
    #[error("what was sent on broken connections keeps arriving")]
    Disturbed,
}

pub(super) struct Uplink {
    endpoint: Endpoint,
    connection: Option<Connection>,
    boot: Uuid,
    /// Up to here in the anchor Redis has everything.
    sent_to: u64,
    /// Up to here in the anchor checkpoints of earlier boots are brought too; behind it those of other
    /// servers, which bring them themselves.
    others_to: u64,
    /// Where there is no anchor: what Redis has not.
    waiting: VecDeque<String>,
    /// Whether something else takes checkpoints out of Redis.
    archived: bool,
    /// A connection broke: the next checkpoint may be there already.
    uncertain: bool,
    /// The last one that Redis took.
    taken: Option<String>,
    /// Where Redis has put those of this run, and how far in the anchor that is; the last [`MAX_PLACES`].
    places: VecDeque<(EntryId, u64)>,
}

impl Uplink {
    pub(super) fn new(endpoint: &Endpoint, boot: Uuid, archived: bool) -> Self {
        Self {
            endpoint: endpoint.within(MAX_ROUND_TRIP),
            connection: None,
            boot,
            sent_to: 0,
            others_to: 0,
            waiting: VecDeque::new(),
            archived,
            uncertain: false,
            taken: None,
            places: VecDeque::new(),
        }
    }

    /// Finds out what Redis has of the anchor. What it lacks of earlier boots is brought, unless other servers
    /// run, which may be about to bring it.
    pub(super) fn look(
        &mut self,
        connection: &mut Connection,
        anchor: &mut Anchor,
        alone: bool,
    ) -> Result<(), UplinkError> {
        // A Redis that knows none of them was rolled back, or is another one: it gets those to come.
        let known = anchor.behind(&checkpoints::recent(connection)?)?.filter(|_| alone);
        self.sent_to = known.unwrap_or(anchor.end());
        self.others_to = anchor.end();
        Ok(())
    }

    /// Whether Redis has everything that is in the anchor.
    pub(super) fn has_all(&self, anchor: &Anchor) -> bool {
        self.sent_to == anchor.end()
    }

    /// The anchor goes on in a new file.
    pub(super) fn continued(&mut self) {
        self.sent_to = 0;
        self.others_to = 0;
        self.places.clear();
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
    pub(super) fn bring(
        &mut self,
        mut anchor: Option<&mut Anchor>,
        keys: &StoreKeys,
    ) -> Result<(), UplinkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.endpoint.open()?;
                checkpoints::take_turn(&mut connection, self.boot)?;
                if let Some(anchor) = &mut anchor {
                    self.look_again(&mut connection, anchor, keys)?;
                }
                connection
            }
        };
        match anchor {
            Some(anchor) => {
                while self.sent_to < anchor.end() {
                    for (note, next) in anchor.read_from(self.sent_to, STEP)? {
                        if next <= self.others_to || self.is_own(&note) {
                            let id = self.send(&mut connection, &note, Some(MAX_LIVE_CHECKPOINTS))?;
                            self.placed(id, next);
                        }
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

    /// Another Redis may have taken over, which lacks what the last one took: it is brought again.
    fn look_again(
        &mut self,
        connection: &mut Connection,
        anchor: &mut Anchor,
        keys: &StoreKeys,
    ) -> Result<(), UplinkError> {
        let Some(taken) = &self.taken else {
            return Ok(());
        };
        match checkpoints::newest_where(connection, |note| self.is_own(note))? {
            Newest::Found(note) if note == *taken => {}
            Newest::Found(note) => {
                // The newest may also be one whose answer was lost.
                if let Some(behind) = anchor.behind(&HashSet::from([note]))? {
                    self.sent_to = behind;
                }
            }
            Newest::None => {
                // Those that were archived have left in order. One that a failover lost counts as archived, too, where a later one
                // of another server is by now.
                let archived = archived::newest(connection, keys)?;
                let left =
                    self.places.iter().rev().find(|(id, _)| archived.is_some_and(|newest| *id <= newest));
                self.sent_to = left.map_or(self.others_to, |(_, to)| *to);
            }
            Newest::TooFarBack => {}
        }
        Ok(())
    }

    fn is_own(&self, note: &str) -> bool {
        let text = note::text_of(note).ok();
        let checkpoint = text.and_then(|text| Checkpoint::parse(text).ok());
        checkpoint.is_some_and(|checkpoint| checkpoint.boot == self.boot)
    }

    fn send(
        &mut self,
        connection: &mut Connection,
        note: &str,
        max_len: Option<u64>,
    ) -> Result<Option<EntryId>, UplinkError> {
        for _ in 0..MAX_TURNS {
            if self.uncertain
                && let Some(id) = checkpoints::id_of(connection, note)?
            {
                self.took(note);
                return Ok(Some(id));
            }
            self.uncertain = true;
            let id = checkpoints::append(connection, self.boot, note, max_len.filter(|_| !self.archived))?;
            if id.is_some() {
                self.took(note);
                return Ok(id);
            }
        }
        Err(UplinkError::Disturbed)
    }

    /// Redis has put one under this id; it ends here in the anchor.
    fn placed(&mut self, id: Option<EntryId>, to: u64) {
        if self.places.len() == MAX_PLACES {
            let _ = self.places.pop_front();
        }
        self.places.extend(id.map(|id| (id, to)));
    }

    /// Nothing more is brought.
    pub(super) fn close(mut self) -> Result<(), UplinkError> {
        // Without a connection it runs out by itself.
        match &mut self.connection {
            Some(connection) => Ok(checkpoints::leave_turn(connection, self.boot)?),
            None => Ok(()),
        }
    }

    fn took(&mut self, note: &str) {
        self.uncertain = false;
        self.taken = Some(note.to_owned());
    }
}
