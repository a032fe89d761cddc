//! What can be wrong with a trail, and where it shows.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::lane::LaneId;
use crate::audit::record::Action;
use crate::ids::hex;

/// Where damage shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a record of a lane; 0: before its first.
    Record {
        /// The lane.
        lane: LaneId,
        /// The record.
        seq: u64,
    },
    /// At a checkpoint.
    Checkpoint {
        /// Of the trail or of the anchor.
        stream: Stream,
        /// The server's run.
        boot: Uuid,
        /// Its number.
        counter: u64,
    },
    /// At a note that is no checkpoint of this log.
    Note {
        /// Of the trail or of the anchor.
        stream: Stream,
        /// Its place, from 1.
        number: u64,
    },
    /// At a message that waits in Redis.
    Entry {
        /// The stream's key.
        stream: String,
        /// The entry's id.
        id: String,
    },
    /// At a message that is nowhere.
    Message {
        /// Its id.
        message: Uuid,
    },
}

/// The two places where checkpoints are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Beside the lanes.
    Trail,
    /// Outside Redis.
    Anchor,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trail => "trail",
            Self::Anchor => "anchor",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { lane, seq } => write!(f, "lane {} record {seq}", Plain(lane.as_str())),
            Self::Checkpoint { stream, boot, counter } => {
                write!(f, "{stream}: checkpoint {counter} of server run {}", boot.simple())
            }
            Self::Note { stream, number } => write!(f, "{stream}: checkpoint at place {number}"),
            Self::Entry { stream, id } => write!(f, "{} entry {}", Plain(stream), Plain(id)),
            Self::Message { message } => write!(f, "message {message}"),
        }
    }
}

/// Text of a stranger on one line of a terminal: control characters, separators of lines and marks that turn
/// the direction of writing are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            let harmful = c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c);
            if harmful {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// One finding that breaks the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it shows.
    pub place: Place,
    /// What is wrong.
    pub kind: DamageKind,
}

impl Damage {
    /// Names it, the same in each verification: for [`Action::Acknowledged`].
    pub fn id(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(format!("{}\n{}", self.kind.code(), self)).into();
        hex(digest.get(..ID_BYTES).unwrap_or_default())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.kind)
    }
}

