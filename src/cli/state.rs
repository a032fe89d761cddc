//! `mas state`: an agent's state read and changed by an operator. A change counts as one for whoever compares
//! versions, and goes on record in the transaction that makes it.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::operator::{self, Acted, MAX_CONFLICTS, Operator, Source, Trouble, Why};
use super::text::{plain, table};
use crate::audit::{Action, Fields};
use crate::config::{Config, Limits};
use crate::ids::{AgentId, hex};
use crate::store::overview::{self, StateView};

/// Subcommands of `mas state`.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Show an agent's state and its version.
    Get(GetArgs),
    /// Set fields of it; others stay.
    Set(SetArgs),
    /// Remove all of it.
    Reset(ResetArgs),
    /// Take a state over as it is that somebody else has changed: from now on it counts as the servers' own.
    Accept(AcceptArgs),
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Whose.
    agent: String,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Whose.
    agent: String,
    /// FIELD=VALUE, once or more.
    #[arg(value_name = "FIELD=VALUE", required = true, value_parser = parse_field)]
    fields: Vec<(String, String)>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Whose.
    agent: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Arguments of `accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Whose.
    agent: String,
    /// Only if it is this one: the SHA-256 that `get` shows.
    #[arg(long, value_name = "HEX", required = true)]
    sha256: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Only if the state has this version.
    #[arg(long, value_name = "N")]
    expect_version: Option<u64>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

fn parse_field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not FIELD=VALUE")),
    }
}

/// Runs one command.
pub fn run(command: StateCommand) -> Exit {
    let outcome = match &command {
        StateCommand::Get(args) => get(args),
        StateCommand::Set(args) => change(&args.agent, &args.change, &Change::Set(&args.fields)),
        StateCommand::Reset(args) => change(&args.agent, &args.change, &Change::Reset),
        StateCommand::Accept(args) => change(&args.agent, &args.change, &Change::Accept(&args.sha256)),
    };
    operator::exit("state", outcome)
}

fn known(config: &Config, name: &str) -> Result<AgentId, Trouble> {
    let listed = config.agents.get_key_value(name).map(|(agent, _)| agent.clone());
    listed.ok_or_else(|| Trouble::Usage(format!("{name:?} is not in `agents`")))
}

fn get(args: &GetArgs) -> Result<Exit, Trouble> {
    let config = args.source.config()?;
    let agent = known(&config, &args.agent)?;
    let state = overview::watch_state(&mut operator::connect(&config)?, &agent)?;
    if operator::store_keys(&config).is_ok_and(|keys| !state.is_ours(&keys, &agent)) {
        let digest = hex(&state.digest());
        eprintln!("mas state: somebody else than a server has changed this state, SHA-256 {digest}");
    }
    let mut out = std::io::stdout().lock();
    if args.source.json {
        let fields: serde_json::Map<String, serde_json::Value> =
            state.fields.into_iter().map(|(field, value)| (field, value.into())).collect();
        let line = json!({
            "agent_id": agent.as_str(), "version": state.version, "ttl_ms": state.ttl_ms, "state": fields,
        });
        writeln!(out, "{line}")?;
        return Ok(Exit::Done);
    }
    let ends = state.ttl_ms.map(|ttl_ms| format!(", kept for {ttl_ms} ms more")).unwrap_or_default();
    writeln!(out, "{agent}: version {}, {} fields{ends}", state.version, state.fields.len())?;
    let row = |(field, value): &(String, String)| vec![plain(field), plain(value)];
    write!(out, "{}", table(&state.fields.iter().map(row).collect::<Vec<_>>()))?;
    Ok(Exit::Done)
}

/// What is done to a state.
enum Change<'a> {
    Set(&'a [(String, String)]),
    Reset,
    /// One with this digest.
    Accept(&'a str),
}

impl Change<'_> {
    /// Fields that are set.
    fn updates(&self) -> &[(String, String)] {
        match self {
            Self::Set(updates) => updates,
            Self::Reset | Self::Accept(_) => &[],
        }
    }

    /// The state's fields after it.
    fn after(&self, state: &StateView) -> Vec<(String, String)> {
        let mut fields: BTreeMap<String, String> = match self {
            Self::Reset => BTreeMap::new(),
            Self::Set(_) | Self::Accept(_) => state.fields.iter().cloned().collect(),
        };
        fields.extend(self.updates().iter().cloned());
        fields.into_iter().collect()
    }
}

fn change(name: &str, args: &ChangeArgs, change: &Change<'_>) -> Result<Exit, Trouble> {
    let config = args.source.config()?;
    let agent = known(&config, name)?;
    let mut operator = Operator::connect(&config, &args.why)?;
    for _ in 0..MAX_CONFLICTS {
        let state = overview::watch_state(&mut operator.connection, &agent)?;
        if let Some(expected) = args.expect_version.filter(|expected| *expected != state.version) {
            return Err(Trouble::Refused(format!("the state has version {}, not {expected}", state.version)));
        }
        if matches!(change, Change::Set(_)) && !state.is_ours(&operator.keys, &agent) {
            return Err(Trouble::Refused(format!(
                "somebody else has changed this state: look at it (mas state get {agent}), then accept or reset it"
            )));
        }
        if let Change::Accept(expected) = change
            && hex(&state.digest()) != *expected
        {
            return Err(Trouble::Refused(format!("the state's SHA-256 is {}", hex(&state.digest()))));
        }
        let (updates, after) = (change.updates(), change.after(&state));
        check_size(&config.limits, &after, updates)?;
        let action = match change {
            Change::Reset => Action::StateReset,
            Change::Set(_) | Change::Accept(_) => Action::StateUpdate,
        };
        let bytes: usize = updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        let what =
            if matches!(change, Change::Accept(_)) { "operator, accepted as it is" } else { "operator" };
        let version = state.next_version();
        let rule = format!("{what}, version {version}");
        let digest = if matches!(change, Change::Accept(_)) { state.digest().to_vec() } else { Vec::new() };
        let tag = state.next_tag(&operator.keys, &agent, &after);
        let fields = Fields {
            target: agent.as_str(),
            rule: &rule,
            payload_digest: &digest,
            // Bounded by `max_state_bytes`.
            payload_len: bytes as u32,
            ..Fields::default()
        };
        let acted = operator.act(action, &fields, |batch, _| match change {
            Change::Reset => overview::reset_state(batch, &agent, (version, &tag)),
            Change::Set(_) | Change::Accept(_) => {
                overview::set_state(batch, &agent, updates, (version, &tag));
            }
        })?;
        if matches!(acted, Acted::Conflict) {
            continue;
        }
        operator.close(&config)?;
        let mut out = std::io::stdout().lock();
        if args.source.json {
            writeln!(out, "{}", json!({"agent_id": agent.as_str(), "version": version}))?;
        } else {
            writeln!(out, "{agent}: version {version}")?;
        }
        return Ok(Exit::Done);
    }
    Err(Trouble::Refused("the state keeps changing; try again".to_owned()))
}

/// The bounds that hold for the agent itself.
fn check_size(
    limits: &Limits,
    fields: &[(String, String)],
    updates: &[(String, String)],
) -> Result<(), Trouble> {
    let bytes: usize = fields.iter().map(|(field, value)| field.len() + value.len()).sum();
    if !updates.is_empty() && (fields.len() > limits.max_state_fields || bytes > limits.max_state_bytes) {
        return Err(Trouble::Refused(format!(
            "the state would have {} fields and {bytes} bytes: `limits.max_state_fields` is {}, \
             `limits.max_state_bytes` {}",
            fields.len(),
            limits.max_state_fields,
            limits.max_state_bytes
        )));
    }
    Ok(())
}
