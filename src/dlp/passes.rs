//! The passes over the scan buffer: literals, field names, bytes, decoded layers, custom rules.

use std::cell::Cell;

use super::anchors::{AnchorScratch, Anchors};
use super::catalogue::Expect;
use super::commands;
use super::config::CustomRule;
use super::context::{self, Topic};
use super::digits::{self, Around};
use super::document::{Document, Origin, Part, Segment};
use super::hits::{Sink, at, before};
use super::kinds::Kind;
use super::names::{Names, Says};
use super::score::FOUND;
use super::values::{self, Candidate, Seen};
use super::{layers, places, secrets};

/// Price of a segment, and of one that was decoded; of a byte of a decoded text, of one of JSON in a
/// string, and of an unescaped one, each with what the detectors read of it.
pub(super) const SEGMENT_STEPS: usize = 8;
const DECODED_SEGMENT_STEPS: usize = 55;
const DECODED_STEPS: usize = 2;
const NESTED_STEPS: usize = 2;
const UNESCAPED_STEPS: usize = 2;
/// Price of a value that is judged by its name, beside its bytes.
const JUDGE_STEPS: usize = 150;
/// Price of one that its name and form call a secret.
const SURE_STEPS: usize = 260;
/// Part of a value that is judged, and the price of a byte of it.
const SHOWN_MAX: usize = 256;
const JUDGE_BYTE_STEPS: usize = 4;
/// What words near a value may add to its evidence: those about its topic, those about accounts.
const MOST_FROM_TOPIC: i32 = 40;
const MOST_FROM_LOGIN: i32 = 20;
/// Price of a letter before a digit, and of an escape.
const LETTER_STEPS: usize = 2;
const ESCAPE_STEPS: usize = 6;
/// Part of a text that a custom rule is matched against at a time, and how far it reaches into the next:
/// a search costs its distance once a match, so that the distance has to be bounded.
const CUSTOM_WINDOW: usize = 16 * 1024;
const CUSTOM_OVERLAP: usize = 1024;
/// Most matches of one custom rule in one message.
pub(super) const CUSTOM_HITS: usize = 1024;

const RUN: u8 = 1;
const DIGIT: u8 = 2;
const SIGN: u8 = 4;
const ESCAPE: u8 = 8;
const LINE: u8 = 16;

