//! Whatever Redis holds of this worker's agents, read after a connect, and when news of other servers may have been
//! missed: the agents' records, the lengths of their inboxes, the servers of their instances.

use std::collections::{BTreeSet, HashSet};

use super::Worker;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId, ServerId};
use crate::policy::Breaker;
use crate::refusal::Refusal;
use crate::shard::desk::control::SessionName;
use crate::shard::inbox::Gone;
use crate::shard::txn::event::Event;
use crate::store::owners::{self, Owner};
use crate::store::pipeline::{Answers, Asked, Exec, Executed, Multi};
use crate::store::{Batch, StoreError, Value, answers, keys};

/// Agents read in one round trip.
const ADOPT_PAGE: usize = 256;

/// The questions about one agent.
struct Asking {
    agent: AgentId,
    len: Asked<Option<u64>>,
    bytes: Asked<Option<u64>>,
    instances: Asked<Vec<(InstanceId, Owner)>>,
    circuit: Asked<Option<String>>,
    sent: [Asked<Vec<(u64, u32)>>; 2],
}

/// What Redis says of one agent.
struct Found {
    agent: AgentId,
    len: Option<u64>,
    bytes: Option<u64>,
    instances: Vec<(InstanceId, Owner)>,
    is_open: bool,
    sent: Vec<(u64, u32)>,
}

impl Worker {
    /// After a connect: everything is read, and compared with what is tracked.
    pub(super) fn adopt_all(&mut self, now: Now) -> Result<(), StoreError> {
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        self.adopt(&agents, now)?;
        let connected = self.inboxes.iter().filter(|(_, inbox)| !inbox.consumers().is_empty());
        self.agenda.regroup.extend(connected.map(|(agent, _)| agent.clone()));
        for agent in &agents {
            if let Some(inbox) = self.inboxes.get_mut(agent) {
                inbox.mark_stale();
            }
            self.compare(agent);
        }
        self.agenda.resync = false;
        Ok(())
    }

    /// News may have been missed.
    pub(super) fn resync(&mut self, now: Now) {
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        match self.adopt(&agents, now) {
            Ok(()) => {
                agents.iter().for_each(|agent| self.compare(agent));
                self.agenda.resync = false;
            }
            Err(error) => self.lose_link(&error, now),
        }
    }

    fn adopt(&mut self, agents: &[AgentId], now: Now) -> Result<(), StoreError> {
        for page in agents.chunks(ADOPT_PAGE) {
            self.link.batch.clear();
            let asking: Vec<Asking> =
                page.iter().map(|agent| ask(&mut self.link.batch, agent, now)).collect();
            // After the instances: the server of an instance that was read is entered before it.
            let servers = self.link.batch.ask("HKEYS", server_ids);
            let _ = self.link.batch.arg(keys::SERVERS);
            let registered = self.register(page, now);
            let (mut answers, _) = self.link.finish(false)?;
            let servers = answers.take(servers);
            let found: Vec<Found> = asking.into_iter().map(|asked| asked.read(&mut answers)).collect();
            let refusal = answers.refusal().and_then(answers::error_code).map(str::to_owned);
            match answers.executed(registered) {
                Executed::Done(effects) => {
                    if let Some(code) = effects.refused(&(0..effects.len())) {
                        log::error!(
                            code = "agents_not_registered", worker = self.index;
                            "worker {}: Redis refused to register agents: {code}", self.index
                        );
                    }
                }
                Executed::Conflict => {
                    return Err(StoreError::Unexpected {
                        command: "registering agents",
                        answer: "this server's fence has changed".to_owned(),
                    });
                }
                // A primary that became a replica: another is the primary now.
                Executed::Refused if refusal.as_deref() == Some("READONLY") => {
                    return Err(StoreError::Unexpected {
                        command: "registering agents",
                        answer: "READONLY".to_owned(),
                    });
                }
                // Their records are for tools; everything else goes on.
                Executed::Refused => {
                    log::error!(
                        code = "agents_not_registered", worker = self.index;
                        "worker {}: Redis refused to register agents", self.index
                    );
                }
            }
            for found in found {
                self.found(found, &servers, now);
            }
        }
        Ok(())
    }

    /// Adds the agents' records for tools.
    fn register(&mut self, page: &[AgentId], now: Now) -> Exec {
        let now_ms = (now.unix_us / 1000).to_string();
        let mut multi = Multi::begin(&mut self.link.batch);
        for agent in page {
            let key = keys::agent(agent);
            let active = self.inboxes.get(agent).is_some_and(|inbox| !inbox.consumers().is_empty());
            let record = multi.effect("HSET").arg(&key).arg("id").arg(agent.as_str());
            if let Some(card) = self.settings.policy.agent(agent.as_str()) {
                let capabilities = serde_json::Value::from(card.capabilities.clone()).to_string();
                let _ = record.arg("capabilities").arg(capabilities).arg("metadata").arg(&card.metadata_json);
            }
            if active || !self.shared.has_peers() {
                let _ = record.arg("status").arg(if active { "ACTIVE" } else { "INACTIVE" });
            }
            for (field, value) in [("status", "INACTIVE"), ("registered_at", now_ms.as_str())] {
                // What another server says of the agent stands.
                let _ = multi.effect("HSETNX").arg(&key).arg(field).arg(value);
            }
        }
        multi.exec(&self.shared.server, &[])
    }

