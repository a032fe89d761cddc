//! What a check has found, and its four forms.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value as Json, json};

use crate::cli::text::plain;

/// How it is: the codes of monitoring plugins, which are the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// What counts of two: what is known to be wrong more than what is not known, and that more than what is well.
    pub(super) fn worse(self, other: Self) -> Self {
        let weight = |status| match status {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

/// Form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// One line with performance data, as Nagios, Icinga, Naemon and Sensu read it; details below it.
    Nagios,
    /// Samples, for the textfile collector of Prometheus' node exporter.
    Prometheus,
}

/// What a number is of, and how plugins write that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A count.
    None,
    Seconds,
    Percent,
    /// Plugins have no sign for it.
    Days,
}

impl Unit {
    fn sign(self) -> &'static str {
        match self {
            Self::None | Self::Days => "",
            Self::Seconds => "s",
            Self::Percent => "%",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Percent => "percent",
            Self::Days => "days",
        }
    }
}

/// From where on a number is a warning, and from where on critical; as it grows, or as it falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) warn: f64,
    pub(super) critical: f64,
    /// The less, the worse.
    pub(super) falling: bool,
}

impl Bounds {
    pub(super) fn judge(&self, value: f64) -> Status {
        let reached = |bound: f64| if self.falling { value <= bound } else { value >= bound };
        match () {
            () if reached(self.critical) => Status::Critical,
            () if reached(self.warn) => Status::Warning,
            () => Status::Ok,
        }
    }

    /// As plugins write ranges: `10:` is bad below 10.
    fn range(self, bound: f64) -> String {
        if self.falling { format!("{}:", number(bound)) } else { number(bound) }
    }
}

/// A number that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Value {
    name: String,
    value: f64,
    unit: Unit,
    bounds: Option<Bounds>,
}

/// What a check has found.
#[derive(Debug)]
pub(super) struct Outcome {
    check: &'static str,
    status: Status,
    /// In one line.
    summary: String,
    /// What else there is to say, a line each.
    details: Vec<String>,
    values: Vec<Value>,
}

/// An outcome, or why nothing could be looked at.
pub(super) fn settled(check: &'static str, found: Result<Outcome, String>) -> Outcome {
    found.unwrap_or_else(|why| Outcome::unknown(check, &why))
}

/// Most numbers and lines that are said.
const MAX_LINES: usize = 50;

impl Outcome {
    /// All is well, so far.
    pub(super) fn new(check: &'static str) -> Self {
        Self { check, status: Status::Ok, summary: String::new(), details: Vec::new(), values: Vec::new() }
    }

    /// Nothing could be looked at.
    pub(super) fn unknown(check: &'static str, why: &str) -> Self {
        Self { status: Status::Unknown, summary: plain(why), ..Self::new(check) }
    }

    /// Something else was found, and is as bad as that. The first of the worst is the summary; others are details.
    pub(super) fn found(&mut self, status: Status, what: &str) {
        let what = plain(what);
        let is_worse = self.status.worse(status) != self.status;
        if self.summary.is_empty() {
            self.summary = what;
        } else if is_worse {
            let before = std::mem::replace(&mut self.summary, what);
            self.details.insert(0, before);
        } else {
            self.details.push(what);
        }
        self.status = self.status.worse(status);
    }

