//! What is said near a candidate: words about its topic, whether its line is of a program.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::hits::{Sink, at, before, run_end, run_start};

/// How far around a candidate words count, in bytes.
const NEAR: usize = 160;
/// Longest part of a line that is looked at, before and behind.
const LINE: usize = 160;
/// Price of looking for words, beyond each byte.
const NEAR_STEPS: usize = 30;
/// Price of asking whether a line is of a program, beyond each byte.
const CODE_STEPS: usize = 40;

/// What words are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Payment cards.
    Cards,
    /// The same, but for the names of their security codes.
    Payment,
    /// Words, and how programs cut them.
    Language,
    /// Accounts, and where they log in.
    Login,
    /// Health and its insurance.
    Health,
    /// Social security and taxes.
    SocialSecurity,
}

impl Topic {
    const ALL: &'static [Self] =
        &[Self::Cards, Self::Payment, Self::Language, Self::Login, Self::Health, Self::SocialSecurity];

    /// Beginnings of words, in small letters.
    fn words(self) -> &'static [&'static [u8]] {
        match self {
            Self::Cards => &[
                b"card",
                b"visa",
                b"mastercard",
                b"amex",
                b"american express",
                b"maestro",
                b"cvv",
                b"cvc",
                b"diners",
                b"discover",
                b"jcb",
                b"credit",
                b"debit",
                b"karte",
                b"carte ",
                b"tarjeta",
                b"carta ",
                b"karty",
                b"kort",
                b"charge ",
                b"cart\xc3\xa3o",
                b"kaart",
            ],
            Self::Payment => &[
                b"card",
                b"visa",
                b"mastercard",
                b"amex",
                b"american express",
                b"maestro",
                b"payment",
                b"karte",
                b"tarjeta",
                b"debit",
                b"credit",
            ],
            Self::Language => {
                &[b"logprob", b"prob", b"lemma", b"bytes", b"offset", b"vocab", b"tokeniz", b"bpe"]
            }
            Self::Login => {
                &[b"user", b"login", b"account", b"host", b"smtp", b"ftp", b"ldap", b"dsn", b"credential"]
            }
            Self::Health => &[
                b"health",
                b"medic",
                b"patient",
                b"payer",
                b"coverage",
                b"copay",
                b"deductible",
                b"subscriber",
                b"hmo",
                b"ppo",
                b"physician",
                b"clinic",
                b"hospital",
            ],
            Self::SocialSecurity => {
                &[b"ssn", b"social", b"taxpayer", b"tax id", b"itin", b"w-2", b"w-9", b"w2 ", b"w9 ", b"irs "]
            }
        }
    }
}

/// The words of all topics, and the topic and first letter of each.
static WORDS: LazyLock<Result<AhoCorasick, String>> = LazyLock::new(|| {
    let words = Topic::ALL.iter().flat_map(|topic| topic.words());
    let mut builder = AhoCorasick::builder();
    let builder = builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA));
    builder.build(words).map_err(|error| error.to_string())
});
/// The topic of each of them.
static TOPICS: LazyLock<Vec<Topic>> =
    LazyLock::new(|| Topic::ALL.iter().flat_map(|topic| topic.words().iter().map(|_| *topic)).collect());

/// Builds what words are searched with.
pub(super) fn build() -> Result<(), String> {
    WORDS.as_ref().map(drop).map_err(Clone::clone)
}

/// Whether words about a topic are in a text, and stand as `is` says of each: the text, and where the word is.
fn any(text: &[u8], topic: Topic, is: impl Fn(usize, usize) -> bool) -> bool {
    // That it was built is asked when rules are.
    let Ok(words) = WORDS.as_ref() else { return false };
    words
        .find_overlapping_iter(text)
        .any(|found| TOPICS.get(found.pattern().as_usize()) == Some(&topic) && is(found.start(), found.end()))
}

