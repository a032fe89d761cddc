//! The envelope: the JSON object that a Delivery carries and that is the one field of a stream entry.
//! Built once, as bytes, around the sender's payload; never parsed again on its way.

use std::ops::Range;

use sha2::Digest;
use uuid::Uuid;

use crate::clock::Now;
use crate::content::Content;
use crate::ids::{AgentId, CorrelationId, InstanceId};

/// Longest `message_type`, in bytes.
pub const MAX_MESSAGE_TYPE_BYTES: usize = 512;

/// A fresh message id: UUIDv7, so that ids of one server sort by time.
pub fn new_message_id() -> Uuid {
    Uuid::now_v7()
}

/// The parts of an envelope. `sender` comes from the certificate, never from the caller.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// Who sends.
    pub sender: &'a AgentId,
    /// The instance that sends.
    pub sender_instance: &'a InstanceId,
    /// Who receives.
    pub target: &'a AgentId,
    /// What was searched, and is delivered.
    pub content: Content<'a>,
    /// Unique id of this message.
    pub message_id: Uuid,
    /// The request this belongs to.
    pub correlation_id: Option<CorrelationId>,
    /// Whether the sender waits for a reply.
    pub expects_reply: bool,
    /// For a reply: the instance that asked.
    pub reply_to_instance: Option<&'a InstanceId>,
}

impl Envelope<'_> {
    /// The envelope's JSON text.
    pub fn to_json(&self, now: Now) -> String {
        let mut json = String::with_capacity(self.content.data_json.len() + 640);
        let _ = self.write_json(now, &mut json);
        json
    }

    /// Appends the envelope's JSON text; where in it the payload stands.
    pub fn write_json(&self, now: Now, json: &mut String) -> Range<usize> {
        let begin = json.len();
        json.push_str("{\"sender_id\":\"");
        json.push_str(self.sender.as_str());
        json.push_str("\",\"target_id\":\"");
        json.push_str(self.target.as_str());
        json.push_str("\",\"message_type\":");
        push_string(json, self.content.message_type);
        json.push_str(",\"data\":");
        let data = json.len() - begin;
        json.push_str(self.content.payload());
        let data = data..json.len() - begin;
        json.push_str(",\"meta\":{\"version\":1,\"correlation_id\":");
        match &self.correlation_id {
            Some(id) => {
                json.push('"');
                json.push_str(&id.to_string());
                json.push('"');
            }
            None => json.push_str("null"),
        }
        json.push_str(",\"expects_reply\":");
        json.push_str(if self.expects_reply { "true" } else { "false" });
        json.push_str(",\"is_reply\":");
        json.push_str(if self.reply_to_instance.is_some() { "true" } else { "false" });
        json.push_str(",\"sender_instance_id\":\"");
        json.push_str(self.sender_instance.as_str());
        json.push_str("\",\"reply_to_instance_id\":");
        push_optional(json, self.reply_to_instance.map(InstanceId::as_str));
        json.push_str(",\"traceparent\":");
        push_optional(json, self.content.trace.map(|trace| trace.parent.as_str()));
        json.push_str(",\"tracestate\":");
        push_optional(json, self.content.trace.and_then(|trace| trace.state.as_deref()));
        json.push_str("},\"timestamp\":");
        push_timestamp(json, now.unix_us);
        json.push_str(",\"message_id\":\"");
        let mut buffer = Uuid::encode_buffer();
        json.push_str(self.message_id.hyphenated().encode_lower(&mut buffer));
        json.push_str("\"}");
        data
    }
}

