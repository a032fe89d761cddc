//! Numbers told by their digits: cards, social security numbers, telephone numbers, and the street
//! addresses and diagnosis codes that begin with a few digits.
//!
//! A cluster is a run of digit groups with at most [`MAX_SEPARATOR`] separators between each two. The
//! byte pass hands over each cluster once; everything here works on its groups, of which it looks at a
//! bounded number.

use super::catalogue::Expect;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::checks;
use super::context::{self, Topic};
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;
use super::names::Says;
use super::places;

/// Most groups of one cluster that are looked at together.
const MAX_GROUPS: usize = 24;
/// Most separators between two groups.
const MAX_SEPARATOR: usize = 3;
/// Fewest and most digits of a payment card.
const CARD_DIGITS: (usize, usize) = (12, 19);
/// Fewest digits of one that is written in groups.
const LEAST_GROUPED: usize = 14;
/// Price of a number that stands alone, of a cluster, and of each group in it.
const NUMBER_STEPS: usize = 6;
const CLUSTER_STEPS: usize = 24;
const GROUP_STEPS: usize = 6;
/// Price of what stands around a card number.
const AROUND_STEPS: usize = 150;
/// Price of a group that may begin a card number.
const CARD_STEPS: usize = 26;
/// Most letters glued to either side of a card number.
const MAX_GLUED: usize = 16;
/// Digits of a telephone number with its country code.
const PHONE_DIGITS: (usize, usize) = (8, 15);

/// A run of digits and the separators before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Group {
    start: usize,
    len: usize,
    /// The kind of separators to the group before, NUL for the first.
    separator: u8,
}

impl Group {
    fn end(&self) -> usize {
        self.start + self.len
    }
}

/// A cluster.
#[derive(Debug)]
struct Cluster {
    groups: [Group; MAX_GROUPS],
    len: usize,
    end: usize,
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// The class of a separator: blanks are one, each other its own.
fn separator(byte: u8) -> u8 {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' => b' ',
        b'-' | b'.' | b'_' | b'/' | b'(' | b')' => byte,
        _ => 0,
    }
}

/// The class of a run of separators: that of the first that is no blank.
fn separators(text: &[u8], from: usize) -> (usize, u8) {
    let mut class = 0;
    let mut to = from;
    while to < from + MAX_SEPARATOR {
        match separator(at(text, to)) {
            0 => break,
            b' ' if class != 0 => {}
            found if class == 0 || class == b' ' => class = found,
            // "(555) 123": parentheses may stand beside others.
            b'(' | b')' => class = b')',
            found if found == class || class == b')' => {}
            _ => break,
        }
        to += 1;
    }
    (to, class)
}

fn read_cluster(text: &[u8], from: usize) -> Cluster {
    let mut cluster = Cluster { groups: [Group::default(); MAX_GROUPS], len: 0, end: from };
    let (mut start, mut class) = (from, 0);
    loop {
        let end = run_end(text, start, usize::MAX, is_digit);
        let Some(slot) = cluster.groups.get_mut(cluster.len) else { break };
        *slot = Group { start, len: end - start, separator: class };
        cluster.len += 1;
        cluster.end = end;
        let (next, found) = separators(text, end);
        if found == 0 || !is_digit(at(text, next)) {
            break;
        }
        (start, class) = (next, found);
    }
    cluster
}

/// What is known about the segment a cluster stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// The segment's bytes in the buffer.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) says: Says,
    /// The key, folded.
    pub(super) key: &'a str,
    /// It stands in an array of arrays.
    pub(super) in_table: bool,
    /// It is a number, and no text, in an array.
    pub(super) in_list: bool,
}

