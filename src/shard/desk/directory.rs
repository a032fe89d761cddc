//! Which instances are connected: to this server, as its workers know, and to the other servers on the
//! same Redis, as far as they have told. Written by workers and by the news, read by all threads.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::ids::{AgentId, AgentMap, InstanceId, ServerId};

/// Locks of the local part: enough that readers seldom meet a writer.
const SHARDS: usize = 64;

/// The directory.
#[derive(Debug)]
pub struct Directory {
    local: Vec<RwLock<AgentMap<Vec<InstanceId>>>>,
    elsewhere: RwLock<HashMap<AgentId, Vec<(InstanceId, ServerId)>>>,
    /// Entries of `elsewhere`: most servers are alone, and need not look.
    elsewhere_count: AtomicUsize,
    /// Counts what changes which agents are connected.
    change: AtomicU64,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            local: (0..SHARDS).map(|_| RwLock::default()).collect(),
            elsewhere: RwLock::default(),
            elsewhere_count: AtomicUsize::new(0),
            change: AtomicU64::new(0),
        }
    }
}

impl Directory {
    fn shard(&self, agent: &AgentId) -> Option<&RwLock<AgentMap<Vec<InstanceId>>>> {
        self.local.get(usize::from(agent.route_hash()) % SHARDS)
    }

    fn read<T>(&self, agent: &AgentId, f: impl FnOnce(&[InstanceId]) -> T) -> Option<T> {
        let shard = self.shard(agent)?.read().unwrap_or_else(PoisonError::into_inner);
        shard.get(agent).map(|instances| f(instances))
    }

    fn read_elsewhere<T>(
        &self,
        agent: &AgentId,
        f: impl FnOnce(&[(InstanceId, ServerId)]) -> T,
    ) -> Option<T> {
        if self.elsewhere_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        elsewhere.get(agent).map(|instances| f(instances))
    }

    /// Whether this instance has a session, on any server.
    pub fn has(&self, agent: &AgentId, instance: &InstanceId) -> bool {
        self.read(agent, |instances| instances.contains(instance)).unwrap_or(false)
            || self.is_elsewhere(agent, instance)
    }

    /// Whether any instance of the agent has a session, on any server.
    pub fn is_active(&self, agent: &AgentId) -> bool {
        self.read(agent, |instances| !instances.is_empty()).unwrap_or(false)
            || self.read_elsewhere(agent, |instances| !instances.is_empty()).unwrap_or(false)
    }

    /// Whether this instance has a session on another server.
    pub fn is_elsewhere(&self, agent: &AgentId, instance: &InstanceId) -> bool {
        self.read_elsewhere(agent, |instances| instances.iter().any(|(i, _)| i == instance)).unwrap_or(false)
    }

    /// Grows with every change of which agents are connected, after it is made: what is read later shows it.
    pub fn change(&self) -> u64 {
        self.change.load(Ordering::Acquire)
    }

    fn changed(&self) {
        let _ = self.change.fetch_add(1, Ordering::AcqRel);
    }

    /// Hands out the agents that are connected, to any server; some of them twice.
    pub fn each_active(&self, mut on: impl FnMut(&AgentId)) {
        for shard in &self.local {
            shard.read().unwrap_or_else(PoisonError::into_inner).keys().for_each(&mut on);
        }
        self.elsewhere.read().unwrap_or_else(PoisonError::into_inner).keys().for_each(on);
    }

    /// How many sessions of each agent are on this server.
    pub fn local_counts(&self) -> BTreeMap<AgentId, usize> {
        let mut counts = BTreeMap::new();
        for shard in &self.local {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            counts.extend(shard.iter().map(|(agent, instances)| (agent.clone(), instances.len())));
        }
        counts
    }

