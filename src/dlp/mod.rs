//! Data-loss prevention over JSON payloads: finds personal data and secrets, and blocks, redacts or
//! reports the message that holds them.
//!
//! A scan reads every decoded string, every key, every number as written, and the message type. Before
//! anything is looked for, digits and letters of other widths and styles are folded to ASCII and
//! invisible characters are left out; what one layer of base64, hex, percent-encoding, escapes, or JSON
//! in a string hides is looked at too, and card numbers and IBANs are found when split over sibling
//! strings. Nothing is done twice: two layers of encoding, encryption, compression, a number written in
//! words, or one split over several messages pass.
//!
//! The cost is linear in the payload. Detectors start from literals and digits found in one pass, look
//! at a bounded stretch around each, and custom patterns run on an automaton, in bounded windows. What the
//! detectors do is counted, and a payload that would have them do several times what ordinary text does
//! is given up: a scan says so, and the pipeline blocks it.

mod action;
mod anchors;
mod catalogue;
mod checks;
mod commands;
mod config;
mod context;
mod digits;
mod document;
mod exceptions;
mod explain;
mod finding;
mod fold;
mod hits;
mod kinds;
mod labels;
mod layers;
pub mod lines;
mod names;
mod outcome;
mod passes;
mod places;
mod score;
mod secrets;
mod siblings;
mod values;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, LazyLock};

pub use action::Action;
pub use config::{
    Disabled, DlpConfig, DlpConfigError, ExceptionConfig, MAX_NAME_BYTES, MAX_PATTERN_BYTES, MAX_REGEX_BYTES,
    MAX_REGEX_CACHE_BYTES, MAX_RULES, MAX_RULES_FILE_BYTES, MergeStrategy, RuleConfig,
};
pub use exceptions::{MAX_EXCEPTIONS, Route};
pub use explain::Candidate;
pub use finding::{Finding, MAX_DIGEST_INPUT, MAX_FINDINGS, Scan};

use anchors::Anchors;
use catalogue::Catalogue;
use config::CustomRule;
use document::Document;
use exceptions::Exception;
use finding::RuleInfo;
use hits::{Hits, Sink};
use kinds::{Class, Kind};

use crate::content::Content;

/// Largest payload that is scanned; a larger one is blocked unseen. The server admits far smaller ones.
pub const MAX_SCAN_BYTES: usize = 256 * 1024 * 1024;
/// What the detectors may do for one message beyond reading it: steps of about two nanoseconds, for every
/// message and for each of its bytes. Ordinary text takes one or two steps a byte; what takes more than this
/// has been made to, and is blocked rather than let others wait.
const WORK: usize = 768 * 1024;
const WORK_PER_BYTE: usize = 8;
/// Largest buffer that is kept between scans.
const KEEP_BYTES: usize = 4 * 1024 * 1024;

/// The number of the first custom rule, behind the kinds and what has their shape.
const FIRST_CUSTOM: usize = 2 * Kind::ALL.len();

/// What the built-in detectors start from: the same for every configuration that adds none.
static ANCHORS: LazyLock<Result<Arc<Anchors>, String>> =
    LazyLock::new(|| Anchors::new(Catalogue::load()?).map(Arc::new));

/// Buffers of a scan, to be used again for the next one: a scan that finds nothing then allocates
/// nothing.
#[derive(Default)]
pub struct Scratch {
    document: Document,
    hits: Hits,
    passes: passes::PassScratch,
    siblings: siblings::SiblingScratch,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// The compiled rules.
#[derive(Debug)]
pub struct Dlp {
    /// Unless all built-in kinds are allowed.
    anchors: Option<Arc<Anchors>>,
    custom: Vec<CustomRule>,
    /// The built-in kinds, what has only their shape, then the custom rules.
    rules: Vec<RuleInfo>,
    /// What each rule does by itself.
    actions: Vec<Action>,
    /// The narrowest first.
    exceptions: Vec<Exception>,
}

/// One of the rules, for people.
#[derive(Debug, Clone, Copy)]
pub struct DlpRule<'a> {
    /// The type of data.
    pub kind: &'a str,
    /// Its name in findings.
    pub id: &'a str,
    /// What a match does.
    pub action: Action,
    /// Of a custom one the pattern, and whether it matches letters of either case.
    pub pattern: Option<(&'a str, bool)>,
}

impl Dlp {
    /// Compiles the rules of a configuration.
    pub fn compile(config: &DlpConfig) -> Result<Self, DlpConfigError> {
        let (actions, custom) = config::compile(config)?;
        let rules = rules_of(&actions, &custom);
        let exceptions = exceptions::compile(&config.exceptions, &rules)?;
        let own =
            config.rules_text.as_deref().map(|text| Anchors::new(Catalogue::with_own(text)?).map(Arc::new));
        let anchors = own.unwrap_or_else(|| ANCHORS.clone()).map_err(|problem| DlpConfigError {
            key: if config.rules_text.is_some() { "rules_file" } else { "disable_defaults" }.to_owned(),
            problem,
        })?;
        Ok(Self::build(Some(anchors), rules, custom, exceptions))
    }

