//! Agents whose inbox is to be looked at, first come first served, each at most once.

use std::collections::{HashSet, VecDeque};

use crate::ids::AgentId;

#[derive(Debug, Default)]
pub(in crate::shard::worker) struct Ready {
    queue: VecDeque<AgentId>,
    members: HashSet<AgentId>,
}

impl Ready {
    /// Enters an agent, unless it waits already.
    pub(in crate::shard::worker) fn insert(&mut self, agent: AgentId) {
        if self.members.insert(agent.clone()) {
            self.queue.push_back(agent);
        }
    }

    /// Whether the agent is among them.
    pub(in crate::shard::worker) fn contains(&self, agent: &AgentId) -> bool {
        self.members.contains(agent)
    }

    /// The agents in their order.
    pub(in crate::shard::worker) fn iter(&self) -> impl Iterator<Item = &AgentId> {
        self.queue.iter()
    }

    /// Takes up to `count` agents out.
    pub(in crate::shard::worker) fn take(&mut self, count: usize) -> Self {
        let count = count.min(self.queue.len());
        if count == self.queue.len() {
            return std::mem::take(self);
        }
        let queue: VecDeque<AgentId> = self.queue.drain(..count).collect();
        let members: HashSet<AgentId> = queue.iter().cloned().collect();
        for agent in &queue {
            let _ = self.members.remove(agent);
        }
        Self { queue, members }
    }

    pub(in crate::shard::worker) fn is_empty(&self) -> bool {
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
        let taken = |ready: Ready| ready.queue.into_iter().collect::<Vec<_>>();
        assert_eq!(taken(ready.take(2)), [agent(0), agent(1)]);
        ready.insert(agent(0));
        assert_eq!(taken(ready.take(10)), [agent(2), agent(0)]);
        assert!(ready.is_empty());
    }
}
