//! `mas tap`: decisions as a running server commits them.

use std::io::{BufRead, BufReader, Write};

use clap::Args;
use serde_json::Value as Json;

use super::admin::{self, AdminArgs, Trouble};
use super::exit::Exit;
use super::text::{plain, time_text};

const EXAMPLES: &str = "\
Ends when the server does, or after --count records. Whoever reads too slowly misses some, and is told how many.

Examples:
  mas tap
  mas tap --from planner --to worker --decision AUTHZ_DENIED
  mas tap --action dead_letter --json | jq -r .reason";

/// Arguments of `mas tap`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TapArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Records of what this agent asked for, or got; may be repeated.
    #[arg(long, value_name = "AGENT")]
    from: Vec<String>,
    /// Records of what was for this agent; may be repeated.
    #[arg(long, value_name = "AGENT")]
    to: Vec<String>,
    /// Records that name this agent on either side; may be repeated.
    #[arg(long, value_name = "AGENT")]
    agent: Vec<String>,
    /// Records of this action (send, acked, …); may be repeated.
    #[arg(long, value_name = "ACTION")]
    action: Vec<String>,
    /// Records with this decision (ALLOWED, AUTHZ_DENIED, …); may be repeated.
    #[arg(long, value_name = "DECISION")]
    decision: Vec<String>,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command until the server ends it, or nobody reads on.
pub fn run(args: &TapArgs) -> Exit {
    admin::exit("tap", watch(args))
}

fn watch(args: &TapArgs) -> Result<Exit, Trouble> {
    let filters = [
        ("from", &args.from),
        ("to", &args.to),
        ("agent", &args.agent),
        ("action", &args.action),
        ("decision", &args.decision),
    ];
    let query: Vec<String> = filters
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={}", encoded(value))))
        .collect();
    let path = format!("/api/v1/events?{}", query.join("&"));
    let mut answer = args.admin.get(path.trim_end_matches('?'))?;
    let mut lines = BufReader::new(answer.body_mut().as_reader());
    let mut out = std::io::stdout().lock();
    let (mut name, mut line, mut shown) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        let read = lines.read_line(&mut line);
        match read {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match line.trim_end().split_once(": ") {
            Some(("event", event)) => event.clone_into(&mut name),
            Some(("data", data)) if name == "missed" => {
                let missed: Json = serde_json::from_str(data).unwrap_or_default();
                let blocks = missed.get("blocks").and_then(Json::as_u64).unwrap_or(0);
                eprintln!("mas tap: too slow: {blocks} blocks of records were left out");
            }
            Some(("data", data)) => {
                if args.json {
                    writeln!(out, "{data}")?;
                } else {
                    let record: Json = serde_json::from_str(data).unwrap_or_default();
                    writeln!(out, "{}", text(&record))?;
                }
                out.flush()?;
                shown += 1;
                if args.count.is_some_and(|count| shown >= count) {
                    return Ok(Exit::Done);
                }
            }
            _ => {}
        }
    }
    eprintln!("mas tap: the server has ended it");
    Ok(Exit::Failed)
}

/// One record on one line.
fn text(record: &Json) -> String {
    let of = |name: &str| record.get(name).and_then(Json::as_str).unwrap_or_default();
    let time = record.get("time_us").and_then(Json::as_u64).unwrap_or(0);
    let mut words = vec![time_text(time), of("action").to_owned(), of("decision").to_owned()];
    match (of("agent"), of("target")) {
        ("", "") => {}
        (agent, "") => words.push(agent.to_owned()),
        ("", target) => words.push(target.to_owned()),
        (agent, target) => words.push(format!("{agent} -> {target}")),
    }
    let messages = record.get("messages").and_then(Json::as_array).map_or(0, Vec::len);
    if messages > 0 {
        words.push(format!("{messages} messages"));
    }
    for name in ["message_id", "rule", "reason"] {
        if !of(name).is_empty() {
            words.push(of(name).to_owned());
        }
    }
    plain(&words.join("  "))
}

/// A value of a query: everything but letters, digits, `-`, `_` and `.` as `%XX`.
fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let record = serde_json::json!({
            "time_us": 1_700_000_000_000_000_u64, "action": "send", "decision": "AUTHZ_DENIED", "agent": "a",
            "target": "x\n\u{1b}[31m", "message_id": "m", "rule": "", "reason": "no rule", "messages": [],
        });
        assert_eq!(
            text(&record),
            "2023-11-14T22:13:20.000Z  send  AUTHZ_DENIED  a -> x\\n\\u{1b}[31m  m  no rule"
        );
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
