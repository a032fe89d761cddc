//! What stands behind a label in running text: "SSN: 123456789", "password=hunter2", "CVV 123".

use super::checks::{self, Shape};
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;

/// Farthest a value stands behind its label.
const REACH: usize = 40;
/// Longest value, and the part of it that is looked at for its mix of characters.
const VALUE_MAX: usize = 4 * 1024;
const SHAPE_MAX: usize = 40;
/// Price of a label, of a number behind it, of a secret, and of asking whether that stands for another.
const LABEL_STEPS: usize = 20;
const NUMBER_STEPS: usize = 25;
const SECRET_STEPS: usize = 80;
const REFERENCE_STEPS: usize = 60;
/// Longest user name and password of basic authentication.
const BASIC_MAX: usize = 512;
/// Longest word between a label and its value.
const FILLER_MAX: usize = 7;

/// True for a word that may stand between a label and its value.
fn is_filler(word: &[u8]) -> bool {
    let mut lower = [0_u8; FILLER_MAX];
    let Some(letters) = lower.get_mut(..word.len()) else { return false };
    letters.copy_from_slice(word);
    letters.make_ascii_lowercase();
    matches!(
        &*letters,
        b"is"
            | b"was"
            | b"no"
            | b"nr"
            | b"num"
            | b"number"
            | b"numbers"
            | b"id"
            | b"code"
            | b"value"
            | b"key"
            | b"the"
            | b"my"
            | b"of"
            | b"for"
            | b"are"
            | b"equals"
            | b"token"
            | b"policy"
    )
}

/// A label in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Ssn,
    Cvv,
    Mrn,
    Insurance,
    Phone,
    Icd10,
    Password,
    ApiKey,
    Secret,
    AwsSecret,
    Bearer,
    Basic,
}

/// The labels. Letters of either case match.
pub(super) const LABELS: &[(&str, Label)] = &[
    ("ssn", Label::Ssn),
    ("social security", Label::Ssn),
    ("social-security", Label::Ssn),
    ("soc sec", Label::Ssn),
    ("soc. sec", Label::Ssn),
    ("cvv", Label::Cvv),
    ("cvc", Label::Cvv),
    ("security code", Label::Cvv),
    ("card verification", Label::Cvv),
    ("mrn", Label::Mrn),
    ("medical record", Label::Mrn),
    ("health insurance", Label::Insurance),
    ("health plan", Label::Insurance),
    ("insurance id", Label::Insurance),
    ("insurance policy", Label::Insurance),
    ("insurance number", Label::Insurance),
    ("insurance no", Label::Insurance),
    ("member id", Label::Insurance),
    ("subscriber id", Label::Insurance),
    ("policy number", Label::Insurance),
    ("medicare", Label::Insurance),
    ("medicaid", Label::Insurance),
    ("phone", Label::Phone),
    ("tel", Label::Phone),
    ("mobile", Label::Phone),
    ("fax", Label::Phone),
    ("icd", Label::Icd10),
    ("icd10", Label::Icd10),
    ("icd-10", Label::Icd10),
    ("icd 10", Label::Icd10),
    ("diagnos", Label::Icd10),
    ("password", Label::Password),
    ("passwd", Label::Password),
    ("passphrase", Label::Password),
    ("passcode", Label::Password),
    ("pwd", Label::Password),
    ("api_key", Label::ApiKey),
    ("api-key", Label::ApiKey),
    ("api key", Label::ApiKey),
    ("apikey", Label::ApiKey),
    ("access_key", Label::ApiKey),
    ("auth_key", Label::ApiKey),
    ("secret_key", Label::Secret),
    ("secret key", Label::Secret),
    ("client_secret", Label::Secret),
    ("client secret", Label::Secret),
    ("secret", Label::Secret),
    ("access_token", Label::Secret),
    ("access token", Label::Secret),
    ("refresh_token", Label::Secret),
    ("auth_token", Label::Secret),
    ("api_token", Label::Secret),
    ("token", Label::Secret),
    ("secret_access_key", Label::AwsSecret),
    ("secret access key", Label::AwsSecret),
    ("secretaccesskey", Label::AwsSecret),
    ("bearer ", Label::Bearer),
    ("basic ", Label::Basic),
];

