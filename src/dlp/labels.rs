//! What stands behind a name in running text: "SSN: 123456789", "password=hunter2", "CVV 123", `--password hunter2`.

use super::catalogue::{Expect, NameRule};
use super::checks::{self, Shape};
use super::context::{self, Topic};
use super::explain::Judged;
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;
use super::names::Names;
use super::score::{FOUND, Score};
use super::values::{self, Candidate, Link, Seen};
use super::words::ByLength;

/// Farthest a value stands behind its name.
const REACH: usize = 40;
/// Longest name that a label is the end of.
const NAME_MAX: usize = 64;
/// Part of a value that is judged.
const SHOWN_MAX: usize = 64;
/// Of one in quotes, which may be prose.
const SHOWN_QUOTED_MAX: usize = 120;
/// Longest value.
const VALUE_MAX: usize = 4 * 1024;
/// Price of a label, of a number behind it, of a secret.
const LABEL_STEPS: usize = 10;
const NAME_STEPS: usize = 5;
const FOREIGN_STEPS: usize = 150;
const LEAD_STEPS: usize = 55;
const BESIDE_STEPS: usize = 70;
const NUMBER_STEPS: usize = 85;
const SECRET_STEPS: usize = 20;
const VALUE_STEPS: usize = 160;
const TOKEN_STEPS: usize = 60;
/// Price of what stands around one.
const AROUND_STEPS: usize = 60;
/// Price of looking for the values of a statement.
const STATEMENT_STEPS: usize = 40;
/// Longest user name and password of basic authentication.
const BASIC_MAX: usize = 512;
/// What words near a value may add to its evidence, and less than any evidence.
const MOST_FROM_AROUND: i32 = 20;
const MOST_FROM_TOPIC: i32 = 40;
const NEVER: i32 = -1_000;
/// What a name counts at least that says by itself what stands beside it.
const STRONG: i32 = 60;

/// Words that may stand between a name and its value.
const FILLERS: ByLength = ByLength(&[&[], &[], &["my"], &["the"], &[], &["value"], &["equals"]]);
/// Those that may stand between a name and a number.
const NUMBER_FILLERS: ByLength = ByLength(&[
    &[],
    &[],
    &["no", "nr", "id", "of"],
    &["num", "for", "are", "key"],
    &["code"],
    &["token"],
    &["number", "policy"],
    &["numbers"],
]);

/// True for a word that may stand between a name and its value; of a number more than of a credential.
fn is_filler(word: &[u8], number: bool) -> bool {
    FILLERS.has(word) || number && NUMBER_FILLERS.has(word) || COPULAS.has(word)
}

