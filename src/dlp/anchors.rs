//! The literals that most detectors start from, searched for in one pass.

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, PatternID};

use super::document::{Document, Part};
use super::fields::{Fields, KeyClass};
use super::hits::Sink;
use super::labels::{self, LABELS, Label, Value};
use super::secrets::{self, PREFIXES, Runs};

/// Parts of the keys that have a class: a key without any of them is not classified.
const KEY_WORDS: &[&str] = &[
    "pass",
    "pwd",
    "pswd",
    "pw",
    "key",
    "secret",
    "token",
    "bearer",
    "jwt",
    "auth",
    "credential",
    "cookie",
    "ssn",
    "social",
    "taxpayer",
    "ssnumber",
    "socsec",
    "cvv",
    "cvc",
    "cvn",
    "csc",
    "security",
    "verification",
    "mrn",
    "record",
    "health",
    "insurance",
    "medic",
    "member",
    "subscriber",
    "phone",
    "mobile",
    "tel",
    "cell",
    "fax",
    "icd",
    "diagnos",
    "dx",
    "card",
    "ccnum",
    "cc_num",
    "cc-num",
    "pan",
    "address",
    "val",
];

/// Price of a literal, and of a key that is classified.
const FOUND_STEPS: usize = 12;
const CLASSIFY_STEPS: usize = 25;

/// What a literal begins.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// A token, by its place in [`PREFIXES`].
    Prefix(usize),
    Label(Label),
    KeyWord,
    Jwt,
    PrivateKey,
    Putty,
    Url,
    Azure,
}

/// The search.
#[derive(Debug)]
pub(super) struct Anchors {
    search: DFA,
    /// Where every search begins.
    start: StateID,
    meanings: Vec<Meaning>,
    fields: Fields,
}

/// What the search keeps between literals.
#[derive(Debug, Default)]
pub(super) struct AnchorScratch {
    pub(super) buffer: Vec<u8>,
}

impl Anchors {
    pub(super) fn new() -> Result<Self, String> {
        let prefixes = PREFIXES.iter().enumerate().map(|(at, prefix)| (prefix.0, Meaning::Prefix(at)));
        let labels = LABELS.iter().map(|(text, label)| (*text, Meaning::Label(*label)));
        let words = KEY_WORDS
            .iter()
            .filter(|word| !LABELS.iter().any(|(label, _)| label == *word))
            .map(|word| (*word, Meaning::KeyWord));
        let others = [
            ("eyj", Meaning::Jwt),
            ("private key", Meaning::PrivateKey),
            ("putty-user-key-file-", Meaning::Putty),
            ("://", Meaning::Url),
            ("q~", Meaning::Azure),
        ];
        let (texts, meanings): (Vec<_>, Vec<_>) = prefixes.chain(labels).chain(words).chain(others).unzip();
        let search = DFA::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(texts)
            .map_err(|error| error.to_string())?;
        let start = search.start_state(Anchored::No).map_err(|error| error.to_string())?;
        Ok(Self { search, start, meanings, fields: Fields::new()? })
    }

    /// Every literal in bytes `from..`, overlapping ones too, with its beginning and end; in the order of their
    /// ends. The automaton is stepped here, where its table is known, rather than behind a pointer.
    fn occurrences<'a>(
        &'a self,
        bytes: &'a [u8],
        from: usize,
    ) -> impl Iterator<Item = (PatternID, usize, usize)> + 'a {
        let dfa = &self.search;
        let mut state = self.start;
        let mut at = from;
        // Literals that end here and were not given out yet.
        let (mut next, mut ending) = (0, 0);
        std::iter::from_fn(move || {
            while next == ending {
                state = dfa.next_state(Anchored::No, state, *bytes.get(at)?);
                at += 1;
                if dfa.is_special(state) && dfa.is_match(state) {
                    (next, ending) = (0, dfa.match_len(state));
                }
            }
            let pattern = dfa.match_pattern(state, next);
            next += 1;
            Some((pattern, at - dfa.pattern_len(pattern), at))
        })
    }

    /// Searches bytes `from..` of the buffer, whose segments begin with number `segment`. Keys get their
    /// class; returns whether any says something about its value.
    pub(super) fn search(
        &self,
        document: &mut Document,
        from: usize,
        mut segment: usize,
        scratch: &mut AnchorScratch,
        sink: &mut Sink<'_>,
    ) -> bool {
        let Document { text, segments, .. } = document;
        let bytes = text.as_bytes();
        let mut runs = Runs::default();
        let mut value = Value::default();
        let (mut block_end, mut putty_end) = (from, from);
        let mut telling = false;
        let mut classified = usize::MAX;
        for (pattern, start, end) in self.occurrences(bytes, from) {
            if sink.is_spent() {
                break;
            }
            sink.spend(FOUND_STEPS);
            let Some(meaning) = self.meanings.get(pattern.as_usize()) else { continue };
            match meaning {
                Meaning::Prefix(at) => {
                    if let Some(prefix) = PREFIXES.get(*at) {
                        secrets::prefixed(bytes, start, prefix, &mut runs, sink);
                    }
                }
                Meaning::KeyWord | Meaning::Label(_) => {
                    while segments.get(segment).is_some_and(|s| (s.end as usize) < end) {
                        segment += 1;
                    }
                    let Some(current) = segments.get_mut(segment) else { continue };
                    if current.part == Part::Key && classified != segment {
                        classified = segment;
                        let (from, to) = current.span();
                        current.class = self.fields.classify(text.get(from..to).unwrap_or_default());
                        sink.spend(CLASSIFY_STEPS);
                        telling |= !matches!(current.class, KeyClass::None | KeyClass::Value);
                    }
                    if let Meaning::Label(label) = meaning
                        && end < current.end as usize
                    {
                        labels::look(bytes, *label, start, end, (&mut scratch.buffer, &mut value), sink);
                    }
                }
                Meaning::Jwt => secrets::jwt(bytes, start, &mut scratch.buffer, sink),
                Meaning::PrivateKey if start >= block_end => {
                    block_end = secrets::pem(bytes, start, end, sink);
                }
                Meaning::PrivateKey => {}
                Meaning::Putty if start >= putty_end => putty_end = secrets::putty(bytes, start, sink),
                Meaning::Putty => {}
                Meaning::Url => secrets::url_password(bytes, start, sink),
                Meaning::Azure => secrets::azure_secret(bytes, start, sink),
            }
        }
        telling
    }
}
