//! The agents of the configuration in force: what each may, has and does.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::allowed::Allowed;
use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use super::views::View;
use crate::admin::counts::{self, ByName, Counts};
use crate::admin::http::Request;
use crate::clock::Now;
use crate::config::{Agent, Config};
use crate::ids::{AgentId, ServerId};
use crate::policy::Card;
use crate::shard::desk::settings::Settings;
use crate::store::details::{self, Instance};
use crate::store::overview;

/// Agents of one page.
const MAX_PAGE: usize = 1_000;
/// Most agents that Redis is asked about: those of the first pages.
const MAX_ASKED: usize = 10_000;
/// Most other agents, and instances, that are shown of one.
const MAX_OF_ONE: usize = 1_000;

/// Everything that an answer is made from.
struct Gathered<'a> {
    config: &'a Config,
    settings: &'a Settings,
    allowed: &'a Allowed,
    view: &'a View,
    counts: Counts,
    own: &'a ServerId,
    here: BTreeMap<AgentId, usize>,
    elsewhere: BTreeMap<AgentId, BTreeMap<ServerId, usize>>,
    now: Now,
}

/// `GET /api/v1/agents` and `GET /api/v1/agents/NAME`
pub(super) fn route(api: &Api, request: &Request, rest: Option<&str>) -> Answered {
    let (limit, after) = match rest {
        None => {
            let asked = Asked::of(request, &["limit", "cursor"])?;
            (asked.number("limit", 1..=MAX_PAGE, MAX_PAGE)?, asked.text("cursor"))
        }
        Some(_) => {
            let _ = Asked::of(request, &[])?;
            (0, None)
        }
    };
    let shared = api.sources.shards.shared();
    let (reloaded, settings) = (api.sources.reloaded(), shared.settings());
    let view = api.sources.ask(&api.agents.0, |connection| {
        let asked: Vec<&AgentId> = reloaded.config.agents.keys().take(MAX_ASKED).collect();
        let inboxes = overview::inboxes(connection, asked.iter().copied())?;
        let details = details::details(connection, asked.iter().copied())?;
        let agents =
            inboxes.into_iter().zip(details).map(|(inbox, detail)| (inbox.agent.clone(), (inbox, detail)));
        Ok(View { agents: agents.collect(), dead_letters: details::dead_letters(connection)? })
    });
    let view = view.map_err(Problem::Away)?;
    let gathered = Gathered {
        config: &reloaded.config,
        settings: &settings,
        allowed: &api.rules.allowed(&settings),
        view: &view,
        counts: api.counts(),
        own: &shared.server,
        here: shared.directory.local_counts(),
        elsewhere: shared.directory.counts_elsewhere(),
        now: Now::read(),
    };
    if let Some(name) = rest {
        let agent = gathered.config.agents.get(name);
        let agent = agent.ok_or_else(|| Problem::Missing(format!("mas.yaml names no agent {name:?}")))?;
        let instances = api
            .searches
            .run(&api.sources, |connection| Ok(details::instances(connection, &agent.id, MAX_OF_ONE)?))?;
        return Ok(gathered.whole(agent, instances));
    }
    let behind = |agent: &&Agent| after.is_none_or(|after| agent.id.as_str() > after);
    let mut agents = gathered.config.agents.values().filter(behind);
    let page: Vec<&Agent> = agents.by_ref().take(limit).collect();
    let next = agents.next().and(page.last()).map(|last| last.id.as_str());
    Ok(json!({
        "time_unix_ms": gathered.now.unix_us / 1000,
        "total": gathered.config.agents.len(),
        "next": next,
        "agents": page.iter().map(|agent| gathered.short(agent)).collect::<Vec<_>>(),
    }))
}

