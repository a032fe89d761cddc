//! From a file's text to the paths that are written in it.

/// A word, `::`, or a single character of punctuation.
#[derive(Clone, Debug)]
pub(super) struct Token {
    text: String,
    line: usize,
}

/// A path as it is written; `name` is what a `use` makes of it in its file.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) segments: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) line: usize,
    pub(super) is_use: bool,
    pub(super) is_glob: bool,
}

/// The tokens of a file without comments, strings and characters.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(n, c)| chars.get(at + n) == Some(&c));
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(&c) = chars.get(at) {
        let start = at;
        if starts(at, "//") {
            at = (at..chars.len()).find(|&n| chars[n] == '\n').unwrap_or(chars.len());
        } else if starts(at, "/*") {
            at = block_comment_end(&chars, at);
        } else if let Some(end) = raw_string_end(&chars, at) {
            at = end;
        } else if c == '"' {
            at = quoted_end(&chars, at, '"');
        } else if c == '\'' {
            let is_char = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
            at = if is_char { quoted_end(&chars, at, '\'') } else { at + 1 };
        } else if c.is_alphanumeric() || c == '_' {
            at = (at..chars.len())
                .find(|&n| !chars[n].is_alphanumeric() && chars[n] != '_')
                .unwrap_or(chars.len());
            found.push(Token { text: chars[start..at].iter().collect(), line });
        } else if starts(at, "::") {
            at += 2;
            found.push(Token { text: "::".to_owned(), line });
        } else {
            at += 1;
            if !c.is_whitespace() {
                found.push(Token { text: c.to_string(), line });
            }
        }
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
    }
    found
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// The end of `r"…"`, `r#"…"#`, `br"…"`, if one starts here.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let inside_word = start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    if inside_word {
        return None;
    }
    let mut at = start + usize::from(matches!(chars[start], 'b' | 'c'));
    if chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    let closes =
        |n: usize| chars[n] == '"' && chars[n + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    Some((at + 1..chars.len()).find(|&n| closes(n)).map_or(chars.len(), |n| n + 1 + hashes))
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while let Some(&c) = chars.get(at) {
        match c {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The tokens without what is under `#[cfg(test)]`, and the names of the test modules in files of their own.
pub(super) fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    const TEST_ONLY: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut test_modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if TEST_ONLY
            .iter()
            .enumerate()
            .all(|(n, text)| tokens.get(at + n).is_some_and(|token| token.text == *text))
        {
            let end = item_end(tokens, at + TEST_ONLY.len());
            if let [.., keyword, name, semicolon] = &tokens[at..end]
                && keyword.text == "mod"
                && semicolon.text == ";"
            {
                test_modules.push(name.text.clone());
            }
            at = end;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    (kept, test_modules)
}

/// The end of the item that starts here: its `;`, or the `}` of its body.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    let mut is_use = false;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "use" if depth == 0 => is_use = true,
            "(" | "[" | "{" => depth += 1,
            // It is the last field or variant of what ends here.
            ")" | "]" | "}" if depth == 0 => return at,
            "}" if depth == 1 && !is_use => return at + 1,
            ")" | "]" | "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    tokens.len()
}

/// All paths of a file: those of its `use` lines, and those with `::` in its code.
pub(super) fn paths(tokens: &[Token]) -> Vec<Written> {
    let (mut found, mut at) = (Vec::new(), 0);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    while at < tokens.len() {
        if text(at) == "use" && text(at + 1) != "<" {
            at += 1;
            use_tree(tokens, &mut at, &[], &mut found);
        } else if is_word(text(at)) && text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") {
            let (line, mut segments) = (tokens[at].line, vec![text(at).to_owned()]);
            while text(at + 1) == "::" && is_word(text(at + 2)) {
                segments.push(text(at + 2).to_owned());
                at += 2;
            }
            found.push(Written { segments, name: None, line, is_use: false, is_glob: false });
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads one branch of a `use`, up to the `,`, `}` or `;` that ends it.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &[String], found: &mut Vec<Written>) {
    let mut segments = prefix.to_vec();
    let (mut name, mut is_glob, mut ends_here) = (None, false, true);
    let mut is_self = false;
    let line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "," | "}" | ";" => break,
            "{" => {
                ends_here = false;
                while tokens.get(*at).is_some_and(|token| token.text != "}" && token.text != ";") {
                    *at += 1;
                    use_tree(tokens, at, &segments, found);
                }
            }
            "*" => is_glob = true,
            "as" => {
                *at += 1;
                name = tokens.get(*at).map(|token| token.text.clone());
            }
            "self" if !prefix.is_empty() => is_self = true,
            word if is_word(word) => segments.push(word.to_owned()),
            // `::time` is a crate, and so nothing of this one.
            "::" if segments.is_empty() => segments.push("::".to_owned()),
            _ => {}
        }
        *at += 1;
    }
    if ends_here && (segments.len() > prefix.len() || is_self || is_glob) {
        let name = if is_glob { None } else { name.or_else(|| segments.last().cloned()) };
        found.push(Written { segments, name, line, is_use: true, is_glob });
    }
}
