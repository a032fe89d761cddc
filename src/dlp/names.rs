//! What a name says about what stands beside it: the key of a member, a label in text, an environment variable, an option.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::catalogue::{Expect, Match, NameRule};
use super::kinds::Kind;

/// Longest name, in letters and digits, whose end is compared; of a longer one the end counts.
const MAX_NAME: usize = 48;

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Says {
    #[default]
    Nothing,
    /// `value` and the like: the name stands elsewhere, one level up or beside it.
    Value,
    /// What a rule of the table says, by its place there.
    Rule(u16, Expect),
}

impl Says {
    pub(super) fn expects(self, what: Expect) -> bool {
        matches!(self, Self::Rule(_, expect) if expect == what)
    }
}

/// Names of the values of name/value pairs.
const VALUES: &[&str] = &["value", "val", "stringvalue"];

/// Words in the name of a token or key that is no credential: cursors, counters, vocabulary, guards against forged requests.
const HARMLESS: &[&str] = &[
    "next",
    "page",
    "contin",
    "cursor",
    "sync",
    "delta",
    "resume",
    "csrf",
    "xsrf",
    "cancel",
    "lock",
    "fenc",
    "idempot",
    "lease",
    "watch",
    "scroll",
    "max",
    "min",
    "num",
    "count",
    "total",
    "prompt",
    "complet",
    "stop",
    "eos",
    "bos",
    "pad",
    "unk",
    "sep",
    "mask",
    "public",
    "primary",
    "foreign",
    "design",
    "special",
    "pagin",
    "authentic",
    "request",
    "form",
    "start",
    "change",
    "skip",
    "pit",
    "forgery",
    "verif",
    "upload",
];

/// Words before "password" in names that are of something about one: "has_password".
const ABOUT: &[&str] = &[
    "has",
    "is",
    "no",
    "show",
    "hide",
    "reset",
    "forgot",
    "forget",
    "forgotten",
    "lost",
    "last",
    "expire",
    "expires",
    "min",
    "max",
    "require",
    "requires",
    "required",
    "need",
    "needs",
    "use",
    "uses",
    "allow",
    "enable",
    "enabled",
    "disable",
    "grant",
    "change",
    "without",
    "wrong",
    "invalid",
    "incorrect",
    "missing",
    "repeat",
    "confirm",
    "toggle",
    "remember",
    "prompt",
    "boarding",
    "high",
    "low",
    "band",
];

/// The names as a tree over their letters from the last to the first, so that a name is read once however many there are.
#[derive(Debug)]
pub(super) struct Names {
    nodes: Vec<Node>,
    harmless: AhoCorasick,
    rules: Vec<NameRule>,
    /// Names that are not written in Latin letters, in small ones.
    foreign: HashMap<String, Says>,
}

/// Where a name, or the end of one, has been read.
#[derive(Debug, Clone, Default)]
struct Node {
    /// The node for each letter that may stand before; 0: none.
    letters: [u16; 26],
    /// The same for digits.
    digits: [u16; 10],
    /// What a name that ends so says, one that ends so as a word of its own, one that is this.
    ending: Says,
    word: Says,
    whole: Says,
}

impl Node {
    /// The slot for a lower-case letter or a digit.
    fn slot(&mut self, byte: u8) -> Option<&mut u16> {
        match byte {
            b'a'..=b'z' => self.letters.get_mut(usize::from(byte - b'a')),
            b'0'..=b'9' => self.digits.get_mut(usize::from(byte - b'0')),
            _ => None,
        }
    }

    fn before(&self, byte: u8) -> u16 {
        let slot = match byte {
            b'a'..=b'z' => self.letters.get(usize::from(byte - b'a')),
            b'0'..=b'9' => self.digits.get(usize::from(byte - b'0')),
            _ => None,
        };
        slot.copied().unwrap_or(0)
    }
}

