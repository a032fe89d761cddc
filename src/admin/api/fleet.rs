//! All servers on this Redis.

use std::sync::Arc;

use serde_json::json;

use super::asked::Asked;
use super::needs::Api;
use super::problem::Answered;
use crate::admin::counts::Counts;
use crate::admin::fleet::{Fleet, Member};
use crate::admin::http::Request;
use crate::store::reports::{self, Kind};

impl Api {
    /// The other servers; the error is why Redis does not say.
    fn members(&self) -> Result<Arc<Vec<Member>>, String> {
        let shared = self.sources.shards.shared();
        let keys = shared.key_ring.keys();
        self.sources
            .ask(&self.fleet.members, |connection| self.sources.fleet.read(connection, &keys, &shared.server))
    }

    /// What all servers have counted, as far as their reports are good. Where Redis does not answer, this one's.
    pub(super) fn counts(&self) -> Counts {
        let shared = self.sources.shards.shared();
        let mut all = Counts::own(&shared.meters.all());
        let keys = shared.key_ring.keys();
        let others = self.sources.ask(&self.fleet.counts, |connection| {
            let servers = Fleet::others(connection, &shared.server)?;
            let mut sum = Counts::default();
            for report in reports::read(connection, &keys, Kind::Counts, &servers)?.into_iter().flatten() {
                if let Some(counts) = Counts::parse(&report.text) {
                    sum.add(&counts);
                }
            }
            Ok(sum)
        });
        if let Ok(others) = others {
            all.add(&others);
        }
        all
    }
}

/// `GET /api/v1/fleet`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let shared = api.sources.shards.shared();
    let own = api.sources.gather();
    let (time_ms, rules) = (own.now_ms, own.rules_digest.clone());
    let own = Member {
        server: shared.server.clone(),
        trusted: true,
        problem: None,
        age_ms: Some(0),
        status: Some(own.json()),
        is_gone: false,
    };
    // This server tells of itself, whether Redis answers or not.
    let (others, why) = match api.members() {
        Ok(others) => (others, None),
        Err(why) => (Arc::default(), Some(why)),
    };
    let differ = |name: &str, own: &str| {
        others.iter().any(|member| member.status.is_some() && member.text(name) != own)
    };
    let servers = std::iter::once(&own).chain(others.iter());
    Ok(json!({
        "server": shared.server.as_str(),
        "time_unix_ms": time_ms,
        "rules_differ": differ("rules_digest", &rules),
        "versions_differ": differ("version", env!("CARGO_PKG_VERSION")),
        "others_unknown": why,
        "servers": servers.map(|member| member.json(&shared.server)).collect::<Vec<_>>(),
    }))
}
