//! The verdict on a message or a reply: payload checks, the policy pipeline, room in the inbox. Judging changes
//! nothing but counts of the rate limit, which are taken back with the verdict that is dropped.

use std::borrow::Cow;

use super::facts::Remembered;
use super::parties::{Addressee, Sender};
use super::transaction::Transaction;
use crate::audit::Decision;
use crate::content::{Content, TRACE_STATE, Trace};
use crate::dlp::{Action, Route, Scan};
use crate::ids::AgentId;
use crate::policy::{Breaker, Circuit, Counted, Message, Policy, RuleName, Verdict, check_payload};
use crate::refusal::Refusal;
use crate::shard::desk::job::{Post, Response};
use crate::shard::desk::outcome::Found;
use crate::shard::desk::stored::Stored;

/// Findings of which a sender is told.
const MAX_FOUND: usize = 8;
/// Longest pointer that a sender is told, in characters; of what is longer the middle is left out. All of them fit into a status.
const MAX_POINTER_CHARS: usize = 96;

/// What was decided on a message, ready for the record.
pub(super) struct Judged {
    pub decision: Decision,
    pub rule: RuleName,
    pub refusal: Option<Refusal>,
    pub findings: String,
    /// Of them, what the sender is told.
    pub found: Vec<Found>,
    pub redacted: Option<String>,
    /// Something was found in the trace state, or may have been.
    pub state_found: bool,
    /// It counts against its sender's rate, unless this is dropped.
    pub counted: Option<Counted>,
}

impl Judged {
    /// What is delivered of what was judged: the redacted payload in place of its own.
    pub(super) fn content<'a>(&'a self, content: Content<'a>) -> Content<'a> {
        Content { data_json: self.redacted.as_deref().unwrap_or(content.data_json), ..content }
    }

    /// The trace context as it goes on record: that of what is forwarded. A state in which something was found is on no record, nor is
    /// that of what is refused.
    pub(super) fn trace<'a>(&self, trace: Option<&'a Trace>) -> Cow<'a, str> {
        let Some(trace) = trace else { return Cow::Borrowed("") };
        match trace.state.as_ref().filter(|_| self.refusal.is_none() && !self.state_found) {
            Some(state) => Cow::Owned(format!("{} {state}", trace.parent)),
            None => Cow::Borrowed(&trace.parent),
        }
    }

    fn new(policy: &Policy, verdict: Verdict) -> Self {
        Self {
            decision: verdict.decision,
            rule: verdict.rule.name(),
            refusal: verdict.refusal(),
            counted: verdict.counted,
            findings: verdict.findings.as_ref().map(|scan| policy.describe(scan)).unwrap_or_default(),
            state_found: verdict.findings.as_ref().is_some_and(|scan| {
                scan.further > 0 || scan.findings.iter().any(|finding| finding.pointer == TRACE_STATE)
            }),
            found: verdict.findings.as_ref().map(|scan| found(scan)).unwrap_or_default(),
            redacted: verdict.findings.and_then(|scan| scan.redacted),
        }
    }

    /// Refused before the pipeline, or behind it.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { decision: Decision::Refused, refusal: Some(refusal), ..Self::allowed(RuleName::default()) }
    }

    /// Allowed without the pipeline, by this rule.
    pub(super) fn allowed(rule: RuleName) -> Self {
        Self {
            decision: Decision::Allowed,
            rule,
            refusal: None,
            counted: None,
            findings: String::new(),
            state_found: false,
            found: Vec::new(),
            redacted: None,
        }
    }
}

/// What a sender is told of a scan: what its message was refused or changed for. That something raised an alert is the
/// operators' business.
fn found(scan: &Scan) -> Vec<Found> {
    let told = scan.findings.iter().filter(|finding| finding.action >= Action::Redact);
    told.take(MAX_FOUND)
        .map(|finding| Found {
            kind: finding.kind.clone(),
            pointer: shortened(&finding.pointer),
            action: finding.action.as_str(),
        })
        .collect()
}

/// A long pointer, without its middle: its end says where the finding is.
fn shortened(pointer: &str) -> String {
    let length = pointer.chars().count();
    if length <= MAX_POINTER_CHARS {
        return pointer.to_owned();
    }
    let end = MAX_POINTER_CHARS / 2;
    let head = pointer.chars().take(MAX_POINTER_CHARS - end - 1);
    head.chain(['…']).chain(pointer.chars().skip(length - end)).collect()
}

