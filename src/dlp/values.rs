//! Whether a value is what its name says: evidence for and against it. One judgement for members of JSON, labels in text,
//! name/value pairs, environment variables, options of commands, and statements.

use super::catalogue::{Expect, NameRule};
use super::checks::{self, Shape};
use super::score::Score;
use super::words::{self, Prose};

/// How a name leads to its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// A member of an object, or an element of the array that is one.
    Member,
    /// `{"name": NAME, "value": VALUE}`.
    Pair,
    /// `[NAME, VALUE]`.
    Array,
    /// `NAME=VALUE`, without blanks.
    Equals,
    /// `NAME = VALUE`, `NAME: VALUE`.
    Stated,
    /// "NAME is VALUE".
    Said,
    /// `--NAME VALUE`.
    Option,
    /// `NAME 'VALUE'`.
    Statement,
    /// Nothing but a blank: "CVV 123", "password hunter2".
    Beside,
}

/// A value and how it stands there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    /// What characters the value has; [`judge`] looks.
    pub(super) seen: Seen,
    pub(super) link: Link,
    /// In quotes of the text, or a string of JSON.
    pub(super) quoted: bool,
    /// A number of JSON.
    pub(super) number: bool,
    /// Nothing else stands behind it in its line.
    pub(super) last: bool,
    /// The line it stands in is of a program.
    pub(super) code: bool,
    /// Words near it say that its name means what it says.
    pub(super) context: bool,
    /// A value of JSON, and no part of a text.
    pub(super) json: bool,
    /// It stands among errors, or texts of a user interface.
    pub(super) about: bool,
    /// It is a name of the table itself.
    pub(super) names_itself: bool,
    /// Words near it are about accounts.
    pub(super) login: bool,
}

/// Which ASCII characters a text has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen(u128);

/// Letters, digits and `_`.
const WORD: u128 = {
    let mut word = 1 << b'_';
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            word |= 1 << byte;
        }
        byte += 1;
    }
    word
};

impl Seen {
    fn of(text: &str) -> Self {
        Self(text.bytes().fold(0, |seen, byte| seen | 1 << (byte & 0x7f)))
    }

    fn any(self, of: &[u8]) -> bool {
        of.iter().any(|byte| self.0 & (1 << (byte & 0x7f)) != 0)
    }

    fn is_word(self) -> bool {
        self.0 & !WORD == 0
    }
}

/// Judges a value by its name: the evidence, and the part of the value that is meant. `None`: it cannot be what the name says.
pub(super) fn judge(
    rule: &NameRule,
    candidate: &Candidate<'_>,
    explained: bool,
) -> Option<(Score, usize, usize)> {
    let trimmed = candidate.value.trim();
    let start = candidate.value.len() - candidate.value.trim_start().len();
    let whole = (start, start + trimmed.len());
    let mut score = Score::of_name(rule.weight, explained);
    let candidate = Candidate { value: trimmed, seen: Seen::of(trimmed), ..*candidate };
    let fits = match rule.value {
        Expect::SecurityCode => security_code(&candidate, &mut score),
        Expect::RecordNumber => record_number(&candidate, &mut score),
        Expect::InsuranceNumber => insurance_number(&candidate, &mut score),
        Expect::Icd10 => checks::is_icd10(trimmed.as_bytes()),
        Expect::Street => is_street(trimmed),
        // Their digits tell them.
        Expect::Ssn | Expect::Phone | Expect::Card => false,
        Expect::Authorization => {
            let credential = trimmed.split_once(' ').map_or(trimmed, |(_, rest)| rest.trim_start());
            let part = Candidate { value: credential, seen: Seen::of(credential), ..candidate };
            let begins = whole.1 - credential.len();
            return (!stands_in(&part) && key(&part, 6, &mut score)).then_some((score, begins, whole.1));
        }
        _ if stands_in(&candidate) => false,
        Expect::Password => password(&candidate, &mut score),
        Expect::Key => key(&candidate, 4, &mut score),
        Expect::LongKey => key(&candidate, 16, &mut score),
        Expect::Token => token(&candidate, &mut score),
        Expect::Random => {
            score.count("it looks random", 30);
            score.count_if(words::is_constant(trimmed), "a constant", -60);
            !matches!(candidate.link, Link::Beside | Link::Statement | Link::Said)
                && checks::looks_random(trimmed.as_bytes())
        }
    };
    fits.then_some((score, whole.0, whole.1))
}

