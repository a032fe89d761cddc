//! One audit record: canonical, length-prefixed bytes; never JSON, so there is one encoding of a fact
//! and no field can break out of its place.
//!
//! Layout: version `u8`, action `u8`, decision `u8`, then five numbers (sequence, time in Unix
//! microseconds, the sender's sequence, attempt, payload length), then the variable fields in the order
//! of [`Fields`], each behind its length. Numbers and lengths are unsigned LEB128 in their shortest
//! form, so every record has one encoding. The last field, the trace, is left out where it is empty: records of earlier versions have
//! none. Nothing may follow.

use uuid::Uuid;

use crate::ids::{CorrelationId, hex};

/// The rule on record where a sender repeated a message with its idempotency key: the first one's decision
/// stands, and nothing is sent.
pub const REPETITION_RULE: &str = "idempotent_repetition";
/// The rule of a refused delivery that is no failure and no attempt: its receiver cannot handle the message now.
pub const LATER_RULE: &str = "later";
/// The reason on record where dead letters were moved to a file of the archive; the rule says how many.
pub const LETTERS_MOVED: &str = "too_many_dead_letters";
/// Layout version of [`encode`].
const VERSION: u8 = 2;
/// Bytes of one message in [`Fields::messages`]: its id and the number of the delivery.
const MESSAGE_BYTES: usize = 17;
/// Messages that one custody record can hold.
pub const MAX_RECORD_MESSAGES: usize = MAX_FIELD_BYTES / MESSAGE_BYTES;
/// Longest variable field; longer text is cut at a character boundary (all inputs are bounded lower).
const MAX_FIELD_BYTES: usize = 4096;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every member.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stored code.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The member with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The name that operators see.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

coded! {
    /// What was asked for, or what happened.
    Action {
        /// A lane began; names the lane that this worker wrote before.
        LaneOpened = 1, "lane_opened";
        /// A lane ended in order.
        LaneClosed = 2, "lane_closed";
        /// Send.
        Send = 3, "send";
        /// Request.
        Request = 4, "request";
        /// Reply.
        Reply = 5, "reply";
        /// Transport: a session began, or was refused.
        SessionOpen = 6, "session_open";
        /// A session ended.
        SessionClose = 7, "session_close";
        /// Discover.
        Discover = 8, "discover";
        /// GetState.
        StateGet = 9, "state_get";
        /// UpdateState.
        StateUpdate = 10, "state_update";
        /// ResetState.
        StateReset = 11, "state_reset";
        /// A receiver refused a delivery.
        Nack = 12, "nack";
        /// A message went to the dead letters.
        DeadLetter = 13, "dead_letter";
        /// An effect whose decision is on record could not be carried out.
        EffectFailed = 14, "effect_failed";
        /// A target's handlers failed too often: nothing is sent to it for a while.
        CircuitOpened = 15, "circuit_opened";
        /// A target's handlers succeed again.
        CircuitClosed = 16, "circuit_closed";
        /// Another configuration is in force; its digest is the policy version.
        ConfigChanged = 17, "config_changed";
        /// Messages went out to a session.
        Delivered = 18, "delivered";
        /// A session acknowledged messages: they leave its inbox.
        Acked = 19, "acked";
        /// An operator put a dead letter back into its inbox.
        Redriven = 20, "redriven";
        /// An operator removed a dead letter.
        Dropped = 21, "dropped";
        /// A message was older than its sender allows when its turn came.
        Expired = 22, "expired";
        /// A server began to serve.
        ServerStarted = 23, "server_started";
        /// A server stopped in order.
        ServerStopped = 24, "server_stopped";
        /// Certificates of the server were replaced.
        CertificateChanged = 25, "certificate_changed";
        /// The key that signs checkpoints was replaced.
        SigningKeyChanged = 26, "signing_key_changed";
        /// The deny-list of certificates was replaced.
        RevocationsChanged = 27, "revocations_changed";
        /// One handler's work, whole: state, messages and acknowledgement.
        Commit = 28, "commit";
        /// A record segment went to the archive and left Redis.
        Archived = 29, "archived";
        /// Redis does not hold what the anchor outside it says it held.
        TrailDiffers = 30, "trail_differs";
        /// Messages are not in their inbox any more, and no server took them out.
        Vanished = 31, "vanished";
        /// A connection did what no client may, and was cut.
        ConnectionCut = 32, "connection_cut";
        /// A connection was turned away after its handshake.
        ConnectionRefused = 33, "connection_refused";
        /// Calls were refused before anything looked at them: too many of that identity had been.
        CallsRefused = 34, "calls_refused";
        /// Somebody else than a server has put something into Redis; it was put aside.
        ForeignEntry = 35, "foreign_entry";
        /// A log began, and took over what was in Redis before it. It has no tags of servers.
        TakenOver = 36, "taken_over";
        /// Another store key makes tags.
        StoreKeyChanged = 37, "store_key_changed";
        /// An operator knows of a damage that a verification names; the target is its id.
        Acknowledged = 38, "acknowledged";
        /// An operator has brought a dead letter back from the archive's folder to the dead letters in Redis.
        LetterRestored = 39, "letter_restored";
        /// An operator has shut out agents: the target says which.
        Quarantined = 40, "quarantined";
        /// An operator lets agents in again.
        Released = 41, "released";
        /// An operator told a server to do something, or was not allowed to; the rule says what.
        Commanded = 42, "commanded";
    }
}

