//! `mas migrate`: what a `mas.yaml` of the Python server means here.
//!
//! Each key of the file gets one line: the same, different, without effect, new here, or refused. Lists of
//! agents and rules are told by their keys and types, each once, at its first line.

mod keys;
mod spellings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_yaml::Value;

use super::exit::Exit;
use crate::config::{Config, KeyPath, Permission};
use crate::{rpc, runner};

use keys::Outcome;
use spellings::old_spellings;

/// Environment variables of this many leading letters configured the Python server.
const OLD_PREFIXES: [&str; 2] = ["MAS_RUNNER_", "GATEWAY_"];

/// Arguments of `mas migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The mas.yaml to look at; nothing is changed.
    #[arg(long, value_name = "FILE")]
    check: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    /// From 1; `None`: the file as a whole.
    line: Option<usize>,
    key: String,
    result: Outcome,
    note: String,
}

#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    /// Whether `mas run` starts with it.
    runs: bool,
    keys: Vec<Row>,
}

/// Runs the command: exit 0 when the file can be run, 2 when not.
pub fn run(args: &MigrateArgs) -> Exit {
    let text = match std::fs::read_to_string(&args.check) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("mas migrate: {}: cannot be read: {error}", args.check.display());
            return Exit::Usage;
        }
    };
    let report = report(&args.check, &text);
    let printed = if args.json { print_json(&report) } else { print_text(&report) };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("mas migrate: {error}");
            Exit::Failed
        }
        Ok(()) | Err(_) if report.runs => Exit::Done,
        Ok(()) | Err(_) => Exit::Usage,
    }
}

fn report(path: &Path, text: &str) -> Report {
    let mut rows = Vec::new();
    if let Ok(Value::Mapping(file)) = serde_yaml::from_str::<Value>(text) {
        let mut walk = Walk { text, rows: &mut rows };
        walk.file(&file);
    }
    rows.extend(old_spellings(text).into_iter().map(|(line, word)| Row {
        line: Some(line),
        key: word.clone(),
        result: Outcome::Differs,
        note: format!("YAML 1.1 read {word} as a truth value, here it is a text; write true or false"),
    }));
    rows.extend(old_environment(path));
    let before = rows.len();
    match Config::parse(path, text) {
        Ok(config) => {
            replaced_rules(text, &config, &mut rows);
            warnings(&config, &mut rows);
            rows.extend(rpc::check_credentials(&config).err().map(|error| refusal(&error.to_string())));
            rows.extend(runner::check(&config).err().map(|error| refusal(&error.to_string())));
        }
        Err(error) => {
            let problem = error.to_string();
            let problem = problem.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&problem);
            rows.push(refusal(problem));
        }
    }
    let runs = !rows.iter().skip(before).any(|row| row.result == Outcome::Refused);
    rows.sort_by_key(|row| row.line.unwrap_or(usize::MAX));
    Report { file: path.to_path_buf(), runs, keys: rows }
}

/// Goes through the document in its order.
struct Walk<'a> {
    text: &'a str,
    rows: &'a mut Vec<Row>,
}

impl Walk<'_> {
    fn file(&mut self, file: &serde_yaml::Mapping) {
        for (key, value) in file {
            let Some(key) = key.as_str() else { continue };
            match (key, value) {
                ("gateway", Value::Mapping(gateway)) => self.sections(&["gateway"], gateway),
                ("agents", Value::Sequence(agents)) => self.agents(agents),
                ("permissions", Value::Sequence(rules)) => self.permissions(rules),
                _ => self.row(&[key], value),
            }
        }
    }

    /// A mapping of mappings: one row for each key of the inner ones.
    fn sections(&mut self, above: &[&str], mapping: &serde_yaml::Mapping) {
        for (key, value) in mapping {
            let Some(key) = key.as_str() else { continue };
            let path = [above, &[key]].concat();
            match value {
                Value::Mapping(inner) if path.len() < 3 && keys::is_section(&path) => {
                    self.sections(&path, inner);
                }
                _ => self.row(&path, value),
            }
        }
    }

    fn row(&mut self, path: &[&str], value: &Value) {
        let (result, note) = keys::verdict(path, value);
        let key = path.join(".");
        self.rows.push(Row {
            line: KeyPath::from(key.as_str()).line(self.text),
            key,
            result,
            note: note.to_owned(),
        });
    }

    /// Each key that agents have, once, with the number of agents that have it.
    fn agents(&mut self, agents: &[Value]) {
        let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (index, agent) in agents.iter().enumerate() {
            for key in agent.as_mapping().into_iter().flat_map(|agent| agent.keys()) {
                let Some(key) = key.as_str() else { continue };
                seen.entry(key).or_insert((index, 0)).1 += 1;
            }
        }
        for (key, (first, count)) in seen {
            let value = agents.get(first).and_then(|agent| agent.get(key)).unwrap_or(&Value::Null);
            let (result, note) = keys::verdict(&["agents[]", key], value);
            self.rows.push(Row {
                line: KeyPath::from("agents").index(first).key(key).line(self.text),
                key: format!("agents[].{key} ({count} of {})", agents.len()),
                result,
                note: note.to_owned(),
            });
        }
    }

    /// Each type of rule, once.
    fn permissions(&mut self, rules: &[Value]) {
        let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let Some(kind) = rule.get("type").and_then(Value::as_str) else { continue };
            seen.entry(kind).or_insert((index, 0)).1 += 1;
        }
        for (kind, (first, count)) in seen {
            let (result, note) = keys::rule_verdict(kind);
            self.rows.push(Row {
                line: KeyPath::from("permissions").index(first).line(self.text),
                key: format!("permissions[] {kind} ({count})"),
                result,
                note: note.to_owned(),
            });
        }
    }
}

