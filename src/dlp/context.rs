//! What is said near a candidate: words about its topic, whether its line is of a program.

use super::hits::{Sink, run_end, run_start};

/// How far around a candidate words count, in bytes.
const NEAR: usize = 160;
/// Longest part of a line that is looked at, before and behind.
const LINE: usize = 160;
/// Price of looking for words.
const NEAR_STEPS: usize = 250;
/// Price of asking whether a line is of a program.
const CODE_STEPS: usize = 200;

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

/// Whether words about a topic stand near a part of the buffer; those of the part itself count.
pub(super) fn is_near(text: &[u8], (start, end): (usize, usize), topic: Topic, sink: &mut Sink<'_>) -> bool {
    sink.spend(NEAR_STEPS);
    let from = start.saturating_sub(NEAR);
    let around = text.get(from..text.len().min(end + NEAR)).unwrap_or_default();
    let begins = |place: usize| {
        place.checked_sub(1).and_then(|b| around.get(b)).is_none_or(|b| !b.is_ascii_alphabetic())
    };
    topic.words().iter().any(|word| {
        let first = word.first().copied().unwrap_or(0);
        memchr::memchr2_iter(first, first.to_ascii_uppercase(), around).any(|place| {
            let here = around.get(place..place + word.len());
            let compound = [&b"karte"[..], b"kaart", b"card"].contains(word) && topic != Topic::Login;
            // Neither "discard" nor "cardinal".
            let cut = *word == b"card"
                && (around.get(place + 4).is_some_and(|b| matches!(b, b'i' | b'a' | b'b'))
                    || place.checked_sub(3).and_then(|from| around.get(from..place)).is_some_and(|head| {
                        [&b"dis"[..], b"ild", b"hbo", b"xed"]
                            .iter()
                            .any(|known| head.eq_ignore_ascii_case(known))
                    }));
            here.is_some_and(|here| here.eq_ignore_ascii_case(word)) && (begins(place) || compound) && !cut
        })
    })
}

/// Whether words about a topic stand right before a place.
pub(super) fn leads(text: &[u8], start: usize, topic: Topic, sink: &mut Sink<'_>) -> bool {
    sink.spend(NEAR_STEPS);
    let from = start.saturating_sub(LEAD);
    let head = text.get(from..start).unwrap_or_default();
    topic.words().iter().any(|word| {
        head.windows(word.len()).enumerate().any(|(at, part)| {
            let begins =
                at.checked_sub(1).and_then(|at| head.get(at)).is_none_or(|b| !b.is_ascii_alphabetic());
            part.eq_ignore_ascii_case(word) && (begins || topic == Topic::Cards)
        })
    })
}

/// How far before a place words lead to it.
const LEAD: usize = 32;

/// Whether the line around a part of the buffer is of a program.
pub(super) fn is_code(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) -> bool {
    sink.spend(CODE_STEPS);
    let inside = |b: u8| b != 0 && b != b'\n';
    let from = run_start(text, start, LINE, inside);
    let to = run_end(text, end, LINE, inside);
    let line = text.get(from..to).unwrap_or_default();
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
