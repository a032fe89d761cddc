//! The scan buffer: the folded text of every key, string and number of a payload, one after the other,
//! a NUL between each two. Detectors run over the buffer as a whole; a match is walked back to its
//! segment, and from there to the bytes of the payload, only when there is one.

use super::fold::{SourceChars, append_folded, fold};
use super::names::Says;
use super::values::Link;

/// Bytes of a long string that are looked at together.
const CHUNK: usize = 16;
/// Longest pointer of a finding, in bytes; the middle of a longer one is not written out.
pub(super) const MAX_POINTER_BYTES: usize = 2 * 1024;
/// Longest number in which no built-in detector finds anything: arrays have millions of them.
const SHORT_NUMBER: usize = 2;
/// Stands for the container or the step of a segment that has none.
pub(super) const NONE: u32 = u32::MAX;

/// Keys of the name, and of the value, in objects that are name/value pairs.
const PAIR_NAMES: &[&str] = &[
    "name",
    "key",
    "field",
    "header",
    "parameter",
    "param",
    "variable",
    "attribute",
    "property",
    "label",
    "k",
    "id",
    "setting",
    "option",
    "title",
];
const PAIR_VALUES: &[&str] =
    &["value", "val", "v", "content", "text", "data", "default", "current", "answer"];

/// Keys of what is about values, and how many containers around one are looked at.
const ABOUT: &[&str] = &[
    "errors",
    "error",
    "violations",
    "fielderrors",
    "field_errors",
    "validation",
    "validators",
    "rules",
    "messages",
    "translations",
    "labels",
    "i18n",
    "locale",
    "placeholders",
    "hints",
    "tooltips",
    "properties",
    "columns",
    "types",
    "schema",
    "required",
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "pl",
    "sv",
    "da",
    "nb",
    "cs",
    "fi",
    "hu",
    "ro",
    "tr",
    "en-us",
    "en_us",
    "pt-br",
    "pt_br",
];
const ANCESTORS: usize = 4;

/// Whether a key is one of these, or ends with one of three letters or more.
fn ends_with_one(key: &str, known: &[&str]) -> bool {
    known.iter().any(|known| match key.len().checked_sub(known.len()) {
        None => false,
        Some(0) => key.eq_ignore_ascii_case(known),
        Some(from) => known.len() >= 3 && key.get(from..).is_some_and(|end| end.eq_ignore_ascii_case(known)),
    })
}

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A text beside the payload: `step` says which.
    Beside,
    Key,
    Text,
    Number,
}

/// How a segment's text came from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Byte for byte out of the payload.
    Same,
    /// Unescaped or folded out of the payload.
    Folded,
    /// Byte for byte out of another part of the buffer (a value of JSON in a string).
    Inner,
    /// Decoded out of another part of the buffer, which matches as a whole.
    Decoded,
    /// The percent-decoded form of another part of the buffer.
    Percent,
}

/// One text in the buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Where it stands in the buffer.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Where it came from: bytes of the payload, inside the quotes, or of the buffer.
    pub(super) source: u32,
    pub(super) source_end: u32,
    /// The container it stands in, and its key (a segment) or its place there.
    pub(super) container: u32,
    pub(super) step: u32,
    pub(super) part: Part,
    pub(super) origin: Origin,
    /// What the name says, when the segment is a key.
    pub(super) says: Says,
}

impl Segment {
    /// The segment's bytes in the buffer.
    pub(super) fn span(&self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    /// True for what a key names: everything but keys and the message type.
    pub(super) fn is_value(&self) -> bool {
        matches!(self.part, Part::Text | Part::Number)
    }
}

/// An array or object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container {
    pub(super) parent: u32,
    pub(super) step: u32,
    pub(super) array: bool,
    /// What the text of a member `name` says about the member `value` beside it.
    pub(super) named: Says,
    /// Of an array: which of its elements that is.
    pub(super) named_at: u32,
    /// The segment of that name.
    pub(super) named_by: u32,
    /// It has a member `kty`: a key as RFC 7517 writes it.
    pub(super) jwk: bool,
}

