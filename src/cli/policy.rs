//! `mas policy`: what the pipeline would decide, and why; and rules taken over from older deployments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::policy_replay::{self, ReplayArgs};
use crate::config::Config;
use crate::ids::AgentId;
use crate::policy::explain::{Asked, Explained};
use crate::store::{Endpoint, StoreError, Value, answers};

/// Subcommands of `mas policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say what would be decided on a message and which rule decides it; changes nothing.
    Explain(ExplainArgs),
    /// Run a candidate configuration over recorded decisions: which would be others, and why; changes nothing.
    Replay(ReplayArgs),
    /// Print, as `permissions` of mas.yaml, what the sets of an older deployment in Redis allow and block.
    ImportSets(ImportArgs),
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The configuration; else MAS_CONFIG_FILE, else the nearest mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The sending agent.
    #[arg(long, value_name = "AGENT")]
    from: String,
    /// The target.
    #[arg(long, value_name = "AGENT")]
    to: String,
    /// The message type.
    #[arg(long = "type", value_name = "TYPE", default_value = "")]
    message_type: String,
    /// The payload.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    data: String,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Arguments of `import-sets`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The configuration whose Redis holds the sets.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one command.
pub fn run(command: PolicyCommand) -> Exit {
    match command {
        PolicyCommand::Explain(args) => with_config(args.config.as_deref(), |config| {
            explain(config, &args);
            Exit::Done
        }),
        PolicyCommand::ImportSets(args) => {
            with_config(args.config.as_deref(), |config| match import_sets(config) {
                Ok(()) => Exit::Done,
                Err(error) => {
                    eprintln!("mas policy: {error}");
                    Exit::Failed
                }
            })
        }
        PolicyCommand::Replay(args) => policy_replay::run(&args),
    }
}

fn with_config(path: Option<&Path>, run: impl FnOnce(&Config) -> Exit) -> Exit {
    match Config::locate_and_load(path) {
        Ok(config) => run(&config),
        Err(error) => {
            eprintln!("mas policy: {error}");
            Exit::Usage
        }
    }
}

fn explain(config: &Config, args: &ExplainArgs) {
    let message =
        Asked { from: &args.from, to: &args.to, message_type: &args.message_type, data_json: &args.data };
    let explained = Explained::of(config, message);
    if args.json {
        println!("{}", explained.json());
        return;
    }
    println!("{}", explained.decision);
    if let Some(rule) = explained.rule {
        println!(
            "rule     {rule}{}",
            explained.rule_text.map(|text| format!("  {text}")).unwrap_or_default()
        );
    }
    if let Some(refusal) = explained.refusal {
        println!("answer   {} ({:?})", refusal.detail, refusal.kind);
    }
    if !explained.findings.is_empty() {
        println!("found    {}", explained.findings);
    }
}

/// `mas.yaml` is the authority: nothing reads these sets while serving.
fn import_sets(config: &Config) -> Result<(), StoreError> {
    let mut connection = Endpoint::new(&config.redis).open()?;
    let mut members = |agent: &AgentId, kind: &str| -> Result<Vec<String>, StoreError> {
        let key = format!("agent:{agent}:{kind}");
        let mut names: Vec<String> = match connection.command("SMEMBERS", &[&key])? {
            Value::Array(names) => names.iter().filter_map(answers::text).map(str::to_owned).collect(),
            Value::Set(names) => names.iter().filter_map(answers::text).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        names.sort();
        Ok(names)
    };
    println!("permissions:");
    let mut unknown: BTreeMap<String, String> = BTreeMap::new();
    for agent in config.agents.keys() {
        let allowed = members(agent, "allowed_targets")?;
        let blocked = members(agent, "blocked_targets")?;
        if allowed.iter().any(|name| name == "*") {
            println!("  - {{type: allow_wildcard, agent_id: {agent}}}");
        }
        for (kind, names) in [("allow", allowed), ("deny", blocked)] {
            let (known, others): (Vec<String>, Vec<String>) = names
                .into_iter()
                .filter(|name| name != "*")
                .partition(|name| config.agents.contains_key(name.as_str()));
            if !known.is_empty() {
                println!("  - {{type: {kind}, sender: {agent}, targets: [{}]}}", known.join(", "));
            }
            unknown.extend(others.into_iter().map(|name| (name, agent.to_string())));
        }
    }
    for (name, agent) in unknown {
        eprintln!("left out: {name:?} in the sets of {agent} is not in `agents`");
    }
    Ok(())
}