/// Whether words about a topic stand near a part of the buffer; those at the beginning of the part itself count.
pub(super) fn is_near(text: &[u8], (start, end): (usize, usize), topic: Topic, sink: &mut Sink<'_>) -> bool {
    let from = start.saturating_sub(NEAR);
    let around = text.get(from..text.len().min(end.min(start + NEAR) + NEAR)).unwrap_or_default();
    sink.spend(NEAR_STEPS + around.len() * 3 / 4);
    any(around, topic, |start, end| {
        let word = around.get(start..end).unwrap_or_default();
        let begins = !before(around, start).is_ascii_alphabetic();
        let is = |known: &[u8]| word.eq_ignore_ascii_case(known);
        let compound = topic != Topic::Login && (is(b"karte") || is(b"kaart") || is(b"card"));
        // Neither "discard" nor "cardinal".
        let cut = is(b"card")
            && (matches!(at(around, end), b'i' | b'a' | b'b')
                || start.checked_sub(3).and_then(|from| around.get(from..start)).is_some_and(|head| {
                    [&b"dis"[..], b"ild", b"hbo", b"xed"].iter().any(|known| head.eq_ignore_ascii_case(known))
                }));
        (begins || compound) && !cut
    })
}

/// Whether words about a topic stand right before a place.
pub(super) fn leads(text: &[u8], start: usize, topic: Topic, sink: &mut Sink<'_>) -> bool {
    let head = text.get(start.saturating_sub(LEAD)..start).unwrap_or_default();
    // Of what stands before, its own key and no other value.
    let mut ends = memchr::memrchr_iter(0, head);
    let head = head.get(ends.nth(1).map_or(0, |end| end + 1)..).unwrap_or_default();
    let line = memchr::memrchr(b'\n', head).filter(|_| topic == Topic::SocialSecurity);
    let head = head.get(line.map_or(0, |line| line + 1)..).unwrap_or_default();
    sink.spend(NEAR_STEPS + head.len());
    any(head, topic, |start, _| topic == Topic::Cards || !before(head, start).is_ascii_alphabetic())
}

/// Whether words about a topic stand in the same line, or in keys and values beside it.
pub(super) fn in_line(text: &[u8], (start, end): (usize, usize), topic: Topic, sink: &mut Sink<'_>) -> bool {
    let inside = |b: u8| b != b'\n';
    let from = run_start(text, start, NEAR, inside);
    let line = text.get(from..run_end(text, end, NEAR, inside)).unwrap_or_default();
    sink.spend(NEAR_STEPS + line.len());
    any(line, topic, |_, _| true)
}

/// How far before a place words lead to it.
const LEAD: usize = 32;

/// Whether the line around a part of the buffer is of a program.
pub(super) fn is_code(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) -> bool {
    let inside = |b: u8| b != 0 && b != b'\n';
    let from = run_start(text, start, LINE, inside);
    // A long value is none of a program, and what stands behind it says nothing.
    let to = run_end(text, end.min(start + LINE), LINE, inside);
    let line = text.get(from..to).unwrap_or_default();
    sink.spend(CODE_STEPS + line.len() * 3 / 2);
    // A call; a statement. In YAML braces hold "a: b, c: d".
    let call =
        line.windows(2).any(|pair| matches!(pair, [a, b'('] if a.is_ascii_alphanumeric() || *a == b'_'));
    let pairs = memchr::memmem::find(line, b": ").is_some();
    let braces = line.iter().any(|b| matches!(b, b'{' | b'}')) && !pairs;
    // "a=1;b=2;" is a connection string.
    let settings = line.iter().filter(|b| **b == b';').count();
    let assigned = line.iter().filter(|b| **b == b'=').count();
    if settings > 1 && assigned >= settings && !call {
        return false;
    }
    if call || braces || line.trim_ascii_end().ends_with(b";") || line.trim_ascii_end().ends_with(b"{") {
        return true;
    }
    let line = line.trim_ascii();
    const KEYWORDS: &[&[u8]] = &[
        b"def ",
        b"let ",
        b"const ",
        b"var ",
        b"val ",
        b"pub ",
        b"fn ",
        b"class ",
        b"return ",
        b"if ",
        b"for ",
        b"public ",
        b"private ",
        b"static ",
        b"final ",
        b"self.",
        b"this.",
        b"type ",
        b"struct ",
        b"readonly ",
        b"- (",
        b"+ ",
        b"# ",
        b"// ",
        b"* ",
        b"@",
    ];
    // A parameter or a field: "password: str,".
    KEYWORDS.iter().any(|word| line.starts_with(word)) || line.ends_with(b",")
}
