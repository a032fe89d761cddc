//! `mas status`: how a running server is.

use std::io::Write;

use clap::Args;
use serde_json::Value as Json;

use super::admin::{self, AdminArgs, Trouble};
use super::exit::Exit;
use super::text::{plain, table, time_text};

/// Inboxes that are listed for people, the fullest first.
const INBOXES: usize = 10;

const EXAMPLES: &str = "\
Exit codes: 0 ready, 1 not ready or no answer, 2 wrong arguments.

Examples:
  mas status
  mas status --admin mas.example.org:9464 --cert ops.pem --key ops.key --ca ca.pem
  mas status --json | jq .inboxes";

/// Arguments of `mas status`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit code 1 where the server is not ready, or does not answer.
pub fn run(args: &StatusArgs) -> Exit {
    admin::exit("status", show(args))
}

fn show(args: &StatusArgs) -> Result<Exit, Trouble> {
    let status = args.admin.json("/api/v1/status")?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{status}")?;
    } else {
        write!(out, "{}", text(&status))?;
    }
    let is_ready = status.get("ready").and_then(Json::as_bool) == Some(true);
    Ok(if is_ready { Exit::Done } else { Exit::Failed })
}

fn text(status: &Json) -> String {
    let of = |name: &str| status.get(name).unwrap_or(&Json::Null);
    let word = |json: &Json| plain(json.as_str().unwrap_or("?"));
    let number = |json: &Json| json.as_u64().unwrap_or(0);
    let time = |json: &Json| {
        json.as_u64().map_or_else(|| "never".to_owned(), |ms| time_text(ms.saturating_mul(1000)))
    };
    let mut lines = Vec::new();
    let state = if of("ready").as_bool() == Some(true) { "ready" } else { "NOT READY" };
    lines.push(format!("{state}: server {}, version {}", word(of("server")), word(of("version"))));
    for check in of("checks").as_array().into_iter().flatten() {
        if let Some(problem) = check.get("problem").and_then(Json::as_str) {
            lines.push(format!("  {}: {}", word(check.get("name").unwrap_or(&Json::Null)), plain(problem)));
        }
    }
    for trouble in of("troubles").as_array().into_iter().flatten() {
        let part = |name: &str| trouble.get(name).unwrap_or(&Json::Null);
        let since = time(part("since_unix_ms"));
        lines.push(format!("  {} since {since}: {}", word(part("code")), word(part("why"))));
    }
    lines.push(format!(
        "configuration {}, loaded {}",
        word(of("policy_version")).chars().take(12).collect::<String>(),
        time(of("loaded_unix_ms"))
    ));
    lines.push(format!("newest checkpoint {}", time(of("checkpoint_unix_ms"))));
    for entry in of("quarantine").as_array().into_iter().flatten() {
        let part = |name: &str| entry.get(name).unwrap_or(&Json::Null);
        let since = time(part("since_unix_ms"));
        lines.push(format!("IN QUARANTINE: {} since {since}, by {}", word(part("whom")), word(part("by"))));
    }
    let redis = of("redis");
    let redis_of = |name: &str| redis.get(name).map_or(0, number);
    if redis.get("up").and_then(Json::as_bool) == Some(true) {
        let bound = match redis_of("max_bytes") {
            0 => String::new(),
            max => format!(" of {}", size(max)),
        };
        lines.push(format!(
            "Redis: {}{bound} used, {} servers, {} dead letters, {} foreign entries",
            size(redis_of("used_bytes")),
            redis_of("servers"),
            redis_of("dead_letters"),
            redis_of("foreign_entries")
        ));
    }
    let sessions = of("sessions").as_object();
    let count: u64 = sessions.into_iter().flat_map(|sessions| sessions.values()).map(number).sum();
    lines.push(format!(
        "{count} sessions of {} agents here, {} connections",
        sessions.map_or(0, serde_json::Map::len),
        number(of("connections"))
    ));
    let open: Vec<String> = of("circuits_open").as_array().into_iter().flatten().map(word).collect();
    if !open.is_empty() {
        lines.push(format!("circuits open: {}", open.join(", ")));
    }
    lines.push(String::new());
    let mut text = lines.join("\n");
    text.push_str(&inboxes(of("inboxes")));
    text
}

/// The fullest ones, where any has messages.
fn inboxes(json: &Json) -> String {
    let mut inboxes: Vec<&Json> = json.as_array().into_iter().flatten().collect();
    let of = |inbox: &Json, name: &str| inbox.get(name).and_then(Json::as_u64).unwrap_or(0);
    inboxes.sort_by_key(|inbox| std::cmp::Reverse(of(inbox, "waiting") + of(inbox, "delivered")));
    if inboxes.is_empty() {
        return String::new();
    }
    let mut rows = vec![["INBOX", "WAITING", "DELIVERED", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(inboxes.iter().take(INBOXES).map(|inbox| {
        let name = inbox.get("agent").and_then(Json::as_str).unwrap_or_default();
        vec![
            plain(name),
            of(inbox, "waiting").to_string(),
            of(inbox, "delivered").to_string(),
            size(of(inbox, "bytes")),
        ]
    }));
    let more = match inboxes.len().saturating_sub(INBOXES) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    format!("{}{more}", table(&rows))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1_600_000, 12_638_257_150].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "11.8 GiB"]
        );
    }

    #[test]
    fn what_is_missing_or_strange_is_shown_without_harm() {
        let strange =
            serde_json::json!({"ready": false, "server": "\u{1b}[2J", "inboxes": [{"agent": "a\nb"}, 7]});
        let text = text(&strange);
        assert!(text.starts_with("NOT READY: server \\u{1b}[2J"), "{text}");
        assert!(text.contains("a\\nb"), "{text}");
    }
}
