//! Times as people write them.

use crate::clock::Now;

/// A time in Unix microseconds.
pub fn parse_time(text: &str) -> Option<u64> {
    use time::format_description::well_known::Rfc3339;
    if let Some(ago_ms) = parse_span_ms(text) {
        return Some(Now::read().unix_us.saturating_sub(ago_ms.saturating_mul(1000)));
    }
    let date = time::macros::format_description!("[year]-[month]-[day]");
    let nanos = if let Ok(time) = time::OffsetDateTime::parse(text, &Rfc3339) {
        time.unix_timestamp_nanos()
    } else if let Ok(day) = time::Date::parse(text, &date) {
        day.midnight().assume_utc().unix_timestamp_nanos()
    } else {
        let seconds: f64 = text.parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0)?;
        return Some((seconds * 1e6) as u64);
    };
    u64::try_from(nanos / 1000).ok()
}

/// How long ago, as `90s`, `15m`, `2h` or `3d`: milliseconds.
pub fn parse_span_ms(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let unit_ms = match unit {
        's' => 1000,
        'm' => 60 * 1000,
        'h' => 3600 * 1000,
        'd' => 24 * 3600 * 1000,
        _ => return None,
    };
    number.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_written_in_three_ways() {
        let noon = 1_700_049_600_000_000;
        for text in ["2023-11-15T12:00:00Z", "2023-11-15T13:00:00+01:00", "1700049600", "1700049600.0"] {
            assert_eq!(parse_time(text), Some(noon), "{text}");
        }
        assert_eq!(parse_time("2023-11-15"), Some(noon - 43_200_000_000));
        assert!(parse_time("2h").is_some_and(|time| time > noon));
        for bad in ["", "now", "-1", "NaN", "2023-13-01", "inf"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