/// An open container during the walk.
#[derive(Debug, Clone, Copy)]
struct Open {
    container: u32,
    step: u32,
    array: bool,
    key_next: bool,
}

/// The scan buffer and its segments.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) text: String,
    pub(super) segments: Vec<Segment>,
    pub(super) containers: Vec<Container>,
    open: Vec<Open>,
    /// Numbers of [`SHORT_NUMBER`] bytes are kept: a rule of one's own may match them.
    pub(super) keep_short: bool,
    /// What JSON found in a string stands in, in place of a container of its own.
    root: (u32, u32),
}

/// The first byte of a string from `from` on that ends it, and whether it has escapes or other bytes
/// than ASCII.
fn string_end(bytes: &[u8], from: usize) -> (usize, bool) {
    let mut high = 0_u8;
    let mut escapes = false;
    let mut at = from;
    loop {
        // Most strings are short; a long one is read in chunks that neither end nor escape.
        let mut left = CHUNK;
        while left > 0 {
            match bytes.get(at) {
                None => return (bytes.len(), escapes || high >= 0x80),
                Some(b'"') => return (at, escapes || high >= 0x80),
                Some(b'\\') => {
                    escapes = true;
                    at += 1;
                }
                Some(byte) => high |= byte,
            }
            at += 1;
            left -= 1;
        }
        for chunk in bytes.get(at..).unwrap_or_default().chunks_exact(CHUNK) {
            let (special, all) = chunk.iter().fold((false, 0), |(special, all), byte| {
                (special | matches!(byte, b'"' | b'\\'), all | byte)
            });
            if special {
                break;
            }
            high |= all;
            at += CHUNK;
        }
    }
}

