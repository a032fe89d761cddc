//! Scans JSON objects, one a line, and reports on each: the work of `mas dlp scan`.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Action, Dlp, Scan, Scratch};
use crate::json::{self, JsonError};

/// Longest line.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 64;

#[derive(Serialize)]
struct FindingLine<'a> {
    r#type: &'a str,
    pointer: &'a str,
    start: usize,
    end: usize,
}

#[derive(Serialize)]
struct ScanLine<'a> {
    action: Action,
    findings: Vec<FindingLine<'a>>,
    redacted: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: &'a str,
}

/// Scans every line of `input` and writes a JSON object on it to `out`. A line that is no JSON object
/// gives `{"error": …}`.
pub fn scan_lines(dlp: &Dlp, mut input: impl BufRead, mut out: impl Write) -> io::Result<()> {
    let mut scratch = Scratch::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return out.flush();
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE_BYTES {
            input.skip_until(b'\n')?;
            write_line(&mut out, &ErrorLine { error: "the line is too long" })?;
            continue;
        }
        match checked(&line) {
            Ok(text) => write_scan(&mut out, &dlp.scan("", text, &mut scratch))?,
            Err(error) => write_line(&mut out, &ErrorLine { error })?,
        }
    }
}

fn checked(line: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    match json::check_object(text, MAX_DEPTH) {
        Ok(()) => Ok(text),
        Err(JsonError::Invalid) => Err("no valid JSON"),
        Err(JsonError::NotAnObject) => Err("no JSON object"),
    }
}

fn write_scan(out: &mut impl Write, scan: &Scan) -> io::Result<()> {
    let redacted =
        scan.redacted.as_deref().map(|text| serde_json::from_str::<&RawValue>(text.trim())).transpose()?;
    let findings = scan
        .findings
        .iter()
        .map(|found| FindingLine {
            r#type: &found.kind,
            pointer: &found.pointer,
            start: found.start,
            end: found.end,
        })
        .collect();
    write_line(out, &ScanLine { action: scan.action, findings, redacted })
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
