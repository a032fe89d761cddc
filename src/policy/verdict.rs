//! What the pipeline decided.

use super::counted::Counted;
use super::rule::Rule;
use crate::audit::Decision;
use crate::dlp::Scan;
use crate::refusal::Refusal;

/// What the pipeline decided.
#[derive(Debug)]
pub struct Verdict {
    /// Allowed, or why not.
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Rule,
    /// For a rate limit: when another message may pass, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The message counts against its sender's rate, unless this is dropped.
    pub counted: Option<Counted>,
    /// What was found in the payload, if anything was.
    pub findings: Option<Box<Scan>>,
}

impl Verdict {
    /// What the sender is told; `None`: nothing, the message goes on.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.decision {
            Decision::Allowed | Decision::Alert | Decision::DlpRedacted => None,
            Decision::RateLimited => Some(Refusal::RATE_LIMITED.retry_after(self.retry_after_ms)),
            Decision::CircuitOpen => Some(Refusal::CIRCUIT_OPEN),
            Decision::DlpBlocked => Some(Refusal::DLP_BLOCKED),
            Decision::AuthzDenied | Decision::Unauthenticated | Decision::Refused | Decision::Event => {
                Some(Refusal::NOT_AUTHORIZED)
            }
        }
    }
}

pub(super) fn allowed(rule: Rule) -> Verdict {
    Verdict { decision: Decision::Allowed, rule, retry_after_ms: None, counted: None, findings: None }
}

pub(super) fn denied(rule: Rule) -> Verdict {
    Verdict { decision: Decision::AuthzDenied, rule, retry_after_ms: None, counted: None, findings: None }
}