/// "is", in languages that have it between a name and its value.
const COPULAS: ByLength = ByLength(&[
    &[],
    &[],
    &["is", "to", "as", "es", "è", "é", "je", "er", "on", "ir"],
    &["was", "ist", "est", "är"],
    &["jest", "este"],
    &[],
    &["equals", "lautet"],
]);

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// Where the value of a name begins, and how the name leads there; no link where nothing does.
fn lead(text: &[u8], start: usize, end: usize, number: bool) -> (usize, Option<Link>) {
    let closing = |b: u8| is_quote(b) || matches!(b, b'\\' | b']' | b')' | b'*');
    let blank = |b: u8| matches!(b, b' ' | b'\t');
    let opening =
        |b: u8| is_quote(b) || matches!(b, b'\\' | b'*' | b' ' | b'\t' | b'\n' | b'\r' | b'[' | b'(' | b'{');
    let mut place = run_end(text, end, 3, closing);
    let closed = place;
    let mut said = false;
    for _ in 0..4 {
        let word = run_end(text, place, 4, |b| blank(b) || matches!(b, b'_' | b'#' | b'.' | b'('));
        let word_end = run_end(text, word, 8, |b| b.is_ascii_alphabetic() || b >= 0x80);
        let filler = text.get(word..word_end).unwrap_or_default();
        if word_end == word || word_end - end > REACH || !is_filler(filler, number) {
            place = word;
            break;
        }
        said = COPULAS.has(filler);
        place = word_end;
    }
    let value = run_end(text, place, 4, blank);
    let hollow = is_quote(at(text, value))
        && at(text, value + 1) == at(text, value)
        && at(text, value + 2) != at(text, value);
    place = run_end(text, place, 4, |b| closing(b) || blank(b));
    // "NAME -> VALUE".
    place += usize::from(at(text, place) == b'-' && at(text, place + 1) == b'>');
    let leads = run_end(text, place, 3, |b| matches!(b, b':' | b'=' | b'>' | b'|'));
    if let Some(from) = behind_a_type(text, end, leads) {
        return (from, Some(Link::Stated));
    }
    let from = run_end(text, leads, 6, opening);
    let (first, second) = (at(text, leads), at(text, leads + 1));
    let skipped = text.get(leads..from).unwrap_or_default();
    let lines = skipped.iter().filter(|b| **b == b'\n').count();
    let stars = skipped.iter().filter(|b| **b == b'*').count();
    let empty = is_quote(first) && second == first && at(text, leads + 2) != first;
    // Nothing, a mask, or another line that says something else.
    let nothing = empty || stars > 2 || lines > 1 || lines == 1 && !is_alone(text, from);
    if leads > place && nothing || said && (empty || hollow) {
        return (from, None);
    }
    if leads > place {
        // A string of another kind: N'…', b"…", r"…".
        let from = match (at(text, from), at(text, from + 1)) {
            (b'N' | b'b' | b'r' | b'f' | b'u', quote) if is_quote(quote) => from + 2,
            _ => from,
        };
        // "a == b" compares, "a => b" and "a: b" state.
        let tight = place == closed && leads == place + 1 && at(text, place) == b'=';
        let link = if tight && !blank(at(text, leads)) { Link::Equals } else { Link::Stated };
        return (from, Some(link));
    }
    if said {
        return (from, Some(Link::Said));
    }
    // "--password hunter2", "IDENTIFIED BY 'hunter2'".
    let gap = run_end(text, end, 4, blank);
    if gap > end && at(text, start) == b'-' && !matches!(at(text, gap), b'-' | 0 | b'\n') {
        return (run_end(text, gap, 1, is_quote), Some(Link::Option));
    }
    let literal = |place: usize| is_quote(at(text, place));
    if gap > end && literal(gap) || at(text, end) == b'(' && literal(end + 1) {
        return (gap + 1 + usize::from(gap == end), Some(Link::Statement));
    }
    (from, None)
}

/// Whether a value is all that stands in its line.
fn is_alone(text: &[u8], from: usize) -> bool {
    let inside = |b: u8| !matches!(b, 0 | b'\n' | b'\r');
    let begin = run_start(text, from, 40, |b| inside(b) && b != b'\\');
    let line = text.get(begin..run_end(text, from, 200, inside)).unwrap_or_default().trim_ascii();
    !line.is_empty() && !line.iter().any(|b| matches!(b, b' ' | b'=' | b':' | b'('))
}

/// The literal behind a name and its type: `NAME: &str = "VALUE"`, `NAME[] = "VALUE"`.
fn behind_a_type(text: &[u8], end: usize, leads: usize) -> Option<usize> {
    if is_quote(at(text, leads)) || !matches!(at(text, end), b':' | b'[' | b' ') {
        return None;
    }
    let kind = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'_' | b'&'
                    | b'<'
                    | b'>'
                    | b'['
                    | b']'
                    | b'?'
                    | b':'
                    | b' '
                    | b'*'
                    | b'.'
                    | b'{'
                    | b'}'
                    | b';'
            )
    };
    let equals = run_end(text, end, 32, kind);
    let between = text.get(end..equals).unwrap_or_default();
    let properties = memchr::memmem::find(between, b"get;").is_some();
    if at(text, equals) != b'=' || equals == end || memchr::memchr(b';', between).is_some() && !properties {
        return None;
    }
    let from = run_end(text, equals + 1, 2, |b| b == b' ');
    is_quote(at(text, from)).then_some(from + 1)
}

/// The attribute `value` of the element whose attribute `name` this is, where it stands before it.
fn attribute_before(text: &[u8], start: usize) -> Option<usize> {
    let from = run_start(text, start, 120, |b| !matches!(b, 0 | b'<' | b'>' | b'\n'));
    let head = text.get(from..start)?;
    let place = from + memchr::memmem::rfind(head, b" value=")? + 7;
    let named = head.ends_with(b"name='")
        || head.ends_with(b"name=\"")
        || head.ends_with(b"id='")
        || head.ends_with(b"id=\"");
    (before(text, from) == b'<' && named && is_quote(at(text, place))).then_some(place + 1)
}

