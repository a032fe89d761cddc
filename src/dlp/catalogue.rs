//! The rules that are data: names that say what stands beside them, and tokens that tell themselves by a prefix.
//! `rules/*.yaml` are part of the program.

use serde::Deserialize;

use super::kinds::Kind;

/// The names, the tokens and the commands.
const NAMES: &str = include_str!("rules/names.yaml");
const TOKENS: &str = include_str!("rules/tokens.yaml");
const COMMANDS: &str = include_str!("rules/commands.yaml");

/// What a value has to look like to be what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expect {
    Password,
    /// A key of one word.
    Key,
    /// A key of sixteen characters or more.
    LongKey,
    Token,
    /// A scheme and a credential.
    Authorization,
    /// Only a machine makes it.
    Random,
    Ssn,
    SecurityCode,
    RecordNumber,
    InsuranceNumber,
    Phone,
    Icd10,
    Card,
    Street,
}

/// Where in a longer name a name may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Match {
    /// At its end.
    #[default]
    Ending,
    /// At its end, as a word of its own.
    Word,
    /// Nowhere: it is the whole name.
    Whole,
}

/// Names that mean the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameRule {
    pub(super) id: String,
    #[serde(deserialize_with = "kind")]
    pub(super) kind: Kind,
    pub(super) value: Expect,
    /// What the name alone counts as evidence.
    pub(super) weight: i32,
    pub(super) names: Vec<String>,
    #[serde(default, rename = "match")]
    pub(super) matched: Match,
    /// Whether it is a label in running text, too.
    #[serde(default = "yes")]
    pub(super) text: bool,
    #[serde(rename = "source")]
    _source: String,
}

/// What a token is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Alphabet {
    Alnum,
    /// Letters, digits and `_`.
    Word,
    /// Letters, digits, `_` and `-`.
    Url,
    /// Letters, digits, `_`, `-` and `.`.
    Dotted,
    /// What a URL's path and query hold.
    Path,
    Hex,
    /// Capital letters and 2 to 7.
    Base32,
    /// Letters, digits, `+`, `/` and `=`.
    Base64,
    /// The same, and `_` and `-`.
    Base64Any,
}

impl Alphabet {
    /// How many there are.
    pub(super) const COUNT: usize = 9;

    pub(super) fn has(self, byte: u8) -> bool {
        let alnum = byte.is_ascii_alphanumeric();
        match self {
            Self::Alnum => alnum,
            Self::Word => alnum || byte == b'_',
            Self::Url => alnum || matches!(byte, b'_' | b'-'),
            Self::Dotted => alnum || matches!(byte, b'_' | b'-' | b'.'),
            Self::Path => {
                alnum
                    || matches!(
                        byte,
                        b'/' | b':' | b'.' | b'_' | b'-' | b'%' | b'=' | b'&' | b'?' | b'@' | b'$'
                    )
            }
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Base32 => byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7'),
            Self::Base64 => alnum || matches!(byte, b'+' | b'/' | b'='),
            Self::Base64Any => alnum || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-'),
        }
    }
}

/// What characters a token has to mix: words and file names behind a short prefix do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mixed {
    /// Letters and two digits, or letters of both cases.
    #[default]
    Digits,
    /// Letters of both cases and two digits.
    Both,
}

/// One length, or the least and the most.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Length {
    Exact(usize),
    Between(usize, usize),
}

/// A token that tells itself by its prefix.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRule {
    pub(super) prefix: String,
    #[serde(deserialize_with = "kind")]
    pub(super) kind: Kind,
    pub(super) alphabet: Alphabet,
    length: Length,
    #[serde(default)]
    pub(super) mixed: Mixed,
    #[serde(rename = "source")]
    _source: String,
}

impl TokenRule {
    /// The least and the most characters behind the prefix.
    pub(super) fn length(&self) -> (usize, usize) {
        match self.length {
            Length::Exact(one) => (one, one),
            Length::Between(least, most) => (least, most),
        }
    }
}

