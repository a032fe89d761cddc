//! An agent's state in Redis: a hash, a counter of its changes, and a tag over both. A tag is made anew with each change
//! from what is known of the fields that stay, so a change reads no values.
//!
//! The tag is over the number of fields and a sum of keyed digests, one a field: a field that changes takes its old
//! digest off the sum and puts its new one on.

use super::answers;
use super::connection::Batch;
use super::keys;
use super::pipeline::Asked;
use crate::audit::attest::{KeyId, NotOurs, StoreKeys};
use crate::ids::{AgentId, hex, unhex};

const STATE: &str = "state";
const FIELD: &str = "state field";
const MASK: &str = "state mask";
/// Marks in the stored text whether Redis may let the state run out.
const KEPT: &str = "kept";
const TEMPORARY: &str = "temporary";

/// A sum of fields' digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u128);

/// A state as it is stored.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// Counts its changes.
    pub version: u64,
    /// Its tag, with what the tag is over.
    pub tag: Option<String>,
}

/// What a tag is over, beside the sum.
#[derive(Debug, Clone, Copy)]
pub struct Outline {
    /// Counts the changes.
    pub version: u64,
    /// Whether Redis may let it run out.
    pub temporary: bool,
    /// How many fields there are.
    pub fields: usize,
}

impl Sum {
    /// Puts a field's digest on.
    pub fn add(&mut self, digest: u128) {
        self.0 = self.0.wrapping_add(digest);
    }

    /// Takes a field's digest off.
    pub fn take(&mut self, digest: u128) {
        self.0 = self.0.wrapping_sub(digest);
    }
}

/// The digest of one field, with a key that is known.
pub fn field_digest(keys: &StoreKeys, with: KeyId, agent: &AgentId, (field, value): (&str, &str)) -> u128 {
    let parts: [&[u8]; 3] = [agent.as_str().as_bytes(), field.as_bytes(), value.as_bytes()];
    keys.digest_with(with, FIELD, &parts).map_or(0, u128::from_be_bytes)
}

/// The text that is stored beside a state.
pub fn tag_text(keys: &StoreKeys, agent: &AgentId, outline: Outline, sum: Sum) -> String {
    let numbers = outline.numbers();
    let mark = outline.mark();
    let tag = keys.tag(STATE, &parts(agent, mark, &numbers, &sum.0.to_be_bytes()));
    let Outline { version, fields, .. } = outline;
    let hidden = sum.0 ^ hidden_by(keys, keys.key_in_use(), agent, version);
    format!("{version} {mark} {fields} {} {}", hex(&hidden.to_be_bytes()), hex(&tag))
}

/// What hides a sum: who sees many of them, and the values, could otherwise find other values with the same sum.
fn hidden_by(keys: &StoreKeys, with: KeyId, agent: &AgentId, version: u64) -> u128 {
    let parts: [&[u8]; 2] = [agent.as_str().as_bytes(), &version.to_be_bytes()];
    keys.digest_with(with, MASK, &parts).map_or(0, u128::from_be_bytes)
}

impl Outline {
    fn numbers(&self) -> [[u8; 8]; 2] {
        [self.version, self.fields as u64].map(u64::to_be_bytes)
    }

    fn mark(&self) -> &'static str {
        if self.temporary { TEMPORARY } else { KEPT }
    }
}

/// What a stored text says: what its tag is over, the hidden sum, and the tag.
fn parse(text: &str) -> Option<(Outline, u128, Vec<u8>)> {
    let mut words = text.split(' ');
    let version = words.next()?.parse().ok()?;
    let temporary = match words.next()? {
        KEPT => false,
        TEMPORARY => true,
        _ => return None,
    };
    let fields = words.next()?.parse().ok()?;
    let hidden = u128::from_be_bytes(unhex(words.next()?)?.try_into().ok()?);
    let tag = unhex(words.next()?)?;
    words.next().is_none().then_some((Outline { version, temporary, fields }, hidden, tag))
}

fn parts<'a>(
    agent: &'a AgentId,
    mark: &'a str,
    [version, fields]: &'a [[u8; 8]; 2],
    sum: &'a [u8; 16],
) -> [&'a [u8]; 5] {
    [agent.as_str().as_bytes(), mark.as_bytes(), version, fields, sum]
}

impl Stored {
    /// Whether this is what servers and operators' commands have stored; whether Redis may let it run out.
    pub fn check(&self, keys: &StoreKeys, agent: &AgentId) -> Result<bool, NotOurs> {
        let Some(text) = &self.tag else {
            // A state that nothing was ever written to has none.
            let is_new = self.fields.is_empty() && self.version == 0;
            return if is_new { Ok(false) } else { Err(NotOurs::Foreign) };
        };
        let (outline, hidden, tag) = parse(text).ok_or(NotOurs::Foreign)?;
        let with = StoreKeys::key_of(&tag).ok_or(NotOurs::Foreign)?;
        let stated = Sum(hidden ^ hidden_by(keys, with, agent, outline.version));
        let numbers = outline.numbers();
        keys.check(STATE, &parts(agent, outline.mark(), &numbers, &stated.0.to_be_bytes()), &tag)?;
        if outline.version != self.version {
            return Err(NotOurs::Foreign);
        }
        if self.fields.is_empty() && outline.temporary {
            // It has run out. When it should have, no clock of ours may say.
            return Ok(false);
        }
        let mut sum = Sum::default();
        for (field, value) in &self.fields {
            sum.add(field_digest(keys, with, agent, (field, value)));
        }
        let is_it = sum == stated && self.fields.len() == outline.fields;
        if is_it { Ok(outline.temporary) } else { Err(NotOurs::Foreign) }
    }

