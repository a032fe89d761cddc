//! `mas agents`: the agents, where their instances are, and what waits for them.

use std::io::Write;

use clap::Args;
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why};
use super::text::{plain, table, time_text};
use crate::operation::Command;

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
    let command = Command::Agents { agents: args.agents.clone() };
    let mut out = std::io::stdout().lock();
    let heading = ["AGENT", "STATUS", "QUEUED", "BYTES", "UNACKED", "CIRCUIT", "INSTANCES"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let _ = args.source.carry_out(&Why::default(), &command, |line| {
        if args.source.json {
            return writeln!(out, "{line}");
        }
        rows.push(row(&line));
        Ok(())
    })?;
    if !args.source.json {
        write!(out, "{}", table(&rows))?;
    }
    Ok(Exit::Done)
}

fn row(line: &Json) -> Vec<String> {
    let word = |name: &str| plain(line.get(name).and_then(Json::as_str).unwrap_or_default());
    let number = |name: &str| line.get(name).and_then(Json::as_u64);
    let shown = |name: &str| number(name).map_or_else(|| "?".to_owned(), |value| value.to_string());
    let circuit = match number("circuit_since_ms") {
        Some(since_ms) => format!("open since {}", time_text(since_ms.saturating_mul(1000))),
        None => word("circuit"),
    };
    vec![
        word("agent_id"),
        word("status"),
        shown("queued"),
        shown("bytes"),
        shown("unacked"),
        circuit,
        instances(line),
    ]
}

/// `i0@1a2b3c4d`: on that server; `i1!`: on one that is gone; instances that left are not shown.
fn instances(line: &Json) -> String {
    let all = line.get("instances").and_then(Json::as_array).into_iter().flatten();
    let shown: Vec<String> = all
        .filter_map(|instance| {
            let name = plain(instance.get("instance_id")?.as_str()?);
            let server = plain(instance.get("server")?.as_str()?);
            let tail = server.get(server.len().saturating_sub(SERVER_CHARS)..).unwrap_or(&server);
            let connected = instance.get("connected").and_then(Json::as_bool) == Some(true);
            Some(if connected { format!("{name}@{tail}") } else { format!("{name}!") })
        })
        .collect();
    shown.join(" ")
}
