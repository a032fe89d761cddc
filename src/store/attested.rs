//! What the tags in Redis speak for: which of its fields, for each kind of thing. Whoever stores something makes its tag
//! here, and whoever reads it checks it here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::answers::{EntryId, StreamEntry};
use crate::audit::LaneId;
use crate::audit::attest::{NotOurs, StoreKeys, TAG_BYTES, Tag};
use crate::audit::lane::{Hash, Head};
use crate::ids::{AgentId, CorrelationId, hex, unhex};

const BLOCK: &str = "block";
const LANE: &str = "lane";
const ENTRY: &str = "entry";
const LETTER: &str = "letter";
const REQUEST: &str = "request";
const MEMORY: &str = "memory";

/// The record that allowed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnRecord<'a> {
    /// In this lane.
    pub lane: &'a str,
    /// The record's sequence.
    pub seq: u64,
}

/// The tag of a block: of its lane, of the first and the last record in it, and of all records up to the last one, by
/// their root.
pub fn block_tag(keys: &StoreKeys, lane: &LaneId, (first, last): (u64, u64), root: &Hash) -> Tag {
    keys.tag(BLOCK, &[lane.as_str().as_bytes(), &first.to_be_bytes(), &last.to_be_bytes(), root])
}

/// Whether a block was written by a server.
pub fn check_block(
    keys: &StoreKeys,
    lane: &LaneId,
    (first, last): (u64, u64),
    root: &[u8],
    tag: &[u8],
) -> Result<(), NotOurs> {
    let parts: [&[u8]; 4] = [lane.as_str().as_bytes(), &first.to_be_bytes(), &last.to_be_bytes(), root];
    keys.check(BLOCK, &parts, tag)
}

/// The tag of where a lane ended that was taken over, in hexadecimal.
pub fn lane_tag(keys: &StoreKeys, lane: &LaneId, head: &Head) -> String {
    hex(&keys.tag(LANE, &[lane.as_str().as_bytes(), &head.seq.to_be_bytes(), &head.hash]))
}

/// Whether a lane was taken over by a server, as it ended there.
pub fn check_lane(keys: &StoreKeys, lane: &LaneId, head: &Head, tag: &str) -> Result<(), NotOurs> {
    let parts: [&[u8]; 3] = [lane.as_str().as_bytes(), &head.seq.to_be_bytes(), &head.hash];
    keys.check(LANE, &parts, &tag_bytes(tag))
}

/// A message as it stands in an inbox.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The inbox.
    pub stream: &'a str,
    /// What is delivered.
    pub envelope: &'a str,
    /// When it expires, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// When it may be delivered first, in Unix milliseconds.
    pub not_before_ms: Option<u64>,
}

impl Message<'_> {
    /// Writes the value of [`ATTEST_FIELD`](super::keys::ATTEST_FIELD) into `out`: the tag, the record's sequence, its lane.
    pub fn attest(&self, keys: &StoreKeys, on: OnRecord<'_>, out: &mut String) {
        let numbers = self.numbers(on);
        write(out, &keys.tag(ENTRY, &self.parts(on, &numbers)), on);
    }

    fn numbers(&self, on: OnRecord<'_>) -> [[u8; 8]; 3] {
        // None is another number than any time.
        let time = |time: Option<u64>| time.map_or(0, |ms| ms.saturating_add(1));
        [on.seq, time(self.expires_ms), time(self.not_before_ms)].map(u64::to_be_bytes)
    }

    fn parts<'a>(&'a self, on: OnRecord<'a>, [seq, expires, not_before]: &'a [[u8; 8]; 3]) -> [&'a [u8]; 6] {
        [self.stream.as_bytes(), on.lane.as_bytes(), seq, expires, not_before, self.envelope.as_bytes()]
    }
}

/// Whether an entry of `stream` was put there by a server; the record that allowed it.
pub fn check_entry<'e>(
    keys: &StoreKeys,
    stream: &str,
    entry: &'e StreamEntry,
) -> Result<OnRecord<'e>, NotOurs> {
    let (tag, on) = entry.attest.as_deref().and_then(read).ok_or(NotOurs::Foreign)?;
    let message = Message {
        stream,
        envelope: entry.envelope.as_deref().ok_or(NotOurs::Foreign)?,
        expires_ms: entry.expires_ms,
        not_before_ms: entry.not_before_ms,
    };
    let numbers = message.numbers(on);
    keys.check(ENTRY, &message.parts(on, &numbers), &tag)?;
    Ok(on)
}

