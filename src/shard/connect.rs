//! A worker's connection to Redis: made, given up, made again; and what is taken up from Redis then.

use super::inbox::Inbox;
use super::presence::{self, Owner};
use super::worker::{RECONNECT_FIRST_MS, Scan, Worker};
use crate::audit::{Lane, LaneId};
use crate::clock::Now;
use crate::ids::{AgentId, ServerId};
use crate::policy::Breaker;
use crate::store::answers::{self};
use crate::store::fitness::{self, Assurance};
use crate::store::{Batch, Connection, StoreError, Value, keys, servers, trail};

const RECONNECT_LAST_MS: u64 = 1000;
/// Agents registered in one round trip at connect.
const REGISTER_PAGE: usize = 256;

impl Worker {
    pub(super) fn is_connected(&mut self, now: Now) -> bool {
        if self.connection.is_some() {
            return true;
        }
        if now.mono_ms < self.retry_at_ms {
            return false;
        }
        match self.establish(now) {
            Ok(()) => {
                log::info!("worker {}: connected to Redis again", self.index);
                true
            }
            Err(error) => {
                log::warn!("worker {}: {error}", self.index);
                self.connection = None;
                self.retry_at_ms = Now::read().mono_ms + self.retry_wait_ms;
                self.retry_wait_ms = (self.retry_wait_ms * 2).min(RECONNECT_LAST_MS);
                false
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn disconnect(&mut self, error: &StoreError, now: Now) {
        log::warn!("worker {}: {error}", self.index);
        self.connection = None;
        self.batch.clear();
        self.retry_wait_ms = RECONNECT_FIRST_MS;
        self.retry_at_ms = now.mono_ms;
        for inbox in self.inboxes.values_mut() {
            inbox.claims_lost(now.mono_ms);
        }
    }

    /// Connects, opens a lane of its own for this connection, and takes up what Redis holds.
    pub(super) fn establish(&mut self, now: Now) -> Result<(), StoreError> {
        let mut connection = self.shared.redis.open()?;
        let assurance = fitness::assurance(&mut connection, self.shared.durability)?;
        // A server that was fenced while it had no connection must not even open a lane: the look at the fence comes
        // first, and guards the transaction that opens the lane.
        self.batch.clear();
        let fence_at = servers::watch_fence(&mut self.batch, &self.shared.server);
        let answers = connection.run(&mut self.batch)?;
        if let Some(answer) = answers.get(fence_at) {
            self.check_fence(answer);
        }
        self.connects += 1;
        let mut lane = Lane::new(LaneId::new(self.boot, self.index, self.connects));
        // The first connection has no predecessor; any later one states how the last lane ended.
        let predecessor = if self.connects == 1 { "boot".to_owned() } else { self.lane.closing_note() };
        lane.open(now, &predecessor, self.settings.policy.version());
        open_lane(&mut connection, &mut self.batch, &mut lane, &self.shared.server, assurance, now)?;
        if lane.assured().seq > 0 {
            self.slot.publish(lane.id(), lane.assured());
        }
        let agents: Vec<AgentId> = self.inboxes.keys().cloned().collect();
        self.adopt_agents(&mut connection, &agents, now)?;
        self.lane = lane;
        self.connection = Some(connection);
        self.assurance = assurance;
        self.retry_wait_ms = RECONNECT_FIRST_MS;
        let connected = self.inboxes.iter().filter(|(_, inbox)| !inbox.slots().is_empty());
        self.regroup.extend(connected.map(|(agent, _)| agent.clone()));
        self.suspect_all();
        Ok(())
    }

    /// Of no inbox is it certain any more what Redis has for it.
    pub(super) fn suspect_all(&mut self) {
        for (agent, inbox) in &mut self.inboxes {
            inbox.suspect();
            if !inbox.slots().is_empty() {
                self.ready.insert(agent.clone());
                self.scans.extend(scans_of(inbox));
            }
        }
    }

    /// Registers this worker's agents and learns their inboxes' lengths and their absent instances.
    pub(super) fn adopt_agents(
        &mut self,
        connection: &mut Connection,
        agents: &[AgentId],
        now: Now,
    ) -> Result<(), StoreError> {
        const PER_AGENT: usize = 8;
        for page in agents.chunks(REGISTER_PAGE) {
            for agent in page {
                self.register(agent, now);
            }
            let mut answers = connection.run(&mut self.batch)?.into_iter();
            for agent in page {
                let of_agent: Vec<Value> = answers.by_ref().take(PER_AGENT).collect();
                self.adopt(agent, &of_agent, now);
            }
        }
        Ok(())
    }

    pub(super) fn register(&mut self, agent: &AgentId, now: Now) {
        let now_ms = (now.unix_us / 1000).to_string();
        let key = keys::agent(agent);
        let batch = &mut self.batch;
        let active = self.inboxes.get(agent).is_some_and(|inbox| !inbox.slots().is_empty());
        let _ = batch.command("HSET");
        let _ = batch.arg(&key).arg("id").arg(agent.as_str());
        if let Some(card) = self.settings.policy.agent(agent.as_str()) {
            let capabilities = serde_json::Value::from(card.capabilities.clone()).to_string();
            let _ = batch.arg("capabilities").arg(capabilities).arg("metadata").arg(&card.metadata_json);
        }
        if active || !self.shared.has_peers() {
            let _ = batch.arg("status").arg(if active { "ACTIVE" } else { "INACTIVE" });
        }
        for (field, value) in [("status", "INACTIVE"), ("registered_at", &now_ms)] {
            // What another server says of the agent stands.
            let _ = batch.command("HSETNX");
            let _ = batch.arg(&key).arg(field).arg(value);
        }
        let _ = batch.command("XLEN");
        let _ = batch.arg(keys::inbox(agent));
        let _ = batch.command("HGETALL");
        let _ = batch.arg(keys::instances(agent));
        let _ = batch.command("HGET");
        let _ = batch.arg(keys::circuit(agent)).arg("state");
        let hour = now.unix_minute() / 60;
        for hour in [hour.saturating_sub(1), hour] {
            let _ = batch.command("HGETALL");
            let _ = batch.arg(keys::rate(agent, hour));
        }
    }

    pub(super) fn adopt(&mut self, agent: &AgentId, answers: &[Value], now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let has_peers = self.shared.has_peers();
        let [_, _, _, len, instances, circuit, sent @ ..] = answers else {
            return;
        };
        if let Some(code) = answers.iter().find_map(answers::error_code) {
            log::error!("agent {agent}: Redis refused its registration: {code}");
        }
        if !std::mem::replace(&mut inbox.adopted, true) {
            if answers::text(circuit) == Some("OPEN") {
                inbox.breaker = Breaker::reopened(now.mono_ms);
                self.shared.set_circuit(agent, true);
            }
            if let Some(card) = self.settings.policy.agent(agent.as_str()) {
                card.sent().restore(sent.iter().flat_map(stored_counts), now);
            }
        }
        inbox.len = answers::int(len).unwrap_or(0);
        for (instance, owner) in presence::instances(instances) {
            match owner {
                Owner::Server(server) if server != self.shared.server && has_peers => {
                    // Where that server is gone, the look at the servers finds it.
                    self.shared.directory.insert_elsewhere(agent, &instance, &server);
                }
                Owner::Server(_) | Owner::Nobody => {
                    self.shared.directory.remove_elsewhere(agent, &instance);
                    if inbox.slot(&instance).is_none() {
                        let _ = inbox.gone.entry(instance).or_insert(clear_at_ms);
                    }
                }
            }
        }
        self.schedule(agent);
    }
}

/// Looks into the pending entries of an inbox: the shared one's and those of its connected instances.
pub(super) fn scans_of(inbox: &Inbox) -> impl Iterator<Item = Scan> {
    let own = inbox.slots().iter().map(|slot| Some(slot.session.instance.clone()));
    std::iter::once(None).chain(own).map(|owner| Scan { agent: inbox.agent.clone(), owner, after: None })
}

/// What was counted in an hour: minutes (Unix minutes) and messages.
fn stored_counts(value: &Value) -> Vec<(u64, u32)> {
    let pairs = answers::pairs(value.clone()).unwrap_or_default();
    let bucket = |(minute, count): &(String, String)| Some((minute.parse().ok()?, count.parse().ok()?));
    pairs.iter().filter_map(bucket).collect()
}

/// Registers a lane and writes its first block, both or neither.
fn open_lane(
    connection: &mut Connection,
    batch: &mut Batch,
    lane: &mut Lane,
    server: &ServerId,
    assurance: Assurance,
    now: Now,
) -> Result<(), StoreError> {
    let description = serde_json::json!({
        "opened_unix_us": now.unix_us,
        "server": server.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    })
    .to_string();
    batch.clear();
    let _ = batch.command("MULTI");
    let _ = trail::register(batch, lane.id(), &description);
    if let Some(block) = lane.block() {
        let _ = trail::append(batch, block);
    }
    let exec_at = batch.command("EXEC");
    let _ = servers::watch_fence(batch, server);
    let waited = assurance.wait(batch);
    let answers = connection.run(batch)?;
    match answers.get(exec_at) {
        Some(Value::Array(effects)) if effects.iter().all(|e| answers::error_code(e).is_none()) => {
            if waited.is_none_or(|at| assurance.holds(answers.get(at).unwrap_or_default())) {
                lane.confirm();
            } else {
                lane.confirm_unassured();
            }
            Ok(())
        }
        other => {
            Err(StoreError::Unexpected { command: "opening an audit lane", answer: format!("{other:?}") })
        }
    }
}
