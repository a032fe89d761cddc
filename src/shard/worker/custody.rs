//! Who had which message: deliveries and acknowledgements since the last commit, gathered per session so
//! that one record covers many. Hot path.
//!
//! Both go on record with the next transaction: acknowledgements, which are committed before the entries
//! leave Redis, at the latest after [`MAX_ACK_DELAY_MS`], deliveries after [`MAX_DELAY_MS`]. By then a
//! message or the acknowledgement has mostly come, and all cost one transaction. A server that is killed
//! meanwhile delivers again what it knew to be acknowledged.

use uuid::Uuid;

use crate::audit::record::MAX_RECORD_MESSAGES;
use crate::audit::{Action, Decision, Fields, Lane};
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};

/// How long a delivery may be off the record, in milliseconds.
pub(in crate::shard::worker) const MAX_DELAY_MS: u64 = 20;
/// How long an acknowledgement may be off the record, and its message in Redis, in milliseconds.
const MAX_ACK_DELAY_MS: u64 = 5;
/// Messages whose custody may wait while Redis takes no transaction; beyond it nothing is delivered.
const MAX_WAITING: usize = 100_000;

/// What one session got, or acknowledged.
#[derive(Debug)]
struct Span {
    acked: bool,
    agent: AgentId,
    instance: InstanceId,
    messages: Vec<(Uuid, u8)>,
}

/// What is not on record yet.
#[derive(Debug, Default)]
pub(in crate::shard::worker) struct Custody {
    spans: Vec<Span>,
    waiting: usize,
    /// Acknowledgements among them: on record before their entries leave Redis.
    acked: usize,
    /// When it must be on record (monotonic milliseconds).
    due_ms: Option<u64>,
}

impl Custody {
    /// A message goes out to a session for the `attempt`th time.
    pub(in crate::shard::worker) fn delivered(
        &mut self,
        agent: &AgentId,
        instance: &InstanceId,
        id: Uuid,
        attempt: u32,
        now: Now,
    ) {
        self.due_in(MAX_DELAY_MS, now);
        self.push(false, agent, instance, id, attempt);
    }

    /// A session acknowledged a message that it had got for the `attempt`th time.
    pub(in crate::shard::worker) fn acked(
        &mut self,
        agent: &AgentId,
        instance: &InstanceId,
        id: Uuid,
        attempt: u32,
        now: Now,
    ) {
        self.acked += 1;
        self.due_in(MAX_ACK_DELAY_MS, now);
        self.push(true, agent, instance, id, attempt);
    }

    fn due_in(&mut self, delay_ms: u64, now: Now) {
        let due_ms = now.mono_ms + delay_ms;
        self.due_ms = Some(self.due_ms.map_or(due_ms, |known| known.min(due_ms)));
    }

    fn push(&mut self, acked: bool, agent: &AgentId, instance: &InstanceId, id: Uuid, attempt: u32) {
        self.waiting += 1;
        let message = (id, u8::try_from(attempt).unwrap_or(u8::MAX));
        match self.spans.last_mut() {
            Some(span)
                if span.acked == acked
                    && span.messages.len() < MAX_RECORD_MESSAGES
                    && span.instance == *instance
                    && span.agent == *agent =>
            {
                span.messages.push(message);
            }
            _ => self.spans.push(Span {
                acked,
                agent: agent.clone(),
                instance: instance.clone(),
                messages: vec![message],
            }),
        }
    }

    /// Whether there is nothing to record.
    pub(in crate::shard::worker) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether acknowledgements wait.
    pub(in crate::shard::worker) fn has_acks(&self) -> bool {
        self.acked > 0
    }

    /// Whether what waits must be recorded now.
    pub(in crate::shard::worker) fn is_due(&self, now: Now) -> bool {
        self.due_ms.is_some_and(|due_ms| due_ms <= now.mono_ms)
    }

    /// When what waits must be recorded (monotonic milliseconds).
    pub(in crate::shard::worker) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether so much waits that nothing more may be delivered.
    pub(in crate::shard::worker) fn is_full(&self) -> bool {
        self.waiting >= MAX_WAITING
    }

    /// Adds the records to the lane's waiting block.
    pub(in crate::shard::worker) fn record(&self, lane: &mut Lane, now: Now) {
        for span in &self.spans {
            let action = if span.acked { Action::Acked } else { Action::Delivered };
            let fields = Fields {
                agent: span.agent.as_str(),
                instance: span.instance.as_str(),
                // The policy stands in the record of the decision that this follows from.
                messages: &span.messages,
                ..Fields::default()
            };
            let _ = lane.append(now, action, Decision::Event, &fields);
        }
    }

    /// All of it is on record.
    pub(in crate::shard::worker) fn clear(&mut self) {
        self.spans.clear();
        (self.waiting, self.acked, self.due_ms) = (0, 0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_session_share_a_record_up_to_its_bound() {
        let now = Now { unix_us: 0, mono_ms: 5 };
        let (agent, instance) = (AgentId::parse("a").unwrap(), InstanceId::parse("i").unwrap());
        let mut custody = Custody::default();
        assert!(custody.is_empty());
        for _ in 0..=MAX_RECORD_MESSAGES {
            custody.delivered(&agent, &instance, Uuid::now_v7(), 1, now);
        }
        assert_eq!(custody.spans.len(), 2);
        assert!(!custody.is_due(now));
        assert!(custody.is_due(Now { mono_ms: 5 + MAX_DELAY_MS, ..now }));
        custody.acked(&agent, &instance, Uuid::now_v7(), 300, now);
        assert_eq!(custody.spans.last().map(|span| span.messages[0].1), Some(255));
        assert!(!custody.is_due(now));
        assert!(custody.is_due(Now { mono_ms: 5 + MAX_ACK_DELAY_MS, ..now }));
        custody.clear();
        assert!(custody.is_empty() && !custody.is_due(now) && custody.due_ms().is_none());
    }
}
