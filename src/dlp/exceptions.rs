//! Exceptions: what a finding leads to instead, of one sender, for one target, in one type of message, at one place.
//!
//! Of several that fit a finding the narrowest counts. None is wider than it is written: a pattern stands for the characters where
//! its `*` is, and an exception of one rule or kind says nothing about another one on the same characters.

use std::cmp::Reverse;
use std::sync::Arc;

use super::action::Action;
use super::config::{DlpConfigError, ExceptionConfig, MAX_NAME_BYTES};
use super::finding::RuleInfo;
use super::kinds::Kind;
use crate::content::{MESSAGE_TYPE, TRACE_STATE};

/// Most exceptions of one configuration.
pub const MAX_EXCEPTIONS: usize = 256;
/// Longest name of one, in bytes: names stand on record.
const MAX_NAME: usize = 64;
/// Longest pattern of one, in bytes.
const MAX_PATTERN: usize = 1024;

/// Who sends to whom. Empty: unknown, and then only what says nothing of it fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Route<'a> {
    /// The sender.
    pub from: &'a str,
    /// The target.
    pub to: &'a str,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    Prefix(Box<str>),
    Exact(Box<str>),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some("") => Some(Self::Any),
            Some(prefix) => (!prefix.contains('*')).then(|| Self::Prefix(prefix.into())),
            None => (!text.is_empty() && !text.contains('*')).then(|| Self::Exact(text.into())),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Exact(exact) => text == &**exact,
        }
    }

    /// How much it says: in full two, a beginning one; and its letters.
    fn narrowness(&self) -> (usize, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::Exact(exact) => (2, exact.len()),
        }
    }
}

/// Where a finding is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Anywhere,
    /// A text beside the payload.
    Beside(&'static str),
    /// The steps of a pointer; whether any more may follow.
    Steps(Vec<Pattern>, bool),
}

impl At {
    fn parse(text: &str) -> Option<Self> {
        if let Some(place) = [MESSAGE_TYPE, TRACE_STATE].into_iter().find(|place| *place == text) {
            return Some(Self::Beside(place));
        }
        let steps = text.strip_prefix('/')?;
        let (steps, further) = match steps.strip_suffix("**") {
            Some("") => return Some(Self::Steps(Vec::new(), true)),
            Some(head) => (head.strip_suffix('/')?, true),
            None => (steps, false),
        };
        // A key may be empty.
        let step =
            |step: &str| if step.is_empty() { Some(Pattern::Exact("".into())) } else { Pattern::parse(step) };
        Some(Self::Steps(steps.split('/').map(step).collect::<Option<_>>()?, further))
    }

    fn fits(&self, pointer: &str) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Beside(place) => pointer == *place,
            Self::Steps(steps, further) => {
                let Some(pointer) = pointer.strip_prefix('/') else { return false };
                let mut found = pointer.split('/');
                steps.iter().all(|step| found.next().is_some_and(|text| step.fits(text)))
                    && found.next().is_some() == *further
            }
        }
    }

    fn narrowness(&self) -> (usize, usize) {
        match self {
            Self::Anywhere => (0, 0),
            Self::Beside(place) => (2, place.len()),
            Self::Steps(steps, further) => {
                let exact = !further && steps.iter().all(|step| matches!(step, Pattern::Exact(_)));
                (1 + usize::from(exact), steps.iter().map(|step| 1 + step.narrowness().1).sum())
            }
        }
    }
}

/// A compiled exception.
#[derive(Debug, Clone)]
pub(super) struct Exception {
    pub(super) name: Arc<str>,
    pub(super) action: Action,
    config: ExceptionConfig,
    from: Pattern,
    to: Pattern,
    message_type: Pattern,
    at: At,
}

impl Exception {
    /// The exception as it is configured.
    pub(super) fn config(&self) -> &ExceptionConfig {
        &self.config
    }

    /// Whether it is about messages of this type on this way.
    pub(super) fn is_about(&self, route: Route<'_>, message_type: &str) -> bool {
        self.from.fits(route.from) && self.to.fits(route.to) && self.message_type.fits(message_type)
    }

    /// What a finding of this rule does by it, wherever it is; `None`: it says nothing of it. `possible`: what has the shape of a kind and
    /// nothing more, which is changed or stopped only where the exception names that rule.
    pub(super) fn action_of(&self, rule: &RuleInfo, possible: bool) -> Option<Action> {
        let is = |said: &Option<String>, text: &str| said.as_ref().is_none_or(|said| said == text);
        let named = self.config.rule.is_some();
        (is(&self.config.rule, &rule.id) && is(&self.config.kind, &rule.kind)).then(|| {
            if possible && !named { self.action.min(rule.action.max(Action::Alert)) } else { self.action }
        })
    }

    /// Whether it is about this place; of one that is not known as a whole only where it is about any.
    pub(super) fn fits(&self, pointer: Option<&str>) -> bool {
        pointer.map_or(self.at == At::Anywhere, |pointer| self.at.fits(pointer))
    }

    fn narrowness(&self) -> (usize, usize) {
        let (from, to) = (self.from.narrowness(), self.to.narrowness());
        let (message_type, at) = (self.message_type.narrowness(), self.at.narrowness());
        let (rule, kind) = (&self.config.rule, &self.config.kind);
        let said = 2 * usize::from(rule.is_some()) + 2 * usize::from(kind.is_some());
        (from.0 + to.0 + message_type.0 + at.0 + said, from.1 + to.1 + message_type.1 + at.1)
    }
}

