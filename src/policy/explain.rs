//! What the pipeline would decide on a message, and why, from a configuration alone: the sender is taken to have sent nothing
//! yet, and the target's circuit to be closed, for counts and circuits live in the running server.

use serde_json::{Value as Json, json};

use super::payload::check_payload;
use super::rule::Rule;
use super::{Message, Policy};
use crate::clock::Now;
use crate::config::Config;
use crate::content::Content;
use crate::dlp::Scratch;
use crate::ids::AgentId;
use crate::refusal::Refusal;

/// A message that may be sent.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The sender, as somebody has written it.
    pub from: &'a str,
    /// The target.
    pub to: &'a str,
    /// The message's type.
    pub message_type: &'a str,
    /// The payload, as it would be sent.
    pub data_json: &'a str,
}

/// What would be decided.
#[derive(Debug)]
pub struct Explained {
    /// The decision; `UNAUTHENTICATED` or `REFUSED` where it would not come to one.
    pub decision: &'static str,
    /// The rule that decides.
    pub rule: Option<Rule>,
    /// The rule as the file has it.
    pub rule_text: Option<String>,
    /// What the sender would be told.
    pub refusal: Option<Refusal>,
    /// What was found in the payload, as JSON; empty: nothing.
    pub findings: String,
}

impl Explained {
    /// Decides, and changes nothing.
    pub fn of(config: &Config, asked: Asked<'_>) -> Self {
        let stopped = |decision, refusal| Self {
            decision,
            rule: None,
            rule_text: None,
            refusal: Some(refusal),
            findings: String::new(),
        };
        let Some(sender) = AgentId::parse(asked.from).filter(|id| config.agents.contains_key(id)) else {
            return stopped("UNAUTHENTICATED", Refusal::AGENT_NOT_ALLOWLISTED);
        };
        if let Err(refusal) = check_payload(&config.limits, asked.message_type, asked.data_json) {
            return stopped("REFUSED", refusal);
        }
        let policy = Policy::compile(config, None);
        let message = Message {
            sender: &sender,
            target: asked.to,
            content: Content { message_type: asked.message_type, data_json: asked.data_json, trace: None },
        };
        let verdict = policy.check(message, None, Now::read(), &mut Scratch::new());
        let refusal = verdict.refusal();
        let findings = verdict.findings.as_ref().map(|scan| policy.describe(scan)).unwrap_or_default();
        let rule_text = rule_text(config, &sender, &verdict.rule);
        Self { decision: verdict.decision.as_str(), rule: Some(verdict.rule), rule_text, refusal, findings }
    }

    /// It as JSON.
    pub fn json(&self) -> Json {
        json!({
            "decision": self.decision,
            "rule": self.rule.as_ref().map(Rule::to_string),
            "rule_text": self.rule_text,
            "status": self.refusal.map(|refusal| format!("{:?}", refusal.kind)),
            "details": self.refusal.map(|refusal| refusal.detail),
            "findings": serde_json::from_str::<Json>(&self.findings).unwrap_or_default(),
        })
    }
}

/// The rule as the file has it.
fn rule_text(config: &Config, sender: &AgentId, rule: &Rule) -> Option<String> {
    match rule {
        Rule::Permission(index) => config.permissions.get(*index as usize).map(|rule| format!("{rule:?}")),
        Rule::Role(place) => {
            let agent = config.agents.get(sender)?;
            let role = config.roles.get(agent.roles.get(*place as usize)?)?;
            Some(format!("{}: {}", role.name, role.permissions.join(", ")))
        }
        Rule::RateLimit(_)
        | Rule::Circuit
        | Rule::Dlp(_)
        | Rule::DefaultDeny
        | Rule::UnknownTarget
        | Rule::PendingRequest => None,
    }
}
