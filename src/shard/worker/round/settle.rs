//! The one place where a round changes memory: what Redis has answered is taken over, or what the round took is given
//! back.

use super::super::Worker;
use super::super::agenda::Scan;
use super::RoundOutcome;
use super::ask::{Page, SCAN_PAGE};
use super::deliver::FOREIGN_REASON;
use super::draft::Drafted;
use super::gather::{Body, FoundLetter, Remains};
use super::plan::{DueLetter, Plan};
use super::tail::Step;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;
use crate::shard::desk::control::Control;
use crate::shard::desk::job::Job;
use crate::shard::desk::spans::{CallSpan, Span};
use crate::shard::inbox::{Gone, MAX_ATTEMPTS_REASON, MAX_TRACKED_ENTRIES};
use crate::shard::txn::event::Event;
use crate::shard::txn::transaction::Counts;
use crate::shard::txn::written::Written;
use crate::store::pipeline::Effects;

/// Wait before a gone instance is looked at again whose replies are on their way to the dead letters, in milliseconds.
const CLEAR_RETRY_MS: u64 = 250;

impl Worker {
    /// Takes over the outcome of a round. The jobs to decide again, where a watched key had changed.
    pub(super) fn settle(&mut self, outcome: RoundOutcome, now: Now) -> Option<Vec<Job>> {
        match outcome {
            RoundOutcome::Committed { drafted, effects, assured } => {
                self.settle_committed(*drafted, effects, assured, now);
                None
            }
            RoundOutcome::Conflict(plan) => {
                self.link.lane.discard();
                Some(self.give_back(plan))
            }
            RoundOutcome::Refused(plan) => {
                self.link.lane.discard();
                self.refused(plan, now)
            }
            RoundOutcome::Before(plan, error) => {
                self.link.lane.discard();
                self.lose_link(&error, now);
                for job in self.give_back(plan) {
                    self.shared.turn_away(job, Refusal::STORAGE_UNAVAILABLE);
                }
                None
            }
            RoundOutcome::Unknown(drafted, error) => {
                self.lose_link(&error, now);
                let Drafted { plan, steps, .. } = *drafted;
                for step in steps {
                    if let Step::Claimed { agent, claim, .. } = step
                        && let Some(inbox) = self.inboxes.get_mut(&agent)
                    {
                        inbox.claim_unknown(&claim);
                    }
                }
                // Sessions that may be entered as open here, and are not.
                for session in plan.jobs.iter().filter_map(Job::as_open) {
                    let (agent, instance) = (session.identity.agent.clone(), session.instance.clone());
                    self.ledger.push(Event::Unopened { agent, instance });
                }
                for job in self.give_back(plan) {
                    job.fail(Refusal::COMMIT_UNKNOWN);
                }
                None
            }
        }
    }

    /// Redis refused the round as a whole. What lets consumers drain their inboxes is tried once more, in the way that
    /// Redis takes when its memory is full.
    fn refused(&mut self, plan: Plan, now: Now) -> Option<Vec<Job>> {
        let last = plan.essential;
        if last {
            self.link.pause(now);
        } else {
            self.link.stall(now);
        }
        let jobs = self.give_back(plan).into_iter();
        let (again, refused): (Vec<Job>, Vec<Job>) = jobs.partition(|job| !last && job.is_essential());
        refused.into_iter().for_each(|job| self.shared.turn_away(job, Refusal::STORAGE_UNAVAILABLE));
        (!again.is_empty()).then_some(again)
    }

    /// A round whose transaction would have been empty: scans, and events that came to nothing.
    pub(super) fn settle_unsent(&mut self, drafted: Drafted, now: Now) {
        self.ledger.carried_out(drafted.plan.events);
        self.settle_pages(drafted.plan.scans, drafted.pages, now);
        self.settle_steps(drafted.steps, &mut Effects::default(), true, now);
        for agent in drafted.plan.moving.iter() {
            self.settle_moving(agent, now);
        }
    }