impl Names {
    pub(super) fn new(rules: Vec<NameRule>) -> Result<Self, String> {
        let harmless = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(HARMLESS);
        let harmless = harmless.map_err(|error| error.to_string())?;
        let mut names =
            Self { nodes: vec![Node::default()], harmless, rules: Vec::new(), foreign: HashMap::new() };
        for name in VALUES {
            if let Some(node) = names.node(name)? {
                node.whole = Says::Value;
            }
        }
        for (number, rule) in rules.iter().enumerate() {
            let says = Says::Rule(u16::try_from(number).map_err(|_| "too many rules")?, rule.value);
            for name in &rule.names {
                // Two letters are a part of too much, but where a checksum tells the value.
                if name.len() < 3 && rule.matched != Match::Whole && rule.value != Expect::Card {
                    continue;
                }
                if !name.is_ascii()
                    && (name.chars().filter(char::is_ascii).count() < 3
                        || !name.starts_with(|c: char| c.is_ascii()))
                {
                    let _ = names.foreign.insert(name.to_lowercase(), says);
                    continue;
                }
                let letters: String =
                    name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
                let Some(node) = names.node(&letters)? else { continue };
                match rule.matched {
                    Match::Ending => node.ending = says,
                    Match::Word => node.word = says,
                    Match::Whole => node.whole = says,
                }
            }
        }
        names.rules = rules;
        Ok(names)
    }

    /// Whether a value is a name of the table itself, and nothing more: "Kreditkartennummer", "db_password".
    pub(super) fn is_name(&self, value: &str) -> bool {
        let value = value.trim_matches(|c: char| c.is_whitespace() || c.is_ascii_punctuation());
        value.len() <= 2 * MAX_NAME
            && !value.bytes().any(|b| b.is_ascii_digit())
            && matches!(self.says(value), Says::Rule(..))
    }

    /// The rule of what a name says.
    pub(super) fn rule(&self, says: Says) -> Option<&NameRule> {
        match says {
            Says::Rule(number, _) => self.rules.get(usize::from(number)),
            Says::Nothing | Says::Value => None,
        }
    }

    /// What the last two words of a name in other letters say, or the last one.
    fn foreign(&self, name: &str) -> Says {
        let mut from = name.len().saturating_sub(2 * MAX_NAME);
        while !name.is_char_boundary(from) {
            from += 1;
        }
        let tail = name.get(from..).unwrap_or_default().to_lowercase();
        let mut words = tail.rsplit(|c: char| !c.is_alphabetic());
        let last = words.next().unwrap_or_default();
        let two = words.next().and_then(|before| self.foreign.get(&format!("{before} {last}")));
        two.or_else(|| self.foreign.get(last)).copied().unwrap_or_default()
    }

    /// The node of a name, made where it is missing.
    fn node(&mut self, name: &str) -> Result<Option<&mut Node>, String> {
        let mut at = 0_usize;
        for byte in name.bytes().rev() {
            let made = u16::try_from(self.nodes.len()).map_err(|_| "too many names".to_owned())?;
            let slot = self.nodes.get_mut(at).and_then(|node| node.slot(byte));
            let slot = slot.ok_or_else(|| format!("{name:?} has more than letters and digits"))?;
            let fresh = *slot == 0;
            if fresh {
                *slot = made;
            }
            at = usize::from(*slot);
            if fresh {
                self.nodes.push(Node::default());
            }
        }
        Ok(self.nodes.get_mut(at))
    }

