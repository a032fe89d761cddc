//! Which records a reader wants.

use clap::Args;
use uuid::Uuid;

use super::trouble::Trouble;
use crate::audit::{Action, Decision};
use crate::history::filter::Filter;
use crate::history::source::Range;
use crate::history::when::parse_time;

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
