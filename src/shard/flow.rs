//! What moves in the same pipeline behind a transaction: groups made again, acknowledgements, claims,
//! reads; and what their answers mean. Hot path.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Decided, Success};
use super::inbox::{Claim, EntryKey, Inbox, Read};
use super::session::{DeliveryId, Outbound, Place};
use super::worker::{STALL_MS, Worker};
use crate::clock::Now;
use crate::config::Delivery;
use crate::envelope::message_id_of;
use crate::ids::{AgentId, InstanceId, ServerId};
use crate::store::answers::{self, StreamEntry};
use crate::store::news::News;
use crate::store::servers::{self, Fence};
use crate::store::{Value, keys};

/// Inboxes looked at in one round.
const MAX_INBOXES: usize = 256;
/// Entries read in one round, over all inboxes; what is left is read in the next.
const MAX_ROUND_READS: usize = 1024;

/// Why a message dies whose time to live is over.
const EXPIRED_REASON: &str = "expired";

/// A step behind the transaction.
pub(super) enum Tail {
    /// A consumer group is made where it is missing.
    Grouped { agent: AgentId },
    /// XDEL, then XACK.
    Acked { agent: AgentId, keys: Vec<EntryKey> },
    /// XCLAIM.
    Claimed { agent: AgentId, claim: Claim },
    /// XREADGROUP.
    Read { agent: AgentId, read: Read },
    /// XLEN.
    Length { agent: AgentId },
}

impl Tail {
    /// Whether messages are handed on.
    pub(super) fn moves(&self) -> bool {
        matches!(self, Self::Claimed { .. } | Self::Read { .. })
    }
}

/// The messages that a job sent.
pub(super) fn parts(success: &Success) -> &[Success] {
    match success {
        Success::Committed { parts, .. } => parts,
        other => std::slice::from_ref(other),
    }
}

/// Takes a delivery back whose time has not come, or is over: it waits, or goes to the dead letters.
fn untimely(
    inbox: &mut Inbox,
    instance: &InstanceId,
    id: DeliveryId,
    (not_before_ms, expires_ms): (Option<u64>, Option<u64>),
    now: Now,
    config: &Delivery,
) -> bool {
    let unix_ms = now.unix_us / 1000;
    if expires_ms.is_some_and(|at_ms| at_ms <= unix_ms) {
        let _ = inbox.nack(instance, id, EXPIRED_REASON, false, now.mono_ms, config);
        return true;
    }
    match not_before_ms {
        Some(at_ms) if at_ms > unix_ms => {
            inbox.postponed(instance, id, now.mono_ms + (at_ms - unix_ms));
            true
        }
        _ => false,
    }
}

impl Worker {
    /// Makes the consumer groups of inboxes that lost theirs. A group that exists already is what was
    /// wanted.
    pub(super) fn make_groups(&mut self) -> Vec<(usize, Tail)> {
        let mut tail = Vec::new();
        for agent in std::mem::take(&mut self.regroup) {
            let Some(inbox) = self.inboxes.get(&agent) else {
                continue;
            };
            let own = inbox.slots().iter().map(|slot| &slot.own_stream);
            for stream in std::iter::once(&inbox.stream).chain(own) {
                let at = self.batch.command("XGROUP");
                let _ = self.batch.arg("CREATE").arg(stream).arg(keys::GROUP).arg("0").arg("MKSTREAM");
                tail.push((at, Tail::Grouped { agent: agent.clone() }));
            }
            let _ = self.measure.insert(agent.clone());
            self.ready.insert(agent);
        }
        tail
    }