/// Classes of bytes.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0_u8;
    loop {
        let class = match byte {
            b'0'..=b'9' => RUN | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'/' | b'-' | b'_' => RUN,
            b'@' => SIGN,
            b'%' | b'\\' | b'&' => ESCAPE,
            b'\r' | b'\n' => LINE,
            _ => 0,
        };
        #[allow(clippy::indexing_slicing)] // A byte cannot lie outside the table.
        {
            table[byte as usize] = class;
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn class_of(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Shortest line of base64 that goes on in the next line.
const BASE64_LINE: usize = 60;

/// Buffers of the passes.
#[derive(Debug, Default)]
pub(super) struct PassScratch {
    anchors: AnchorScratch,
    /// Runs of base64 characters that may be an encoding.
    runs: Vec<(u32, u32)>,
    /// Stretches with escapes in them: a segment's number, the first and the last escape.
    escaped: Vec<(u32, u32, u32)>,
    decoded: Vec<u8>,
    copied: String,
}

fn around<'a>(document: &'a Document, cursor: &Cell<usize>, place: usize) -> Around<'a> {
    let mut index = cursor.get();
    while document.segments.get(index + 1).is_some_and(|next| next.start as usize <= place) {
        index += 1;
    }
    cursor.set(index);
    let Some(segment) = document.segments.get(index) else {
        return Around {
            start: place,
            end: place,
            says: Says::Nothing,
            key: "",
            in_table: false,
            in_list: false,
        };
    };
    let (start, end) = segment.span();
    let key = if segment.is_value() { document.key_text(segment) } else { "" };
    let container = document.containers.get(segment.container as usize);
    Around {
        start,
        end,
        says: document.says_of(segment).0,
        key,
        in_table: document.in_table(segment),
        in_list: segment.part == Part::Number && container.is_some_and(|container| container.array),
    }
}

/// Runs the detectors over segments `first..` of the buffer, which begin at byte `from`. With `collect`,
/// what may be encoded is noted.
pub(super) fn detect(
    anchors: &Anchors,
    document: &mut Document,
    (from, first): (usize, usize),
    collect: bool,
    scratch: &mut PassScratch,
    sink: &mut Sink<'_>,
) {
    let telling = anchors.search(document, from, first, &mut scratch.anchors, sink);
    // The key of a decoded value stands in the payload.
    if telling || !collect {
        for segment in document.segments.get(first..).unwrap_or_default() {
            if sink.is_settled() || sink.is_spent() {
                break;
            }
            judge(anchors.names(), document, segment, sink);
        }
    }
    bytes(document, (from, first), collect, scratch, sink);
    for index in first..document.segments.len() {
        let Some(segment) = document.segments.get(index).filter(|_| collect) else { break };
        let first_of_array = segment.step == 0
            && segment.part == Part::Text
            && segment.end - segment.start <= COMMAND_NAME_MAX
            && document.containers.get(segment.container as usize).is_some_and(|container| container.array);
        if first_of_array && !sink.is_spent() {
            commands::look_at_array(document, anchors.commands(), index, sink);
        }
    }
}

/// Longest text that is taken for the name of a command, in bytes.
const COMMAND_NAME_MAX: u32 = 32;

fn judge(names: &Names, document: &Document, segment: &Segment, sink: &mut Sink<'_>) {
    jwk(document, segment, sink);
    let (says, link) = document.says_of(segment);
    let Some(rule) = names.rule(says) else { return };
    // Those of digits are told by the digit pass.
    if matches!(rule.value, Expect::Ssn | Expect::Phone | Expect::Card) {
        return;
    }
    let Some(value) = document.slice(segment.span()) else { return };
    let mut shown = value.len().min(SHOWN_MAX);
    while !value.is_char_boundary(shown) {
        shown -= 1;
    }
    let (value, more) = (value.get(..shown).unwrap_or(value), value.len() - shown);
    sink.spend(JUDGE_STEPS + JUDGE_BYTE_STEPS * shown);
    // The decoded form of a password is one only when the encoded form is.
    let by_shape = [Expect::SecurityCode, Expect::RecordNumber, Expect::InsuranceNumber, Expect::Icd10];
    if matches!(segment.origin, Origin::Decoded | Origin::Percent) && segment.part == Part::Text {
        let outer = document.slice((segment.source as usize, segment.source_end as usize));
        if outer.is_some_and(|outer| outer.len() >= 4) && !by_shape.contains(&rule.value) {
            return;
        }
    }
    let topic = match rule.value {
        Expect::SecurityCode => Some(Topic::Payment),
        Expect::InsuranceNumber => Some(Topic::Health),
        Expect::Token => Some(Topic::Language),
        _ => None,
    };
    let candidate = Candidate {
        name: document.name_of(segment, link),
        value,
        seen: Seen::default(),
        link,
        quoted: segment.part == Part::Text,
        number: segment.part == Part::Number,
        last: true,
        code: false,
        context: false,
        json: true,
        about: false,
        names_itself: false,
        login: false,
    };
    let mut candidate = candidate;
    let mut judged = values::judge(rule, &candidate, sink.explained.is_some());
    let total = judged.as_ref().map_or(i32::MIN, |(score, ..)| score.total());
    let most = match topic {
        Some(Topic::Payment | Topic::Health) => MOST_FROM_TOPIC,
        _ if rule.weight < 50 => MOST_FROM_LOGIN,
        _ => 0,
    };
    let text = document.text.as_bytes();
    // What lies around it is looked at where it can change the outcome.
    if total >= FOUND || sink.explained.is_some() {
        sink.spend(SURE_STEPS);
        candidate.about = document.is_about(segment);
        candidate.names_itself = segment.part == Part::Text && names.is_name(value);
        if topic == Some(Topic::Language) && rule.weight < 50 {
            candidate.context = context::is_near(text, segment.span(), Topic::Language, sink);
        }
    } else if total.saturating_add(most) >= FOUND {
        candidate.login = rule.weight < 50
            && segment.part == Part::Text
            && context::is_near(text, segment.span(), Topic::Login, sink);
        candidate.context = topic.is_some_and(|topic| context::is_near(text, segment.span(), topic, sink));
        if candidate.context {
            judged = values::judge(rule, &candidate, sink.explained.is_some());
        }
    } else {
        return;
    }
    let _ = sink.conclude(rule, judged, &candidate, (segment.start as usize, more));
}

/// The private members of a key as RFC 7517 and RFC 7518 write it.
const JWK_PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "k"];
/// Shortest of them: of a symmetric key of 128 bits.
const JWK_LEAST: usize = 16;

