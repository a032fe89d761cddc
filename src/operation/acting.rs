//! What an operator changes: in one transaction with its record, on an audit lane of the command's own.

use std::fmt;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::outcome::{By, Receipt, Sealed, Trouble};
use crate::audit::checkpoint::LaneHead;
use crate::audit::{Action, Checkpoint, Decision, Fields, Lane, LaneId, StoreKeys, note};
use crate::checkpoint::seal_alone;
use crate::clock::Now;
use crate::config::Config;
use crate::key_files::{KeyError, StoreKeyFile};
use crate::store::attested::OnRecord;
use crate::store::{Batch, Connection, Endpoint, StoreError, Value, answers, trail};
use crate::store::{checkpoints, joining, servers};

/// How long a running server is waited for that covers a command's records with a checkpoint, beside two intervals of
/// checkpoints; never longer than the second; and how often it is looked for.
const SEAL_PATIENCE: Duration = Duration::from_secs(3);
const MAX_SEAL_PATIENCE: Duration = Duration::from_secs(10);
const SEAL_LOOK: Duration = Duration::from_millis(50);
/// Attempts when something that was watched changed meanwhile.
pub const MAX_CONFLICTS: usize = 16;

/// Connects to the configured Redis.
pub fn connect(config: &Config) -> Result<Connection, StoreError> {
    Endpoint::new(&config.redis).open()
}

/// The store keys of the configuration, which the first start of a server makes.
pub fn store_keys(config: &Config) -> Result<StoreKeys, KeyError> {
    let file = StoreKeyFile::new(&config.audit.store_key_path);
    let loaded = file.load(Now::read().unix_us / 1000)?;
    loaded.map(|loaded| loaded.keys).ok_or_else(|| file.missing())
}

/// Someone who changes things by hand.
pub struct Operator {
    /// For looking; changes go through [`act`](Self::act).
    pub connection: Connection,
    /// For tags on what is stored.
    pub keys: StoreKeys,
    lane: Lane,
    /// Whether the lane is in Redis.
    opened: bool,
    /// Whether the connection failed while something was changed.
    broken: bool,
    policy_version: [u8; 32],
    reason: String,
    boot: Uuid,
    name: String,
}

/// Where an act is on record.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// For tags on what it stores.
    pub keys: &'a StoreKeys,
    /// The lane.
    pub lane: &'a str,
    /// Its records there, in order.
    pub records: &'a [u64],
}

impl<'a> Recorded<'a> {
    /// The first of them.
    pub fn first(&self) -> OnRecord<'a> {
        OnRecord { lane: self.lane, seq: self.records.first().copied().unwrap_or(0) }
    }
}

/// What became of an act.
#[derive(Debug)]
pub enum Acted {
    /// It is done and on record; the answers of its effects.
    Done(Vec<Value>),
    /// Something that was watched has changed: nothing was done.
    Conflict,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("lane", self.lane.id()).finish_non_exhaustive()
    }
}

impl Operator {
    /// Connects; nothing is written before the first act.
    pub fn connect(config: &Config, by: &By) -> Result<Self, Trouble> {
        let boot = Uuid::now_v7();
        let reason = by.to_text();
        let mut connection = connect(config)?;
        let keys = store_keys(config)?;
        joining::enter(&mut connection, &keys)?;
        Ok(Self {
            connection,
            keys,
            lane: Lane::new(LaneId::new(boot, 0, 1)),
            opened: false,
            broken: false,
            policy_version: config.digest,
            reason,
            boot,
            name: boot.simple().to_string(),
        })
    }