/// What stands around a value, and so is looked at last: its line, its members' names, words near it.
pub(super) fn around(rule: &NameRule, candidate: &Candidate<'_>, score: &mut Score) {
    let shape = Shape::of(candidate.value.as_bytes());
    let mixed = shape.digits > 0 && shape.upper + shape.lower > 0;
    if candidate.code && !candidate.quoted && !candidate.json {
        // "password=hunter2" is a literal wherever it stands.
        let literal = candidate.link == Link::Equals && mixed;
        score.count_if(!literal, "part of a program", -70);
    }
    let weak = rule_is_weak(score);
    score.count_if(rule.value == Expect::Token && candidate.context && weak, "words about words", -60);
    score.count_if(candidate.login && shape.digits > 0, "words about accounts", 20);
    score.count_if(candidate.about, "among texts about values", -60);
    score.count_if(candidate.names_itself, "its own name", -80);
}

/// Whether a value stands for another: a placeholder, a reference, a version, a path of a program.
fn stands_in(candidate: &Candidate<'_>) -> bool {
    let value = candidate.value;
    let tag = value.strip_prefix('!').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphabetic()));
    if tag && !candidate.number || candidate.link == Link::Beside && value.contains('=') {
        return true;
    }
    let seen = candidate.seen;
    let of_program = !candidate.quoted && !candidate.number;
    of_program && seen.any(b"([{")
        || checks::is_placeholder(value)
        || seen.any(b"-_.*") && words::is_hint(value)
        || seen.any(b".:") && is_version(value)
        || seen.any(b"([<!") && is_type(value)
        || value.len() >= 10 && seen.any(b"-/.") && is_date(value)
        || seen.any(b"|:=,") && is_check(value)
        || seen.any(b"%${<#:0") && is_template(value)
        || of_program && seen.any(b":-.$@%") && is_expression(value)
}

fn password(candidate: &Candidate<'_>, score: &mut Score) -> bool {
    let Candidate { value, name, .. } = *candidate;
    if candidate.number {
        return value.len() >= 4 && value.bytes().all(|b| b.is_ascii_digit());
    }
    if value.chars().take(3).count() < 3 {
        return false;
    }
    // "pwd" is the working directory as often as a password.
    if name.len() <= 4 && words::ends_with(name, "pwd") && is_path(value) {
        return false;
    }
    score.count_if(name.len() <= 4 && !words::ends_with(name, "pwd"), "a name that is also a word", -15);
    credential(candidate, score);
    if rule_is_weak(score) {
        // "BAND_PASS=300-3400", "boarding_pass".
        let shape = Shape::of(value.as_bytes());
        score.count_if(shape.upper + shape.lower == 0, "no letter", -30);
        score.count_if(value.contains(' '), "several words", -30);
        score.count_if(is_measure(value), "a measure", -40);
    }
    score.count_if(!candidate.quoted && candidate.seen.any(b"/\\.") && is_path(value), "a path", -60);
    if candidate.seen.any(b" ") {
        prose(value, score);
    }
    true
}

fn key(candidate: &Candidate<'_>, least: usize, score: &mut Score) -> bool {
    let value = candidate.value;
    if candidate.number {
        return value.len() >= least.max(6) && value.bytes().all(|b| b.is_ascii_digit());
    }
    if value.len() < least || candidate.seen.any(b" \t\n\r") || candidate.seen.any(b"/\\.") && is_path(value)
    {
        return false;
    }
    credential(candidate, score);
    // In running text a key that is one word of letters is a word.
    let shape = Shape::of(value.as_bytes());
    let quoted = matches!(candidate.link, Link::Member | Link::Pair) || candidate.quoted;
    score.count_if(shape.digits == 0 && !quoted, "no digit", -30);
    score.count_if(
        shape.digits == 0 && candidate.seen.any(b"_") && words::is_identifier(value),
        "an identifier",
        -30,
    );
    score.count_if(checks::is_uuid(value.as_bytes()) && !quoted, "a UUID", -40);
    true
}