/// A command that takes a password without naming it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandRule {
    pub(super) command: String,
    /// Options whose argument is a user and a password.
    #[serde(default)]
    pub(super) user: Vec<String>,
    /// Options whose argument is a password.
    #[serde(default)]
    pub(super) password: Vec<String>,
    /// Options that the password follows without a blank.
    #[serde(default)]
    pub(super) glued: Vec<String>,
    /// Which of its arguments, options not counted, is a password; 0: none.
    #[serde(default)]
    pub(super) place: usize,
    /// Commands that its output is piped into, and that read a password, or a user and one: all that it writes is that.
    #[serde(default)]
    pub(super) into: Vec<String>,
    #[serde(rename = "source")]
    _source: String,
}

fn yes() -> bool {
    true
}

fn kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    let name = String::deserialize(deserializer)?;
    Kind::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no type of data")))
}

/// The rules that are data.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) names: Vec<NameRule>,
    pub(super) tokens: Vec<TokenRule>,
    /// In the order of their names.
    pub(super) commands: Vec<CommandRule>,
}

/// Rules of one's own, in the form of the embedded ones.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Own {
    names: Vec<NameRule>,
    tokens: Vec<TokenRule>,
    commands: Vec<CommandRule>,
}

/// Most rules of each sort that one configuration adds, and names that one rule has.
const MAX_OWN: usize = 256;
const MAX_NAMES: usize = 64;
/// Most names of all of them: each is a part of the table that messages are searched with.
const MAX_OWN_NAMES: usize = 1024;
/// Longest name, prefix, command or option, in characters; shortest prefix, in bytes.
const MAX_TEXT: usize = 64;
const MIN_PREFIX: usize = 3;
/// Longest token.
const MAX_TOKEN: usize = 4096;

impl Catalogue {
    /// The embedded rules.
    pub(super) fn load() -> Result<Self, String> {
        let names = serde_yaml::from_str(NAMES).map_err(|error| format!("names: {error}"))?;
        let tokens = serde_yaml::from_str(TOKENS).map_err(|error| format!("tokens: {error}"))?;
        let commands = serde_yaml::from_str(COMMANDS).map_err(|error| format!("commands: {error}"))?;
        Ok(Self { names, tokens, commands }.in_order())
    }

    /// The embedded rules and those of a file.
    pub(super) fn with_own(text: &str) -> Result<Self, String> {
        // An alias is as long as what it stands for, again and again.
        if text.contains('&') {
            return Err("`&` is not read: rules have no anchors".to_owned());
        }
        let own: Own = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let mut all = Self::load()?;
        let sorts =
            [("names", own.names.len()), ("tokens", own.tokens.len()), ("commands", own.commands.len())];
        if let Some((sort, count)) = sorts.into_iter().find(|(_, count)| *count > MAX_OWN) {
            return Err(format!("{sort}: {count} rules, at most {MAX_OWN} are allowed"));
        }
        let names: usize = own.names.iter().map(|rule| rule.names.len()).sum();
        if names > MAX_OWN_NAMES {
            return Err(format!("{names} names, at most {MAX_OWN_NAMES} are allowed"));
        }
        let embedded = all.names.len();
        for rule in own.names {
            rule.check().map_err(|problem| format!("names: {:?}: {problem}", rule.id))?;
            let weakened = all.names.iter().take(embedded).find_map(|known| known.weakened_by(&rule));
            if let Some(name) = weakened {
                return Err(format!(
                    "names: {:?}: {name:?} is, or ends in, a built-in name, and would count less than that: the same value, no \
                     smaller weight and a kind that does no less are needed",
                    rule.id
                ));
            }
            if all.names.iter().any(|known| known.id == rule.id) {
                return Err(format!("names: {:?}: another rule has this id", rule.id));
            }
            all.names.push(rule);
        }
        for token in own.tokens {
            token.check().map_err(|problem| format!("tokens: {:?}: {problem}", token.prefix))?;
            if all.tokens.iter().any(|known| known.prefix == token.prefix) {
                return Err(format!("tokens: {:?}: another rule has this prefix", token.prefix));
            }
            all.tokens.push(token);
        }
        for command in own.commands {
            command.check().map_err(|problem| format!("commands: {:?}: {problem}", command.command))?;
            if all.commands.iter().any(|known| known.begins(&command) || command.begins(known)) {
                return Err(format!(
                    "commands: {:?}: another rule has it, or its beginning",
                    command.command
                ));
            }
            all.commands.push(command);
        }
        Ok(all.in_order())
    }