    /// What a match of a rule, named as in findings, does on this way, in this type of message, at this place (`None`: it is not known as a
    /// whole); `None` where there is no such rule.
    pub fn action_of(
        &self,
        rule: &str,
        route: Route<'_>,
        message_type: &str,
        pointer: Option<&str>,
    ) -> Option<Action> {
        let (number, known) = self.rules.iter().enumerate().find(|(_, known)| &*known.id == rule)?;
        let possible = exceptions::is_possible(number);
        let about = self.exceptions.iter().filter(|exception| exception.is_about(route, message_type));
        let excepted = about
            .filter(|exception| exception.fits(pointer))
            .find_map(|exception| exception.action_of(known, possible));
        Some(excepted.unwrap_or(known.action))
    }

    /// The exceptions, the narrowest first, each with its name.
    pub fn exceptions(&self) -> impl Iterator<Item = (&str, &ExceptionConfig)> {
        self.exceptions.iter().map(|exception| (&*exception.name, exception.config()))
    }

    /// The rules, those that look for nothing left out.
    pub fn rules(&self) -> impl Iterator<Item = DlpRule<'_>> {
        let custom = |id: &str| self.custom.iter().find(|rule| &*rule.id == id);
        let listed = self.rules.iter().enumerate().filter(|(number, _)| !exceptions::is_possible(*number));
        listed.map(|(_, rule)| rule).filter(|rule| rule.action != Action::Allow).map(move |rule| {
            let own = rule.built_in.is_none().then(|| custom(&rule.id)).flatten();
            DlpRule {
                kind: &rule.kind,
                id: &rule.id,
                action: rule.action,
                pattern: own.map(|own| (own.regex.as_str(), own.case_insensitive)),
            }
        })
    }

    /// The same rules without exceptions, but what they would block is redacted: to show a payload that was stored before they were in
    /// force.
    pub fn masking(&self) -> Self {
        let mask = |rule: &RuleInfo| {
            let action = if rule.action == Action::Block { Action::Redact } else { rule.action };
            RuleInfo { action, ..rule.clone() }
        };
        let rules = self.rules.iter().map(mask).collect();
        Self::build(self.anchors.clone(), rules, self.custom.clone(), Vec::new())
    }

    fn build(
        anchors: Option<Arc<Anchors>>,
        rules: Vec<RuleInfo>,
        custom: Vec<CustomRule>,
        exceptions: Vec<Exception>,
    ) -> Self {
        let all: Vec<&Exception> = exceptions.iter().collect();
        let mut looked_for = most(&rules, &all).into_iter().zip(&rules);
        let any = looked_for.any(|(most, rule)| rule.built_in.is_some() && most != Action::Allow);
        let actions = rules.iter().map(|rule| rule.action).collect();
        Self { anchors: anchors.filter(|_| any), custom, rules, actions, exceptions }
    }

    /// Searches all of a message that its receiver will see.
    pub fn search(&self, content: &Content<'_>, route: Route<'_>, scratch: &mut Scratch) -> Scan {
        self.scan_texts(content, route, scratch, None)
    }

    /// The same, and every value that was judged by its name, found or not.
    pub fn explain(
        &self,
        content: &Content<'_>,
        route: Route<'_>,
        scratch: &mut Scratch,
    ) -> (Scan, Vec<Candidate>) {
        let mut candidates = Vec::new();
        let scan = self.scan_texts(content, route, scratch, Some(&mut candidates));
        (scan, candidates)
    }

    /// Scans a message without a trace context, of nobody in particular. `data_json` must be what the server's strict check accepts: a JSON object without
    /// duplicate keys.
    pub fn scan(&self, message_type: &str, data_json: &str, scratch: &mut Scratch) -> Scan {
        self.search(&Content { message_type, data_json, trace: None }, Route::default(), scratch)
    }

