//! Words of people and of programs: what is prose, an identifier, a file.

/// Words in small letters, under their length in bytes.
pub(super) struct ByLength(pub(super) &'static [&'static [&'static str]]);

impl ByLength {
    /// Whether a word is one of them, in letters of either case.
    pub(super) fn has(&self, word: &[u8]) -> bool {
        let same = self.0.get(word.len()).copied().unwrap_or_default();
        same.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
    }
}

/// Words that make a sentence of what they stand in.
const FUNCTION_WORDS: ByLength = ByLength(&[
    &[],
    &["a", "o", "y"],
    &[
        "an", "at", "be", "de", "el", "es", "et", "if", "il", "in", "is", "la", "le", "lo", "ne", "of", "on",
        "or", "ou", "su", "to", "un", "uw",
    ],
    &[
        "and", "are", "can", "das", "der", "die", "een", "ein", "est", "for", "has", "het", "ihr", "ist",
        "les", "los", "may", "nie", "non", "not", "och", "pas", "per", "the", "und", "une", "use", "was",
        "you",
    ],
    &[
        "been", "debe", "deve", "doit", "eine", "have", "inte", "jest", "moet", "musi", "muss", "must",
        "nebo", "niet", "não", "oder", "sind", "skal", "that", "this", "when", "will", "with", "your",
    ],
    &["bitte", "eller", "enter", "least", "nicht", "shall", "votre"],
    &["cannot", "måste", "should"],
    &["confere"],
    &[],
    &[],
    &["correspond"],
]);
/// Words of a value that names what it is for.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "pass",
    "secret",
    "token",
    "credential",
    "credentials",
    "apikey",
    "api_key",
    "passwort",
    "kennwort",
    "contrasena",
    "contraseña",
    "senha",
    "wachtwoord",
    "haslo",
    "hasło",
    "heslo",
    "lösenord",
    "passord",
];
/// Endings of files.
const FILES: &[&str] = &[
    ".md", ".py", ".rs", ".ts", ".js", ".json", ".yaml", ".yml", ".toml", ".txt", ".html", ".css", ".go",
    ".java", ".c", ".h", ".cpp", ".sh", ".pem", ".key", ".png", ".jpg", ".pdf", ".csv", ".xml", ".lock",
    ".log", ".cfg", ".ini",
];
/// Parts of a text that says what to put in its place.
const HINTS: ByLength = ByLength(&[
    &[],
    &[],
    &["my", "no"],
    &["env", "not", "put", "set", "the", "xxx"],
    &["fake", "from", "here", "only", "read", "some", "test", "todo", "your"],
    &["dummy", "enter", "tests", "write"],
    &["change", "hidden", "insert", "sample"],
    &["example", "replace"],
    &["changeme", "optional", "redacted", "required"],
    &["generated", "protected", "sensitive"],
    &["deprecated"],
    &["placeholder"],
]);
/// Most words of a passphrase.
const MAX_WORDS: usize = 6;
/// Longest text that is looked at for words.
const MAX_PROSE: usize = 400;

/// Words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prose {
    None,
    /// Words that name something: a label, a title.
    Title,
    Sentence,
}