/// In the Python server three types of rule replaced what earlier rules gave the same sender.
fn replaced_rules(text: &str, config: &Config, rows: &mut Vec<Row>) {
    let mut given: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, rule) in config.permissions.iter().enumerate() {
        let (senders, replaces): (Vec<&str>, bool) = match rule {
            Permission::AllowBidirectional { agents } => {
                (agents.iter().map(|id| id.as_str()).collect(), false)
            }
            Permission::AllowNetwork { agents, bidirectional } => {
                (agents.iter().map(|id| id.as_str()).collect(), *bidirectional)
            }
            Permission::AllowBroadcast { sender, .. } => (vec![sender.as_str()], true),
            Permission::AllowWildcard { agent_id } => (vec![agent_id.as_str()], true),
            Permission::Allow { sender, .. } => (vec![sender.as_str()], false),
            Permission::Deny { .. } => (Vec::new(), false),
        };
        for sender in senders {
            if let Some(earlier) = given.insert(sender, index)
                && replaces
            {
                rows.push(Row {
                    line: KeyPath::from("permissions").index(index).line(text),
                    key: format!("permissions[{index}]"),
                    result: Outcome::Differs,
                    note: format!(
                        "the Python server dropped what permissions[{earlier}] gave {sender}; here rules add up"
                    ),
                });
            }
        }
    }
}

/// What the server itself says at start about keys: it knows best what it does.
fn warnings(config: &Config, rows: &mut Vec<Row>) {
    for warning in &config.warnings {
        let (key, note) = warning.split_once(": ").unwrap_or(("", warning));
        let without_effect = note.contains("not yet enforced") || note.contains("no effect");
        // Rules are told by their type.
        let mut told = key.starts_with("permissions[");
        for row in rows.iter_mut() {
            if without_effect && (row.key == key || row.key.starts_with(&format!("{key}."))) {
                row.result = Outcome::NoEffect;
                note.clone_into(&mut row.note);
                told = true;
            }
        }
        if !told {
            let (key, note) = (key.to_owned(), note.to_owned());
            rows.push(Row { line: None, key, result: Outcome::Differs, note });
        }
    }
}

/// What the parser says, which ends with the place.
fn refusal(problem: &str) -> Row {
    let line = problem
        .rsplit_once(" at line ")
        .and_then(|(_, place)| place.split(' ').next())
        .and_then(|line| line.parse::<usize>().ok());
    Row { line, key: String::new(), result: Outcome::Refused, note: problem.to_owned() }
}

/// Settings that the Python server took from elsewhere.
fn old_environment(path: &Path) -> Vec<Row> {
    let row =
        |key: String, note: &str| Row { line: None, key, result: Outcome::NoEffect, note: note.to_owned() };
    let set = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| OLD_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    let mut rows: Vec<Row> = set
        .map(|name| row(name, "an environment variable that is set here; write its value into the file"))
        .collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let file = path.with_file_name(".env");
    let read = std::fs::read_to_string(&file).unwrap_or_default();
    let old = |line: &&str| OLD_PREFIXES.iter().any(|prefix| line.trim_start().starts_with(prefix));
    if read.lines().any(|line| old(&line)) {
        rows.push(row(file.display().to_string(), "is not read; write its values into the file"));
    }
    rows
}

fn print_json(report: &Report) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)
}

fn print_text(report: &Report) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let width = report.keys.iter().map(|row| row.key.chars().count()).max().unwrap_or(0).min(48);
    for row in &report.keys {
        let line = row.line.map(|line| line.to_string()).unwrap_or_default();
        let text = format!("{line:>5}  {:width$}  {:9}  {}", row.key, row.result.as_str(), row.note);
        writeln!(out, "{}", text.trim_end())?;
    }
    let count = |result| report.keys.iter().filter(|row| row.result == result).count();
    writeln!(
        out,
        "\n{}: {} same, {} differ, {} without effect, {} refused",
        report.file.display(),
        count(Outcome::Same),
        count(Outcome::Differs),
        count(Outcome::NoEffect),
        count(Outcome::Refused),
    )?;
    writeln!(
        out,
        "{}",
        if report.runs {
            "`mas run` starts with this file as it is."
        } else {
            "`mas run` refuses this file."
        }
    )
}

#[cfg(test)]
mod tests;