    /// A number, judged by its bounds.
    pub(super) fn value(&mut self, name: &str, value: f64, unit: Unit, bounds: Option<Bounds>) -> Status {
        self.values.push(Value { name: name.to_owned(), value, unit, bounds });
        bounds.map_or(Status::Ok, |bounds| bounds.judge(value))
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    pub(super) fn write(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => format!("{}\n", self.json()),
            Format::Nagios => self.nagios(),
            Format::Prometheus => self.prometheus(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}: {}\n", self.check, self.status.as_str(), self.summary);
        for detail in self.details.iter().take(MAX_LINES) {
            text.push_str(&format!("  {detail}\n"));
        }
        let more = self.details.len().saturating_sub(MAX_LINES);
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
        text
    }

    fn json(&self) -> Json {
        let values = self.values.iter().map(|value| {
            json!({
                "name": value.name, "value": value.value, "unit": value.unit.word(),
                "warn": value.bounds.map(|bounds| bounds.warn),
                "critical": value.bounds.map(|bounds| bounds.critical),
            })
        });
        json!({
            "check": self.check, "status": self.status.as_str(), "exit_code": self.status.code(),
            "summary": self.summary, "details": self.details, "values": values.collect::<Vec<_>>(),
        })
    }

    /// `MAS DLQ WARNING - 3 dead letters | 'dead_letters'=3;1;1000;0;`, details below.
    fn nagios(&self) -> String {
        // What stands behind the first bar is performance data.
        let without_bar = |text: &str| text.replace('|', "/");
        let head = format!(
            "MAS {} {} - {}",
            self.check.to_uppercase(),
            self.status.as_str(),
            without_bar(&self.summary)
        );
        let data: Vec<String> = self.values.iter().take(MAX_LINES).map(performance).collect();
        let mut text = match data.is_empty() {
            true => format!("{head}\n"),
            false => format!("{head} | {}\n", data.join(" ")),
        };
        for detail in self.details.iter().take(MAX_LINES) {
            text.push_str(&format!("{}\n", without_bar(detail)));
        }
        text
    }

    fn prometheus(&self) -> String {
        let mut text = String::from(
            "# HELP mas_check_status What mas check found: 0 ok, 1 warning, 2 critical, 3 unknown.\n\
             # TYPE mas_check_status gauge\n",
        );
        text.push_str(&format!("mas_check_status{{check=\"{}\"}} {}\n", self.check, self.status.code()));
        if !self.values.is_empty() {
            text.push_str(
                "# HELP mas_check_value The numbers that mas check looked at.\n# TYPE mas_check_value gauge\n",
            );
        }
        for value in self.values.iter().take(MAX_LINES) {
            let name = plain(&value.name).replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!(
                "mas_check_value{{check=\"{}\",name=\"{name}\",unit=\"{}\"}} {}\n",
                self.check,
                value.unit.word(),
                number(value.value)
            ));
        }
        text
    }
}

fn performance(value: &Value) -> String {
    let name = plain(&value.name).replace(['\'', '=', '|'], "_");
    let (warn, critical) = match value.bounds {
        Some(bounds) => (bounds.range(bounds.warn), bounds.range(bounds.critical)),
        None => (String::new(), String::new()),
    };
    // Days left may be less than none.
    let least = if value.value < 0.0 || value.unit == Unit::Days { "" } else { "0" };
    let most = if value.unit == Unit::Percent { "100" } else { "" };
    format!("'{name}'={}{};{warn};{critical};{least};{most}", number(value.value), value.unit.sign())
}

/// Without an exponent, and without digits that mean nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISING: Bounds = Bounds { warn: 1.0, critical: 10.0, falling: false };
    const FALLING: Bounds = Bounds { warn: 30.0, critical: 7.0, falling: true };

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new("dlq");
        let status = outcome.value("dead letters", 3.0, Unit::None, Some(RISING));
        outcome.found(status, "3 dead | letters");
        let status = outcome.value("a\"=b", 6.5, Unit::Days, Some(FALLING));
        outcome.found(status, "ends\nsoon");
        outcome
    }

    #[test]
    fn bounds_are_reached_from_either_side() {
        assert_eq!([0.0, 1.0, 9.9, 10.0].map(|v| RISING.judge(v).code()), [0, 1, 1, 2]);
        assert_eq!([31.0, 30.0, 7.1, 7.0, -1.0].map(|v| FALLING.judge(v).code()), [0, 1, 1, 2, 2]);
        assert_eq!(Status::Ok.worse(Status::Unknown), Status::Unknown);
        assert_eq!(Status::Critical.worse(Status::Unknown), Status::Critical);
        assert_eq!(Status::Warning.worse(Status::Ok), Status::Warning);
    }

    #[test]
    fn the_worst_is_the_summary() {
        let outcome = outcome();
        assert_eq!(outcome.status(), Status::Critical);
        assert_eq!(outcome.text(), "dlq CRITICAL: ends\\nsoon\n  3 dead | letters\n");
    }

    #[test]
    fn a_plugin_line_has_one_bar_and_ranges() {
        let text = outcome().nagios();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "MAS DLQ CRITICAL - ends\\nsoon | 'dead letters'=3;1;10;0; 'a\"_b'=6.5;30:;7:;;",
                "3 dead / letters"
            ]
        );
    }

    #[test]
    fn samples_have_escaped_labels() {
        let text = outcome().prometheus();
        assert!(text.contains("mas_check_status{check=\"dlq\"} 2\n"), "{text}");
        assert!(text.contains("{check=\"dlq\",name=\"a\\\"=b\",unit=\"days\"} 6.5\n"), "{text}");
    }

    #[test]
    fn numbers_have_no_exponent() {
        assert_eq!([0.0, 1e15, 0.1 + 0.2, 90.0].map(number), ["0", "1000000000000000", "0.3", "90"]);
    }
}