    /// Names this run of the command.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Carries out `effects` and records them, all or nothing. `fields` without reason and policy version:
    /// those are this operator's.
    pub fn act(
        &mut self,
        action: Action,
        fields: &Fields<'_>,
        effects: impl FnOnce(&mut Batch, &Recorded<'_>),
    ) -> Result<Acted, StoreError> {
        self.act_on_all(action, std::iter::once(*fields), effects)
    }

    /// The same with several records.
    pub fn act_on_all<'f>(
        &mut self,
        action: Action,
        records: impl Iterator<Item = Fields<'f>>,
        effects: impl FnOnce(&mut Batch, &Recorded<'_>),
    ) -> Result<Acted, StoreError> {
        let now = Now::read();
        let mut batch = Batch::new();
        let _ = batch.command("MULTI");
        if !self.opened {
            self.lane.open(now, "operator", &self.policy_version);
            let description = serde_json::json!({
                "opened_unix_us": now.unix_us,
                "version": env!("CARGO_PKG_VERSION"),
                "operator": self.reason,
            });
            let _ = trail::register(&mut batch, self.lane.id(), &description.to_string());
        }
        let before = batch.len() - 1;
        let mut places = Vec::new();
        for fields in records {
            let fields = Fields { reason: &self.reason, policy_version: &self.policy_version, ..fields };
            places.push(self.lane.append(now, action, Decision::Event, &fields).seq);
        }
        let lane = self.lane.id().clone();
        effects(&mut batch, &Recorded { keys: &self.keys, lane: lane.as_str(), records: &places });
        if let Some(block) = self.lane.block() {
            let _ = trail::append(&mut batch, &self.keys, block);
        }
        let exec_at = batch.command("EXEC");
        let mut answers = match self.connection.run(&mut batch) {
            Ok(answers) => answers,
            Err(error) => {
                // Answers may come late: nothing more is asked on this connection.
                self.broken = true;
                return Err(error);
            }
        };
        match answers.get_mut(exec_at).map(std::mem::take) {
            Some(Value::Array(mut values)) => {
                if let Some(code) = values.iter().find_map(answers::error_code) {
                    // What else was in the transaction has happened, but for that.
                    let answer = format!("{code}, to a part of what was asked");
                    return Err(StoreError::Unexpected { command: "changing by hand", answer });
                }
                self.lane.confirm();
                self.opened = true;
                Ok(Acted::Done(values.split_off(before)))
            }
            Some(Value::Nil) => {
                self.lane.discard();
                Ok(Acted::Conflict)
            }
            other => {
                self.lane.discard();
                let cause = answers.iter().find(|answer| answers::error_code(answer).is_some()).cloned();
                let answer = format!("{:?}", cause.or(other));
                Err(StoreError::Unexpected { command: "changing by hand", answer })
            }
        }
    }

    /// Ends the lane in order, if there is one, and sees to it that a checkpoint covers it: a running server makes one,
    /// else this command does.
    pub fn close(mut self, config: &Config) -> Option<Receipt> {
        if !self.opened {
            return None;
        }
        // What was done is done, and on record: that no checkpoint is known for it changes nothing of that.
        let sealed = match self.broken {
            true => Sealed::Unknown("the connection to Redis broke".to_owned()),
            false => self.end(config).unwrap_or_else(|error| Sealed::Unknown(error.to_string())),
        };
        let (lane, records) = (self.lane.id().to_string(), self.lane.confirmed().seq);
        Some(Receipt { lane, records, sealed })
    }

    fn end(&mut self, config: &Config) -> Result<Sealed, StoreError> {
        let fields = Fields { policy_version: &self.policy_version, ..Fields::default() };
        let _ = self.lane.append(Now::read(), Action::LaneClosed, Decision::Event, &fields);
        let mut batch = Batch::new();
        if let Some(block) = self.lane.block() {
            let _ = trail::append(&mut batch, &self.keys, block);
        }
        if let Some(Value::ServerError(error)) = self.connection.run(&mut batch)?.pop() {
            let answer = format!("{error:?}");
            return Err(StoreError::Unexpected { command: "closing an audit lane", answer });
        }
        self.lane.confirm();
        self.seal(config)
    }

    fn seal(&mut self, config: &Config) -> Result<Sealed, StoreError> {
        let (lane, head) = (self.lane.id().clone(), self.lane.confirmed());
        if !servers::any_alive(&mut self.connection)? {
            let own = LaneHead { lane, head };
            let sealed = seal_alone(&config.audit, &mut self.connection, self.boot, own, self.policy_version);
            return Ok(match sealed {
                Ok(()) => Sealed::Here,
                Err(error) => Sealed::ByNextStart(error.to_string()),
            });
        }
        let patience = SEAL_PATIENCE + Duration::from_millis(2 * config.audit.checkpoint_interval_ms);
        let give_up = Instant::now() + patience.min(MAX_SEAL_PATIENCE);
        while Instant::now() < give_up {
            for note in checkpoints::recent(&mut self.connection)? {
                let checkpoint = note::text_of(&note).ok().and_then(|text| Checkpoint::parse(text).ok());
                let covers = |found: &Checkpoint| found.lane(&lane).is_some_and(|found| found.head == head);
                if let Some(found) = checkpoint.filter(covers) {
                    return Ok(Sealed::ByServer {
                        checkpoint: found.counter,
                        run: found.boot.simple().to_string(),
                    });
                }
            }
            std::thread::sleep(SEAL_LOOK);
        }
        Ok(Sealed::NotYet)
    }
}
