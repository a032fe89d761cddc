//! From matches in the scan buffer to findings in the payload: walks them back, sorts out which of
//! several on the same characters count, and writes the redacted payload.

use std::cmp::Reverse;

use super::action::Action;
use super::document::{Document, Origin, Part, Place, Segment, Walk};
use super::exceptions::{Exception, is_possible};
use super::finding::{Finding, MAX_DIGEST_INPUT, MAX_FINDINGS, RuleInfo, Scan};
use super::hits::{Hit, Hits};
use super::kinds::Kind;
use super::layers::EscapedWalk;
use crate::content::BESIDE;
use crate::json;

/// Most matches behind a decoded one among which the same one, undecoded, is looked for.
const ECHOES: usize = 16;
/// Most overlapping matches that a match is compared with.
const OVERLAPS: usize = 8;

/// A match, walked back to the payload.
#[derive(Debug, Clone, Copy)]
struct Match {
    /// Bytes of the segment of the payload, in the buffer.
    start: usize,
    end: usize,
    /// Bytes of the matched text itself, which may be decoded.
    text: (usize, usize),
    rule: u16,
    action: Action,
    /// The exception that says so, by its place among those that are looked at.
    exception: Option<u16>,
}

/// A match with its segment and its place there.
#[derive(Debug, Clone, Copy)]
struct Placed {
    found: Match,
    index: usize,
    segment: Segment,
    place: Place,
}