fn token(candidate: &Candidate<'_>, score: &mut Score) -> bool {
    let value = candidate.value;
    if candidate.number {
        return value.len() >= 9 && value.bytes().all(|b| b.is_ascii_digit());
    }
    let bare = value.strip_prefix("Bearer ").unwrap_or(value);
    if bare.len() < 6 || bare.contains(char::is_whitespace) || is_path(bare) || bare.contains("://") {
        return false;
    }
    let inner = bare.trim_matches(|c: char| !c.is_alphanumeric());
    let shape = Shape::of(inner.as_bytes());
    // What a lexer or a language model calls a token: a word, a piece of one, a name, a file.
    let word = inner.chars().all(|c| c.is_alphabetic()) || words::is_word_and_number(inner);
    score.count_if(word && inner.len() < 24, "a word", -45);
    let identifier =
        words::is_identifier(inner) && shape.digits == 0 || words::is_camel(inner) && shape.digits <= 1;
    score.count_if(!word && identifier, "an identifier", -45);
    score.count_if(inner.contains(['<', '>']), "markup", -60);
    score.count_if(words::is_file(inner), "a file", -60);
    score.count_if(shape.digits > 0 && shape.upper + shape.lower > 0, "letters and digits", 20);
    score.count_if(bare.len() >= 16, "long", 15);
    score.count_if(bare.starts_with(['Ġ', '▁', '#']), "a piece of a word", -60);
    score.count_if(words::is_constant(bare), "a constant", -60);
    let in_text = !matches!(candidate.link, Link::Member | Link::Pair | Link::Array);
    score.count_if(
        in_text && (bare.len() < if candidate.link == Link::Option { 10 } else { 16 } || shape.digits < 2),
        "short for a token in text",
        -30,
    );
    let hex = bare.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    score.count_if(in_text && hex && rule_is_weak(score), "an id", -40);
    score.count_if(checks::is_uuid(bare.as_bytes()) && in_text, "a UUID", -40);
    score.count_if(matches!(candidate.link, Link::Beside) && bare.len() < 20, "a word beside it", -25);
    true
}

/// Whether the name by itself says little.
fn rule_is_weak(score: &Score) -> bool {
    score.of_name_alone() < 50
}

/// A number and its unit: "5kHz".
fn is_measure(value: &str) -> bool {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < value.len() && unit.len() <= 3 && unit.bytes().all(|b| b.is_ascii_alphabetic())
}

/// What passwords and keys have in common.
fn credential(candidate: &Candidate<'_>, score: &mut Score) {
    let Candidate { value, name, .. } = *candidate;
    let shape = Shape::of(value.as_bytes());
    let letters = shape.upper + shape.lower;
    let inside =
        value.bytes().filter(|b| b.is_ascii_punctuation() && !matches!(b, b'_' | b'-' | b'.')).count();
    score.count_if(letters > 0 && shape.digits > 0, "letters and digits", 20);
    score.count_if(shape.digits >= 2 && value.len() >= 8, "several digits", 10);
    let random = shape.digits > 0
        && shape.upper > 1
        && shape.lower > 1
        && value.len() >= 10
        && !words::is_word_and_number(value);
    score.count_if(random && shape.digits < value.len() / 2, "it looks random", 10);
    score.count_if(inside > 0 && letters > 0, "other characters", 10);
    let member = matches!(candidate.link, Link::Member | Link::Pair);
    score.count_if(member, "a member of its own", 10);
    score.count_if(matches!(candidate.link, Link::Equals), "assigned", 10);
    let option = matches!(candidate.link, Link::Option | Link::Statement);
    score.count_if(option, "an option or statement", 5);
    score.count_if(option && letters == value.len(), "a word behind an option", -30);
    score.count_if(is_variable_name(name), "an environment variable", 15);
    score.count_if(matches!(candidate.link, Link::Array), "side by side", -10);
    score.count_if(matches!(candidate.link, Link::Array) && shape.digits == 0, "no digit", -15);
    score.count_if(matches!(candidate.link, Link::Beside), "a word beside it", -25);
    let numbered = matches!(candidate.link, Link::Beside) && words::is_word_and_number(value);
    score.count_if(numbered, "a word and its number", -20);
    score.count_if(candidate.quoted && !member, "in quotes", 10);
    score.count_if(candidate.last && !candidate.quoted, "the end of its line", 10);
    let plain = shape.digits == 0
        && value.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\'' | '’' | '¿' | '¡' | '?' | '!'));
    score.count_if(candidate.link == Link::Said && plain && !candidate.quoted, "said of it", -40);
    if plain {
        let capital =
            value.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase) && shape.lower > 0;
        score.count_if(capital && !candidate.quoted, "the name of a type", -40);
        score.count_if(capital && candidate.quoted, "a word with a capital", -20);
        score.count_if(!capital, "a plain word", -10);
        score.count_if(!candidate.quoted && !candidate.last && !member, "a word among others", -30);
    }
    let word = candidate.seen.is_word() && words::is_identifier(value);
    let snake = word && candidate.seen.any(b"_");
    let identifier = !candidate.quoted && !member && snake;
    score.count_if(identifier && shape.digits == 0, "a variable", -50);
    let named = snake && shape.digits == 0 && shape.upper == 0;
    score.count_if(named && !identifier, "a name of something", -25);
    let camel = shape.digits == 0 && word && (member || !candidate.quoted) && words::is_camel(value);
    score.count_if(camel, "the name of a type", -40);
    score.count_if(snake && shape.lower == 0 && words::is_constant(value), "a constant", -60);
    let cut = value.starts_with(['Ġ', '▁'])
        || value.starts_with("##")
        || !candidate.json && !candidate.quoted && value.matches("##").count() > 1;
    score.count_if(cut, "a piece of a word", -60);
    let words = candidate.link == Link::Pair && value.contains(' ') && !candidate.json;
    score.count_if(words, "several words", -60);
    score.count_if(candidate.seen.any(b".") && words::is_file(value), "a file", -60);
    score.count_if(words::is_name_of(value, name), "its own name", -80);
}

