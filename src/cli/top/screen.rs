//! A view as lines of a screen.

use std::cmp::Ordering;

use serde_json::Value as Json;

use super::reading::{Row, View};
use crate::cli::text::{plain, time_text};

/// Width of a worker's bar.
const BAR: usize = 20;
/// A worker that showed no sign of life for so long is marked, in seconds: it is woken once a second.
const SILENT_S: f64 = 3.0;

/// By what agents are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Sort {
    /// What they sent.
    #[default]
    Sent,
    /// What they were refused.
    Refused,
    /// What they were given.
    Delivered,
    /// What failed.
    Failed,
    /// What waits for them.
    Waiting,
    /// Their sessions.
    Connected,
    /// Their names.
    Name,
}

impl Sort {
    /// The key that chooses it.
    pub(super) fn of_key(key: char) -> Option<Self> {
        Some(match key {
            's' => Self::Sent,
            'r' => Self::Refused,
            'd' => Self::Delivered,
            'f' => Self::Failed,
            'w' => Self::Waiting,
            'c' => Self::Connected,
            'n' => Self::Name,
            _ => return None,
        })
    }

    pub(super) fn sort(self, rows: &mut [Row]) {
        let by = |of: fn(&Row) -> f64, a: &Row, b: &Row| of(b).total_cmp(&of(a));
        rows.sort_by(|a, b| {
            let order = match self {
                Self::Sent => by(|row| row.sent, a, b),
                Self::Refused => by(|row| row.refused, a, b),
                Self::Delivered => by(|row| row.delivered, a, b),
                Self::Failed => by(|row| row.failed, a, b),
                Self::Waiting => (b.waiting + b.unacked).cmp(&(a.waiting + a.unacked)),
                Self::Connected => b.sessions.cmp(&a.sessions),
                Self::Name => Ordering::Equal,
            };
            order.then_with(|| a.agent.cmp(&b.agent))
        });
    }
}

/// How a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Heading,
    Alarm,
}

/// A line and its style.
pub(super) type Line = (Style, String);

/// What stands above the agents.
pub(super) fn head(view: &View, status: &Json) -> Vec<Line> {
    let of = |name: &str| status.get(name).unwrap_or(&Json::Null);
    let word = |json: &Json| plain(json.as_str().unwrap_or("?"));
    let number = |json: &Json, name: &str| json.get(name).and_then(Json::as_u64).unwrap_or(0);
    let is_ready = of("ready").as_bool() == Some(true);
    let mut lines = Vec::new();
    let mut say = |style, text: String| lines.push((style, text));
    say(
        if is_ready { Style::Heading } else { Style::Alarm },
        format!(
            "{}  server {}  version {}  {}",
            if is_ready { "READY" } else { "NOT READY" },
            word(of("server")),
            word(of("version")),
            time_text(number(status, "time_unix_ms").saturating_mul(1000))
        ),
    );
    for check in of("checks").as_array().into_iter().flatten() {
        if let Some(problem) = check.get("problem").and_then(Json::as_str) {
            let name = check.get("name").map(word).unwrap_or_default();
            say(Style::Alarm, format!("  {name}: {}", plain(problem)));
        }
    }
    for trouble in of("troubles").as_array().into_iter().flatten() {
        let part = |name: &str| trouble.get(name).map(word).unwrap_or_default();
        say(Style::Alarm, format!("  {}: {}", part("code"), part("why")));
    }
    for entry in of("quarantine").as_array().into_iter().flatten() {
        let part = |name: &str| entry.get(name).map(word).unwrap_or_default();
        say(Style::Alarm, format!("  in quarantine: {}, by {}", part("whom"), part("by")));
    }
    say(
        Style::Plain,
        format!(
            "messages {}/s  refused {}/s  delivered {}/s  acknowledged {}/s  failed {}/s",
            rate(view.decided),
            rate(view.refused),
            rate(view.delivered),
            rate(view.acked),
            rate(view.failed)
        ),
    );
    let sessions: u64 =
        of("sessions").as_object().into_iter().flat_map(|all| all.values()).filter_map(Json::as_u64).sum();
    say(
        Style::Plain,
        format!(
            "queue delay {}  commit {}  {} jobs a commit  {sessions} sessions  {} connections  CPU {:.2} cores",
            span(view.queue_delay_s),
            span(view.commit_s),
            view.batch.map_or_else(|| "-".to_owned(), |batch| format!("{batch:.1}")),
            number(status, "connections"),
            view.cpu
        ),
    );
    let redis = of("redis");
    if redis.get("up").and_then(Json::as_bool) == Some(true) {
        let letters = number(redis, "dead_letters");
        say(
            Style::Plain,
            format!(
                "Redis {} of {}  {} servers  {letters} dead letters  {} foreign entries  newest checkpoint {}",
                number(redis, "used_bytes"),
                match number(redis, "max_bytes") {
                    0 => "any".to_owned(),
                    max => max.to_string(),
                },
                number(redis, "servers"),
                number(redis, "foreign_entries"),
                match of("checkpoint_unix_ms").as_u64() {
                    Some(made_ms) => {
                        let age_ms = number(status, "time_unix_ms").saturating_sub(made_ms);
                        format!("{} s ago", age_ms / 1000)
                    }
                    None => "never".to_owned(),
                }
            ),
        );
    }
    for worker in &view.workers {
        let filled = ((worker.busy.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
        let silent = worker.beat_age_s > SILENT_S;
        let note = if silent { format!("  silent for {:.0} s", worker.beat_age_s) } else { String::new() };
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled));
        say(
            if silent { Style::Alarm } else { Style::Plain },
            format!("worker {:<3} [{bar}] {:3.0} %{note}", plain(&worker.index), worker.busy * 100.0),
        );
    }
    lines
}