/// Turns the matches of a scan into its outcome.
pub(super) fn settle(
    (rules, exceptions): (&[RuleInfo], &[&Exception]),
    document: &Document,
    hits: &Hits,
    texts: &[(&'static str, &str); BESIDE],
    data: &str,
) -> Scan {
    let mut hits_in_order: Vec<&Hit> = hits.list.iter().collect();
    hits_in_order.sort_by_key(|hit| hit.start);
    let mut walk = EscapedWalk::default();
    let mut matches: Vec<Match> =
        hits_in_order.into_iter().map(|hit| to_payload(document, hit, &mut walk)).collect();
    // Where not all matches are known, no exception says what the others would.
    let exceptions = if hits.dropped > 0 { &[] } else { exceptions };
    decide(&mut matches, (rules, exceptions), document, texts, data);
    // Looked for because of an exception that is about something else.
    matches.retain(|found| found.action != Action::Allow || found.exception.is_some());
    let mut used: Vec<u16> = matches.iter().filter_map(|found| found.exception).collect();
    used.sort_unstable();
    used.dedup();
    let name = |place: &u16| exceptions.get(usize::from(*place)).map(|one| one.name.clone());
    let used: Vec<_> = used.iter().filter_map(name).collect();
    matches.sort_by_key(|found| (found.start, Reverse(found.end), found.rule));
    let matches = without_echoes(document, &matches);
    let kept = without_overlaps(rules, &matches);
    let placed = place(document, &kept, texts, data);

    let mut action = hits.dropped_action;
    for found in &placed {
        let own = found.found.action;
        let fixed = found.segment.part == Part::Beside && own == Action::Redact;
        action = action.max(if fixed { Action::Block } else { own });
    }
    // What was dropped cannot be redacted.
    if action == Action::Redact && hits.dropped > 0 {
        action = Action::Block;
    }
    let mut redacted = None;
    if action == Action::Redact {
        redacted = redact(rules, document, &placed, data);
        if redacted.is_none() {
            action = Action::Block;
        }
    }
    let masks = masked_keys(rules, document, &placed, data);
    let mut order: Vec<&Placed> = placed.iter().collect();
    order.sort_by_key(|found| Reverse(found.found.action));
    let findings: Vec<Finding> = order
        .iter()
        .take(MAX_FINDINGS)
        .filter_map(|found| finding((rules, exceptions), document, found, (texts, data), &masks))
        .collect();
    let further = placed.len() - findings.len() + hits.dropped;
    Scan { action, findings, further, exceptions: used, redacted, truncated: false }
}

/// Walks a match in a decoded text back to the text of the payload it was decoded from.
fn to_payload(document: &Document, hit: &Hit, walk: &mut EscapedWalk) -> Match {
    let Some((number, segment)) = document.segment_at(hit.start) else {
        return matched((hit.start, hit.end), hit);
    };
    let whole = (segment.source as usize, segment.source_end as usize);
    let base = segment.start as usize;
    let (start, end) = match segment.origin {
        Origin::Same | Origin::Folded => (hit.start, hit.end),
        Origin::Inner => (whole.0 + hit.start - base, whole.0 + hit.end - base),
        Origin::Decoded => whole,
        Origin::Percent => {
            let source = document.slice(whole).unwrap_or_default();
            let (start, end) = walk.span(number, source, hit.start - base, hit.end - base);
            (whole.0 + start, whole.0 + end)
        }
    };
    matched((start, end), hit)
}

/// A match whose action is decided next.
fn matched((start, end): (usize, usize), hit: &Hit) -> Match {
    let text = (hit.start, hit.end);
    Match { start, end, text, rule: hit.rule, action: Action::Block, exception: None }
}

/// What each match leads to: before any is left out for another, so that an exception lets nothing pass but what it is about.
fn decide(
    matches: &mut [Match],
    (rules, exceptions): (&[RuleInfo], &[&Exception]),
    document: &Document,
    texts: &[(&'static str, &str); BESIDE],
    data: &str,
) {
    for found in matches {
        let number = usize::from(found.rule);
        let Some(rule) = rules.get(number) else { continue };
        found.action = rule.action;
        let mut pointer = None;
        for (place, exception) in exceptions.iter().enumerate() {
            let Some(action) = exception.action_of(rule, is_possible(number)) else { continue };
            let pointer = pointer.get_or_insert_with(|| {
                let (_, segment) = document.segment_at(found.start)?;
                let (place, whole) =
                    pointer_of(document, &segment, (texts, data), &|_, name| name.to_owned());
                whole.then_some(place)
            });
            if exception.fits(pointer.as_deref()) {
                (found.action, found.exception) = (action, Some(place as u16));
                break;
            }
        }
    }
}

/// Where a segment is: the name of the text beside the payload, else a pointer into it, with its keys as `named` shows them; and whether
/// that is whole.
fn pointer_of(
    document: &Document,
    segment: &Segment,
    (texts, data): (&[(&'static str, &str); BESIDE], &str),
    named: &dyn Fn(u32, &str) -> String,
) -> (String, bool) {
    if segment.part == Part::Beside {
        return (texts.get(segment.step as usize).map_or("", |(place, _)| place).to_owned(), true);
    }
    document.pointer(segment, data, named)
}

/// Drops matches in decoded texts that stand undecoded in the same place, where they are told exactly.
fn without_echoes(document: &Document, matches: &[Match]) -> Vec<Match> {
    let direct = |found: &Match| found.text == (found.start, found.end);
    let echo = |index: usize, found: &Match| {
        let later = matches.get(index + 1..).unwrap_or_default().iter();
        let text = document.slice(found.text);
        later
            .take(ECHOES)
            .take_while(|other| other.start < found.end)
            .any(|other| direct(other) && other.rule == found.rule && document.slice(other.text) == text)
    };
    let kept = matches.iter().enumerate().filter(|(index, found)| direct(found) || !echo(*index, found));
    kept.map(|(_, found)| *found).collect()
}

/// Drops matches that another one on the same characters makes needless.
fn without_overlaps(rules: &[RuleInfo], matches: &[Match]) -> Vec<Match> {
    let mut kept: Vec<Match> = Vec::with_capacity(matches.len());
    for found in matches {
        let mut needless = false;
        let from = kept.len().saturating_sub(OVERLAPS);
        for other in kept.get_mut(from..).unwrap_or_default().iter_mut().rev() {
            if other.end <= found.start {
                continue;
            }
            let (Some(mine), Some(its)) =
                (rules.get(usize::from(found.rule)), rules.get(usize::from(other.rule)))
            else {
                continue;
            };
            if mine.kind == its.kind {
                // A rule of one's own stands beside the built-in one only where it says something else.
                needless = true;
                if other.action < found.action {
                    (other.rule, other.action, other.exception) = (found.rule, found.action, found.exception);
                }
                other.end = other.end.max(found.end);
                break;
            }
            let within = found.end <= other.end;
            if within && its.class >= mine.class && other.action >= found.action {
                needless = true;
                break;
            }
            let around = found.start == other.start && found.end >= other.end;
            if around && mine.class > its.class && found.action >= other.action {
                *other = *found;
                needless = true;
                break;
            }
            // The value behind a name is told better by a shape inside it, as long as that does as much.
            if within && mine.class > its.class && found.action >= other.action && covers(other, found) {
                // All of the value is what is redacted.
                *other = Match { start: other.start, end: other.end, ..*found };
                needless = true;
                break;
            }
        }
        if !needless {
            kept.push(*found);
        }
    }
    kept
}

/// True when a match inside another leaves little of it.
fn covers(outer: &Match, inner: &Match) -> bool {
    (inner.end - inner.start) * 4 >= (outer.end - outer.start) * 3
}

/// Walks matches, which are in the order of the buffer, back to characters and bytes.
fn place(
    document: &Document,
    matches: &[Match],
    texts: &[(&'static str, &str); BESIDE],
    data: &str,
) -> Vec<Placed> {
    let mut placed = Vec::with_capacity(matches.len());
    let mut walk: Option<(usize, Walk<'_>)> = None;
    for found in matches {
        let Some((index, segment)) = document.segment_at(found.start) else { continue };
        let (start, end) = segment.span();
        if walk.as_ref().is_none_or(|(current, _)| *current != index) {
            let in_payload = segment.part != Part::Beside;
            let source =
                if in_payload { data } else { texts.get(segment.step as usize).map_or("", |(_, text)| text) };
            let text = source.get(segment.source as usize..segment.source_end as usize).unwrap_or_default();
            walk = Some((index, Walk::new(text, segment.origin, in_payload, segment.source as usize)));
        }
        let Some((_, walk)) = walk.as_mut() else { continue };
        let place = walk.place(found.start - start, found.end.min(end) - start);
        placed.push(Placed { found: *found, index, segment, place });
    }
    placed
}

fn digits_of(text: &str) -> impl DoubleEndedIterator<Item = char> + '_ {
    text.chars().filter(char::is_ascii_digit)
}

/// What stands in place of a match.
fn replacement(rules: &[RuleInfo], document: &Document, found: &Match) -> String {
    let Some(rule) = rules.get(usize::from(found.rule)) else { return "[REDACTED]".to_owned() };
    if &*rule.kind == Kind::Ssn.name() {
        let text = document.slice(found.text).unwrap_or_default();
        let mut last: Vec<char> = digits_of(text).rev().take(4).collect();
        last.reverse();
        if last.len() == 4 {
            return format!("XXX-XX-{}", last.iter().collect::<String>());
        }
    }
    format!("[REDACTED:{}]", rule.kind)
}

/// The keys that hold matches, by number of their segment, as pointers show them.
fn masked_keys(rules: &[RuleInfo], document: &Document, placed: &[Placed], data: &str) -> Vec<(u32, String)> {
    let mut masks: Vec<(u32, String)> = Vec::new();
    let mut at = 0;
    for found in placed.iter().filter(|found| found.segment.part == Part::Key) {
        let source =
            data.get(found.segment.source as usize..found.segment.source_end as usize).unwrap_or_default();
        let base = found.segment.source as usize;
        let part = |from: usize, to: usize| -> String {
            let raw = source.get(from..to.max(from)).unwrap_or_default();
            super::fold::SourceChars::new(raw, true).collect()
        };
        let index = found.index as u32;
        if masks.last().is_none_or(|(last, _)| *last != index) {
            masks.push((index, String::new()));
            at = 0;
        }
        let (start, end) = (found.place.bytes.0 - base, found.place.bytes.1 - base);
        let Some((_, mask)) = masks.last_mut() else { continue };
        if start >= at {
            mask.push_str(&part(at, start));
            mask.push_str(&replacement(rules, document, &found.found));
        }
        at = at.max(end);
    }
    // The rest of each key, behind its last match.
    for (index, mask) in &mut masks {
        let last =
            placed.iter().filter(|found| found.index as u32 == *index).map(|found| found.place.bytes.1).max();
        let end = document.segments.get(*index as usize).map_or(0, |segment| segment.source_end as usize);
        let tail = data.get(last.unwrap_or(end)..end).unwrap_or_default();
        mask.extend(super::fold::SourceChars::new(tail, true));
    }
    masks
}

fn finding(
    (rules, exceptions): (&[RuleInfo], &[&Exception]),
    document: &Document,
    found: &Placed,
    (texts, data): (&[(&'static str, &str); BESIDE], &str),
    masks: &[(u32, String)],
) -> Option<Finding> {
    let rule = rules.get(usize::from(found.found.rule))?;
    let text = document.slice(found.found.text).unwrap_or_default();
    let text: Vec<u8> = if rule.built_in.is_some_and(Kind::is_digits) {
        digits_of(text).map(|digit| digit as u8).take(MAX_DIGEST_INPUT).collect()
    } else {
        text.bytes().take(MAX_DIGEST_INPUT).collect()
    };
    let (pointer, _) = pointer_of(document, &found.segment, (texts, data), &|key, name| {
        let mask = masks.binary_search_by_key(&key, |(index, _)| *index).ok().and_then(|at| masks.get(at));
        mask.map_or_else(|| name.to_owned(), |(_, mask)| mask.clone())
    });
    Some(Finding {
        kind: rule.kind.clone(),
        rule: rule.id.clone(),
        pointer,
        start: found.place.chars.0,
        end: found.place.chars.1,
        action: found.found.action,
        exception: found
            .found
            .exception
            .and_then(|place| exceptions.get(usize::from(place)))
            .map(|one| one.name.clone()),
        in_key: found.segment.part == Part::Key,
        text: text.into(),
    })
}

/// The payload with every match that is to be redacted replaced; nothing when that cannot be written
/// without two equal keys in one object.
fn redact(rules: &[RuleInfo], document: &Document, placed: &[Placed], data: &str) -> Option<String> {
    let edits: Vec<&Placed> = placed
        .iter()
        .filter(|found| found.found.action == Action::Redact && found.segment.part != Part::Beside)
        .collect();
    let in_keys = edits.iter().any(|found| found.segment.part == Part::Key);
    let plain = write(rules, document, &edits, data, false);
    if !in_keys || json::check_object(&plain, usize::MAX).is_ok() {
        return Some(plain);
    }
    // Two keys may have become one; they are told apart by their order.
    let numbered = write(rules, document, &edits, data, true);
    json::check_object(&numbered, usize::MAX).is_ok().then_some(numbered)
}

fn write(
    rules: &[RuleInfo],
    document: &Document,
    edits: &[&Placed],
    data: &str,
    number_keys: bool,
) -> String {
    let mut out = String::with_capacity(data.len() + edits.len() * 16);
    let mut copied = 0;
    let mut keys = 0;
    let mut open: Option<(usize, usize)> = None;
    for edit in edits {
        let segment = &edit.segment;
        if open.is_some_and(|(index, _)| index != edit.index) {
            close(&mut out, &mut copied, &mut open, data);
        }
        let (start, end) = edit.place.bytes;
        // A number that is not one any more becomes a string.
        if segment.part == Part::Number && open.is_none() {
            out.push_str(data.get(copied..segment.source as usize).unwrap_or_default());
            out.push('"');
            copied = segment.source as usize;
            open = Some((edit.index, segment.source_end as usize));
        }
        if start >= copied {
            out.push_str(data.get(copied..start).unwrap_or_default());
            out.push_str(&replacement(rules, document, &edit.found));
            if number_keys && segment.part == Part::Key {
                keys += 1;
                out.push_str(&format!(" ({keys})"));
            }
        }
        copied = copied.max(end);
    }
    close(&mut out, &mut copied, &mut open, data);
    out.push_str(data.get(copied..).unwrap_or_default());
    out
}

/// Ends the string that a number became.
fn close(out: &mut String, copied: &mut usize, open: &mut Option<(usize, usize)>, data: &str) {
    if let Some((_, end)) = open.take() {
        out.push_str(data.get(*copied..end).unwrap_or_default());
        out.push('"');
        *copied = end;
    }
}