/// Words in the names of numbers that are counted, measured or assigned in sequence: one in thirty of them looks like a card number.
const SEQUENCES: &[&[u8]] = &[
    b"order",
    b"digest",
    b"etag",
    b"checksum",
    b"revision",
    b"track",
    b"trace",
    b"span",
    b"timestamp",
    b"sequence",
    b"offset",
    b"snowflake",
    b"epoch",
    b"nonce",
    b"time",
    b"uuid",
    b"hash",
    b"version",
    b"build",
    b"counter",
    b"cursor",
    b"barcode",
    b"serial",
    b"imei",
    b"isbn",
    b"invoice",
    b"ticket",
    b"request",
    b"session",
    b"transaction",
    b"fbid",
    b"parent",
    b"batch",
    b"process",
    b"thread",
    b"bytes",
    b"size",
    b"latitude",
    b"longitude",
    b"checksum",
    b"token",
    b"bookmark",
    b"etag",
    b"confirm",
    b"article",
    b"customer",
    b"product",
    b"siret",
    b"borrower",
    b"form",
    b"reference",
    b"cursor",
    b"after",
    b"account",
    b"auftrag",
    b"commande",
    b"pedido",
    b"siren",
    b"ticket",
];
/// [`SEQUENCES`], to be found in one pass.
static SEQUENCE_WORDS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let builder =
        AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(SEQUENCES);
    builder.ok()
});
/// The ends of such names, as words of their own.
const SEQUENCE_ENDS: &[&[u8]] = &[
    b"id", b"ids", b"pk", b"uid", b"gid", b"pid", b"tid", b"ref", b"seq", b"ts", b"no", b"nr", b"sku",
    b"ean", b"upc", b"gtin",
];
/// Longest name that is looked at for them.
const SEQUENCE_NAME_MAX: usize = 64;

/// Whether a name is of something that is counted or assigned in sequence: an order, a time, a trace.
pub(super) fn is_sequence(name: &[u8]) -> bool {
    let name = name.get(name.len().saturating_sub(SEQUENCE_NAME_MAX)..).unwrap_or_default();
    let ends = |end: &&[u8]| {
        let Some(from) = name.len().checked_sub(end.len()) else { return false };
        let tail = name.get(from..).unwrap_or_default();
        let edge = from.checked_sub(1).and_then(|before| name.get(before));
        tail.eq_ignore_ascii_case(end)
            && edge.is_none_or(|edge| {
                !edge.is_ascii_alphanumeric()
                    || edge.is_ascii_lowercase() && tail.first().is_some_and(u8::is_ascii_uppercase)
            })
    };
    SEQUENCE_WORDS.as_ref().is_some_and(|words| words.is_match(name)) || SEQUENCE_ENDS.iter().any(ends)
}

/// Whether a number is a cell of a table: between commas, bars or tabs.
fn is_cell(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) -> bool {
    let left = run_start(text, start, 4, |b| matches!(b, b' ' | b'"'));
    let right = run_end(text, end, 4, |b| matches!(b, b' ' | b'"'));
    let part = |b: u8| matches!(b, b',' | b'|' | b'\t' | b';');
    if !part(before(text, left)) && !part(at(text, right)) {
        return false;
    }
    // A name before it, or an expiry behind it, makes no table.
    let row = run_start(text, left, 200, |b| !matches!(b, 0 | b'\n'));
    let row_end = run_end(text, right, 200, |b| !matches!(b, 0 | b'\n'));
    let parts = text.get(row..row_end).unwrap_or_default().iter().filter(|b| part(**b)).count();
    // Other cells are of numbers, too.
    let others =
        text.get(row..left).into_iter().chain(text.get(right..row_end)).flatten().any(u8::is_ascii_digit);
    sink.spend(2 * (row_end - row));
    parts > 1 && others
}

/// Longest row of a list that is looked at, and the shortest id in one.
const ROW_MAX: usize = 80;
const ID_MIN: usize = 8;