fn jwk(document: &Document, segment: &Segment, sink: &mut Sink<'_>) {
    let container = document.containers.get(segment.container as usize);
    if segment.part != Part::Text || !container.is_some_and(|container| container.jwk) {
        return;
    }
    let Some(value) = document.slice(segment.span()) else { return };
    let fits = value.len() >= JWK_LEAST
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='));
    if fits && JWK_PRIVATE.contains(&document.key_text(segment)) {
        sink.spend(value.len());
        sink.add(Kind::PrivateKey, segment.start as usize, segment.end as usize);
    }
}

fn bytes(
    document: &Document,
    (from, first): (usize, usize),
    collect: bool,
    scratch: &mut PassScratch,
    sink: &mut Sink<'_>,
) {
    let text = document.text.as_bytes();
    let cursor = Cell::new(first);
    let (mut run, mut in_run, mut digits_done) = (from, false, from);
    let mut next = from;
    while let Some(byte) = text.get(next) {
        let class = class_of(*byte);
        let place = next;
        next += 1;
        if class & RUN != 0 {
            if !in_run {
                (in_run, run) = (true, place);
            }
            if class == RUN {
                // Letters are most of any text, and say nothing here: on to what is none.
                let rest = text.get(next..).unwrap_or_default();
                next += rest.iter().position(|byte| class_of(*byte) != RUN).unwrap_or(rest.len());
            } else if place >= digits_done {
                if sink.is_spent() {
                    return;
                }
                let letters = place.saturating_sub(2);
                if before(text, place).is_ascii_alphabetic() && at(text, letters).is_ascii_alphabetic() {
                    sink.spend(LETTER_STEPS);
                    places::iban(text, letters, sink);
                }
                digits_done = digits::cluster(text, place, &|| around(document, &cursor, place), sink);
            }
            continue;
        }
        if in_run && !(class == LINE && place - run >= BASE64_LINE) {
            in_run = false;
            if collect && place - run >= layers::RUN_MIN {
                scratch.runs.push((run as u32, place as u32));
            }
        }
        match class {
            SIGN if !sink.is_spent() => places::email(text, place, sink),
            ESCAPE if collect && layers::escape(text, place).is_some() => {
                sink.spend(ESCAPE_STEPS);
                note_escape(document, place, &mut scratch.escaped);
            }
            _ => {}
        }
    }
}

/// How far around an escape a text is unescaped: what is farther away was looked at as it stands.
const ESCAPE_REACH: usize = 2 * 1024;

fn note_escape(document: &Document, place: usize, escaped: &mut Vec<(u32, u32, u32)>) {
    let noted = escaped.last_mut().filter(|(segment, ..)| {
        document.segments.get(*segment as usize).is_some_and(|segment| place < segment.end as usize)
    });
    let segment = match noted {
        Some((_, _, last)) if place - (*last as usize) < 2 * ESCAPE_REACH => {
            *last = place as u32;
            return;
        }
        Some((segment, ..)) => *segment,
        None => match document.segment_at(place) {
            Some((index, _)) => index as u32,
            None => return,
        },
    };
    escaped.push((segment, place as u32, place as u32));
}

/// The bytes around escapes that are unescaped together.
fn escaped_stretch(document: &Document, segment: &Segment, first: u32, last: u32) -> (usize, usize) {
    let (start, end) = segment.span();
    let mut from = start.max((first as usize).saturating_sub(ESCAPE_REACH));
    let mut to = end.min(last as usize + ESCAPE_REACH);
    while !document.text.is_char_boundary(from) {
        from -= 1;
    }
    while !document.text.is_char_boundary(to) {
        to += 1;
    }
    (from, to)
}