    fn settle_committed(&mut self, drafted: Drafted, mut effects: Effects, assured: bool, now: Now) {
        let Drafted { plan, decided, added, counts, states, state_reads, written, spans, .. } = drafted;
        let Drafted { letters, remains, pages, steps, block, .. } = drafted;
        if self.link.note_assurance(assured) {
            self.compare_all();
        }
        // First: what was read before the transaction is compared with what was known then.
        self.settle_pages(plan.scans, pages, now);
        if block.is_some() {
            self.link.confirm(assured);
            self.ledger.custody.clear();
        }
        self.trace_committed(spans);
        // Also those without a record.
        self.ledger.carried_out(plan.events);
        self.learn_counts(counts, &mut effects, now);
        for (agent, state) in &states {
            self.shared.states.note(agent, state.bytes as u64);
        }
        self.states.keep(states);
        for (agent, added) in added {
            let replied: u64 = added.replies.iter().map(|(_, bytes)| *bytes).sum();
            self.shared.take_room(added.shared_bytes.saturating_add(replied), 0);
            self.replied(&agent, &added.replies);
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.added(added.messages, added.max_bytes, added.shared_bytes);
                added.replies.iter().for_each(|(instance, _)| inbox.own_news(instance));
                if !plan.moves {
                    // It was not read in the same round.
                    self.agenda.ready.insert(agent.clone());
                }
                if self.shared.has_peers() {
                    // Others add to this inbox too.
                    let _ = self.agenda.measure.insert(agent);
                }
            } else {
                // The inbox of another worker.
                let (messages, bytes, replies) = (added.messages as u64, added.shared_bytes, added.replies);
                let grown = Control::Grown { agent: agent.clone(), messages, bytes, replies };
                self.shared.tell_news(&agent, grown);
            }
        }
        let seen = self.states_seen(state_reads, &mut effects);
        self.answer(plan.jobs, decided, (&seen, &mut effects, assured), now);
        self.settle_letters(letters, &effects, now);
        self.settle_remains(plan.clears, remains, now);
        self.written = written;
        self.settle_steps(steps, &mut effects, assured, now);
        self.written = Written::default();
        for agent in plan.moving.iter() {
            self.settle_moving(agent, now);
        }
    }

    /// What was decided is committed.
    fn trace_committed(&self, spans: Vec<CallSpan>) {
        let Some(tracer) = self.shared.tracer().filter(|_| !spans.is_empty()) else { return };
        let committed_us = Now::read().unix_us;
        for span in spans {
            tracer.finish(Span::Call(Box::new(CallSpan { committed_us, ..span })));
        }
    }

    /// Compares every inbox with Redis: reads may have been withheld.
    fn compare_all(&mut self) {
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        for agent in agents {
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.mark_unverified();
            }
            self.compare(&agent);
        }
    }

    /// Counts of other servers for the senders of this round count here too.
    fn learn_counts(&self, counts: Counts, effects: &mut Effects, now: Now) {
        for (sender, total) in counts {
            let total = effects.take(total).and_then(|total| u32::try_from(total).ok());
            if let (Some(card), Some(total)) = (self.settings.policy.agent(sender.as_str()), total) {
                card.sent().learn(total, now);
            }
        }
    }

    fn settle_pages(&mut self, scans: Vec<Scan>, pages: Vec<Page>, now: Now) {
        for (scan, page) in scans.into_iter().zip(pages) {
            match page {
                Page::Lines(lines) => self.settle_page(scan, &lines, now),
                Page::NoGroup => self.group_lost(&scan.agent, scan.owner.as_ref()),
                Page::Unknown => log::error!(
                    code = "scan_unreadable", agent:% = scan.agent;
                    "agent {}: XPENDING has an unknown answer", scan.agent
                ),
            }
        }
    }

    fn settle_page(&mut self, scan: Scan, lines: &[crate::store::answers::PendingEntry], now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&scan.agent) else {
            return;
        };
        let number = scan.after.map_or_else(|| inbox.begin_scan(), |(_, number)| number);
        let directory = &self.shared.directory;
        for line in lines {
            // An entry that a session on another server holds is that server's.
            if inbox.holder_of(line).is_some_and(|holder| directory.is_elsewhere(&scan.agent, &holder)) {
                continue;
            }
            inbox.adopt(scan.owner.as_ref(), line, number, now.mono_ms, &self.settings.delivery);
        }
        let agent = scan.agent.clone();
        if lines.len() < SCAN_PAGE {
            let held = inbox.end_scan(scan.owner.as_ref(), number);
            if held > 0 {
                log::warn!(
                    code = "deliveries_settled_elsewhere", agent:%, count = held;
                    "agent {agent}: {held} deliveries under way are settled already, as Redis says"
                );
            }
        } else if inbox.tracked() < MAX_TRACKED_ENTRIES {
            let after = lines.last().map(|line| (line.id, number));
            self.agenda.scan(Scan { after, ..scan });
        }
        self.agenda.ready.insert(agent.clone());
        self.schedule(&agent);
    }

    /// All that was known of a stream's pending entries went with its group.
    pub(super) fn group_lost(&mut self, agent: &AgentId, owner: Option<&InstanceId>) {
        if let Some(inbox) = self.inboxes.get_mut(agent) {
            let stream = inbox.stream_of(owner);
            log::warn!(
                code = "group_remade", agent:%, stream:%;
                "agent {agent}: the consumer group of {stream} is gone; it is made again"
            );
            self.ledger.push(Event::Vanished {
                agent: agent.clone(),
                instance: owner.map_or_else(String::new, ToString::to_string),
                reason: format!("{stream} or its group was removed; {} messages were in it", inbox.len),
            });
            inbox.forget(owner);
        }
        let _ = self.agenda.regroup.insert(agent.clone());
    }

    fn settle_letters(
        &mut self,
        letters: Vec<(FoundLetter, std::ops::Range<usize>)>,
        effects: &Effects,
        now: Now,
    ) {
        for (FoundLetter { letter: DueLetter { agent, stream, letter }, body, ours }, stored) in letters {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            if !ours {
                inbox.buried_elsewhere(&letter.key);
            } else if matches!(body, Body::Ours(_)) && letter.reason == FOREIGN_REASON {
                inbox.spared(&letter.key, now.mono_ms);
                self.schedule(&agent);
            } else if let (Some(error), false) = (effects.refused(&stored), matches!(body, Body::Foreign(_)))
            {
                log::error!(
                    code = "letter_not_stored", agent:%;
                    "agent {agent}: a dead letter could not be stored: {error}"
                );
                self.agenda.refused(now);
                continue;
            } else {
                // It is in the dead letters: out of the inbox with it, as if it had been acknowledged. A crash in
                // between leaves it in both, never in neither.
                inbox.buried(&letter.key);
                match body {
                    Body::Missing => {
                        self.vanished(&agent, &letter.holder, &format!("{stream} {}", letter.key.entry));
                    }
                    Body::Foreign(_) => {
                        log::error!(
                            code = "foreign_entry", agent:%, key:% = stream;
                            "agent {agent}: {stream} {} was not written by a server: it is put aside",
                            letter.key.entry
                        );
                    }
                    Body::Ours(_) => {}
                }
                if letter.reason == MAX_ATTEMPTS_REASON {
                    self.handler_failed(&agent, &letter.reason, now);
                }
            }
            if self.inboxes.get(&agent).is_some_and(|inbox| inbox.dead.is_empty()) {
                let _ = self.agenda.dying.remove(&agent);
            }
            self.agenda.ready.insert(agent);
        }
    }

    /// A message that was accepted is not in its inbox any more, and no server took it out.
    pub(super) fn vanished(&mut self, agent: &AgentId, holder: &InstanceId, what: &str) {
        log::error!(
            code = "messages_vanished", agent:%;
            "agent {agent}: {what} was removed from Redis by somebody else"
        );
        self.ledger.push(Event::Vanished {
            agent: agent.clone(),
            instance: holder.to_string(),
            reason: format!("{what} was removed by somebody else"),
        });
    }

    fn settle_remains(&mut self, clears: Vec<(AgentId, InstanceId)>, remains: Vec<Remains>, now: Now) {
        let again_at_ms = now.mono_ms + self.grace_ms();
        for ((agent, instance), Remains { ours, unread, consumer_free }) in clears.into_iter().zip(remains) {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            let since_ms = None;
            if !ours {
                inbox.cleared(&instance);
            } else if !unread.is_empty() {
                // Once its replies are out of its inbox.
                let clear_at_ms = now.mono_ms + CLEAR_RETRY_MS;
                let _ = inbox.gone.insert(instance, Gone { since_ms, clear_at_ms });
            } else if consumer_free {
                inbox.cleared(&instance);
            } else {
                // Its share of the inbox waits for another instance; the consumer is needed until then.
                let _ = inbox.gone.insert(instance, Gone { since_ms, clear_at_ms: again_at_ms });
            }
            self.schedule(&agent);
        }
    }

    fn settle_steps(&mut self, steps: Vec<Step>, effects: &mut Effects, assured: bool, now: Now) {
        let mut last: Option<AgentId> = None;
        for step in steps {
            let agent = match step {
                Step::Grouped { agent, made } => {
                    if let Err(code) = effects.take(made) {
                        log::error!(
                            code = "group_not_made", agent:%;
                            "agent {agent}: a consumer group cannot be made: {code}"
                        );
                        let _ = self.agenda.regroup.insert(agent.clone());
                        self.agenda.refused(now);
                    }
                    agent
                }
                Step::Left { agent, keys, deleted, acked } => {
                    let answered = effects.take(deleted).and_then(|count| effects.take(acked).map(|_| count));
                    self.left(&agent, &keys, answered, now);
                    agent
                }
                Step::Recounted { agent } => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.recounted();
                    }
                    agent
                }
                Step::Measured { agent, len } => {
                    self.measured(&agent, effects.take(len), now);
                    agent
                }
                Step::Claimed { agent, claim, claimed } => {
                    let claimed = effects.take(claimed);
                    if assured {
                        self.claimed(&agent, &claim, claimed, now);
                    } else if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.claim_unknown(&claim);
                    }
                    agent
                }
                Step::Read { agent, read, entries } => {
                    let entries = effects.take(entries);
                    if assured {
                        self.delivered(&agent, &read, entries, now);
                    }
                    agent
                }
                Step::Turned { agent, turn } => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.set_turn(turn);
                    }
                    agent
                }
            };
            // Steps of one inbox stand together.
            if let Some(before) = last.replace(agent.clone())
                && before != agent
            {
                self.settle_moving(&before, now);
            }
        }
        if let Some(agent) = last {
            self.settle_moving(&agent, now);
        }
    }

    /// What follows for an inbox that was looked at: it may have more to move, now or later.
    fn settle_moving(&mut self, agent: &AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        inbox.promote(now.mono_ms, &self.settings.delivery);
        self.sessions.tell_hunger(inbox);
        let more = inbox.has_work(now.mono_ms, &self.settings.delivery) || !inbox.recounts.is_empty();
        if more && !self.agenda.regroup.contains(agent) {
            self.agenda.ready.insert(agent.clone());
        }
        self.note_dying(agent);
        self.schedule(agent);
    }
}
