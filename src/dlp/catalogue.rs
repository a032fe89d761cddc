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
}

impl Alphabet {
    /// How many there are.
    pub(super) const COUNT: usize = 8;

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

impl Catalogue {
    pub(super) fn load() -> Result<Self, String> {
        let names = serde_yaml::from_str(NAMES).map_err(|error| format!("names: {error}"))?;
        let tokens = serde_yaml::from_str(TOKENS).map_err(|error| format!("tokens: {error}"))?;
        let mut commands: Vec<CommandRule> =
            serde_yaml::from_str(COMMANDS).map_err(|error| format!("commands: {error}"))?;
        commands.sort_by(|one, other| one.command.cmp(&other.command));
        Ok(Self { names, tokens, commands })
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
    fn names_are_written_in_several_ways() {
        assert_eq!(spellings("api key"), ["api key", "api_key", "apikey"]);
        assert_eq!(spellings("contraseña"), ["contraseña"]);
    }
}
