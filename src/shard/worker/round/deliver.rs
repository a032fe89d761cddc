//! Answers of what moved: entries that left, entries that were read or claimed and go to their sessions. Hot path.

use uuid::Uuid;

use super::super::Worker;
use super::super::link::STALL_MS;
use super::tail::Answered;
use crate::audit::attest::NotOurs;
use crate::clock::Now;
use crate::config::Delivery;
use crate::envelope::message_id_of;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::delivery::{DeliveryId, Source};
use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::session::Then;
use crate::shard::inbox::Inbox;
use crate::shard::inbox::entry::EntryKey;
use crate::shard::inbox::handout::{Claim, Read};
use crate::shard::inbox::settle::NotClaimed;
use crate::shard::txn::event::Event;
use crate::shard::txn::written::Written;
use crate::store::answers::StreamEntry;
use crate::store::attested;
use crate::store::claims::{Claimed, Wanted};

/// Why a message dies whose time to live is over.
const EXPIRED_REASON: &str = "expired";
/// Why an entry leaves its inbox that no server has put there. It is put aside, and no dead letter.
pub(super) const FOREIGN_REASON: &str = "foreign_entry";
/// How long an operator's word for messages that are missing may take, in milliseconds.
const OPERATORS_WORD_MS: u64 = 1000;

/// Takes a delivery back whose time has not come, or is over: it waits, or goes to the dead letters.
fn untimely(
    inbox: &mut Inbox,
    instance: &InstanceId,
    id: DeliveryId,
    entry: &StreamEntry,
    now: Now,
    config: &Delivery,
) -> bool {
    let unix_ms = now.unix_us / 1000;
    if entry.expires_ms.is_some_and(|at_ms| at_ms <= unix_ms) {
        let _ = inbox.nack(instance, id, (EXPIRED_REASON, Then::Bury), now.mono_ms, config);
        return true;
    }
    match entry.not_before_ms {
        Some(at_ms) if at_ms > unix_ms => {
            inbox.postponed(instance, id, now.mono_ms + (at_ms - unix_ms));
            true
        }
        _ => false,
    }
}

/// How long ago a message was accepted, as its id says, in microseconds; 0 for an id of another form.
fn waited_us(message: Uuid, now: Now) -> u64 {
    let accepted_ms =
        if message.get_version_num() == 7 { (message.as_u128() >> 80) as u64 } else { u64::MAX };
    now.unix_us.saturating_sub(accepted_ms.saturating_mul(1000))
}

impl Worker {
    /// Acknowledged entries left their streams, or Redis refused that.
    pub(super) fn left(&mut self, agent: &AgentId, keys: &[EntryKey], answered: Answered<u64>, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        match answered {
            Ok(_) => {
                inbox.leaving.retain(|key| !keys.contains(key));
                let before = inbox.size.stored().get();
                inbox.left(keys);
                self.shared.take_room(0, before.saturating_sub(inbox.size.stored().get()));
            }
            Err(code) => {
                // Still to be acknowledged: Redis may be out of disk for a while.
                log::error!(
                    code = "acknowledgement_refused", agent:%;
                    "{}: Redis refused an acknowledgement: {code}", inbox.stream
                );
                self.look_again(agent, now.mono_ms + STALL_MS);
            }
        }
    }

    /// Redis' number of messages in an inbox; those that are missing were removed by somebody else.
    pub(super) fn measured(&mut self, agent: &AgentId, len: Option<u64>, now: Now) {
        let _ = self.agenda.measure.remove(agent);
        let (Some(inbox), Some(len)) = (self.inboxes.get_mut(agent), len) else {
            return;
        };
        // With other servers, these have taken them out.
        if inbox.is_exact && !self.shared.has_peers() {
            inbox.missing += inbox.len.saturating_sub(len);
        }
        inbox.measured(len);
        inbox.is_exact = !self.shared.has_peers();
        self.look_for_missing(agent, now);
    }

