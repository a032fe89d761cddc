//! `mas state`: an agent's state read and changed by an operator. A change counts as one for whoever compares
//! versions, and goes on record in the transaction that makes it.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::operator::{self, Acted, MAX_CONFLICTS, Operator, Source, Trouble, Why};
use super::text::{plain, table};
use crate::audit::{Action, Fields};
use crate::config::{Config, Limits};
use crate::ids::AgentId;
use crate::store::answers;
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
        StateCommand::Set(args) => change(&args.agent, &args.change, &args.fields),
        StateCommand::Reset(args) => change(&args.agent, &args.change, &[]),
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

/// Sets fields, or, where there are none, removes the whole state.
fn change(name: &str, args: &ChangeArgs, updates: &[(String, String)]) -> Result<Exit, Trouble> {
    let config = args.source.config()?;
    let agent = known(&config, name)?;
    let mut operator = Operator::connect(&config, &args.why)?;
    for _ in 0..MAX_CONFLICTS {
        let state = overview::watch_state(&mut operator.connection, &agent)?;
        if let Some(expected) = args.expect_version.filter(|expected| *expected != state.version) {
            return Err(Trouble::Refused(format!("the state has version {}, not {expected}", state.version)));
        }
        check_size(&config.limits, state, updates)?;
        let action = if updates.is_empty() { Action::StateReset } else { Action::StateUpdate };
        let bytes: usize = updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        let fields = Fields {
            target: agent.as_str(),
            rule: "operator",
            // Bounded by `max_state_bytes`.
            payload_len: bytes as u32,
            ..Fields::default()
        };
        let acted = operator.act(action, &fields, |batch| match updates {
            [] => overview::reset_state(batch, &agent),
            updates => overview::set_state(batch, &agent, updates),
        })?;
        let Acted::Done(values) = acted else {
            continue;
        };
        // Its own answer, before that of the record.
        let version = values.iter().rev().nth(1).and_then(answers::int);
        operator.close()?;
        let mut out = std::io::stdout().lock();
        if args.source.json {
            writeln!(out, "{}", json!({"agent_id": agent.as_str(), "version": version}))?;
        } else {
            let version = version.map(|version| version.to_string()).unwrap_or_default();
            writeln!(out, "{agent}: version {version}")?;
        }
        return Ok(Exit::Done);
    }
    Err(Trouble::Refused("the state keeps changing; try again".to_owned()))
}

/// The bounds that hold for the agent itself.
fn check_size(limits: &Limits, state: StateView, updates: &[(String, String)]) -> Result<(), Trouble> {
    let mut fields: std::collections::BTreeMap<String, String> = state.fields.into_iter().collect();
    fields.extend(updates.iter().cloned());
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
