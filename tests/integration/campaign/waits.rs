//! How long messages wait for a receiver that could have them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::arena::RECLAIM_IDLE;
use super::history::{Delivered, Seen, Word};
use super::settled::Report;

/// A server's lease: what a server that is gone held is others' after it at the latest.
const LEASE: Duration = Duration::from_secs(4);
/// What everything else may take.
const SLACK: Duration = Duration::from_secs(2);
/// Nothing waits longer than this while a receiver is connected and nothing is broken.
pub const LONGEST_WAIT: Duration =
    Duration::from_millis((RECLAIM_IDLE.as_millis() + LEASE.as_millis() + SLACK.as_millis()) as u64);

/// From and to, in Unix microseconds.
type Span = (u64, u64);

/// Unites spans that touch, in order.
fn united(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut united: Vec<Span> = Vec::new();
    for (from, to) in spans {
        match united.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => united.push((from, to)),
        }
    }
    united
}

fn within(spans: &[Span], (from, to): Span) -> impl Iterator<Item = Span> {
    let first = spans.partition_point(|span| span.1 <= from);
    let rest = spans[first..].iter().take_while(move |span| span.0 < to);
    rest.map(move |span| (span.0.max(from), span.1.min(to)))
}

/// The stretches between `spans`, from `from` to `to`.
fn between(spans: &[Span], from: u64, to: u64) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut at = from;
    for span in within(spans, (from, to)) {
        if span.0 > at {
            gaps.push((at, span.0));
        }
        at = span.1;
    }
    if at < to {
        gaps.push((at, to));
    }
    gaps
}

/// When sessions ended: what is not known of a process that was killed ended with it.
fn ends(seen: &Seen) -> HashMap<u64, u64> {
    let died: HashMap<u32, u64> = seen.died.iter().copied().collect();
    let mut ends: HashMap<u64, u64> = seen
        .opened
        .iter()
        .map(|opened| (opened.session, died.get(&opened.pid).copied().unwrap_or(seen.ended_us)))
        .collect();
    ends.extend(seen.closed.iter().copied());
    ends
}

/// When each agent had a session.
fn connected(seen: &Seen, ends: &HashMap<u64, u64>) -> HashMap<String, Vec<Span>> {
    let mut connected: HashMap<String, Vec<Span>> = HashMap::new();
    for opened in &seen.opened {
        let end_us = ends.get(&opened.session).copied().unwrap_or(seen.ended_us);
        connected.entry(opened.agent.clone()).or_default().push((opened.at_us, end_us));
    }
    connected.into_iter().map(|(agent, spans)| (agent, united(spans))).collect()
}

/// When a message had no receiver, until it had one; `to` the end where it has not left its inbox.
fn unheld(
    seen: &Seen,
    accepted_us: u64,
    deliveries: &[&Delivered],
    lost: &HashMap<(&str, u64, u32), u64>,
    is_queued: bool,
    ends: &HashMap<u64, u64>,
) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut since = Some(accepted_us);
    for delivery in deliveries {
        if let Some(since) = since {
            spans.push((since, delivery.at_us.max(since)));
        }
        let refused = lost.get(&(delivery.message_id.as_str(), delivery.session, delivery.attempt));
        since = refused.or_else(|| ends.get(&delivery.session)).copied();
    }
    if let Some(since) = since.filter(|since| is_queued && *since < seen.ended_us) {
        spans.push((since, seen.ended_us));
    }
    spans
}

/// Holds waits against the longest that is promised: only quiet time counts in which the target had a session.
pub fn check(seen: &Seen, queued: &HashSet<String>, report: Report<'_>) {
    let ends = ends(seen);
    let connected = connected(seen, &ends);
    let disturbed = united(seen.disturbed.iter().map(|d| (d.from_us, d.to_us)).collect());
    let mut deliveries: HashMap<&str, Vec<&Delivered>> = HashMap::new();
    for delivery in &seen.delivered {
        deliveries.entry(&delivery.message_id).or_default().push(delivery);
    }
    for list in deliveries.values_mut() {
        list.sort_unstable_by_key(|delivery| delivery.at_us);
    }
    let refused = seen.said.iter().filter(|said| said.word == Word::Nack);
    let lost: HashMap<(&str, u64, u32), u64> = refused
        .map(|said| ((said.held.message_id.as_str(), said.held.session, said.held.attempt), said.at_us))
        .collect();
    let no_deliveries = Vec::new();
    for message in &seen.accepted {
        let id = message.message_id.as_str();
        let list = deliveries.get(id).unwrap_or(&no_deliveries);
        let spans = unheld(seen, message.at_us, list, &lost, queued.contains(id), &ends);
        let waited = spans.iter().flat_map(|(from, to)| between(&disturbed, *from, *to));
        let longest = waited
            .map(|span| {
                let sessions = connected.get(&message.target).map_or(&[][..], Vec::as_slice);
                (within(sessions, span).map(|(from, to)| to - from).sum::<u64>(), span)
            })
            .max();
        if let Some((longest, (from, to))) =
            longest.filter(|(longest, _)| u128::from(*longest) > LONGEST_WAIT.as_micros())
        {
            report(format!(
                "{id} to {}: waited {} ms while a receiver was connected, from {from} to {to} us, delivered {} times",
                message.target,
                longest / 1000,
                list.len()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_united_and_cut() {
        let spans = united(vec![(5, 7), (1, 3), (2, 4)]);
        assert_eq!(spans, [(1, 4), (5, 7)]);
        assert_eq!(between(&spans, 0, 10), [(0, 1), (4, 5), (7, 10)]);
        assert_eq!(between(&spans, 2, 6), [(4, 5)]);
        assert_eq!(within(&spans, (3, 6)).collect::<Vec<_>>(), [(3, 4), (5, 6)]);
    }
}
