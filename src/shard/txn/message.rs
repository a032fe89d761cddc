//! A message: judged, recorded, and added to its target's inbox.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::facts::{PendingRequest, Remembered};
use super::judge::Judged;
use super::parties::Sender;
use super::tracing::Traced;
use super::transaction::{Ruling, Success, Transaction, cut};
use super::written::Times;
use crate::audit::record::REPETITION_RULE;
use crate::audit::{Action, Fields};
use crate::envelope::{Envelope, new_message_id};
use crate::ids::{CorrelationId, InstanceId};
use crate::refusal::Refusal;
use crate::shard::desk::job::{MessageJob, Post};
use crate::shard::desk::outcome::Accepted;
use crate::shard::desk::stored::Stored;
use crate::store::attested::{self, OnRecord};
use crate::store::keys;

impl Transaction<'_> {
    pub(super) fn message(&mut self, job: &MessageJob) -> Ruling {
        let sender = Sender { caller: &job.caller, instance: &job.instance, trace: job.post.trace.as_ref() };
        match self.remembered(sender.agent(), &job.post) {
            Ok(None) => {}
            Ok(Some(remembered)) => return self.repeat(sender, &job.post, &remembered),
            Err(refusal) => {
                let (judged, message_id) = (Judged::refused(refusal), new_message_id());
                let _ = self.record_post(sender, &job.post, &judged, message_id, None);
                return self.refuse(refusal, message_id, Vec::new());
            }
        }
        let judged = self.judge_post(sender, &job.post);
        self.post(sender, &job.post, judged)
    }

    /// A repetition: the first one's answer, and no effect.
    pub(super) fn repeat(&mut self, sender: Sender<'_>, post: &Post, first: &Remembered) -> Ruling {
        let judged = Judged::allowed(REPETITION_RULE.into());
        let _ = self.record_post(sender, post, &judged, first.message_id, first.correlation_id);
        Ok(Success::Repeated(Accepted {
            message_id: first.message_id,
            correlation_id: first.correlation_id,
            receipt: None,
            found: Vec::new(),
        }))
    }

    pub(super) fn record_post(
        &mut self,
        sender: Sender<'_>,
        post: &Post,
        judged: &Judged,
        message_id: Uuid,
        correlation_id: Option<CorrelationId>,
    ) -> (u64, [u8; 32]) {
        let digest = payload_digest(&post.data_json);
        let action = if post.request_ttl_s.is_some() { Action::Request } else { Action::Send };
        let seq = self.record_counted(
            action,
            judged.decision,
            &Fields {
                agent: sender.agent().as_str(),
                instance: sender.instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&post.message_type),
                target: cut(&post.target),
                correlation_id,
                payload_digest: &digest,
                payload_len: post.data_json.len() as u32,
                rule: &judged.rule,
                reason: judged.refusal.map_or("", |r| r.detail),
                findings: &judged.findings,
                trace: &judged.trace(post.trace.as_ref()),
                ..Fields::default()
            },
        );
        let what = Traced { operation: action.as_str(), target: &post.target, message_id, correlation_id };
        self.trace(sender, what, judged, seq);
        (seq, digest)
    }

    /// Records the decision on a message and carries it out.
    pub(super) fn post(&mut self, sender: Sender<'_>, post: &Post, judged: Judged) -> Ruling {
        let message_id = new_message_id();
        let correlation_id = post.request_ttl_s.map(|_| CorrelationId::new(sender.agent()));
        let mut judged = judged;
        if let Some(counted) = judged.counted.take() {
            self.count(sender.agent(), counted);
        }
        let (record, digest) = self.record_post(sender, post, &judged, message_id, correlation_id);
        // What is stored is what was sent, unless it was redacted, or is nothing.
        let digest = (judged.redacted.is_none() && !post.data_json.is_empty()).then_some(digest);
        if let Some(refusal) = judged.refusal {
            return self.refuse(refusal, message_id, judged.found);
        }
        let Some(card) = self.settings.policy.agent(&post.target) else {
            return Err(Refusal::NOT_AUTHORIZED);
        };
        let target = card.id.clone();
        let envelope = Envelope {
            sender: sender.agent(),
            sender_instance: sender.instance,
            target: &target,
            content: judged.content(post.content()),
            message_id,
            correlation_id,
            expects_reply: correlation_id.is_some(),
            reply_to_instance: None,
        };
        let now_ms = self.now.unix_us / 1000;
        let expires_ms = (post.ttl_ms > 0).then(|| now_ms.saturating_add(post.ttl_ms));
        let not_before_ms = (post.not_before_ms > now_ms).then_some(post.not_before_ms);
        let (inboxes, times) = (self.inboxes, Times { expires_ms, not_before_ms });
        let bytes = match inboxes.get(&target) {
            Some(inbox) => self.append(&inbox.stream, &envelope, None, times, (record, digest)),
            None => self.append(&keys::inbox(&target), &envelope, None, times, (record, digest)),
        };
        let added = self.adds_to(&target);
        added.messages += 1;
        added.max_bytes = added.max_bytes.max(bytes);
        added.shared_bytes += Stored::of_entry(bytes);
        if let (Some(correlation_id), Some(ttl_s)) = (correlation_id, post.request_ttl_s) {
            let mut pending = PendingRequest {
                sender_id: sender.agent().to_string(),
                sender_instance_id: sender.instance.to_string(),
                target_id: target.to_string(),
                message_id: message_id.to_string(),
                tag: String::new(),
            };
            pending.tag = attested::request_tag(self.keys, &correlation_id, pending.says());
            self.pend(&correlation_id, &pending, ttl_s * 1000);
        }
        if let Some(key) = &post.idempotency_key {
            let remembered = Remembered { message_id, correlation_id, digest: Remembered::digest_of(post) };
            let longest_ms = self.settings.delivery.idempotency_window_s * 1000;
            let window_ms = match post.idempotency_window_ms {
                0 => longest_ms,
                asked_ms => asked_ms.min(longest_ms),
            };
            let key_of_redis = keys::idempotency(sender.agent(), key);
            let text = remembered.to_text(self.keys, sender.agent(), key);
            let _ = self.effect("SET").arg(key_of_redis).arg(text).arg("PX").arg(window_ms);
            let _ = self.facts.remembered.insert((sender.agent().clone(), key.clone()), Some(remembered));
        }
        let accepted = Accepted { message_id, correlation_id, receipt: None, found: judged.found };
        Ok(Success::Queued { accepted, target })
    }

    /// Adds the envelope, which record `seq` of the lane allows, to a stream; its size in bytes. `owner`: the instance
    /// whose own inbox it is. `digest`: of the payload, where it is known.
    pub(super) fn append(
        &mut self,
        stream: &str,
        envelope: &Envelope<'_>,
        owner: Option<&InstanceId>,
        times: Times,
        (seq, digest): (u64, Option<[u8; 32]>),
    ) -> usize {
        let (text, from) = self.written.begin();
        let payload = envelope.write_json(self.now, text);
        let Times { expires_ms, not_before_ms } = times;
        let json = self.written.envelope(from);
        let bytes = json.len();
        let message = attested::Message { stream, envelope: json, payload, expires_ms, not_before_ms };
        let on = OnRecord { lane: self.lane.id().as_str(), seq };
        message.attest(self.keys, on, digest, &mut self.attest);
        let args = self.multi.effect("XADD").arg(stream).arg("*").arg(keys::ENVELOPE_FIELD).arg(json);
        let _ = args.arg(keys::ATTEST_FIELD).arg(self.attest.as_str());
        for (field, value) in [(keys::EXPIRES_FIELD, expires_ms), (keys::NOT_BEFORE_FIELD, not_before_ms)] {
            if let Some(value) = value {
                let _ = args.arg(field).arg(value);
            }
        }
        self.written.add((envelope.target, owner), from, &self.attest, times);
        bytes
    }

    pub(super) fn pend(&mut self, correlation_id: &CorrelationId, pending: &PendingRequest, ttl_ms: u64) {
        // A struct of strings always serializes.
        let text = serde_json::to_string(pending).unwrap_or_default();
        let _ = self.effect("SET").arg(keys::pending_request(correlation_id)).arg(text).arg("PX").arg(ttl_ms);
    }
}

pub(super) fn payload_digest(data_json: &str) -> [u8; 32] {
    Sha256::digest(data_json.as_bytes()).into()
}