/// Whether a number is all that stands in a numbered row, or a cell of a table's row, among rows that begin with ids: "3. 51e3260b-1113".
fn is_among_ids(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) -> bool {
    let inside = |b: u8| !matches!(b, 0 | b'\n');
    let row = run_start(text, start, ROW_MAX, inside);
    let marker = text.get(row..start).unwrap_or_default().trim_ascii();
    let cell = marker == b"|";
    let number = marker.strip_suffix(b".").or(marker.strip_suffix(b")"));
    let numbered = number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit));
    sink.spend(2 * ROW_MAX);
    let row_end = run_end(text, end, ROW_MAX, inside);
    let rest = text.get(end..row_end).unwrap_or_default().trim_ascii();
    if !(numbered && rest.is_empty() || cell && rest.starts_with(b"|")) {
        return false;
    }
    let behind = text.get(row_end + 1..run_end(text, row_end + 1, ROW_MAX, inside)).unwrap_or_default();
    let last = row.saturating_sub(1);
    let before = text.get(run_start(text, last, ROW_MAX, inside)..last).unwrap_or_default();
    let begins_with_id = |row: &[u8]| {
        let mut words = row.split(|b| matches!(b, b' ' | b'|' | b'\r')).filter(|word| !word.is_empty());
        let is_marker = |word: &&[u8]| word.len() < ID_MIN && !word.iter().any(u8::is_ascii_alphabetic);
        let id = words.find(|word| !is_marker(word)).unwrap_or_default();
        let letters = id.iter().any(u8::is_ascii_alphabetic);
        id.len() >= ID_MIN
            && id.iter().any(u8::is_ascii_digit)
            && (letters || id.len() > CARD_DIGITS.1)
            && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'/'))
    };
    // Rows of a table may be elements of an array; of a text that was decoded nothing stands beside it.
    let same = |between: u8, row: &[u8]| between == b'\n' || cell && row.starts_with(b"|");
    let above = same(at(text, last), before) && begins_with_id(before);
    let below = same(at(text, row_end), behind) && begins_with_id(behind);
    above && below || cell && (above || below)
}

/// A name of a card or of its number.
fn is_card_word(word: &[u8]) -> bool {
    let parts: [&[u8]; 8] = [b"card", b"pan", b"cc", b"karte", b"kart", b"carte", b"tarjeta", b"credit"];
    parts.iter().any(|part| word.windows(part.len()).any(|here| here.eq_ignore_ascii_case(part)))
}

impl Around<'_> {
    /// The key, or the name right before the number at `start`, is of something that is counted or assigned in sequence.
    fn is_sequence(&self, text: &[u8], start: usize) -> bool {
        // "(id)=(12)", "jq .id" and the number in the next line.
        let lead = run_start(text, start, 4, |b| {
            matches!(
                b,
                b' ' | b'=' | b':' | b'"' | b'\'' | b'#' | b'-' | b'\\' | b'(' | b')' | b',' | b'\n' | b'\r'
            )
        });
        let name =
            run_start(text, lead, 40, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        let word = text.get(name..lead).unwrap_or_default();
        // "trace_id=…", "cart:…", but "card=…".
        let glued = name + 2 < lead
            && run_end(text, lead, 2, |b| matches!(b, b'=' | b':')) == start
            && matches!(at(text, lead), b'=' | b':')
            && !is_card_word(word);
        // "The uuid is …", "SIRET …".
        let said = run_start(text, name, 4, |b| b == b' ');
        let before_it = text
            .get(run_start(text, said, 20, |b| b.is_ascii_alphanumeric() || b == b'_')..said)
            .unwrap_or_default();
        let two = matches!(word, b"is" | b"no" | b"nr" | b"number" | b"Number" | b"No" | b"id" | b"ID");
        // <input name="form_id" value="…">
        let attribute = word == b"value" && {
            let from = run_start(text, name, 48, |b| !matches!(b, 0 | b'<' | b'\n'));
            let tag = text.get(from..name).unwrap_or_default().trim_ascii_end();
            is_sequence(tag.strip_suffix(b"\"").or(tag.strip_suffix(b"'")).unwrap_or(tag))
        };
        is_sequence(self.key.as_bytes())
            || attribute
            || glued
            || is_sequence(word) && !(two && is_card_word(before_it))
            || two && is_sequence(before_it)
    }
}

