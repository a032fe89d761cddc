//! What a receiver does with its deliveries: it acknowledges them, refuses them, commits them, handles them
//! slowly, or leaves them unsettled when its session ends. Of the latter it speaks later, by delivery ids that
//! are not its any more.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Commit, CommitResponse, SendRequest, Submission, SubmissionResult};

use super::actors::Member;
use super::history::{Accepted, Committed, Delivered, Held, History, Said, Word, now_us};
use crate::support::{Delivered as Delivery, Session};

/// The agent that gets a message for each commit.
const EFFECTS: &str = "e0";
/// One message in so many is committed, at each of its deliveries.
const COMMITTED_EACH: u64 = 4;
/// How long a slow handler takes, in milliseconds.
const SLOW_MS: Range<u64> = 200..900;
/// How long acknowledgements are collected.
const BATCH: Duration = Duration::from_millis(300);
/// How often a commit of unknown outcome is repeated, and how long after.
const MAX_REPEATS: u32 = 20;
const REPEAT_AFTER: Duration = Duration::from_millis(50);
/// Unsettled deliveries of ended sessions that are remembered.
const MAX_PAST: usize = 200;
/// Begins the reason of a nack that must change nothing.
pub const LATE: &str = "late:";
/// The reasons of the other nacks.
const NOT_NOW: &str = "not now";
const FAILED: &str = "handler_error:Test";

/// A commit that is under way.
struct Asked {
    /// `None`: the commit is of no delivery, it only repeats a message by its key.
    held: Option<Held>,
    key: String,
    data_json: String,
    late: bool,
    repeats: u32,
    asked_us: u64,
}

/// What a handler left unsettled.
struct Left {
    held: Held,
    /// A commit of it is of unknown outcome.
    committing: bool,
}

pub struct Desk<'m> {
    member: &'m Member,
    pub history: &'m History,
    session: u64,
    /// Requests that were answered.
    answered: HashSet<String>,
    /// Left unsettled by this session, and by earlier ones.
    left: Vec<Left>,
    past: Vec<Left>,
    /// Handlers that are not done before some time.
    slow: Vec<(Instant, Held)>,
    /// Acknowledgements that are said together.
    batch: Vec<Held>,
    batch_due: Instant,
    under_way: HashMap<u64, Asked>,
    again: Vec<(Instant, Asked)>,
    reference: u64,
}

/// Whether a message is one of those that are committed.
fn is_committed(message_id: &str) -> bool {
    // The last digits of a UUIDv7 are random.
    let digit = message_id.chars().last().and_then(|last| last.to_digit(16)).unwrap_or(0);
    u64::from(digit).is_multiple_of(COMMITTED_EACH)
}

impl<'m> Desk<'m> {
    pub fn new(member: &'m Member, history: &'m History) -> Self {
        Self {
            member,
            history,
            session: 0,
            answered: HashSet::new(),
            left: Vec::new(),
            past: Vec::new(),
            slow: Vec::new(),
            batch: Vec::new(),
            batch_due: Instant::now(),
            under_way: HashMap::new(),
            again: Vec::new(),
            reference: 0,
        }
    }

    /// A session begins: something is said of what earlier ones left.
    pub fn begin(&mut self, session: &Session, number: u64) {
        self.session = number;
        for left in std::mem::take(&mut self.past) {
            if self.member.chance(30) {
                self.speak_late(session, left);
            } else if self.past.len() < MAX_PAST {
                self.past.push(left);
            }
        }
    }

    /// The session is over: what its deliveries were not settled with is said later, if at all.
    pub fn end(&mut self, session: &Session) {
        self.ack_batch(session);
        self.past.append(&mut self.left);
        let open = self.under_way.drain().map(|(_, asked)| asked);
        let open: Vec<Asked> = open.chain(self.again.drain(..).map(|(_, asked)| asked)).collect();
        let held = open.into_iter().filter(|asked| !asked.late).filter_map(|asked| asked.held);
        self.past.extend(held.map(|held| Left { held, committing: true }));
    }

    /// Whether this session leaves deliveries unsettled.
    pub fn leaves_work(&self) -> bool {
        !self.left.is_empty()
    }

