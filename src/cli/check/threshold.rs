//! Thresholds as they are given: numbers, or times.

use super::outcome::Unit;
use crate::cli::text::parse_span_ms;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Threshold {
    Number(f64),
    /// Seconds.
    Time(f64),
}

impl Threshold {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(span_ms) = parse_span_ms(text) {
            return Ok(Self::Time(span_ms as f64 / 1000.0));
        }
        match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(Self::Number(number)),
            _ => Err("expected a number, or a time: 90s, 15m, 2h, 3d".to_owned()),
        }
    }

    /// It as a number of that unit.
    pub(super) fn of(self, unit: Unit) -> Result<f64, String> {
        match (self, unit) {
            (Self::Number(number), _) => Ok(number),
            (Self::Time(seconds), Unit::Seconds) => Ok(seconds),
            (Self::Time(seconds), Unit::Days) => Ok(seconds / SECONDS_PER_DAY),
            (Self::Time(_), Unit::None | Unit::Percent) => {
                Err("--warn and --critical are no times here: expected a number".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_numbers_or_times() {
        assert_eq!(Threshold::parse("1.5"), Ok(Threshold::Number(1.5)));
        assert_eq!(Threshold::parse("80%"), Ok(Threshold::Number(80.0)));
        assert_eq!(Threshold::parse("2h"), Ok(Threshold::Time(7200.0)));
        assert_eq!(Threshold::parse("2d").and_then(|t| t.of(Unit::Days)), Ok(2.0));
        assert!(Threshold::parse("2d").and_then(|t| t.of(Unit::None)).is_err());
        for bad in ["", "-1", "NaN", "inf", "2w", "x"] {
            assert!(Threshold::parse(bad).is_err(), "{bad:?}");
        }
    }
}