    /// Messages that somebody else removed go on record, unless an operator's word for it comes in time.
    fn look_for_missing(&mut self, agent: &AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let missing = inbox.missing;
        match inbox.missing_since_ms {
            _ if missing == 0 => inbox.missing_since_ms = None,
            None => {
                inbox.missing_since_ms = Some(now.mono_ms);
                let _ = self.agenda.measure.insert(agent.clone());
                self.look_again(agent, now.mono_ms + OPERATORS_WORD_MS);
            }
            Some(since_ms) if now.mono_ms < since_ms + OPERATORS_WORD_MS => {
                let _ = self.agenda.measure.insert(agent.clone());
            }
            Some(_) => {
                (inbox.missing, inbox.missing_since_ms) = (0, None);
                let reason = format!("{missing} messages of {} were removed by somebody else", inbox.stream);
                log::error!(code = "messages_vanished", agent:%, count = missing; "agent {agent}: {reason}");
                self.ledger.push(Event::Vanished { agent: agent.clone(), instance: String::new(), reason });
            }
        }
    }

    /// Entries were claimed, or not.
    pub(super) fn claimed(
        &mut self,
        agent: &AgentId,
        claim: &Claim,
        claimed: Answered<Vec<Claimed>>,
        now: Now,
    ) {
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(code) if code == "NOGROUP" => {
                let owner = (claim.source == Source::Own).then_some(&claim.instance);
                return self.group_lost(agent, owner);
            }
            Err(code) => {
                log::error!(code = "claim_refused", agent:%; "agent {agent}: Redis refused a claim: {code}");
                // Each is due again later.
                Vec::new()
            }
        };
        let retry_at_ms = now.mono_ms + STALL_MS;
        let mut claimed = claimed.into_iter();
        for Wanted { entry, .. } in &claim.entries {
            let key = EntryKey::of(&claim.instance, claim.source, *entry);
            let not_claimed = match claimed.next() {
                Some(Claimed::Taken(found, attempt)) => {
                    self.delivered_again(agent, claim, (found, attempt), now);
                    continue;
                }
                Some(Claimed::NotHeld) => NotClaimed::Settled,
                Some(Claimed::Vanished) => {
                    self.vanished(agent, &claim.holder, &format!("entry {entry}"));
                    NotClaimed::Vanished
                }
                None => NotClaimed::Refused { retry_at_ms },
            };
            if let Some(inbox) = self.inboxes.get_mut(agent) {
                inbox.not_claimed(&key, &claim.holder, not_claimed);
            }
            // Another server may have handed it on, and lost it since.
            if not_claimed == NotClaimed::Settled {
                self.agenda.scan_from_start(agent, key.owner);
            }
        }
    }

    fn delivered_again(
        &mut self,
        agent: &AgentId,
        claim: &Claim,
        (found, attempt): (StreamEntry, u32),
        now: Now,
    ) {
        let owner = (claim.source == Source::Own).then_some(&claim.instance);
        let Some(stream) = self.inboxes.get(agent).map(|inbox| inbox.stream_of(owner)) else {
            return;
        };
        let ours = self.is_ours(&stream, &found, now);
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let Some(session) = inbox.consumer(&claim.instance).map(|consumer| consumer.session) else {
            return;
        };
        let id = DeliveryId::fresh(claim.source, found.id);
        let message_id = found.envelope.as_deref().and_then(message_id_of).unwrap_or_default();
        let bytes = found.envelope.as_ref().map_or(0, String::len);
        inbox.delivered_again(&claim.instance, id, (message_id, bytes), attempt, now.mono_ms);
        if !ours {
            let (reason, now_ms) = ((FOREIGN_REASON, Then::Bury), now.mono_ms);
            let _ = inbox.nack(&claim.instance, id, reason, now_ms, &self.settings.delivery);
            return;
        }
        if untimely(inbox, &claim.instance, id, &found, now, &self.settings.delivery) {
            return;
        }
        if let Some(envelope) = found.envelope {
            self.ledger.custody.delivered(agent, &claim.instance, message_id, attempt, now);
            if let Some(tracer) = self.shared.tracer() {
                let what = (message_id, attempt, envelope.as_str());
                self.traced.begin(tracer, (agent, &claim.instance), id, what, now);
            }
            self.deliver(session, Outbound::Delivery { id, attempt, envelope });
        }
    }

    /// Whether a server has put this entry into this stream.
    fn is_ours(&mut self, stream: &str, entry: &StreamEntry, now: Now) -> bool {
        match attested::check_entry(&self.keys, stream, entry) {
            Ok(_) => true,
            Err(NotOurs::Foreign) => false,
            Err(NotOurs::UnknownKey) => {
                // Another server may use a key that was added a moment ago.
                self.keys = self.shared.key_ring.look_for_more(now);
                attested::check_entry(&self.keys, stream, entry).is_ok()
            }
        }
    }

    /// New entries were read, or not.
    pub(super) fn delivered(
        &mut self,
        agent: &AgentId,
        read: &Read,
        entries: Answered<Vec<StreamEntry>>,
        now: Now,
    ) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(code) if code == "NOGROUP" => {
                let owner = (read.source == Source::Own).then_some(&read.instance);
                return self.group_lost(agent, owner);
            }
            Err(code) => {
                log::error!(code = "read_refused", agent:%; "{}: Redis refused a read: {code}", inbox.stream);
                inbox.read_answered(&read.instance, read.source, 1, 0);
                return;
            }
        };
        inbox.read_answered(&read.instance, read.source, read.count, entries.len());
        let own_has_ended = read.source == Source::Own && entries.len() < read.count;
        let has_ended = read.source == Source::Shared && entries.len() < read.count;
        let known = (inbox.tracked() + entries.len()) as u64;
        if has_ended && inbox.is_exact && inbox.len > known {
            // More should be there than can be read.
            let _ = self.agenda.measure.insert(agent.clone());
            self.agenda.ready.insert(agent.clone());
        }
        let Some(consumer) = inbox.consumer(&read.instance) else {
            return;
        };
        let session = consumer.session;
        let stream = match read.source {
            Source::Shared => inbox.stream.clone(),
            Source::Own => consumer.own_stream.clone(),
        };
        let owner = (read.source == Source::Own).then_some(&read.instance);
        let written = |entry: &StreamEntry, written: &Written| written.holds((agent, owner), entry);
        let ours: Vec<bool> = entries
            .iter()
            .map(|entry| written(entry, &self.written) || self.is_ours(&stream, entry, now))
            .collect();
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if ours.contains(&false) {
            // They came in the place of messages that are still to be read.
            inbox.mark_stale();
            self.agenda.ready.insert(agent.clone());
        }
        for (found, ours) in entries.into_iter().zip(ours) {
            let message_id = found.envelope.as_deref().and_then(message_id_of).unwrap_or_default();
            let bytes = found.envelope.as_ref().map_or(0, String::len);
            let id = DeliveryId::fresh(read.source, found.id);
            inbox.delivered_new(&read.instance, id, (message_id, bytes), now.mono_ms);
            if !ours {
                let (reason, now_ms) = ((FOREIGN_REASON, Then::Bury), now.mono_ms);
                let _ = inbox.nack(&read.instance, id, reason, now_ms, &self.settings.delivery);
                continue;
            }
            if untimely(inbox, &read.instance, id, &found, now, &self.settings.delivery) {
                continue;
            }
            if let Some(envelope) = found.envelope {
                self.ledger.custody.delivered(agent, &read.instance, message_id, 1, now);
                if let Some(tracer) = self.shared.tracer() {
                    let what = (message_id, 1, envelope.as_str());
                    self.traced.begin(tracer, (agent, &read.instance), id, what, now);
                }
                self.link.meter.queue_us.add(waited_us(message_id, now));
                self.sessions.deliver(session, Outbound::Delivery { id, attempt: 1, envelope });
            }
        }
        if own_has_ended {
            inbox.own_is_read(&read.instance);
        }
    }
}