    /// What a name says: the whole of it if that means something, else its longest end that does.
    pub(super) fn says(&self, name: &str) -> Says {
        let mut letters = [0_u8; MAX_NAME];
        let mut at = MAX_NAME;
        let mut node = self.nodes.first();
        let (mut says, mut says_at, mut says_from) = (Says::Nothing, at, 0);
        let bytes = name.as_bytes();
        let from = bytes.len().saturating_sub(4 * MAX_NAME);
        let mut place = bytes.len();
        // Past the longest name that fits, letters are read on for HARMLESS alone.
        while place > from {
            place -= 1;
            let Some(byte) = bytes.get(place).filter(|byte| byte.is_ascii_alphanumeric()) else { continue };
            let Some(slot) = at.checked_sub(1).and_then(|at| letters.get_mut(at)) else {
                node = None;
                break;
            };
            *slot = byte.to_ascii_lowercase();
            at -= 1;
            node = node.and_then(|node| match node.before(*slot) {
                0 => None,
                next => self.nodes.get(usize::from(next)),
            });
            match node {
                Some(node) if node.word != Says::Nothing && begins_word(bytes, place) => {
                    (says, says_at, says_from) = (node.word, at, place);
                }
                Some(node) if node.ending != Says::Nothing => {
                    (says, says_at, says_from) = (node.ending, at, place);
                }
                None if says == Says::Nothing && name.is_ascii() => return Says::Nothing,
                Some(_) | None => {}
            }
        }
        if let Some(whole) = node.map(|node| node.whole).filter(|whole| *whole != Says::Nothing) {
            (says, says_at, says_from) = (whole, at, 0);
        }
        if says == Says::Nothing && !name.is_ascii() {
            says = self.foreign(name);
        }
        if says.expects(Expect::Token)
            && name.starts_with('_')
            && name.trim_start_matches('_').eq_ignore_ascii_case("token")
        {
            // A guard against forged requests: "_token".
            return Says::Nothing;
        }
        if name.starts_with(['Ġ', '▁', '#', '<', ' ']) {
            // A piece of a word, as language models cut them.
            return Says::Nothing;
        }
        let before = letters.get(at..says_at).unwrap_or_default();
        if says.expects(Expect::Password) && is_about(name.get(..says_from).unwrap_or_default()) {
            return Says::Nothing;
        }
        let may_be_harmless = |rule: &NameRule| rule.value == Expect::Random || rule.kind == Kind::ApiKey;
        if self.rule(says).is_some_and(may_be_harmless) && self.harmless.is_match(before) {
            return Says::Nothing;
        }
        says
    }
}

/// Whether a text ends with one of [`ABOUT`] as a word.
fn is_about(text: &str) -> bool {
    let head = text.trim_end_matches(|c: char| !c.is_alphanumeric());
    let ends = |word: &&str| {
        let Some(from) = head.len().checked_sub(word.len()) else { return false };
        head.get(from..).is_some_and(|tail| tail.eq_ignore_ascii_case(word))
            && begins_word(head.as_bytes(), from)
    };
    !head.is_empty() && ABOUT.iter().any(ends)
}

/// Whether a word begins at this byte of a name: at its beginning, behind something else than a letter or digit, or where small letters
/// become capitals.
fn begins_word(name: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|before| name.get(before)) else { return true };
    let here = name.get(at).copied().unwrap_or(0);
    !(before.is_ascii_alphanumeric() || *before >= 0x80)
        || here.is_ascii_uppercase() && before.is_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlp::catalogue::Catalogue;

    #[test]
    fn names_say_what_they_are() {
        let names = Names::new(Catalogue::load().unwrap().names).unwrap();
        for (name, id) in [
            ("password", "password"),
            ("db_password", "password"),
            ("userPassword", "password"),
            ("pass-word", "password"),
            ("SMTP_PASS", "password.pass"),
            ("mailPass", "password.pass"),
            ("X-Api-Key", "api-key"),
            ("contraseña", "password.spanish"),
            ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
            ("token", "token.word"),
            ("my_token", "hints.ending"),
            ("spring.datasource.password", "password"),
            ("Proxy-Authorization", "authorization"),
        ] {
            let rule = names.rule(names.says(name));
            assert_eq!(rule.map(|rule| rule.id.as_str()), Some(id), "{name}");
        }
        for name in [
            "bypass",
            "compass",
            "next_page_token",
            "pageToken",
            "csrfmiddlewaretoken",
            "public_key",
            "",
            "passage",
        ] {
            assert_eq!(names.says(name), Says::Nothing, "{name}");
        }
        assert_eq!(names.says("value"), Says::Value);
    }
}