/// The text of the next element of XML or HTML: `<key>NAME</key><string>VALUE</string>`.
fn next_element(text: &[u8], end: usize) -> Option<usize> {
    if at(text, end) != b'<' || at(text, end + 1) != b'/' {
        return None;
    }
    let closed = run_end(text, end, 40, |b| b != b'>' && b != 0) + 1;
    let opened = run_end(text, closed, 4, |b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
    let from = run_end(text, opened, 60, |b| b != b'>' && b != 0) + 1;
    (at(text, opened) == b'<' && at(text, opened + 1) != b'/' && at(text, from - 1) == b'>').then_some(from)
}

/// What stands at the place of a column among the values: `INSERT INTO t (a, password) VALUES ('x', 'y')`; the value of
/// `SET PASSWORD FOR x = 'y'`.
fn of_statement(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) -> Option<usize> {
    let next = at(text, end);
    if !matches!(next, b' ' | b',' | b')' | b'`' | b'"')
        || next == b' ' && !matches!(at(text, end + 1), b'f' | b'F')
    {
        return None;
    }
    sink.spend(STATEMENT_STEPS);
    let line = run_end(text, end, 200, |b| !matches!(b, 0 | b';'));
    let rest = text.get(end..line)?;
    if rest.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b" for ")) {
        let equals = end + memchr::memchr(b'=', rest)?;
        let from = run_end(text, equals + 1, 2, |b| b == b' ');
        return is_quote(at(text, from)).then_some(from + 1);
    }
    if !matches!(at(text, end), b',' | b')' | b'`' | b'"') {
        return None;
    }
    let word = |word: &[u8]| memchr::memmem::find(rest, word);
    let values = word(b"VALUES").or_else(|| word(b"values"))?;
    let open = run_start(text, start, 200, |b| b != b'(' && b != 0);
    let column = text.get(open..start)?.iter().filter(|b| **b == b',').count();
    let list = end + values + memchr::memchr(b'(', rest.get(values..)?)? + 1;
    let (mut at_column, mut quoted, mut place) = (0, false, list);
    while place < line && (at_column < column || quoted) {
        match at(text, place) {
            b'\'' => quoted = !quoted,
            b',' if !quoted => at_column += 1,
            _ => {}
        }
        place += 1;
    }
    let from = run_end(text, place, 2, |b| b == b' ');
    is_quote(at(text, from)).then_some(from + 1)
}

/// The value of a name/value pair in text: `name: X` and `value: Y` in the next line, `'X', 'Y'`, `ENV X Y`.
fn beside(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) -> Option<(usize, Option<Link>)> {
    let blank = |b: u8| matches!(b, b' ' | b'\t');
    let closed = run_end(text, end, 1, is_quote);
    let next = run_end(text, closed, 40, |b| blank(b) || matches!(b, b'\n' | b'\r' | b',' | b'\\' | b'n'));
    let value = run_end(text, next, 16, |b| b.is_ascii_alphabetic());
    let lead = run_end(text, value, 1, is_quote);
    let word = text.get(next..value).unwrap_or_default();
    let known = [&b"value"[..], b"v", b"val", b"parametervalue", b"optionvalue"];
    let is_value = known.iter().any(|known| word.eq_ignore_ascii_case(known));
    if is_value && matches!(at(text, lead), b':' | b'=') {
        let from = run_end(text, lead + 1, 4, |b| blank(b) || is_quote(b));
        return Some((from, Some(Link::Pair)));
    }
    if closed > end
        && before(text, start.saturating_sub(1)) == b'='
        && is_quote(before(text, start))
        && let Some(from) = attribute_before(text, start)
    {
        return Some((from, Some(Link::Pair)));
    }
    if let Some(from) = next_element(text, end) {
        return Some((from, Some(Link::Pair)));
    }
    if let Some(from) = of_statement(text, (start, end), sink) {
        return Some((from, Some(Link::Statement)));
    }
    let comma = run_end(text, closed, 1, |b| b == b',');
    let from = run_end(text, comma, 2, blank);
    if closed > end && comma > closed && is_quote(before(text, start)) && is_quote(at(text, from)) {
        return Some((from + 1, Some(Link::Array)));
    }
    let gap = run_end(text, end, 1, blank);
    let said = |from: usize, word: &[u8]| {
        let begin = from.checked_sub(word.len())?;
        text.get(begin..from).map(|said| said.eq_ignore_ascii_case(word))
    };
    let before_it = [&b"env "[..], b"setenv ", b"set "].iter().any(|word| said(start, word) == Some(true));
    let by = said(end, b" by") == Some(true) || said(end, b"pass") == Some(true);
    if gap > end && (before_it || by || of_login(text, start) || of_npm(text, start)) {
        return Some((gap, Some(Link::Option)));
    }
    // "user bob, password hunter2": what looks like nothing else.
    let value_end = run_end(text, gap, 64, |b| {
        b > b' ' && !is_quote(b) && !matches!(b, b',' | b';' | b'(' | b')' | b'<')
    });
    let shape = Shape::of(text.get(gap..value_end).unwrap_or_default());
    let mixed = shape.digits > 0 && shape.upper + shape.lower > 0 && value_end - gap >= 6;
    let ends = matches!(at(text, value_end), 0 | b'\n' | b'\r' | b',' | b';' | b')');
    (gap > end && mixed && ends).then_some((gap, Some(Link::Beside)))
}

