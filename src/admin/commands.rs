//! Commands of operators, carried out by this server: decided by role, on record with who, from where and why, and answered
//! with a receipt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::HeaderValue;
use ::http::StatusCode;
use ::http::header::{CONTENT_TYPE, RETRY_AFTER};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::http::{Content, Request};
use super::operators::Who;
use crate::audit::{Action, Fields, OperatorEvent};
use crate::clock::Now;
use crate::config::{Config, OperatorRole};
use crate::ids::AgentId;
use crate::operation::acting::{Acted, Operator};
use crate::operation::{self, By, Command, Done, MAX_REASON_BYTES, Say, Trouble};
use crate::shard::Shards;
use crate::shard::desk::control::Control;

/// Commands that are carried out at once.
const MAX_RUNNING: usize = 4;
/// The same of those that change nothing.
const MAX_LOOKING: usize = 2;
/// Things that one command changes, and lines that it answers with: each is kept until it is done.
const MAX_THINGS: u64 = 10_000;
/// How long a reload may take until it is known whether it was taken.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker may take to close a circuit.
const CIRCUIT_PATIENCE: Duration = Duration::from_secs(5);
/// How often either is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Commands refused by role that are on record one by one, each second.
const RECORDED_REFUSALS: u32 = 10;
/// Most of them that wait for their commit, and what each says of what was asked for, in characters.
const MAX_WAITING: usize = 64;
const MAX_TARGET_CHARS: usize = 128;
/// The same of a look at what others see masked: whose letters they were.
const MAX_SEEN_CHARS: usize = 3_000;

/// Carries them out.
#[derive(Default)]
pub(super) struct Commands {
    running: AtomicUsize,
    looking: AtomicUsize,
    refused: Mutex<Refused>,
}

/// What was refused by role lately.
#[derive(Default)]
struct Refused {
    second: u64,
    recorded: u32,
    unrecorded: u64,
    /// Held by each record that waits for its commit.
    waiting: Arc<()>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    command: Command,
    #[serde(default)]
    reason: String,
}

/// A place among the commands that run.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Who {
    /// What it may do; `None`: read, as anybody on this machine.
    fn role(&self) -> Option<OperatorRole> {
        match self {
            Self::Local | Self::Owner(_) => None,
            Self::Operator(operator) => Some(operator.role),
        }
    }

    /// Its name.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Local => None,
            Self::Owner(user) => Some(user),
            Self::Operator(operator) => Some(&operator.name),
        }
    }

    /// Whether there is anything that it may change.
    pub(super) fn may_change(&self) -> bool {
        Command::NAMES.into_iter().any(|name| !Command::shows(name) && self.may(name))
    }

    /// Whether it may ask for a command of that name.
    fn may(&self, command: &str) -> bool {
        match self {
            // As what it may read elsewhere.
            Self::Local => command == "agents" || Command::shows_records(command),
            Self::Owner(_) => true,
            Self::Operator(operator) => Command::may(operator.role, command),
        }
    }
}

impl Commands {
    /// What whoever asks may post.
    pub(super) fn list(&self, who: &Who) -> Content {
        let commands: Vec<&str> = Command::NAMES.into_iter().filter(|name| who.may(name)).collect();
        let answer =
            json!({"by": who.name(), "role": who.role().map(OperatorRole::as_str), "commands": commands});
        Content::json(StatusCode::OK, format!("{answer}\n"))
    }