coded! {
    /// The outcome.
    Decision {
        /// Allowed by a rule.
        Allowed = 1, "ALLOWED";
        /// Allowed, with a finding worth a look.
        Alert = 2, "ALERT";
        /// Allowed with sensitive data removed.
        DlpRedacted = 3, "DLP_REDACTED";
        /// Refused: sensitive data.
        DlpBlocked = 4, "DLP_BLOCKED";
        /// Refused: too many messages.
        RateLimited = 5, "RATE_LIMITED";
        /// Refused: the target fails.
        CircuitOpen = 6, "CIRCUIT_OPEN";
        /// Refused: no rule allows it.
        AuthzDenied = 7, "AUTHZ_DENIED";
        /// Refused: no acceptable identity.
        Unauthenticated = 8, "UNAUTHENTICATED";
        /// Refused: malformed, out of bounds, or out of order.
        Refused = 9, "REFUSED";
        /// No decision: something happened.
        Event = 10, "EVENT";
    }
}

/// What a record says, borrowed from where it is decided. Empty means absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// The acting agent.
    pub agent: &'a str,
    /// Its instance.
    pub instance: &'a str,
    /// SHA-256 of its certificate: 32 bytes.
    pub fingerprint: &'a [u8],
    /// Id of the message: 16 bytes.
    pub message_id: Option<Uuid>,
    /// Type of the message, as the sender gave it.
    pub message_type: &'a str,
    /// The agent it is for, as the sender gave it.
    pub target: &'a str,
    /// The one instance it is for (replies).
    pub target_instance: &'a str,
    /// The request it belongs to.
    pub correlation_id: Option<CorrelationId>,
    /// SHA-256 of the payload: 32 bytes.
    pub payload_digest: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// Which delivery of the message this is about, from 1; 0: none.
    pub attempt: u32,
    /// The rule that decided.
    pub rule: &'a str,
    /// Status detail or other plain reason.
    pub reason: &'a str,
    /// Digest of the configuration in force: 32 bytes.
    pub policy_version: &'a [u8],
    /// What was found in the payload: JSON without the text itself.
    pub findings: &'a str,
    /// The messages that a custody record is about, at most [`MAX_RECORD_MESSAGES`], each with the
    /// number of its delivery.
    pub messages: &'a [(Uuid, u8)],
    /// The number of this decision among its agent's in the lane, from 1; 0: not counted.
    pub sender_seq: u64,
    /// The trace context that is forwarded with the message: `traceparent`, a blank and `tracestate` where there is one.
    pub trace: &'a str,
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in its lane, from 1.
    pub seq: u64,
    /// Unix microseconds.
    pub time_us: u64,
    /// What was asked for.
    pub action: Action,
    /// The outcome.
    pub decision: Decision,
    /// Delivery number, or 0.
    pub attempt: u32,
    /// Payload length in bytes.
    pub payload_len: u32,
    /// The acting agent.
    pub agent: String,
    /// Its instance.
    pub instance: String,
    /// SHA-256 of its certificate.
    pub fingerprint: Vec<u8>,
    /// Id of the message.
    pub message_id: Option<Uuid>,
    /// Type of the message.
    pub message_type: String,
    /// The agent it is for.
    pub target: String,
    /// The one instance it is for.
    pub target_instance: String,
    /// The request it belongs to, as 32 hexadecimal characters or empty.
    pub correlation_id: String,
    /// SHA-256 of the payload.
    pub payload_digest: Vec<u8>,
    /// The rule that decided.
    pub rule: String,
    /// Status detail.
    pub reason: String,
    /// Digest of the configuration in force.
    pub policy_version: Vec<u8>,
    /// What was found in the payload: JSON, or empty.
    pub findings: String,
    /// The messages that a custody record is about, each with the number of its delivery.
    pub messages: Vec<(Uuid, u8)>,
    /// The number of this decision among its agent's in the lane, or 0.
    pub sender_seq: u64,
    /// The trace context of the message, or empty.
    pub trace: String,
}