impl Transaction<'_> {
    /// The first message with this idempotency key, if this is not the first.
    pub(super) fn remembered(&self, sender: &AgentId, post: &Post) -> Result<Option<Remembered>, Refusal> {
        let Some(key) = &post.idempotency_key else {
            return Ok(None);
        };
        match self.facts.remembered.get(&(sender.clone(), key.clone())) {
            Some(Some(first)) if first.digest == Remembered::digest_of(post) => Ok(Some(first.clone())),
            Some(Some(_)) => Err(Refusal::IDEMPOTENCY_KEY_REUSED),
            // There may be one that another server can read.
            Some(None) | None if self.facts.unreadable => Err(Refusal::STORAGE_UNAVAILABLE),
            Some(None) | None => Ok(None),
        }
    }

    /// Judges a message.
    pub(super) fn judge_post(&mut self, sender: Sender<'_>, post: &Post) -> Judged {
        let settings = self.settings;
        if let Err(refusal) = check_payload(&settings.limits, &post.message_type, &post.data_json) {
            return Judged::refused(refusal);
        }
        let inbox = self.inboxes.get(post.target.as_str());
        // Open, as far as this round is concerned, where another worker or server makes the trials.
        let elsewhere = self.facts.trials_elsewhere.contains(post.target.as_str())
            || (inbox.is_none() && self.shared.is_circuit_open(&post.target));
        let waiting = elsewhere.then(|| Breaker::reopened(self.now.mono_ms));
        let breaker =
            waiting.as_ref().or(self.trials.get(post.target.as_str())).or(inbox.map(|inbox| &inbox.breaker));
        let message = Message { sender: sender.agent(), target: &post.target, content: post.content() };
        let verdict = settings.policy.check(message, breaker, self.now, self.scratch);
        let mut judged = Judged::new(&settings.policy, verdict);
        if judged.refusal.is_some() {
            return judged;
        }
        if let Err(refusal) = self.check_room(&post.target, post.data_json.len()) {
            (judged.decision, judged.refusal) = (Decision::Refused, Some(refusal));
            // It is not refused for what was found.
            judged.found = Vec::new();
            return judged;
        }
        // In half-open the next message of this round has to wait for this trial.
        if let (Some(config), Some(breaker), Some(inbox)) = (settings.policy.breaker(), breaker, inbox)
            && breaker.circuit(config, self.now.mono_ms) == Circuit::HalfOpen
        {
            let mut breaker = breaker.clone();
            breaker.admitted(config, self.now.mono_ms);
            let _ = self.trials.insert(inbox.agent.clone(), breaker);
        }
        judged
    }

    /// Whether the target's inbox takes one more message with so much data.
    fn check_room(&self, target: &str, data: usize) -> Result<(), Refusal> {
        let len = match self.inboxes.get(target) {
            Some(inbox) => inbox.len,
            // Another worker's inbox: its length was read for this round.
            None => self.facts.lengths.get(target).copied().unwrap_or(0),
        };
        if len + self.added_to(target).0 >= self.settings.limits.max_queue_len {
            return Err(Refusal::QUEUE_FULL);
        }
        self.check_bytes(target, data)?;
        let offline = || AgentId::parse(target).is_none_or(|agent| !self.shared.directory.is_active(&agent));
        if !self.settings.delivery.queue_offline && offline() {
            return Err(Refusal::TARGET_OFFLINE);
        }
        Ok(())
    }

    /// Whether the target's inbox takes so many bytes more. It may have no more than Redis has room left for, so that
    /// messages to somebody who does not take them never fill it up.
    fn check_bytes(&self, target: &str, data: usize) -> Result<(), Refusal> {
        let stored = match self.inboxes.get(target) {
            Some(inbox) => inbox.size.stored().get(),
            None => self.shared.inboxes.of(target).unwrap_or(0),
        };
        self.check_size(stored, self.added_to(target).1, data)
    }

    /// The same for an instance's own inbox. What waits in the shared one does not count: replies are what its handlers
    /// may wait for.
    fn check_reply_bytes(&self, to: &Addressee, data: usize) -> Result<(), Refusal> {
        let target = to.agent.as_str();
        let stored = match self.inboxes.get(target) {
            Some(inbox) => inbox.size.own(&to.instance),
            None => self.shared.replies.of(target).unwrap_or(0),
        };
        self.check_size(stored, self.replied_to(target, &to.instance), data)
    }

    fn check_size(&self, stored: u64, added: u64, data: usize) -> Result<(), Refusal> {
        if stored + added == 0 {
            // One always.
            return Ok(());
        }
        let after = stored.saturating_add(added).saturating_add(Stored::of_entry(data));
        let room = self.shared.storage_room().saturating_sub(added);
        match after {
            after if after > room && self.shared.is_storage_full() => Err(Refusal::STORAGE_FULL),
            after if after > self.settings.limits.max_queue_bytes.min(room) => Err(Refusal::QUEUE_FULL),
            _ => Ok(()),
        }
    }

    /// Judges a reply: its request is its permission.
    pub(super) fn judge_reply(
        &mut self,
        sender: Sender<'_>,
        addressee: &Result<Addressee, Refusal>,
        response: &Response,
    ) -> Judged {
        match addressee {
            Ok(to) => {
                if let Err(refusal) = self.check_reply_bytes(to, response.data_json.len()) {
                    return Judged::refused(refusal);
                }
                let policy = &self.settings.policy;
                let route = Route { from: sender.agent().as_str(), to: to.agent.as_str() };
                let verdict = policy.check_reply(response.content(), route, self.scratch);
                Judged::new(policy, verdict)
            }
            Err(refusal) => {
                let mut judged = Judged::refused(*refusal);
                if *refusal == Refusal::REPLY_SENDER_MISMATCH {
                    judged.decision = Decision::AuthzDenied;
                }
                judged
            }
        }
    }
}