    /// How many sessions of each agent are on each of the other servers.
    pub fn counts_elsewhere(&self) -> BTreeMap<AgentId, BTreeMap<ServerId, usize>> {
        let mut counts: BTreeMap<AgentId, BTreeMap<ServerId, usize>> = BTreeMap::new();
        for (agent, instances) in self.elsewhere.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let counts = counts.entry(agent.clone()).or_default();
            instances.iter().for_each(|(_, server)| *counts.entry(server.clone()).or_default() += 1);
        }
        counts
    }

    /// The other servers that have sessions of this agent.
    pub fn servers_of(&self, agent: &AgentId) -> Vec<ServerId> {
        let servers = self.read_elsewhere(agent, |instances| {
            let mut servers: Vec<ServerId> = instances.iter().map(|(_, server)| server.clone()).collect();
            servers.sort();
            servers.dedup();
            servers
        });
        servers.unwrap_or_default()
    }

    /// A session opened here.
    pub fn insert(&self, agent: &AgentId, instance: &InstanceId) {
        if let Some(shard) = self.shard(agent) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.entry(agent.clone()).or_default().push(instance.clone());
        }
        self.changed();
        self.forget_elsewhere(agent, instance);
    }

    /// A session ended here.
    pub fn remove(&self, agent: &AgentId, instance: &InstanceId) {
        if let Some(shard) = self.shard(agent) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(instances) = shard.get_mut(agent) {
                instances.retain(|i| i != instance);
                if instances.is_empty() {
                    let _ = shard.remove(agent);
                }
            }
        }
        self.changed();
    }

    /// A session opened on another server.
    pub fn insert_elsewhere(&self, agent: &AgentId, instance: &InstanceId, server: &ServerId) {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        let instances = elsewhere.entry(agent.clone()).or_default();
        match instances.iter_mut().find(|(i, _)| i == instance) {
            Some((_, known)) => known.clone_from(server),
            None => {
                instances.push((instance.clone(), server.clone()));
                let _ = self.elsewhere_count.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(elsewhere);
        self.changed();
    }

    /// A session ended on that other server. A newer session on a third one stays.
    pub fn remove_elsewhere(&self, agent: &AgentId, instance: &InstanceId, server: &ServerId) {
        self.remove_where(agent, instance, |on| on == server);
    }

    /// No other server has a session of this instance.
    pub fn forget_elsewhere(&self, agent: &AgentId, instance: &InstanceId) {
        self.remove_where(agent, instance, |_| true);
    }

    fn remove_where(&self, agent: &AgentId, instance: &InstanceId, on: impl Fn(&ServerId) -> bool) {
        if !self.is_elsewhere(agent, instance) {
            return;
        }
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(instances) = elsewhere.get_mut(agent) {
            let before = instances.len();
            instances.retain(|(i, server)| i != instance || !on(server));
            let _ = self.elsewhere_count.fetch_sub(before - instances.len(), Ordering::Relaxed);
            if instances.is_empty() {
                let _ = elsewhere.remove(agent);
            }
        }
        drop(elsewhere);
        self.changed();
    }

    /// Another server is gone: what it had.
    pub fn remove_server(&self, server: &ServerId) -> BTreeMap<AgentId, Vec<InstanceId>> {
        let mut elsewhere = self.elsewhere.write().unwrap_or_else(PoisonError::into_inner);
        let mut orphans: BTreeMap<AgentId, Vec<InstanceId>> = BTreeMap::new();
        elsewhere.retain(|agent, instances| {
            instances.retain(|(instance, on)| {
                if on == server {
                    orphans.entry(agent.clone()).or_default().push(instance.clone());
                }
                on != server
            });
            !instances.is_empty()
        });
        let count = orphans.values().map(Vec::len).sum();
        let _ = self.elsewhere_count.fetch_sub(count, Ordering::Relaxed);
        drop(elsewhere);
        self.changed();
        orphans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_here_and_elsewhere_are_told_apart() {
        let directory = Directory::default();
        let agent = AgentId::parse("a").unwrap();
        let instance = |n: usize| InstanceId::parse(&format!("i{n}")).unwrap();
        let (one, two) = (ServerId::new(), ServerId::new());
        directory.insert_elsewhere(&agent, &instance(1), &one);
        directory.insert_elsewhere(&agent, &instance(2), &two);
        assert!(directory.has(&agent, &instance(1)) && directory.is_active(&agent));
        assert_eq!(directory.servers_of(&agent).len(), 2);
        // It moved here.
        directory.insert(&agent, &instance(1));
        assert!(!directory.is_elsewhere(&agent, &instance(1)) && directory.has(&agent, &instance(1)));
        assert_eq!(directory.remove_server(&two), BTreeMap::from([(agent.clone(), vec![instance(2)])]));
        assert!(!directory.has(&agent, &instance(2)));
        directory.remove(&agent, &instance(1));
        assert!(!directory.is_active(&agent));
        assert_eq!(directory.elsewhere_count.load(Ordering::Relaxed), 0);
    }
}