/// A name as environment variables have it: "DB_PASS".
fn is_variable_name(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a text is words for people.
fn prose(value: &str, score: &mut Score) {
    match words::prose(value) {
        Prose::Sentence => score.count("a sentence", -70),
        Prose::Title => score.count("words for people", -50),
        Prose::None => {}
    }
}

/// A version or a range of versions: packages are called "password" and "token" too.
fn is_version(value: &str) -> bool {
    let range = value.trim_start_matches(['^', '~', '<', '>', '=', 'v', ' ']);
    let dots = range.bytes().filter(|b| *b == b'.').count();
    range.starts_with(|c: char| c.is_ascii_digit())
        && (1..=3).contains(&dots)
        && range.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'x' | b'*'))
        || value.starts_with("workspace:")
        || value.starts_with("npm:")
}

fn is_path(value: &str) -> bool {
    let rooted = ["/", "./", "../", "~/", "~", "C:\\", "file:", "http://", "https://"];
    rooted.iter().any(|root| value.starts_with(root))
        && !value.contains(' ')
        && !value.ends_with('=')
        && value.bytes().any(|b| b == b'/' || b == b'\\')
        || [".pem", ".key", ".pub", ".txt", ".json", ".yaml", ".yml"].iter().any(|end| value.ends_with(end))
}

/// A type, and what it is of: "varchar(255)", "Optional[str]", "String!".
fn is_type(value: &str) -> bool {
    // GraphQL: "String!", "[ID!]!".
    const TYPES: &[&str] =
        &["String", "ID", "Int", "Float", "Boolean", "DateTime", "Date", "JSON", "Email", "URL"];
    if value.ends_with(['!', ']']) && TYPES.contains(&value.trim_matches(['[', ']', '!'])) {
        return true;
    }
    let inner = |open: char, close: char| {
        value.split_once(open).and_then(|(name, rest)| Some((name, rest.split_once(close)?.0)))
    };
    inner('(', ')').or_else(|| inner('[', ']')).or_else(|| inner('<', '>')).is_some_and(|(name, of)| {
        words::is_identifier(name)
            && !of.is_empty()
            && of.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b',' | b' ' | b'_' | b':' | b'.'))
    })
}

/// A date, with or without a time.
fn is_date(value: &str) -> bool {
    let shape: String = value.chars().take(10).map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape == "9999-99-99" || shape == "99/99/9999" || shape == "99.99.9999"
}

/// What a value has to be: "required|min:8".
fn is_check(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "required",
        "string",
        "min",
        "max",
        "nullable",
        "confirmed",
        "between",
        "size",
        "len",
        "sometimes",
        "unique",
        "length",
    ];
    let mut parts = value.split(['|', ',']);
    let known = |part: &str| {
        let (word, argument) = part.split_once([':', '=']).unwrap_or((part, ""));
        WORDS.contains(&word.trim())
            && argument.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'.'))
    };
    parts.next().is_some_and(known) && (value.contains(['|', ',', ':', '=']))
}

