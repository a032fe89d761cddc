//! What the tags in Redis speak for: which of its fields, for each kind of thing. Whoever stores something makes its tag
//! here, and whoever reads it checks it here.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

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
const ARCHIVED: &str = "archived";
const REPORT: &str = "report";
const UNANSWERED: &str = "unanswered";

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

/// The tag of what is noted of archives, in hexadecimal.
pub fn archived_tag(keys: &StoreKeys, field: &str, value: &str) -> String {
    hex(&keys.tag(ARCHIVED, &[field.as_bytes(), value.as_bytes()]))
}

/// Whether a server has noted it.
pub fn check_archived(keys: &StoreKeys, field: &str, value: &str, tag: &str) -> Result<(), NotOurs> {
    keys.check(ARCHIVED, &[field.as_bytes(), value.as_bytes()], &tag_bytes(tag))
}

/// The tag of a server's report of itself, in hexadecimal.
pub fn report_tag(keys: &StoreKeys, key: &str, report: &str) -> String {
    hex(&keys.tag(REPORT, &[key.as_bytes(), report.as_bytes()]))
}

/// Whether a server has put it there.
pub fn check_report(keys: &StoreKeys, key: &str, report: &str, tag: &str) -> Result<(), NotOurs> {
    keys.check(REPORT, &[key.as_bytes(), report.as_bytes()], &tag_bytes(tag))
}

/// The tag of the news that no reply will come to a request, in hexadecimal.
pub fn unanswered_tag(keys: &StoreKeys, says: &str) -> String {
    hex(&keys.tag(UNANSWERED, &[says.as_bytes()]))
}

/// Whether a server tells it.
pub fn check_unanswered(keys: &StoreKeys, says: &str, tag: &str) -> Result<(), NotOurs> {
    keys.check(UNANSWERED, &[says.as_bytes()], &tag_bytes(tag))
}

/// A message as it stands in an inbox.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// The inbox.
    pub stream: &'a str,
    /// What is delivered.
    pub envelope: &'a str,
    /// Where in it the payload stands, which the tag is over by its digest: the record has that too. May be empty.
    pub payload: Range<usize>,
    /// When it expires, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// When it may be delivered first, in Unix milliseconds.
    pub not_before_ms: Option<u64>,
}

impl<'a> Message<'a> {
    /// One whose payload is not told apart.
    pub fn whole(stream: &'a str, envelope: &'a str) -> Self {
        Self { stream, envelope, payload: 0..0, expires_ms: None, not_before_ms: None }
    }

    /// Writes the value of [`ATTEST_FIELD`](super::keys::ATTEST_FIELD) into `out`: the tag, where the payload stands, the
    /// record's sequence, its lane. `digest`: the payload's SHA-256, where it is known.
    pub fn attest(&self, keys: &StoreKeys, on: OnRecord<'_>, digest: Option<[u8; 32]>, out: &mut String) {
        let (before, payload, behind) = self.split().unwrap_or((self.envelope.as_bytes(), b"", b""));
        let digest = digest.unwrap_or_else(|| Sha256::digest(payload).into());
        let numbers = self.numbers(on);
        let parts: [&[u8]; 6] =
            [self.stream.as_bytes(), on.lane.as_bytes(), &numbers, before, &digest, behind];
        let tag = keys.tag(ENTRY, &parts);
        out.clear();
        URL_SAFE_NO_PAD.encode_string(tag, out);
        for number in [self.payload.start as u64, self.payload.end as u64, on.seq] {
            out.push(' ');
            out.push_str(itoa::Buffer::new().format(number));
        }
        out.push(' ');
        out.push_str(on.lane);
    }

    fn split(&self) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
        let (before, rest) = self.envelope.as_bytes().split_at_checked(self.payload.start)?;
        let (payload, behind) = rest.split_at_checked(self.payload.end.checked_sub(self.payload.start)?)?;
        Some((before, payload, behind))
    }

    fn numbers(&self, on: OnRecord<'_>) -> [u8; 40] {
        // None is another number than any time.
        let time = |time: Option<u64>| time.map_or(0, |ms| ms.saturating_add(1));
        let (from, to) = (self.payload.start as u64, self.payload.end as u64);
        let numbers = [on.seq, time(self.expires_ms), time(self.not_before_ms), from, to];
        let mut bytes = [0; 40];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

/// Whether an entry of `stream` was put there by a server; the record that allowed it.
pub fn check_entry<'e>(
    keys: &StoreKeys,
    stream: &str,
    entry: &'e StreamEntry,
) -> Result<OnRecord<'e>, NotOurs> {
    let attest = entry.attest.as_deref().ok_or(NotOurs::Foreign)?;
    let (tag, payload, on) = read_entry(attest).ok_or(NotOurs::Foreign)?;
    let message = Message {
        stream,
        envelope: entry.envelope.as_deref().ok_or(NotOurs::Foreign)?,
        payload,
        expires_ms: entry.expires_ms,
        not_before_ms: entry.not_before_ms,
    };
    let (before, payload, behind) = message.split().ok_or(NotOurs::Foreign)?;
    let (digest, numbers) = (Sha256::digest(payload), message.numbers(on));
    let parts: [&[u8]; 6] = [stream.as_bytes(), on.lane.as_bytes(), &numbers, before, &digest, behind];
    keys.check(ENTRY, &parts, &tag)?;
    Ok(on)
}

/// The tag, where the payload stands, the record.
fn read_entry(attest: &[u8]) -> Option<(Tag, Range<usize>, OnRecord<'_>)> {
    let mut words = std::str::from_utf8(attest).ok()?.splitn(5, ' ');
    let tag = read_tag(words.next()?)?;
    let payload = words.next()?.parse().ok()?..words.next()?.parse().ok()?;
    let seq = words.next()?.parse().ok()?;
    Some((tag, payload, OnRecord { lane: words.next()?, seq }))
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
    Some((read_tag(text)?, OnRecord { lane, seq: seq.parse().ok()? }))
}

fn read_tag(text: &str) -> Option<Tag> {
    let mut tag = [0; TAG_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut tag).ok()?;
    (length == TAG_BYTES).then_some(tag)
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