/// Looks at the cluster that begins with the digit at `from`; returns its end. `around` is asked for only
/// when a candidate is there.
pub(super) fn cluster<'a>(
    text: &[u8],
    from: usize,
    around: &dyn Fn() -> Around<'a>,
    sink: &mut Sink<'_>,
) -> usize {
    let end = run_end(text, from, usize::MAX, is_digit);
    sink.spend(NUMBER_STEPS);
    // Nearly all numbers in messages are short and stand alone.
    let alone = || at(text, end) == 0 || !is_digit(at(text, separators(text, end).0));
    if end - from < 7 && alone() {
        if end - from <= 2 && before(text, from).is_ascii_uppercase() {
            places::diagnosis(text, from, sink);
        }
        if at(text, end) == b' ' {
            places::street(text, from, end, sink);
        }
        return end;
    }
    let cluster = read_cluster(text, from);
    sink.spend(CLUSTER_STEPS + cluster.len * GROUP_STEPS);
    let groups = cluster.groups.get(..cluster.len).unwrap_or_default();
    if groups.first().is_some_and(|group| group.len <= 2) {
        places::diagnosis(text, from, sink);
    }
    if let Some(last) = groups.last().filter(|last| last.len <= 6 && at(text, last.end()) == b' ') {
        places::street(text, last.start, last.end(), sink);
    }
    let total: usize = groups.iter().map(|group| group.len).sum();
    if total >= 7 {
        social_security(text, groups, around, sink);
        let long = total >= CARD_DIGITS.0;
        if long {
            sink.spend(groups.len() * CARD_STEPS);
        }
        let card = long && cards(text, groups, around, sink);
        if !card {
            phones(text, groups, around, sink);
        }
    }
    cluster.end
}

fn copy_digits(text: &[u8], groups: &[Group], digits: &mut [u8; CARD_DIGITS.1]) -> Option<usize> {
    let mut len = 0;
    for group in groups {
        let source = text.get(group.start..group.end())?;
        digits.get_mut(len..len + group.len)?.copy_from_slice(source);
        len += group.len;
    }
    Some(len)
}

/// True when the neighbour is no letter, digit or underscore.
fn is_edge(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'_'
}

fn social_security<'a>(text: &[u8], groups: &[Group], around: &dyn Fn() -> Around<'a>, sink: &mut Sink<'_>) {
    if named_social_security(text, groups, around, sink) {
        return;
    }
    for (index, window) in groups.windows(3).enumerate() {
        let [area, group, serial] = window else { continue };
        if (area.len, group.len, serial.len) != (3, 2, 4) || group.separator != serial.separator {
            continue;
        }
        let mut digits = [0; CARD_DIGITS.1];
        let found = copy_digits(text, window, &mut digits).and_then(|len| digits.get(..len));
        if !found.is_some_and(checks::is_ssn) || matches!(group.separator, b'(' | b')') {
            continue;
        }
        // More groups of the same make are a longer number: a part number, an address, a table row.
        let longer_before = index > 0 && area.separator == group.separator;
        let longer_after = groups.get(index + 3).is_some_and(|next| next.separator == group.separator);
        let (first, last) = (before(text, area.start), at(text, serial.end()));
        let glued = !is_edge(first) || !is_edge(last);
        if longer_before
            || longer_after
            || glued
            || (group.separator != b' ' && first == group.separator && index == 0)
        {
            continue;
        }
        if group.separator == b' ' && !stands_alone(text, area.start, serial.end(), around) {
            continue;
        }
        // Any three numbers may be parted like that: words have to say what they are.
        let place = (area.start, serial.end());
        let near = match group.separator {
            b' ' | b'-' => context::is_near(text, place, Topic::SocialSecurity, sink),
            _ => context::leads(text, area.start, Topic::SocialSecurity, sink) && group.separator != b'_',
        };
        if around().says.expects(Expect::Ssn) || near {
            sink.add(Kind::Ssn, place.0, place.1);
        } else if matches!(group.separator, b' ' | b'-') {
            sink.add_possible(Kind::Ssn, place.0, place.1);
        }
    }
}