    fn found(&mut self, found: Found, servers: &HashSet<ServerId>, now: Now) {
        let Found { agent, len, bytes, instances, is_open, sent } = found;
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        if !std::mem::replace(&mut inbox.adopted, true) {
            if is_open {
                inbox.breaker = Breaker::reopened(now.mono_ms);
                self.shared.set_circuit(&agent, true);
            }
            if let Some(card) = self.settings.policy.agent(agent.as_str()) {
                card.sent().restore(sent, now);
            }
        }
        inbox.measured(len.unwrap_or(0));
        inbox.weighed(bytes);
        // A transaction of the last connection may still be carried out.
        inbox.is_exact = len.is_some() && self.link.is_first() && !self.shared.has_peers();
        let entered: BTreeSet<InstanceId> = instances.iter().map(|(instance, _)| instance.clone()).collect();
        for (instance, owner) in instances {
            self.found_instance(&agent, instance, owner, servers, now);
        }
        // Redis may have lost the entries of sessions that are open here.
        let connected = self.inboxes.get(&agent).into_iter().flat_map(|inbox| inbox.consumers());
        for consumer in connected.filter(|consumer| !entered.contains(&consumer.instance)) {
            let (agent, instance) = (agent.clone(), consumer.instance.clone());
            self.ledger.push(Event::Owned { agent, instance });
        }
        self.schedule(&agent);
    }

    /// Compares the owner of one instance with what is known here.
    fn found_instance(
        &mut self,
        agent: &AgentId,
        instance: InstanceId,
        owner: Owner,
        servers: &HashSet<ServerId>,
        now: Now,
    ) {
        let session = self.inboxes.get(agent).and_then(|inbox| inbox.consumer(&instance)).map(|c| c.session);
        match (owner, session) {
            (Owner::Server(server), _) if server != self.shared.server && servers.contains(&server) => {
                if let Some(key) = session {
                    let name = SessionName { agent: agent.clone(), key };
                    self.close(&name, now, "instance_taken", Some(Refusal::INSTANCE_ALREADY_CONNECTED));
                }
                self.shared.opened_elsewhere(agent, &instance, &server);
            }
            (Owner::Server(server), None) if server != self.shared.server => {
                // Its server is gone, and nobody has freed it.
                self.shared.directory.forget_elsewhere(agent, &instance);
                let (of, gone) = (agent.clone(), instance.clone());
                self.ledger.push(Event::Orphaned { agent: of, instance: gone, server });
                self.gone_since(agent, instance, now);
            }
            (Owner::Server(server), None) => {
                debug_assert!(server == self.shared.server);
                // A session was entered, and its opening never came to be known.
                let (of, gone) = (agent.clone(), instance.clone());
                self.ledger.push(Event::Unopened { agent: of, instance: gone });
                self.gone_since(agent, instance, now);
            }
            (Owner::Server(server), Some(_)) if server == self.shared.server => {}
            (Owner::Server(_) | Owner::Nobody, Some(_)) => {
                self.ledger.push(Event::Owned { agent: agent.clone(), instance });
            }
            (Owner::Nobody, None) => {
                self.shared.directory.forget_elsewhere(agent, &instance);
                self.gone_since(agent, instance, now);
            }
        }
    }

    fn gone_since(&mut self, agent: &AgentId, instance: InstanceId, now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        if let Some(inbox) = self.inboxes.get_mut(agent) {
            let _ = inbox.gone.entry(instance).or_insert(Gone { since_ms: None, clear_at_ms });
        }
    }
}

/// What an agent's shared inbox takes in Redis; `None` where there is none, or its user may not ask. Never within a
/// transaction, which would fail with it.
pub(super) fn ask_bytes(batch: &mut Batch, agent: &AgentId) -> Asked<Option<u64>> {
    let bytes = batch.ask("MEMORY", |answer| answers::int(&answer));
    // All of it: whoever fills the stream could choose what a sample finds.
    let _ = batch.arg("USAGE").arg(keys::inbox(agent)).arg("SAMPLES").arg(0);
    bytes
}

fn ask(batch: &mut Batch, agent: &AgentId, now: Now) -> Asking {
    let len = batch.ask("XLEN", |answer| answers::int(&answer));
    let _ = batch.arg(keys::inbox(agent));
    let bytes = ask_bytes(batch, agent);
    let instances = batch.ask("HGETALL", owners::instances);
    let _ = batch.arg(keys::instances(agent));
    let circuit = batch.ask("HGET", |answer| answers::text(&answer).map(str::to_owned));
    let _ = batch.arg(keys::circuit(agent)).arg("state");
    let hour = now.unix_minute() / 60;
    let sent = [hour.saturating_sub(1), hour].map(|hour| {
        let asked = batch.ask("HGETALL", stored_counts);
        let _ = batch.arg(keys::rate(agent, hour));
        asked
    });
    Asking { agent: agent.clone(), len, bytes, instances, circuit, sent }
}

impl Asking {
    fn read(self, answers: &mut Answers) -> Found {
        Found {
            agent: self.agent,
            len: answers.take(self.len),
            bytes: answers.take(self.bytes),
            instances: answers.take(self.instances),
            is_open: answers.take(self.circuit).as_deref() == Some("OPEN"),
            sent: self.sent.into_iter().flat_map(|hour| answers.take(hour)).collect(),
        }
    }
}

/// HKEYS of the registry.
pub(super) fn server_ids(answer: Value) -> HashSet<ServerId> {
    match answer {
        Value::Array(ids) => ids.iter().filter_map(answers::text).filter_map(ServerId::parse).collect(),
        _ => HashSet::new(),
    }
}

/// What was counted in an hour: minutes (Unix minutes) and messages.
fn stored_counts(answer: Value) -> Vec<(u64, u32)> {
    let pairs = answers::pairs(answer).unwrap_or_default();
    let bucket = |(minute, count): &(String, String)| Some((minute.parse().ok()?, count.parse().ok()?));
    pairs.iter().filter_map(bucket).collect()
}
