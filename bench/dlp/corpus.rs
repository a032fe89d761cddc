//! How often documents that must pass are stopped, and samples that must be found are missed: of the families in a folder, as
//! `bench/dlp/corpus` writes them, against budgets.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use mas::dlp::{Action, Dlp, Scan, Scratch};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Types of data that are let through by default, and reported.
const REPORTED: [&str; 4] = ["email", "phone", "address", "icd10"];

/// What a family may have, of 2,000 documents or of its samples.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    /// Documents that may be stopped: of 2,000, where nothing else is said.
    stopped_of_2000: f64,
    /// The same of families that need more.
    stopped: BTreeMap<String, f64>,
    /// The same in whole documents, however many there are.
    stopped_at_most: BTreeMap<String, usize>,
    /// The share of samples that is found at least, where nothing else is said.
    found_at_least: f64,
    /// The same of families that need less.
    found: BTreeMap<String, f64>,
}

/// A line of a family.
#[derive(Deserialize)]
struct Line {
    message_type: String,
    data: Box<RawValue>,
    /// The examples in it that its author wrote out, where there are any.
    #[serde(default)]
    written_out: Option<serde::de::IgnoredAny>,
    /// The text that must not get through, of a sample.
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    kind: String,
}

#[derive(Default)]
struct Family {
    documents: usize,
    stopped: usize,
    samples: usize,
    found: usize,
    /// Redacted payloads that are no JSON.
    broken: usize,
}

/// Prints both tables; an error where a budget is exceeded.
pub(crate) fn gate(dlp: &Dlp, budgets: &Path, folders: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let budgets: Budgets = serde_yaml::from_reader(File::open(budgets)?)?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut scratch = Scratch::new();
    for folder in folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                read(dlp, &path, families.entry(name).or_default(), &mut scratch)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    let mut exceeded = Vec::new();
    println!("{:<28} {:>9} {:>8} {:>8}", "family", "documents", "stopped", "budget");
    for (name, family) in families.iter().filter(|(_, family)| family.documents > 0) {
        let rate = budgets.stopped.get(name).copied().unwrap_or(budgets.stopped_of_2000);
        let whole = (rate * family.documents as f64 / 2000.0).ceil() as usize;
        let most = budgets.stopped_at_most.get(name).copied().unwrap_or(whole);
        println!("{name:<28} {:>9} {:>8} {most:>8}", family.documents, family.stopped);
        if family.stopped > most {
            exceeded.push(format!("{name}: {} stopped, at most {most}", family.stopped));
        }
    }
    println!("\n{:<28} {:>9} {:>8} {:>8}", "family", "samples", "found", "budget");
    for (name, family) in families.iter().filter(|(_, family)| family.samples > 0) {
        let least = budgets.found.get(name).copied().unwrap_or(budgets.found_at_least);
        let share = family.found as f64 / family.samples as f64;
        println!("{name:<28} {:>9} {share:>8.4} {least:>8.3}", family.samples);
        if share < least {
            exceeded.push(format!("{name}: {share:.4} found, at least {least}"));
        }
    }
    let broken = families.iter().filter(|(_, family)| family.broken > 0);
    exceeded.extend(
        broken.map(|(name, family)| format!("{name}: {} redacted payloads are no JSON", family.broken)),
    );
    if families.is_empty() {
        return Err("no families: no files *.jsonl".into());
    }
    let (documents, stopped) = families.values().fold((0, 0), |(documents, stopped), family| {
        (documents + family.documents, stopped + family.stopped)
    });
    println!("\n{stopped} of {documents} documents stopped");
    if exceeded.is_empty() {
        Ok(())
    } else {
        Err(format!("over budget:\n  {}", exceeded.join("\n  ")).into())
    }
}

fn read(dlp: &Dlp, path: &Path, family: &mut Family, scratch: &mut Scratch) -> Result<(), Box<dyn Error>> {
    for line in BufReader::new(File::open(path)?).lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let scan = dlp.scan(&line.message_type, line.data.get(), scratch);
        let stops = scan.truncated || scan.action >= Action::Redact;
        if let Some(redacted) = &scan.redacted {
            let valid = serde_json::from_str::<serde::de::IgnoredAny>(redacted).is_ok();
            family.broken += usize::from(!valid);
        }
        match &line.secret {
            Some(secret) => {
                family.samples += 1;
                family.found += usize::from(is_found(&scan, &line.kind, secret, stops));
            }
            None if line.written_out.is_some() => {}
            None => {
                family.documents += 1;
                family.stopped += usize::from(stops);
            }
        }
    }
    Ok(())
}

/// Whether a sample does not get through; or is reported, where its kind is let through.
fn is_found(scan: &Scan, kind: &str, secret: &str, stops: bool) -> bool {
    if REPORTED.contains(&kind) {
        return scan.findings.iter().any(|finding| &*finding.kind == kind);
    }
    let still_there = || scan.redacted.as_ref().is_some_and(|redacted| redacted.contains(secret));
    stops && !still_there()
}
