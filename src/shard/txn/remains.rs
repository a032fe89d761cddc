//! Dead letters, and the remains of instances that are gone.

use super::facts::ForeignFact;
use super::transaction::{Transaction, cut};
use crate::audit::{Action, Decision, Fields};
use crate::envelope::message_id_of;
use crate::ids::{AgentId, CorrelationId, InstanceId};
use crate::shard::inbox::entry::DeadLetter;
use crate::store::attested::{self, Foreign, OnRecord};
use crate::store::dead_letters::{self, Burial};
use crate::store::foreign;
use crate::store::keys;
use crate::store::news::{News, Unanswered};

/// Who waits for a reply to this message, if anybody does.
fn asked_by(envelope: &str, reason: &str) -> Option<Unanswered> {
    #[derive(serde::Deserialize)]
    struct Asked<'a> {
        sender_id: &'a str,
        #[serde(borrow)]
        meta: Meta<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Meta<'a> {
        expects_reply: bool,
        correlation_id: Option<&'a str>,
        sender_instance_id: &'a str,
    }
    let asked: Asked<'_> = serde_json::from_str(envelope).ok()?;
    let correlation_id = asked.meta.correlation_id.filter(|_| asked.meta.expects_reply)?;
    Some(Unanswered {
        agent: AgentId::parse(asked.sender_id)?,
        instance: InstanceId::parse(asked.meta.sender_instance_id)?,
        correlation_id: CorrelationId::parse(correlation_id)?,
        message_id: message_id_of(envelope)?,
        reason: Unanswered::reason_of(reason),
    })
}

impl Transaction<'_> {
    /// Copies an entry to the dead letters, payload and all. It leaves its inbox when this is committed.
    pub(crate) fn dead_letter(
        &mut self,
        agent: &AgentId,
        stream: &str,
        letter: &DeadLetter,
        envelope: Option<&str>,
    ) {
        let seq = self.record(
            Action::DeadLetter,
            Decision::Event,
            &Fields {
                agent: agent.as_str(),
                instance: letter.holder.as_str(),
                message_id: envelope.and_then(message_id_of),
                target: stream,
                attempt: letter.attempts,
                reason: cut(&letter.reason),
                ..Fields::default()
            },
        );
        let Some(envelope) = envelope else {
            return;
        };
        let burial = Burial {
            envelope,
            agent,
            instance: &letter.holder,
            reason: cut(&letter.reason),
            attempts: letter.attempts,
            history: &letter.history,
            stream,
            entry: letter.key.entry,
            time_ms: self.now.unix_us / 1000,
        };
        let on = OnRecord { lane: self.lane.id().as_str(), seq };
        dead_letters::arguments(self.multi.effect("XADD"), self.keys, &burial, on);
        if let Some(request) = asked_by(envelope, &letter.reason) {
            let tag = attested::unanswered_tag(self.keys, &request.says());
            self.publish(&News::Unanswered(request, tag));
        }
    }

    /// Puts aside what somebody else has put into an agent's inbox. It leaves the inbox when this is committed.
    pub(crate) fn foreign_entry(&mut self, agent: &AgentId, instance: &InstanceId, found: &Foreign) {
        self.put_aside(agent.as_str(), instance.as_str(), found);
    }

    /// Puts aside what was found in the places of this round's facts, which are watched. Values leave them; a state stays.
    pub(crate) fn foreign_facts(&mut self) {
        for ForeignFact { agent, found, stays } in std::mem::take(&mut self.facts.foreign) {
            self.put_aside(agent.as_ref().map_or("", AgentId::as_str), "", &found);
            if !stays {
                let _ = self.effect("DEL").arg(&found.key);
            }
        }
    }

    pub(super) fn put_aside(&mut self, agent: &str, instance: &str, found: &Foreign) {
        let entry = found.entry.map(|entry| entry.to_text()).unwrap_or_default();
        let bytes: usize = found.bytes.iter().map(Vec::len).sum();
        let _ = self.record(
            Action::ForeignEntry,
            Decision::Event,
            &Fields {
                agent,
                instance,
                target: &found.key,
                rule: &entry,
                payload_digest: &found.digest(),
                payload_len: u32::try_from(bytes).unwrap_or(u32::MAX),
                reason: "not_written_by_a_server",
                ..Fields::default()
            },
        );
        foreign::arguments(self.multi.effect("XADD"), found, self.now.unix_us / 1000);
    }

    /// Removes the remains of an instance that is gone; `consumer`: also from the shared group.
    pub(crate) fn clear_instance(&mut self, agent: &AgentId, instance: &InstanceId, consumer: bool) {
        let _ = self.effect("DEL").arg(keys::instance_inbox(agent, instance));
        if consumer {
            let _ = self.effect("HDEL").arg(keys::instances(agent)).arg(instance.as_str());
            let (inbox, name) = (keys::inbox(agent), keys::consumer(agent, instance));
            let _ = self.effect("XGROUP").arg("DELCONSUMER").arg(inbox).arg(keys::GROUP).arg(name);
        }
    }
}
