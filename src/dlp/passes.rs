//! The passes over the scan buffer: literals, field names, bytes, decoded layers, custom rules.

use std::cell::Cell;

use super::anchors::{AnchorScratch, Anchors};
use super::config::CustomRule;
use super::digits::{self, Around};
use super::document::{Document, Origin, Part, Segment};
use super::fields::{self, KeyClass};
use super::hits::{Sink, at, before};
use super::{layers, places};

/// What the decoding of one message's layers may cost, in bytes looked at.
pub(super) const LAYER_WORK: usize = 4 * 1024 * 1024;
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

/// Shortest line of base64 that goes on in the next line.
const BASE64_LINE: usize = 60;

/// Buffers of the passes.
#[derive(Debug, Default)]
pub(super) struct PassScratch {
    anchors: AnchorScratch,
    /// Runs of base64 characters that may be an encoding.
    runs: Vec<(u32, u32)>,
    /// Segments with an escape in them.
    escaped: Vec<u32>,
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
        return Around { start: place, end: place, class: KeyClass::None, key: "" };
    };
    let (start, end) = segment.span();
    let key = if segment.is_value() { document.key_text(segment) } else { "" };
    Around { start, end, class: document.class_of(segment), key }
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
            if sink.is_settled() {
                break;
            }
            judge(document, segment, sink);
        }
    }
    bytes(document, (from, first), collect, scratch, sink);
}

fn judge(document: &Document, segment: &Segment, sink: &mut Sink<'_>) {
    let class = document.class_of(segment);
    if matches!(class, KeyClass::None | KeyClass::Value) {
        return;
    }
    let Some(value) = document.slice(segment.span()) else { return };
    // The decoded form of a password is one only when the encoded form is.
    if matches!(segment.origin, Origin::Decoded | Origin::Percent) && segment.part == Part::Text {
        let outer = document.slice((segment.source as usize, segment.source_end as usize));
        if outer.is_some_and(|outer| outer.len() >= 4)
            && !matches!(class, KeyClass::Cvv | KeyClass::Mrn | KeyClass::HealthInsurance | KeyClass::Icd10)
        {
            return;
        }
    }
    let number = segment.part == Part::Number;
    if let Some((kind, start, end)) = fields::judge(class, document.key_text(segment), value, number) {
        let base = segment.start as usize;
        sink.add(kind, base + start, base + end);
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
    for (offset, byte) in text.get(from..).unwrap_or_default().iter().enumerate() {
        let class = CLASSES.get(usize::from(*byte)).copied().unwrap_or(0);
        let place = from + offset;
        if class & RUN != 0 {
            if !in_run {
                (in_run, run) = (true, place);
            }
            if class & DIGIT != 0 && place >= digits_done {
                let letters = place.saturating_sub(2);
                if before(text, place).is_ascii_alphabetic() && at(text, letters).is_ascii_alphabetic() {
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
            SIGN => places::email(text, place, sink),
            ESCAPE if collect && layers::escape(text, place).is_some() => {
                note_escape(document, place, &mut scratch.escaped);
            }
            _ => {}
        }
    }
}

fn note_escape(document: &Document, place: usize, escaped: &mut Vec<u32>) {
    let noted = escaped.last().and_then(|last| document.segments.get(*last as usize));
    if noted.is_some_and(|segment| place < segment.end as usize) {
        return;
    }
    if let Some((index, _)) = document.segment_at(place) {
        escaped.push(index as u32);
    }
}

/// Takes one layer of encoding off whatever [`detect`] noted, and off JSON in strings, and adds what
/// comes out to the buffer. Returns whether all of it could be looked at.
pub(super) fn decode_layers(document: &mut Document, scratch: &mut PassScratch, sink: &mut Sink<'_>) -> bool {
    let mut work = LAYER_WORK;
    let runs = std::mem::take(&mut scratch.runs);
    let mut decoded = std::mem::take(&mut scratch.decoded);
    for (start, end) in &runs {
        let span = (*start as usize, *end as usize);
        let found = layers::run(document.text.as_bytes(), span, &mut decoded, &mut work, sink);
        let Some(found) = found else { continue };
        let Ok(text) = std::str::from_utf8(&decoded) else { continue };
        if let Some((_, segment)) = document.segment_at(span.0) {
            document.add_decoded(segment, text, (found.0 as u32, found.1 as u32), Origin::Decoded);
        }
    }
    (scratch.runs, scratch.decoded) = (runs, decoded);
    scratch.runs.clear();

    let escaped = std::mem::take(&mut scratch.escaped);
    let mut copied = std::mem::take(&mut scratch.copied);
    for index in &escaped {
        let Some(segment) = document.segments.get(*index as usize).copied() else { continue };
        let source = document.slice(segment.span()).unwrap_or_default();
        work = work.saturating_sub(source.len());
        copied.clear();
        if work > 0 && layers::unescape(source, &mut copied) {
            document.add_decoded(segment, &copied, (segment.start, segment.end), Origin::Percent);
        }
    }
    scratch.escaped = escaped;
    scratch.escaped.clear();
    let all = nested_json(document, &mut copied, &mut work);
    scratch.copied = copied;
    all && work > 0
}

fn nested_json(document: &mut Document, copied: &mut String, work: &mut usize) -> bool {
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
        if *work < trimmed.len() {
            return false;
        }
        *work -= trimmed.len();
        if serde_json::from_str::<serde::de::IgnoredAny>(trimmed).is_err() {
            continue;
        }
        let base = segment.end - trimmed.len() as u32;
        copied.clear();
        copied.push_str(trimmed);
        document.add_json(copied, Some(segment), base);
    }
    true
}

/// Matches the custom rules against every segment.
pub(super) fn custom(document: &Document, rules: &[CustomRule], first_rule: usize, sink: &mut Sink<'_>) {
    for (index, rule) in rules.iter().enumerate() {
        let number = (first_rule + index) as u16;
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
                        sink.drop_rule(rule.action);
                        return;
                    }
                    left -= 1;
                    sink.add_rule(number, rule.action, base + found.start(), base + found.end());
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

/// Adds the integer form of numbers that are written with a fraction or an exponent but are whole:
/// `1.23456789e8`.
pub(super) fn whole_numbers(document: &mut Document) {
    for index in 0..document.segments.len() {
        let Some(segment) = document.segments.get(index).copied() else { continue };
        if segment.part != Part::Number || segment.end - segment.start < DECIMAL_MIN {
            continue;
        }
        let text = document.slice(segment.span()).unwrap_or_default();
        if !text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
            continue;
        }
        let Ok(value) = text.parse::<f64>() else { continue };
        let whole = value.abs();
        if (1e6..1e17).contains(&whole) && whole.fract() == 0.0 {
            let written = format!("{whole:.0}");
            document.add_decoded(segment, &written, (segment.start, segment.end), Origin::Decoded);
        }
    }
}
