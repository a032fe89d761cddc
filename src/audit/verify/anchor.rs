//! The anchor: signed checkpoints outside Redis, one `{"note": "…"}` a line, in the order in which they were
//! signed. Between them stands where one file goes on in the next.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::audit::note::MAX_NOTE_BYTES;

/// Longest line: a note whose every character is escaped.
const MAX_LINE_BYTES: u64 = 2 * MAX_NOTE_BYTES as u64 + 64;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Note {
        note: String,
    },
    /// The first line of a file that continues another one.
    Previous {
        #[serde(rename = "previous")]
        _previous: String,
    },
    /// The last line of one that is continued.
    Continued {
        #[serde(rename = "continued")]
        _continued: bool,
    },
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum AnchorLine {
    /// A note.
    Note(String),
    /// Something else.
    Malformed,
    /// A last line without its newline: its writer was cut off, or has not finished it.
    Unfinished,
}

/// Reads an anchor line by line.
pub struct AnchorReader<'a> {
    input: Box<dyn BufRead + 'a>,
}

impl fmt::Debug for AnchorReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnchorReader(..)")
    }
}

impl<'a> AnchorReader<'a> {
    /// Reads from `input`.
    pub fn new(input: Box<dyn BufRead + 'a>) -> Self {
        Self { input }
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<AnchorLine>> {
        loop {
            let mut line = Vec::new();
            let read = self.input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            if line.last() != Some(&b'\n') {
                let over = read as u64 == MAX_LINE_BYTES;
                return Ok(Some(if over { AnchorLine::Malformed } else { AnchorLine::Unfinished }));
            }
            match serde_json::from_slice::<Line>(&line) {
                Ok(Line::Note { note }) => return Ok(Some(AnchorLine::Note(note))),
                Ok(Line::Previous { .. } | Line::Continued { .. }) => {}
                Err(_) => return Ok(Some(AnchorLine::Malformed)),
            }
        }
    }
}