/// Takes one layer of encoding off whatever [`detect`] noted, and off JSON in strings, and adds what
/// comes out to the buffer.
pub(super) fn decode_layers(document: &mut Document, scratch: &mut PassScratch, sink: &mut Sink<'_>) {
    let runs = std::mem::take(&mut scratch.runs);
    let mut decoded = std::mem::take(&mut scratch.decoded);
    // Runs stand in the order of the buffer, and so do their segments.
    let mut index = 0;
    for (start, end) in &runs {
        let span = (*start as usize, *end as usize);
        if sink.is_spent() {
            break;
        }
        let text = document.text.as_bytes();
        // As a token by its length, then as an encoding.
        secrets::run(text, span.0, span.1, sink);
        let found = layers::run(text, span, &mut decoded, sink);
        let Some(found) = found else { continue };
        let Ok(text) = std::str::from_utf8(&decoded) else { continue };
        while document.segments.get(index + 1).is_some_and(|next| next.start <= *start) {
            index += 1;
        }
        sink.spend(DECODED_SEGMENT_STEPS + text.len() * DECODED_STEPS);
        if let Some(segment) = document.segments.get(index).copied() {
            document.add_decoded(segment, text, (found.0 as u32, found.1 as u32), Origin::Decoded);
        }
    }
    (scratch.runs, scratch.decoded) = (runs, decoded);
    scratch.runs.clear();

    let escaped = std::mem::take(&mut scratch.escaped);
    let mut copied = std::mem::take(&mut scratch.copied);
    for (index, first, last) in &escaped {
        let Some(segment) = document.segments.get(*index as usize).copied() else { continue };
        let stretch = escaped_stretch(document, &segment, *first, *last);
        let source = document.slice(stretch).unwrap_or_default();
        if sink.is_spent() {
            break;
        }
        sink.spend(DECODED_SEGMENT_STEPS + source.len() * UNESCAPED_STEPS);
        copied.clear();
        if layers::unescape(source, &mut copied) {
            let from = (stretch.0 as u32, stretch.1 as u32);
            document.add_decoded(segment, &copied, from, Origin::Percent);
        }
    }
    scratch.escaped = escaped;
    scratch.escaped.clear();
    nested_json(document, &mut copied, sink);
    scratch.copied = copied;
}

fn nested_json(document: &mut Document, copied: &mut String, sink: &mut Sink<'_>) {
    let count = document.segments.len();
    for index in 0..count {
        let Some(segment) = document.segments.get(index).copied() else { continue };
        if segment.part != Part::Text || !matches!(segment.origin, Origin::Same | Origin::Folded) {
            continue;
        }
        let Some(source) = document.slice(segment.span()) else { continue };
        let first = source.as_bytes().first().copied().unwrap_or(0);
        if !matches!(first, b'{' | b'[' | b'"' | b' ' | b'\n' | b'\t' | b'\r') || source.len() < 2 {
            continue;
        }
        let trimmed = source.trim_start();
        if !matches!(trimmed.as_bytes().first(), Some(b'{' | b'[' | b'"')) {
            continue;
        }
        if sink.is_spent() {
            return;
        }
        sink.spend(DECODED_SEGMENT_STEPS);
        if serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_err() {
            continue;
        }
        let base = segment.end - trimmed.len() as u32;
        copied.clear();
        copied.push_str(trimmed);
        let before = document.segments.len();
        sink.spend(trimmed.len() * NESTED_STEPS);
        document.add_json(copied, Some(segment), base);
        sink.spend((document.segments.len() - before) * 2 * SEGMENT_STEPS);
    }
}

/// Matches the custom rules against every segment.
pub(super) fn custom(document: &Document, rules: &[CustomRule], first_rule: usize, sink: &mut Sink<'_>) {
    'rules: for (index, rule) in rules.iter().enumerate() {
        let number = (first_rule + index) as u16;
        let action = sink.actions.get(usize::from(number)).copied().unwrap_or(rule.action);
        let mut left = CUSTOM_HITS;
        for segment in &document.segments {
            let (base, _) = segment.span();
            let text = document.slice(segment.span()).unwrap_or_default();
            let mut window = 0;
            let mut done = 0;
            loop {
                let mut to = text.len().min(window + CUSTOM_WINDOW + CUSTOM_OVERLAP);
                while !text.is_char_boundary(to) {
                    to += 1;
                }
                // A match begins in its window; one that begins in the overlap is the next window's.
                let last = to == text.len();
                let haystack = text.get(..to).unwrap_or_default();
                let mut search = window.max(done);
                while let Some(found) = rule.regex.find_at(haystack, search) {
                    if !last && found.start() >= window + CUSTOM_WINDOW {
                        break;
                    }
                    if left == 0 {
                        // The other rules are matched all the same.
                        sink.drop_rule(number);
                        continue 'rules;
                    }
                    left -= 1;
                    sink.add_rule(number, action, base + found.start(), base + found.end());
                    // No rule matches the empty text, but a look-around may match between two characters.
                    search = found.end().max(found.start() + 1);
                    while !text.is_char_boundary(search) {
                        search += 1;
                    }
                    done = search;
                    if search >= to {
                        break;
                    }
                }
                if last {
                    break;
                }
                window += CUSTOM_WINDOW;
                while !text.is_char_boundary(window) {
                    window += 1;
                }
            }
        }
    }
}