    /// What the transaction adds is read back in the same pipeline.
    pub(super) fn expect_deliveries(&mut self, decided: &[Decided]) {
        for part in decided.iter().filter_map(|decision| decision.outcome.as_ref().ok()).flat_map(parts) {
            match part {
                Success::Queued { target, bytes, .. } => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.added(*bytes);
                        self.ready.insert(target.clone());
                    }
                }
                Success::Replied { target, instance, .. } => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.own_news(instance);
                        self.ready.insert(target.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// Sessions on other servers get what this transaction adds for them.
    pub(super) fn tell_peers(&mut self, decided: &[Decided]) {
        let mut news: BTreeMap<ServerId, BTreeSet<&AgentId>> = BTreeMap::new();
        for part in decided.iter().filter_map(|decision| decision.outcome.as_ref().ok()).flat_map(parts) {
            let (Success::Queued { target, .. } | Success::Replied { target, .. }) = part else {
                continue;
            };
            for server in self.shared.directory.servers_of(target) {
                let _ = news.entry(server).or_default().insert(target);
            }
            if self.shared.has_peers() {
                // Others add to this inbox too.
                let _ = self.measure.insert(target.clone());
            }
        }
        for (server, agents) in news {
            let _ = self.batch.command("PUBLISH");
            let news = News::Inboxes(agents.into_iter().cloned().collect());
            let _ = self.batch.arg(keys::news_for(&server)).arg(news.to_text());
        }
    }

    /// Ends the process of a server that others have declared void: what it holds is theirs now.
    pub(super) fn check_fence(&self, answer: &Value) {
        if servers::fence(answer) == Fence::Fenced {
            log::error!("this server was silent for too long: others have taken over. It ends now");
            // At once: handlers that run at an orderly exit would wait for threads that are busy.
            signal_hook::low_level::exit(1);
        }
    }

    pub(super) fn expect_no_deliveries(&mut self, decided: &[Decided]) {
        for part in decided.iter().filter_map(|decision| decision.outcome.as_ref().ok()).flat_map(parts) {
            if let Success::Queued { target, .. } = part
                && let Some(inbox) = self.inboxes.get_mut(target)
            {
                inbox.not_added();
            }
        }
    }

    /// Acknowledges, claims and reads for the inboxes that have something to move.
    pub(super) fn add_tail(&mut self, now: Now, tail: &mut Vec<(usize, Tail)>) {
        let mut reads_left = MAX_ROUND_READS;
        let has_peers = self.shared.has_peers();
        for agent in self.ready.take(MAX_INBOXES) {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            inbox.ripen(now.mono_ms);
            let batch = &mut self.batch;
            let mut acked = std::mem::take(&mut inbox.acked);
            acked.sort_by(|a, b| a.owner.cmp(&b.owner));
            for group in acked.chunk_by(|a, b| a.owner == b.owner) {
                let Some(first) = group.first() else {
                    continue;
                };
                let stream = inbox.stream_of(first);
                // XDEL first: a crash in between leaves a pending entry without a message, which the next
                // claim removes; the other way round would leave a message that nobody removes.
                let at = batch.command("XDEL");
                let _ = batch.arg(&stream);
                for key in group {
                    let _ = batch.arg(key.entry);
                }
                let _ = batch.command("XACK");
                let _ = batch.arg(&stream).arg(keys::GROUP);
                for key in group {
                    let _ = batch.arg(key.entry);
                }
                tail.push((at, Tail::Acked { agent: agent.clone(), keys: group.to_vec() }));
            }
            if self.measure.remove(&agent) {
                let at = batch.command("XLEN");
                let _ = batch.arg(&inbox.stream);
                tail.push((at, Tail::Length { agent: agent.clone() }));
            }
            // Without its group an inbox can neither be claimed from nor read.
            if self.regroup.contains(&agent) {
                continue;
            }
            // What is handed on may not be lost afterwards; see `withhold`.
            if self.unassured {
                self.ready.insert(agent.clone());
                self.schedule(&agent);
                continue;
            }
            for claim in inbox.due(now.mono_ms, &self.settings.delivery, has_peers) {
                let Some(slot) = inbox.slot(&claim.instance) else {
                    continue;
                };
                let stream = match claim.place {
                    Place::Shared => &inbox.stream,
                    Place::Own => &slot.own_stream,
                };
                let at = batch.command("XCLAIM");
                let _ = batch.arg(stream).arg(keys::GROUP).arg(&slot.consumer).arg(claim.min_idle_ms);
                for entry in &claim.entries {
                    let _ = batch.arg(*entry);
                }
                tail.push((at, Tail::Claimed { agent: agent.clone(), claim }));
            }
            if !inbox.dead.is_empty() {
                let _ = self.dying.insert(agent.clone());
            }
            if reads_left == 0 || self.custody.is_full() {
                self.ready.insert(agent.clone());
                self.schedule(&agent);
                continue;
            }
            for read in inbox.reads(&self.settings.delivery) {
                let Some(slot) = inbox.slot(&read.instance) else {
                    continue;
                };
                let stream = match read.place {
                    Place::Shared => &inbox.stream,
                    Place::Own => &slot.own_stream,
                };
                reads_left = reads_left.saturating_sub(read.count);
                let at = batch.command("XREADGROUP");
                let _ = batch.arg("GROUP").arg(keys::GROUP).arg(&slot.consumer);
                let _ = batch.arg("COUNT").arg(read.count).arg("STREAMS").arg(stream).arg(">");
                tail.push((at, Tail::Read { agent: agent.clone(), read }));
            }
            inbox.tell_hunger();
            self.schedule(&agent);
        }
    }

    // --- apply -----------------------------------------------------------------------------------

    pub(super) fn apply_tail(&mut self, tail: Vec<(usize, Tail)>, mut answers: Vec<Value>, now: Now) {
        for (at, step) in tail {
            let value = answers.get_mut(at).map(std::mem::take).unwrap_or_default();
            let agent = match step {
                Tail::Grouped { agent } => {
                    self.grouped(&agent, &value, now);
                    agent
                }
                Tail::Acked { agent, keys } => {
                    self.acked(&agent, keys, &value, answers.get(at + 1), now);
                    agent
                }
                Tail::Claimed { agent, claim } => {
                    self.claimed(&agent, &claim, value, now);
                    agent
                }
                Tail::Read { agent, read } => {
                    self.delivered(&agent, &read, value, now);
                    agent
                }
                Tail::Length { agent } => {
                    if let (Some(inbox), Some(len)) = (self.inboxes.get_mut(&agent), answers::int(&value)) {
                        inbox.len = len;
                    }
                    agent
                }
            };
            let delivery = &self.settings.delivery;
            let more = self.inboxes.get(&agent).is_some_and(|inbox| {
                inbox.tell_hunger();
                inbox.has_work(now.mono_ms, delivery)
            });
            if more && !self.regroup.contains(&agent) {
                self.ready.insert(agent.clone());
            }
            self.schedule(&agent);
        }
    }

    /// What was read or claimed is not as durable as configured yet: another Redis may know nothing of it, so
    /// nobody gets it until it is, and all inboxes are looked over. What is left to be done of `tail`.
    pub(super) fn withhold(&mut self, tail: Vec<(usize, Tail)>, now: Now) -> Vec<(usize, Tail)> {
        let (withheld, rest): (Vec<_>, Vec<_>) = tail.into_iter().partition(|(_, step)| step.moves());
        for (_, step) in withheld {
            if let Tail::Claimed { agent, .. } | Tail::Read { agent, .. } = step {
                if let Some(inbox) = self.inboxes.get_mut(&agent) {
                    inbox.claims_lost(now.mono_ms);
                }
                self.ready.insert(agent);
            }
        }
        rest
    }

    /// The connection broke: acknowledgements are sent again. Claims are undone with the connection, and
    /// reads whose answers were lost are found by the scan that follows the next connect.
    pub(super) fn tail_lost(&mut self, tail: Vec<(usize, Tail)>) {
        for (_, step) in tail {
            match step {
                Tail::Acked { agent, keys } => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.acked.extend(keys);
                        self.ready.insert(agent);
                    }
                }
                Tail::Grouped { agent } => {
                    let _ = self.regroup.insert(agent);
                }
                Tail::Length { agent } => {
                    let _ = self.measure.insert(agent);
                }
                Tail::Claimed { .. } | Tail::Read { .. } => {}
            }
        }
    }

