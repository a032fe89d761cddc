//! Which records a reader wants.

use clap::Args;
use uuid::Uuid;

use super::source::Range;
use super::trouble::Trouble;
use crate::audit::{Action, Decision, View};
use crate::policy::replay::Found;

/// From when to when.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TimeArgs {
    /// Records of this time or later: 2026-01-31T12:00:00Z, a date, Unix seconds, or how long ago: 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Records before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
}

impl TimeArgs {
    /// The range; `whole`: what came before it is needed, too.
    pub(crate) fn range(&self, whole: bool) -> Result<Range<'static>, Trouble> {
        let read = |flag: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => parse_time(text).map(Some).ok_or_else(|| {
                Trouble::Usage(format!(
                    "{flag} {text:?}: expected 2026-01-31T12:00:00Z, 2026-01-31 or Unix seconds"
                ))
            }),
        };
        let (from_us, to_us) = (read("--from", &self.from)?, read("--to", &self.to)?);
        if let (Some(from_us), Some(to_us)) = (from_us, to_us)
            && from_us >= to_us
        {
            return Err(Trouble::Usage("--from is not before --to".to_owned()));
        }
        Ok(Range { from_us, to_us, messages: &[], whole })
    }
}

/// A time in Unix microseconds.
pub(crate) fn parse_time(text: &str) -> Option<u64> {
    use time::format_description::well_known::Rfc3339;
    if let Some(ago_ms) = crate::cli::text::parse_span_ms(text) {
        return Some(crate::clock::Now::read().unix_us.saturating_sub(ago_ms.saturating_mul(1000)));
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

/// What a record must be to be shown; all of it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Asked for by this agent.
    #[arg(long, value_name = "AGENT")]
    sender: Option<String>,
    /// For this agent, as the sender wrote it.
    #[arg(long, value_name = "AGENT")]
    target: Option<String>,
    /// Decided so: ALLOWED, AUTHZ_DENIED, …
    #[arg(long, value_name = "DECISION")]
    decision: Vec<String>,
    /// About this: send, request, delivered, session_open, …
    #[arg(long, value_name = "ACTION")]
    action: Vec<String>,
    /// About this message.
    #[arg(long, value_name = "ID")]
    message_id: Option<Uuid>,
    /// With a finding of this type: ssn, credit_card, …
    #[arg(long, value_name = "TYPE")]
    violation: Option<String>,
}

/// The arguments, read once.
#[derive(Debug)]
pub(crate) struct Filter {
    sender: Option<String>,
    target: Option<String>,
    decisions: Vec<Decision>,
    actions: Vec<Action>,
    message_id: Option<Uuid>,
    violation: Option<String>,
}

impl FilterArgs {
    pub(crate) fn resolve(self) -> Result<Filter, Trouble> {
        let named = |kind: &str, name: &str, known: Vec<&str>| {
            Trouble::Usage(format!("--{kind} {name:?}: expected one of {}", known.join(", ")))
        };
        let decision = |name: &String| {
            let found = Decision::ALL.iter().find(|decision| decision.as_str().eq_ignore_ascii_case(name));
            found.copied().ok_or_else(|| {
                named("decision", name, Decision::ALL.iter().map(|decision| decision.as_str()).collect())
            })
        };
        let action = |name: &String| {
            let found = Action::ALL.iter().find(|action| action.as_str().eq_ignore_ascii_case(name));
            found.copied().ok_or_else(|| {
                named("action", name, Action::ALL.iter().map(|action| action.as_str()).collect())
            })
        };
        Ok(Filter {
            decisions: self.decision.iter().map(decision).collect::<Result<_, _>>()?,
            actions: self.action.iter().map(action).collect::<Result<_, _>>()?,
            sender: self.sender,
            target: self.target,
            message_id: self.message_id,
            violation: self.violation,
        })
    }
}

impl Filter {
    pub(crate) fn holds(&self, record: &View<'_>) -> bool {
        let about =
            |id: &Uuid| record.message_id == Some(*id) || record.messages.iter().any(|(m, _)| m == *id);
        self.sender.as_ref().is_none_or(|sender| sender == record.agent)
            && self.target.as_ref().is_none_or(|target| target == record.target)
            && (self.decisions.is_empty() || self.decisions.contains(&record.decision))
            && (self.actions.is_empty() || self.actions.contains(&record.action))
            && self.message_id.as_ref().is_none_or(about)
            && self.violation.as_ref().is_none_or(|kind| {
                // Without the name in it, it need not be parsed.
                record.findings.contains(kind.as_str())
                    && findings(record).iter().any(|finding| finding.kind == *kind)
            })
    }
}

/// The findings of a record.
pub(crate) fn findings(record: &View<'_>) -> Vec<Found> {
    if record.findings.is_empty() {
        return Vec::new();
    }
    serde_json::from_str(record.findings).unwrap_or_default()
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
