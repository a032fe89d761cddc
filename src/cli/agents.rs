//! `mas agents`: the agents, where their instances are, and what waits for them.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit::Exit;
use super::operator::{self, Source, Trouble};
use super::text::{plain, table, time_text};
use crate::ids::{AgentId, ServerId};
use crate::store::overview::{self, AgentView};
use crate::store::owners::{self, Owner};

/// Characters of a server's id in a table: those that differ between servers.
const SERVER_CHARS: usize = 8;

/// Arguments of `mas agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// Only these.
    #[arg(value_name = "AGENT")]
    agents: Vec<String>,
    #[command(flatten)]
    source: Source,
}

/// Runs the command.
pub fn run(args: &AgentsArgs) -> Exit {
    operator::exit("agents", show(args))
}

fn show(args: &AgentsArgs) -> Result<Exit, Trouble> {
    let config = args.source.config()?;
    let unknown = args.agents.iter().find(|name| !config.agents.contains_key(name.as_str()));
    if let Some(name) = unknown {
        return Err(Trouble::usage(format!("{name:?} is not in `agents`")));
    }
    let wanted = |agent: &&AgentId| args.agents.is_empty() || args.agents.iter().any(|n| n == agent.as_str());
    let mut connection = operator::connect(&config)?;
    let servers = overview::servers(&mut connection)?;
    let views = overview::agents(&mut connection, config.agents.keys().filter(wanted))?;
    let mut out = std::io::stdout().lock();
    if args.source.json {
        for view in &views {
            writeln!(out, "{}", view_json(view, &servers))?;
        }
        return Ok(Exit::Done);
    }
    let heading = ["AGENT", "STATUS", "QUEUED", "BYTES", "UNACKED", "CIRCUIT", "INSTANCES"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(views.iter().map(|view| {
        let circuit = match view.circuit_open_ms {
            Some(since_ms) => format!("open since {}", time_text(since_ms.saturating_mul(1000))),
            None => "closed".to_owned(),
        };
        vec![
            view.agent.to_string(),
            plain(&view.status),
            view.queued.to_string(),
            view.bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string()),
            view.pending.to_string(),
            circuit,
            instances_text(view, &servers),
        ]
    }));
    write!(out, "{}", table(&rows))?;
    Ok(Exit::Done)
}

/// `i0@1a2b3c4d`: on that server; `i1!`: on one that is gone; instances that left are not shown.
fn instances_text(view: &AgentView, servers: &BTreeSet<ServerId>) -> String {
    let mut shown: Vec<String> = owners::instances(view.instances.clone())
        .into_iter()
        .filter_map(|(instance, owner)| match owner {
            Owner::Server(server) if servers.contains(&server) => {
                let id = server.as_str();
                let tail = id.get(id.len().saturating_sub(SERVER_CHARS)..).unwrap_or(id);
                Some(format!("{instance}@{tail}"))
            }
            Owner::Server(_) => Some(format!("{instance}!")),
            Owner::Nobody => None,
        })
        .collect();
    shown.sort();
    shown.join(" ")
}

fn view_json(view: &AgentView, servers: &BTreeSet<ServerId>) -> Json {
    let mut known = owners::instances(view.instances.clone());
    known.sort_by(|(a, _), (b, _)| a.cmp(b));
    let instances: Vec<Json> = known
        .into_iter()
        .map(|(instance, owner)| {
            let (server, connected) = match &owner {
                Owner::Server(server) => (Some(server.as_str()), servers.contains(server)),
                Owner::Nobody => (None, false),
            };
            json!({"instance_id": instance.as_str(), "server": server, "connected": connected})
        })
        .collect();
    json!({
        "agent_id": view.agent.as_str(),
        "status": view.status,
        "queued": view.queued,
        "bytes": view.bytes,
        "unacked": view.pending,
        "circuit": if view.circuit_open_ms.is_some() { "open" } else { "closed" },
        "circuit_since_ms": view.circuit_open_ms,
        "instances": instances,
    })
}
