//! Which dead letters are meant, and how they are shown.

use clap::Args;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::cli::text::{parse_time, plain, table, time_text};
use crate::clock::Now;
use crate::operation::WantedLetters;
use crate::store::answers::EntryId;

/// Filters; all of them must fit.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Letters of this agent's inbox.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Letters that died of this.
    #[arg(long = "died-of", value_name = "REASON")]
    died_of: Option<String>,
    /// The letter of this message.
    #[arg(long, value_name = "ID")]
    message: Option<Uuid>,
    /// Died then or later: 2026-01-31T12:00:00Z, 2026-01-31, or how long ago: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    from: Option<u64>,
    /// Died then or earlier.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    to: Option<u64>,
}

pub(super) fn parse_entry(text: &str) -> Result<EntryId, String> {
    EntryId::parse(text).ok_or_else(|| format!("{text:?} is no id of a dead letter"))
}

fn parse_when(text: &str) -> Result<u64, String> {
    parse_time(text, Now::read().unix_us)
}

impl Which {
    pub(super) fn wanted(&self) -> WantedLetters {
        WantedLetters {
            ids: Vec::new(),
            all: false,
            agent: self.agent.clone(),
            died_of: self.died_of.clone(),
            message: self.message.map(|id| id.to_string()),
            from_ms: self.from,
            to_ms: self.to,
            limit: 0,
        }
    }
}

fn word(letter: &Json, name: &str) -> String {
    plain(letter.get(name).and_then(Json::as_str).unwrap_or_default())
}

fn number(letter: &Json, name: &str) -> u64 {
    letter.get(name).and_then(Json::as_u64).unwrap_or(0)
}

/// A table of letters, as a command has told of them.
pub(super) fn letters_table(letters: &[Json]) -> String {
    let mut rows = vec![["ID", "DIED", "AGENT", "REASON", "ATTEMPTS", "MESSAGE"].map(str::to_owned).to_vec()];
    rows.extend(letters.iter().map(|letter| {
        vec![
            word(letter, "id"),
            time_text(number(letter, "time_ms").saturating_mul(1000)),
            word(letter, "agent_id"),
            word(letter, "reason"),
            number(letter, "attempts").to_string(),
            word(letter, "message_id"),
        ]
    }));
    table(&rows)
}

/// A letter with what it says.
pub(super) fn letter_text(letter: &Json) -> String {
    let mut text = format!("dead letter {}\n", word(letter, "id"));
    for (label, value) in [
        ("died", time_text(number(letter, "time_ms").saturating_mul(1000))),
        ("reason", word(letter, "reason")),
        ("message", word(letter, "message_id")),
        ("agent", word(letter, "agent_id")),
        ("instance", word(letter, "instance_id")),
        ("stream", word(letter, "stream")),
        ("attempts", number(letter, "attempts").to_string()),
    ] {
        text.push_str(&format!("  {label:<9} {value}\n"));
    }
    for failure in letter.get("history").and_then(Json::as_array).into_iter().flatten() {
        text.push_str(&format!("  failed {:<2} {}\n", number(failure, "attempt"), word(failure, "reason")));
    }
    if letter.get("masked").and_then(Json::as_bool) == Some(true) {
        text.push_str("  masked by the rules in force: --unmasked shows it as it is\n");
    }
    if let Some(problem) = letter.get("payload_problem").and_then(Json::as_str) {
        text.push_str(&format!("  not shown: {}\n", plain(problem)));
    }
    let envelope = letter.get("envelope").unwrap_or(&Json::Null);
    let shown = match envelope {
        Json::String(text) => text.clone(),
        json => format!("{json:#}"),
    };
    // JSON escapes some control characters by itself, not all that terminals obey.
    let lines: Vec<String> = shown.lines().map(plain).collect();
    text.push_str(&lines.join("\n"));
    text
}
