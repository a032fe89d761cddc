//! The pipeline every message passes, inline in a worker: authorization → rate limit → circuit breaker →
//! DLP. No I/O and no clock: the inputs and `Now` in, a [`Verdict`] out. The order is a security property
//! and stands in one place, [`Policy::check`] and what it calls first. The one thing that changes is a sender's count of
//! messages, shared by all workers behind a lock that is held for a few instructions.

mod acl;
mod breaker;
mod counted;
mod digests;
pub mod explain;
mod payload;
mod rate;
mod rate_limit;
pub mod readable;
pub mod replay;
mod roles;
mod rule;
mod tally;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::Decision;
use crate::clock::Now;
use crate::config::{BreakerConfig, Config, Features};
use crate::content::Content;
use crate::dlp::{self, Dlp, Route, Scan, Scratch};
use crate::ids::{AgentId, AgentMap};
use acl::Acl;
use digests::Digests;
use roles::Roles;
use verdict::{allowed, denied};

pub use breaker::{Breaker, Circuit};
pub use counted::Counted;
pub use digests::MAX_POINTER_CHARS;
pub use payload::check_payload;
pub use rate::{Limited, Sent};
pub use rate_limit::RateLimit;
pub use rule::{Rule, RuleName};
pub use verdict::Verdict;

/// A configuration compiled into what a check needs: its cost does not grow with agents or rules.
#[derive(Debug)]
pub struct Policy {
    version: [u8; 32],
    agents: AgentMap<Card>,
    acl: Acl,
    roles: Option<Roles>,
    features: Features,
    breaker: BreakerConfig,
    dlp: Option<Arc<Dlp>>,
    digests: Digests,
}

/// What others may learn of an allowlisted agent.
#[derive(Debug)]
pub struct Card {
    /// The agent.
    pub id: AgentId,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Its metadata, JSON text of an object.
    pub metadata_json: String,
    /// How much it may send.
    pub rate_limit: RateLimit,
    /// What it has sent; outlives the configuration.
    sent: Arc<Mutex<Sent>>,
}

/// What the pipeline looks at.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Who sends, from the certificate.
    pub sender: &'a AgentId,
    /// Whom it is for, as the sender gave it: any text.
    pub target: &'a str,
    /// What is to be forwarded.
    pub content: Content<'a>,
}

impl Policy {
    /// Compiles a valid configuration. `previous`: the policy that this one takes the place of; what its
    /// agents have sent goes on counting.
    pub fn compile(config: &Config, previous: Option<&Self>) -> Self {
        let agents = config
            .agents
            .values()
            .map(|agent| {
                let known = previous.and_then(|previous| previous.agents.get(&agent.id));
                let card = Card {
                    id: agent.id.clone(),
                    capabilities: agent.capabilities.clone(),
                    metadata_json: serde_json::Value::from(agent.metadata.clone()).to_string(),
                    rate_limit: agent.rate_limit.unwrap_or(config.rate_limit),
                    sent: known.map_or_else(Arc::default, |card| card.sent.clone()),
                };
                (agent.id.clone(), card)
            })
            .collect();
        Self {
            version: config.digest,
            agents,
            acl: Acl::compile(&config.permissions),
            roles: config.features.rbac.then(|| Roles::compile(config)),
            features: config.features,
            breaker: config.breaker,
            dlp: config.dlp.clone(),
            digests: Digests::new(config),
        }
    }

    /// Digest of the configuration this was compiled from.
    pub fn version(&self) -> &[u8; 32] {
        &self.version
    }

    /// The allowlisted agent of that name.
    pub fn agent(&self, name: &str) -> Option<&Card> {
        self.agents.get(name)
    }

    /// Every allowlisted agent, in no order.
    pub fn agents(&self) -> impl Iterator<Item = &Card> {
        self.agents.values()
    }

    /// When circuits open; `None`: never.
    pub fn breaker(&self) -> Option<&BreakerConfig> {
        self.features.circuit_breaker.then_some(&self.breaker)
    }

    /// Decides on one message. `breaker`: the target's; `scratch`: buffers to be used again.
    pub fn check(
        &self,
        message: Message<'_>,
        breaker: Option<&Breaker>,
        now: Now,
        scratch: &mut Scratch,
    ) -> Verdict {
        let verdict = self.admit(message.sender, message.target, breaker, now);
        if verdict.decision != Decision::Allowed {
            return verdict;
        }
        // 4. The payload.
        let route = Route { from: message.sender.as_str(), to: message.target };
        self.search(message.content, route, verdict, scratch)
    }