    fn grouped(&mut self, agent: &AgentId, value: &Value, now: Now) {
        match answers::error_code(value) {
            None | Some("BUSYGROUP") => {}
            Some(code) => {
                log::error!("agent {agent}: a consumer group cannot be made: {code}");
                let _ = self.regroup.insert(agent.clone());
                self.stalled_until_ms = now.mono_ms + STALL_MS;
            }
        }
    }

    fn acked(
        &mut self,
        agent: &AgentId,
        keys: Vec<EntryKey>,
        deleted: &Value,
        acked: Option<&Value>,
        now: Now,
    ) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let refused = [Some(deleted), acked].into_iter().flatten().find_map(answers::error_code);
        if let Some(code) = refused {
            // Still to be acknowledged: Redis may be read-only, or out of disk, for a while.
            log::error!("{}: Redis refused an acknowledgement: {code}", inbox.stream);
            inbox.acked.extend(keys);
            self.look_again(agent, now.mono_ms + STALL_MS);
            return;
        }
        if keys.first().is_some_and(|key| key.owner.is_none()) {
            inbox.shrunk(answers::int(deleted).unwrap_or(0));
        }
        for key in &keys {
            inbox.removed(key);
        }
    }

    fn claimed(&mut self, agent: &AgentId, claim: &Claim, value: Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if let Some(code) = answers::error_code(&value) {
            log::error!("{}: Redis refused a claim: {code}", inbox.stream);
            if code == "NOGROUP" {
                self.group_lost(agent, claim.place, &claim.instance);
            } else {
                for entry in &claim.entries {
                    let at_ms = now.mono_ms + STALL_MS;
                    inbox.not_delivered(&claim.instance, claim.place, *entry, false, at_ms);
                }
            }
            return;
        }
        let mut returned = answers::entries(value).unwrap_or_default();
        let session = inbox.slot(&claim.instance).map(|slot| slot.session.clone());
        for entry in &claim.entries {
            let found = returned.iter().position(|e| e.id == *entry).map(|at| returned.swap_remove(at));
            match (found, &session) {
                (
                    Some(StreamEntry { id, envelope: Some(envelope), expires_ms, not_before_ms }),
                    Some(session),
                ) => {
                    let message_id = message_id_of(&envelope).unwrap_or_default();
                    let (instance, bytes) = (&claim.instance, envelope.len());
                    let attempt =
                        inbox.delivered_again(instance, claim.place, id, message_id, bytes, now.mono_ms);
                    let id = DeliveryId { place: claim.place, entry: id };
                    if untimely(
                        inbox,
                        instance,
                        id,
                        (not_before_ms, expires_ms),
                        now,
                        &self.settings.delivery,
                    ) {
                        let _ = self.dying.insert(agent.clone());
                        continue;
                    }
                    self.custody.delivered(agent, instance, message_id, attempt, now);
                    if session.outbox.push(Outbound::Delivery { id, attempt, envelope }) {
                        self.to_wake.push(session.clone());
                    }
                }
                // Deleted meanwhile, or another server's: nothing is left to deliver.
                (None | Some(StreamEntry { envelope: None, .. }), _) => {
                    inbox.not_delivered(&claim.instance, claim.place, *entry, true, now.mono_ms);
                }
                (Some(_), None) => {
                    inbox.not_delivered(&claim.instance, claim.place, *entry, false, now.mono_ms);
                }
            }
        }
    }

    /// All that was known of a stream's pending entries went with its group.
    fn group_lost(&mut self, agent: &AgentId, place: Place, instance: &InstanceId) {
        log::warn!("agent {agent}: a consumer group is gone; it is made again");
        if let Some(inbox) = self.inboxes.get_mut(agent) {
            inbox.forget(match place {
                Place::Shared => None,
                Place::Own => Some(instance),
            });
        }
        let _ = self.regroup.insert(agent.clone());
    }

    fn delivered(&mut self, agent: &AgentId, read: &Read, value: Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if let Some(code) = answers::error_code(&value) {
            if code == "NOGROUP" {
                self.group_lost(agent, read.place, &read.instance);
            } else {
                log::error!("{}: Redis refused a read: {code}", inbox.stream);
                inbox.read_answered(&read.instance, read.place, 1, 0);
            }
            return;
        }
        let Some(entries) = answers::read_one_stream(value) else {
            log::error!("{}: XREADGROUP answered in an unknown shape", inbox.stream);
            inbox.read_answered(&read.instance, read.place, 1, 0);
            return;
        };
        inbox.read_answered(&read.instance, read.place, read.count, entries.len());
        let Some(session) = inbox.slot(&read.instance).map(|slot| slot.session.clone()) else {
            return;
        };
        for StreamEntry { id, envelope, expires_ms, not_before_ms } in entries {
            let bytes = envelope.as_ref().map_or(0, String::len);
            let message_id = envelope.as_deref().and_then(message_id_of).unwrap_or_default();
            inbox.delivered_new(&read.instance, read.place, id, message_id, bytes, now.mono_ms);
            let id = DeliveryId { place: read.place, entry: id };
            let times = (not_before_ms, expires_ms);
            if untimely(inbox, &read.instance, id, times, now, &self.settings.delivery) {
                let _ = self.dying.insert(agent.clone());
                continue;
            }
            match envelope {
                Some(envelope) => {
                    self.custody.delivered(agent, &read.instance, message_id, 1, now);
                    if session.outbox.push(Outbound::Delivery { id, attempt: 1, envelope }) {
                        self.to_wake.push(session.clone());
                    }
                }
                // Not written by this server: nobody can handle it.
                None => {
                    let (reason, now_ms) = ("no_envelope", now.mono_ms);
                    let _ = inbox.nack(&read.instance, id, reason, false, now_ms, &self.settings.delivery);
                    let _ = self.dying.insert(agent.clone());
                }
            }
        }
    }
}