/// The agents, with a heading.
pub(super) fn agents(rows: &[Row]) -> Vec<Line> {
    let mut lines = vec![(
        Style::Heading,
        format!(
            "{:<24} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  CIRCUIT",
            "AGENT",
            "SESSIONS",
            "SENT/s",
            "REFUSED/s",
            "DELIV/s",
            "ACKED/s",
            "FAILED/s",
            "WAITING",
            "UNACKED"
        ),
    )];
    lines.extend(rows.iter().map(|row| {
        let style =
            if row.is_open || row.refused > 0.0 || row.failed > 0.0 { Style::Alarm } else { Style::Plain };
        let text = format!(
            "{:<24} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  {}",
            plain(&row.agent),
            row.sessions,
            rate(row.sent),
            rate(row.refused),
            rate(row.delivered),
            rate(row.acked),
            rate(row.failed),
            row.waiting,
            row.unacked,
            if row.is_open { "open" } else { "" }
        );
        (style, text.trim_end().to_owned())
    }));
    lines
}

/// A line as it is written: no wider than the screen, and coloured where that is wanted.
pub(super) fn drawn((style, text): &Line, width: usize, colours: bool) -> String {
    let text: String = text.chars().take(width).collect();
    match (style, colours) {
        (Style::Plain, _) | (_, false) => text,
        (Style::Heading, true) => format!("\x1b[1m{text}\x1b[0m"),
        (Style::Alarm, true) => format!("\x1b[31m{text}\x1b[0m"),
    }
}

fn rate(value: f64) -> String {
    if value >= 100.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn span(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds >= 1.0 => format!("{seconds:.2} s"),
        Some(seconds) => format!("{:.2} ms", seconds * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(agent: &str, sent: f64, waiting: u64) -> Row {
        Row { agent: agent.to_owned(), sent, waiting, ..Row::default() }
    }

    #[test]
    fn agents_are_sorted_by_what_was_asked_for() {
        let mut rows = [row("b", 1.0, 5), row("a", 1.0, 7), row("c", 9.0, 0)];
        let names = |rows: &[Row]| rows.iter().map(|row| row.agent.clone()).collect::<String>();
        for (key, expected) in [('s', "cab"), ('w', "abc"), ('n', "abc"), ('c', "abc")] {
            Sort::of_key(key).unwrap().sort(&mut rows);
            assert_eq!(names(&rows), expected, "{key}");
        }
        assert_eq!(Sort::of_key('x'), None);
    }

    #[test]
    fn nothing_strange_reaches_the_screen_and_nothing_is_too_wide() {
        let status = serde_json::json!({"ready": false, "server": "\u{1b}[2J", "checks": [{"name": "a", "problem": "b\nc"}],
            "quarantine": [{"whom": "agent:a", "by": "olga: x"}]});
        let lines = head(&View::default(), &status);
        assert!(lines[0].1.starts_with("NOT READY  server \\u{1b}[2J"), "{lines:?}");
        assert_eq!(lines[1], (Style::Alarm, "  a: b\\nc".to_owned()));
        assert_eq!(lines[2], (Style::Alarm, "  in quarantine: agent:a, by olga: x".to_owned()));
        assert_eq!(drawn(&(Style::Alarm, "grünes".to_owned()), 3, true), "\u{1b}[31mgrü\u{1b}[0m");
        assert_eq!(agents(&[row("a\u{1b}", 0.05, 1)])[1].1.split_whitespace().next(), Some("a\\u{1b}"));
        assert_eq!([0.0, 0.26, 99.96, 1234.4].map(rate), ["0", "0.3", "100.0", "1234"]);
        assert_eq!([None, Some(0.0123), Some(1.5)].map(span), ["-", "12.30 ms", "1.50 s"]);
    }
}