/// `npm config set //HOST/:_authToken`.
fn of_npm(text: &[u8], start: usize) -> bool {
    let from = run_start(text, start, 80, |b| !matches!(b, 0 | b'\n'));
    before(text, start) == b':'
        && memchr::memmem::find(text.get(from..start).unwrap_or_default(), b"config set ").is_some()
}

/// "machine HOST login NAME password", as in netrc(5).
fn of_login(text: &[u8], start: usize) -> bool {
    let from = run_start(text, start, 80, |b| b != 0);
    memchr::memmem::find(text.get(from..start).unwrap_or_default(), b"login ").is_some()
}

/// Looks behind the name whose end is the literal at `start..end`.
pub(super) fn look(
    text: &[u8],
    names: &Names,
    (start, end): (usize, usize),
    memory: &mut Memory,
    sink: &mut Sink<'_>,
) {
    sink.spend(LABEL_STEPS);
    if memory.found.0 <= start && end <= memory.found.1 && !sink.keep_all {
        // A part of what was found.
        return;
    }
    let next = at(text, end);
    if next.is_ascii_alphanumeric()
        || matches!(next, b'_' | b'-') && at(text, end + 1).is_ascii_alphanumeric()
    {
        // The name goes on, and is another one.
        return;
    }
    sink.spend(NAME_STEPS);
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.') || b >= 0x80;
    let begin = run_start(text, start, NAME_MAX, part);
    let Some(name) = text.get(begin..end).and_then(|name| std::str::from_utf8(name).ok()) else { return };
    // One in other letters is looked up in another form, too.
    sink.spend(2 * name.len() + if name.is_ascii() { 0 } else { FOREIGN_STEPS });
    let Some(rule) = names.rule(names.says(name)).filter(|rule| rule.text) else { return };
    if before(text, begin) == b'{' && before(text, begin - 1) == b'$' {
        // "${DB_PASS:?missing}" asks for it.
        return;
    }
    match rule.value {
        Expect::Ssn => social_security(text, end, sink),
        Expect::Phone => phone(text, (begin, end), sink),
        Expect::Password
        | Expect::Key
        | Expect::LongKey
        | Expect::Token
        | Expect::Authorization
        | Expect::Random => {
            sink.spend(LEAD_STEPS);
            let (from, mut link) = lead(text, begin, end, false);
            let mut from = from;
            if link.is_none() {
                sink.spend(BESIDE_STEPS);
                (from, link) = beside(text, (begin, end), sink).unwrap_or((from, None));
                // A weak name says too little of what only stands beside it.
                link = link.filter(|link| *link != Link::Beside || rule.weight >= STRONG);
            }
            // What is assigned, or a part of a path, is no name; but for "--set password=…", "/password:…".
            let part = match before(text, begin) {
                b'=' => !matches!(link, Some(Link::Equals | Link::Pair)),
                b'/' => !matches!(before(text, begin.saturating_sub(1)), b' ' | 0),
                b':' => !name.starts_with('_') && !text.get(..begin).unwrap_or_default().ends_with(b"env:"),
                _ => false,
            };
            if let Some(link) = link.filter(|_| !part) {
                secret(text, (names, rule), (name, from, link), memory, sink);
            }
        }
        Expect::SecurityCode | Expect::RecordNumber | Expect::InsuranceNumber | Expect::Icd10 => {
            numbered(text, rule, name, (begin, end), sink);
        }
        // Their own passes ask for the names around them.
        Expect::Card | Expect::Street => {}
    }
}