    /// The tag of these fields as the version after this one, `temporary` or kept.
    pub fn next_tag(
        keys: &StoreKeys,
        agent: &AgentId,
        fields: &[(String, String)],
        version: u64,
        temporary: bool,
    ) -> String {
        let mut sum = Sum::default();
        for (field, value) in fields {
            sum.add(field_digest(keys, keys.key_in_use(), agent, (field, value)));
        }
        tag_text(keys, agent, Outline { version, temporary, fields: fields.len() }, sum)
    }
}

/// Adds the arguments of the SET that stores a tag. Its command was started by the caller.
pub fn tag_arguments(batch: &mut Batch, agent: &AgentId, text: &str) {
    let _ = batch.arg(keys::state_tag(agent)).arg(text);
}

/// Reads a state's three keys at one moment. What is of another type is an error in its place.
const READ: &str =
    "return {redis.pcall('HGETALL',KEYS[1]),redis.pcall('GET',KEYS[2]),redis.pcall('GET',KEYS[3])}";

/// Asks for all of a state, at one moment. In a script: a transaction would end what is watched.
pub fn ask_whole(batch: &mut Batch, agent: &AgentId) -> Asked<Option<Stored>> {
    let asked = batch.ask("EVAL", read_whole);
    let _ = batch.arg(READ).arg(3);
    let _ = batch.arg(keys::state(agent)).arg(keys::state_version(agent)).arg(keys::state_tag(agent));
    asked
}

/// `None`: Redis did not run the script.
fn read_whole(answer: super::Value) -> Option<Stored> {
    let super::Value::Array(values) = answer else {
        return None;
    };
    let mut values = values.into_iter();
    let fields = values.next().and_then(answers::pairs).unwrap_or_default();
    let version = values.next().as_ref().and_then(answers::int).unwrap_or(0);
    Some(Stored { fields, version, tag: values.next().and_then(read_tag) })
}

/// Reads a stored tag.
pub fn read_tag(answer: super::Value) -> Option<String> {
    answers::text(&answer).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> StoreKeys {
        StoreKeys::new(&[[7; 32]], 1).unwrap()
    }

    fn agent() -> AgentId {
        AgentId::parse("a").unwrap()
    }

    fn stored(fields: &[(String, String)], version: u64, temporary: bool) -> Stored {
        let tag = Some(Stored::next_tag(&keys(), &agent(), fields, version, temporary));
        Stored { fields: fields.to_vec(), version, tag }
    }

    #[test]
    fn what_was_never_written_is_empty_and_nothing_else_without_a_tag_is_ours() {
        let (keys, agent) = (keys(), agent());
        assert_eq!(Stored::default().check(&keys, &agent), Ok(false));
        let deleted = Stored { version: 3, ..Stored::default() };
        assert_eq!(deleted.check(&keys, &agent), Err(NotOurs::Foreign));
        let field = ("f".to_owned(), "v".to_owned());
        let foreign = Stored { fields: vec![field.clone()], ..Stored::default() };
        assert_eq!(foreign.check(&keys, &agent), Err(NotOurs::Foreign));
        // A state that is kept and is gone; one that may run out, and has.
        let kept = stored(std::slice::from_ref(&field), 1, false);
        assert_eq!(Stored { fields: Vec::new(), ..kept }.check(&keys, &agent), Err(NotOurs::Foreign));
        let temporary = stored(std::slice::from_ref(&field), 1, true);
        assert_eq!(temporary.check(&keys, &agent), Ok(true));
        assert_eq!(Stored { fields: Vec::new(), ..temporary }.check(&keys, &agent), Ok(false));
        let other = AgentId::parse("b").unwrap();
        assert_eq!(stored(&[field], 1, false).check(&keys, &other), Err(NotOurs::Foreign));
    }

    proptest! {
        #[test]
        fn any_change_shows(
            fields in proptest::collection::btree_map("[a-c]{1,2}", "[x-z]{0,3}", 1..5), version in 1u64..9,
            at in any::<proptest::sample::Index>(),
        ) {
            let (keys, agent) = (keys(), agent());
            let fields: Vec<(String, String)> = fields.into_iter().collect();
            let good = stored(&fields, version, false);
            prop_assert_eq!(good.check(&keys, &agent), Ok(false));
            let at = at.index(fields.len());
            let mut changed = good.clone();
            changed.fields[at].1.push('!');
            prop_assert!(changed.check(&keys, &agent).is_err());
            let mut removed = good.clone();
            drop(removed.fields.remove(at));
            prop_assert!(removed.check(&keys, &agent).is_err());
            let mut doubled = good.clone();
            doubled.fields.push(fields[at].clone());
            prop_assert!(doubled.check(&keys, &agent).is_err());
            let newer = Stored { version: version + 1, ..good.clone() };
            prop_assert!(newer.check(&keys, &agent).is_err());
            let text = good.tag.clone().unwrap().replace(KEPT, TEMPORARY);
            let marked = Stored { tag: Some(text), ..good };
            prop_assert!(marked.check(&keys, &agent).is_err());
        }
    }
}
