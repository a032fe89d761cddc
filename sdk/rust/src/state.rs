//! The agent's state: fields of text, read and written with a version, and changed without losing another's change.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::calls::from_now;
use crate::error::AgentError;
use crate::failure::Failure;
use crate::handle::Handle;
use crate::protocol::{
    GET_STATE, GetStateRequest, RESET_STATE, ResetStateRequest, UPDATE_STATE, UpdateStateRequest,
};
use crate::wire::millis;

/// Wait before a change is tried again that somebody else was faster than; doubles up to the last, each of half to all.
const CHANGE_FIRST: Duration = Duration::from_millis(2);
const CHANGE_LAST: Duration = Duration::from_millis(200);

/// The agent's state, shared by its instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct State {
    /// Its fields: a text is itself, everything else is JSON.
    pub fields: HashMap<String, String>,
    /// Grows with every change; 0: there is none, or the server does not count.
    pub version: u64,
}

impl State {
    /// The state as a type; fields that are missing take the type's defaults (`#[serde(default)]`).
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, AgentError> {
        let fields = self.fields.iter().map(|(name, text)| (name.as_str(), Field(text)));
        T::deserialize(MapDeserializer::new(fields)).map_err(AgentError::Payload)
    }
}

/// The fields of a type, as they are stored.
fn fields_of<T: Serialize + ?Sized>(value: &T) -> Result<HashMap<String, String>, AgentError> {
    match serde_json::to_value(value).map_err(AgentError::Payload)? {
        Json::Object(fields) => Ok(fields
            .into_iter()
            .map(|(name, value)| match value {
                Json::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect()),
        _ => Err(AgentError::Setup("a state is made of fields: expected a struct or a map".to_owned())),
    }
}

/// A stored field: a text where a text is wanted, JSON otherwise. What does not say what it wants (`#[serde(flatten)]`, untagged and
/// internally tagged types, `serde_json::Value`) gets JSON where the text is some.
struct Field<'a>(&'a str);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Field<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> serde::Deserializer<'de> for Field<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match serde_json::from_str::<Json>(self.0) {
            Ok(value) => value.deserialize_any(visitor),
            Err(_) => visitor.visit_string(self.0.to_owned()),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0.to_owned())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0.to_owned())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0 == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match serde_json::from_str::<Json>(self.0) {
            Ok(value @ (Json::Object(_) | Json::String(_))) => {
                value.deserialize_enum(name, variants, visitor)
            }
            _ => Json::from(self.0).deserialize_enum(name, variants, visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl Handle {
    /// The agent's state.
    pub fn state(&self) -> Result<State, AgentError> {
        self.state_until(from_now(self.calls.call_timeout))
    }

    fn state_until(&self, give_up: Instant) -> Result<State, AgentError> {
        let response = self.calls.read("get state", &GET_STATE, &GetStateRequest::new(), give_up)?;
        Ok(State { fields: response.state, version: response.version })
    }

    /// Sets fields of the agent's state, whatever it is. What depends on what it was is for
    /// [`change_state`](Self::change_state). Returns the new version.
    pub fn update_state(&self, updates: &[(&str, &str)]) -> Result<u64, AgentError> {
        updates.iter().fold(self.state_update(), |update, (field, value)| update.set(field, value)).apply()
    }

    /// Begins an update of the state that carries more than fields.
    ///
    /// ```no_run
    /// # fn example(agent: &mas_agent::Agent) -> Result<(), mas_agent::AgentError> {
    /// let state = agent.state()?;
    /// agent.state_update().set("step", "2").expect_version(state.version).apply()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn state_update(&self) -> StateUpdate {
        StateUpdate { agent: self.clone(), request: UpdateStateRequest::new() }
    }

    /// Changes the state by what it was, so that no other change is lost: reads it as `T`, lets `change` change it, and writes
    /// what has changed, if nobody else has written meanwhile; else again, within the call's time. Returns what was written. It
    /// removes no field, and `change` must not change the state itself.
    ///
    /// ```no_run
    /// # #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// #[serde(default)]
    /// struct Memory { asked: u32 }
    /// # fn example(agent: &mas_agent::Agent) -> Result<(), mas_agent::AgentError> {
    /// let memory: Memory = agent.change_state(|memory: &mut Memory| memory.asked += 1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn change_state<T: Serialize + DeserializeOwned>(
        &self,
        change: impl Fn(&mut T),
    ) -> Result<T, AgentError> {
        let give_up = from_now(self.calls.call_timeout);
        let mut pause = CHANGE_FIRST;
        // One at a time in this process: they would only be in each other's way.
        let Some(_turn) = self.calls.state_turn(give_up) else {
            return Err(AgentError::NotConnected("other changes of the state take too long".to_owned()));
        };
        loop {
            let state = self.state_until(give_up)?;
            let mut value: T = state.parse()?;
            change(&mut value);
            let mut update = self.state_update().expect_version(state.version);
            for (field, text) in fields_of(&value)? {
                if state.fields.get(&field) != Some(&text) {
                    update = update.set(&field, &text);
                }
            }
            if update.request.updates.is_empty() {
                return Ok(value);
            }
            match update.apply_until(give_up) {
                Err(error)
                    if error.detail() == Some("version_mismatch") && Instant::now() + pause < give_up =>
                {
                    let half = pause / 2;
                    std::thread::sleep(
                        half + half.mul_f64(f64::from(Uuid::new_v4().as_u128() as u8) / 255.0),
                    );
                    pause = (pause * 2).min(CHANGE_LAST);
                }
                outcome => return outcome.map(|_| value),
            }
        }
    }

    /// Removes the agent's state.
    pub fn reset_state(&self) -> Result<(), AgentError> {
        let (what, give_up) = ("reset state", from_now(self.calls.call_timeout));
        let request = ResetStateRequest::new();
        let done = self.calls.until(
            what,
            give_up,
            |_| false,
            |open| self.calls.unary(what, open, &RESET_STATE, &request, give_up),
        );
        done.map(drop)
    }
}