/// Nine digits, however they are parted, shortly behind a label.
fn social_security(text: &[u8], from: usize, sink: &mut Sink<'_>) {
    sink.spend(NUMBER_STEPS);
    let start = run_end(text, from, REACH, |b| !b.is_ascii_digit() && b != 0);
    if !at(text, start).is_ascii_digit() {
        return;
    }
    // "ssn v1.2.323.03.20" is a version.
    if matches!(before(text, start), b'v' | b'V') {
        return;
    }
    let between = text.get(from..start).unwrap_or_default();
    // "SELECT id, ssn FROM t WHERE id = 123456789": the number has a name of its own.
    let assigned = memchr::memchr(b'=', between).and_then(|at| between.get(..at));
    if assigned.is_some_and(|name| name.iter().any(u8::is_ascii_alphabetic)) {
        return;
    }
    let mut digits = [0_u8; 9];
    let (mut len, mut end) = (0, start);
    for (offset, byte) in text.get(start..).unwrap_or_default().iter().take(24).enumerate() {
        if byte.is_ascii_digit() {
            let Some(slot) = digits.get_mut(len) else { return };
            *slot = *byte;
            len += 1;
            end = start + offset + 1;
        } else if !matches!(byte, b' ' | b'\t' | b'-' | b'.' | b'_' | b'/' | b'\n') || (len == 9) {
            break;
        }
    }
    // Behind a word in another line it is "Build 194.59.7805".
    let dotted = text.get(start..end).is_some_and(|number| number.contains(&b'.'));
    let worded = before(text, start) == b' ' && before(text, start - 1).is_ascii_alphabetic();
    if dotted && worded && memchr::memchr(b'\n', between).is_some() {
        return;
    }
    let right = at(text, end);
    let longer =
        right.is_ascii_alphanumeric() || (matches!(right, b'-' | b'.') && at(text, end + 1).is_ascii_digit());
    if len == 9 && !longer && checks::is_ssn(&digits) {
        sink.add(Kind::Ssn, start, end);
    }
}

/// A telephone number as it is written in its country, behind a label.
fn phone(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) {
    sink.spend(NUMBER_STEPS);
    let (from, link) = lead(text, start, end, true);
    let from = run_end(text, from, 2, |b| matches!(b, b' ' | b'.'));
    let mut groups = 0;
    let (mut digits, mut last, mut in_group) = (0, from, false);
    for (offset, byte) in text.get(from..).unwrap_or_default().iter().take(28).enumerate() {
        match byte {
            b'0'..=b'9' => {
                groups += usize::from(!in_group);
                (in_group, digits, last) = (true, digits + 1, from + offset + 1);
            }
            b'+' if offset == 0 => {}
            b' ' | b'-' | b'.' | b'/' | b'(' | b')' => in_group = false,
            _ => break,
        }
    }
    let bound = !at(text, last).is_ascii_alphanumeric() && !matches!(at(text, last), b'_' | b':');
    let sure = link.is_some() || groups > 2 || at(text, from) == b'0';
    let begins = matches!(at(text, from), b'0'..=b'9' | b'+' | b'(');
    if begins && bound && sure && ((9..=15).contains(&digits) || groups > 1 && (7..=15).contains(&digits)) {
        sink.add(Kind::Phone, from, last);
    }
}

/// A number of a few characters.
fn numbered(text: &[u8], rule: &NameRule, name: &str, (start, end): (usize, usize), sink: &mut Sink<'_>) {
    sink.spend(NUMBER_STEPS);
    let (from, link) = lead(text, start, end, true);
    let icd = rule.value == Expect::Icd10;
    let has = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || icd && b == b'.';
    let end = run_end(text, from, 32, has);
    let value = text.get(from..end).unwrap_or_default();
    let trimmed = value.len() - run_start(value, value.len(), 4, |b| matches!(b, b'-' | b'.'));
    let end = end - trimmed.min(value.len());
    let Some(value) = text.get(from..end).and_then(|value| std::str::from_utf8(value).ok()) else { return };
    if value.is_empty() || !value.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return;
    }
    sink.spend(NUMBER_STEPS);
    let shape = Shape::of(value.as_bytes());
    if shape.lower > 0 && !icd || shape.digits == 0 {
        return;
    }
    let topic = match rule.value {
        Expect::SecurityCode => Some(Topic::Payment),
        Expect::InsuranceNumber => Some(Topic::Health),
        _ => None,
    };
    let candidate = Candidate {
        name,
        value,
        seen: Seen::default(),
        link: link.unwrap_or(Link::Beside),
        quoted: false,
        number: false,
        last: false,
        code: false,
        context: false,
        json: false,
        about: false,
        names_itself: false,
        login: false,
    };
    let mut candidate = candidate;
    let total = values::judge(rule, &candidate, false).map_or(NEVER, |(score, ..)| score.total());
    if total < FOUND && total + MOST_FROM_TOPIC >= FOUND {
        candidate.context = topic.is_some_and(|topic| context::is_near(text, (start, end), topic, sink));
    }
    let judged = values::judge(rule, &candidate, sink.explained.is_some());
    let _ = sink.conclude(rule, judged, &candidate, (from, 0));
}

