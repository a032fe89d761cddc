//! Which dead letters are meant, and how they are shown.

use clap::Args;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::cli::operator::Trouble;
use crate::cli::text::{parse_time, plain, table, time_text};
use crate::clock::Now;
use crate::operation::WantedLetters;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{Filter, Letter};

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
    pub(super) fn filter(&self) -> Result<Filter, Trouble> {
        Ok(self.wanted().filter()?)
    }

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

pub(super) fn letters_table(letters: &[Letter]) -> String {
    let mut rows = vec![["ID", "DIED", "AGENT", "REASON", "ATTEMPTS", "MESSAGE"].map(str::to_owned).to_vec()];
    rows.extend(letters.iter().map(|letter| {
        let message = letter.message_id().map(|id| id.to_string()).unwrap_or_default();
        vec![
            letter.id.to_string(),
            time_text(letter.time_ms.saturating_mul(1000)),
            plain(&letter.agent),
            plain(&letter.reason),
            letter.attempts.to_string(),
            message,
        ]
    }));
    table(&rows)
}

/// A letter as JSON; the payload where it is shown whole.
pub(super) fn letter_json(letter: &Letter, whole: bool) -> Json {
    let mut json = json!({
        "id": letter.id.to_string(),
        "time_ms": letter.time_ms,
        "agent_id": letter.agent,
        "instance_id": letter.instance,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "history": letter.history,
        "stream": letter.stream,
        "message_id": letter.message_id().map(|id| id.to_string()),
    });
    if let (true, Json::Object(fields)) = (whole, &mut json) {
        let envelope = letter.envelope.as_deref().unwrap_or_default();
        // What is no JSON (a foreign writer's) is shown as text.
        let envelope = serde_json::from_str(envelope).unwrap_or_else(|_| Json::from(envelope));
        let _ = fields.insert("envelope".to_owned(), envelope);
    }
    json
}

pub(super) fn letter_text(letter: &Letter) -> String {
    let mut text = format!("dead letter {}\n", letter.id);
    let message = letter.message_id().map(|id| id.to_string()).unwrap_or_default();
    for (label, value) in [
        ("died", time_text(letter.time_ms.saturating_mul(1000))),
        ("reason", plain(&letter.reason)),
        ("message", message),
        ("agent", plain(&letter.agent)),
        ("instance", plain(&letter.instance)),
        ("stream", plain(&letter.stream)),
        ("attempts", letter.attempts.to_string()),
    ] {
        text.push_str(&format!("  {label:<9} {value}\n"));
    }
    for failure in &letter.history {
        text.push_str(&format!("  failed {:<2} {}\n", failure.attempt, plain(&failure.reason)));
    }
    let envelope = letter.envelope.as_deref().unwrap_or_default();
    let shown = serde_json::from_str::<Json>(envelope).and_then(|json| serde_json::to_string_pretty(&json));
    // JSON escapes some control characters by itself, not all that terminals obey.
    let lines: Vec<String> = shown.unwrap_or_else(|_| plain(envelope)).lines().map(plain).collect();
    text.push_str(&lines.join("\n"));
    text
}
