//! The rules of a configuration as JSON, for people; and a digest of them alone, which is the same on servers whose files
//! differ in addresses and paths only.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::rate_limit::RateLimit;
use crate::config::{Config, Permission, Role};
use crate::dlp::Dlp;
use crate::ids::AgentId;

/// The rules, without a bound: for the digest.
fn rules(config: &Config) -> Json {
    let agents = config.agents.values().map(|agent| {
        json!({
            "agent": agent.id.as_str(), "capabilities": agent.capabilities, "roles": agent.roles,
            "metadata": agent.metadata, "rate_limit": agent.rate_limit.map(rate_limit),
        })
    });
    let patterns = config.dlp.iter().flat_map(|dlp| dlp.rules()).map(|rule| rule.pattern);
    json!({
        "agents": agents.collect::<Vec<_>>(),
        "features": features(config),
        "permissions": (0..config.permissions.len()).filter_map(|at| permission(config, at)).collect::<Vec<_>>(),
        "roles": roles(config),
        "limits": limits(config),
        "rate_limit": rate_limit(config.rate_limit),
        "delivery": delivery(config),
        "circuit_breaker": circuit_breaker(config),
        "dlp": dlp(config),
        "dlp_patterns": patterns.collect::<Vec<_>>(),
    })
}

/// The digest of everything that decides.
pub fn digest(config: &Config) -> [u8; 32] {
    // Keys are sorted: the same rules are the same text.
    Sha256::digest(rules(config).to_string()).into()
}

/// Which stages are on.
pub fn features(config: &Config) -> Json {
    let features = config.features;
    json!({"dlp": features.dlp, "rbac": features.rbac, "circuit_breaker": features.circuit_breaker})
}

/// One rule of `permissions`.
pub fn permission(config: &Config, index: usize) -> Option<Json> {
    let rule = config.permissions.get(index)?;
    let names = |ids: &[AgentId]| ids.iter().map(AgentId::to_string).collect::<Vec<_>>();
    let (kind, agents, sender, targets, bidirectional) = match rule {
        Permission::AllowBidirectional { agents } => {
            ("allow_bidirectional", names(agents), None, Vec::new(), Some(true))
        }
        Permission::AllowNetwork { agents, bidirectional } => {
            ("allow_network", names(agents), None, Vec::new(), Some(*bidirectional))
        }
        Permission::AllowBroadcast { sender, receivers } => {
            ("allow_broadcast", Vec::new(), Some(sender), names(receivers), None)
        }
        Permission::AllowWildcard { agent_id } => {
            ("allow_wildcard", Vec::new(), Some(agent_id), Vec::new(), None)
        }
        Permission::Allow { sender, targets } => ("allow", Vec::new(), Some(sender), names(targets), None),
        Permission::Deny { sender, targets } => ("deny", Vec::new(), Some(sender), names(targets), None),
    };
    Some(json!({
        "index": index, "rule": format!("permissions[{index}]"), "type": kind, "text": sentence(rule),
        "agents": agents, "sender": sender.map(AgentId::as_str), "targets": targets, "bidirectional": bidirectional,
    }))
}

/// A rule as a sentence.
fn sentence(rule: &Permission) -> String {
    let list = |ids: &[AgentId]| ids.iter().map(AgentId::as_str).collect::<Vec<_>>().join(", ");
    match rule {
        Permission::AllowBidirectional { agents } => format!("{} may send to each other", list(agents)),
        Permission::AllowNetwork { agents, bidirectional: true } => {
            format!("each of {} may send to each other one", list(agents))
        }
        Permission::AllowNetwork { agents, bidirectional: false } => {
            format!("each of {} may send to the next one", list(agents))
        }
        Permission::AllowBroadcast { sender, receivers: targets } | Permission::Allow { sender, targets } => {
            format!("{sender} may send to {}", list(targets))
        }
        Permission::AllowWildcard { agent_id } => format!("{agent_id} may send to every agent"),
        Permission::Deny { sender, targets } => {
            format!("{sender} may not send to {}, whatever else allows it", list(targets))
        }
    }
}

/// The roles, each with the agents that have it.
pub fn roles(config: &Config) -> Vec<Json> {
    let mut having: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for agent in config.agents.values() {
        agent.roles.iter().for_each(|role| having.entry(role).or_default().push(agent.id.as_str()));
    }
    let role = |role: &Role| {
        let agents = having.get(role.name.as_str());
        json!({"name": role.name, "permissions": role.permissions, "agents": agents.unwrap_or(&Vec::new())})
    };
    config.roles.values().map(role).collect()
}

/// Bounds per request, agent and connection.
pub fn limits(config: &Config) -> Json {
    let limits = &config.limits;
    json!({
        "max_message_bytes": limits.max_message_bytes, "max_json_depth": limits.max_json_depth,
        "max_queue_len": limits.max_queue_len, "max_queue_bytes": limits.max_queue_bytes,
        "max_state_bytes": limits.max_state_bytes, "max_state_fields": limits.max_state_fields,
        "max_sessions_per_agent": limits.max_sessions_per_agent,
        "max_streams_per_connection": limits.max_streams_per_connection,
        "max_connections_per_agent": limits.max_connections_per_agent,
        "session_opens_per_second": limits.session_opens_per_second,
        "refusals_per_second": limits.refusals_per_second,
    })
}