/// A dead letter as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct LetterText<'a> {
    /// What was to be delivered.
    pub envelope: &'a str,
    /// Whose inbox it was in.
    pub agent: &'a str,
    /// Who held it last.
    pub instance: &'a str,
    /// Why it is here.
    pub reason: &'a str,
    /// Deliveries it had.
    pub attempts: u32,
    /// The failed ones, as JSON.
    pub history: &'a str,
    /// The stream it was in.
    pub stream: &'a str,
    /// When it was added (Unix milliseconds).
    pub time_ms: u64,
}

impl LetterText<'_> {
    /// Writes the value of [`ATTEST_FIELD`](super::keys::ATTEST_FIELD) into `out`.
    pub fn attest(&self, keys: &StoreKeys, on: OnRecord<'_>, out: &mut String) {
        let numbers = self.numbers(on);
        write(out, &keys.tag(LETTER, &self.parts(on, &numbers)), on);
    }

    /// Whether it was put among the dead letters by a server or an operator's command; the record of that.
    pub fn check<'e>(&self, keys: &StoreKeys, attest: &'e [u8]) -> Result<OnRecord<'e>, NotOurs> {
        let (tag, on) = read(attest).ok_or(NotOurs::Foreign)?;
        let numbers = self.numbers(on);
        keys.check(LETTER, &self.parts(on, &numbers), &tag)?;
        Ok(on)
    }

    fn numbers(&self, on: OnRecord<'_>) -> [[u8; 8]; 3] {
        [on.seq, u64::from(self.attempts), self.time_ms].map(u64::to_be_bytes)
    }

    fn parts<'a>(&'a self, on: OnRecord<'a>, [seq, attempts, time]: &'a [[u8; 8]; 3]) -> [&'a [u8]; 10] {
        [
            self.stream.as_bytes(),
            on.lane.as_bytes(),
            seq,
            attempts,
            time,
            self.agent.as_bytes(),
            self.instance.as_bytes(),
            self.reason.as_bytes(),
            self.history.as_bytes(),
            self.envelope.as_bytes(),
        ]
    }
}

/// The tag of a pending request, in hexadecimal. `says`: who asked, which instance, who was asked, by which message.
pub fn request_tag(keys: &StoreKeys, id: &CorrelationId, says: [&str; 4]) -> String {
    hex(&keys.tag(REQUEST, &request_parts(id, says)))
}

/// Whether a pending request was stored by a server.
pub fn check_request(
    keys: &StoreKeys,
    id: &CorrelationId,
    says: [&str; 4],
    tag: &str,
) -> Result<(), NotOurs> {
    keys.check(REQUEST, &request_parts(id, says), &tag_bytes(tag))
}

fn request_parts<'a>(
    id: &'a CorrelationId,
    [sender, instance, target, message]: [&'a str; 4],
) -> [&'a [u8]; 5] {
    [id.as_bytes(), sender.as_bytes(), instance.as_bytes(), target.as_bytes(), message.as_bytes()]
}

/// The tag of what is remembered under an idempotency key, in hexadecimal.
pub fn memory_tag(keys: &StoreKeys, sender: &AgentId, key: &str, text: &str) -> String {
    hex(&keys.tag(MEMORY, &[sender.as_str().as_bytes(), key.as_bytes(), text.as_bytes()]))
}

/// Whether it was stored by a server.
pub fn check_memory(
    keys: &StoreKeys,
    sender: &AgentId,
    key: &str,
    text: &str,
    tag: &str,
) -> Result<(), NotOurs> {
    keys.check(MEMORY, &[sender.as_str().as_bytes(), key.as_bytes(), text.as_bytes()], &tag_bytes(tag))
}

fn write(out: &mut String, tag: &Tag, on: OnRecord<'_>) {
    out.clear();
    URL_SAFE_NO_PAD.encode_string(tag, out);
    out.push(' ');
    out.push_str(itoa::Buffer::new().format(on.seq));
    out.push(' ');
    out.push_str(on.lane);
}

fn read(attest: &[u8]) -> Option<(Tag, OnRecord<'_>)> {
    let mut words = std::str::from_utf8(attest).ok()?.splitn(3, ' ');
    let (text, seq, lane) = (words.next()?, words.next()?, words.next()?);
    let mut tag = [0; TAG_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut tag).ok()?;
    (length == TAG_BYTES).then_some((tag, OnRecord { lane, seq: seq.parse().ok()? }))
}

/// A tag's bytes; of what is none: none, which fit nothing.
fn tag_bytes(text: &str) -> Vec<u8> {
    unhex(text).unwrap_or_default()
}

/// What somebody else has put into Redis, as it is put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The key it was under.
    pub key: String,
    /// Which entry of it, where it was a stream.
    pub entry: Option<EntryId>,
    /// Its fields, names and values in turn; of a string its value alone.
    pub bytes: Vec<Vec<u8>>,
}