    /// Carries out what is posted.
    pub(super) fn post(
        &self,
        request: &Request,
        who: &Who,
        config: &Config,
        shards: &Arc<Shards>,
    ) -> Content {
        // What a form of another site can send has another type.
        let is_json =
            |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
        if !request.header(CONTENT_TYPE.as_str()).is_some_and(is_json) {
            return failed(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &[],
                "expected Content-Type: application/json",
            );
        }
        let Asked { command, reason } = match serde_json::from_slice(request.body()) {
            Ok(asked) => asked,
            Err(error) => return failed(StatusCode::BAD_REQUEST, &[], &format!("no command: {error}")),
        };
        let by = match who {
            Who::Operator(operator) => format!("{} from {}", operator.name, request.peer().remote),
            Who::Owner(user) => user.clone(),
            Who::Local => format!("somebody at {}", request.peer().remote),
        };
        let by = By::new(&by, &reason);
        if reason.len() > MAX_REASON_BYTES {
            let why =
                format!("the reason is {} bytes long; expected at most {MAX_REASON_BYTES}", reason.len());
            return failed(StatusCode::BAD_REQUEST, &[], &why);
        }
        if let Err(why) = command.check().and_then(|()| bounded(&command)) {
            return failed(StatusCode::BAD_REQUEST, &[], &why);
        }
        let sees_all = match who {
            Who::Local => false,
            Who::Owner(_) => true,
            Who::Operator(operator) => operator.role == OperatorRole::Operator,
        };
        if !who.may(command.name()) || (command.is_unmasked() && !sees_all) {
            self.refuse(&command, &by, shards);
            let why = match who.role() {
                None => "who reaches this address may read; the unix socket, or an operator's certificate, is for commands".to_owned(),
                Some(role) if command.is_unmasked() => {
                    format!("the role {} may not see what is masked", role.as_str())
                }
                Some(role) => format!("the role {} may not ask for {}", role.as_str(), command.name()),
            };
            return failed(StatusCode::FORBIDDEN, &[], &why);
        }
        // Whoever only looks keeps nobody from changing something.
        let (running, most) = match Command::shows(command.name()) {
            true => (&self.looking, MAX_LOOKING),
            false => (&self.running, MAX_RUNNING),
        };
        if running.fetch_add(1, Ordering::Relaxed) >= most {
            let _ = running.fetch_sub(1, Ordering::Relaxed);
            let why = format!("{most} other commands are being carried out");
            return failed(StatusCode::SERVICE_UNAVAILABLE, &[], &why)
                .with(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let _running = Running(running);
        let mut lines = Vec::new();
        // As text: a tree of a long list takes many times as much.
        let mut say = |line: Json| {
            lines.push(line.to_string());
            Ok(())
        };
        match carry_out(config, &by, &command, shards, &mut say) {
            Ok(done) => {
                let body = format!("{{\"lines\":[{}],\"done\":{}}}\n", lines.join(","), json!(done));
                Content::json(StatusCode::OK, body)
            }
            Err(trouble) => {
                let status = match &trouble {
                    Trouble::Usage(_) => StatusCode::BAD_REQUEST,
                    Trouble::Refused(_) => StatusCode::CONFLICT,
                    Trouble::Config(_) | Trouble::Store(_) | Trouble::Keys(_) | Trouble::Unheard(_) => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                };
                failed(status, &lines, &trouble.to_string())
            }
        }
    }

    /// Puts on record that somebody asked for what his role does not allow.
    fn refuse(&self, command: &Command, by: &By, shards: &Shards) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let second = Now::read().mono_ms / 1000;
        if refused.second != second {
            (refused.second, refused.recorded) = (second, 0);
        }
        // Those that wait for a Redis that is away are held in memory.
        let waiting = Arc::strong_count(&refused.waiting) > MAX_WAITING;
        if refused.recorded >= RECORDED_REFUSALS || waiting {
            refused.unrecorded += 1;
            return;
        }
        refused.recorded += 1;
        let before = std::mem::take(&mut refused.unrecorded);
        let others =
            if before > 0 { format!(", and {before} more since the last record") } else { String::new() };
        shards.record(OperatorEvent {
            action: Action::Commanded,
            target: target(command),
            rule: format!("{}, refused by role{others}", command.name()),
            reason: by.to_text(),
            pending: Some(refused.waiting.clone()),
        });
    }
}

fn failed(status: StatusCode, lines: &[String], why: &str) -> Content {
    Content::json(status, format!("{{\"lines\":[{}],\"error\":{}}}\n", lines.join(","), json!(why)))
}

/// Whether it changes no more things than one answer can tell of.
fn bounded(command: &Command) -> Result<(), String> {
    match command {
        Command::DeadLettersRedrive(wanted) | Command::DeadLettersDrop(wanted)
            if wanted.limit > MAX_THINGS =>
        {
            Err(format!("limit is {}: a server deals with at most {MAX_THINGS} at once", wanted.limit))
        }
        Command::DeadLettersArchived { archive, .. } | Command::DeadLettersRestore { archive, .. }
            if !archive.is_empty() =>
        {
            Err("a server reads the folders of its own configuration alone".to_owned())
        }
        Command::DeadLettersArchived { which, .. } | Command::DeadLettersRestore { which, .. }
            if which.limit > MAX_THINGS =>
        {
            Err(format!("limit is {}: a server deals with at most {MAX_THINGS} at once", which.limit))
        }
        _ => Ok(()),
    }
}

fn carry_out(
    config: &Config,
    by: &By,
    command: &Command,
    shards: &Arc<Shards>,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    match command {
        Command::DeadLettersShow { unmasked: true, .. }
        | Command::DeadLettersArchived { unmasked: true, .. } => {
            // Who has seen what others are not shown is on record.
            let seen = commanded(config, by, &format!("{}, unmasked", command.name()), &target(command))?;
            let done = operation::carry_out(config, by, command, say)?;
            Ok(Done { receipt: seen.receipt, ..done })
        }
        Command::CircuitClose { agent } => close_circuit(config, by, agent, shards, say),
        Command::Reload => reload(config, by, shards, say),
        Command::Drain { server: None, after_ms } => {
            let server = Some(shards.shared().server.to_string());
            operation::carry_out(config, by, &Command::Drain { server, after_ms: *after_ms }, say)
        }
        Command::InboxEmpty { agent, limit } => {
            // One answer tells of so many; what is left is asked for again.
            let command = Command::InboxEmpty { agent: agent.clone(), limit: (*limit).min(MAX_THINGS) };
            operation::carry_out(config, by, &command, say)
        }
        other => operation::carry_out(config, by, other, say),
    }
}

/// What a command is about, for the record.
fn target(command: &Command) -> String {
    let most = if command.is_unmasked() { MAX_SEEN_CHARS } else { MAX_TARGET_CHARS };
    command.target().chars().take(most).collect()
}

/// Puts on record what this server is told to do.
fn commanded(config: &Config, by: &By, command: &str, target: &str) -> Result<Done, Trouble> {
    let mut operator = Operator::connect(config, by)?;
    let fields = Fields { target, rule: command, ..Fields::default() };
    match operator.act(Action::Commanded, &fields, |_, _| {})? {
        Acted::Done(_) => Ok(Done { done: 1, receipt: operator.close(config), ..Done::default() }),
        Acted::Conflict => Err(Trouble::Refused("try again".to_owned())),
    }
}

fn close_circuit(
    config: &Config,
    by: &By,
    name: &str,
    shards: &Arc<Shards>,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let agent = AgentId::parse(name).ok_or_else(|| Trouble::Usage(format!("{name:?} is no agent id")))?;
    if !shards.shared().is_circuit_open(name) {
        return Err(Trouble::Refused(format!("the circuit of {agent} is closed")));
    }
    let done = commanded(config, by, "circuit_close", name)?;
    shards.shared().tell(&agent, Control::CloseCircuit(agent.clone(), by.to_text()));
    // Its worker does it with its next turn; one that waits for Redis does it later.
    let give_up = Instant::now() + CIRCUIT_PATIENCE;
    while shards.shared().is_circuit_open(name) && Instant::now() < give_up {
        std::thread::sleep(LOOK);
    }
    let circuit = if shards.shared().is_circuit_open(name) { "to be closed" } else { "closed" };
    say(json!({"agent_id": name, "circuit": circuit}))?;
    Ok(done)
}

/// The same as SIGHUP.
fn reload(config: &Config, by: &By, shards: &Arc<Shards>, say: Say<'_>) -> Result<Done, Trouble> {
    let done = commanded(config, by, "reload", "")?;
    let before = shards.shared().reloads();
    kill(Pid::this(), Signal::SIGHUP).map_err(|error| Trouble::Refused(error.to_string()))?;
    let give_up = Instant::now() + RELOAD_PATIENCE;
    while Instant::now() < give_up {
        let (taken, refused) = shards.shared().reloads();
        if refused > before.1 {
            return Err(Trouble::Refused(
                "the configuration is not valid, what is in force stays: the server's log says why"
                    .to_owned(),
            ));
        }
        if taken > before.0 {
            say(json!({"reload": "taken"}))?;
            return Ok(done);
        }
        std::thread::sleep(LOOK);
    }
    Err(Trouble::Refused("the server has not reloaded in time: its log says why".to_owned()))
}