/// The kinds of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageKind {
    /// Records between the last good one and this one are gone.
    Gap {
        /// The sequence that should stand here.
        expected: u64,
    },
    /// Bytes that are no block or no record.
    Malformed,
    /// A record claims another sequence than its place.
    WrongSequence {
        /// What it claims.
        claimed: u64,
    },
    /// The root after this block is not the stored one.
    HashMismatch,
    /// The first record does not open the lane.
    NotOpened,
    /// A lane's tree before its first block in a file is not what is known of it.
    WrongStart,
    /// The registry, or a checkpoint, lists the lane, and it has no records.
    LaneMissing,
    /// The lane has records, and the registry does not list it.
    LaneUnlisted,
    /// The next lane of the same worker says that this lane ended elsewhere.
    TailDiffers {
        /// Where the successor says it ended.
        stated: String,
    },
    /// Decisions on what an agent asked for are missing, or stand twice.
    SenderGap {
        /// Whose.
        agent: String,
        /// The number that should stand here.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// A message was handed on or finished that nobody was allowed to send.
    Unaccepted {
        /// What is said to have happened to it.
        action: Action,
        /// The message.
        message: Uuid,
    },
    /// A message waits in Redis that nobody was allowed to send.
    NotRecorded {
        /// The message.
        message: Uuid,
    },
    /// A message was handed on after it was done: somebody has put it back.
    Replayed {
        /// The message.
        message: Uuid,
    },
    /// Its tag names a store key that is not in the file at hand.
    OtherStoreKey,
    /// An agent's state is older than the newest change of it on record.
    StateRolledBack {
        /// Its version.
        found: u64,
        /// The newest one on record.
        recorded: u64,
    },
    /// No server, and no operator's command, has written it: it has no tag that fits.
    NotAttested,
    /// A message was accepted and is not done, and is in no inbox and not among the dead letters.
    MessageMissing {
        /// Whose inbox it should be in.
        agent: String,
    },
    /// A message is a dead letter, and is nowhere.
    LetterMissing {
        /// Whose dead letter it is.
        agent: String,
    },
    /// No checkpoint of this log, or not signed by the key in force at its time.
    NotSigned {
        /// Why not.
        why: String,
    },
    /// A checkpoint is missing before this one.
    CheckpointMissing {
        /// The counter that should stand here.
        expected: u64,
    },
    /// A checkpoint stands here again, or another under the same number.
    CheckpointRepeated,
    /// The checkpoint does not follow from the one before it.
    CheckpointUnlinked,
    /// A checkpoint's time or size is below that of the one before it.
    CheckpointBackwards,
    /// The checkpoint counts another number of records than its lanes hold.
    SizeDiffers {
        /// Records in its lanes.
        counted: u64,
        /// What it says.
        stated: u64,
    },
    /// The lane ends before the place that a signed checkpoint says it had reached.
    Truncated {
        /// The size in the checkpoint.
        sealed: u64,
        /// Where the checkpoint is.
        by: Stream,
    },
    /// The lane has that many records, and they are not those that were signed.
    Rewritten {
        /// The size in the checkpoint.
        sealed: u64,
        /// Where the checkpoint is.
        by: Stream,
    },
    /// The checkpoint is of a log whose key was not given.
    OtherLog {
        /// The log.
        origin: String,
    },
    /// The checkpoint is signed by a key that is not in the history that was given, and that may be newer than it.
    NewerKey {
        /// Name and hash of the key.
        found: String,
    },
    /// The anchor and the trail hold different checkpoints under one number.
    AnchorDiffers,
    /// Nothing was signed for too long although the server runs.
    Stale {
        /// Milliseconds since the newest checkpoint.
        age_ms: u64,
    },
}