/// Shortest decimal or exponent form of a number that hides nine digits.
const DECIMAL_MIN: u32 = 7;
/// Fewest and most digits of a whole number that says something.
const WHOLE_DIGITS: (usize, usize) = (7, 19);

/// Adds the integer form of numbers that are written with a fraction or an exponent but are whole:
/// `1.23456789e8`.
pub(super) fn whole_numbers(document: &mut Document, scratch: &mut PassScratch, sink: &mut Sink<'_>) {
    for index in 0..document.segments.len() {
        let Some(segment) = document.segments.get(index).copied() else { continue };
        if segment.part != Part::Number || segment.end - segment.start < DECIMAL_MIN {
            continue;
        }
        let text = document.slice(segment.span()).unwrap_or_default();
        if sink.is_spent() {
            break;
        }
        if whole_number(text.as_bytes(), &mut scratch.copied) {
            sink.spend(DECODED_SEGMENT_STEPS + scratch.copied.len() * DECODED_STEPS);
            document.add_decoded(segment, &scratch.copied, (segment.start, segment.end), Origin::Decoded);
        }
    }
    scratch.copied.clear();
}

/// The digits of a number that is whole although it has a fraction or an exponent. Read as text, because
/// a list of fractions is ordinary and must stay cheap.
fn whole_number(text: &[u8], digits: &mut String) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', unsigned) {
        Some(e) => unsigned.split_at(e),
        None => (unsigned, &b""[..]),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(point) => (mantissa.get(..point), mantissa.get(point + 1..)),
        None if exponent.is_empty() => return false,
        None => (Some(mantissa), None),
    };
    let (whole, fraction) = (whole.unwrap_or_default(), fraction.unwrap_or_default());
    let shift = exponent.get(1..).and_then(|digits| std::str::from_utf8(digits).ok());
    let shift = match shift.map(str::parse::<i32>) {
        None => 0,
        Some(Ok(shift)) => shift,
        // Beyond any number that a reader could hold.
        Some(Err(_)) => return false,
    };
    // Where the point stands in the digits of the mantissa, once the exponent has moved it.
    let Some(point) = i32::try_from(whole.len()).ok().and_then(|len| len.checked_add(shift)) else {
        return false;
    };
    let Ok(point) = usize::try_from(point) else { return false };
    let zeroes = whole.iter().chain(fraction).take_while(|digit| **digit == b'0').count();
    let length = point.saturating_sub(zeroes);
    if zeroes == whole.len() + fraction.len()
        || !(WHOLE_DIGITS.0..=WHOLE_DIGITS.1).contains(&length)
        || whole.iter().chain(fraction).skip(point).any(|digit| *digit != b'0')
    {
        return false;
    }
    digits.clear();
    let written = whole.iter().chain(fraction).chain(std::iter::repeat(&b'0'));
    digits.extend(written.skip(zeroes).take(length).map(|digit| char::from(*digit)));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_whole_are_written_out() {
        let mut digits = String::new();
        for (text, whole) in [
            ("1.23456789e8", "123456789"),
            ("-1.23456789E+8", "123456789"),
            ("123456789.0", "123456789"),
            ("123456789.000e0", "123456789"),
            ("1234567890e-1", "123456789"),
            ("0.000123456789e12", "123456789"),
            ("1e7", "10000000"),
            ("4111111111111111.0", "4111111111111111"),
        ] {
            assert!(whole_number(text.as_bytes(), &mut digits), "{text}");
            assert_eq!(digits, whole, "{text}");
        }
        for text in
            ["123456789", "0.12345678", "1.5", "1.23456789e7", "1e6000000000", "1e-9", "1e400", "0.0e9"]
        {
            assert!(!whole_number(text.as_bytes(), &mut digits), "{text}: {digits}");
        }
    }
}