/// Appends the canonical bytes of one record to `out`.
pub fn encode(
    out: &mut Vec<u8>,
    seq: u64,
    time_us: u64,
    action: Action,
    decision: Decision,
    fields: &Fields<'_>,
) {
    out.extend_from_slice(&[VERSION, action.code(), decision.code()]);
    push_number(out, seq);
    push_number(out, time_us);
    push_number(out, fields.sender_seq);
    push_number(out, u64::from(fields.attempt));
    push_number(out, u64::from(fields.payload_len));
    push_text(out, fields.agent);
    push_text(out, fields.instance);
    push(out, fields.fingerprint);
    push(out, fields.message_id.as_ref().map_or(&[], |id| id.as_bytes().as_slice()));
    push_text(out, fields.message_type);
    push_text(out, fields.target);
    push_text(out, fields.target_instance);
    push(out, fields.correlation_id.as_ref().map_or(&[], |id| id.as_bytes().as_slice()));
    push(out, fields.payload_digest);
    push_text(out, fields.rule);
    push_text(out, fields.reason);
    push(out, fields.policy_version);
    push_text(out, fields.findings);
    let messages = fields.messages.get(..MAX_RECORD_MESSAGES).unwrap_or(fields.messages);
    push_number(out, (messages.len() * MESSAGE_BYTES) as u64);
    for (id, attempt) in messages {
        out.extend_from_slice(id.as_bytes());
        out.push(*attempt);
    }
    if !fields.trace.is_empty() {
        push_text(out, fields.trace);
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MAX_FIELD_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    push(out, text.get(..end).unwrap_or_default().as_bytes());
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..MAX_FIELD_BYTES).unwrap_or(bytes);
    push_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A record read back without a copy: texts and bytes are those of the block. For whoever reads many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// Position in its lane, from 1.
    pub seq: u64,
    /// Unix microseconds.
    pub time_us: u64,
    /// What was asked for.
    pub action: Action,
    /// The outcome.
    pub decision: Decision,
    /// Delivery number, or 0.
    pub attempt: u32,
    /// Payload length in bytes.
    pub payload_len: u32,
    /// The number of this decision among its agent's in the lane, or 0.
    pub sender_seq: u64,
    /// The acting agent.
    pub agent: &'a str,
    /// Its instance.
    pub instance: &'a str,
    /// SHA-256 of its certificate.
    pub fingerprint: &'a [u8],
    /// Id of the message.
    pub message_id: Option<Uuid>,
    /// Type of the message.
    pub message_type: &'a str,
    /// The agent it is for.
    pub target: &'a str,
    /// The one instance it is for.
    pub target_instance: &'a str,
    /// The request it belongs to.
    pub correlation_id: Option<&'a [u8; 16]>,
    /// SHA-256 of the payload.
    pub payload_digest: &'a [u8],
    /// The rule that decided.
    pub rule: &'a str,
    /// Status detail.
    pub reason: &'a str,
    /// Digest of the configuration in force.
    pub policy_version: &'a [u8],
    /// What was found in the payload: JSON, or empty.
    pub findings: &'a str,
    /// The messages that a custody record is about.
    pub messages: Messages<'a>,
    /// The trace context of the message: `traceparent`, a blank and `tracestate` where there is one; or empty.
    pub trace: &'a str,
}