/// Where the value of a label begins, and whether `:`, `=` or "is" leads to it.
fn value_after(text: &[u8], from: usize) -> (usize, bool) {
    let quote = |b: u8| matches!(b, b'"' | b'\'' | b'`' | b'\\' | b']' | b')' | b'*');
    let blank = |b: u8| matches!(b, b' ' | b'\t');
    let mut place = run_end(text, from, 3, quote);
    let mut stated = false;
    for _ in 0..4 {
        let word = run_end(text, place, 4, |b| blank(b) || matches!(b, b'_' | b'#' | b'.' | b'('));
        let word_end = run_end(text, word, 8, |b| b.is_ascii_alphabetic());
        let filler = text.get(word..word_end).unwrap_or_default();
        if word_end == word || word_end - from > REACH || !is_filler(filler) {
            place = word;
            break;
        }
        stated = filler.eq_ignore_ascii_case(b"is") || filler.eq_ignore_ascii_case(b"was");
        place = word_end;
    }
    place = run_end(text, place, 4, |b| quote(b) || blank(b));
    let lead = run_end(text, place, 3, |b| matches!(b, b':' | b'=' | b'>'));
    (
        run_end(text, lead, 6, |b| {
            quote(b) || matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b'[' | b'(' | b'{')
        }),
        stated || lead > place,
    )
}

/// Looks behind the label at `start..end`.
pub(super) fn look(
    text: &[u8],
    label: Label,
    start: usize,
    end: usize,
    (buffer, memory): (&mut Vec<u8>, &mut Value),
    sink: &mut Sink<'_>,
) {
    sink.spend(LABEL_STEPS);
    let left = before(text, start);
    let glued = left.is_ascii_alphanumeric();
    match label {
        Label::Bearer | Label::Basic if glued => {}
        Label::Bearer => bearer(text, end, sink),
        Label::Basic => basic(text, end, buffer, sink),
        Label::Password | Label::ApiKey | Label::Secret | Label::AwsSecret => {
            let (from, stated) = value_after(text, end);
            if stated {
                secret(text, label, (from, end), memory, sink);
            }
        }
        // "assn", "mcvc": a label of three letters must be a word.
        _ if glued => {}
        Label::Ssn => social_security(text, end, sink),
        _ => {
            let (from, stated) = value_after(text, end);
            numbered(text, label, from, stated, sink);
        }
    }
}

/// Nine digits, however they are parted, shortly behind a label.
fn social_security(text: &[u8], from: usize, sink: &mut Sink<'_>) {
    sink.spend(NUMBER_STEPS);
    let start = run_end(text, from, REACH, |b| !b.is_ascii_digit() && b != 0);
    if !at(text, start).is_ascii_digit() {
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
    let right = at(text, end);
    let longer =
        right.is_ascii_alphanumeric() || (matches!(right, b'-' | b'.') && at(text, end + 1).is_ascii_digit());
    if len == 9 && !longer && checks::is_ssn(&digits) {
        sink.add(Kind::Ssn, start, end);
    }
}

fn numbered(text: &[u8], label: Label, from: usize, stated: bool, sink: &mut Sink<'_>) {
    sink.spend(NUMBER_STEPS);
    let has = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let end = run_end(text, from, 32, |b| has(b) || (label == Label::Icd10 && b == b'.'));
    let value = text.get(from..end).unwrap_or_default();
    let trimmed = value.len() - run_start(value, value.len(), 4, |b| matches!(b, b'-' | b'.'));
    let end = end - trimmed.min(value.len());
    let value = text.get(from..end).unwrap_or_default();
    let shape = Shape::of(value);
    let upper = shape.lower == 0 && value.first().is_some_and(u8::is_ascii_alphanumeric);
    match label {
        Label::Cvv if matches!(value.len(), 3 | 4) && shape.digits == value.len() => {
            sink.add(Kind::Cvv, from, end);
        }
        Label::Mrn if upper && (5..=16).contains(&value.len()) && shape.digits >= 4 && shape.upper <= 6 => {
            sink.add(Kind::Mrn, from, end);
        }
        Label::Insurance
            if upper
                && stated | (shape.digits >= 6)
                && (8..=20).contains(&value.len())
                && shape.digits >= 5 =>
        {
            sink.add(Kind::HealthInsurance, from, end);
        }
        Label::Phone if stated && matches!(value.len(), 10 | 11) && shape.digits == value.len() => {
            sink.add(Kind::Phone, from, end);
        }
        Label::Icd10 if checks::is_icd10(value) && !at(text, end).is_ascii_alphanumeric() => {
            sink.add(Kind::Icd10, from, end);
        }
        _ => {}
    }
}

/// Memory of the last value, so that many labels within one value cost one walk over it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Value {
    start: usize,
    end: usize,
}

