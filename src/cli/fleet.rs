//! `mas quarantine`, `release`, `drain`, `circuit` and `reload`: what an operator tells all servers, or one.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::plain;
use crate::ids::AgentId;
use crate::operation::Command;
use crate::quarantine::Whom;
use crate::store::orders::MAX_DRAIN_MS;

/// Whom a quarantine is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhomArgs {
    /// One agent.
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    /// All agents that offer this, also those that will.
    #[arg(long, value_name = "CAPABILITY")]
    capability: Option<String>,
    /// Every agent.
    #[arg(long)]
    all: bool,
}

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
#[command(after_help = "\
What it does, on every server within two seconds: calls of the agent are refused (`quarantined`), its sessions end, nothing is
delivered to it. Its inbox is kept, and what is sent to it waits there. It stands until `mas release`, also over restarts.

  mas quarantine planner --reason 'answers with other people's data, incident 4711'
  mas quarantine --capability web-access --reason 'the proxy was broken into'
  mas quarantine --all --reason 'stop everything'
  mas status                      who is in quarantine, by whom and why")]
pub struct QuarantineArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// Why: goes on record with the operator's name.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
#[command(after_help = "\
Whoever was shut out by a capability, or with all, is let in the same way.

  mas release planner --reason 'patched'
  mas release --all")]
pub struct ReleaseArgs {
    #[command(flatten)]
    whom: WhomArgs,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
The server is not ready from then on (/readyz, gRPC health) and goes on for --after. Where other servers are on its Redis its sessions
move to them meanwhile: it takes no new connections, and each session ends with `server_stopping` once it has settled what it holds, so
that its client connects elsewhere. Then it finishes what it has accepted, and exits with 0. What restarts it must be told by its own
means. Agents that know this server's address alone are without one until it is back: drain it without --after then.

  mas drain                       the server that is asked
  mas drain 0199c7… --after 30s   another one on the same Redis: `mas status` says the ids")]
pub struct DrainArgs {
    /// The server's id; by default the server that is asked.
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// How long it goes on, not ready, until load balancers have noticed: 500ms, 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_wait)]
    after: Duration,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

/// Subcommands of `mas circuit`.
#[derive(Debug, Subcommand)]
pub enum CircuitCommand {
    /// Close an agent's circuit at once: what is sent to it is let through again, until its handlers fail anew.
    Close(CloseArgs),
}

/// Arguments of `circuit close`.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// Whose.
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{text:?}: expected a time as 500ms, 30s or 2m"))?;
    let ms = match text.get(digits.len()..) {
        Some("ms") => Some(number),
        Some("s" | "") => number.checked_mul(1000),
        Some("m") => number.checked_mul(60_000),
        _ => return Err(format!("{text:?}: expected a time as 500ms, 30s or 2m")),
    };
    match ms {
        Some(ms) if ms <= MAX_DRAIN_MS => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?}: expected at most {} minutes", MAX_DRAIN_MS / 60_000)),
    }
}

impl WhomArgs {
    fn whom(&self) -> Result<Whom, Trouble> {
        match (&self.agent, &self.capability) {
            (Some(agent), _) => AgentId::parse(agent)
                .map(Whom::Agent)
                .ok_or_else(|| Trouble::usage(format!("{agent:?} is no agent id"))),
            (None, Some(capability)) => Whom::parse(&format!("capability:{capability}"))
                .ok_or_else(|| Trouble::usage(format!("{capability:?} is no capability"))),
            (None, None) => Ok(Whom::All),
        }
    }
}

/// `mas quarantine`.
pub fn quarantine(args: &QuarantineArgs) -> Exit {
    let run =
        || carry_out(&args.source, &Why::of(&args.reason)?, &Command::Quarantine { whom: args.whom.whom()? });
    operator::exit("quarantine", run())
}

/// `mas release`.
pub fn release(args: &ReleaseArgs) -> Exit {
    let run = || carry_out(&args.source, &args.why, &Command::Release { whom: args.whom.whom()? });
    operator::exit("release", run())
}

/// `mas drain`.
pub fn drain(args: &DrainArgs) -> Exit {
    let after_ms = args.after.as_millis() as u64;
    let command = Command::Drain { server: args.server.clone(), after_ms };
    operator::exit("drain", carry_out(&args.source, &args.why, &command))
}

/// `mas circuit`.
pub fn circuit(command: &CircuitCommand) -> Exit {
    let CircuitCommand::Close(args) = command;
    let command = Command::CircuitClose { agent: args.agent.clone() };
    operator::exit("circuit", carry_out(&args.source, &args.why, &command))
}

/// `mas reload`.
pub fn reload(args: &ReloadArgs) -> Exit {
    operator::exit("reload", carry_out(&args.source, &args.why, &Command::Reload))
}

fn carry_out(source: &Source, why: &Why, command: &Command) -> Result<Exit, Trouble> {
    let mut out = std::io::stdout().lock();
    let done = source.carry_out(why, command, |line| {
        if line.get("agents").and_then(Json::as_u64) == Some(0) {
            eprintln!("mas: the configuration has no such agent: is that the right name?");
        }
        if source.json {
            return writeln!(out, "{line}");
        }
        writeln!(out, "{}", text(&line))
    })?;
    Ok(exit_of(&done))
}

fn text(line: &Json) -> String {
    let word = |name: &str| plain(line.get(name).and_then(Json::as_str).unwrap_or_default());
    match line.get("quarantined").and_then(Json::as_bool) {
        Some(true) => return format!("{} is in quarantine", word("whom")),
        Some(false) => {
            let held = line.get("held_by").and_then(Json::as_str);
            let held = held.map(|held| format!("; still shut out with {}", plain(held))).unwrap_or_default();
            return format!("{} is not in quarantine any more{held}", word("whom"));
        }
        None => {}
    }
    if line.get("drain").is_some() {
        return format!("server {} stops", word("server"));
    }
    if line.get("circuit").is_some() {
        return format!("the circuit of {} is {}", word("agent_id"), word("circuit"));
    }
    "the configuration is in force".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_bound() {
        assert_eq!(parse_wait("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_wait("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_wait("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_wait("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "s", "11m", "-1s", "1h", "1.5s", "99999999999999999999s"] {
            assert!(parse_wait(bad).is_err(), "{bad}");
        }
    }
}