    /// Whether deliveries of ended sessions are unsettled.
    pub fn has_left_work(&self) -> bool {
        !self.past.is_empty() || !self.slow.is_empty()
    }

    fn say(&self, held: &Held, word: Word) {
        let late = held.session != self.session;
        self.history.note(|seen| seen.said.push(Said { held: held.clone(), word, late, at_us: now_us() }));
    }

    /// Speaks of a delivery of an ended session.
    fn speak_late(&mut self, session: &Session, left: Left) {
        let Left { held, committing } = left;
        if committing || self.member.chance(30) {
            self.commit(session, held, !committing);
        } else if self.member.chance(50) {
            self.say(&held, Word::Ack);
            session.ack(&held.delivery_id);
        } else {
            self.say(&held, Word::Bury);
            session.nack(&held.delivery_id, &format!("{LATE}{}:{}", held.message_id, held.attempt), false);
        }
    }

    pub fn do_what_is_due(&mut self, session: &Session) {
        let now = Instant::now();
        if now >= self.batch_due {
            self.ack_batch(session);
        }
        let (due, slow) = std::mem::take(&mut self.slow).into_iter().partition(|(at, _)| *at <= now);
        self.slow = slow;
        let due: Vec<(Instant, Held)> = due;
        for (_, held) in due {
            let late = held.session != self.session;
            self.commit(session, held, late);
        }
        let (due, again) = std::mem::take(&mut self.again).into_iter().partition(|(at, _)| *at <= now);
        self.again = again;
        let due: Vec<(Instant, Asked)> = due;
        for (_, asked) in due {
            self.submit(session, asked);
        }
    }

    fn ack_batch(&mut self, session: &Session) {
        let batch = std::mem::take(&mut self.batch);
        for held in &batch {
            self.say(held, Word::Ack);
        }
        if !batch.is_empty() {
            session.ack_all(batch.into_iter().map(|held| held.delivery_id).collect());
        }
    }

    /// Handles a delivery; `leaving`: some of them are left unsettled.
    pub fn handle(&mut self, session: &Session, delivery: &Delivery, leaving: bool) {
        let held = self.note_delivery(delivery);
        self.reply_to(delivery);
        let earlier = |left: &Left| left.held.message_id == held.message_id;
        if let Some(at) = self.past.iter().position(earlier) {
            let left = self.past.swap_remove(at);
            self.speak_late(session, left);
            // If that settled this delivery, the message does not come again.
            self.nack(session, &held, NOT_NOW, true);
        } else if self.member.is_moving() && self.member.chance(25) {
            self.slow.push((Instant::now() + self.member.span(&SLOW_MS), held));
        } else if leaving && self.member.chance(25) {
            self.left.push(Left { held, committing: false });
        } else if self.member.is_receiver() && is_committed(&held.message_id) {
            self.commit(session, held, false);
        } else if self.member.chance(4) {
            self.nack(session, &held, NOT_NOW, true);
        } else if self.member.chance(1) {
            self.nack(session, &held, FAILED, false);
        } else if self.member.is_batching() {
            if self.batch.is_empty() {
                self.batch_due = Instant::now() + BATCH;
            }
            self.batch.push(held);
        } else {
            self.say(&held, Word::Ack);
            session.ack(&held.delivery_id);
        }
    }

    fn note_delivery(&self, delivery: &Delivery) -> Held {
        let held = Held {
            message_id: delivery.message_id().to_owned(),
            delivery_id: delivery.id.clone(),
            attempt: delivery.attempt,
            session: self.session,
        };
        let is_reply = delivery.envelope["meta"]["is_reply"] == true;
        self.history.note(|seen| {
            seen.delivered.push(Delivered {
                message_id: held.message_id.clone(),
                agent: self.member.agent.clone(),
                instance: self.member.instance.clone(),
                session: held.session,
                attempt: held.attempt,
                reply_to: is_reply.then(|| delivery.correlation_id().to_owned()),
                key: delivery.data()["key"].as_str().map(str::to_owned),
                target: delivery.envelope["target_id"].as_str().unwrap_or_default().to_owned(),
                at_us: now_us(),
            });
        });
        held
    }

