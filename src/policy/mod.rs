//! The pipeline every message passes, inline in a worker: authorization → rate limit → circuit breaker →
//! DLP. Pure: no I/O, no clock, no lock; the inputs and `Now` in, a [`Verdict`] out. The order is a
//! security property and stands in one function, [`Policy::check`].

mod acl;

use std::collections::HashMap;
use std::fmt;

use crate::audit::Decision;
use crate::config::Config;
use crate::ids::AgentId;
use acl::Acl;

/// A configuration compiled into what a check needs: its cost does not grow with agents or rules.
#[derive(Debug)]
pub struct Policy {
    version: [u8; 32],
    agents: HashMap<AgentId, Card>,
    acl: Acl,
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
}

/// What the pipeline looks at.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Who sends, from the certificate.
    pub sender: &'a AgentId,
    /// Whom it is for, as the sender gave it: any text.
    pub target: &'a str,
}

/// What the pipeline decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Allowed, or why not.
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Rule,
}

/// Names the rule behind a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `permissions[index]` of `mas.yaml`.
    Permission(u32),
    /// Nothing allows it.
    DefaultDeny,
    /// The target is not in the allowlist.
    UnknownTarget,
    /// A pending request is itself the permission to reply.
    PendingRequest,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission(index) => write!(f, "permissions[{index}]"),
            Self::DefaultDeny => f.write_str("default_deny"),
            Self::UnknownTarget => f.write_str("unknown_target"),
            Self::PendingRequest => f.write_str("pending_request"),
        }
    }
}

impl Policy {
    /// Compiles the rules of a valid configuration.
    pub fn compile(config: &Config) -> Self {
        let agents = config
            .agents
            .values()
            .map(|agent| {
                let card = Card {
                    id: agent.id.clone(),
                    capabilities: agent.capabilities.clone(),
                    metadata_json: agent.metadata.to_string(),
                };
                (agent.id.clone(), card)
            })
            .collect();
        Self { version: config.digest, agents, acl: Acl::compile(&config.permissions) }
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

    /// Decides on one message.
    pub fn check(&self, message: Message<'_>) -> Verdict {
        // 1. Authorization. An unknown target and a forbidden one look alike to the sender.
        let Some(target) = self.agents.get(message.target) else {
            return denied(Rule::UnknownTarget);
        };
        // 2. Rate limit, 3. circuit breaker, 4. DLP take their places here, in this order.
        self.acl.check(message.sender, &target.id)
    }

    /// Whether `caller` may message `other`: what Discover shows.
    pub fn may_message(&self, caller: &AgentId, other: &AgentId) -> bool {
        self.acl.check(caller, other).decision == Decision::Allowed
    }
}

fn allowed(rule: Rule) -> Verdict {
    Verdict { decision: Decision::Allowed, rule }
}

fn denied(rule: Rule) -> Verdict {
    Verdict { decision: Decision::AuthzDenied, rule }
}