/// The message id of a stored envelope, as a UUID; an id that is none (an older server's) is stood for by
/// a digest of it. `None` where the text is no envelope.
pub fn message_id_of(json: &str) -> Option<Uuid> {
    const KEY: &str = ",\"message_id\":\"";
    // Envelopes of ours end with it.
    if let Some(head) = json.strip_suffix("\"}")
        && let Some((head, id)) = head.split_at_checked(head.len().wrapping_sub(36))
        && head.ends_with(KEY)
        && let Ok(id) = Uuid::parse_str(id)
    {
        return Some(id);
    }
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        message_id: std::borrow::Cow<'a, str>,
    }
    let head: Head<'_> = serde_json::from_str(json).ok()?;
    Uuid::parse_str(&head.message_id).ok().or_else(|| {
        let digest: [u8; 32] = sha2::Sha256::digest(head.message_id.as_bytes()).into();
        digest.first_chunk::<16>().map(|bytes| uuid::Builder::from_custom_bytes(*bytes).into_uuid())
    })
}

fn push_optional(json: &mut String, text: Option<&str>) {
    match text {
        Some(text) => push_string(json, text),
        None => json.push_str("null"),
    }
}

/// Seconds with microseconds, always with a decimal point: clients expect a float.
fn push_timestamp(json: &mut String, unix_us: u64) {
    let mut digits = itoa::Buffer::new();
    json.push_str(digits.format(unix_us / 1_000_000));
    // With a digit before them, so that leading zeros are written.
    let fraction = digits.format(1_000_000 + unix_us % 1_000_000);
    json.push('.');
    json.push_str(fraction.get(1..).unwrap_or_default());
}

/// Appends `text` as a JSON string.
fn push_string(json: &mut String, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        // A string always serializes.
        json.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Trace;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn agent(name: &str) -> AgentId {
        AgentId::parse(name).unwrap()
    }

    fn instance(name: &str) -> InstanceId {
        InstanceId::parse(name).unwrap()
    }

    #[test]
    fn a_reply_carries_every_field_of_the_contract() {
        let requester = agent("asker");
        let correlation_id = CorrelationId::new(&requester);
        let message_id = new_message_id();
        let json = Envelope {
            sender: &agent("worker"),
            sender_instance: &instance("w1"),
            target: &requester,
            content: Content {
                message_type: "answer",
                data_json: "{\"n\":1.50}",
                trace: Some(&Trace { parent: "00-ab".to_owned(), state: None, arrived_us: 0 }),
            },
            message_id,
            correlation_id: Some(correlation_id),
            expects_reply: false,
            reply_to_instance: Some(&instance("a1")),
        }
        .to_json(Now { unix_us: 1_700_000_000_000_042, mono_ms: 0 });
        assert!(json.contains("{\"n\":1.50}"), "the payload's bytes are kept: {json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value,
            json!({
                "sender_id": "worker", "target_id": "asker", "message_type": "answer",
                "data": {"n": 1.5},
                "meta": {
                    "version": 1, "correlation_id": correlation_id.to_string(),
                    "expects_reply": false, "is_reply": true, "sender_instance_id": "w1",
                    "reply_to_instance_id": "a1", "traceparent": "00-ab", "tracestate": null,
                },
                "timestamp": 1_700_000_000.000_042_f64,
                "message_id": message_id.to_string(),
            })
        );
        assert!(value["timestamp"].is_f64());
    }

    #[test]
    fn an_empty_payload_is_an_empty_object() {
        let json = Envelope {
            sender: &agent("a"),
            sender_instance: &instance("i"),
            target: &agent("b"),
            content: Content { message_type: "t", data_json: "", trace: None },
            message_id: new_message_id(),
            correlation_id: None,
            expects_reply: true,
            reply_to_instance: None,
        }
        .to_json(Now { unix_us: 0, mono_ms: 0 });
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["data"], json!({}));
        assert_eq!(value["meta"]["correlation_id"], Value::Null);
        assert_eq!(value["meta"]["expects_reply"], json!(true));
    }

    proptest! {
        #[test]
        fn any_message_type_survives(text in any::<String>()) {
            let json = Envelope {
                sender: &agent("a"), sender_instance: &instance("i"), target: &agent("b"),
                content: Content { message_type: &text, data_json: "{}", trace: None }, message_id: new_message_id(),
                correlation_id: None, expects_reply: false, reply_to_instance: None,
            }.to_json(Now { unix_us: 1, mono_ms: 0 });
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["message_type"].as_str(), Some(text.as_str()));
        }
    }
}
