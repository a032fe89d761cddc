//! Decisions as they are committed, as server-sent events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet_events::Others;
use super::http::{EventSource, Next, Request};
use super::sources::Sources;
use crate::audit::json::record_json;
use crate::audit::watchers::{Block, Watcher};
use crate::audit::{Action, Decision, LaneId, View};

/// How often it is asked whether a client may still see records.
const LOOK: Duration = Duration::from_secs(1);

/// Most records a second that a client may ask for.
const MAX_PER_SECOND: u32 = 1_000;

/// Which records a client wants; of each kind nothing: all.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Records that name one of these as sender or target.
    agents: Vec<String>,
    from: Vec<String>,
    to: Vec<String>,
    actions: Vec<Action>,
    decisions: Vec<Decision>,
    /// Records that are sent in a second at most; the others are counted.
    per_second: Option<u32>,
    /// Also what the other servers commit.
    fleet: bool,
}

impl Wanted {
    /// What the query asks for; the error is what the client is told.
    pub(super) fn of(request: &Request) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in request.query() {
            let values = value.split(',').filter(|value| !value.is_empty());
            match name.as_str() {
                "agent" => wanted.agents.extend(values.map(str::to_owned)),
                "from" => wanted.from.extend(values.map(str::to_owned)),
                "to" => wanted.to.extend(values.map(str::to_owned)),
                "action" => {
                    for value in values {
                        let found = Action::ALL.iter().find(|action| action.as_str() == value);
                        wanted.actions.push(
                            *found.ok_or_else(|| {
                                unknown("action", value, names(Action::ALL, |a| a.as_str()))
                            })?,
                        );
                    }
                }
                "decision" => {
                    for value in values {
                        let found = Decision::ALL
                            .iter()
                            .find(|decision| decision.as_str().eq_ignore_ascii_case(value));
                        wanted.decisions.push(*found.ok_or_else(|| {
                            unknown("decision", value, names(Decision::ALL, |d| d.as_str()))
                        })?);
                    }
                }
                "fleet" => {
                    wanted.fleet = match value.as_str() {
                        "0" => false,
                        "1" => true,
                        _ => return Err(format!("fleet={value}: expected 0 or 1")),
                    };
                }
                "per_second" => {
                    let number = value.parse().ok().filter(|number| (1..=MAX_PER_SECOND).contains(number));
                    wanted.per_second = Some(
                        number
                            .ok_or_else(|| format!("per_second={value}: expected 1 to {MAX_PER_SECOND}"))?,
                    );
                }
                other => {
                    return Err(format!(
                        "{other:?} is no filter; expected agent, from, to, action, decision, fleet or per_second"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn wants(&self, record: &View<'_>) -> bool {
        let named = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
        (self.actions.is_empty() || self.actions.contains(&record.action))
            && (self.decisions.is_empty() || self.decisions.contains(&record.decision))
            && named(&self.from, record.agent)
            && named(&self.to, record.target)
            && (self.agents.is_empty()
                || self.agents.iter().any(|agent| agent == record.agent || agent == record.target))
    }
}

fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> String {
    all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ")
}

fn unknown(kind: &str, value: &str, expected: String) -> String {
    format!("{value:?} is no {kind}; expected one of {expected}")
}

/// Whether the client may still see records.
pub(super) type MayGoOn = dyn Fn() -> bool + Send;

/// The events of one client.
pub(super) struct Events {
    sources: Arc<Sources>,
    /// From the first question on: by then the stream has its place.
    watcher: Option<Watcher>,
    wanted: Wanted,
    may_go_on: Box<MayGoOn>,
    asked: Instant,
    /// The lane and the bytes of the block that is being read, and how far.
    block: Option<(LaneId, Bytes, usize)>,
    /// What the other servers commit, where that is wanted.
    others: Option<Others>,
    pace: Pace,
}

/// A block's bytes.
enum Bytes {
    /// This server's.
    Own(Block),
    /// Another one's.
    Other(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Own(block) => &block.bytes,
            Self::Other(bytes) => bytes,
        }
    }
}

/// How many records were sent in this second, where that has a bound.
#[derive(Debug)]
struct Pace {
    since: Instant,
    sent: u32,
    skipped: u64,
}

impl Pace {
    /// How many were left out in the second that is over.
    fn take_skipped(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.since) < LOOK {
            return 0;
        }
        (self.since, self.sent) = (now, 0);
        std::mem::take(&mut self.skipped)
    }

    /// Whether one more may be sent in this second.
    fn admits(&mut self, most: Option<u32>) -> bool {
        let admitted = most.is_none_or(|most| self.sent < most);
        self.sent = self.sent.saturating_add(1);
        self.skipped += u64::from(!admitted);
        admitted
    }
}

impl Events {
    pub(super) fn new(sources: Arc<Sources>, wanted: Wanted, may_go_on: Box<MayGoOn>) -> Self {
        let now = Instant::now();
        let pace = Pace { since: now, sent: 0, skipped: 0 };
        let others = wanted.fleet.then(|| Others::new(sources.clone()));
        Self { sources, watcher: None, wanted, may_go_on, asked: now, block: None, others, pace }
    }

    /// The next record of the block that is wanted.
    fn record(&mut self) -> Option<Next> {
        let (lane, block, at) = self.block.as_mut()?;
        while let Some((length, rest)) = block.get().get(*at..).and_then(<[u8]>::split_first_chunk::<4>) {
            let length = u32::from_be_bytes(*length) as usize;
            *at += 4 + length;
            let record = rest.get(..length).and_then(View::decode);
            if let Some(record) = record.filter(|record| self.wanted.wants(record))
                && self.pace.admits(self.wanted.per_second)
            {
                return Some(Next::Event {
                    id: Some(format!("{lane} {}", record.seq)),
                    name: Some("record".to_owned()),
                    data: record_json(lane, &record).to_string(),
                });
            }
        }
        self.block = None;
        None
    }
}

impl EventSource for Events {
    fn next(&mut self, until: Instant) -> Next {
        loop {
            let now = Instant::now();
            if now.saturating_duration_since(self.asked) >= LOOK {
                self.asked = now;
                if !(self.may_go_on)() {
                    return Next::End;
                }
            }
            let skipped = self.pace.take_skipped(now);
            if skipped > 0 {
                return Next::Event {
                    id: None,
                    name: Some("skipped".to_owned()),
                    data: serde_json::json!({"records": skipped}).to_string(),
                };
            }
            if let Some(event) = self.record() {
                return event;
            }
            let watchers = &self.sources.shards.shared().watchers;
            let watcher = self.watcher.get_or_insert_with(|| watchers.watch());
            let missed = watcher.take_missed() + self.others.as_mut().map_or(0, Others::take_missed);
            if missed > 0 {
                return Next::Event {
                    id: None,
                    name: Some("missed".to_owned()),
                    data: serde_json::json!({"blocks": missed}).to_string(),
                };
            }
            if let Some((lane, bytes)) = self.others.as_mut().and_then(|others| others.next(now)) {
                self.block = Some((lane, Bytes::Other(bytes), 0));
                continue;
            }
            let own = watcher.next(until.saturating_duration_since(now));
            self.block = own.map(|block| (block.lane.clone(), Bytes::Own(block), 0));
            // Also where blocks keep coming of which nothing is wanted.
            if now >= until {
                return Next::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_a_second_is_counted() {
        let now = Instant::now();
        let mut pace = Pace { since: now, sent: 0, skipped: 0 };
        assert_eq!((0..5).filter(|_| pace.admits(Some(2))).count(), 2);
        assert_eq!(pace.take_skipped(now), 0);
        assert_eq!(pace.take_skipped(now + LOOK), 3);
        assert_eq!((0..5).filter(|_| pace.admits(Some(2))).count(), 2);
        assert_eq!(pace.take_skipped(now + 2 * LOOK), 3);
        assert_eq!((0..5).filter(|_| pace.admits(None)).count(), 5);
        assert_eq!(pace.take_skipped(now + 3 * LOOK), 0);
    }
}