/// The messages of a custody record, each with the number of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages<'a>(&'a [u8]);

impl Messages<'_> {
    /// Each message's id and the number of its delivery.
    pub fn iter(&self) -> impl Iterator<Item = (Uuid, u8)> {
        self.0.chunks_exact(MESSAGE_BYTES).filter_map(|item| {
            let (id, attempt) = item.split_first_chunk::<16>()?;
            Some((Uuid::from_bytes(*id), *attempt.first()?))
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> View<'a> {
    /// The time of a record, without reading the rest of it.
    pub fn time_of(bytes: &[u8]) -> Option<u64> {
        let ([version, _, _], rest) = bytes.split_first_chunk::<3>()?;
        let mut reader = Reader { rest };
        let _ = (*version == VERSION).then(|| reader.number())??;
        reader.number()
    }

    /// Reads canonical bytes back; `None` when they are not the encoding of any record.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let ([version, action, decision], rest) = bytes.split_first_chunk::<3>()?;
        if *version != VERSION {
            return None;
        }
        let mut reader = Reader { rest };
        let view = Self {
            action: Action::from_code(*action)?,
            decision: Decision::from_code(*decision)?,
            seq: reader.number()?,
            time_us: reader.number()?,
            sender_seq: reader.number()?,
            attempt: u32::try_from(reader.number()?).ok()?,
            payload_len: u32::try_from(reader.number()?).ok()?,
            agent: reader.text()?,
            instance: reader.text()?,
            fingerprint: reader.bytes()?,
            message_id: match reader.bytes()? {
                [] => None,
                id => Some(Uuid::from_slice(id).ok()?),
            },
            message_type: reader.text()?,
            target: reader.text()?,
            target_instance: reader.text()?,
            correlation_id: match reader.bytes()? {
                [] => None,
                id => Some(id.try_into().ok()?),
            },
            payload_digest: reader.bytes()?,
            rule: reader.text()?,
            reason: reader.text()?,
            policy_version: reader.bytes()?,
            findings: reader.text()?,
            messages: reader.messages()?,
            trace: match reader.rest {
                [] => "",
                _ => reader.text().filter(|trace| !trace.is_empty())?,
            },
        };
        reader.rest.is_empty().then_some(view)
    }

    /// A copy that stands by itself.
    pub fn to_record(&self) -> Record {
        Record {
            seq: self.seq,
            time_us: self.time_us,
            action: self.action,
            decision: self.decision,
            attempt: self.attempt,
            payload_len: self.payload_len,
            agent: self.agent.to_owned(),
            instance: self.instance.to_owned(),
            fingerprint: self.fingerprint.to_vec(),
            message_id: self.message_id,
            message_type: self.message_type.to_owned(),
            target: self.target.to_owned(),
            target_instance: self.target_instance.to_owned(),
            correlation_id: self.correlation_id.map(|id| hex(id)).unwrap_or_default(),
            payload_digest: self.payload_digest.to_vec(),
            rule: self.rule.to_owned(),
            reason: self.reason.to_owned(),
            policy_version: self.policy_version.to_vec(),
            findings: self.findings.to_owned(),
            messages: self.messages.iter().collect(),
            sender_seq: self.sender_seq,
            trace: self.trace.to_owned(),
        }
    }
}

impl Record {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fields = Fields {
            agent: &self.agent,
            instance: &self.instance,
            fingerprint: &self.fingerprint,
            message_id: self.message_id,
            message_type: &self.message_type,
            target: &self.target,
            target_instance: &self.target_instance,
            correlation_id: CorrelationId::parse(&self.correlation_id),
            payload_digest: &self.payload_digest,
            payload_len: self.payload_len,
            attempt: self.attempt,
            rule: &self.rule,
            reason: &self.reason,
            policy_version: &self.policy_version,
            findings: &self.findings,
            messages: &self.messages,
            sender_seq: self.sender_seq,
            trace: &self.trace,
        };
        encode(&mut bytes, self.seq, self.time_us, self.action, self.decision, &fields);
        bytes
    }

    /// Reads canonical bytes back; `None` when they are not the encoding of any record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        View::decode(bytes).map(|view| view.to_record())
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// One number in its shortest form.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        let mut shift = 0u32;
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let part = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && part > 1) {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero would be a longer form of the same number.
                return (*byte != 0 || shift == 0).then_some(number);
            }
            shift += 7;
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        if length > MAX_FIELD_BYTES {
            return None;
        }
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn messages(&mut self) -> Option<Messages<'a>> {
        let bytes = self.bytes()?;
        bytes.len().is_multiple_of(MESSAGE_BYTES).then_some(Messages(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AgentId;
    use proptest::prelude::*;

    fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
        proptest::sample::select(all)
    }

    proptest! {
        #[test]
        fn every_record_reads_back(
            seq in any::<u64>(), time_us in any::<u64>(), attempt in any::<u32>(), payload_len in any::<u32>(),
            action in any_of(Action::ALL), decision in any_of(Decision::ALL),
            texts in proptest::collection::vec(".{0,60}", 7), blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 3),
            with_ids in any::<bool>(), sender_seq in any::<u64>(), trace in "[ -~]{0,60}",
            messages in proptest::collection::vec((any::<u128>().prop_map(Uuid::from_u128), any::<u8>()), 0..5),
        ) {
            let correlation_id = with_ids.then(|| CorrelationId::new(&AgentId::parse("a").unwrap()));
            let message_id = with_ids.then(Uuid::now_v7);
            let fields = Fields {
                agent: &texts[0], instance: &texts[1], fingerprint: &blobs[0], message_id,
                message_type: &texts[2], target: &texts[3], target_instance: &texts[4], correlation_id,
                payload_digest: &blobs[1], payload_len, attempt, rule: &texts[5], reason: &texts[6],
                policy_version: &blobs[2], findings: &texts[0], messages: &messages, sender_seq, trace: &trace,
            };
            let mut bytes = Vec::new();
            encode(&mut bytes, seq, time_us, action, decision, &fields);
            let record = Record::decode(&bytes).unwrap();
            prop_assert_eq!(record.seq, seq);
            prop_assert_eq!(record.time_us, time_us);
            prop_assert_eq!((record.action, record.decision), (action, decision));
            prop_assert_eq!((record.attempt, record.payload_len), (attempt, payload_len));
            prop_assert_eq!(&record.agent, &texts[0]);
            prop_assert_eq!(&record.trace, &trace);
            prop_assert_eq!((&record.messages, record.sender_seq), (&messages, sender_seq));
            prop_assert_eq!(&record.message_type, &texts[2]);
            prop_assert_eq!(&record.reason, &texts[6]);
            prop_assert_eq!(&record.policy_version, &blobs[2]);
            prop_assert_eq!(record.message_id, message_id);
            prop_assert_eq!(&record.correlation_id, &correlation_id.map(|c| c.to_string()).unwrap_or_default());

            prop_assert_eq!(&record.encode(), &bytes);
            // Canonical: cut or extended bytes are no record.
            prop_assert!(Record::decode(&bytes[..bytes.len() - 1]).is_none());
            bytes.push(0);
            prop_assert!(Record::decode(&bytes).is_none());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn over_long_text_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        let long = "é".repeat(5000);
        encode(
            &mut bytes,
            1,
            1,
            Action::Send,
            Decision::Refused,
            &Fields { target: &long, ..Fields::default() },
        );
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(record.target.len(), MAX_FIELD_BYTES);
    }
}
