//! A record as a line for a terminal. Records hold strangers' text: nothing of it breaks a line.

use crate::audit::View;
use crate::audit::verify::Plain;
use crate::cli::text::time_text;

/// A record as one line for people.
pub(crate) fn record_line(record: &View<'_>) -> String {
    let mut line = format!(
        "{}  {:<15} {:<13} {}",
        time_text(record.time_us),
        record.decision.as_str(),
        record.action.as_str(),
        Plain(record.agent)
    );
    if !record.instance.is_empty() {
        line.push_str(&format!("/{}", Plain(record.instance)));
    }
    if !record.target.is_empty() {
        line.push_str(&format!(" → {}", Plain(record.target)));
    }
    for (label, value) in [
        ("type", record.message_type),
        ("rule", record.rule),
        ("reason", record.reason),
        ("findings", record.findings),
        ("trace", record.trace),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {label}={}", Plain(value)));
        }
    }
    if let Some(id) = record.message_id {
        line.push_str(&format!("  id={id}"));
    }
    if record.attempt > 0 {
        line.push_str(&format!("  attempt={}", record.attempt));
    }
    let mut messages = record.messages.iter();
    if let Some((id, attempt)) = messages.next() {
        line.push_str(&format!("  {id} (delivery {attempt})"));
        let further = messages.count();
        if further > 0 {
            line.push_str(&format!(" and {further} more"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(Plain("a\u{1b}[31m\nb").to_string(), "a\\u{1b}[31m\\nb");
        assert_eq!(Plain("grün").to_string(), "grün");
        assert_eq!(Plain("a\u{202e}b\u{2028}").to_string(), "a\\u{202e}b\\u{2028}");
    }
}
