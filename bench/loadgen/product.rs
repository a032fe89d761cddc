//! A server of one's own, measured again and again with different loads: what `ratios` and `idle` are made of.

use crate::AnyError;
use crate::agents::Agents;
use crate::fleet::{Fleet, Outcome};
use crate::plan::{ClientPlan, Content, Generation, Path, Pattern, Schedule, SessionPlan};
use crate::world::{Setup, World};

/// One load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) path: Path,
    pub(crate) in_flight: usize,
    /// Messages a second in an open loop; `None`: closed.
    pub(crate) rate: Option<f64>,
    pub(crate) warm_up_s: f64,
    pub(crate) counted_s: f64,
}

/// The server and its agents; ended when dropped.
pub(crate) struct Product {
    pub(crate) world: World,
    agents: Agents,
    content: Content,
    runs: usize,
}

impl Product {
    pub(crate) fn start(agents: Agents, setup: Setup, content: Content) -> Result<Self, AnyError> {
        let world = World::start(&agents, setup)?;
        Ok(Self { world, agents, content, runs: 0 })
    }

    /// Pairs of agents under this load, from one client process.
    pub(crate) fn measure(&mut self, load: Load) -> Result<Outcome, AnyError> {
        self.runs += 1;
        let sessions = self.agents.sessions(1, 1, 1, self.runs).into_iter().next().unwrap_or_default();
        let mut plan = self.plan(load.path, sessions);
        plan.alone = true;
        plan.in_flight = load.in_flight;
        plan.rate = load.rate;
        let fleet = Fleet::start(&[plan])?;
        let outcome = fleet.run(Schedule::soon(load.warm_up_s, load.counted_s), self.world.watched()?)?;
        self.world.check()?;
        Ok(outcome)
    }

    /// Opens sessions that do nothing, in `processes` client processes; closed when the fleet is dropped.
    pub(crate) fn open(&self, names: &[String], processes: usize) -> Result<Fleet, AnyError> {
        let part = names.len().div_ceil(processes.max(1)).max(1);
        let session = |agent: &String| SessionPlan {
            agent: agent.clone(),
            instance: "idle".to_owned(),
            targets: Vec::new(),
            sends: false,
        };
        let plans: Vec<ClientPlan> = names
            .chunks(part)
            .map(|names| self.plan(Path::Stream, names.iter().map(session).collect()))
            .collect();
        Fleet::start(&plans)
    }

    fn plan(&self, path: Path, sessions: Vec<SessionPlan>) -> ClientPlan {
        ClientPlan {
            addr: self.world.addr.clone(),
            certs: self.world.certs(),
            server_name: None,
            generation: Generation::default(),
            pattern: Pattern::Send,
            path,
            sessions,
            alone: false,
            in_flight: 0,
            rate: None,
            content: self.content,
        }
    }
}