/// Nine digits in any grouping, or a number, that are all a member named after the SSN holds.
fn named_social_security<'a>(
    text: &[u8],
    groups: &[Group],
    around: &dyn Fn() -> Around<'a>,
    sink: &mut Sink<'_>,
) -> bool {
    let (Some(first), Some(last)) = (groups.first(), groups.last()) else { return false };
    let total: usize = groups.iter().map(|group| group.len).sum();
    // A number has lost the zeroes it began with.
    let mut digits = [0; CARD_DIGITS.1];
    let Some(zeroes) = 9_usize.checked_sub(total).filter(|zeroes| *zeroes <= 2) else { return false };
    if (zeroes > 0 && groups.len() > 1) || copy_digits(text, groups, &mut digits).is_none() {
        return false;
    }
    digits.copy_within(..total, zeroes);
    digits.iter_mut().take(zeroes).for_each(|digit| *digit = b'0');
    let around = around();
    let start = run_start(text, first.start, MAX_GLUED, |b| matches!(b, b'-' | b'+' | b' ' | b'\t'));
    let end = run_end(text, last.end(), MAX_GLUED, |b| matches!(b, b' ' | b'\t'));
    let whole = start == around.start && end == around.end;
    if around.says.expects(Expect::Ssn) && whole && digits.get(..9).is_some_and(checks::is_ssn) {
        let sign = run_start(text, first.start, MAX_GLUED, |b| matches!(b, b'-' | b'+'));
        sink.add(Kind::Ssn, sign, last.end());
        return true;
    }
    false
}

/// True when a number written with blanks is no part of a row of numbers: what stands beside it is the
/// end of the text or a word.
fn stands_alone<'a>(text: &[u8], start: usize, end: usize, around: &dyn Fn() -> Around<'a>) -> bool {
    let before_blank = run_start(text, start, 4, |b| matches!(b, b' ' | b'\t'));
    let after_blank = run_end(text, end, 4, |b| matches!(b, b' ' | b'\t'));
    let (left, right) = (before(text, before_blank), at(text, after_blank));
    let word = |byte: u8| {
        byte.is_ascii_alphabetic()
            || matches!(byte, 0 | b':' | b',' | b';' | b'#' | b'\n' | b'\r')
            || byte >= 0x80
    };
    let left_fits = word(left) || matches!(left, b'(' | b'.');
    let right_fits = word(right) || matches!(right, b')' | b'.' | b'!' | b'?');
    if !left_fits || !right_fits {
        return false;
    }
    // The status, size and time of an access log line: GET /x HTTP/1.1 200 12 3456.
    let line = run_start(text, before_blank, 64, |b| b != 0 && b != b'\n');
    let head = text.get(line..before_blank).unwrap_or_default();
    around().says.expects(Expect::Ssn)
        || !["GET ", "POST ", "HTTP/", "PUT ", "HEAD "]
            .iter()
            .any(|word| memchr::memmem::find(head, word.as_bytes()).is_some())
}

/// The usual groupings of card numbers.
const GROUPINGS: &[&[usize]] =
    &[&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 4, 3], &[4, 4, 4, 2], &[6, 13], &[8, 8]];

fn cards<'a>(text: &[u8], groups: &[Group], around: &dyn Fn() -> Around<'a>, sink: &mut Sink<'_>) -> bool {
    let mut found = false;
    let mut next = 0;
    for start in 0..groups.len() {
        if start < next {
            continue;
        }
        let rest = groups.get(start..).unwrap_or_default();
        let (len, bare) = card_at(text, rest, groups.len() == rest.len(), around, sink);
        if len == 0 {
            continue;
        }
        if let (Some(first), Some(last)) = (rest.first(), rest.get(len - 1)) {
            if bare {
                sink.add_bare_card(first.start, last.end());
            } else {
                sink.add(Kind::CreditCard, first.start, last.end());
            }
            found = true;
            next = start + len;
        }
    }
    found
}