    fn scan_texts(
        &self,
        content: &Content<'_>,
        route: Route<'_>,
        scratch: &mut Scratch,
        candidates: Option<&mut Vec<Candidate>>,
    ) -> Scan {
        let (texts, data_json) = (content.texts(), content.payload());
        let bytes = texts.iter().fold(data_json.len(), |sum, (_, text)| sum.saturating_add(text.len()));
        if bytes > MAX_SCAN_BYTES {
            return Scan { action: Action::Block, truncated: true, ..Scan::default() };
        }
        if self.anchors.is_none() && self.custom.is_empty() {
            return Scan::default();
        }
        let Scratch { document, hits, passes: pass, siblings: sibling } = scratch;
        document.clear();
        document.keep_short = !self.custom.is_empty();
        hits.clear();
        for (number, (_, text)) in texts.iter().enumerate() {
            document.add_beside(number, text);
        }
        document.add_json(data_json, None, 0);
        let direct = document.segments.len();
        let work = WORK + WORK_PER_BYTE * bytes;
        let is_about = |one: &&Exception| one.is_about(route, content.message_type);
        let exceptions: Vec<&Exception> = self.exceptions.iter().filter(is_about).collect();
        let raised = (!exceptions.is_empty()).then(|| most(&self.rules, &exceptions));
        let mut sink = Sink {
            hits,
            actions: raised.as_deref().unwrap_or(&self.actions),
            own: &self.actions,
            work,
            explained: candidates.is_some().then(Vec::new),
            keep_all: !exceptions.is_empty(),
        };
        sink.spend(direct * passes::SEGMENT_STEPS);
        if let Some(anchors) = &self.anchors {
            passes::detect(anchors, document, (1, 0), true, pass, &mut sink);
            siblings::join(document, sibling, &mut sink);
        }
        let decoded = document.text.len();
        passes::whole_numbers(document, pass, &mut sink);
        passes::decode_layers(document, pass, &mut sink);
        if let Some(anchors) = &self.anchors
            && document.segments.len() > direct
        {
            passes::detect(anchors, document, (decoded, direct), false, pass, &mut sink);
        }
        let truncated = sink.is_spent();
        sink.settle_cards();
        passes::custom(document, &self.custom, FIRST_CUSTOM, &mut sink);
        if let (Some(candidates), Some(judged)) = (candidates, sink.explained.take()) {
            let places = texts.map(|(place, _)| place);
            candidates.extend(judged.into_iter().map(|judged| judged.shown(document, &places, data_json)));
        }
        let mut scan = if hits.list.is_empty() && hits.dropped == 0 {
            Scan::default()
        } else {
            outcome::settle((&self.rules, &exceptions), document, hits, &texts, data_json)
        };
        scan.truncated = truncated;
        document.shrink(KEEP_BYTES);
        scan
    }
}

/// What each rule does at most, by itself or by one of these exceptions: what does nothing is not looked for.
fn most(rules: &[RuleInfo], exceptions: &[&Exception]) -> Vec<Action> {
    let most = |(number, rule): (usize, &RuleInfo)| {
        let possible = exceptions::is_possible(number);
        let by_exception = exceptions.iter().filter_map(|one| one.action_of(rule, possible));
        by_exception.fold(rule.action, Action::max)
    };
    rules.iter().enumerate().map(most).collect()
}

/// The rules by their numbers: the built-in kinds, what has only the shape of one, the custom rules.
fn rules_of(actions: &[Action], custom: &[CustomRule]) -> Vec<RuleInfo> {
    let built_in = Kind::ALL.iter().zip(actions).map(|(kind, action)| RuleInfo {
        kind: kind.name().into(),
        id: format!("default.{}", kind.name()).into(),
        action: *action,
        class: kind.class(),
        built_in: Some(*kind),
    });
    // By the number that `Kind::possible` gives.
    let possible = Kind::ALL.iter().zip(actions).map(|(kind, action)| RuleInfo {
        kind: kind.name().into(),
        id: format!("default.{}.possible", kind.name()).into(),
        action: kind.possible_action(*action),
        class: Class::Named,
        built_in: Some(*kind),
    });
    let own = custom.iter().map(|rule| RuleInfo {
        kind: rule.kind.clone(),
        id: rule.id.clone(),
        action: rule.action,
        class: Class::Certain,
        built_in: None,
    });
    built_in.chain(possible).chain(own).collect()
}