impl Value {
    fn end(&mut self, text: &[u8], from: usize) -> usize {
        if from < self.start || from >= self.end {
            *self = Self { start: from, end: value_end(text, from) };
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
    label: Label,
    (from, label_end): (usize, usize),
    memory: &mut Value,
    sink: &mut Sink<'_>,
) {
    sink.spend(SECRET_STEPS);
    let end = memory.end(text, from).min(from + VALUE_MAX);
    let value = text.get(from..end.min(from + SHAPE_MAX)).unwrap_or_default();
    if value.len() < 4 {
        return;
    }
    let shape = Shape::of(value);
    let code = value.iter().any(|b| matches!(b, b'(' | b'['));
    // Asked last, because it is the dearest question.
    let reference = |sink: &mut Sink<'_>| {
        sink.spend(REFERENCE_STEPS);
        let shown = value.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        // "$(cmd)" and "${VAR}" are cut at their bracket.
        matches!(value, [b'$', b'{' | b'(', ..]) || checks::is_placeholder(shown)
    };
    let letters = shape.lower + shape.upper == value.len();
    // A path into something else ("secret: kv/data/x", "password=config.db.password").
    let dotted = memchr::memchr(b'.', value).is_some() && shape.digits == 0 && shape.lower > 4;
    let after = at(text, end);
    match label {
        Label::Password => {
            let assigned = memchr::memchr(b'=', text.get(label_end..from).unwrap_or_default()).is_some();
            let last = matches!(after, 0 | b'"' | b'\'' | b'\n' | b'\\');
            if code
                || dotted
                || (letters && !assigned && !last)
                || value.first() == Some(&b'/')
                || reference(sink)
            {
                return;
            }
            sink.add(Kind::Password, from, end);
        }
        Label::ApiKey if value.len() >= 6 && shape.digits > 0 && !code && !reference(sink) => {
            sink.add(Kind::ApiKey, from, end);
        }
        Label::Secret
            if value.len() >= 12
                && shape.digits >= 2
                && shape.lower + shape.upper >= 2
                && !code
                && !is_uuid_like(value)
                && !reference(sink) =>
        {
            sink.add(Kind::Secret, from, end);
        }
        Label::AwsSecret if value.len() >= 30 && shape.digits >= 1 && !reference(sink) => {
            sink.add(Kind::AwsKey, from, end);
        }
        _ => {}
    }
}

/// Ids that stand behind "token" in logs: UUIDs and hashes.
fn is_uuid_like(value: &[u8]) -> bool {
    value.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

fn bearer(text: &[u8], from: usize, sink: &mut Sink<'_>) {
    let end = run_end(text, from, 4096, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    });
    let value = text.get(from..end).unwrap_or_default();
    sink.spend(value.len());
    let shape = Shape::of(value);
    if value.len() >= 16 && shape.digits >= 2 && shape.lower + shape.upper >= 4 {
        sink.add(Kind::AuthToken, from, end);
    }
}

fn basic(text: &[u8], from: usize, buffer: &mut Vec<u8>, sink: &mut Sink<'_>) {
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