impl Document {
    /// Empties the buffer, keeping its memory.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.push('\0');
        self.segments.clear();
        self.containers.clear();
    }

    /// Gives memory back that an unusually large payload took.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if self.text.capacity() > bytes {
            self.text = String::new();
        }
        if self.segments.capacity() > bytes / 64 {
            self.segments = Vec::new();
            self.containers = Vec::new();
            self.open = Vec::new();
        }
    }

    fn at(&self) -> u32 {
        self.text.len() as u32
    }

    /// Adds a text that stands beside the payload.
    pub(super) fn add_beside(&mut self, number: usize, text: &str) {
        if text.is_empty() && number > 0 {
            return;
        }
        let start = self.at();
        append_folded(&mut self.text, text, false);
        self.segments.push(Segment {
            start,
            end: self.at(),
            source: 0,
            source_end: text.len() as u32,
            container: NONE,
            step: number as u32,
            part: Part::Beside,
            origin: Origin::Folded,
            says: Says::Nothing,
        });
        self.text.push('\0');
    }

    /// Adds a text decoded out of bytes `source..source_end` of the buffer, beside segment `beside`.
    pub(super) fn add_decoded(&mut self, beside: Segment, decoded: &str, from: (u32, u32), origin: Origin) {
        let start = self.at();
        append_folded(&mut self.text, decoded, false);
        let end = self.at();
        self.text.push('\0');
        self.segments.push(Segment { start, end, source: from.0, source_end: from.1, origin, ..beside });
    }

    /// Adds every key, string and number of `json`, which is known to be valid: of the payload itself, or
    /// of JSON found in segment `beside`, in the buffer at `base`.
    pub(super) fn add_json(&mut self, json: &str, beside: Option<Segment>, base: u32) {
        let nested = beside.is_some();
        self.root = beside.map_or((NONE, NONE), |segment| (segment.container, segment.step));
        let bytes = json.as_bytes();
        self.open.clear();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'{' | b'[' => {
                    let array = *byte == b'[';
                    let (parent, step) = self.open.last().map_or(self.root, |o| (o.container, o.step));
                    let container = self.containers.len() as u32;
                    self.containers.push(Container {
                        parent,
                        step,
                        array,
                        named: Says::Nothing,
                        named_at: 0,
                        named_by: NONE,
                        jwk: false,
                    });
                    self.open.push(Open { container, step: 0, array, key_next: !array });
                    at += 1;
                }
                b'}' | b']' => {
                    self.open.pop();
                    at += 1;
                }
                b',' => {
                    if let Some(open) = self.open.last_mut() {
                        open.key_next = !open.array;
                        open.step = if open.array { open.step.saturating_add(1) } else { open.step };
                    }
                    at += 1;
                }
                b'"' => {
                    let (end, rewritten) = string_end(bytes, at + 1);
                    self.add_token(json, (at + 1, end), Some(rewritten), nested, base);
                    at = end + 1;
                }
                b'-' | b'0'..=b'9' => {
                    let len = bytes
                        .get(at..)
                        .unwrap_or_default()
                        .iter()
                        .take_while(|b| is_number_byte(**b))
                        .count();
                    if len > SHORT_NUMBER || self.keep_short || !self.follows_a_number() {
                        self.add_token(json, (at, at + len), None, nested, base);
                    }
                    at += len;
                }
                _ => at += 1,
            }
        }
    }

    /// Whether what comes next stands behind a number in an array: then it parts nothing that is not parted already.
    fn follows_a_number(&self) -> bool {
        let open = self.open.last().filter(|open| open.array);
        let last = self.segments.last().filter(|last| last.part == Part::Number);
        open.zip(last).is_some_and(|(open, last)| open.container == last.container)
    }

    /// Adds one string (`rewritten`: it has escapes or characters outside ASCII) or number.
    fn add_token(
        &mut self,
        json: &str,
        span: (usize, usize),
        rewritten: Option<bool>,
        nested: bool,
        base: u32,
    ) {
        let source = json.get(span.0..span.1).unwrap_or_default();
        let open = self.open.last_mut();
        let is_key = rewritten.is_some() && open.as_ref().is_some_and(|open| open.key_next);
        // An empty text has nothing to find; an empty key still names a value.
        if source.is_empty() && !is_key {
            return;
        }
        let (container, mut step) = open.as_ref().map_or(self.root, |open| (open.container, open.step));
        if is_key {
            step = self.segments.len() as u32;
            if let Some(open) = open {
                open.step = step;
                open.key_next = false;
            }
        }
        let start = self.at();
        let folded = rewritten == Some(true);
        if folded {
            append_folded(&mut self.text, source, true);
        } else {
            self.text.push_str(source);
        }
        let origin = match (nested, folded) {
            (false, false) => Origin::Same,
            (false, true) => Origin::Folded,
            (true, false) => Origin::Inner,
            (true, true) => Origin::Decoded,
        };
        let part = match rewritten {
            None => Part::Number,
            Some(_) if is_key => Part::Key,
            Some(_) => Part::Text,
        };
        self.segments.push(Segment {
            start,
            end: self.at(),
            source: base + span.0 as u32,
            source_end: base + span.1 as u32,
            container,
            step,
            part,
            origin,
            says: Says::Nothing,
        });
        self.text.push('\0');
    }

    /// The segment a byte of the buffer belongs to.
    pub(super) fn segment_at(&self, at: usize) -> Option<(usize, Segment)> {
        let index = self.segments.partition_point(|segment| segment.start as usize <= at).checked_sub(1)?;
        self.segments.get(index).map(|segment| (index, *segment))
    }

    /// What the name of a value says: that of its own key, or of the array it stands in, or of the object whose member
    /// `value` it is, or what stands under `name` beside it.
    pub(super) fn says_of(&self, segment: &Segment) -> (Says, Link) {
        let none = (Says::Nothing, Link::Member);
        if !segment.is_value() {
            return none;
        }
        let Some(container) = self.containers.get(segment.container as usize) else { return none };
        let mut key = segment.step;
        if container.array {
            if container.named != Says::Nothing {
                let link = if container.named_at > 0 { Link::Option } else { Link::Array };
                return if segment.step == container.named_at + 1 { (container.named, link) } else { none };
            }
            key = container.step;
            if self.containers.get(container.parent as usize).is_none_or(|parent| parent.array) {
                return none;
            }
        }
        let Some(named) = self.segments.get(key as usize) else { return none };
        if !container.array && container.named != Says::Nothing && self.is_pair_value(named) {
            return (container.named, Link::Pair);
        }
        if named.says != Says::Value || container.array {
            return (named.says, Link::Member);
        }
        match self.containers.get(container.parent as usize) {
            Some(parent) if !parent.array => {
                let outer = self.segments.get(container.step as usize);
                (outer.map_or(Says::Nothing, |outer| outer.says), Link::Member)
            }
            _ => none,
        }
    }

    fn is_pair_value(&self, key: &Segment) -> bool {
        let text = self.slice(key.span()).unwrap_or_default();
        key.says == Says::Value || ends_with_one(text, PAIR_VALUES)
    }

    /// Notes what a text under `name`, or the first of two texts in an array, says about its sibling. True where it does.
    pub(super) fn note_pair(&mut self, number: usize, says: Says) -> bool {
        let Some(segment) = self.segments.get(number).copied() else { return false };
        let Some(container) = self.containers.get(segment.container as usize) else { return false };
        let text = self.slice(segment.span()).unwrap_or_default();
        // A name, and no sentence that ends with one.
        let named = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b' ' | b':') || b >= 0x80)
            && text.split(' ').count() <= 3;
        let is_name = named
            && if container.array {
                let after = self.segments.get(number + 2);
                let two = after.is_none_or(|after| after.container != segment.container);
                segment.step == 0 && two || text.starts_with('-')
            } else {
                let key = self.segments.get(segment.step as usize).and_then(|key| self.slice(key.span()));
                key.is_some_and(|key| ends_with_one(key, PAIR_NAMES))
            };
        if is_name && let Some(container) = self.containers.get_mut(segment.container as usize) {
            (container.named, container.named_at) = (says, segment.step);
            container.named_by = number as u32;
        }
        is_name
    }

    /// The name of a value, as [`says_of`](Self::says_of) found it.
    pub(super) fn name_of(&self, segment: &Segment, link: Link) -> &str {
        let container = self.containers.get(segment.container as usize);
        match (link, container) {
            (Link::Pair | Link::Array | Link::Option, Some(container)) => {
                let name = self.segments.get(container.named_by as usize);
                name.and_then(|name| self.slice(name.span())).unwrap_or_default()
            }
            _ => self.key_text(segment),
        }
    }

    /// Whether a value stands in an array of arrays.
    pub(super) fn in_table(&self, segment: &Segment) -> bool {
        let container = self.containers.get(segment.container as usize).filter(|container| container.array);
        container
            .and_then(|container| self.containers.get(container.parent as usize))
            .is_some_and(|parent| parent.array)
    }

    /// Whether a value stands in something that is about values: a list of errors, of texts of a user interface.
    pub(super) fn is_about(&self, segment: &Segment) -> bool {
        let mut container = self.containers.get(segment.container as usize);
        for _ in 0..ANCESTORS {
            let Some(inner) = container else { return false };
            let parent = self.containers.get(inner.parent as usize);
            if parent.is_some_and(|parent| !parent.array) {
                let key = self.segments.get(inner.step as usize).and_then(|key| self.slice(key.span()));
                if key.is_some_and(|key| ABOUT.iter().any(|known| key.eq_ignore_ascii_case(known))) {
                    return true;
                }
            }
            container = parent;
        }
        false
    }

    /// The key that names a value, folded: its own, or that of the array it stands in.
    pub(super) fn key_text(&self, segment: &Segment) -> &str {
        let Some(container) = self.containers.get(segment.container as usize) else { return "" };
        let key = match container.array {
            false => segment.step,
            true if self.containers.get(container.parent as usize).is_none_or(|parent| parent.array) => {
                return "";
            }
            true => container.step,
        };
        self.segments.get(key as usize).and_then(|key| self.slice(key.span())).unwrap_or_default()
    }

    /// A part of the buffer.
    pub(super) fn slice(&self, span: (usize, usize)) -> Option<&str> {
        self.text.get(span.0..span.1)
    }

    /// The RFC 6901 pointer of a segment of the payload, and whether it is whole: the middle of a long one is left out. `shown` writes a
    /// key (a segment's number and its decoded text) into the pointer.
    pub(super) fn pointer(
        &self,
        segment: &Segment,
        data: &str,
        shown: &dyn Fn(u32, &str) -> String,
    ) -> (String, bool) {
        let mut steps = Vec::new();
        let (mut container, mut step) = (segment.container, segment.step);
        let mut budget = MAX_POINTER_BYTES;
        let mut whole = true;
        while let Some(found) = self.containers.get(container as usize) {
            let text = if found.array {
                step.to_string()
            } else {
                let key = self.segments.get(step as usize);
                let source = key.and_then(|key| data.get(key.source as usize..key.source_end as usize));
                let decoded: String =
                    SourceChars::new(source.unwrap_or_default(), true).take(budget + 1).collect();
                shown(step, &decoded).replace('~', "~0").replace('/', "~1")
            };
            if text.len() + 1 > budget {
                steps.push("…".to_owned());
                whole = false;
                break;
            }
            budget -= text.len() + 1;
            steps.push(text);
            (container, step) = (found.parent, found.step);
        }
        (steps.iter().rev().flat_map(|step| ["/", step.as_str()]).collect(), whole)
    }
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// A match in its segment: offsets in characters of the decoded text, and bytes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chars: (usize, usize),
    pub(super) bytes: (usize, usize),
}

