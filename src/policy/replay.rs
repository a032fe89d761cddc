//! Recorded decisions, decided again: the pipeline with the findings on record in the place of the payload,
//! which is not recorded.
//!
//! What was found is judged by the rules of now, by rule and type. What the rules of now would find beyond
//! that cannot be known, and is not guessed.

use super::digests::MAX_POINTER_CHARS;
use super::verdict::allowed;
use super::{Breaker, Policy, Rule, Verdict};
use crate::audit::Decision;
use crate::clock::Now;
use crate::content::{MESSAGE_TYPE, TRACE_STATE};
use crate::dlp::{Action, Route};
use crate::ids::AgentId;

/// The rule on record where a payload could not be searched as a whole.
const BUDGET_RULES: [&str; 3] = ["decoding_budget", "work_budget", "too_much"];

/// A recorded message, as far as it is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Who sent it.
    pub sender: &'a AgentId,
    /// Whom it was for.
    pub target: &'a str,
    /// Its type.
    pub message_type: &'a str,
    /// What was found in it.
    pub found: &'a [Found],
    /// The rule on record, as [`Rule`] shows itself.
    pub rule: &'a str,
}

/// A finding on record.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Found {
    /// Its type; empty where the entry only counts further ones.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The rule that found it.
    #[serde(default)]
    pub rule: String,
    /// Where.
    #[serde(default)]
    pub pointer: String,
    /// What it led to.
    #[serde(default)]
    pub action: String,
    /// The exception by which; empty: none.
    #[serde(default)]
    pub exception: String,
    /// How many more there were than are described.
    #[serde(default)]
    pub further: u64,
}

impl Policy {
    /// Decides on a recorded message. `breaker`: the target's at that time.
    pub fn replay(&self, recorded: Recorded<'_>, breaker: Option<&Breaker>, now: Now) -> Verdict {
        let mut verdict = self.admit(recorded.sender, recorded.target, breaker, now);
        if let Some(counted) = verdict.counted.take() {
            counted.keep();
        }
        if verdict.decision != Decision::Allowed {
            return verdict;
        }
        self.judge(recorded, verdict)
    }

    /// Decides on a recorded reply.
    pub fn replay_reply(&self, recorded: Recorded<'_>) -> Verdict {
        self.judge(recorded, allowed(Rule::PendingRequest))
    }

    /// Whether payloads are searched at all.
    pub fn searches_payloads(&self) -> bool {
        self.dlp.is_some()
    }

    fn judge(&self, recorded: Recorded<'_>, verdict: Verdict) -> Verdict {
        let Some(dlp) = &self.dlp else {
            return verdict;
        };
        if let Some(budget) = recorded.rule.strip_prefix("dlp.").filter(|rule| BUDGET_RULES.contains(rule)) {
            // It could not be searched then, and it has not become simpler.
            return Verdict { decision: Decision::DlpBlocked, rule: Rule::Dlp(budget.into()), ..verdict };
        }
        let mut worst: Option<(Action, &str)> = None;
        for found in recorded.found {
            let route = Route { from: recorded.sender.as_str(), to: recorded.target };
            // A pointer that was cut for the record is not known as a whole.
            let whole = found.pointer.chars().count() < MAX_POINTER_CHARS;
            let pointer = whole.then_some(found.pointer.as_str());
            let action = dlp.action_of(&found.rule, route, recorded.message_type, pointer);
            let Some(action) = action else {
                continue;
            };
            // A type of message cannot be redacted.
            let beside = [MESSAGE_TYPE, TRACE_STATE].contains(&found.pointer.as_str());
            let in_type = beside && action == Action::Redact;
            let action = if in_type { Action::Block } else { action };
            if worst.is_none_or(|(worst, _)| action > worst) {
                worst = Some((action, &found.rule));
            }
        }
        let (decision, rule) = match worst {
            None | Some((Action::Allow, _)) => return verdict,
            Some((Action::Alert, _)) => (Decision::Alert, verdict.rule.clone()),
            Some((Action::Redact, _)) => (Decision::DlpRedacted, verdict.rule.clone()),
            Some((Action::Block, rule)) => (Decision::DlpBlocked, Rule::Dlp(rule.into())),
        };
        Verdict { decision, rule, ..verdict }
    }
}
