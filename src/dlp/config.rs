//! The configuration of the rules, and its compilation.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::action::Action;
use super::kinds::Kind;

/// Most custom rules one configuration may hold.
pub const MAX_RULES: usize = 256;
/// Longest file of rules, in bytes.
pub const MAX_RULES_FILE_BYTES: u64 = 256 * 1024;
/// Longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 4 * 1024;
/// Longest rule id, type or description, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Memory one compiled pattern may take.
pub const MAX_REGEX_BYTES: usize = 1024 * 1024;
/// Memory the lazily built automaton of one pattern may take.
pub const MAX_REGEX_CACHE_BYTES: usize = 2 * 1024 * 1024;

/// What custom rules do to the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeStrategy {
    /// They are added to the defaults.
    #[default]
    Append,
    /// They take the defaults' place.
    Replace,
}

/// One custom rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Names the rule in findings; unique.
    pub id: String,
    /// The type of data, a default one or a new one.
    #[serde(rename = "type")]
    pub kind: String,
    /// A regular expression (the `regex` crate's syntax), matched against folded text.
    pub pattern: String,
    /// What a match does; without it the type's default action, and `block` for a type of one's own.
    #[serde(default)]
    pub action: Option<Action>,
    /// Free text for the operator.
    #[serde(default)]
    pub severity: Option<String>,
    /// Free text for the operator.
    #[serde(default)]
    pub description: Option<String>,
    /// A rule that is not enabled is checked, then left out.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Matches letters of either case.
    #[serde(default)]
    pub case_insensitive: bool,
}

fn enabled() -> bool {
    true
}

/// One exception, as it is configured. A key that is left out fits everything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionConfig {
    /// Its name on record; else `exception.` and its place in the list, from 1.
    #[serde(default)]
    pub name: Option<String>,
    /// The sender: `agent`, `prefix*` or `*`.
    #[serde(default)]
    pub from: Option<String>,
    /// The target, in the same way.
    #[serde(default)]
    pub to: Option<String>,
    /// The type of message, in the same way.
    #[serde(default, rename = "type")]
    pub message_type: Option<String>,
    /// RFC 6901 pointer to the value: each step may be `*` or `prefix*`, the last one `**`. Or `message_type`, `tracestate`.
    #[serde(default)]
    pub pointer: Option<String>,
    /// The type of data.
    #[serde(default)]
    pub kind: Option<String>,
    /// The rule, as findings name it.
    #[serde(default)]
    pub rule: Option<String>,
    /// What a finding does instead.
    pub action: Action,
    /// Why: for whoever reads the record.
    pub reason: String,
}

/// Default rules that are left out: all or none, or those of some types.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected true, false or a list of types")]
pub enum Disabled {
    /// All (`true`) or none.
    All(bool),
    /// Those of these types.
    Types(Vec<String>),
}

impl Default for Disabled {
    fn default() -> Self {
        Self::All(false)
    }
}

impl Disabled {
    fn covers(&self, kind: Kind) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Types(types) => types.iter().any(|name| name == kind.name()),
        }
    }
}

/// The `dlp` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DlpConfig {
    /// Whether custom rules join the defaults or replace them.
    pub merge_strategy: MergeStrategy,
    /// Which default rules are left out.
    pub disable_defaults: Disabled,
    /// The action of every rule of a type, default or custom.
    pub policy_overrides: BTreeMap<String, Action>,
    /// The custom rules.
    pub rules: Vec<RuleConfig>,
    /// A file with names, tokens and commands beside the built-in ones.
    pub rules_file: Option<PathBuf>,
    /// What is in it.
    #[serde(skip)]
    pub rules_text: Option<String>,
    /// What findings lead to instead, of some senders, targets, types of message and places.
    pub exceptions: Vec<ExceptionConfig>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct DlpConfigError {
    /// The key within the section: `rules[2].pattern`.
    pub key: String,
    /// What is wrong with its value; names the rule by its id.
    pub problem: String,
}

/// A compiled custom rule.
#[derive(Debug, Clone)]
pub(super) struct CustomRule {
    pub(super) id: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) action: Action,
    pub(super) regex: Regex,
    pub(super) case_insensitive: bool,
}

