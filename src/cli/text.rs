//! How commands show and read what is not theirs: times, and text of strangers.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

pub use crate::history::when::parse_span_ms;

/// A time in Unix microseconds, as RFC 3339 in UTC with milliseconds.
pub fn time_text(unix_us: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_else(|| unix_us.to_string())
}

/// Reads a time: RFC 3339, a date (its first moment, in UTC), or how long ago (`90s`, `15m`, `2h`, `3d`).
/// Unix milliseconds.
pub fn parse_time(text: &str, now_unix_us: u64) -> Result<u64, String> {
    if let Some(ago_ms) = parse_span_ms(text) {
        return Ok((now_unix_us / 1000).saturating_sub(ago_ms));
    }
    let date = format_description!("[year]-[month]-[day]");
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| time::Date::parse(text, &date).map(|date| date.midnight().assume_utc()));
    time.ok().and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()).ok_or_else(|| {
        format!("{text:?} is no time: expected 2026-01-31T12:00:00Z, 2026-01-31, or how long ago: 90s, 15m, 2h, 3d")
    })
}

/// Text of a stranger, fit for a terminal: no control or escape sequence passes.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Rows with their columns aligned, the first row a heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(plain("grün"), "grün");
    }

    #[test]
    fn times_are_read_in_three_forms() {
        let now_us = 1_700_000_000_000_000;
        assert_eq!(parse_time("2h", now_us), Ok(1_700_000_000_000 - 7_200_000));
        assert_eq!(parse_time("2023-11-14T22:13:20Z", now_us), Ok(1_700_000_000_000));
        assert_eq!(parse_time("1970-01-02", now_us), Ok(86_400_000));
        for bad in ["", "h", "-1h", "2w", "yesterday", "1969-12-31", "99999999999999999999d"] {
            assert!(parse_time(bad, now_us).is_err(), "{bad:?}");
        }
        assert_eq!(time_text(now_us), "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