/// Memory of the last value, so that many names within one value cost one walk over it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Memory {
    start: usize,
    end: usize,
    /// The value that was found last.
    found: (usize, usize),
}

impl Memory {
    fn end(&mut self, text: &[u8], from: usize) -> usize {
        if from < self.start || from >= self.end {
            (self.start, self.end) = (from, value_end(text, from));
        }
        self.end
    }
}

fn value_end(text: &[u8], from: usize) -> usize {
    let stops = |b: u8| {
        b <= b' '
            || matches!(
                b,
                b'"' | b'\'' | b'`' | b',' | b';' | b'&' | b'<' | b'>' | b'|' | b')' | b'}' | b']' | b'\\'
            )
    };
    run_end(text, from, usize::MAX, |b| !stops(b))
}

fn secret(
    text: &[u8],
    (names, rule): (&Names, &NameRule),
    (name, from, link): (&str, usize, Link),
    memory: &mut Memory,
    sink: &mut Sink<'_>,
) {
    sink.spend(SECRET_STEPS);
    // "Authorization: Token X", "Cookie: session=X".
    let scheme = run_end(text, from, 16, |b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'));
    let guard = text.get(from..scheme).unwrap_or_default();
    if [&b"csrf"[..], b"xsrf"].iter().any(|word| guard.windows(4).any(|part| part.eq_ignore_ascii_case(word)))
    {
        return;
    }
    let begins = from;
    let from = match (rule.value, at(text, scheme)) {
        (Expect::Authorization, b' ') if scheme > from => scheme + 1,
        (Expect::Random, b'=') if name.len() <= 10 && scheme > from => scheme + 1,
        _ => from,
    };
    // A scheme stands in the quotes, too.
    let quote = match before(text, begins) {
        // The text of an element.
        b'>' if link == Link::Pair => b'<',
        quote => quote,
    };
    let is_quote = |b: u8| is_quote(b) || b == b'<';
    let quoted = is_quote(quote);
    let mut end = if quoted {
        run_end(text, from, VALUE_MAX, |b| b != quote && !matches!(b, 0 | b'\n' | b'\r'))
    } else {
        memory.end(text, from).min(from + VALUE_MAX)
    };
    let quoted = quoted && at(text, end) == quote;
    if !quoted && is_quote(quote) {
        end = memory.end(text, from).min(from + VALUE_MAX);
    }
    // The quote of a string in a string, the end of a sentence.
    let tail = |b: u8| if quoted { b == b'\\' } else { matches!(b, b'.' | b'!' | b'?' | b':') };
    if !quoted && text.get(end.saturating_sub(3)..end) == Some(b"...") {
        return;
    }
    end = run_start(text, end, 2, tail).max(from);
    // The beginning of a long value says what it is.
    let most = if quoted { SHOWN_QUOTED_MAX } else { SHOWN_MAX };
    let mut shown = end.min(from + most);
    while shown > from && at(text, shown) & 0xc0 == 0x80 {
        // Within a character.
        shown -= 1;
    }
    let Some(value) = text.get(from..shown).map(String::from_utf8_lossy) else { return };
    if value.len() < 3 || value.len() >= SHOWN_QUOTED_MAX && value.contains(' ') {
        return;
    }
    if quoted && value.starts_with([':', ')', ',', ';', '.', ' ', '=']) {
        // The quote closed something.
        return;
    }
    if !quoted && (value.starts_with('@') || value.ends_with('=') && is_quote(at(text, end))) {
        // The rest of something else: "<password>@host", `"password" :type="…"`.
        return;
    }
    let price = match rule.value {
        _ if !quoted && value.contains(['(', '[', '{']) => LABEL_STEPS,
        Expect::Token => TOKEN_STEPS,
        _ => VALUE_STEPS,
    };
    sink.spend(price + 4 * value.len());
    let rest = run_end(text, end, 64, |b| matches!(b, b' ' | b'\t' | b'.' | b'!'));
    let last = matches!(at(text, rest), 0 | b'\n' | b'\r' | b'\\');
    let mut candidate = Candidate {
        name,
        value: &value,
        seen: Seen::default(),
        link,
        quoted,
        number: false,
        last,
        code: false,
        context: false,
        json: false,
        about: false,
        names_itself: false,
        login: false,
    };
    // What lies around it is looked at where it can change the outcome.
    let judged = values::judge(rule, &candidate, sink.explained.is_some());
    let total = judged.as_ref().map_or(NEVER, |(score, ..)| score.total());
    if sink.explained.is_none() && total + MOST_FROM_AROUND < FOUND {
        return;
    }
    sink.spend(AROUND_STEPS);
    candidate.login = rule.weight < 50 && context::is_near(text, (from, end), Topic::Login, sink);
    if total + if candidate.login { MOST_FROM_AROUND } else { 0 } >= FOUND {
        candidate.names_itself = names.is_name(&value);
        candidate.code = !quoted && context::is_code(text, (from, end), sink);
        candidate.context = rule.value == Expect::Token
            && rule.weight < 50
            && context::is_near(text, (from, end), Topic::Language, sink);
    }
    if sink.conclude(rule, judged, &candidate, (from, end - shown)) {
        memory.found = (from, end);
    }
}

/// A credential behind "Bearer".
pub(super) fn bearer(text: &[u8], (start, from): (usize, usize), sink: &mut Sink<'_>) {
    if before(text, start).is_ascii_alphanumeric() {
        return;
    }
    let end = run_end(text, from, VALUE_MAX, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    });
    let value = text.get(from..end).unwrap_or_default();
    sink.spend(LABEL_STEPS + 2 * value.len());
    let shape = Shape::of(value);
    if value.len() >= 16 && shape.digits >= 2 && shape.lower + shape.upper >= 4 {
        sink.add(Kind::AuthToken, from, end);
    }
}