/// How much an agent may send.
pub fn rate_limit(limit: RateLimit) -> Json {
    json!({"per_minute": limit.per_minute, "per_hour": limit.per_hour})
}

/// The agents that have a limit of their own.
pub fn own_rate_limits(config: &Config) -> impl Iterator<Item = Json> {
    config.agents.values().filter_map(|agent| {
        let RateLimit { per_minute, per_hour } = agent.rate_limit?;
        Some(json!({"agent": agent.id.as_str(), "per_minute": per_minute, "per_hour": per_hour}))
    })
}

/// Credit and redelivery.
pub fn delivery(config: &Config) -> Json {
    let delivery = &config.delivery;
    json!({
        "max_in_flight": delivery.max_in_flight, "reclaim_idle_ms": delivery.reclaim_idle_ms,
        "reclaim_batch_size": delivery.reclaim_batch_size, "max_attempts": delivery.max_attempts,
        "retry_backoff_ms": delivery.retry_backoff_ms, "queue_offline": delivery.queue_offline,
        "idempotency_window_s": delivery.idempotency_window_s,
    })
}

/// When circuits open and close.
pub fn circuit_breaker(config: &Config) -> Json {
    let breaker = config.breaker;
    json!({
        "failure_threshold": breaker.failure_threshold, "success_threshold": breaker.success_threshold,
        "timeout_seconds": breaker.timeout_seconds, "window_seconds": breaker.window_seconds,
    })
}

/// What payloads are searched for, and what a match does. Patterns are not shown: who knows them can avoid them.
pub fn dlp(config: &Config) -> Json {
    let of = |own: bool| {
        let rules = config.dlp.iter().flat_map(|dlp| Dlp::rules(dlp));
        let rules = rules.filter(move |rule| rule.pattern.is_some() == own);
        rules
            .map(|rule| json!({"type": rule.kind, "rule": rule.id, "action": rule.action.as_str()}))
            .collect::<Vec<_>>()
    };
    let exceptions = config.dlp.iter().flat_map(|dlp| dlp.exceptions());
    let exceptions: Vec<Json> = exceptions
        .map(|(name, one)| {
            json!({
                "name": name, "from": one.from, "to": one.to, "type": one.message_type, "pointer": one.pointer,
                "kind": one.kind, "rule": one.rule, "action": one.action.as_str(), "reason": one.reason,
            })
        })
        .collect();
    json!({
        "enabled": config.dlp.is_some(), "types": of(false), "custom": of(true), "exceptions": exceptions,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        let tls = "tls_ca_path: ca.pem\ntls_server_cert_path: cert.pem\ntls_server_key_path: key.pem\n";
        Config::parse(Path::new("mas.yaml"), &format!("{tls}{text}")).unwrap()
    }

    #[test]
    fn the_digest_is_of_the_rules_alone() {
        let agents = "agents: [{agent_id: a}, {agent_id: b}]\n";
        let rules = "permissions: [{type: allow, sender: a, targets: [b]}]\n";
        let one = config(&format!("{rules}{agents}"));
        let moved = config(&format!("server_listen_addr: 127.0.0.1:1\n# a comment\n{rules}{agents}"));
        assert_ne!(one.digest, moved.digest);
        assert_eq!(digest(&one), digest(&moved));
        for other in [
            agents.to_owned(),
            format!("permissions: [{{type: allow, sender: b, targets: [a]}}]\n{agents}"),
            format!("{rules}agents: [{{agent_id: a}}, {{agent_id: b, capabilities: [x]}}]\n"),
            format!("limits: {{max_json_depth: 5}}\n{rules}{agents}"),
            format!("gateway: {{rate_limit: {{per_minute: 5}}}}\n{rules}{agents}"),
            format!("gateway: {{dlp: {{policy_overrides: {{ssn: alert}}}}}}\n{rules}{agents}"),
            format!("gateway: {{dlp: {{rules: [{{id: x, type: y, pattern: 'z1'}}]}}}}\n{rules}{agents}"),
            format!(
                "gateway: {{dlp: {{exceptions: [{{kind: ssn, action: alert, reason: r}}]}}}}\n{rules}{agents}"
            ),
        ] {
            assert_ne!(digest(&one), digest(&config(&other)), "{other}");
        }
        let pattern = |text: &str| {
            digest(&config(&format!(
                "gateway: {{dlp: {{rules: [{{id: x, type: y, pattern: 'z1', case_insensitive: {text}}}]}}}}\n{agents}"
            )))
        };
        assert_ne!(pattern("true"), pattern("false"));
    }

    #[test]
    fn a_rule_is_a_sentence() {
        let config = config(
            "permissions: [{type: deny, sender: a, targets: [b]}, {type: allow_network, agents: [a, b], \
             bidirectional: false}, {type: allow_wildcard, agent_id: b}]\nagents: [{agent_id: a}, {agent_id: b}]\n",
        );
        let texts: Vec<String> =
            (0..3).map(|at| permission(&config, at).unwrap()["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(
            texts,
            [
                "a may not send to b, whatever else allows it",
                "each of a, b may send to the next one",
                "b may send to every agent"
            ]
        );
        assert_eq!(permission(&config, 3), None);
    }
}
