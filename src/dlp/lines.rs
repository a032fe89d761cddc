//! Scans JSON objects, one a line, and reports on each: the work of `mas dlp scan`.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Action, Candidate, Dlp, Route, Scan, Scratch};
use crate::content::Content;
use crate::json::{self, JsonError};

/// Longest line.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 64;

/// How lines are scanned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// Who sends them to whom.
    pub route: Route<'a>,
    /// As messages of this type.
    pub message_type: &'a str,
    /// With every value that was judged by its name.
    pub explained: bool,
}

#[derive(Serialize)]
struct FindingLine<'a> {
    r#type: &'a str,
    pointer: &'a str,
    start: usize,
    end: usize,
    /// The exception that says what is done, and what that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
}

#[derive(Serialize)]
struct ScanLine<'a> {
    action: Action,
    findings: Vec<FindingLine<'a>>,
    redacted: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<CandidateLine<'a>>>,
}

#[derive(Serialize)]
struct CandidateLine<'a> {
    rule: &'a str,
    r#type: &'a str,
    pointer: &'a str,
    found: bool,
    score: i32,
    needed: i32,
    evidence: &'a [(&'static str, i32)],
    /// What alone would have changed the outcome.
    decisive: Vec<&'static str>,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: &'a str,
}

/// Scans every line of `input` and writes a JSON object on it to `out`. A line that is no JSON object gives `{"error": …}`.
pub fn scan_lines(
    dlp: &Dlp,
    asked: Asked<'_>,
    mut input: impl BufRead,
    mut out: impl Write,
) -> io::Result<()> {
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
            Ok(text) => {
                let content = Content { message_type: asked.message_type, data_json: text, trace: None };
                if asked.explained {
                    let (scan, candidates) = dlp.explain(&content, asked.route, &mut scratch);
                    write_scan(&mut out, &scan, Some(&candidates))?;
                } else {
                    write_scan(&mut out, &dlp.search(&content, asked.route, &mut scratch), None)?;
                }
            }
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

fn write_scan(out: &mut impl Write, scan: &Scan, candidates: Option<&[Candidate]>) -> io::Result<()> {
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
            exception: found.exception.as_deref(),
            action: found.exception.is_some().then_some(found.action),
        })
        .collect();
    let candidates = candidates.map(|candidates| {
        let line = candidates.iter().map(|candidate| CandidateLine {
            rule: &candidate.rule,
            r#type: candidate.kind,
            pointer: &candidate.pointer,
            found: candidate.is_found(),
            score: candidate.score,
            needed: candidate.needed,
            evidence: &candidate.evidence,
            decisive: candidate.decisive().collect(),
        });
        line.collect()
    });
    write_line(out, &ScanLine { action: scan.action, findings, redacted, candidates })
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
