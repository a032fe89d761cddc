//! Passwords in the arguments of commands that take them without a name: `curl -u bob:hunter2`, `mysql -phunter2`.

use super::catalogue::CommandRule;
use super::checks;
use super::document::{Document, Segment};
use super::hits::{Sink, at, before, run_end};
use super::kinds::Kind;

/// Part of a command's line that is looked at.
const LINE_MAX: usize = 400;
/// How far behind a pipe a command is looked at.
const PIPED_MAX: usize = 32;
/// Price of a text that may be the name of one.
const NAME_STEPS: usize = 70;
/// Price of a command, and of a value that may be its password.
const COMMAND_STEPS: usize = 160;
const VALUE_STEPS: usize = 150;

/// Looks at the arguments of the command whose name stands at `start..from`.
pub(super) fn look(text: &[u8], (start, from): (usize, usize), rule: &CommandRule, sink: &mut Sink<'_>) {
    let edge = before(text, start);
    if edge.is_ascii_alphanumeric() || matches!(edge, b'_' | b'.' | b'-') {
        return;
    }
    let line = run_end(text, from, LINE_MAX, |b| !matches!(b, 0 | b'\n' | b'|' | b';'));
    sink.spend(NAME_STEPS + 2 * (line - from));
    let Some(arguments) = text.get(from..line) else { return };
    if !rule.into.is_empty() {
        if at(text, line) == b'|' && is_read(text.get(line + 1..).unwrap_or_default(), &rule.into) {
            piped(text, (from, line), sink);
        }
        return;
    }
    let is = |options: &[String], argument: &[u8]| options.iter().any(|option| option.as_bytes() == argument);
    let mut place = from;
    let mut option: &[u8] = b"";
    let mut plain = 0;
    for argument in arguments.split(|b| *b == b' ') {
        plain += usize::from(!argument.is_empty() && !argument.starts_with(b"-"));
        let span = (place, place + argument.len());
        place = span.1 + 1;
        let glued = rule.glued.iter().find(|option| {
            argument.len() > option.len() + 2
                && argument.starts_with(option.as_bytes())
                && !argument.starts_with(b"--")
        });
        let glued_user = rule.user.iter().find(|option| {
            option.len() == 2 && argument.len() > 4 && argument.starts_with(option.as_bytes())
        });
        let found = if is(&rule.user, option) {
            user_password(text, unquoted(text, span))
        } else if let Some(glued) = glued_user {
            user_password(text, unquoted(text, (span.0 + glued.len(), span.1)))
        } else if is(&rule.password, option)
            || rule.place > 0 && plain == rule.place && !argument.starts_with(b"-")
        {
            Some(("", unquoted(text, span)))
        } else {
            glued.map(|glued| ("", unquoted(text, (span.0 + glued.len(), span.1))))
        };
        if found.is_some() {
            sink.spend(VALUE_STEPS);
        }
        if let Some((user, (from, to))) = found
            && let Some(value) = text.get(from..to).and_then(|value| std::str::from_utf8(value).ok())
            && is_password(user, value)
        {
            sink.add(Kind::Password, from, to);
        }
        option = argument;
    }
}

/// Whether what stands behind a pipe is one of these commands.
fn is_read(behind: &[u8], into: &[String]) -> bool {
    let behind = behind.get(..PIPED_MAX).unwrap_or(behind).trim_ascii_start();
    let behind = behind.strip_prefix(b"sudo chpasswd").map_or(behind, |_| b"chpasswd");
    into.iter().any(|command| behind.starts_with(command.as_bytes()))
}

/// A password, or a user and one, that a command writes into another one.
fn piped(text: &[u8], (from, to): (usize, usize), sink: &mut Sink<'_>) {
    let written = text.get(from..to).unwrap_or_default();
    let from = from + written.len() - written.trim_ascii_start().len();
    let span = unquoted(text, (from, from + written.trim_ascii().len()));
    let (user, (from, to)) = user_password(text, span).unwrap_or(("", span));
    if let Some(value) = text.get(from..to).and_then(|value| std::str::from_utf8(value).ok())
        && !value.contains(' ')
        && is_password(user, value)
    {
        sink.add(Kind::Password, from, to);
    }
}

