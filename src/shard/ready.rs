//! Agents whose inbox is to be looked at, first come first served, each at most once.

use std::collections::{HashSet, VecDeque};

use crate::ids::AgentId;

#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: VecDeque<AgentId>,
    members: HashSet<AgentId>,
}

impl Ready {
    /// Enters an agent, unless it waits already.
    pub(super) fn insert(&mut self, agent: AgentId) {
        if self.members.insert(agent.clone()) {
            self.queue.push_back(agent);
        }
    }

    /// Takes up to `count` agents out.
    pub(super) fn take(&mut self, count: usize) -> Vec<AgentId> {
        let count = count.min(self.queue.len());
        let taken: Vec<AgentId> = self.queue.drain(..count).collect();
        for agent in &taken {
            let _ = self.members.remove(agent);
        }
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_come_out_in_the_order_they_went_in_and_once() {
        let agent = |n: usize| AgentId::parse(&format!("a{n}")).unwrap();
        let mut ready = Ready::default();
        for n in [0, 1, 0, 2] {
            ready.insert(agent(n));
        }
        assert_eq!(ready.take(2), [agent(0), agent(1)]);
        ready.insert(agent(0));
        assert_eq!(ready.take(10), [agent(2), agent(0)]);
        assert!(ready.is_empty());
    }
}