/// A user and a password behind "Basic".
pub(super) fn basic(text: &[u8], (start, from): (usize, usize), buffer: &mut Vec<u8>, sink: &mut Sink<'_>) {
    if before(text, start).is_ascii_alphanumeric() {
        return;
    }
    let end =
        run_end(text, from, BASIC_MAX, |b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    buffer.clear();
    let value = text.get(from..end).unwrap_or_default();
    sink.spend(2 * value.len());
    if value.len() < 8 || !super::layers::base64_text(value, buffer) {
        return;
    }
    let user = memchr::memchr(b':', buffer);
    if user.is_some_and(|colon| colon > 0 && colon + 1 < buffer.len()) {
        sink.add(Kind::Password, from, end);
    }
}

impl Sink<'_> {
    /// Adds what was judged, where the evidence is enough, and says whether it is, of the value at byte `base` of the buffer, of which `more` bytes were not shown.
    pub(super) fn conclude(
        &mut self,
        rule: &NameRule,
        mut judged: Option<(Score, usize, usize)>,
        candidate: &Candidate<'_>,
        (base, more): (usize, usize),
    ) -> bool {
        if let Some((score, ..)) = &mut judged {
            values::around(rule, candidate, score);
        }
        let found =
            judged.as_ref().filter(|(score, ..)| score.is_found()).map(|(_, start, end)| (*start, *end));
        if let Some(explained) = &mut self.explained {
            let (total, start, evidence) = match judged {
                Some((score, start, _)) => (score.total(), start, score.into_log()),
                None => {
                    let against = ("it stands for something else, or has another form", -rule.weight);
                    (0, 0, vec![("its name", rule.weight), against])
                }
            };
            explained.push(Judged {
                rule: rule.id.clone(),
                kind: rule.kind,
                start: base + start,
                total,
                evidence,
            });
        }
        if let Some((start, end)) = found {
            let whole = end == candidate.value.trim_end().len();
            self.add(rule.kind, base + start, base + end + if whole { more } else { 0 });
        }
        found.is_some()
    }
}
