//! `docs/logs.md` and the sources agree: which codes there are, at which levels, with which fields.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Codes of lines that no call in the sources writes by itself: of the C core, and of other crates.
const OF_THE_LOGGER: [&str; 3] = ["grpc_core", "grpc_core_left_out", "other"];
/// Names that every JSON line has beside the event's fields.
const RESERVED: [&str; 6] = ["time", "level", "code", "module", "thread", "message"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The levels and fields of each code.
type Codes = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let folders = ["src", "sdk/rust/src"].map(|folder| root().join(folder));
    let (mut folders, mut found) = (Vec::from(folders), Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The inside of the parentheses that are open where `text` begins, up to the first `;` outside of others or of a
/// string: the key-values. `None`: there is no such `;`.
fn key_values(text: &str) -> Option<&str> {
    let (mut depth, mut in_string, mut escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return None,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 1 => return Some(&text[..at]),
            _ => {}
        }
    }
    None
}

/// Splits at commas that stand in no parentheses and no string.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut in_string, mut begin, mut found) = (0, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[begin..].trim());
    found.retain(|part| !part.is_empty());
    found
}

/// What a source logs; every call without a code is in `without`.
fn logged(name: &str, text: &str, codes: &mut Codes, without: &mut Vec<String>) {
    for level in LEVELS {
        let call = format!("log::{level}!(");
        for (at, _) in text.match_indices(&call) {
            let line = text[..at].matches('\n').count() + 1;
            let mut own = key_values(&text[at + call.len()..]).map(parts).unwrap_or_default().into_iter();
            let code = own.next().and_then(|part| part.strip_prefix("code = \"")?.strip_suffix('"'));
            let Some(code) = code else {
                without.push(format!("{name}:{line}"));
                continue;
            };
            let (levels, fields) = codes.entry(code.to_owned()).or_default();
            levels.insert(level.to_owned());
            fields.extend(own.map(|part| part.split([' ', ':', '=']).next().unwrap().to_owned()));
        }
    }
}

/// The names in backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the tables of codes: code, level, meaning, what to do, fields.
fn rows() -> Vec<[String; 5]> {
    let text = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let row = |line: &str| {
        let cells =
            line.strip_prefix("| `")?.strip_suffix('|')?.split('|').map(|cell| cell.trim().to_owned());
        <[String; 5]>::try_from(cells.collect::<Vec<_>>()).ok()
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn every_line_has_a_code_and_every_code_is_in_the_table() {
    let (mut codes, mut without) = (Codes::new(), Vec::new());
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        logged(&name, &text, &mut codes, &mut without);
        // Macros that are imported would not be seen here.
        let imports = text.lines().any(|line| {
            line.trim_start().starts_with("use log::")
                && LEVELS
                    .iter()
                    .any(|level| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == *level))
        });
        assert!(!imports, "{name} imports a macro of log");
    }
    assert_eq!(without, [""; 0], "log lines without a code");
    assert!(codes.len() > 100, "{} codes: the sources were not read", codes.len());

    let mut documented = Codes::new();
    for [code, levels, meaning, to_do, fields] in rows() {
        let code = code.trim_end_matches('`').to_owned();
        assert!(!meaning.is_empty() && !to_do.is_empty(), "{code} is not explained");
        if OF_THE_LOGGER.contains(&code.as_str()) {
            continue;
        }
        let levels = levels.split(", ").map(str::to_owned).collect();
        assert!(
            documented.insert(code.clone(), (levels, quoted(&fields))).is_none(),
            "{code} stands there twice"
        );
    }
    let named = |codes: &Codes| codes.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(named(&codes), named(&documented));
    for (code, logged) in &codes {
        assert_eq!(logged, &documented[code], "levels and fields of {code}");
        let is_plain = code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(is_plain && code.len() <= 32, "{code}");
        assert!(!logged.1.iter().any(|field| RESERVED.contains(&field.as_str())), "a field of {code}");
    }
}

#[test]
fn what_the_logger_says_itself_is_in_the_table_too() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let logger = read("src/cli/logging.rs") + &read("src/cli/log_line.rs");
    let documented: BTreeSet<String> =
        rows().iter().map(|row| row[0].trim_end_matches('`').to_owned()).collect();
    for code in OF_THE_LOGGER {
        assert!(logger.contains(&format!("\"{code}\"")), "nothing says {code}");
        assert!(documented.contains(code), "{code} is not documented");
    }
}

#[test]
fn every_reason_for_a_refused_handshake_is_explained() {
    let knock = fs::read_to_string(root().join("src/gate/knock.rs")).unwrap();
    let text = fs::read_to_string(root().join("docs/logs.md")).unwrap();
    let (code, _) = knock.split_once("/// Logs a handshake").unwrap();
    let reasons: BTreeSet<&str> = code
        .match_indices("(\"")
        .filter_map(|(at, found)| code[at + found.len()..].split('"').next())
        .filter(|reason| !reason.contains(' '))
        .collect();
    assert!(reasons.len() > 15, "{reasons:?}");
    for reason in reasons {
        assert!(text.contains(&format!("| `{reason}` | ")), "{reason} is not explained");
    }
}

#[test]
fn a_call_without_a_code_is_found() {
    let (mut codes, mut without) = (Codes::new(), Vec::new());
    let text = "log::warn!(\"no code; here\");\nlog::info!(code = name; \"x\");\n\
        log::error!(code = \"good\", agent:%, path:% = a.b(c, d), worker = 1; \"{}\", f(x));";
    logged("x.rs", text, &mut codes, &mut without);
    assert_eq!(without, ["x.rs:1", "x.rs:2"]);
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let expected = (set(&["error"]), set(&["agent", "path", "worker"]));
    assert_eq!(codes, Codes::from([("good".to_owned(), expected)]));
}
