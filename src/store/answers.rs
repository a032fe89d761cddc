//! Reads Redis' answers into types. An answer of another shape is `None`: the caller decides what that
//! means, nobody guesses.

use std::fmt;

use redis::{ToRedisArgs, Value};

/// Id of a stream entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// Milliseconds part.
    pub ms: u64,
    /// Sequence part.
    pub seq: u64,
}

impl EntryId {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// Its text, without a detour over formatting: several are written for each message.
    pub fn to_text(self) -> String {
        let mut numbers = [itoa::Buffer::new(), itoa::Buffer::new()];
        let [ms, seq] = &mut numbers;
        [ms.format(self.ms), "-", seq.format(self.seq)].concat()
    }

    /// Parses `ms-seq`: decimal digits without sign, padding or anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: digits(ms)?, seq: digits(seq)? })
    }
}

fn digits(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl ToRedisArgs for EntryId {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.to_text().as_bytes());
    }
}

/// A delivery stream entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its id.
    pub id: EntryId,
    /// Its `envelope` field; `None` where a foreign writer left it out.
    pub envelope: Option<String>,
    /// When it expires, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// When it may be delivered first, in Unix milliseconds.
    pub not_before_ms: Option<u64>,
    /// Its tag, and the record that allowed it; see [`super::attested`].
    pub attest: Option<Vec<u8>>,
}

/// An entry with all its fields as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeEntry {
    /// What is known of it.
    pub entry: StreamEntry,
    /// Names and values in turn.
    pub fields: Vec<Vec<u8>>,
}

impl StreamEntry {
    fn read(id: EntryId, fields: Vec<Value>) -> Self {
        let mut entry = Self { id, envelope: None, expires_ms: None, not_before_ms: None, attest: None };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match text(&name) {
                Some(super::keys::ENVELOPE_FIELD) => {
                    if let Value::BulkString(bytes) = value {
                        entry.envelope = String::from_utf8(bytes).ok();
                    }
                }
                Some(super::keys::ATTEST_FIELD) => {
                    if let Value::BulkString(bytes) = value {
                        entry.attest = Some(bytes);
                    }
                }
                Some(super::keys::EXPIRES_FIELD) => entry.expires_ms = int(&value),
                Some(super::keys::NOT_BEFORE_FIELD) => entry.not_before_ms = int(&value),
                _ => {}
            }
        }
        entry
    }
}

/// Text of a bulk or simple string.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

/// An integer answer.
pub fn int(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// The error code of a refused command, such as `NOGROUP`.
pub fn error_code(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}

/// XREADGROUP over one stream: its entries; none where nothing is new.
pub fn read_one_stream(value: Value) -> Option<Vec<StreamEntry>> {
    match value {
        Value::Nil => Some(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next() {
            None => Some(Vec::new()),
            Some(Value::Array(pair)) => entries(pair.into_iter().nth(1)?),
            Some(_) => None,
        },
        _ => None,
    }
}

/// XRANGE and XCLAIM: entries; deleted ones (nil) are left out.
pub fn entries(value: Value) -> Option<Vec<StreamEntry>> {
    let Value::Array(items) = value else {
        return None;
    };
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::Nil => {}
            item => {
                let (id, fields) = entry(item)?;
                found.push(StreamEntry::read(id, fields));
            }
        }
    }
    Some(found)
}

/// XRANGE: entries as they are stored.
pub fn whole_entries(value: Value) -> Option<Vec<WholeEntry>> {
    let Value::Array(items) = value else {
        return None;
    };
    let whole = |item: Value| {
        let (id, values) = entry(item)?;
        let fields = values.iter().map(bytes_of).collect();
        Some(WholeEntry { entry: StreamEntry::read(id, values), fields })
    };
    items.into_iter().map(whole).collect()
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes.clone(),
        other => text(other).unwrap_or_default().as_bytes().to_vec(),
    }
}

/// One stream entry: its id and its fields, names and values in turn.
pub fn entry(value: Value) -> Option<(EntryId, Vec<Value>)> {
    let Value::Array(pair) = value else {
        return None;
    };
    let mut pair = pair.into_iter();
    let id = EntryId::parse(text(&pair.next()?)?)?;
    match pair.next()? {
        Value::Array(fields) => Some((id, fields)),
        // A pending entry whose message was deleted.
        Value::Nil => Some((id, Vec::new())),
        _ => None,
    }
}

/// The value of one field.
pub fn field(fields: Vec<Value>, name: &str) -> Option<Vec<u8>> {
    let mut fields = fields.into_iter();
    while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
        if let (Some(key), Value::BulkString(bytes)) = (text(&key), value)
            && key == name
        {
            return Some(bytes);
        }
    }
    None
}

/// A line of XPENDING's extended form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEntry {
    /// The entry.
    pub id: EntryId,
    /// Who holds it.
    pub consumer: String,
    /// Milliseconds since it was delivered last.
    pub idle_ms: u64,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// XPENDING's extended form.
pub fn pending(value: &Value) -> Option<Vec<PendingEntry>> {
    let Value::Array(lines) = value else {
        return None;
    };
    lines
        .iter()
        .map(|line| {
            let Value::Array(cells) = line else {
                return None;
            };
            let [id, consumer, idle_ms, deliveries] = cells.as_slice() else {
                return None;
            };
            Some(PendingEntry {
                id: EntryId::parse(text(id)?)?,
                consumer: text(consumer)?.to_owned(),
                idle_ms: int(idle_ms)?,
                deliveries: u32::try_from(int(deliveries)?).ok()?,
            })
        })
        .collect()
}

/// HGETALL: fields and values.
pub fn pairs(value: Value) -> Option<Vec<(String, String)>> {
    let Value::Array(items) = value else {
        return None;
    };
    let mut found = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(field), Some(value)) = (items.next(), items.next()) {
        found.push((owned_text(field)?, owned_text(value)?));
    }
    Some(found)
}

/// Text, moved out where that is possible. Bytes that are no UTF-8 (a foreign writer's) become
/// replacement characters: the protocol has only strings.
fn owned_text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
        ),
        other => text(&other).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_text_is_an_entry_id() {
        assert_eq!(EntryId::parse("12-3"), Some(EntryId { ms: 12, seq: 3 }));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "01-2",
            "1-02",
            "+1-2",
            "1-2-3",
            "1-2\n",
            " 1-2",
            "18446744073709551616-0",
        ] {
            assert_eq!(EntryId::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_id_reads_back(ms in any::<u64>(), seq in any::<u64>()) {
            let id = EntryId { ms, seq };
            prop_assert_eq!(EntryId::parse(&id.to_string()), Some(id));
        }
    }
}
