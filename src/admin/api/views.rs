//! What Redis said last, for all who ask.

use std::collections::BTreeMap;

use crate::admin::counts::Counts;
use crate::admin::fleet::Member;
use crate::admin::recent::Recent;
use crate::ids::AgentId;
use crate::store::details::Detail;
use crate::store::overview::InboxView;

/// It is asked about agents again after so long, in milliseconds.
const AGENTS_MS: u64 = 2_000;
/// Reports are read again after so long, in milliseconds.
const REPORTS_MS: u64 = 500;
/// Counts are.
const COUNTS_MS: u64 = 1_000;

/// What the other servers reported last.
pub(super) struct Reports {
    pub(super) members: Recent<Vec<Member>>,
    pub(super) counts: Recent<Counts>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { members: Recent::new(REPORTS_MS), counts: Recent::new(COUNTS_MS) }
    }
}

/// What Redis said of the agents last.
pub(super) struct Agents(pub(super) Recent<View>);

impl Default for Agents {
    fn default() -> Self {
        Self(Recent::new(AGENTS_MS))
    }
}

/// What Redis says of the agents.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) agents: BTreeMap<AgentId, (InboxView, Detail)>,
    /// `None`: they are not counted by agent.
    pub(super) dead_letters: Option<BTreeMap<String, u64>>,
}