    /// The stages before the payload: what they refuse is not searched.
    fn admit(&self, sender: &AgentId, target: &str, breaker: Option<&Breaker>, now: Now) -> Verdict {
        // 1. Authorization. An unknown target and a forbidden one look alike to the sender.
        let Some(target) = self.agents.get(target) else {
            return denied(Rule::UnknownTarget);
        };
        let verdict = self.authorize(sender, &target.id);
        if verdict.decision != Decision::Allowed {
            return verdict;
        }
        // 2. Rate limit of the sender.
        let Some(sender) = self.agents.get(sender) else {
            return denied(Rule::DefaultDeny);
        };
        let counted = match sender.count(now) {
            Ok(counted) => Some(counted),
            Err(limited) => {
                return Verdict {
                    decision: Decision::RateLimited,
                    rule: Rule::RateLimit(limited.window),
                    retry_after_ms: Some(limited.retry_after_ms),
                    counted: None,
                    findings: None,
                };
            }
        };
        // 3. Circuit breaker of the target.
        if let (Some(config), Some(breaker)) = (self.breaker(), breaker)
            && !breaker.admits(config, now.mono_ms)
        {
            return Verdict {
                decision: Decision::CircuitOpen,
                rule: Rule::Circuit,
                retry_after_ms: None,
                counted,
                findings: None,
            };
        }
        Verdict { counted, ..verdict }
    }

    /// Decides on the payload of a reply: its request is its permission.
    pub fn check_reply(&self, content: Content<'_>, route: Route<'_>, scratch: &mut Scratch) -> Verdict {
        self.search(content, route, allowed(Rule::PendingRequest), scratch)
    }

    /// DLP: the most restrictive action among the findings decides; without any, `verdict` stands.
    fn search(
        &self,
        content: Content<'_>,
        route: Route<'_>,
        verdict: Verdict,
        scratch: &mut Scratch,
    ) -> Verdict {
        let Some(dlp) = &self.dlp else {
            return verdict;
        };
        let scan = dlp.search(&content, route, scratch);
        if scan.truncated {
            // What could not be looked at as a whole does not pass.
            let rule = Rule::Dlp("work_budget".into());
            return Verdict {
                decision: Decision::DlpBlocked,
                rule,
                findings: Some(Box::new(scan)),
                ..verdict
            };
        }
        let decision = match scan.action {
            dlp::Action::Allow if scan.findings.is_empty() => return verdict,
            // What an exception lets through is on record with it.
            dlp::Action::Allow => verdict.decision,
            dlp::Action::Alert => Decision::Alert,
            dlp::Action::Redact => Decision::DlpRedacted,
            dlp::Action::Block => Decision::DlpBlocked,
        };
        let rule = match (decision, scan.findings.first()) {
            (Decision::DlpBlocked, Some(first)) => Rule::Dlp(first.rule.clone()),
            (Decision::DlpBlocked, None) => Rule::Dlp("too_much".into()),
            // It passes because of the rule that allows it.
            _ => verdict.rule.clone(),
        };
        Verdict { decision, rule, findings: Some(Box::new(scan)), ..verdict }
    }

    /// Findings as they go on record: type, rule, place and a keyed digest, never the text.
    pub fn describe(&self, scan: &Scan) -> String {
        self.digests.describe(scan)
    }

    /// ACL and roles: a deny rule wins over both.
    fn authorize(&self, sender: &AgentId, target: &AgentId) -> Verdict {
        let verdict = self.acl.check(sender, target);
        match (&self.roles, &verdict.rule) {
            (Some(roles), Rule::DefaultDeny) => match roles.check(sender, target) {
                Some(place) => allowed(Rule::Role(place)),
                None => verdict,
            },
            _ => verdict,
        }
    }

    /// Whether `caller` may message `other`: what Discover shows.
    pub fn may_message(&self, caller: &AgentId, other: &AgentId) -> bool {
        self.authorize(caller, other).decision == Decision::Allowed
    }
}

impl Card {
    /// Counts one message that the agent sends, or says why not.
    pub fn count(&self, now: Now) -> Result<Counted, Limited> {
        let place = self.sent().admit(self.rate_limit, now)?;
        Ok(Counted::new(self.sent.clone(), place))
    }

    /// What the agent has sent, for the shortest time.
    pub fn sent(&self) -> std::sync::MutexGuard<'_, Sent> {
        // Nothing in the critical sections can panic halfway.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