/// Walks offsets in folded text back to the source. Matches are asked for in rising order, so that all
/// of one segment cost one walk.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    source: SourceChars<'a>,
    /// How many characters, and bytes of the folded text, lie behind.
    index: usize,
    folded: usize,
    plain: bool,
    base: usize,
}

impl<'a> Walk<'a> {
    /// `source` stands at byte `base` of the payload.
    pub(super) fn new(source: &'a str, origin: Origin, escapes: bool, base: usize) -> Self {
        let source = SourceChars::new(source, escapes);
        Self { source, index: 0, folded: 0, plain: origin == Origin::Same, base }
    }

    /// The place of folded bytes `start..end`. `start` must not lie before that of an earlier call.
    pub(super) fn place(&mut self, start: usize, end: usize) -> Place {
        if self.plain {
            return Place { chars: (start, end), bytes: (self.base + start, self.base + end) };
        }
        self.advance(start, |_, behind| behind <= start);
        // A later match may start inside this one: only a copy walks on.
        let mut last = self.clone();
        last.advance(end, |before, _| before < end);
        Place {
            chars: (self.index, last.index),
            bytes: (self.base + self.source.place(), self.base + last.source.place()),
        }
    }

    /// Passes characters as long as `on` says so of the folded bytes before and behind the next one, which it does up to `limit`.
    fn advance(&mut self, limit: usize, on: impl Fn(usize, usize) -> bool) {
        loop {
            let plain = self.source.skip_plain(limit.saturating_sub(self.folded));
            (self.index, self.folded) = (self.index + plain, self.folded + plain);
            let mut next = self.source.clone();
            let Some(char) = next.next() else { return };
            let behind = self.folded + fold(char).utf8_len();
            if !on(self.folded, behind) {
                return;
            }
            self.source = next;
            (self.index, self.folded) = (self.index + 1, behind);
        }
    }
}