/// The actions of the built-in kinds, by number, and the custom rules.
pub(super) fn compile(config: &DlpConfig) -> Result<(Vec<Action>, Vec<CustomRule>), DlpConfigError> {
    if config.rules.len() > MAX_RULES {
        let problem = format!("{} rules, at most {MAX_RULES} are allowed", config.rules.len());
        return Err(DlpConfigError { key: "rules".to_owned(), problem });
    }
    let mut custom = Vec::new();
    for (index, rule) in config.rules.iter().enumerate() {
        if config.rules.iter().take(index).any(|other| other.id == rule.id) {
            return Err(field_error(index, rule, "id", "another rule has it".to_owned()));
        }
        let compiled = compile_rule(index, rule, &config.policy_overrides)?;
        if rule.enabled && compiled.action != Action::Allow {
            custom.push(compiled);
        }
    }
    for kind in config.policy_overrides.keys() {
        if Kind::from_name(kind).is_none() && !config.rules.iter().any(|rule| rule.kind == *kind) {
            let key = format!("policy_overrides.{kind}");
            return Err(DlpConfigError { key, problem: format!("{kind:?} is the type of no rule") });
        }
    }
    if let Disabled::Types(types) = &config.disable_defaults
        && let Some(place) = types.iter().position(|name| Kind::from_name(name).is_none())
    {
        let kind = types.get(place).map(String::as_str).unwrap_or_default();
        let key = format!("disable_defaults[{place}]");
        return Err(DlpConfigError { key, problem: format!("{kind:?} is the type of no default rule") });
    }
    let defaults = config.merge_strategy == MergeStrategy::Append;
    let actions = Kind::ALL
        .iter()
        .map(|kind| match config.policy_overrides.get(kind.name()) {
            _ if !defaults || config.disable_defaults.covers(*kind) => Action::Allow,
            Some(action) => *action,
            None => kind.default_action(),
        })
        .collect();
    Ok((actions, custom))
}

fn field_error(index: usize, rule: &RuleConfig, field: &'static str, problem: String) -> DlpConfigError {
    let id: String = rule.id.chars().take(MAX_NAME_BYTES).collect();
    DlpConfigError { key: format!("rules[{index}].{field}"), problem: format!("rule {id:?}: {problem}") }
}

fn compile_rule(
    index: usize,
    rule: &RuleConfig,
    overrides: &BTreeMap<String, Action>,
) -> Result<CustomRule, DlpConfigError> {
    let names = [
        ("id", Some(&rule.id)),
        ("type", Some(&rule.kind)),
        ("severity", rule.severity.as_ref()),
        ("description", rule.description.as_ref()),
    ];
    for (field, value) in names {
        let Some(value) = value else { continue };
        if value.len() > MAX_NAME_BYTES {
            let problem = format!("{} bytes, at most {MAX_NAME_BYTES} are allowed", value.len());
            return Err(field_error(index, rule, field, problem));
        }
        let required = field == "id" || field == "type";
        if required && (value.trim().is_empty() || value.chars().any(char::is_control)) {
            return Err(field_error(index, rule, field, "must be printable text".to_owned()));
        }
    }
    // The type stands in the replacement of redacted text, and must not end it early.
    if rule.kind.contains([']', '"', '\\']) {
        return Err(field_error(index, rule, "type", "must not hold ']', '\"' or '\\'".to_owned()));
    }
    if rule.pattern.len() > MAX_PATTERN_BYTES {
        let problem = format!("{} bytes, at most {MAX_PATTERN_BYTES} are allowed", rule.pattern.len());
        return Err(field_error(index, rule, "pattern", problem));
    }
    let pattern_error = |problem: String| field_error(index, rule, "pattern", problem);
    let regex = RegexBuilder::new(&rule.pattern)
        .case_insensitive(rule.case_insensitive)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .build()
        .map_err(|error| pattern_error(error.to_string()))?;
    if regex.is_match("") {
        return Err(pattern_error("matches the empty text, and so everywhere".to_owned()));
    }
    let action = overrides
        .get(&rule.kind)
        .copied()
        .or(rule.action)
        .or_else(|| Kind::from_name(&rule.kind).map(Kind::default_action))
        .unwrap_or(Action::Block);
    Ok(CustomRule {
        id: rule.id.as_str().into(),
        kind: rule.kind.as_str().into(),
        action,
        regex,
        case_insensitive: rule.case_insensitive,
    })
}