/// Whether a text is a sentence or a title.
pub(super) fn prose(text: &str) -> Prose {
    if !text.contains(' ') {
        return Prose::None;
    }
    let mut end = text.len().min(MAX_PROSE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let head = text.get(..end).unwrap_or(text);
    let (mut count, mut plain, mut function) = (0, 0, 0);
    for word in head.split_whitespace().take(MAX_WORDS + 1) {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        count += 1;
        plain += usize::from(bare.chars().all(|c| c.is_alphabetic() || matches!(c, '\'' | '’')));
        function += usize::from(FUNCTION_WORDS.has(bare.as_bytes()));
    }
    let capital = head.chars().next().is_some_and(char::is_uppercase);
    let ended = head.ends_with(['.', '!', '?', ':', '…']);
    let mostly = plain * 4 >= count * 3;
    match () {
        () if count > MAX_WORDS || count >= 3 && mostly && (function > 0 || ended) => Prose::Sentence,
        () if count >= 2 && plain == count && (function > 0 || capital || ended) => Prose::Title,
        () => Prose::None,
    }
}

/// A text that says what to put in its place: "your-api-key", "change_this_in_production", "xxx-xxx-xxx".
pub(super) fn is_hint(text: &str) -> bool {
    let ends = text.bytes().next_back().is_some_and(|b| matches!(b, b'.' | b'*') || b >= 0x80);
    let text = if ends { text.trim_end_matches(['.', '…', '*']) } else { text };
    if text.bytes().any(|b| b.is_ascii_digit() || b == b' ') || text.is_empty() {
        return text.is_empty();
    }
    let several = text.bytes().any(|b| matches!(b, b'-' | b'_' | b'.'));
    let mut parts = text.as_bytes().split(|b| matches!(b, b'-' | b'_' | b'.' | b':' | b'/'));
    several && parts.any(|part| HINTS.has(part))
}

/// A name as programs write them: letters, digits and `_`, not beginning with a digit.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A word and the number of it: "Python3".
pub(super) fn is_word_and_number(text: &str) -> bool {
    let word = text.trim_end_matches(|c: char| c.is_ascii_digit());
    text.len() - word.len() <= 4 && word.len() >= 2 && word.chars().all(char::is_alphabetic)
}

/// A constant of a program: "ERR_PASSWORD_POLICY".
pub(super) fn is_constant(text: &str) -> bool {
    text.contains('_')
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        && text
            .split('_')
            .filter(|part| part.len() >= 3 && part.bytes().all(|b| b.is_ascii_uppercase()))
            .count()
            >= 2
}

/// A name in which words begin with capitals: "camelCase2Snake".
pub(super) fn is_camel(text: &str) -> bool {
    is_identifier(text)
        && text
            .as_bytes()
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()))
}

/// The name of a file.
pub(super) fn is_file(text: &str) -> bool {
    text.rfind('.')
        .and_then(|dot| text.get(dot..))
        .is_some_and(|end| FILES.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// Whether `name` ends with these letters, of either case.
pub(super) fn ends_with(name: &str, end: &str) -> bool {
    name.len() >= end.len()
        && name.get(name.len() - end.len()..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// Whether a value is a name itself: that of its own member, or of a secret ("db_password").
pub(super) fn is_name_of(value: &str, name: &str) -> bool {
    let marked = value.bytes().next_back().is_some_and(|b| matches!(b, b':' | b' ' | b'?' | b'*'));
    let value = if marked { value.trim_end_matches([':', ' ', '?', '*']) } else { value };
    // "POSTGRES_PASSWORD: postgres" is what its image comes with.
    let end = name.bytes().position(|b| matches!(b, b'_' | b'-' | b'.')).unwrap_or(name.len());
    let first = name.get(..end).unwrap_or_default();
    if value.eq_ignore_ascii_case(name) || first.len() >= 4 && value.eq_ignore_ascii_case(first) {
        return true;
    }
    // A password that is a word for passwords and something more is one: "Password1!".
    let last = value.bytes().next_back().map(|last| last.to_ascii_lowercase());
    !value.bytes().any(|b| b.is_ascii_digit())
        && SECRET_WORDS.iter().any(|word| word.bytes().next_back() == last && ends_with(value, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_titles_and_passphrases_are_told_apart() {
        for text in [
            "This field is required.",
            "Password is required",
            "Enter your password",
            "must be at least 8 characters long",
        ] {
            assert_eq!(prose(text), Prose::Sentence, "{text}");
        }
        for text in ["Mot de passe", "Too short", "Your password"] {
            assert_ne!(prose(text), Prose::None, "{text}");
        }
        for text in ["correct horse battery staple", "hunter2", "my dog rex 99"] {
            assert_eq!(prose(text), Prose::None, "{text}");
        }
    }

    #[test]
    fn words_stand_under_their_length() {
        for (length, words) in FUNCTION_WORDS.0.iter().enumerate().chain(HINTS.0.iter().enumerate()) {
            assert!(words.iter().all(|word| word.len() == length), "{words:?}");
        }
        assert!(
            FUNCTION_WORDS.has(b"The")
                && FUNCTION_WORDS.has("måste".as_bytes())
                && !FUNCTION_WORDS.has(b"hunter2")
        );
    }

    #[test]
    fn names_are_no_values() {
        assert!(is_name_of("password", "password"));
        assert!(is_name_of("db_password", "secrets"));
        assert!(!is_name_of("Password1!", "password"));
        assert!(is_word_and_number("Python3") && !is_word_and_number("abc123def"));
        assert!(is_file("README.md") && !is_file("a.b"));
    }
}
