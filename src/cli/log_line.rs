//! One event as a line: for people as text, for collectors as a JSON object. Every event has a code, which does not
//! change with its words; `docs/logs.md` lists the codes.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde_json::{Map, Value as Json};

/// The key under which a record has its event's code.
pub(super) const CODE: &str = "code";
/// The code of a line that has none: one of another crate.
const OTHER: &str = "other";
/// Names in the JSON object that are not an event's own fields.
const RESERVED: [&str; 6] = ["time", "level", "code", "module", "thread", "message"];

/// Writes a line for people: time, level, code, message, and the fields that the message does not give.
pub(super) fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let (time, level) = (out.timestamp_millis(), record.level());
    writeln!(out, "[{time} {style}{level:<5}{style:#} {}", Event::of(record).text())
}

/// Writes a line for collectors.
pub(super) fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = out.timestamp_micros().to_string();
    let thread = std::thread::current().name().map(str::to_owned);
    let line = Event::of(record).json(&time, record.level(), record.target(), thread.as_deref());
    writeln!(out, "{line}")
}

/// What a record says.
#[derive(Debug)]
struct Event {
    code: String,
    message: String,
    fields: Fields,
}

impl Event {
    fn of(record: &Record<'_>) -> Self {
        let mut fields = Fields::default();
        // A visit ends early only where the visitor gives an error, and this one gives none.
        let _ = record.key_values().visit(&mut fields);
        let code = fields.code.take().unwrap_or_else(|| OTHER.to_owned());
        Self { code, message: record.args().to_string(), fields }
    }

    /// The line behind the level. It is one line whatever the message holds.
    fn text(&self) -> String {
        let mut line = format!("{}] ", self.code);
        push_escaped(&mut line, &self.message);
        for (name, value) in &self.fields.own {
            let value = shown(value);
            if !gives(&self.message, name, &value) {
                // Writing to a string does not fail.
                let _ = write!(line, " {name}={}", quoted(&value));
            }
        }
        line
    }

    fn json(self, time: &str, level: Level, module: &str, thread: Option<&str>) -> Json {
        let mut line: Map<String, Json> = self.fields.own.into_iter().collect();
        for (name, value) in RESERVED.into_iter().zip([
            time.into(),
            level.as_str().into(),
            self.code.into(),
            module.into(),
            thread.into(),
            self.message.into(),
        ]) {
            let _ = line.insert(name.to_owned(), value);
        }
        Json::Object(line)
    }
}

/// The key-values of a record.
#[derive(Debug, Default)]
struct Fields {
    code: Option<String>,
    own: Vec<(String, Json)>,
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if key.as_str() == CODE {
            self.code = Some(value.to_string());
            return Ok(());
        }
        let mut taken = Taken(None);
        value.visit(&mut taken)?;
        if let Some(value) = taken.0 {
            self.own.push((key.as_str().to_owned(), value));
        }
        Ok(())
    }
}

/// A value as JSON; nothing where there is none.
struct Taken(Option<Json>);

impl VisitValue<'_> for Taken {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = Some(value.to_string().into());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = Some(value.into());
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = Some(value.into());
        Ok(())
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether the message gives a field's value: as words of its own, a number behind the field's name.
fn gives(message: &str, name: &str, value: &str) -> bool {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let wanted = if is_number { format!("{name} {value}") } else { value.to_owned() };
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    message.match_indices(&wanted).any(|(at, _)| {
        let before = message.get(..at).and_then(|text| text.chars().next_back());
        let behind = message.get(at + wanted.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    })
}

/// A value that reads as one word, or in quotes.
fn quoted(value: &str) -> String {
    let is_word =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if is_word { value.to_owned() } else { format!("{value:?}") }
}

/// Control characters are written as escapes: peers decide what stands in some messages.
fn push_escaped(line: &mut String, message: &str) {
    for c in message.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fields: &[(&str, Value<'_>)], message: &str) -> Event {
        Event::of(&Record::builder().key_values(&fields).args(format_args!("{message}")).build())
    }

    #[test]
    fn text_has_the_code_and_the_fields_that_the_message_lacks() {
        let fields = [
            ("code", Value::from("redis_away")),
            ("worker", Value::from(1_u64)),
            ("path", Value::from("/a b")),
            ("agent", Value::from("alpha")),
            ("peer", Value::from("none")),
            ("absent", Value::null()),
        ];
        let told = event(&fields, "worker 1: alpha cannot connect, nonetheless");
        assert_eq!(
            told.text(),
            "redis_away] worker 1: alpha cannot connect, nonetheless path=\"/a b\" peer=none"
        );
        // A number that happens to stand in the message is not the field's.
        assert_eq!(event(&fields[..2], "1 of 2 left").text(), "redis_away] 1 of 2 left worker=1");
        assert_eq!(event(&fields[..2], "worker 12 left").text(), "redis_away] worker 12 left worker=1");
    }

    #[test]
    fn a_message_stays_one_line() {
        let told = event(&[("code", Value::from("x")), ("key", Value::from("b\nc"))], "a\nb\u{1b}[2J");
        assert_eq!(told.text(), "x] a\\nb\\u{1b}[2J key=\"b\\nc\"");
    }

    #[test]
    fn json_has_fields_of_their_kind_beside_what_every_line_has() {
        let fields = [
            ("code", Value::from("redis_away")),
            ("worker", Value::from(1_u64)),
            ("level", Value::from("a trick")),
            ("absent", Value::null()),
        ];
        let line = event(&fields, "gone").json("now", Level::Warn, "mas::shard", Some("worker-1"));
        let expected = serde_json::json!({
            "time": "now", "level": "WARN", "code": "redis_away", "module": "mas::shard", "thread": "worker-1",
            "message": "gone", "worker": 1,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_of_another_crate_is_other() {
        assert_eq!(event(&[], "what").text(), "other] what");
    }
}
