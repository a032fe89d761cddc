//! The messages that a round has written: what is read back in the same round needs no look at its tag.

use std::collections::HashMap;
use std::ops::Range;

use crate::ids::{AgentId, InstanceId};
use crate::store::answers::StreamEntry;

/// Where the part of an attestation begins that tells it from others: behind the key's id.
const KEY_FROM: usize = 6;
/// Characters of it that a message is found by.
const KEY_CHARS: usize = 16;

/// When a message expires and may be delivered first, where its sender has said so, in Unix milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub expires_ms: Option<u64>,
    pub not_before_ms: Option<u64>,
}

/// The messages of one round.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Envelopes and attestations, one behind the other.
    text: String,
    messages: HashMap<[u8; KEY_CHARS], Message, foldhash::fast::RandomState>,
}

/// One of them.
#[derive(Debug)]
struct Message {
    agent: AgentId,
    /// The instance whose own inbox it is in.
    owner: Option<InstanceId>,
    envelope: Range<usize>,
    attest: Range<usize>,
    times: Times,
}

fn key(attest: &[u8]) -> Option<[u8; KEY_CHARS]> {
    attest.get(KEY_FROM..)?.first_chunk().copied()
}

/// What an envelope and its attestation take, roughly, in bytes.
const TYPICAL_BYTES: usize = 768;

impl Written {
    /// With room for so many messages.
    pub(super) fn with_room(messages: usize) -> Self {
        Self {
            text: String::with_capacity(messages * TYPICAL_BYTES),
            messages: HashMap::with_capacity_and_hasher(messages, foldhash::fast::RandomState::default()),
        }
    }

    /// The text to which the next envelope is added; how long it is.
    pub(super) fn begin(&mut self) -> (&mut String, usize) {
        let from = self.text.len();
        (&mut self.text, from)
    }

    /// The envelope that was begun there.
    pub(super) fn envelope(&self, from: usize) -> &str {
        self.text.get(from..).unwrap_or_default()
    }

    /// The envelope that was begun there is written, with this attestation.
    pub(super) fn add(
        &mut self,
        (agent, owner): (&AgentId, Option<&InstanceId>),
        from: usize,
        attest: &str,
        times: Times,
    ) {
        let (envelope, begin) = (from..self.text.len(), self.text.len());
        self.text.push_str(attest);
        let attest = begin..self.text.len();
        let Some(key) = self.text.as_bytes().get(attest.clone()).and_then(key) else {
            return;
        };
        let (agent, owner) = (agent.clone(), owner.cloned());
        let _ = self.messages.insert(key, Message { agent, owner, envelope, attest, times });
    }

    /// Whether an entry of this inbox is one of these messages, byte for byte.
    pub(crate) fn holds(&self, (agent, owner): (&AgentId, Option<&InstanceId>), entry: &StreamEntry) -> bool {
        let (Some(attest), Some(envelope)) = (entry.attest.as_deref(), entry.envelope.as_deref()) else {
            return false;
        };
        let Some(message) = key(attest).and_then(|key| self.messages.get(&key)) else {
            return false;
        };
        let text = |range: &Range<usize>| self.text.get(range.clone()).unwrap_or_default();
        let Times { expires_ms, not_before_ms } = message.times;
        message.agent == *agent
            && message.owner.as_ref() == owner
            && text(&message.attest).as_bytes() == attest
            && text(&message.envelope) == envelope
            && (expires_ms, not_before_ms) == (entry.expires_ms, entry.not_before_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::answers::EntryId;

    #[test]
    fn a_message_is_held_as_it_was_written_and_where() {
        let (a, b) = (AgentId::parse("a").unwrap(), AgentId::parse("b").unwrap());
        let instance = InstanceId::parse("i").unwrap();
        let mut written = Written::default();
        let attest = format!("{} 1 lane", "x".repeat(27));
        let (text, from) = written.begin();
        text.push_str("{\"n\":1}");
        assert_eq!(written.envelope(from), "{\"n\":1}");
        written.add((&a, None), from, &attest, Times::default());
        let entry = StreamEntry {
            id: EntryId::ZERO,
            envelope: Some("{\"n\":1}".to_owned()),
            expires_ms: None,
            not_before_ms: None,
            attest: Some(attest.into_bytes()),
        };
        assert!(written.holds((&a, None), &entry));
        assert!(!written.holds((&b, None), &entry));
        assert!(!written.holds((&a, Some(&instance)), &entry));
        let others = [
            StreamEntry { envelope: Some("{\"n\":2}".to_owned()), ..entry.clone() },
            StreamEntry { expires_ms: Some(1), ..entry.clone() },
            StreamEntry { not_before_ms: Some(0), ..entry.clone() },
            StreamEntry { attest: Some(b"short".to_vec()), ..entry.clone() },
            StreamEntry {
                attest: entry.attest.map(|mut attest| {
                    attest.push(b'!');
                    attest
                }),
                ..entry
            },
        ];
        for other in others {
            assert!(!written.holds((&a, None), &other), "{other:?}");
        }
    }
}
