//! The literals that most detectors start from, searched for in one pass.

use std::collections::HashMap;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind, PatternID};

use super::catalogue::{Catalogue, CommandRule, TokenRule, spellings};
use super::commands;
use super::context;
use super::document::{Document, Part};
use super::hits::{Sink, before, run_start};
use super::labels::{self, Memory};
use super::names::{Names, Says};
use super::secrets::{self, Runs};

/// Parts of keys that say something and are no labels of their own.
const KEY_WORDS: &[&str] = &["value", "val"];
/// Words that are labels themselves, and end longer ones.
const LAST_WORDS: &[&str] = &["token", "secret", "password", "pass", "card"];
/// Longest word that is looked for before the end of a name.
const WORD_MAX: usize = 16;
/// Longest text that is looked at as the name of a name/value pair.
const PAIR_NAME_MAX: usize = 64;

/// Price of a literal, and of a key that is classified.
const FOUND_STEPS: usize = 3;
const CLASSIFY_STEPS: usize = 50;

/// Words of a name that are searched for: its last ones. A tree of fewer letters is faster.
const LAST: usize = 2;

/// What a literal begins.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// A token, by its place in the table.
    Prefix(usize),
    /// The end of a name; whether it is a label in text, too, and how many words may stand before.
    Name {
        label: bool,
        before: usize,
    },
    Bearer,
    Basic,
    /// A command, by its place in the table.
    Command(usize),
    /// The member that makes an object a key as RFC 7517 writes it.
    Jwk,
    Jwt,
    PrivateKey,
    Putty,
    Url,
    Azure,
    Telegram,
    Oracle,
}

/// What each byte is searched for as. Capitals and small letters are one, and so are `_` and `-`; of letters outside ASCII
/// a part tells, the same one for both cases of Latin, Greek and Cyrillic ones. A table for fewer bytes is smaller, and what it finds
/// is compared as it is written.
static SEARCHED: [u8; 256] = searched();

