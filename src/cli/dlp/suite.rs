//! `mas dlp test`: labelled samples against the rules of a configuration, so that a change of either is seen in CI.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use quick_xml::Writer;
use quick_xml::events::BytesText;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rules::rules;
use crate::audit::verify::Plain;
use crate::cli::exit::Exit;
use crate::content::Content;
use crate::dlp::lines::MAX_LINE_BYTES;
use crate::dlp::{Action, Dlp, Route, Scan, Scratch};
use crate::json;

/// Deepest folder below the one that is named.
const MAX_FOLDERS: usize = 16;
/// Deepest nesting of arrays and objects in a sample.
const MAX_DEPTH: usize = 64;

const EXAMPLES: &str = "\
A sample is one line of a file *.jsonl:
  {\"data\": {…}, \"expect\": \"allow|alert|redact|block\"}
and, where it matters, \"id\", \"from\", \"to\", \"type\" (of the message) and \"kinds\" (all types of data that must be found, and
no others).

Examples:
  mas dlp test dlp-samples
  mas dlp test dlp-samples --config mas.yaml --junit dlp.xml";

/// Arguments of `test`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct TestArgs {
    /// The folder with the samples.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The configuration whose rules are used; else MAS_CONFIG_FILE, else mas.yaml upward, else the default rules.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also write the results to this file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A sample, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(default)]
    id: Option<String>,
    data: Box<RawValue>,
    expect: Action,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default, rename = "type")]
    message_type: String,
    #[serde(default)]
    kinds: Option<Vec<String>>,
}

/// What became of a sample.
struct Outcome {
    /// The file, and the sample in it.
    file: String,
    name: String,
    /// Why it is not as its label says.
    failure: Option<String>,
}

pub(super) fn run(args: &TestArgs) -> Result<Exit, String> {
    let dlp = rules(args.config.as_deref())?;
    let mut files = Vec::new();
    collect(&args.folder, 0, &mut files)?;
    files.sort();
    let mut outcomes = Vec::new();
    let mut scratch = Scratch::new();
    for file in &files {
        check_file(&dlp, file, &mut scratch, &mut outcomes)?;
    }
    if outcomes.is_empty() {
        return Err(format!("{}: no samples: no line in a file *.jsonl", args.folder.display()));
    }
    if let Some(path) = &args.junit {
        write_junit(path, &outcomes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    let mut failed = 0;
    for outcome in &outcomes {
        let Some(failure) = &outcome.failure else { continue };
        failed += 1;
        // Nobody reads on: the exit code says it, too.
        let _ = writeln!(out, "FAILED {} {}: {failure}", outcome.file, outcome.name);
    }
    let _ = writeln!(out, "{} samples, {failed} failed", outcomes.len());
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            if depth == MAX_FOLDERS {
                return Err(format!("{}: more than {MAX_FOLDERS} folders deep", path.display()));
            }
            collect(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_file(
    dlp: &Dlp,
    path: &Path,
    scratch: &mut Scratch,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut input = BufReader::new(File::open(path).map_err(fail)?);
    let mut line = String::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        let read =
            std::io::Read::take(&mut input, MAX_LINE_BYTES as u64 + 1).read_line(&mut line).map_err(fail)?;
        if read == 0 {
            return Ok(());
        }
        if read > MAX_LINE_BYTES {
            return Err(format!("{}:{number}: a line of more than {MAX_LINE_BYTES} bytes", path.display()));
        }
        if line.trim().is_empty() {
            continue;
        }
        let sample: Sample = serde_json::from_str(&line)
            .map_err(|error| format!("{}:{number}: no sample: {error}", path.display()))?;
        json::check_object(sample.data.get(), MAX_DEPTH)
            .map_err(|error| format!("{}:{number}: data is no JSON object: {error:?}", path.display()))?;
        let name = sample.id.as_ref().map_or_else(|| format!("line {number}"), |id| Plain(id).to_string());
        let failure = failure(dlp, &sample, scratch);
        outcomes.push(Outcome { file: path.display().to_string(), name, failure });
    }
}

/// Why a sample is not as its label says. What was found is named, and not shown.
fn failure(dlp: &Dlp, sample: &Sample, scratch: &mut Scratch) -> Option<String> {
    let content = Content { message_type: &sample.message_type, data_json: sample.data.get(), trace: None };
    let scan = dlp.search(&content, Route { from: &sample.from, to: &sample.to }, scratch);
    let action = if scan.truncated { Action::Block } else { scan.action };
    if action != sample.expect {
        let expected = sample.expect.as_str();
        return Some(format!("expected {expected}, was {}{}", action.as_str(), found(&scan)));
    }
    let expected = sample.kinds.as_ref()?;
    let is_there = |kind: &&String| scan.findings.iter().any(|finding| *finding.kind == ***kind);
    if let Some(missing) = expected.iter().find(|kind| !is_there(kind)) {
        return Some(format!("{missing} was not found{}", found(&scan)));
    }
    let other = scan.findings.iter().find(|finding| !expected.iter().any(|kind| **kind == *finding.kind));
    other.map(|other| format!("{} was found at {}", other.kind, Plain(&other.pointer)))
}

fn found(scan: &Scan) -> String {
    if scan.truncated {
        return ": it was not searched to its end".to_owned();
    }
    let list: Vec<String> = scan
        .findings
        .iter()
        .take(8)
        .map(|finding| match &finding.exception {
            Some(exception) => format!("{} at {} ({exception})", finding.rule, Plain(&finding.pointer)),
            None => format!("{} at {}", finding.rule, Plain(&finding.pointer)),
        })
        .collect();
    if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) }
}

fn write_junit(path: &Path, outcomes: &[Outcome]) -> std::io::Result<()> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let failures = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let (tests, failures) = (outcomes.len().to_string(), failures.to_string());
    writer
        .create_element("testsuites")
        .write_inner_content(|writer| {
            let suite = writer.create_element("testsuite");
            let suite = suite.with_attributes([
                ("name", "mas dlp test"),
                ("tests", tests.as_str()),
                ("failures", failures.as_str()),
            ]);
            suite.write_inner_content(|writer| {
                for outcome in outcomes {
                    let case = writer.create_element("testcase");
                    let case = case.with_attributes([
                        ("classname", outcome.file.as_str()),
                        ("name", outcome.name.as_str()),
                    ]);
                    match &outcome.failure {
                        None => drop(case.write_empty()?),
                        Some(failure) => drop(case.write_inner_content(|writer| {
                            let element = writer.create_element("failure");
                            element.write_text_content(BytesText::new(failure)).map(drop)
                        })?),
                    }
                }
                Ok(())
            })?;
            Ok(())
        })
        .map(drop)?;
    std::fs::write(path, writer.into_inner())
}