    fn reply_to(&mut self, delivery: &Delivery) {
        let expects_reply = delivery.envelope["meta"]["expects_reply"] == true;
        if expects_reply && self.answered.insert(delivery.message_id().to_owned()) {
            let correlation = delivery.correlation_id();
            // An unknown outcome is not repeated here: the message comes again if need be.
            if let Ok(id) = self.member.client().reply(&self.member.instance, correlation, "{}") {
                self.history.note(|seen| seen.replied.push((id, correlation.to_owned())));
            }
        }
    }

    fn nack(&self, session: &Session, held: &Held, reason: &str, retryable: bool) {
        self.say(held, if retryable { Word::Nack } else { Word::Bury });
        session.nack(&held.delivery_id, reason, retryable);
    }

    /// Commits a delivery with one message, which has a key of this delivery.
    fn commit(&mut self, session: &Session, held: Held, late: bool) {
        self.say(&held, Word::Commit);
        let key = format!("{}-{}-{}", held.message_id, self.member.instance, held.attempt);
        let data_json = format!("{{\"key\":\"{key}\"}}");
        let asked = Asked { held: Some(held), key, data_json, late, repeats: 0, asked_us: now_us() };
        self.submit(session, asked);
    }

    fn submit(&mut self, session: &Session, asked: Asked) {
        self.reference += 1;
        let send = SendRequest {
            target_id: EFFECTS.to_owned(),
            data_json: asked.data_json.clone(),
            idempotency_key: asked.key.clone(),
            ..SendRequest::default()
        };
        let messages =
            vec![Submission { reference: 1, call: Some(Call::Send(send)), ..Submission::default() }];
        let delivery_id = asked.held.as_ref().map(|held| held.delivery_id.clone()).unwrap_or_default();
        let commit = Call::Commit(Commit { delivery_id, messages, ..Commit::default() });
        let reference = self.reference;
        let _ = self.under_way.insert(reference, asked);
        session.submit(vec![Submission { reference, call: Some(commit), ..Submission::default() }]);
    }

    /// What became of a commit.
    pub fn heard(&mut self, session: &Session, result: SubmissionResult) {
        let Some(asked) = self.under_way.remove(&result.reference) else {
            return;
        };
        match result.outcome {
            Some(Outcome::Commit(done)) => self.done(session, asked, &done),
            Some(Outcome::Failure(failure)) if failure.detail == "commit_unknown" => {
                let again = Asked { repeats: asked.repeats + 1, asked_us: now_us(), ..asked };
                if again.repeats <= MAX_REPEATS {
                    self.again.push((Instant::now() + REPEAT_AFTER, again));
                }
            }
            // It was done before, or is not this session's any more.
            Some(Outcome::Failure(failure)) if failure.detail == "delivery_not_held" => {}
            // Nothing happened.
            Some(Outcome::Failure(_)) => {
                if let Some(held) = asked.held.filter(|held| !asked.late && held.session == self.session) {
                    self.nack(session, &held, NOT_NOW, true);
                }
            }
            other => panic!("a commit came back as {other:?}"),
        }
    }

    fn done(&mut self, session: &Session, asked: Asked, done: &CommitResponse) {
        let mut results = Vec::new();
        for result in &done.results {
            let Some(Outcome::Send(sent)) = &result.outcome else {
                panic!("a commit's message came back as {result:?}")
            };
            results.push(sent.message_id.clone());
            self.history.note(|seen| {
                seen.accepted.push(Accepted {
                    message_id: sent.message_id.clone(),
                    sender: self.member.agent.clone(),
                    instance: self.member.instance.clone(),
                    target: EFFECTS.to_owned(),
                    correlation_id: None,
                    receipt: (sent.receipt.lane.clone(), sent.receipt.sequence),
                    at_us: now_us(),
                });
            });
        }
        let Asked { held, key, data_json, late, asked_us, .. } = asked;
        let Some(held) = held else { return };
        self.history.note(|seen| seen.committed.push(Committed { held, late, results, asked_us }));
        if self.member.chance(10) {
            // The message once more, by its key: it has no second effect.
            self.submit(session, Asked { held: None, key, data_json, late: false, repeats: 0, asked_us });
        }
    }
}