    fn in_order(mut self) -> Self {
        self.commands.sort_by(|one, other| one.command.cmp(&other.command));
        self
    }
}

/// A name without what may part its words.
fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).collect()
}

impl CommandRule {
    /// Whether the other's command is this one with or without further words.
    fn begins(&self, other: &Self) -> bool {
        let rest = other.command.strip_prefix(self.command.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

impl NameRule {
    /// A name of another rule that would be found in this one's place, and count less.
    fn weakened_by<'a>(&self, other: &'a Self) -> Option<&'a str> {
        let counts = other.value == self.value
            && other.weight >= self.weight
            && other.kind.default_action() >= self.kind.default_action();
        let ends = |name: &&String| self.names.iter().any(|own| letters(name).ends_with(&letters(own)));
        let same = |name: &&String| self.names.iter().any(|own| letters(name) == letters(own));
        other.names.iter().find(|name| same(name) || !counts && ends(name)).map(String::as_str)
    }

    fn check(&self) -> Result<(), String> {
        if self.id.trim().is_empty() || self.id.len() > MAX_TEXT || self.id.chars().any(char::is_control) {
            return Err(format!("an id is printable and has at most {MAX_TEXT} bytes"));
        }
        if !(20..=60).contains(&self.weight) {
            return Err(format!("weight {}: expected 20 to 60", self.weight));
        }
        if self.names.is_empty() || self.names.len() > MAX_NAMES {
            return Err(format!("{} names, expected 1 to {MAX_NAMES}", self.names.len()));
        }
        let is_name = |name: &&String| {
            let words =
                name.split(' ').all(|word| !word.is_empty() && word.chars().all(char::is_alphanumeric));
            words && (2..=MAX_TEXT).contains(&name.chars().count()) && **name == name.to_lowercase()
        };
        match self.names.iter().find(|name| !is_name(name)) {
            Some(name) => Err(format!(
                "{name:?}: expected words of small letters and digits, parted by one blank, at most {MAX_TEXT} \
                 characters"
            )),
            None => Ok(()),
        }
    }
}

impl TokenRule {
    fn check(&self) -> Result<(), String> {
        let (least, most) = self.length();
        if self.prefix.len() < MIN_PREFIX
            || self.prefix.len() > MAX_TEXT
            || !self.prefix.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(format!("a prefix has {MIN_PREFIX} to {MAX_TEXT} printable ASCII characters"));
        }
        if least < 8 || least > most || most > MAX_TOKEN {
            return Err(format!("length {least} to {most}: expected 8 to {MAX_TOKEN}, the least first"));
        }
        Ok(())
    }
}