impl Gathered<'_> {
    fn short(&self, agent: &Agent) -> Json {
        let id = &agent.id;
        let place = self.allowed.at(id.as_str()).filter(|_| !self.allowed.cut);
        let (inbox, detail) = match self.view.agents.get(id) {
            Some((inbox, detail)) => (Some(inbox), Some(detail)),
            None => (None, None),
        };
        let letters = self.view.dead_letters.as_ref().map(|all| all.get(id.as_str()).copied().unwrap_or(0));
        let since_ms = detail.and_then(|detail| detail.circuit_since_ms);
        json!({
            "agent": id.as_str(),
            "capabilities": agent.capabilities,
            "roles": agent.roles,
            "may_send_to": place.and_then(|at| self.allowed.rows.get(at)).map(Vec::len),
            "may_be_sent_by": place.and_then(|at| self.allowed.senders.get(at)),
            "sessions": self.sessions(id),
            "inbox": inbox.map(|inbox| json!({
                "waiting": inbox.queued.saturating_sub(inbox.pending), "delivered": inbox.pending,
                "bytes": inbox.bytes, "oldest_ms": inbox.oldest_ms,
            })),
            "dead_letters": letters,
            "circuit": {"open": since_ms.is_some(), "since_unix_ms": since_ms},
            "rate": self.settings.policy.agent(id.as_str()).map(|card| self.rate(card)),
            "decisions": counts::json(self.counts.decisions.get(id.as_str())),
            "deliveries": counts::json(self.counts.deliveries.get(id.as_str())),
            "state": detail.map(|detail| json!({
                "fields": detail.state_fields, "bytes": detail.state_bytes, "version": detail.state_version,
                "ttl_ms": detail.state_ttl_ms,
            })),
            "quarantined": null,
        })
    }

    fn sessions(&self, id: &AgentId) -> Json {
        let here = self.here.get(id).map(|count| (self.own.as_str(), *count));
        let elsewhere = self.elsewhere.get(id).into_iter().flatten();
        let all = here.into_iter().chain(elsewhere.map(|(server, count)| (server.as_str(), *count)));
        all.map(|(server, count)| (server.to_owned(), Json::from(count))).collect()
    }

    fn rate(&self, card: &Card) -> Json {
        // The lock is held for a few instructions: a worker may wait for it.
        let (minute, hour) = card.sent().used(self.now);
        json!({
            "per_minute": {"limit": card.rate_limit.per_minute, "used": minute},
            "per_hour": {"limit": card.rate_limit.per_hour, "used": hour},
        })
    }

    fn whole(&self, agent: &Agent, (instances, cut): (Vec<Instance>, bool)) -> Json {
        let (id, policy) = (&agent.id, &self.settings.policy);
        let all = || self.config.agents.keys();
        let send_to: Vec<&str> = all().filter(|to| policy.may_message(id, to)).map(AgentId::as_str).collect();
        let sent_by: Vec<&str> =
            all().filter(|from| policy.may_message(from, id)).map(AgentId::as_str).collect();
        let sent = self.edges(|from, to| (from == id.as_str()).then(|| to.to_owned()));
        let received = self.edges(|from, to| (to == id.as_str()).then(|| from.to_owned()));
        let cut = cut || [send_to.len(), sent_by.len()].into_iter().any(|count| count > MAX_OF_ONE);
        let mut whole = self.short(agent);
        if let Some(fields) = whole.as_object_mut() {
            let more = json!({
                "metadata": agent.metadata,
                "instances_configured": agent.instances,
                "may_send_to": send_to.len(),
                "may_be_sent_by": sent_by.len(),
                "send_to": send_to.iter().take(MAX_OF_ONE).collect::<Vec<_>>(),
                "sent_by": sent_by.iter().take(MAX_OF_ONE).collect::<Vec<_>>(),
                "sent": sent,
                "received": received,
                "instances": instances.iter().map(|instance| json!({
                    "instance": instance.id, "server": instance.server, "left_unix_ms": instance.left_ms,
                })).collect::<Vec<_>>(),
                "cut": cut,
            });
            if let Json::Object(more) = more {
                fields.extend(more);
            }
        }
        whole
    }

    /// The pairs that an agent is in, the busiest first.
    fn edges(&self, other: impl Fn(&str, &str) -> Option<String>) -> Vec<Json> {
        let pairs = self
            .counts
            .edges
            .iter()
            .filter_map(|((from, to), decisions)| Some((other(from, to)?, decisions)));
        let mut edges: Vec<(String, &ByName)> = pairs.collect();
        edges.sort_by_key(|(_, decisions)| std::cmp::Reverse(decisions.values().sum::<u64>()));
        edges.truncate(MAX_OF_ONE);
        let edge = |(agent, decisions): &(String, &ByName)| json!({"agent": agent, "decisions": counts::json(Some(decisions))});
        edges.iter().map(edge).collect()
    }
}