impl DamageKind {
    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Malformed => "malformed",
            Self::WrongSequence { .. } => "wrong_sequence",
            Self::HashMismatch => "hash_mismatch",
            Self::NotOpened => "not_opened",
            Self::WrongStart => "wrong_start",
            Self::LaneMissing => "lane_missing",
            Self::LaneUnlisted => "lane_unlisted",
            Self::TailDiffers { .. } => "tail_differs",
            Self::SenderGap { .. } => "sender_gap",
            Self::Unaccepted { .. } => "unaccepted",
            Self::NotRecorded { .. } => "not_recorded",
            Self::NotAttested => "not_attested",
            Self::Replayed { .. } => "replayed",
            Self::OtherStoreKey => "other_store_key",
            Self::StateRolledBack { .. } => "state_rolled_back",
            Self::MessageMissing { .. } => "message_missing",
            Self::LetterMissing { .. } => "letter_missing",
            Self::NotSigned { .. } => "not_signed",
            Self::OtherLog { .. } => "other_log",
            Self::NewerKey { .. } => "newer_key",
            Self::CheckpointMissing { .. } => "checkpoint_missing",
            Self::CheckpointRepeated => "checkpoint_repeated",
            Self::CheckpointUnlinked => "checkpoint_unlinked",
            Self::CheckpointBackwards => "checkpoint_backwards",
            Self::SizeDiffers { .. } => "size_differs",
            Self::Truncated { .. } => "truncated",
            Self::Rewritten { .. } => "rewritten",
            Self::AnchorDiffers => "anchor_differs",
            Self::Stale { .. } => "stale",
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { expected } => write!(f, "records from {expected} on are missing"),
            Self::Malformed => f.write_str("bytes that are no audit record"),
            Self::WrongSequence { claimed } => write!(f, "claims to be record {claimed}"),
            Self::HashMismatch => {
                f.write_str("hash does not match: a record in this block or before it was altered")
            }
            Self::NotOpened => f.write_str("the lane does not begin with its opening record"),
            Self::WrongStart => f.write_str("the file begins the lane at another tree than is known of it"),
            Self::LaneMissing => f.write_str("the lane is registered or signed for, and has no records"),
            Self::LaneUnlisted => f.write_str("the lane is not registered"),
            Self::TailDiffers { stated } => {
                write!(f, "the lane ends here, and its successor says it ended at {stated}")
            }
            Self::SenderGap { agent, expected, found } => {
                write!(
                    f,
                    "this is decision {found} on what {} asked for, {expected} should come next",
                    Plain(agent)
                )
            }
            Self::Unaccepted { action, message } => {
                write!(f, "{} of message {message}, which was never accepted", action.as_str())
            }
            Self::NotRecorded { message } => {
                write!(f, "message {message} waits here, and is not on record as accepted")
            }
            Self::NotAttested => f.write_str("no server has written this here"),
            Self::Replayed { message } => {
                write!(f, "message {message} was handed on here after it was done")
            }
            Self::OtherStoreKey => {
                f.write_str("its tag names a store key that is not in the file at hand: an older copy of it?")
            }
            Self::StateRolledBack { found, recorded } => {
                write!(f, "version {found} of the state, version {recorded} is on record")
            }
            Self::MessageMissing { agent } => write!(
                f,
                "accepted for {}, neither done nor a dead letter, and not in the inbox: removed from Redis, or never \
                 stored",
                Plain(agent)
            ),
            Self::LetterMissing { agent } => write!(
                f,
                "a dead letter of {}, neither put back nor dropped, and neither in Redis nor in a file of the archive: \
                 removed",
                Plain(agent)
            ),
            Self::NotSigned { why } => f.write_str(&Plain(why).to_string()),
            Self::OtherLog { origin } => write!(
                f,
                "the checkpoint is of log {}, and its key was not given (--public-key, gateway.audit.logs)",
                Plain(origin)
            ),
            Self::NewerKey { found } => write!(
                f,
                "the checkpoint is signed by key {}, which is not in the key history that was given: was the key rotated \
                 since? Take the log's newest .pub",
                Plain(found)
            ),
            Self::CheckpointMissing { expected } => write!(f, "checkpoint {expected} should stand here"),
            Self::CheckpointRepeated => f.write_str("an old checkpoint stands here again"),
            Self::CheckpointUnlinked => f.write_str("does not name the checkpoint before it"),
            Self::CheckpointBackwards => f.write_str("its time or its size is below the one before"),
            Self::SizeDiffers { counted, stated } => {
                write!(f, "it counts {stated} records, its lanes hold {counted}")
            }
            Self::Truncated { sealed, by } => {
                write!(f, "the lane ends here, and a checkpoint in the {by} was signed over {sealed} records")
            }
            Self::Rewritten { sealed, by } => write!(
                f,
                "one of the first {sealed} records is not the one that a checkpoint in the {by} was signed over"
            ),
            Self::AnchorDiffers => f.write_str("the anchor and the trail hold different ones"),
            Self::Stale { age_ms } => {
                write!(f, "the newest one, {age_ms} ms old, while a server runs that signs more often")
            }
        }
    }
}

/// Findings in the order in which they show, up to a bound.
#[derive(Debug, Default)]
pub struct Damages {
    found: Vec<Damage>,
    further: u64,
}

/// Bytes of a damage's id.
const ID_BYTES: usize = 8;
/// Most findings that are listed; further ones are counted.
pub const MAX_DAMAGES: usize = 10_000;

impl Damages {
    /// One more.
    pub fn add(&mut self, place: Place, kind: DamageKind) {
        if self.found.len() < MAX_DAMAGES {
            self.found.push(Damage { place, kind });
        } else {
            self.further += 1;
        }
    }

    /// Those that are listed.
    pub fn listed(&self) -> &[Damage] {
        &self.found
    }

    /// How many there are beyond those.
    pub fn further(&self) -> u64 {
        self.further
    }
}