/// A text with places to be filled in, or a tag of a program's field.
fn is_template(value: &str) -> bool {
    const PARTS: &[&str] = &["%(", "${", "{{", "<%", "#{", ":\"", "$env:", "$("];
    let begins =
        |place: usize| value.get(place..).is_some_and(|rest| PARTS.iter().any(|part| rest.starts_with(part)));
    let opening = |byte: u8| matches!(byte, b'%' | b'$' | b'{' | b'<' | b'#' | b':');
    value.bytes().enumerate().any(|(place, byte)| opening(byte) && begins(place))
        || value.starts_with("0x")
            && value.len() <= 18
            && value.bytes().skip(2).all(|b| b.is_ascii_hexdigit())
}

/// Something of a program that is no literal: a name, a path into something else. What has brackets is told before.
fn is_expression(value: &str) -> bool {
    if value.contains("::") || value.contains("->") {
        return true;
    }
    // "$password", ":password", "@password", "%s".
    let variable = value.strip_prefix(['$', ':', '@', '%']).unwrap_or_default();
    if !variable.is_empty() && words::is_identifier(variable) && Shape::of(variable.as_bytes()).digits == 0 {
        return true;
    }
    let shape = Shape::of(value.as_bytes());
    // "config.db.password", "self.password", "&args.secret".
    let dotted = value.trim_start_matches(['&', '*', '!', '@']);
    dotted.contains('.')
        && shape.digits == 0
        && dotted.split('.').all(|part| !part.is_empty() && words::is_identifier(part))
}

fn security_code(candidate: &Candidate<'_>, score: &mut Score) -> bool {
    score.count_if(candidate.context, "words about cards", 40);
    score.count_if(matches!(candidate.link, Link::Member | Link::Pair), "a member of its own", 10);
    // A year behind "security code" is one.
    let year = candidate.value.len() == 4 && matches!(candidate.value.get(..2), Some("19" | "20"));
    score.count_if(year && !candidate.context, "a year", -20);
    score.count_if(matches!(candidate.link, Link::Stated | Link::Said | Link::Equals), "stated", 30);
    matches!(candidate.value.len(), 3 | 4) && candidate.value.bytes().all(|b| b.is_ascii_digit())
}

fn record_number(candidate: &Candidate<'_>, _score: &mut Score) -> bool {
    let value = candidate.value;
    let shape = Shape::of(value.as_bytes());
    let member = matches!(candidate.link, Link::Member | Link::Pair);
    let lengths = if member { 4..=20 } else { 5..=16 };
    lengths.contains(&value.len())
        && shape.digits >= 4
        && shape.upper + shape.lower <= 6
        && (member || shape.lower == 0)
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b' ' | b'/' | b'#'))
}

fn insurance_number(candidate: &Candidate<'_>, score: &mut Score) -> bool {
    let value = candidate.value;
    let shape = Shape::of(value.as_bytes());
    let letters = shape.upper + shape.lower;
    // Three letters and nine digits or more, as health insurers in the United States number their members.
    let insurers =
        shape.upper == 3 && shape.digits >= 9 && value.bytes().take(3).all(|b| b.is_ascii_uppercase());
    score.count_if(insurers, "the form of health insurers", 30);
    score.count_if(candidate.context, "words about health", 40);
    let member = matches!(candidate.link, Link::Member | Link::Pair);
    let lengths = if member { 6..=24 } else { 8..=20 };
    lengths.contains(&value.len())
        && shape.digits >= if member { 4 } else { 5 }
        && shape.lower <= if member { 3 } else { 0 }
        && letters <= 8
        && (member || shape.digits >= 6 || !matches!(candidate.link, Link::Beside))
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b' ' | b'/'))
}

fn is_street(value: &str) -> bool {
    // An IP, e-mail or web address is none of a street.
    let shape = Shape::of(value.as_bytes());
    let count = value.split_whitespace().count();
    value.starts_with(|c: char| c.is_ascii_digit())
        && count >= 3
        && value.len() <= 200
        && shape.upper + shape.lower >= 5
        && !value.contains("://")
        && !value.contains('@')
}
