//! What an operator changes by hand: in one transaction with its record, on an audit lane of the command's
//! own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::{Uid, User};
use uuid::Uuid;

use super::exit::Exit;
use crate::audit::checkpoint::LaneHead;
use crate::audit::{Action, Checkpoint, Decision, Fields, Lane, LaneId, StoreKeys, note};
use crate::checkpoint::seal_alone;
use crate::clock::Now;
use crate::config::{Config, ConfigError};
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
/// Longest `--reason`, in bytes.
const MAX_REASON_BYTES: usize = 512;

/// Which installation a command works on, and how it answers.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// The configuration whose Redis is meant; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, one object a line, instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Why something is done by hand.
#[derive(Debug, Clone, Args)]
pub struct Why {
    /// Goes on record with the operator's name.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_reason)]
    reason: String,
}

fn parse_reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=MAX_REASON_BYTES => Ok(text.to_owned()),
        len => Err(format!("is {len} bytes long; expected at most {MAX_REASON_BYTES}")),
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It was asked for something that is not possible.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store keys.
    #[error("gateway.audit.store_key_path: {0}")]
    Keys(#[from] KeyError),
    /// What it works on does not allow it now.
    #[error("{0}")]
    Refused(String),
    /// Nobody reads on: `mas dlq list | head`.
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Trouble {
    /// How a command ends for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Config(_) => Exit::Usage,
            Self::Keys(_) | Self::Store(_) | Self::Refused(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// How a command ends, after saying why where that is a failure.
pub fn exit(command: &str, outcome: Result<Exit, Trouble>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Trouble::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("mas {command}: {error}");
            error.exit()
        }
    }
}

impl Source {
    /// Reads the configuration.
    pub fn config(&self) -> Result<Config, Trouble> {
        Ok(Config::locate_and_load(self.config.as_deref().map(Path::new))?)
    }
}

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
    pub fn connect(config: &Config, why: &Why) -> Result<Self, Trouble> {
        let boot = Uuid::now_v7();
        let user = user_name();
        let reason = if why.reason.is_empty() { user } else { format!("{user}: {}", why.reason) };
        let mut connection = connect(config)?;
        let keys = store_keys(config)?;
        joining::enter(&mut connection, &keys)?;
        Ok(Self {
            connection,
            keys,
            lane: Lane::new(LaneId::new(boot, 0, 1)),
            opened: false,
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
        let mut answers = self.connection.run(&mut batch)?;
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
    /// else this command does. Says on standard error which.
    pub fn close(mut self, config: &Config) -> Result<(), StoreError> {
        if !self.opened {
            return Ok(());
        }
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

    fn seal(&mut self, config: &Config) -> Result<(), StoreError> {
        let (lane, head) = (self.lane.id().clone(), self.lane.confirmed());
        let receipt = format!("on record in lane {lane}, records 1 to {}", head.seq);
        if !servers::any_alive(&mut self.connection)? {
            let sealed = seal_alone(
                &config.audit,
                &mut self.connection,
                self.boot,
                LaneHead { lane, head },
                self.policy_version,
            );
            match sealed {
                Ok(()) => eprintln!("mas: {receipt}; sealed by this command, as no server runs"),
                Err(error) => eprintln!("mas: {receipt}; the next start of a server seals it ({error})"),
            }
            return Ok(());
        }
        let patience = SEAL_PATIENCE + Duration::from_millis(2 * config.audit.checkpoint_interval_ms);
        let give_up = Instant::now() + patience.min(MAX_SEAL_PATIENCE);
        while Instant::now() < give_up {
            for note in checkpoints::recent(&mut self.connection)? {
                let checkpoint = note::text_of(&note).ok().and_then(|text| Checkpoint::parse(text).ok());
                let covers = |found: &Checkpoint| found.lane(&lane).is_some_and(|found| found.head == head);
                if let Some(found) = checkpoint.filter(covers) {
                    let (counter, boot) = (found.counter, found.boot.simple());
                    eprintln!("mas: {receipt}; sealed by checkpoint {counter} of server run {boot}");
                    return Ok(());
                }
            }
            std::thread::sleep(SEAL_LOOK);
        }
        eprintln!("mas: {receipt}; no checkpoint covers it yet");
        Ok(())
    }
}

/// The user who runs this, as the system knows him.
pub(crate) fn user_name() -> String {
    let uid = Uid::current();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        // Containers run under ids that no file lists.
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}