/// The exceptions, the narrowest first. `rules`: those that there are.
pub(super) fn compile(
    configured: &[ExceptionConfig],
    rules: &[RuleInfo],
) -> Result<Vec<Exception>, DlpConfigError> {
    if configured.len() > MAX_EXCEPTIONS {
        let problem = format!("{} exceptions, at most {MAX_EXCEPTIONS} are allowed", configured.len());
        return Err(DlpConfigError { key: "exceptions".to_owned(), problem });
    }
    let mut exceptions = Vec::with_capacity(configured.len());
    for (index, config) in configured.iter().enumerate() {
        let exception = compile_one(index, config, rules).map_err(|(field, problem)| {
            let key = format!("exceptions[{index}]{}{field}", if field.is_empty() { "" } else { "." });
            DlpConfigError { key, problem }
        })?;
        if exceptions.iter().any(|other: &Exception| other.name == exception.name) {
            let problem = format!("another exception is named {:?}", exception.name);
            return Err(DlpConfigError { key: format!("exceptions[{index}].name"), problem });
        }
        exceptions.push(exception);
    }
    // Of two alike the first in the file.
    exceptions.sort_by_key(|exception| Reverse(exception.narrowness()));
    Ok(exceptions)
}

fn compile_one(
    index: usize,
    config: &ExceptionConfig,
    rules: &[RuleInfo],
) -> Result<Exception, (&'static str, String)> {
    let name = config.name.clone().unwrap_or_else(|| format!("exception.{}", index + 1));
    for (field, text, most) in [("name", &name, MAX_NAME), ("reason", &config.reason, MAX_NAME_BYTES)] {
        if text.trim().is_empty() || text.chars().any(char::is_control) || text.len() > most {
            return Err((field, format!("must be printable text of at most {most} bytes")));
        }
    }
    let texts = [&config.from, &config.to, &config.message_type, &config.pointer, &config.kind, &config.rule];
    if texts.iter().all(|text| text.is_none()) {
        let problem = "says nothing of what it is about: from, to, type, pointer, kind or rule".to_owned();
        return Err(("", problem));
    }
    if texts.iter().copied().flatten().any(|text| text.len() > MAX_PATTERN) {
        return Err(("", format!("a pattern of more than {MAX_PATTERN} bytes")));
    }
    let pattern = |field: &'static str, text: &Option<String>| {
        let Some(text) = text else { return Ok(Pattern::Any) };
        // A message may have no type.
        if text.is_empty() && field == "type" {
            return Ok(Pattern::Exact("".into()));
        }
        Pattern::parse(text).ok_or_else(|| (field, format!("{text:?} is no name, `prefix*` or `*`")))
    };
    let at = match &config.pointer {
        None => At::Anywhere,
        Some(text) => At::parse(text).ok_or_else(|| {
            let form = "a pointer such as /items/*/note (a step may be `*` or `prefix*`, the last one `**`), message_type or \
                        tracestate";
            ("pointer", format!("{text:?} is not {form}"))
        })?,
    };
    if let Some(kind) = &config.kind
        && !rules.iter().any(|rule| *rule.kind == **kind)
    {
        return Err(("kind", format!("{kind:?} is the type of no rule")));
    }
    if let Some(id) = &config.rule {
        let Some(rule) = rules.iter().find(|rule| *rule.id == **id) else {
            return Err(("rule", format!("{id:?} is the id of no rule that is looked for")));
        };
        if config.kind.as_ref().is_some_and(|kind| **kind != *rule.kind) {
            return Err(("kind", format!("rule {id:?} finds {:?}", rule.kind)));
        }
    }
    Ok(Exception {
        name: name.into(),
        action: config.action,
        from: pattern("from", &config.from)?,
        to: pattern("to", &config.to)?,
        message_type: pattern("type", &config.message_type)?,
        at,
        config: config.clone(),
    })
}

/// Whether the rule of this number is of what has the shape of a kind and nothing more.
pub(super) fn is_possible(rule: usize) -> bool {
    (Kind::ALL.len()..2 * Kind::ALL.len()).contains(&rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_fits_step_by_step() {
        for (pattern, pointer, fits) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/c", false),
            ("/a/b", "/a", false),
            ("/a/*", "/a/0", true),
            ("/a/*", "/a/0/b", false),
            ("/items/*/note", "/items/12/note", true),
            ("/items/*/note", "/items/12/other", false),
            ("/a/x*", "/a/xyz", true),
            ("/a/x*", "/a/yxz", false),
            ("/a/**", "/a/b", true),
            ("/a/**", "/a/b/c/d", true),
            ("/a/**", "/a", false),
            ("/**", "/anything/at/all", true),
            ("/**", "message_type", false),
            ("message_type", "message_type", true),
            ("/message_type", "message_type", false),
            ("/", "/", true),
            ("/a~1b", "/a~1b", true),
        ] {
            assert_eq!(At::parse(pattern).unwrap().fits(pointer), fits, "{pattern} {pointer}");
        }
        for none in ["", "a", "**", "/a**", "/a/**/b", "/a/*b", "payload"] {
            assert_eq!(At::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_a_beginning_or_all() {
        assert!(Pattern::parse("worker-*").unwrap().fits("worker-7"));
        assert!(!Pattern::parse("worker-*").unwrap().fits("worker"));
        assert!(!Pattern::parse("worker").unwrap().fits("worker-7"));
        assert!(Pattern::parse("*").unwrap().fits(""));
        assert_eq!((Pattern::parse("a*b"), Pattern::parse(""), Pattern::parse("**")), (None, None, None));
    }
}