/// How many of the groups are a card number, 0 for none; whether nothing but its checksum says so. `leading`: they are the
/// cluster's first.
fn card_at<'a>(
    text: &[u8],
    groups: &[Group],
    leading: bool,
    around: &dyn Fn() -> Around<'a>,
    sink: &mut Sink<'_>,
) -> (usize, bool) {
    let fits = |len: usize| -> bool {
        let Some(window) = groups.get(..len) else { return false };
        let mut digits = [0; CARD_DIGITS.1];
        let Some(total) = copy_digits(text, window, &mut digits) else { return false };
        digits.get(..total).is_some_and(checks::is_card)
    };
    let Some(first) = groups.first() else { return (0, false) };
    let after = |len: usize| groups.get(len).map_or(0, |group| group.separator);
    if (CARD_DIGITS.0..=CARD_DIGITS.1).contains(&first.len) {
        // Digits right behind a point, or right before one and its digits, are a fraction.
        let digit = |place: Option<usize>| place.is_some_and(|place| at(text, place).is_ascii_digit());
        let fraction = before(text, first.start) == b'.' && digit(first.start.checked_sub(2))
            || at(text, first.end()) == b'.' && digit(Some(first.end() + 1));
        if fraction || !is_token(text, first.start, first.end()) {
            return (0, false);
        }
        if !fits(1) {
            sink.hits.no_cards += 1;
            return (0, false);
        }
        sink.spend(AROUND_STEPS);
        let around = around();
        let meant = around.says.expects(Expect::Card)
            || context::is_near(text, (first.start, first.end()), Topic::Cards, sink);
        // Of other lengths there are more ids than cards.
        let usual = matches!(first.len, 14..=16);
        let sequence = around.is_sequence(text, first.start);
        let leads = context::leads(text, first.start, Topic::Cards, sink);
        let named = around.says.expects(Expect::Card) || leads;
        let mut in_line = || usual || context::in_line(text, (first.start, first.end()), Topic::Cards, sink);
        let meant = named || meant && !sequence && in_line();
        let bare = usual && !sequence && !around.in_table && !around.in_list;
        let (start, end) = (first.start, first.end());
        let bare = bare && !is_cell(text, start, end, sink) && !is_among_ids(text, start, end, sink);
        return (usize::from(meant || bare), !meant);
    }
    if groups.iter().map(|group| group.len).sum::<usize>() < LEAST_GROUPED {
        return (0, false);
    }
    // Named right before it, any grouping will do.
    if groups.len() > 1 && fits(groups.len()) && context::leads(text, first.start, Topic::Cards, sink) {
        return (groups.len(), false);
    }
    // chr12:45048974-86228762 is a place.
    let place = before(text, first.start) == b':' && before(text, first.start - 1).is_ascii_alphanumeric();
    for grouping in GROUPINGS.iter().filter(|grouping| !place || grouping.len() > 2) {
        let len = grouping.len();
        let same = grouping.iter().zip(groups).all(|(expected, group)| *expected == group.len);
        let Some(second) = groups.get(1).filter(|_| same && groups.len() >= len) else { continue };
        let even = groups.iter().take(len).skip(1).all(|group| group.separator == second.separator);
        let paired = len > 2 || second.separator != b'.';
        let edges = second.separator == b' '
            || (first.separator != second.separator && after(len) != second.separator);
        let last = groups.get(len - 1).map_or(0, Group::end);
        // Four numbers of a row of numbers.
        let row = second.separator == b' '
            && (groups.get(len).is_some_and(|next| next.len >= 3 && next.separator == b' ')
                || !leading && first.separator == b' ' && first.len == second.len);
        // "87-6245 5289 3619 6841-6": the middle of a longer number.
        let digit = |place: usize| at(text, place).is_ascii_digit();
        let middle = before(text, first.start) == b'-'
            && first.start >= 2
            && digit(first.start - 2)
            && at(text, last) == b'-'
            && digit(last + 1)
            && at(text, run_end(text, last + 1, 4, is_digit)) != b'/';
        // "3870 3870 3870" and the number of the next line.
        let broken = *grouping == [4, 4, 4, 2] && {
            let written = text.get(first.start..last).unwrap_or_default();
            memchr::memchr(b'\n', written).is_some()
        };
        if row || middle || broken {
            continue;
        }
        if even && paired && edges && is_token(text, first.start, last) && fits(len) {
            return (len, false);
        }
    }
    // Any other grouping only when it is all there is.
    if !leading || groups.len() < 2 {
        return (0, false);
    }
    let around = around();
    let last = groups.last().map_or(0, Group::end);
    let blank_before = run_start(text, first.start, 4, |b| b == b' ') == around.start;
    let blank_after = run_end(text, last, 4, |b| b == b' ') == around.end;
    let same =
        groups.iter().all(|group| text.get(group.start..group.end()) == text.get(first.start..first.end()));
    if same {
        return (0, false);
    }
    let alone = around.says.expects(Expect::Card)
        || (blank_before && blank_after && !around.is_sequence(text, first.start));
    let even = groups.get(1).is_some_and(|second| {
        groups.iter().skip(1).all(|group| group.separator == second.separator) && second.separator != b'.'
    });
    if alone && even && fits(groups.len()) { (groups.len(), false) } else { (0, false) }
}

