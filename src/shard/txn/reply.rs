//! A reply: to the instance that asked, once.

use super::judge::Judged;
use super::message::payload_digest;
use super::parties::{Addressee, Sender};
use super::tracing::Traced;
use super::transaction::{Ruling, Success, Transaction, cut};
use super::written::Times;
use crate::audit::{Action, Fields};
use crate::envelope::{Envelope, new_message_id};
use crate::ids::InstanceId;
use crate::policy::check_payload;
use crate::refusal::Refusal;
use crate::shard::desk::job::{ReplyJob, Response};
use crate::shard::desk::outcome::Accepted;
use crate::shard::desk::stored::Stored;
use crate::store::keys;

impl Transaction<'_> {
    pub(super) fn reply(&mut self, job: &ReplyJob) -> Ruling {
        let sender =
            Sender { caller: &job.caller, instance: &job.instance, trace: job.response.trace.as_ref() };
        let addressee = self.addressee(sender, &job.response);
        let judged = self.judge_reply(sender, &addressee, &job.response);
        self.respond(sender, &job.response, addressee.ok(), judged)
    }

    /// A pending request is itself the permission to reply; only an accepted reply consumes it.
    pub(super) fn addressee(&self, sender: Sender<'_>, response: &Response) -> Result<Addressee, Refusal> {
        let unknown = Refusal::UNKNOWN_CORRELATION_ID;
        if self.consumed.contains(&response.correlation_id) {
            return Err(unknown);
        }
        let fact = self.facts.pending.get(&response.correlation_id).and_then(Option::as_ref);
        let absent = if self.facts.unreadable { Refusal::STORAGE_UNAVAILABLE } else { unknown };
        let (pending, ttl_ms) = fact.ok_or(absent)?;
        if pending.target_id != sender.agent().as_str() {
            return Err(Refusal::REPLY_SENDER_MISMATCH);
        }
        check_payload(&self.settings.limits, &response.message_type, &response.data_json)?;
        let card = self.settings.policy.agent(&pending.sender_id).ok_or(unknown)?;
        let instance = InstanceId::parse(&pending.sender_instance_id).ok_or(unknown)?;
        Ok(Addressee { agent: card.id.clone(), instance, pending: pending.clone(), ttl_ms: *ttl_ms })
    }

    /// Records the decision on a reply and carries it out.
    pub(super) fn respond(
        &mut self,
        sender: Sender<'_>,
        response: &Response,
        addressee: Option<Addressee>,
        judged: Judged,
    ) -> Ruling {
        let message_id = new_message_id();
        let (target, instance) =
            addressee.as_ref().map_or(("", ""), |to| (to.agent.as_str(), to.instance.as_str()));
        let digest = payload_digest(&response.data_json);
        let record = self.record_counted(
            Action::Reply,
            judged.decision,
            &Fields {
                agent: sender.agent().as_str(),
                instance: sender.instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&response.message_type),
                target,
                target_instance: instance,
                correlation_id: Some(response.correlation_id),
                payload_digest: &digest,
                payload_len: response.data_json.len() as u32,
                rule: &judged.rule,
                reason: judged.refusal.map_or("", |r| r.detail),
                findings: &judged.findings,
                trace: &judged.trace(response.trace.as_ref()),
                ..Fields::default()
            },
        );
        let correlation_id = Some(response.correlation_id);
        let what = Traced { operation: Action::Reply.as_str(), target, message_id, correlation_id };
        self.trace(sender, what, &judged, record);
        if let Some(refusal) = judged.refusal {
            return self.refuse(refusal, message_id, judged.found);
        }
        let Some(Addressee { agent: target, instance, pending, ttl_ms }) = addressee else {
            return Err(Refusal::UNKNOWN_CORRELATION_ID);
        };
        let _ = self.consumed.insert(response.correlation_id);
        let envelope = Envelope {
            sender: sender.agent(),
            sender_instance: sender.instance,
            target: &target,
            content: judged.content(response.content()),
            message_id,
            correlation_id: Some(response.correlation_id),
            expects_reply: false,
            reply_to_instance: Some(&instance),
        };
        let digest = (judged.redacted.is_none() && !response.data_json.is_empty()).then_some(digest);
        let bytes = self.append(
            &keys::instance_inbox(&target, &instance),
            &envelope,
            Some(&instance),
            Times::default(),
            (record, digest),
        );
        let bytes = Stored::of_entry(bytes);
        let _ = self.effect("DEL").arg(keys::pending_request(&response.correlation_id));
        if !self.shared.directory.has(&target, &instance) {
            // Registered, so that the reply is cleared away if the instance never comes back.
            let now_ms = self.now.unix_us / 1000;
            let _ = self.effect("HSETNX").arg(keys::instances(&target)).arg(instance.as_str()).arg(now_ms);
        }
        self.adds_to(&target).replies.push((instance.clone(), bytes));
        let correlation_id = response.correlation_id;
        let accepted =
            Accepted { message_id, correlation_id: Some(correlation_id), receipt: None, found: judged.found };
        Ok(Success::Replied { accepted, target, instance, correlation_id, pending, ttl_ms })
    }
}
