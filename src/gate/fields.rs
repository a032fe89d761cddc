//! The boundaries of the header fields in an HPACK block: how many there are, without any table. Pure.

/// Fields of one header block; gRPC's clients send some ten.
pub const MAX_FIELDS: u32 = 64;
/// Bytes of an HPACK integer after its prefix: 28 bits, more than any block has.
const MAX_INTEGER_BYTES: u8 = 4;

/// What whoever counts says of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It passes.
    Pass,
    /// It may be asked for again at this time, in microseconds.
    Hold(u64),
    /// The connection is cut.
    Cut(&'static str),
}

/// Where the next byte of a header block belongs.
#[derive(Debug, Default, Clone, Copy)]
enum Field {
    #[default]
    Start,
    /// In an index; whether a name and a value follow.
    Index { bytes: u8, name: bool, value: bool },
    /// A string's length comes next; whether another string follows.
    Length { more: bool },
    /// In a string's length.
    LongLength { more: bool, bytes: u8, length: u32 },
    /// In a string: bytes left.
    Text { more: bool, left: u32 },
}

/// How far one header block has been read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    at: Field,
    count: u32,
}

impl Fields {
    /// Whether no field has begun that has not ended.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.at, Field::Start)
    }

    /// Reads on, as far as `charge` allows; what was taken. Where nothing was, why.
    pub(super) fn scan(&mut self, bytes: &[u8], mut charge: impl FnMut() -> Charge) -> Result<usize, Charge> {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken).copied() {
            match self.at {
                Field::Text { more, left } => {
                    let text = (bytes.len() - taken).min(left as usize);
                    taken += text;
                    self.at = text_or_next(more, left - text as u32);
                    continue;
                }
                Field::Start => match self.begin(byte, &mut charge) {
                    Ok(()) => {}
                    Err(_) if taken > 0 => break,
                    Err(then) => return Err(then),
                },
                _ => self.at = next_in_field(self.at, byte).map_err(Charge::Cut)?,
            }
            taken += 1;
        }
        Ok(taken)
    }

    fn begin(&mut self, byte: u8, charge: &mut impl FnMut() -> Charge) -> Result<(), Charge> {
        if self.count >= MAX_FIELDS {
            return Err(Charge::Cut("too many header fields"));
        }
        match charge() {
            Charge::Pass => {}
            other => return Err(other),
        }
        self.count += 1;
        self.at = first_of_field(byte);
        Ok(())
    }
}

/// What follows a field's first byte.
fn first_of_field(byte: u8) -> Field {
    let (prefix, value) = match byte {
        0x80.. => (0x7f, false),
        0x40.. => (0x3f, true),
        // A new size of the table: an integer alone.
        0x20.. => (0x1f, false),
        _ => (0x0f, true),
    };
    let index = byte & prefix;
    if index == prefix {
        return Field::Index { bytes: 0, name: false, value };
    }
    after_index(value && index == 0, value)
}

fn after_index(name: bool, value: bool) -> Field {
    if value { Field::Length { more: name } } else { Field::Start }
}

fn text_or_next(more: bool, left: u32) -> Field {
    match (left, more) {
        (0, true) => Field::Length { more: false },
        (0, false) => Field::Start,
        _ => Field::Text { more, left },
    }
}

/// What follows a byte of an index or of a length.
fn next_in_field(field: Field, byte: u8) -> Result<Field, &'static str> {
    let ends = byte & 0x80 == 0;
    Ok(match field {
        Field::Index { bytes, name, value } => {
            if ends {
                after_index(name, value)
            } else if bytes < MAX_INTEGER_BYTES {
                Field::Index { bytes: bytes + 1, name, value }
            } else {
                return Err("a long integer in a header field");
            }
        }
        Field::Length { more } => {
            let length = byte & 0x7f;
            if length == 0x7f {
                Field::LongLength { more, bytes: 0, length: 0x7f }
            } else {
                text_or_next(more, u32::from(length))
            }
        }
        Field::LongLength { more, bytes, length } => {
            if bytes >= MAX_INTEGER_BYTES {
                return Err("a long integer in a header field");
            }
            let length = length.saturating_add(u32::from(byte & 0x7f) << (7 * u32::from(bytes)));
            if ends {
                text_or_next(more, length)
            } else {
                Field::LongLength { more, bytes: bytes + 1, length }
            }
        }
        Field::Start | Field::Text { .. } => field,
    })
}