/// True when only letters, and few, are glued to the digits: "card4111…", but not a hash.
fn is_token(text: &[u8], start: usize, end: usize) -> bool {
    let left = run_start(text, start, MAX_GLUED + 1, |b| b.is_ascii_alphabetic());
    let right = run_end(text, end, MAX_GLUED + 1, |b| b.is_ascii_alphabetic());
    let word = |from: usize, to: usize| {
        let letters = text.get(from..to).unwrap_or_default();
        letters.is_empty() || (letters.len() <= MAX_GLUED && letters.iter().any(|b| !b.is_ascii_hexdigit()))
    };
    let edge = |byte: u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/');
    // A card and its expiry: "4111111111111111/12/27".
    let expiry = at(text, right) == b'/' && run_end(text, right + 1, 3, is_digit) == right + 3;
    word(left, start) && word(end, right) && edge(before(text, left)) && (edge(at(text, right)) || expiry)
}

fn phones<'a>(text: &[u8], groups: &[Group], around: &dyn Fn() -> Around<'a>, sink: &mut Sink<'_>) {
    let Some(first) = groups.first() else { return };
    let total: usize = groups.iter().map(|group| group.len).sum();
    let open = if before(text, first.start) == b'(' { first.start - 1 } else { first.start };
    let plus = before(text, open) == b'+';
    let last = groups.last().map_or(0, Group::end);
    let edges = |start: usize, end: usize| {
        let left = before(text, start);
        is_edge(left)
            && !matches!(left, b'-' | b'.' | b'/' | b'#' | b'$' | b'=')
            && is_edge(at(text, end))
            && at(text, end) != b'-'
    };
    if plus {
        let fits = (PHONE_DIGITS.0..=PHONE_DIGITS.1).contains(&total)
            && first.len <= 15
            && at(text, first.start) != b'0';
        if fits && edges(open - 1, last) && groups.len() <= 7 {
            sink.add(Kind::Phone, open - 1, last);
        }
        return;
    }
    let digit = |group: &Group, place: usize| at(text, group.start + place);
    for (index, window) in groups.windows(3).enumerate() {
        let [area, exchange, line] = window else { continue };
        let shape = (area.len, exchange.len, line.len) == (3, 3, 4);
        let plan = digit(area, 0) >= b'2' && digit(exchange, 0) >= b'2' && digit(area, 1) != b'9';
        let even = exchange.separator == line.separator || exchange.separator == b')';
        if !shape || !plan || !even || matches!(line.separator, b'_' | b'/') {
            continue;
        }
        let country = index.checked_sub(1).and_then(|index| groups.get(index));
        let (start, alone) = match country {
            None if before(text, area.start) == b'(' => (area.start - 1, true),
            None => (area.start, true),
            Some(one) => (one.start, index == 1 && one.len == 1 && digit(one, 0) == b'1'),
        };
        if alone
            && groups.len() == index + 3
            && edges(start, line.end())
            && (line.separator != b' '
                || exchange.separator != b' '
                || stands_alone(text, start, line.end(), around))
        {
            sink.add(Kind::Phone, start, line.end());
            return;
        }
    }
    if (10..=11).contains(&total) || (7..=15).contains(&total) && groups.len() > 1 {
        let around = around();
        let slack = run_start(text, open, 4, |b| matches!(b, b' ' | b'+'));
        if around.says.expects(Expect::Phone) && slack == around.start && last == around.end {
            sink.add(Kind::Phone, open, last);
        }
    }
}

/// The length of the card number that the digits of a text are, for the pass over siblings: how many
/// digits there are, when the text is nothing but digits and separators.
pub(super) fn only_digits(text: &[u8], digits: &mut Vec<u8>) -> bool {
    let from = digits.len();
    for byte in text {
        if is_digit(*byte) && digits.len() - from < CARD_DIGITS.1 {
            digits.push(*byte);
        } else if separator(*byte) == 0 {
            digits.truncate(from);
            return false;
        }
    }
    digits.len() > from
}