/// The same of a command whose arguments are the elements of an array.
pub(super) fn look_at_array(document: &Document, rules: &[CommandRule], first: usize, sink: &mut Sink<'_>) {
    let Some(name) = document.segments.get(first) else { return };
    let text = |segment: &Segment| document.slice(segment.span()).unwrap_or_default();
    let command = text(name);
    // A word of small letters, or a path.
    if !command.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '/' | '.'))
        || command.bytes().any(|byte| byte == b' ')
    {
        return;
    }
    sink.spend(NAME_STEPS);
    let command = command.rsplit('/').next().unwrap_or_default();
    let next = document.segments.get(first + 1).map(text).unwrap_or_default();
    // They stand in the order of their names.
    let from = rules.partition_point(|rule| rule.command.as_bytes() < command.as_bytes());
    let rule = rules.iter().skip(from).take_while(|rule| rule.command.starts_with(command)).find(|rule| {
        let verb = rule.command.get(command.len()..).unwrap_or_default();
        verb.is_empty() || verb.strip_prefix(' ').and_then(|verb| verb.split(' ').next()) == Some(next)
    });
    let Some(rule) = rule else { return };
    sink.spend(COMMAND_STEPS);
    if !rule.into.is_empty() {
        // echo X | sudo -S …
        let words: Vec<&str> = (2..5).filter_map(|at| document.segments.get(first + at)).map(text).collect();
        let is_piped = words.first() == Some(&"|")
            && is_read(words.get(1..).unwrap_or_default().join(" ").as_bytes(), &rule.into);
        if let Some(written) = document.segments.get(first + 1).filter(|_| is_piped) {
            piped(document.text.as_bytes(), written.span(), sink);
        }
        return;
    }
    let arguments = document.segments.get(first + 1..).unwrap_or_default().iter();
    let mut option = "";
    // The verb of a command is an element, too.
    let mut plain = 0_usize;
    let verbs = rule.command.split(' ').count() - 1;
    for argument in arguments.take(ARGUMENTS_MAX).take_while(|argument| argument.container == name.container)
    {
        let (value, (start, end)) = (text(argument), argument.span());
        plain += usize::from(!value.starts_with('-'));
        let is = |options: &[String]| options.iter().any(|known| known == option);
        let here = rule.place > 0 && plain == rule.place + verbs && !value.starts_with('-');
        let found = if is(&rule.user) {
            user_password(document.text.as_bytes(), (start, end))
        } else if is(&rule.password) || here {
            Some(("", (start, end)))
        } else {
            let glued = rule
                .glued
                .iter()
                .find(|known| value.len() > known.len() + 2 && value.starts_with(known.as_str()));
            glued.map(|known| ("", (start + known.len(), end)))
        };
        if found.is_some() {
            sink.spend(VALUE_STEPS);
        }
        if let Some((user, (from, to))) = found
            && let Some(value) = document.slice((from, to))
            && is_password(user, value)
        {
            sink.add(Kind::Password, from, to);
        }
        option = value;
    }
}

/// Arguments of a command that are looked at.
const ARGUMENTS_MAX: usize = 32;

fn is_password(user: &str, value: &str) -> bool {
    value.len() >= 3
        && !value.starts_with(['$', '-', '<', '%', '{', '[', '@'])
        && !checks::is_placeholder(value)
        && !checks::is_example_password(user, value)
}

/// An argument without the quotes around it.
fn unquoted(text: &[u8], (from, to): (usize, usize)) -> (usize, usize) {
    let quote = |b: u8| matches!(b, b'"' | b'\'' | b'\\');
    let begin = run_end(text, from, 2, quote).min(to);
    let tail = text.get(begin..to).unwrap_or_default();
    let closing = tail.iter().rev().take(2).take_while(|b| quote(**b)).count();
    (begin, to - closing)
}

/// The user, and where the password is.
fn user_password(text: &[u8], (from, to): (usize, usize)) -> Option<(&str, (usize, usize))> {
    let argument = text.get(from..to)?;
    let sign = memchr::memchr3(b':', b'%', b',', argument)?;
    let user = std::str::from_utf8(argument.get(..sign)?).ok()?;
    (!user.is_empty() && from + sign + 1 < to).then_some((user, (from + sign + 1, to)))
}