const fn searched() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0_u8;
    loop {
        let searched = match byte {
            b'-' => b'_',
            0x80..=0xbf => 0x80 | ((byte >> 2) & 7),
            0xc0..=0xff => 0xc0,
            ascii => ascii.to_ascii_lowercase(),
        };
        #[allow(clippy::indexing_slicing)] // A byte cannot lie outside the table.
        {
            table[byte as usize] = searched;
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn searched_as(byte: u8) -> u8 {
    SEARCHED.get(usize::from(byte)).copied().unwrap_or(byte)
}

/// The search.
#[derive(Debug)]
pub(super) struct Anchors {
    search: DFA,
    /// Where every search begins.
    start: StateID,
    meanings: Vec<Meaning>,
    names: Names,
    tokens: Vec<TokenRule>,
    commands: Vec<CommandRule>,
}

/// What the search keeps between literals.
#[derive(Debug, Default)]
pub(super) struct AnchorScratch {
    pub(super) buffer: Vec<u8>,
    /// Texts that may be the names of name/value pairs: a segment each, and what it says.
    pairs: Vec<(usize, Says)>,
}

impl Anchors {
    pub(super) fn new(catalogue: Catalogue) -> Result<Self, String> {
        context::build()?;
        let Catalogue { names, tokens, commands } = catalogue;
        let mut literals: Vec<(String, Meaning)> = Vec::new();
        let prefixes = tokens.iter().enumerate();
        literals.extend(prefixes.map(|(at, token)| (token.prefix.clone(), Meaning::Prefix(at))));
        // A name of one word that ends another one is found by it, too: once is enough.
        let mut seen: HashMap<String, usize> = HashMap::new();
        for rule in &names {
            for name in &rule.names {
                let words: Vec<&str> = name.split(' ').collect();
                // Its last word finds the others: `access_token`, `accessToken`.
                let last = words.last().copied().unwrap_or_default();
                let by_last = words.len() > 1 && LAST_WORDS.contains(&last);
                let before = words.len().saturating_sub(LAST);
                let end = words.get(before..).unwrap_or_default().join(" ");
                let written = spellings(&end).into_iter().filter(|spelling| !by_last || *spelling == end);
                for spelling in written.flat_map(|spelling| cases(&spelling)) {
                    match seen.get(&spelling).and_then(|at| literals.get_mut(*at)) {
                        Some((_, Meaning::Name { label, before: most })) => {
                            *label |= rule.text;
                            *most = before.max(*most);
                        }
                        _ => {
                            let _ = seen.insert(spelling.clone(), literals.len());
                            literals.push((spelling, Meaning::Name { label: rule.text, before }));
                        }
                    }
                }
            }
        }
        for word in KEY_WORDS.iter().filter(|word| !seen.contains_key(**word)) {
            literals.push(((*word).to_owned(), Meaning::Name { label: false, before: 0 }));
        }
        let lines = commands.iter().enumerate();
        literals.extend(lines.map(|(at, rule)| (format!("{} ", rule.command), Meaning::Command(at))));
        let others = [
            ("eyj", Meaning::Jwt),
            ("private key", Meaning::PrivateKey),
            ("putty-user-key-file-", Meaning::Putty),
            ("://", Meaning::Url),
            ("q~", Meaning::Azure),
            ("bearer ", Meaning::Bearer),
            ("basic ", Meaning::Basic),
            ("kty", Meaning::Jwk),
            (":AA", Meaning::Telegram),
            ("jdbc:oracle:", Meaning::Oracle),
        ];
        literals.extend(others.map(|(text, meaning)| (text.to_owned(), meaning)));
        let searched = |text: String| text.bytes().map(searched_as).collect::<Vec<u8>>();
        let (texts, meanings): (Vec<_>, Vec<_>) =
            literals.into_iter().map(|(text, meaning)| (searched(text), meaning)).unzip();
        let search =
            DFA::builder().match_kind(MatchKind::Standard).build(texts).map_err(|error| error.to_string())?;
        let start = search.start_state(Anchored::No).map_err(|error| error.to_string())?;
        Ok(Self { search, start, meanings, names: Names::new(names)?, tokens, commands })
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
                let rest = bytes.get(at..)?;
                let read = rest.iter().position(|byte| {
                    state = dfa.next_state(Anchored::No, state, searched_as(*byte));
                    dfa.is_special(state)
                });
                at += read? + 1;
                if dfa.is_match(state) {
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
        let mut runs = Runs::default();
        let mut value = Memory::default();
        let (mut block_end, mut putty_end) = (from, from);
        let mut telling = false;
        let mut classified = usize::MAX;
        // The buffer does not change while it is searched; what segments say does.
        let text = std::mem::take(&mut document.text);
        let bytes = text.as_bytes();
        for (pattern, start, end) in self.occurrences(bytes, from) {
            if sink.is_spent() {
                break;
            }
            sink.spend(FOUND_STEPS);
            let Some(meaning) = self.meanings.get(pattern.as_usize()) else { continue };
            match meaning {
                Meaning::Prefix(at) => {
                    if let Some(token) = self.tokens.get(*at) {
                        secrets::prefixed(bytes, start, token, &mut runs, sink);
                    }
                }
                // Most literals in text are parts of words.
                Meaning::Name { .. } if goes_on(bytes, end) => {}
                Meaning::Name { .. } | Meaning::Jwk => {
                    while document.segments.get(segment).is_some_and(|s| (s.end as usize) < end) {
                        segment += 1;
                    }
                    let Some(current) = document.segments.get_mut(segment) else { continue };
                    let (first, last) = current.span();
                    if let Meaning::Jwk = meaning {
                        if current.part == Part::Key && (first, last) == (start, end) {
                            let container = current.container as usize;
                            document.containers.get_mut(container).into_iter().for_each(|c| c.jwk = true);
                            telling = true;
                        } else {
                            secrets::jwk(bytes, (start, end), sink);
                        }
                        continue;
                    }
                    // A name says something at its end.
                    if classified != segment && current.part != Part::Number && is_end(bytes, end, last) {
                        classified = segment;
                        if current.part == Part::Key {
                            current.says = self.names.says(text.get(first..last).unwrap_or_default());
                            sink.spend(CLASSIFY_STEPS / 2);
                            telling |= !matches!(current.says, Says::Nothing | Says::Value);
                        } else if last - first <= PAIR_NAME_MAX && current.part == Part::Text {
                            let says = self.names.says(text.get(first..last).unwrap_or_default());
                            sink.spend(CLASSIFY_STEPS);
                            if matches!(says, Says::Rule(..)) {
                                scratch.pairs.push((segment, says));
                            }
                        }
                    }
                    if let Meaning::Name { label: true, before } = meaning
                        && end < last
                    {
                        let start = self.name_start(&text, (start, end), *before, sink);
                        labels::look(bytes, &self.names, (start, end), &mut value, sink);
                    }
                }
                Meaning::Bearer => labels::bearer(bytes, (start, end), sink),
                Meaning::Basic => labels::basic(bytes, (start, end), &mut scratch.buffer, sink),
                Meaning::Command(at) => {
                    if let Some(command) = self.commands.get(*at) {
                        commands::look(bytes, (start, end), command, sink);
                    }
                }
                Meaning::Oracle => secrets::oracle_password(bytes, end, sink),
                Meaning::Telegram => secrets::telegram(bytes, start, sink),
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
        document.text = text;
        for (segment, says) in scratch.pairs.drain(..) {
            telling |= document.note_pair(segment, says);
        }
        telling
    }

    /// Where a name begins whose last words stand at `start..end`, and which has up to `before` more.
    fn name_start(
        &self,
        text: &str,
        (start, end): (usize, usize),
        before: usize,
        sink: &mut Sink<'_>,
    ) -> usize {
        let begin = words_before(text.as_bytes(), start, before);
        if begin == start {
            return start;
        }
        sink.spend(CLASSIFY_STEPS);
        let says = self.names.says(text.get(begin..end).unwrap_or_default());
        if matches!(says, Says::Rule(..)) { begin } else { start }
    }

    /// The commands, by the first words of theirs.
    pub(super) fn commands(&self) -> &[CommandRule] {
        &self.commands
    }

    /// The names.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }
}

/// A name as it is searched for in small letters, with a capital one, in capital ones: outside ASCII they may be other bytes.
fn cases(name: &str) -> Vec<String> {
    let mut cases = vec![name.to_owned()];
    if !name.is_ascii() {
        let mut letters = name.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        for written in [first + letters.as_str(), name.to_uppercase()] {
            let bytes = |text: &str| text.bytes().map(searched_as).collect::<Vec<u8>>();
            if cases.iter().all(|known| bytes(known) != bytes(&written)) {
                cases.push(written);
            }
        }
    }
    cases
}

/// Where the `count` words begin that stand before `start`, each parted from the next by one blank.
fn words_before(text: &[u8], start: usize, count: usize) -> usize {
    let mut begin = start;
    for _ in 0..count {
        if before(text, begin) != b' ' {
            break;
        }
        begin = run_start(text, begin - 1, WORD_MAX, |b| b.is_ascii_alphabetic() || b >= 0x80);
    }
    begin
}

/// Whether a name goes on behind byte `end`: it is another one, or a word.
fn goes_on(text: &[u8], end: usize) -> bool {
    let next = text.get(end).copied().unwrap_or(0);
    next.is_ascii_alphanumeric()
        || matches!(next, b'_' | b'-') && text.get(end + 1).is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether a segment that ends at `last` has nothing more of a name behind byte `end`.
fn is_end(text: &[u8], end: usize, last: usize) -> bool {
    last - end <= 2 && text.get(end..last).is_some_and(|rest| !rest.iter().any(u8::is_ascii_alphanumeric))
}
