//! Words that mean something else since YAML 1.2.

/// Plain words that YAML 1.1 reads as truth values and YAML 1.2 as text, with their lines.
pub(super) fn old_spellings(text: &str) -> Vec<(usize, String)> {
    const WORDS: [&str; 4] = ["yes", "no", "on", "off"];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line);
        let values = line.split(": ").skip(1).chain(line.trim_start().strip_prefix("- "));
        for value in values {
            let word = value.trim_start().split([',', '}', ']']).next().unwrap_or("").trim();
            let is_old = WORDS.iter().any(|old| word.eq_ignore_ascii_case(old));
            if is_old {
                found.push((number + 1, word.to_owned()));
            }
        }
    }
    found
}