impl CommandRule {
    fn check(&self) -> Result<(), String> {
        let options = self.user.iter().chain(&self.password).chain(&self.glued).chain(&self.into);
        let texts = std::iter::once(&self.command).chain(options);
        let fits = |text: &String| {
            (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        if !texts.clone().all(fits) || texts.count() > MAX_NAMES {
            return Err(format!(
                "a command and its options have 1 to {MAX_TEXT} printable ASCII characters, and are at most {MAX_NAMES}"
            ));
        }
        let says = self.place > 0
            || !(self.user.is_empty()
                && self.password.is_empty()
                && self.glued.is_empty()
                && self.into.is_empty());
        if says { Ok(()) } else { Err("says nothing of where the password is".to_owned()) }
    }
}

/// How a name may be written in text: its words parted by a blank, by `_` (which stands for `-`, too), or by nothing.
pub(super) fn spellings(name: &str) -> Vec<String> {
    let mut spellings = Vec::new();
    for separator in [" ", "_", ""] {
        let spelling = name.replace(' ', separator);
        if !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
        if !name.contains(' ') {
            break;
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_read_and_name_each_rule_once() {
        let catalogue = Catalogue::load().unwrap();
        let mut ids: Vec<&str> = catalogue.names.iter().map(|rule| rule.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), catalogue.names.len());
        let mut prefixes: Vec<&str> = catalogue.tokens.iter().map(|rule| rule.prefix.as_str()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), catalogue.tokens.len());
        assert!(
            catalogue.names.iter().all(|rule| (20..=60).contains(&rule.weight) && !rule.names.is_empty())
        );
        assert!(catalogue.tokens.iter().all(|rule| rule.length().0 <= rule.length().1));
    }

    #[test]
    fn rules_of_ones_own_are_checked() {
        let own = "names: [{id: own.pin, kind: secret, value: password, weight: 60, names: [tresor code], source: us}]\n\
                   tokens: [{prefix: acme_, kind: service_token, alphabet: hex, length: 32, source: us}]\n\
                   commands: [{command: acmectl login, password: [--with], source: us}]\n";
        let (all, embedded) = (Catalogue::with_own(own).unwrap(), Catalogue::load().unwrap());
        assert_eq!(all.names.len(), embedded.names.len() + 1);
        assert_eq!(all.tokens.len(), embedded.tokens.len() + 1);
        assert_eq!(all.commands.len(), embedded.commands.len() + 1);
        for (text, said) in [
            (
                "names: [{id: password, kind: secret, value: key, weight: 60, names: [x y], source: us}]",
                "this id",
            ),
            (
                "names: [{id: own, kind: sekret, value: key, weight: 60, names: [x y], source: us}]",
                "no type of data",
            ),
            (
                "names: [{id: own, kind: secret, value: key, weight: 90, names: [x y], source: us}]",
                "weight 90",
            ),
            (
                "names: [{id: own, kind: secret, value: key, weight: 60, names: ['x_y'], source: us}]",
                "small letters",
            ),
            ("names: [{id: own, kind: secret, value: key, weight: 60, names: [], source: us}]", "0 names"),
            ("tokens: [{prefix: 'a', kind: jwt, alphabet: hex, length: 32, source: us}]", "a prefix has"),
            ("tokens: [{prefix: 'acme_', kind: jwt, alphabet: hex, length: 2, source: us}]", "length 2"),
            ("tokens: [{prefix: 'ghp_', kind: jwt, alphabet: hex, length: 20, source: us}]", "this prefix"),
            ("commands: [{command: x, source: us}]", "says nothing"),
            ("commands: [{command: docker, password: [-p], source: us}]", "its beginning"),
            (
                "names: [{id: own, kind: email, value: icd10, weight: 20, names: [api key], source: us}]",
                "api key",
            ),
            (
                "names: [{id: own, kind: secret, value: password, weight: 60, names: [password], source: us}]",
                "password",
            ),
            (
                "names: [{id: own, kind: secret, value: key, weight: 60, names: [vault password], source: us}]",
                "vault",
            ),
            ("names: &a []\ntokens: *a", "no anchors"),
            ("rules: []", "unknown field"),
        ] {
            let error = Catalogue::with_own(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn names_are_written_in_several_ways() {
        assert_eq!(spellings("api key"), ["api key", "api_key", "apikey"]);
        assert_eq!(spellings("contraseña"), ["contraseña"]);
    }
}
