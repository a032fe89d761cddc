//! Dead letters, and the remains of instances that are gone.

use super::transaction::{Transaction, cut};
use crate::audit::{Action, Decision, Fields};
use crate::envelope::message_id_of;
use crate::ids::{AgentId, InstanceId};
use crate::shard::inbox::entry::DeadLetter;
use crate::store::dead_letters::{self, Burial};
use crate::store::keys;

impl Transaction<'_> {
    /// Copies an entry to the dead letters, payload and all. It leaves its inbox when this is committed.
    pub(crate) fn dead_letter(
        &mut self,
        agent: &AgentId,
        stream: &str,
        letter: &DeadLetter,
        envelope: Option<&str>,
    ) {
        self.record(
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
        dead_letters::arguments(self.multi.effect("XADD"), &burial);
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
