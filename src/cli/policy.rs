//! `mas policy`: what the pipeline would decide, and why; and rules taken over from older deployments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::policy_replay::{self, ReplayArgs};
use crate::clock::Now;
use crate::config::Config;
use crate::dlp::Scratch;
use crate::ids::AgentId;
use crate::policy::{Message, Policy, Rule, check_payload};
use crate::refusal::Refusal;
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

/// The decision on a message whose sender has sent nothing yet and whose target's circuit is closed:
/// counts and circuits live in the running server.
fn explain(config: &Config, args: &ExplainArgs) {
    let (decision, rule, refusal, findings) = decide(config, args);
    let text = rule.as_ref().and_then(|rule| rule_text(config, args, rule));
    let rule = rule.map(|rule| rule.to_string());
    if args.json {
        let line = json!({
            "decision": decision, "rule": rule, "rule_text": text,
            "status": refusal.map(|refusal| format!("{:?}", refusal.kind)),
            "details": refusal.map(|refusal| refusal.detail),
            "findings": serde_json::from_str::<serde_json::Value>(&findings).unwrap_or_default(),
        });
        println!("{line}");
        return;
    }
    println!("{decision}");
    if let Some(rule) = rule {
        println!("rule     {rule}{}", text.map(|text| format!("  {text}")).unwrap_or_default());
    }
    if let Some(refusal) = refusal {
        println!("answer   {} ({:?})", refusal.detail, refusal.kind);
    }
    if !findings.is_empty() {
        println!("found    {findings}");
    }
}

fn decide(config: &Config, args: &ExplainArgs) -> (&'static str, Option<Rule>, Option<Refusal>, String) {
    let Some(sender) = AgentId::parse(&args.from).filter(|id| config.agents.contains_key(id)) else {
        return ("UNAUTHENTICATED", None, Some(Refusal::AGENT_NOT_ALLOWLISTED), String::new());
    };
    if let Err(refusal) = check_payload(&config.limits, &args.message_type, &args.data) {
        return ("REFUSED", None, Some(refusal), String::new());
    }
    let policy = Policy::compile(config, None);
    let message = Message {
        sender: &sender,
        target: &args.to,
        message_type: &args.message_type,
        data_json: &args.data,
    };
    let verdict = policy.check(message, None, Now::read(), &mut Scratch::new());
    let refusal = verdict.refusal();
    let findings = verdict.findings.as_ref().map(|scan| policy.describe(scan)).unwrap_or_default();
    (verdict.decision.as_str(), Some(verdict.rule), refusal, findings)
}

/// The rule as the file has it.
fn rule_text(config: &Config, args: &ExplainArgs, rule: &Rule) -> Option<String> {
    match rule {
        Rule::Permission(index) => config.permissions.get(*index as usize).map(|rule| format!("{rule:?}")),
        Rule::Role(place) => {
            let agent = config.agents.get(args.from.as_str())?;
            let role = config.roles.get(agent.roles.get(*place as usize)?)?;
            Some(format!("{}: {}", role.name, role.permissions.join(", ")))
        }
        Rule::RateLimit(_)
        | Rule::Circuit
        | Rule::Dlp(_)
        | Rule::DefaultDeny
        | Rule::UnknownTarget
        | Rule::PendingRequest => None,
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