/// A change of the state, to be applied. From [`Handle::state_update`].
#[must_use = "nothing happens before `apply`"]
pub struct StateUpdate {
    agent: Handle,
    request: UpdateStateRequest,
}

impl StateUpdate {
    /// Sets a field.
    pub fn set(mut self, field: &str, value: &str) -> Self {
        let _ = self.request.updates.insert(field.to_owned(), value.to_owned());
        self
    }

    /// Only if the state has this version; otherwise it is refused as `version_mismatch`.
    pub fn expect_version(mut self, version: u64) -> Self {
        self.request.expected_version = Some(version);
        self
    }

    /// The whole state is gone this long after the update.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl_ms = millis(ttl).max(1);
        self
    }

    /// Has it done; the new version.
    pub fn apply(self) -> Result<u64, AgentError> {
        let give_up = from_now(self.agent.calls.call_timeout);
        self.apply_until(give_up)
    }

    fn apply_until(self, give_up: Instant) -> Result<u64, AgentError> {
        let Self { agent, request } = self;
        let what = "update state";
        let done = agent.calls.until(
            what,
            give_up,
            |_| false,
            |open| {
                if request.expected_version.is_some() && !open.offers.versions {
                    return Err(Failure::Final(AgentError::Unsupported("versions of the state")));
                }
                if request.ttl_ms > 0 && !open.offers.times {
                    return Err(Failure::Final(AgentError::Unsupported("times to live")));
                }
                agent.calls.unary(what, open, &UPDATE_STATE, &request, give_up)
            },
        );
        done.map(|response| response.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Mood {
        Good,
        Bad { why: String },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Memory {
        name: String,
        nick: Option<String>,
        asked: u64,
        share: f64,
        flag: bool,
        history: Vec<String>,
        mood: Mood,
    }

    fn text() -> impl Strategy<Value = String> {
        // Texts that look like JSON are texts all the same; "null" as an optional text is read as none.
        prop_oneof!["\\PC{0,12}", Just("7".to_owned()), Just("\"q\"".to_owned()), Just("[1]".to_owned())]
            .prop_filter("is none", |text| text != "null")
    }

    fn memory() -> impl Strategy<Value = Memory> {
        let mood = prop_oneof![Just(Mood::Good), text().prop_map(|why| Mood::Bad { why })];
        (
            text(),
            proptest::option::of(text()),
            any::<u64>(),
            (any::<i32>().prop_map(|n| f64::from(n) / 4.0)),
            any::<bool>(),
            proptest::collection::vec(text(), 0..4),
            mood,
        )
            .prop_map(|(name, nick, asked, share, flag, history, mood)| Memory {
                name,
                nick,
                asked,
                share,
                flag,
                history,
                mood,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(memory in memory()) {
            let state = State { fields: fields_of(&memory).unwrap(), version: 1 };
            prop_assert_eq!(state.parse::<Memory>().unwrap(), memory);
        }
    }

    #[test]
    fn what_has_no_fields_is_no_state() {
        assert!(fields_of(&7).is_err() && fields_of(&["a"]).is_err());
    }
}
